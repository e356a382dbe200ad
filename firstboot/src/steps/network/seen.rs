//! What the network looks like, and whether that is enough.

use std::net::IpAddr;

use crate::engine::Observation;
use crate::settings::{Ipv4Method, Ipv6Method, Listen, Network};

/// One look at the network.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Addresses of the interface.
    pub addresses: Vec<Address>,
    /// Whether there is a default route for IPv6.
    pub ipv6_route: bool,
    /// Whether there is a default route for IPv4.
    pub ipv4_route: bool,
    /// Whether a resolver is known.
    pub resolver: bool,
    /// Addresses that the kernel has lately found at another machine; looked for when one that the settings name cannot be used.
    pub taken: Vec<Taken>,
}

/// An address that another machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The address itself.
    pub ip: IpAddr,
    /// The other machine's hardware address, if the kernel says it.
    pub by: Option<String>,
}

/// One address of the interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The address itself.
    pub ip: IpAddr,
    /// Usable beyond the link.
    pub global: bool,
    /// Duplicate address detection has not ended.
    pub tentative: bool,
    /// Duplicate address detection found another owner.
    pub duplicate: bool,
}

/// Reads `ip -o address show`.
pub fn addresses(ip: &str) -> Vec<Address> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let family = words.iter().position(|word| *word == "inet" || *word == "inet6")?;
        let ip = words.get(family + 1)?.split('/').next()?.parse().ok()?;
        let has = |word: &str| words[family..].contains(&word);
        let duplicate = has("dadfailed");
        Some(Address { ip, global: has("global"), tentative: has("tentative") && !duplicate, duplicate })
    };
    ip.lines().filter_map(line).collect()
}

/// Whether `/etc/resolv.conf` names a resolver.
pub fn has_resolver(resolv_conf: &str) -> bool {
    resolv_conf.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("nameserver") && words.next().is_some()
    })
}

/// Compares what is wanted with what is seen; the first thing that is missing is named.
pub fn judge(wanted: &Network, listen: Listen, interface: &str, seen: &Seen) -> Observation {
    match missing(wanted, interface, seen).or_else(|| families(wanted, listen, interface, seen)) {
        Some(why) => Observation::Waiting(why),
        None if !seen.resolver => Observation::Waiting(
            "no DNS server: the network names none, so give one as `dns` under `[network]` in the configuration".to_owned(),
        ),
        None => Observation::Done,
    }
}

/// The first wanted address that is missing, not usable yet, or another machine's.
pub fn missing(wanted: &Network, interface: &str, seen: &Seen) -> Option<String> {
    duplicate(wanted, interface, seen).or_else(|| address(wanted, interface, seen))
}

/// Whether NetworkManager would have to set an address again: one is missing, or another machine's. It does not do so by itself.
pub fn is_unset(wanted: &Network, seen: &Seen) -> bool {
    seen.addresses.iter().any(|address| address.duplicate) || absent(wanted, seen).next().is_some()
}

/// The addresses that the settings name.
fn named(wanted: &Network) -> impl Iterator<Item = IpAddr> {
    let ipv6 = wanted.ipv6.addresses.iter().map(|wanted| IpAddr::from(wanted.address));
    ipv6.chain(wanted.ipv4.addresses.iter().map(|wanted| IpAddr::from(wanted.address)))
}

/// Those of them that cannot be used.
fn unusable(wanted: &Network, seen: &Seen) -> impl Iterator<Item = IpAddr> {
    let is_well = |address: &Address| !address.tentative && !address.duplicate;
    named(wanted)
        .filter(move |wanted| !seen.addresses.iter().any(|address| address.ip == *wanted && is_well(address)))
}

/// Those of them that are not there.
fn absent(wanted: &Network, seen: &Seen) -> impl Iterator<Item = IpAddr> {
    named(wanted).filter(|wanted| !seen.addresses.iter().any(|address| address.ip == *wanted))
}

/// Whether a cause may stand in the kernel's log: an address that the settings name cannot be used.
pub fn is_lame(wanted: &Network, seen: &Seen) -> bool {
    unusable(wanted, seen).next().is_some()
}

/// An address that failed its check is shown as such, or taken away, or set once more and checked again, by the version of
/// NetworkManager.
fn duplicate(wanted: &Network, interface: &str, seen: &Seen) -> Option<String> {
    let find = |ip: IpAddr| seen.taken.iter().find(|taken| taken.ip == ip);
    let shown = seen.addresses.iter().find(|address| address.duplicate).map(|address| address.ip);
    let ip = shown.or_else(|| unusable(wanted, seen).find(|ip| find(*ip).is_some()))?;
    let by = find(ip).and_then(|taken| taken.by.as_ref());
    let by = by.map(|by| format!(" (hardware address `{by}`)")).unwrap_or_default();
    Some(format!(
        "duplicate address: `{ip}` on `{interface}` belongs to another machine of this network{by}; give this machine another address, \
         or stop the other one: it is tried again by itself"
    ))
}

