//! `[media]`: where pictures and videos are kept, on this machine or in an object store.

use serde::{Deserialize, Deserializer, Serialize};

use super::Secret;
use super::values::{bare_url, checked, host_and_port, path, url, within};

/// Where media is kept: below the application when nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Media {
    /// Another folder on this machine, `PAPERCLIP_ROOT_PATH`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "folder_option")]
    pub path: Option<String>,
    /// Where browsers find that folder, `PAPERCLIP_ROOT_URL`: a path on the web site, or a URL that somebody else serves.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "place_option")]
    pub url: Option<String>,
    /// A bucket of Amazon S3 or of a store that speaks its language.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
    /// A container of OpenStack Swift.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swift: Option<Swift>,
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct S3 {
    /// Its name.
    #[serde(deserialize_with = "bucket")]
    pub bucket: String,
    /// Its region; Amazon's host is made of it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "region_option")]
    pub region: Option<String>,
    /// Login.
    pub access_key_id: Secret,
    /// Password.
    pub secret_access_key: Secret,
    /// Where the application reaches a store that is not Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "endpoint_option")]
    pub endpoint: Option<String>,
    /// Where browsers reach it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "host_option")]
    pub hostname: Option<String>,
    /// How browsers reach it.
    #[serde(default)]
    pub protocol: Protocol,
    /// How requests to an endpoint are signed; `v4` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature_version: Option<Signature>,
    /// What strangers may do with a file; `public-read` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission: Option<Permission>,
    /// CloudFront, or another cache in front, where browsers find the files instead.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "host_option")]
    pub cloudfront_host: Option<String>,
}

/// How browsers reach a bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// With TLS.
    #[default]
    Https,
    /// Without; browsers do not show such pictures on an HTTPS page, or say that it is not safe.
    Http,
}

/// Versions of the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signature {
    /// The one of today.
    V4,
    /// The one that older stores know.
    S3,
}

/// Amazon's ready-made lists of who may do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permission {
    /// The owner alone: a cache in front has a right of its own.
    Private,
    /// Everybody may read.
    PublicRead,
    /// Everybody with an account at Amazon may read.
    AuthenticatedRead,
    /// The bucket's owner may read, too.
    BucketOwnerRead,
    /// The bucket's owner may do everything: the one that a bucket without lists accepts.
    BucketOwnerFullControl,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Swift {
    /// Login.
    #[serde(deserialize_with = "text")]
    pub username: String,
    /// Password.
    pub password: Secret,
    /// Project; its name with version 3 of Keystone.
    #[serde(deserialize_with = "text")]
    pub tenant: String,
    /// Keystone's URL.
    #[serde(deserialize_with = "endpoint")]
    pub auth_url: String,
    /// The container's name.
    #[serde(deserialize_with = "text")]
    pub container: String,
    /// Where browsers find the container.
    #[serde(deserialize_with = "endpoint")]
    pub object_url: String,
    /// Region, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text_option")]
    pub region: Option<String>,
    /// Keystone's domain; `default` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text_option")]
    pub domain_name: Option<String>,
    /// For how long Keystone's answers are kept, in seconds; 0 is not at all.
    #[serde(default = "cache_ttl", deserialize_with = "within::<_, 0, 65535>")]
    pub cache_ttl: u16,
}

fn cache_ttl() -> u16 {
    60
}

/// What nginx serves by itself: below `/home` only the application can be read, and systemd lets it write nowhere below `/usr` or
/// `/etc`.
fn folder_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, |text| {
        path(text, "/srv/mastodon")?;
        let first = text.split('/').nth(1).unwrap_or_default();
        let closed = [
            "bin", "boot", "dev", "etc", "home", "lib", "lib64", "proc", "root", "run", "sbin", "sys", "tmp",
            "usr",
        ];
        // Emptied at each boot, or another folder for each service.
        let passing = ["/var/tmp", "/var/run", "/var/lock"];
        let is_passing = passing
            .iter()
            .any(|at| text.strip_prefix(at).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
        if closed.contains(&first) || is_passing {
            return Err(format!("`{text}` is no place to keep media in: choose one such as `/srv/mastodon`"));
        }
        Ok(())
    })
    .map(Some)
}

/// Not one of the paths that are something else.
fn place_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, |text| {
        if !text.starts_with('/') {
            return url(text, &["https"]).and_then(|()| {
                if text.ends_with('/') {
                    Err(format!("`{text}` ends in `/`: leave that out"))
                } else {
                    Ok(())
                }
            });
        }
        path(text, "/files")?;
        let first = text.split('/').nth(1).unwrap_or_default();
        let taken = [
            "about",
            "admin",
            "api",
            "auth",
            "avatars",
            "emoji",
            "emojis",
            "headers",
            "invites",
            "media",
            "media_proxy",
            "oauth",
            "packs",
            "settings",
            "sidekiq",
            "tags",
            "users",
            "web",
            "well-known",
        ];
        if taken.contains(&first) || first.starts_with(['@', '.']) {
            return Err(format!("`{text}` is something else on the web site: write one such as `/files`"));
        }
        Ok(())
    })
    .map(Some)
}

fn bucket<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, |text| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_good = (3..=255).contains(&text.len()) && text.bytes().all(known);
        is_good.then_some(()).ok_or_else(|| {
            format!(
                "{text:?} is no bucket's name: use 3 to 255 letters, digits, dots, hyphens and underscores"
            )
        })
    })
}

fn region_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, |text| {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_good = (1..=64).contains(&text.len()) && text.bytes().all(known);
        is_good
            .then_some(())
            .ok_or_else(|| format!("{text:?} is no region: write its code, such as `eu-central-1`"))
    })
    .map(Some)
}

fn endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, |text| url(text, &["https", "http"]))
}

fn endpoint_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, |text| bare_url(text, &["https", "http"])).map(Some)
}

fn host_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, |text| {
        host_and_port(text).map_err(|cause| match text.split_once("://") {
            // Which may be a password.
            _ if text.contains('@') => cause,
            Some((scheme, _)) => {
                format!("`{text}` begins with `{scheme}://`: write the bare name of the host")
            }
            None => cause,
        })
    })
    .map(Some)
}

/// Names are the store's own; what `.env.production` cannot hold is refused where all of it is.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, |text| {
        let is_good = !text.is_empty() && text.len() <= 255;
        is_good
            .then_some(())
            .ok_or_else(|| "a name has 1 to 255 characters: write it, or leave out the key".to_owned())
    })
}

fn text_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    text(deserializer).map(Some)
}
