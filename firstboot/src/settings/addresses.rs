//! An address of an interface: `address/prefix`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv6 address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv6Interface {
    /// The address.
    pub address: Ipv6Addr,
    /// Length of the prefix; 128 for an address beside the router's prefix.
    pub prefix: u8,
}

/// An IPv4 address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Interface {
    /// The address.
    pub address: Ipv4Addr,
    /// Length of the network's part.
    pub prefix: u8,
}

impl FromStr for Ipv6Interface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = split::<Ipv6Addr>(text, "IPv6", "2001:db8::101/128", 128)?;
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            return Err(format!("`{text}` cannot be an interface's address"));
        }
        Ok(Ipv6Interface { address, prefix })
    }
}

impl FromStr for Ipv4Interface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = split::<Ipv4Addr>(text, "IPv4", "192.168.100.154/24", 32)?;
        if address.is_unspecified()
            || address.is_loopback()
            || address.is_multicast()
            || address.is_broadcast()
        {
            return Err(format!("`{text}` cannot be an interface's address"));
        }
        Ok(Ipv4Interface { address, prefix })
    }
}

fn split<A: FromStr>(text: &str, family: &str, example: &str, bits: u8) -> Result<(A, u8), String> {
    let Some((address, prefix)) = text.split_once('/') else {
        return Err(match text.parse::<A>() {
            Ok(_) => format!("`{text}` has no prefix length: write it as in `{example}`"),
            Err(_) => format!("`{text}` is not an {family} address with prefix length, such as `{example}`"),
        });
    };
    let address = address.parse().map_err(|_| {
        format!("`{text}` is not an {family} address with prefix length, such as `{example}`")
    })?;
    match prefix.parse::<u8>() {
        Ok(prefix) if (1..=bits).contains(&prefix) => Ok((address, prefix)),
        _ => Err(format!("`{text}` has the prefix length `{prefix}`: it must be 1 to {bits}")),
    }
}

impl TryFrom<String> for Ipv6Interface {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl TryFrom<String> for Ipv4Interface {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Ipv6Interface> for String {
    fn from(interface: Ipv6Interface) -> String {
        interface.to_string()
    }
}

impl From<Ipv4Interface> for String {
    fn from(interface: Ipv4Interface) -> String {
        interface.to_string()
    }
}

impl fmt::Display for Ipv6Interface {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Display for Ipv4Interface {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::{Ipv4Interface, Ipv6Interface};

    #[test]
    fn addresses_are_written_in_their_short_form() {
        let address: Ipv6Interface = "2001:db8:0:0::101/128".parse().unwrap();
        assert_eq!(address.to_string(), "2001:db8::101/128");
        let address: Ipv4Interface = "192.168.100.154/24".parse().unwrap();
        assert_eq!(address.to_string(), "192.168.100.154/24");
    }

    #[test]
    fn malformed_addresses_are_refused_with_the_remedy() {
        for (text, part) in [
            ("2001:db8::101", "has no prefix length"),
            ("2001:db8::g/64", "is not an IPv6 address"),
            ("192.0.2.1/24", "is not an IPv6 address"),
            ("2001:db8::1/129", "must be 1 to 128"),
            ("2001:db8::1/ 64", "must be 1 to 128"),
            ("::1/128", "cannot be an interface's address"),
            ("ff02::1/128", "cannot be an interface's address"),
        ] {
            let message = text.parse::<Ipv6Interface>().unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
        for (text, part) in [
            ("192.168.100.154", "has no prefix length"),
            ("192.168.100.1540/24", "is not an IPv4 address"),
            ("192.168.100.154/33", "must be 1 to 32"),
            ("127.0.0.1/8", "cannot be an interface's address"),
        ] {
            let message = text.parse::<Ipv4Interface>().unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
