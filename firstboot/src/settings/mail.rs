//! The choices of `[mail]`: how a login is said, and when the connection is encrypted.

use serde::{Deserialize, Deserializer, Serialize};

use super::values::{checked, path};

/// How a login is said, `SMTP_AUTH_METHOD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// Login and password in one line; needs encryption to be worth anything.
    Plain,
    /// The same in two lines, as older servers want it.
    Login,
    /// By a challenge.
    CramMd5,
    /// Not at all.
    None,
}

impl AuthMethod {
    /// Mastodon's word for it.
    pub fn word(self) -> &'static str {
        match self {
            AuthMethod::Plain => "plain",
            AuthMethod::Login => "login",
            AuthMethod::CramMd5 => "cram_md5",
            AuthMethod::None => "none",
        }
    }
}

/// When the connection to the relay is encrypted. There is no "never": v1.6.1 uses STARTTLS whenever a relay offers it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// From STARTTLS on, if the relay offers that.
    #[default]
    Starttls,
    /// From the first byte on, `SMTP_TLS`: usual on port 465.
    Tls,
}

pub(super) fn ca_file_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, |text| path(text, "/etc/ssl/certs/ca-certificates.crt")).map(Some)
}