/// The first wanted address that is not there or not usable yet.
fn address(wanted: &Network, interface: &str, seen: &Seen) -> Option<String> {
    named(wanted).find_map(|wanted| match seen.addresses.iter().find(|address| address.ip == wanted) {
        None => {
            Some(format!("for the address `{wanted}` on `{interface}`: NetworkManager has not set it yet"))
        }
        Some(address) if address.tentative => {
            Some(format!("for the address `{wanted}` on `{interface}`: it is being checked for duplicates"))
        }
        Some(_) => None,
    })
}

/// What is missing of the families that visitors come by. With both, one is enough: the other may not exist in this network.
fn families(wanted: &Network, listen: Listen, interface: &str, seen: &Seen) -> Option<String> {
    let ipv4_needs_route = listen != Listen::Ipv6 || wanted.ipv4.gateway.is_some();
    let (ipv6, ipv4) = (ipv6(wanted, interface, seen), ipv4(wanted, interface, seen, ipv4_needs_route));
    let ipv6_is_meant = wanted.ipv6.method == Ipv6Method::Static;
    let ipv4_is_meant = wanted.ipv4.method == Ipv4Method::Static;
    match listen {
        Listen::Ipv6 => ipv6.or(ipv4.filter(|_| ipv4_is_meant)),
        Listen::Ipv4 => ipv4.or(ipv6.filter(|_| ipv6_is_meant)),
        Listen::Dual => match (ipv6, ipv4) {
            (Some(why), None) => Some(why).filter(|_| ipv6_is_meant),
            (None, Some(why)) => Some(why).filter(|_| ipv4_is_meant),
            (Some(first), Some(second)) => Some(format!("{first}; {second}")),
            (None, None) => None,
        },
    }
}

fn ipv6(wanted: &Network, interface: &str, seen: &Seen) -> Option<String> {
    let usable = seen.addresses.iter().any(|seen| seen.ip.is_ipv6() && seen.global && !seen.tentative);
    match wanted.ipv6.method {
        Ipv6Method::Off => Some("IPv6 is off".to_owned()),
        Ipv6Method::Auto if !seen.ipv6_route => Some(format!(
            "no router advertisement on `{interface}`: let the router announce an IPv6 prefix, or set `method = \"static\"` under \
             `[network.ipv6]`"
        )),
        Ipv6Method::Static if !seen.ipv6_route => {
            Some("no IPv6 route: give `gateway` under `[network.ipv6]` in the configuration".to_owned())
        }
        _ if !usable => Some(format!("no IPv6 address on `{interface}` that reaches beyond the link yet")),
        _ => None,
    }
}

