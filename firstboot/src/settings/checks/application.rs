//! Contradictions within what Mastodon is told: names, mail, media, processes, and lines of `.env.production` of one's own.

use super::OURS;
use crate::dotenv;
use crate::settings::{AuthMethod, Mail, S3, Settings, variables};

/// Connections that the database on this machine takes; step `postgresql` configures it so.
pub(crate) const CONNECTIONS: u32 = 100;
/// Of them, those that nobody of the instance has: superusers', a console's, a dump's.
const SPARE: u32 = 10;
/// Processes times threads of the web service.
const WEB: u32 = 2 * 5;
/// Connections of one process of the streaming server.
const STREAMING: u32 = 10;
/// Processes of the background jobs when they are split: one a queue.
const QUEUES: u32 = 4;

/// Longest value of a variable, in bytes: the kernel takes no longer one, and every program that the application starts gets it.
const LONGEST: usize = 65536;

/// Variables that mean yes whatever their value is.
const PRESENT_IS_YES: [&str; 3] = ["SMTP_TLS", "SMTP_SSL", "SMTP_ENABLE_STARTTLS_AUTO"];

/// The first contradiction: the key to change, and what is wrong with it.
pub(super) fn contradiction(settings: &Settings) -> Option<(&'static str, String)> {
    names(settings)
        .or_else(|| settings.mail.as_ref().and_then(mail).map(|(key, text)| (key, text.to_owned())))
        .or_else(|| media(settings).map(|(key, text)| (key, text.to_owned())))
        .or_else(|| connections(settings))
        .or_else(|| inexpressible(settings))
        .or_else(|| {
            let mut pairs = settings.extra_env.iter();
            pairs.find_map(|(key, value)| extra(key, value)).map(|text| ("extra-env", text))
        })
}

fn names(settings: &Settings) -> Option<(&'static str, String)> {
    let instance = &settings.instance;
    if instance.web_domain.as_ref() == Some(&settings.domain) {
        return Some((
            "instance.web-domain",
            "it is the domain itself: leave it out, it is for a web site under another name".to_owned(),
        ));
    }
    let own = [Some(&settings.domain), instance.web_domain.as_ref()];
    if let Some(name) = instance.alternate_domains.iter().find(|name| own.contains(&Some(*name))) {
        return Some((
            "instance.alternate-domains",
            format!("`{name}` is a name of the instance anyway: remove it"),
        ));
    }
    let denied = &instance.email_domains_denied;
    let both = instance.email_domains_allowed.iter().find(|name| denied.contains(name))?;
    Some((
        "instance.email-domains-denied",
        format!("`{both}` is in `email-domains-allowed`, too: remove it from one of them"),
    ))
}

fn mail(mail: &Mail) -> Option<(&'static str, &'static str)> {
    if mail.login.is_some() != mail.password.is_some() {
        return Some(("mail.login", "`login` and `password` go together: give both or neither"));
    }
    let is_anonymous = mail.auth_method == Some(AuthMethod::None);
    match (mail.auth_method, &mail.login) {
        (Some(_), None) if !is_anonymous => {
            Some(("mail.auth-method", "it needs `login` and `password`: give them, or write \"none\""))
        }
        (Some(_), Some(_)) if is_anonymous => {
            Some(("mail.auth-method", "\"none\" and a login contradict each other: remove one of them"))
        }
        _ => None,
    }
}

fn media(settings: &Settings) -> Option<(&'static str, &'static str)> {
    let media = &settings.media;
    let is_local = media.path.is_some() || media.url.is_some();
    if media.s3.is_some() && media.swift.is_some() {
        return Some((
            "media.swift",
            "there is `[media.s3]`, too: media is kept in one place, so remove one of them",
        ));
    }
    if is_local && (media.s3.is_some() || media.swift.is_some()) {
        return Some((
            if media.path.is_some() { "media.path" } else { "media.url" },
            "it is for media on this machine, but an object store is given: remove one of them",
        ));
    }
    if media.url.is_some() && media.path.is_none() {
        return Some(("media.url", "it goes with `path`, the folder that is found there: give both"));
    }
    if let Some(swift) = &media.swift
        && swift.password.expose().is_empty()
    {
        return Some(("media.swift.password", "it is empty: write it, or leave out the whole table"));
    }
    media.s3.as_ref().and_then(bucket)
}

