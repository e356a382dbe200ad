//! `[network]`: the interface, its addresses, the resolvers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::names::{HostName, host_name};
use super::{Ipv4Interface, Ipv6Interface};

/// The machine's one network interface. The default is what the article's network gives: IPv6 by router advertisement, IPv4 by
/// DHCP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Network {
    /// Which interface; the first Ethernet interface when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<Interface>,
    /// Resolvers, of either family; those of the network when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Search domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<HostName>,
    /// IPv6.
    pub ipv6: Ipv6,
    /// IPv4.
    pub ipv4: Ipv4,
}

/// IPv6 of the interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Ipv6 {
    /// Where addresses come from.
    pub method: Ipv6Method,
    /// Addresses beside those of the router advertisement, or the only ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Ipv6Interface>,
    /// The router; only with `static`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv6Addr>,
}

/// Where IPv6 addresses come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ipv6Method {
    /// Router advertisements.
    #[default]
    Auto,
    /// The settings alone.
    Static,
    /// No IPv6 on this interface.
    Off,
}

/// IPv4 of the interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Ipv4 {
    /// Where addresses come from.
    pub method: Ipv4Method,
    /// The addresses; only with `static`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Ipv4Interface>,
    /// The router; only with `static`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
}

/// Where IPv4 addresses come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ipv4Method {
    /// DHCP.
    #[default]
    Dhcp,
    /// The settings alone.
    Static,
    /// No IPv4 on this interface; loopback stays.
    Off,
}

/// An interface, as the operator knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Interface {
    /// By the kernel's name, such as `ens160`.
    Name(String),
    /// By its hardware address, in lower case.
    Mac(String),
}

impl TryFrom<String> for Interface {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts: Vec<&str> = text.split([':', '-']).collect();
        let is_pair = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        if parts.len() == 6 && parts.iter().all(is_pair) {
            return Ok(Interface::Mac(parts.join(":").to_ascii_lowercase()));
        }
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if (1..=15).contains(&text.len()) && text.bytes().all(known) && !text.starts_with(['.', '-']) {
            return Ok(Interface::Name(text));
        }
        Err(format!(
            "`{text}` is neither an interface's name such as `ens160` nor a MAC such as `00:50:56:a7:00:01`"
        ))
    }
}

impl From<Interface> for String {
    fn from(interface: Interface) -> String {
        match interface {
            Interface::Name(text) | Interface::Mac(text) => text,
        }
    }
}

/// Checks a host that may be given by name or by address.
pub(super) fn host_or_address(text: &str) -> Result<(), String> {
    if text.parse::<IpAddr>().is_ok() { Ok(()) } else { host_name(text) }
}

#[cfg(test)]
mod tests {
    use super::Interface;

    #[test]
    fn interfaces_are_names_or_hardware_addresses() {
        for (text, expected) in [
            ("ens160", Some(Interface::Name("ens160".to_owned()))),
            ("00:50:56:A7:12:34", Some(Interface::Mac("00:50:56:a7:12:34".to_owned()))),
            ("00-50-56-a7-12-34", Some(Interface::Mac("00:50:56:a7:12:34".to_owned()))),
            ("", None),
            ("../../etc", None),
            ("a name", None),
            ("longer-than-fifteen", None),
        ] {
            assert_eq!(Interface::try_from(text.to_owned()).ok(), expected, "{text}");
        }
    }
}
