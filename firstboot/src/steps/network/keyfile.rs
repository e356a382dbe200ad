//! The profile as a NetworkManager keyfile: `man nm-settings-keyfile`.

use std::fmt::Write;
use std::net::IpAddr;

use super::{NAME, UUID};
use crate::settings::{HostName, Ipv4Method, Ipv6Method, Network};

/// Renders the profile.
pub fn render(network: &Network, interface: &str) -> String {
    // Retries without end: a router that comes back after an hour must find us.
    let mut text = format!(
        "[connection]\nid={NAME}\nuuid={UUID}\ntype=ethernet\ninterface-name={interface}\nautoconnect=true\n\
         autoconnect-priority=100\nautoconnect-retries=0\n"
    );
    let (ipv6, ipv4) = (&network.ipv6, &network.ipv4);
    let method = match ipv4.method {
        Ipv4Method::Dhcp => "auto",
        Ipv4Method::Static => "manual",
        Ipv4Method::Off => "disabled",
    };
    family(&mut text, "ipv4", method, &ipv4.addresses, ipv4.gateway.as_ref());
    if ipv4.method != Ipv4Method::Off {
        resolvers(&mut text, network, IpAddr::is_ipv4);
    }
    let method = match ipv6.method {
        Ipv6Method::Auto => "auto",
        Ipv6Method::Static => "manual",
        Ipv6Method::Off => "disabled",
    };
    family(&mut text, "ipv6", method, &ipv6.addresses, ipv6.gateway.as_ref());
    if ipv6.method != Ipv6Method::Off {
        // A server keeps the address by which its router and its DNS know it.
        text.push_str("ip6-privacy=0\n");
        resolvers(&mut text, network, IpAddr::is_ipv6);
    }
    text
}

fn family<A: ToString, G: ToString>(
    text: &mut String,
    name: &str,
    method: &str,
    addresses: &[A],
    gateway: Option<&G>,
) {
    let mut line = |key: &str, value: &str| {
        // OK: writing to a string cannot fail.
        let _ = writeln!(text, "{key}{value}");
    };
    line("\n[", &format!("{name}]"));
    line("method=", method);
    for (index, address) in addresses.iter().enumerate() {
        line(&format!("address{}=", index + 1), &address.to_string());
    }
    if let Some(gateway) = gateway {
        line("gateway=", &gateway.to_string());
    }
}

fn resolvers(text: &mut String, network: &Network, belongs: fn(&IpAddr) -> bool) {
    let own: Vec<String> = network.dns.iter().filter(|dns| belongs(dns)).map(ToString::to_string).collect();
    if !own.is_empty() {
        let _ = writeln!(text, "dns={};", own.join(";"));
    }
    if !network.dns.is_empty() {
        // Those given are the only ones, also for the family that has none of them.
        text.push_str("ignore-auto-dns=true\n");
    }
    if !network.search.is_empty() {
        let search: Vec<&str> = network.search.iter().map(HostName::as_str).collect();
        let _ = writeln!(text, "dns-search={};", search.join(";"));
    }
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::settings::Settings;

    fn rendered(network: &str) -> String {
        let text = format!("schema = 1\ndomain = \"a.example\"\n[web]\nlisten = \"dual\"\n{network}");
        render(&Settings::parse("test", &text).unwrap().network, "ens160")
    }

    #[test]
    fn defaults_are_router_advertisement_and_dhcp() {
        insta::assert_snapshot!(rendered(""), @"
        [connection]
        id=appliance
        uuid=8f0a7c2e-3b5d-4d1e-9a64-5c2b7e10d4aa
        type=ethernet
        interface-name=ens160
        autoconnect=true
        autoconnect-priority=100
        autoconnect-retries=0

        [ipv4]
        method=auto

        [ipv6]
        method=auto
        ip6-privacy=0
        ");
    }

    #[test]
    fn the_articles_network() {
        let network = "[network]\ndns = [\"2001:db8::53\", \"192.168.100.1\"]\nsearch = [\"example.net\"]\n\
                       [network.ipv6]\naddresses = [\"2001:db8:fc89:100::101/128\"]\n\
                       [network.ipv4]\nmethod = \"static\"\naddresses = [\"192.168.100.154/24\"]\ngateway = \"192.168.100.1\"\n";
        insta::assert_snapshot!(rendered(network), @"
        [connection]
        id=appliance
        uuid=8f0a7c2e-3b5d-4d1e-9a64-5c2b7e10d4aa
        type=ethernet
        interface-name=ens160
        autoconnect=true
        autoconnect-priority=100
        autoconnect-retries=0

        [ipv4]
        method=manual
        address1=192.168.100.154/24
        gateway=192.168.100.1
        dns=192.168.100.1;
        ignore-auto-dns=true
        dns-search=example.net;

        [ipv6]
        method=auto
        address1=2001:db8:fc89:100::101/128
        ip6-privacy=0
        dns=2001:db8::53;
        ignore-auto-dns=true
        dns-search=example.net;
        ");
    }

    #[test]
    fn one_family_alone() {
        let network = "[network.ipv6]\nmethod = \"static\"\naddresses = [\"2001:db8::5/64\"]\ngateway = \"fe80::1\"\n\
                       [network.ipv4]\nmethod = \"off\"\n";
        insta::assert_snapshot!(rendered(network), @"
        [connection]
        id=appliance
        uuid=8f0a7c2e-3b5d-4d1e-9a64-5c2b7e10d4aa
        type=ethernet
        interface-name=ens160
        autoconnect=true
        autoconnect-priority=100
        autoconnect-retries=0

        [ipv4]
        method=disabled

        [ipv6]
        method=manual
        address1=2001:db8::5/64
        gateway=fe80::1
        ip6-privacy=0
        ");
        assert!(rendered("[network.ipv6]\nmethod = \"off\"\n").ends_with("[ipv6]\nmethod=disabled\n"));
    }
}
