//! The settings schema: what the operator says, typed and validated.
//!
//! Valid by construction: a [`Settings`] that exists has a usable domain, addresses of the right family, and no two settings
//! that contradict each other. Every refusal is one [`SettingsError`]: where it is, what is wrong, what to write instead.
//! Pure data: nothing here touches the machine.

mod addresses;
pub(crate) mod checks;
mod database;
mod error;
mod instance;
mod mail;
mod media;
mod names;
mod network;
pub mod schema;
mod secret;
mod services;
mod tls;
mod values;
pub mod variables;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use addresses::{Ipv4Interface, Ipv6Interface};
pub use database::{Database, SslMode};
pub use error::SettingsError;
pub use instance::{Instance, Sidekiq, Streaming};
pub use mail::{AuthMethod, Encryption};
pub use media::{Media, Permission, Protocol, S3, Signature, Swift};
pub use names::{Domain, HostName};
pub use network::{Interface, Ipv4, Ipv4Method, Ipv6, Ipv6Method, Network};
pub use secret::Secret;
pub use services::{Acme, Directory, Listen, Mail, Owner, Ssh, Verify, Web, is_username};
pub use tls::{Challenge, Prefix, Preflight, Tls, TlsMode};

/// Everything that an operator can say.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    schema: Schema,
    /// The instance's name, `LOCAL_DOMAIN`; part of every account's address, for ever.
    pub domain: Domain,
    /// The machine's name, when it differs from the domain; see [`Settings::hostname`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<HostName>,
    /// Whether the host's own firewall is on; off behind a filter that does its work.
    #[serde(default = "on")]
    pub firewall: bool,
    /// What a machine does whose disks were copied from another one.
    #[serde(default, skip_serializing_if = "OnClone::is_ask")]
    pub on_clone: OnClone,
    /// Further lines for `.env.production`; shown redacted, because any of them may be a password.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", with = "extra_env")]
    pub extra_env: BTreeMap<String, String>,
    /// What Mastodon is told about itself.
    #[serde(default)]
    pub instance: Instance,
    /// Where media is kept.
    #[serde(default)]
    pub media: Media,
    /// The streaming server.
    #[serde(default)]
    pub streaming: Streaming,
    /// The background jobs.
    #[serde(default)]
    pub sidekiq: Sidekiq,
    /// Interface, addresses, resolvers.
    #[serde(default)]
    pub network: Network,
    /// Where the web server listens.
    #[serde(default)]
    pub web: Web,
    /// Where the certificate comes from.
    #[serde(default)]
    pub tls: Tls,
    /// The certificate authority.
    #[serde(default)]
    pub acme: Acme,
    /// The database server, when it is another machine.
    #[serde(default)]
    pub database: Database,
    /// The relay for outgoing mail; without it no confirmation mail leaves the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<Mail>,
    /// The first administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Who may log in as root.
    #[serde(default)]
    pub ssh: Ssh,
}

impl Settings {
    /// Reads settings from TOML. `source_name` is what the operator knows the text as; it starts every message.
    pub fn parse(source_name: &str, text: &str) -> Result<Settings, SettingsError> {
        let settings: Settings =
            toml::from_str(text).map_err(|error| SettingsError::from_toml(source_name, text, &error))?;
        match checks::contradiction(&settings) {
            Some((key, message)) => Err(SettingsError::at_key(source_name, key, message)),
            None => Ok(settings),
        }
    }

    /// The machine's name: the one given, else the domain.
    pub fn hostname(&self) -> &str {
        self.hostname.as_ref().map_or(self.domain.as_str(), HostName::as_str)
    }

    /// The name that the web site has, which nginx answers for and the certificate is for. The domain of the accounts may be another
    /// one; whoever serves that sends `/.well-known/host-meta` and `/.well-known/webfinger` on to this one.
    pub fn site(&self) -> &Domain {
        self.instance.web_domain.as_ref().unwrap_or(&self.domain)
    }

    /// A complete configuration with comments, for the README and `appliance config example`.
    pub fn example() -> &'static str {
        include_str!("example.toml")
    }

    /// The settings as TOML, with every secret redacted.
    pub fn redacted(&self) -> String {
        // OK: every field serialises to a TOML value; the text is only shown, so a placeholder is no loss.
        toml::to_string(self).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.redacted())
    }
}

/// Version of the format: 1 is the only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64")]
struct Schema(i64);

impl TryFrom<i64> for Schema {
    type Error = String;

    fn try_from(version: i64) -> Result<Self, String> {
        if version == 1 {
            Ok(Schema(version))
        } else {
            Err(format!(
                "this appliance reads `schema = 1`, not {version}: use a newer appliance, or write 1"
            ))
        }
    }
}

/// What a machine does whose disks were copied from another one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnClone {
    /// It asks.
    #[default]
    Ask,
    /// It takes the other one's place.
    Keep,
    /// It gets a machine-id and SSH host keys of its own.
    New,
}

impl OnClone {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    fn is_ask(&self) -> bool {
        *self == OnClone::Ask
    }
}

fn on() -> bool {
    true
}

/// Values that are read and shown as secrets.
mod extra_env {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::Secret;
    use super::secret::REDACTED;

    pub(super) fn serialize<S: Serializer>(
        map: &BTreeMap<String, String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.keys().map(|key| (key, REDACTED)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, String>, D::Error> {
        let map = BTreeMap::<String, Secret>::deserialize(deserializer)?;
        Ok(map.into_iter().map(|(key, value)| (key, value.expose().to_owned())).collect())
    }
}

#[cfg(test)]
mod tests;
