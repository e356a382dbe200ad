//! The profile as an ifcfg file, for distributions whose `nmtui` edits those: `man nm-settings-ifcfg-rh`.

use std::fmt::Write;

use super::{NAME, UUID};
use crate::settings::{HostName, Ipv4Method, Ipv6Method, Network};

/// Renders the profile. Every value comes from a validated type, so none needs shell quoting beyond the quotes of lists.
pub fn render(network: &Network, interface: &str) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        // OK: writing to a string cannot fail.
        let _ = writeln!(text, "{key}={value}");
    };
    line("TYPE", "Ethernet");
    line("NAME", NAME);
    line("UUID", UUID);
    line("DEVICE", interface);
    line("ONBOOT", "yes");
    line("AUTOCONNECT_PRIORITY", "100");
    line("AUTOCONNECT_RETRIES", "0");
    let ipv4 = &network.ipv4;
    line("BOOTPROTO", if ipv4.method == Ipv4Method::Dhcp { "dhcp" } else { "none" });
    for (index, address) in ipv4.addresses.iter().enumerate() {
        line(&numbered("IPADDR", index), &address.address.to_string());
        line(&numbered("PREFIX", index), &address.prefix.to_string());
    }
    if let Some(gateway) = ipv4.gateway {
        line("GATEWAY", &gateway.to_string());
    }
    // The machine is whole with either family alone.
    line("IPV4_FAILURE_FATAL", "no");
    line("IPV6_FAILURE_FATAL", "no");
    let ipv6 = &network.ipv6;
    if ipv6.method == Ipv6Method::Off {
        line("IPV6INIT", "no");
    } else {
        line("IPV6INIT", "yes");
        line("IPV6_AUTOCONF", if ipv6.method == Ipv6Method::Auto { "yes" } else { "no" });
        line("IPV6_PRIVACY", "no");
        if let Some((first, others)) = ipv6.addresses.split_first() {
            line("IPV6ADDR", &first.to_string());
            if !others.is_empty() {
                let others: Vec<String> = others.iter().map(ToString::to_string).collect();
                line("IPV6ADDR_SECONDARIES", &format!("\"{}\"", others.join(" ")));
            }
        }
        if let Some(gateway) = ipv6.gateway {
            line("IPV6_DEFAULTGW", &gateway.to_string());
        }
    }
    for (index, resolver) in network.dns.iter().enumerate() {
        line(&format!("DNS{}", index + 1), &resolver.to_string());
    }
    if !network.dns.is_empty() {
        // Those given are the only ones.
        line("PEERDNS", "no");
        line("IPV6_PEERDNS", "no");
    }
    if !network.search.is_empty() {
        let search: Vec<&str> = network.search.iter().map(HostName::as_str).collect();
        line("DOMAIN", &format!("\"{}\"", search.join(" ")));
    }
    text
}

/// `IPADDR`, `IPADDR1`, `IPADDR2`: the first has no number.
fn numbered(key: &str, index: usize) -> String {
    if index == 0 { key.to_owned() } else { format!("{key}{index}") }
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
        TYPE=Ethernet
        NAME=appliance
        UUID=8f0a7c2e-3b5d-4d1e-9a64-5c2b7e10d4aa
        DEVICE=ens160
        ONBOOT=yes
        AUTOCONNECT_PRIORITY=100
        AUTOCONNECT_RETRIES=0
        BOOTPROTO=dhcp
        IPV4_FAILURE_FATAL=no
        IPV6_FAILURE_FATAL=no
        IPV6INIT=yes
        IPV6_AUTOCONF=yes
        IPV6_PRIVACY=no
        ");
    }

    #[test]
    fn the_articles_network() {
        let network = "[network]\ndns = [\"2001:db8::53\"]\nsearch = [\"example.net\"]\n[network.ipv6]\n\
                       addresses = [\"2001:db8:fc89:100::101/128\", \"2001:db8:fc89:100::102/128\"]\n\
                       [network.ipv4]\nmethod = \"static\"\naddresses = [\"192.168.100.154/24\", \"192.0.2.5/24\"]\n\
                       gateway = \"192.168.100.1\"\n";
        insta::assert_snapshot!(rendered(network), @r#"
        TYPE=Ethernet
        NAME=appliance
        UUID=8f0a7c2e-3b5d-4d1e-9a64-5c2b7e10d4aa
        DEVICE=ens160
        ONBOOT=yes
        AUTOCONNECT_PRIORITY=100
        AUTOCONNECT_RETRIES=0
        BOOTPROTO=none
        IPADDR=192.168.100.154
        PREFIX=24
        IPADDR1=192.0.2.5
        PREFIX1=24
        GATEWAY=192.168.100.1
        IPV4_FAILURE_FATAL=no
        IPV6_FAILURE_FATAL=no
        IPV6INIT=yes
        IPV6_AUTOCONF=yes
        IPV6_PRIVACY=no
        IPV6ADDR=2001:db8:fc89:100::101/128
        IPV6ADDR_SECONDARIES="2001:db8:fc89:100::102/128"
        DNS1=2001:db8::53
        PEERDNS=no
        IPV6_PEERDNS=no
        DOMAIN="example.net"
        "#);
    }

    #[test]
    fn one_family_alone() {
        let network = "[network.ipv6]\nmethod = \"static\"\naddresses = [\"2001:db8::5/64\"]\ngateway = \"fe80::1\"\n\
                       [network.ipv4]\nmethod = \"off\"\n";
        insta::assert_snapshot!(rendered(network), @"
        TYPE=Ethernet
        NAME=appliance
        UUID=8f0a7c2e-3b5d-4d1e-9a64-5c2b7e10d4aa
        DEVICE=ens160
        ONBOOT=yes
        AUTOCONNECT_PRIORITY=100
        AUTOCONNECT_RETRIES=0
        BOOTPROTO=none
        IPV4_FAILURE_FATAL=no
        IPV6_FAILURE_FATAL=no
        IPV6INIT=yes
        IPV6_AUTOCONF=no
        IPV6_PRIVACY=no
        IPV6ADDR=2001:db8::5/64
        IPV6_DEFAULTGW=fe80::1
        ");
        assert!(rendered("[network.ipv6]\nmethod = \"off\"\n").contains("\nIPV6INIT=no\n"));
    }
}
