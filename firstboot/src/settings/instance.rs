//! `[instance]`, `[streaming]`, `[sidekiq]`: how Mastodon itself behaves.

use serde::{Deserialize, Deserializer, Serialize};

use super::Domain;
use super::values::{bare_url, checked, within};

/// What Mastodon is told about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Instance {
    /// The web site's name where it differs from the domain of the accounts, `WEB_DOMAIN`; see [`super::Settings::site`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web_domain: Option<Domain>,
    /// Further domains under which the accounts are found, `ALTERNATE_DOMAINS`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alternate_domains: Vec<Domain>,
    /// Nobody can sign up, and the front page is the first account's: `SINGLE_USER_MODE`.
    pub single_user: bool,
    /// Language of pages and mails for who has chosen none, `DEFAULT_LOCALE`; which there are depends on the tag.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "locale_option")]
    pub locale: Option<String>,
    /// Nobody signs up with a mail address of these domains, `EMAIL_DOMAIN_BLACKLIST`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub email_domains_denied: Vec<Domain>,
    /// Only with addresses of these, `EMAIL_DOMAIN_WHITELIST`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub email_domains_allowed: Vec<Domain>,
    /// Where browsers fetch scripts and style sheets, `CDN_HOST`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "https_option")]
    pub cdn_host: Option<String>,
    /// Whether Rails prepares its statements; a database behind pgBouncer wants false. `PREPARED_STATEMENTS`.
    pub prepared_statements: bool,
}

impl Default for Instance {
    fn default() -> Self {
        Instance {
            web_domain: None,
            alternate_domains: Vec::new(),
            single_user: false,
            locale: None,
            email_domains_denied: Vec::new(),
            email_domains_allowed: Vec::new(),
            cdn_host: None,
            prepared_statements: true,
        }
    }
}

/// The streaming server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Streaming {
    /// Where browsers reach it when not under the web site's name, `STREAMING_API_BASE_URL`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "wss_option")]
    pub base_url: Option<String>,
    /// Processes, `STREAMING_CLUSTER_NUM`.
    #[serde(deserialize_with = "within::<_, 1, 16>")]
    pub workers: u16,
}

impl Default for Streaming {
    fn default() -> Self {
        Streaming { base_url: None, workers: 1 }
    }
}

/// The background jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Sidekiq {
    /// One process a queue instead of one for all.
    pub split: bool,
    /// Threads of each process, and connections that it may have to the database.
    #[serde(deserialize_with = "within::<_, 1, 100>")]
    pub concurrency: u16,
}

impl Default for Sidekiq {
    fn default() -> Self {
        Sidekiq { split: false, concurrency: 10 }
    }
}

/// `ja`, `pt-BR`, `zh-Hant`: what Rails looks for a file of.
fn locale_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, |text| {
        let mut parts = text.split('-');
        let language = parts.next().unwrap_or_default();
        let is_good = (2..=3).contains(&language.len())
            && language.bytes().all(|byte| byte.is_ascii_lowercase())
            && parts.clone().count() <= 2
            && parts.all(|part| {
                (2..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphabetic())
            });
        is_good.then_some(()).ok_or_else(|| {
            format!("{text:?} is no language: write its code, such as `ja`, `pt-BR` or `zh-TW`")
        })
    })
    .map(Some)
}

/// The site is HTTPS, and browsers load nothing else into it.
fn https_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, |text| bare_url(text, &["https"])).map(Some)
}

fn wss_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, |text| bare_url(text, &["wss"])).map(Some)
}
