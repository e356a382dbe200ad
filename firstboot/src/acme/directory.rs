//! What an authority says to everybody: its directory (RFC 8555, section 7.1.1) and when a certificate is best renewed (RFC 9773).
//!
//! Neither needs an account, and neither counts against a limit. The directory's `Date` is also the judge of our own clock: no
//! order is placed by a machine that does not know the time, because its pauses would mean nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Failure;
use super::client::{Client, Pause, block, wait};
use crate::tls::certificate::now;
use crate::tls::moment::minute;

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How far our clock may be from the authority's, in seconds.
const TOLERANCE: i64 = 3600;
/// More names than any authority has.
const MOST_IDENTITIES: usize = 32;

/// An authority, as far as it is of interest before an order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directory {
    /// Names by which CAA records allow it; empty when it has not said.
    pub identities: Vec<String>,
    /// Where it says when a certificate is best renewed.
    pub renewal_info: Option<String>,
}

/// When a certificate is best renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Seconds since 1970.
    pub start: i64,
    /// Seconds since 1970; after the start.
    pub end: i64,
    /// Where the authority explains it.
    pub explanation: Option<String>,
    /// How long this holds.
    pub retry_after: Option<Duration>,
}

// foreign: authorities add keys of their own.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(rename = "newOrder")]
    _new_order: String,
    renewal_info: Option<String>,
    #[serde(default)]
    meta: Meta,
}

// foreign: authorities add keys of their own.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    caa_identities: Vec<String>,
}

// foreign: authorities add keys of their own.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RenewalInfo {
    suggested_window: SuggestedWindow,
    #[serde(rename = "explanationURL")]
    explanation: Option<String>,
}

// foreign: authorities add keys of their own.
#[derive(Deserialize)]
struct SuggestedWindow {
    start: String,
    end: String,
}

/// Reads the directory and compares the clocks.
pub fn look(url: &str, ca: Option<&str>) -> Result<Directory, Failure> {
    let now = now().map_err(|error| Failure { is_clock: true, ..Failure::of(&error) })?;
    let pause = Pause::default();
    let result = block(LIMIT, url, async { Client::new(ca, &pause)?.get(url).await });
    let (parts, body) = result.map_err(|error| match clock(&error, url, now) {
        Some(text) => Failure { text, is_clock: true, ..Failure::default() },
        None => Failure { retry_after: pause.get(), ..Failure::of(&error) },
    })?;
    let date = parts.headers.get(http::header::DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| httpdate::parse_http_date(date).ok()?.duration_since(UNIX_EPOCH).ok());
    if let Some(theirs) = date.and_then(|date| i64::try_from(date.as_secs()).ok())
        && (theirs - now).abs() > TOLERANCE
    {
        let text = format!(
            "the clock is wrong: it says {}, and `{url}` says {}; {SET_CLOCK}",
            minute(now),
            minute(theirs)
        );
        return Err(Failure { text, is_clock: true, ..Failure::default() });
    }
    let document: Document = serde_json::from_slice(&body)
        .with_context(|| format!("`{url}` is not the directory of an ACME authority: check `acme.directory`"))
        .map_err(|error| Failure::of(&error))?;
    let mut identities = document.meta.caa_identities;
    identities.retain(|name| is_host(name));
    identities.truncate(MOST_IDENTITIES);
    let renewal_info = document.renewal_info.filter(|url| url.starts_with("https://"));
    Ok(Directory { identities, renewal_info })
}

const SET_CLOCK: &str = "no certificate is ordered until it is right: set the hypervisor's clock, or let this machine reach a time server";

/// Shown to the operator, so nothing but a host's name will do.
fn is_host(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    (1..=253).contains(&name.len()) && name.bytes().all(known)
}

/// The error of TLS inside of one of input and output; each layer of the client adds one around it.
fn tls<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref::<std::io::Error>() {
        Some(outer) => tls(outer.get_ref()?),
        None => error.downcast_ref(),
    }
}

/// What an error says about our clock: the authority's own certificate seems to belong to another time.
fn clock(error: &anyhow::Error, url: &str, now: i64) -> Option<String> {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let found = error.chain().find_map(|cause| match tls(cause) {
        Some(rustls::Error::InvalidCertificate(error)) => Some(error.clone()),
        _ => None,
    })?;
    let second =
        |time: &rustls::pki_types::UnixTime| minute(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
    let span = match &found {
        ExpiredContext { not_after, .. } => format!("ended at {}", second(not_after)),
        NotValidYetContext { not_before, .. } => format!("begins at {}", second(not_before)),
        Expired => "has ended".to_owned(),
        NotValidYet => "has not begun".to_owned(),
        _ => return None,
    };
    let now = minute(now);
    Some(format!("the clock is wrong: it says {now}, and the validity of `{url}` {span}; {SET_CLOCK}"))
}

/// Asks when a certificate is best renewed; `id` is [`renewal_id`](crate::tls::certificate::Certificate::renewal_id).
pub fn renewal(base: &str, id: &str, ca: Option<&str>) -> Result<Window> {
    let url = format!("{}/{id}", base.trim_end_matches('/'));
    let pause = Pause::default();
    let (parts, body) = block(LIMIT, &url, async { Client::new(ca, &pause)?.get(&url).await })?;
    let info: RenewalInfo = serde_json::from_slice(&body).with_context(|| format!("reading `{url}`"))?;
    let time = |text: &str| {
        let time = OffsetDateTime::parse(text, &Rfc3339);
        time.map(OffsetDateTime::unix_timestamp).with_context(|| format!("reading the times of `{url}`"))
    };
    let (start, end) = (time(&info.suggested_window.start)?, time(&info.suggested_window.end)?);
    if start >= end {
        bail!("`{url}` suggests a time that ends before it begins");
    }
    let explanation = info.explanation.filter(|url| {
        url.starts_with("https://") && url.len() < 500 && url.bytes().all(|byte| byte.is_ascii_graphic())
    });
    Ok(Window { start, end, explanation, retry_after: wait(&parts.headers, SystemTime::now()) })
}