/// A static address without a gateway is a wish for the link alone, unless visitors come by IPv4: then `needs_route` is set.
fn ipv4(wanted: &Network, interface: &str, seen: &Seen, needs_route: bool) -> Option<String> {
    let usable = seen.addresses.iter().any(|seen| seen.ip.is_ipv4() && seen.global);
    match wanted.ipv4.method {
        Ipv4Method::Off => Some("IPv4 is off".to_owned()),
        Ipv4Method::Dhcp if !usable => Some(format!(
            "no DHCP answer on `{interface}`: start a DHCP server, or set `method = \"static\"` under `[network.ipv4]`"
        )),
        Ipv4Method::Static if needs_route && !seen.ipv4_route => {
            Some("no IPv4 route: give `gateway` under `[network.ipv4]` in the configuration".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Seen, Taken, addresses, has_resolver, is_lame, is_unset, judge, missing};
    use crate::engine::Observation;
    use crate::settings::Settings;

    const ADDRESSES: &str = "\
2: ens160    inet 192.168.100.154/24 brd 192.168.100.255 scope global ens160\\       valid_lft forever preferred_lft forever
2: ens160    inet6 2001:db8::101/128 scope global \\       valid_lft forever preferred_lft forever
2: ens160    inet6 2001:db8::250:56ff:fea7:1/64 scope global dynamic \\       valid_lft 86392sec preferred_lft 14392sec
2: ens160    inet6 fe80::250:56ff:fea7:1/64 scope link \\       valid_lft forever preferred_lft forever
";

    fn check(settings: &str, ip: &str, (ipv6_route, ipv4_route, resolver): (bool, bool, bool)) -> String {
        let settings =
            Settings::parse("test", &format!("schema = 1\ndomain = \"a.example\"\n{settings}")).unwrap();
        let seen = Seen { addresses: addresses(ip), ipv6_route, ipv4_route, resolver, taken: Vec::new() };
        match judge(&settings.network, settings.web.listen, "ens160", &seen) {
            Observation::Done => "done".to_owned(),
            Observation::Waiting(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_lack_is_named() {
        let all = (true, true, true);
        let address = "[network.ipv6]\naddresses = [\"2001:db8::101/128\"]";
        let tentative = ADDRESSES.replace("101/128 scope global", "101/128 scope global tentative");
        let duplicate = ADDRESSES.replace("101/128 scope global", "101/128 scope global tentative dadfailed");
        let link_local = "2: ens160    inet6 fe80::1/64 scope link \\  valid_lft forever";
        let dual = "[web]\nlisten = \"dual\"";
        let only_ipv4 = "[web]\nlisten = \"ipv4\"";
        let on_the_link = "[network.ipv4]\nmethod = \"static\"\naddresses = [\"192.168.100.154/24\"]";
        let with_gateway = format!("{on_the_link}\ngateway = \"192.168.100.1\"");
        let on_the_link_dual = format!("{on_the_link}\n{dual}");
        let ipv4_line = ADDRESSES.lines().next().unwrap();
        for (settings, ip, routes, expected) in [
            ("", ADDRESSES, all, "done"),
            (address, ADDRESSES, all, "done"),
            (address, link_local, all, "for the address `2001:db8::101` on `ens160`: NetworkManager"),
            (address, &tentative, all, "for the address `2001:db8::101` on `ens160`: it is being checked"),
            (address, &duplicate, all, "duplicate address: `2001:db8::101`"),
            ("", link_local, (false, false, false), "no router advertisement"),
            ("", link_local, all, "no IPv6 address"),
            ("", ADDRESSES, (true, true, false), "no DNS server"),
            ("", ADDRESSES, (true, false, true), "done"),
            (dual, ipv4_line, (false, true, true), "done"),
            (dual, link_local, (false, false, true), "no router advertisement"),
            (only_ipv4, link_local, (true, false, true), "no DHCP answer"),
            (only_ipv4, ipv4_line, (false, true, true), "done"),
            (on_the_link, ADDRESSES, (true, false, true), "done"),
            (&with_gateway, ADDRESSES, (true, false, true), "no IPv4 route"),
            (&on_the_link_dual, ADDRESSES, (true, false, true), "no IPv4 route"),
        ] {
            let said = check(settings, ip, routes);
            assert!(said.starts_with(expected), "{settings}: {said}");
        }
    }

    #[test]
    fn a_duplicate_is_named_whether_it_is_shown_gone_or_checked_again() {
        let text = "schema = 1\ndomain = \"a.example\"\n[network.ipv6]\naddresses = [\"2001:db8::101/128\"]";
        let network = Settings::parse("test", text).unwrap().network;
        let taken = Taken { ip: "2001:db8::101".parse().unwrap(), by: Some("52:54:00:12:34:56".to_owned()) };
        let is_ours = |line: &&str| line.contains("101/128");
        let without: String = ADDRESSES
            .lines()
            .filter(|line| !is_ours(line))
            .fold(String::new(), |text, line| text + line + "\n");
        let shown = ADDRESSES.replace("101/128 scope global", "101/128 scope global tentative dadfailed");
        let seen =
            |ip: &str| Seen { addresses: addresses(ip), taken: vec![taken.clone()], ..Seen::default() };
        let tentative = ADDRESSES.replace("101/128 scope global", "101/128 scope global tentative");
        for ip in [&without, &shown, &tentative] {
            assert!(is_lame(&network, &seen(ip)));
            assert_eq!(
                is_unset(&network, &seen(ip)),
                ip != &tentative,
                "what is being checked is left in peace"
            );
            insta::allow_duplicates! {
                insta::assert_snapshot!(missing(&network, "ens160", &seen(ip)).unwrap(), @"duplicate address: `2001:db8::101` on `ens160` belongs to another machine of this network (hardware address `52:54:00:12:34:56`); give this machine another address, or stop the other one: it is tried again by itself");
            }
        }
        assert!(!is_lame(&network, &seen(ADDRESSES)) && !is_unset(&network, &seen(ADDRESSES)));
        assert_eq!(missing(&network, "ens160", &seen(ADDRESSES)), None, "the log tells of the past");
    }

    #[test]
    fn resolvers_are_found() {
        for (text, expected) in [
            ("nameserver 2001:db8::53\n", true),
            ("# nameserver ::1\nsearch example.net\n", false),
            ("", false),
        ] {
            assert_eq!(has_resolver(text), expected, "{text:?}");
        }
    }
}