fn bucket(s3: &S3) -> Option<(&'static str, &'static str)> {
    if s3.access_key_id.expose().is_empty() {
        return Some((
            "media.s3.access-key-id",
            "it is empty: Mastodon of that time cannot do without a key",
        ));
    }
    if s3.secret_access_key.expose().is_empty() {
        return Some((
            "media.s3.secret-access-key",
            "it is empty: write the one that goes with `access-key-id`",
        ));
    }
    if s3.region.is_none() && s3.hostname.is_none() {
        return Some((
            "media.s3.region",
            "give the bucket's region, or the `hostname` of a store that is not Amazon's",
        ));
    }
    if s3.endpoint.is_some() && s3.hostname.is_none() && s3.cloudfront_host.is_none() {
        return Some((
            "media.s3.hostname",
            "with an `endpoint` it says where browsers find the files: give it, mostly the host of the endpoint",
        ));
    }
    if s3.signature_version.is_some() && s3.endpoint.is_none() {
        return Some(("media.s3.signature-version", "it goes with an `endpoint` only: remove one of them"));
    }
    None
}

/// Whether everything that runs can have its connections at the same time. What a server elsewhere takes is not known.
fn connections(settings: &Settings) -> Option<(&'static str, String)> {
    if settings.database.host.is_some() {
        return None;
    }
    let (sidekiq, workers) = (&settings.sidekiq, u32::from(settings.streaming.workers));
    let processes = if sidekiq.split { QUEUES } else { 1 };
    let jobs = processes * u32::from(sidekiq.concurrency);
    let wanted = WEB + jobs + workers * STREAMING;
    if wanted + SPARE <= CONNECTIONS {
        return None;
    }
    let key = if workers * STREAMING > jobs { "streaming.workers" } else { "sidekiq.concurrency" };
    Some((
        key,
        format!(
            "web ({WEB}), background jobs ({jobs}) and streaming ({}) together want {wanted} connections to the database, \
             which has {} for them: write a smaller number",
            workers * STREAMING,
            CONNECTIONS - SPARE
        ),
    ))
}

/// The first value that `.env.production` cannot hold. It may be a password, so no message shows it.
fn inexpressible(settings: &Settings) -> Option<(&'static str, String)> {
    let mut all = variables::sections(settings).into_iter().flat_map(|section| section.variables);
    all.find_map(|variable| Some((variable.key, unwritable(variable.name, &variable.value)?)))
}

/// Why `.env.production` cannot hold a value.
fn unwritable(name: &str, value: &str) -> Option<String> {
    if value.len() > LONGEST {
        return Some(format!("`{name}` would have more than {LONGEST} bytes: make it shorter"));
    }
    dotenv::line(name, value).err().map(|error| error.to_string())
}

/// What is wrong with one additional environment variable.
fn extra(key: &str, value: &str) -> Option<String> {
    let known = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    if key.is_empty() || !key.bytes().all(known) || key.starts_with(|first: char| first.is_ascii_digit()) {
        return Some(format!(
            "`{}` cannot be a variable's name: use capital letters, digits and underscores",
            key.escape_debug()
        ));
    }
    if OURS.contains(&key) {
        return Some(format!("the appliance itself decides `{key}`: remove it"));
    }
    if value.chars().any(char::is_control) {
        return Some(format!(
            "the value of `{key}` has a line break or control character: it must be one line"
        ));
    }
    if PRESENT_IS_YES.contains(&key)
        && ["", "0", "false", "no", "off"].contains(&&*value.to_ascii_lowercase())
    {
        return Some(format!("to Mastodon `{key}` means yes with any value, this one too: remove it"));
    }
    unwritable(key, value)
}
