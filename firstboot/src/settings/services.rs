//! `[web]`, `[acme]`, `[mail]`, `[owner]`, `[ssh]`: what the machine serves and to whom.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::mail::{AuthMethod, Encryption, ca_file_option};
use super::network::host_or_address;
use super::values::{checked, within};
use super::{HostName, Secret};

/// The web server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Web {
    /// The address families that ports 80 and 443 answer on.
    pub listen: Listen,
    /// Longest request that is taken, such as an upload, in MiB; 0 is any. Mastodon has limits of its own.
    #[serde(deserialize_with = "within::<_, 0, 65535>")]
    pub max_body_mib: u16,
}

/// Address families of the web server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Listen {
    /// IPv6 alone.
    #[default]
    Ipv6,
    /// Both.
    Dual,
    /// IPv4 alone.
    Ipv4,
}

/// The certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Acme {
    /// Where the authority writes to before a certificate runs out.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "email_option")]
    pub email: Option<String>,
    /// Which authority.
    pub directory: Directory,
    /// Trust anchor (PEM) of the directory's own HTTPS, for an authority of one's own.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "pem_option")]
    pub ca: Option<String>,
    /// Agreement to the authority's terms of service; an order is impossible without.
    pub agree_terms: bool,
}

impl Default for Acme {
    fn default() -> Self {
        Acme { email: None, directory: Directory::default(), ca: None, agree_terms: true }
    }
}

/// An ACME directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Directory {
    /// Let's Encrypt.
    #[default]
    Production,
    /// Let's Encrypt's rehearsal: its certificates are trusted by nobody, its limits are generous.
    Staging,
    /// Another authority.
    Url(String),
}

impl Directory {
    /// The directory's URL.
    pub fn url(&self) -> &str {
        match self {
            Directory::Production => "https://acme-v02.api.letsencrypt.org/directory",
            Directory::Staging => "https://acme-staging-v02.api.letsencrypt.org/directory",
            Directory::Url(url) => url,
        }
    }

    /// The directory where an order is rehearsed first, without touching the real one's limits.
    pub fn rehearsal(&self) -> Option<&str> {
        match self {
            Directory::Production => Some(Directory::Staging.url()),
            Directory::Staging | Directory::Url(_) => None,
        }
    }
}

impl FromStr for Directory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "production" => Ok(Directory::Production),
            "staging" => Ok(Directory::Staging),
            _ => match text.strip_prefix("https://") {
                Some(rest) if !rest.is_empty() && !rest.contains(char::is_whitespace) => {
                    Ok(Directory::Url(text.to_owned()))
                }
                _ => Err(format!(
                    "`{text}` is not a directory: write `production`, `staging` or an `https://` URL"
                )),
            },
        }
    }
}

impl TryFrom<String> for Directory {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Directory::Production => "production",
            Directory::Staging => "staging",
            Directory::Url(url) => url,
        })
    }
}

impl From<Directory> for String {
    fn from(directory: Directory) -> String {
        directory.to_string()
    }
}

/// The relay for outgoing mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Mail {
    /// Name or address of the relay.
    #[serde(deserialize_with = "relay")]
    pub relay: String,
    /// Its port.
    #[serde(default = "smtp_port")]
    pub port: u16,
    /// Sender of everything that the instance writes.
    #[serde(deserialize_with = "email")]
    pub from: String,
    /// Login, when the relay wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Password that goes with the login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// How the login is said; `plain` when left out, `none` without a login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_method: Option<AuthMethod>,
    /// When the connection is encrypted.
    #[serde(default)]
    pub encryption: Encryption,
    /// Whether the relay's certificate must be valid; when left out, it must if there is a login to protect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// Trust anchors (PEM) of the relay's certificate, a file in the machine; the system's when left out.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "ca_file_option")]
    pub ca_file: Option<String>,
    /// What the instance calls itself towards the relay; the domain when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helo: Option<HostName>,
}

impl Mail {
    /// What holds. v1.6.1 cannot switch STARTTLS off, so a relay in the same house, which has no login and a certificate of its own,
    /// works only when the certificate is not looked at.
    pub fn verification(&self) -> Verify {
        self.verify.unwrap_or(if self.login.is_some() { Verify::Peer } else { Verify::None })
    }

    /// How the login is said, if there is one.
    pub fn authentication(&self) -> AuthMethod {
        self.auth_method.unwrap_or(if self.login.is_some() { AuthMethod::Plain } else { AuthMethod::None })
    }
}

fn smtp_port() -> u16 {
    25
}

/// Whether the relay's certificate must be valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Any certificate will do: a relay in the same house.
    None,
    /// It must be valid for the relay's name.
    Peer,
}

/// The first administrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Owner {
    /// Account name, without the domain.
    #[serde(deserialize_with = "username")]
    pub username: String,
    /// Where the account's mail goes.
    #[serde(deserialize_with = "email")]
    pub email: String,
}

/// Access to the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Ssh {
    /// Public keys that may log in as root, as in `authorized_keys`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "public_keys")]
    pub authorized_keys: Vec<String>,
}

/// Whether a text can be an account's name: what Mastodon accepts.
pub fn is_username(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=30).contains(&text.len()) && text.bytes().all(known)
}

fn email<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, |text| {
        let parts = text.split_once('@').filter(|(local, domain)| {
            !local.is_empty()
                && !domain.contains('@')
                && host_or_address(domain).is_ok()
                && text
                    .chars()
                    .all(|character| character.is_ascii_graphic() && !"\"'\\<>,;".contains(character))
        });
        parts.map(|_| ()).ok_or_else(|| format!("`{text}` is not a mail address such as `admin@example.net`"))
    })
}

fn email_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    email(deserializer).map(Some)
}

pub(super) fn pem_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, |text| {
        let whole = text.contains("-----BEGIN CERTIFICATE-----") && text.contains("-----END CERTIFICATE-----");
        whole.then_some(()).ok_or_else(|| {
            "this is not a PEM certificate: paste the whole file, from `-----BEGIN CERTIFICATE-----` to `-----END CERTIFICATE-----`".to_owned()
        })
    })
    .map(Some)
}

fn relay<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, |text| {
        host_or_address(text).map_err(|cause| format!("{cause}; the port has a key of its own, `port`"))
    })
}

fn username<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, |text| {
        is_username(text).then_some(()).ok_or_else(|| {
            format!("`{text}` cannot be an account's name: use 1 to 30 letters, digits and underscores, without `@` and domain")
        })
    })
}

fn public_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let keys = Vec::<String>::deserialize(deserializer)?;
    match keys.iter().find(|key| !is_public_key(key)) {
        None => Ok(keys),
        Some(key) if key.contains("PRIVATE KEY") => Err(serde::de::Error::custom(
            "a private key was given: take the one line of the file that ends in `.pub`",
        )),
        Some(key) => {
            let start: String = key.chars().take(24).flat_map(char::escape_default).collect();
            Err(serde::de::Error::custom(format!(
                "`{start}` does not begin a public key: take the one line of the file that ends in `.pub`"
            )))
        }
    }
}

/// One line `type base64 [comment]` of a type that `sshd` knows; options before the type are not for this file.
fn is_public_key(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let known = words.next().is_some_and(|kind| {
        kind.starts_with("ssh-") || kind.starts_with("ecdsa-sha2-") || kind.starts_with("sk-")
    });
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    let body = words.next().is_some_and(|body| body.starts_with("AAAA") && body.bytes().all(is_base64));
    known && body && !line.contains(char::is_control)
}
