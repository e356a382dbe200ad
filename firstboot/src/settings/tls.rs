//! `[tls]`: where the certificate comes from.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::Secret;

/// The certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Tls {
    /// Where it comes from.
    pub mode: TlsMode,
    /// How strictly DNS and the way to this machine are looked at before an authority is asked.
    pub preflight: Preflight,
    /// How the name is proven to an authority.
    pub challenge: Challenge,
    /// With `dns-01`: the program that changes the zone.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "program_option")]
    pub dns_hook: Option<String>,
    /// With `manual`: the chain (PEM), leaf first; without it, the files in `/etc/appliance/tls` count.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "certificate_option")]
    pub certificate: Option<String>,
    /// The private key (PEM) that goes with it.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "key_option")]
    pub key: Option<Secret>,
    /// With `offload`: who may say that a visitor came by HTTPS; anybody who reaches port 80 when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proxies: Vec<Prefix>,
}

/// Where the certificate comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// A certificate authority that speaks ACME; a self-signed certificate serves until it has answered.
    #[default]
    Acme,
    /// The operator brings it, and the next one in time.
    Manual,
    /// The machine itself, for good.
    Selfsigned,
    /// Nowhere: a load balancer in front speaks HTTPS, and port 80 serves the instance.
    Offload,
}

/// How strictly DNS and the way to this machine are looked at before an authority is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preflight {
    /// Nothing is ordered before all is right.
    #[default]
    Strict,
    /// What is wrong is told when the authority refuses: for a proxy in front, whose addresses are not this machine's.
    Warn,
    /// Nothing is looked at.
    Off,
}

/// How a name is proven to an authority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Challenge {
    /// By what port 80 of the name serves.
    #[default]
    #[serde(rename = "http-01")]
    Http01,
    /// By what answers on port 443 of the name: for a house whose port 80 is shut.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// By a record in its zone: for a machine that nobody can reach.
    #[serde(rename = "dns-01")]
    Dns01,
}

/// Addresses that begin alike, such as `2001:db8::/32`; one address is one of full length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no range of addresses: write one such as `10.0.0.0/8`, `2001:db8::/32` or `192.0.2.7`"
            )
        };
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv6() { 128 } else { 32 };
        let length = match length {
            Some(length) => length.parse().ok().filter(|length| *length <= longest).ok_or_else(wrong)?,
            None => longest,
        };
        Ok(Prefix { address, length })
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.length)
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> String {
        prefix.to_string()
    }
}

fn program_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.starts_with('/') && !text.ends_with('/') && !text.contains(char::is_control) {
        return Ok(Some(text));
    }
    Err(serde::de::Error::custom(format!(
        "{text:?} is not the whole path of a program: write one such as `/root/dns-hook`"
    )))
}

fn certificate_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if has(&text, "CERTIFICATE") {
        return Ok(Some(text));
    }
    Err(serde::de::Error::custom(
        "this is not a PEM certificate: paste the whole chain, from the first `-----BEGIN CERTIFICATE-----` to the last `-----END CERTIFICATE-----`",
    ))
}

fn key_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    let secret = Secret::deserialize(deserializer)?;
    let kinds = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];
    if kinds.iter().any(|kind| has(secret.expose(), kind)) {
        return Ok(Some(secret));
    }
    Err(serde::de::Error::custom(if has(secret.expose(), "ENCRYPTED PRIVATE KEY") {
        "the private key is encrypted, and nobody is there at boot to say its password: decrypt it with `openssl pkey -in FILE`"
    } else {
        "this is not a PEM private key: paste the whole file, from `-----BEGIN PRIVATE KEY-----` to `-----END PRIVATE KEY-----`"
    }))
}

fn has(text: &str, kind: &str) -> bool {
    text.contains(&format!("-----BEGIN {kind}-----")) && text.contains(&format!("-----END {kind}-----"))
}

#[cfg(test)]
mod tests {
    use super::Prefix;

    #[test]
    fn ranges_are_read() {
        for (text, expected) in [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("2001:db8::1", Some("2001:db8::1/128")),
            ("192.0.2.7", Some("192.0.2.7/32")),
            ("10.0.0.0/33", None),
            ("10.0.0.0/", None),
            ("all", None),
            ("::/129", None),
        ] {
            assert_eq!(
                text.parse::<Prefix>().ok().map(|prefix| prefix.to_string()).as_deref(),
                expected,
                "{text}"
            );
        }
    }
}
