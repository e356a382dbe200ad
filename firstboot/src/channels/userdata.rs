//! `user-data`, as cloud-init's datasources hand it over: on a config volume and from EC2.
//!
//! Ours is a configuration in TOML, plain, gzip, or Base64 of either; a first line `#mastodon-appliance` says so. Without it, a
//! key `schema` or `domain` at the top does: others have TOML, too, and a text of comments alone is nobody's.
//! The formats of others are told apart by their first line, as cloud-init does, and refused with one sentence each: nothing in
//! them is carried out.

use anyhow::{Result, bail};

use super::{LIMIT, Offer, accept, packed};

/// First line of a `user-data` that is a configuration; a comment in TOML.
pub(super) const MARK: &str = "#mastodon-appliance";

/// How formats of others begin, and what they are.
const FOREIGN: &[(&str, &str)] = &[
    ("#cloud-config-archive", "a cloud-config archive"),
    ("#cloud-config", "a cloud-config"),
    ("#cloud-boothook", "a boot hook of cloud-init"),
    ("#include", "a list of addresses to include"),
    ("#part-handler", "a part handler of cloud-init"),
    ("#upstart-job", "an upstart job"),
    ("## template:", "a template of cloud-init"),
    ("#!", "a script"),
    ("<powershell", "a script for Windows"),
    ("<script", "a script for Windows"),
    ("content-type:", "a MIME message"),
    ("mime-version:", "a MIME message"),
];

/// What to do instead; every refusal ends with it.
const REMEDY: &str = "write our `config.toml` there instead (see `appliance config example`): the file as it is, or gzip or base64 of \
                      it";

/// The configuration in the bytes; `None` when they say nothing. An error never stops first boot: what others wrote for another
/// program says nothing against a configuration that came another way.
pub(super) fn read(source: &str, bytes: Vec<u8>) -> Result<Option<Offer>> {
    let Some(text) = accept(unpack(source, bytes)?, source)? else { return Ok(None) };
    if let Some(kind) = format(&text) {
        bail!("{source} is {kind}, which this appliance does not carry out: {REMEDY}");
    }
    let is_like_ours = |table: toml::Table| ["schema", "domain"].iter().any(|key| table.contains_key(*key));
    if !is_marked(&text) && !toml::from_str(&text).is_ok_and(is_like_ours) {
        bail!(
            "{source} is in an unknown format: {REMEDY}; with `{MARK}` as its first line the place of a mistake in it is named"
        );
    }
    Ok(Some(Offer { source: source.to_owned(), text }))
}

fn is_marked(text: &str) -> bool {
    text.trim_start_matches('\u{feff}').lines().next().is_some_and(|first| first.trim_end() == MARK)
}

/// Takes off gzip, then Base64, then gzip again: consoles of clouds ask for either, and some tools do it by themselves.
fn unpack(source: &str, bytes: Vec<u8>) -> Result<Vec<u8>> {
    let gunzip = |bytes: Vec<u8>| -> Result<Vec<u8>> {
        if !packed::is_gzip(&bytes) {
            return Ok(bytes);
        }
        let Some(content) = packed::gunzip(&bytes) else {
            bail!(
                "{source} begins as gzip, but cannot be unpacked: pack it again, or hand it over as plain text"
            );
        };
        // What was cut might still look whole.
        if content.len() as u64 > LIMIT {
            bail!("{source} is larger than 1 MiB: this cannot be a configuration");
        }
        Ok(content)
    };
    let bytes = gunzip(bytes)?;
    match std::str::from_utf8(&bytes).ok().filter(|text| is_base64(text)).and_then(packed::decode) {
        Some(content) => gunzip(content),
        None => Ok(bytes),
    }
}

/// Whether a text can be nothing else: every configuration has a blank, a quote or a dot in its first lines.
fn is_base64(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=\r\n".contains(&byte);
    text.trim().len() >= 16 && text.trim().bytes().all(known)
}

/// What else than a configuration of ours the text is.
fn format(text: &str) -> Option<&'static str> {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let first = text.lines().next().unwrap_or_default().to_ascii_lowercase();
    if let Some((_, kind)) = FOREIGN.iter().find(|(start, _)| first.starts_with(start)) {
        return Some(kind);
    }
    if text.starts_with('{') {
        return Some(if text.contains("\"ignition\"") { "an Ignition configuration" } else { "JSON" });
    }
    if first.starts_with("variant:") { Some("a Butane configuration") } else { None }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::super::packed::BASE64;
    use super::super::readers::tests::gzip;
    use super::read;

    fn said(bytes: &[u8]) -> String {
        match read("user-data", bytes.to_vec()) {
            Ok(Some(offer)) => offer.text,
            Ok(None) => "nothing".to_owned(),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn ours_arrives_however_it_is_packed() {
        let ours = "#mastodon-appliance\nschema = 1\ndomain = \"a.example\"\n";
        let plain = "domain = \"a.example\"\n";
        let zipped = gzip(ours.as_bytes());
        for (bytes, expected) in [
            (ours.as_bytes(), ours),
            (plain.as_bytes(), plain),
            (&zipped, ours),
            (BASE64.encode(ours).as_bytes(), ours),
            (BASE64.encode(&zipped).as_bytes(), ours),
            (&gzip(BASE64.encode(ours).as_bytes()), ours),
            (b" \n", "nothing"),
            (b"null", "nothing"),
        ] {
            assert_eq!(said(bytes), expected);
        }
    }

    #[test]
    fn a_format_of_others_is_named_with_the_remedy() {
        for (text, kind) in [
            ("#cloud-config\npackages: []\n", "is a cloud-config, which"),
            ("\n#cloud-config-archive\n", "is a cloud-config archive"),
            ("#!/bin/sh\nrm -rf /\n", "is a script"),
            ("#include\nhttps://example.net/\n", "is a list of addresses to include"),
            ("#include-once\n", "is a list of addresses to include"),
            ("## template: jinja\n#cloud-config\n", "is a template"),
            ("Content-Type: multipart/mixed; boundary=a\n", "is a MIME message"),
            ("MIME-Version: 1.0\n", "is a MIME message"),
            ("{\"ignition\": {\"version\": \"3.4.0\"}}", "is an Ignition configuration"),
            ("{}", "is JSON"),
            ("variant: fcos\n", "is a Butane configuration"),
            ("hello world\n", "is in an unknown format"),
            ("# nothing yet\n", "is in an unknown format"),
            ("[settings.host-containers.admin]\nenabled = true\n", "is in an unknown format"),
            ("\u{1f}", "is in an unknown format"),
        ] {
            let message = said(text.as_bytes());
            assert!(message.contains(kind) && message.contains("config.toml"), "{text:?}: {message}");
        }
        let cut = gzip(b"domain = \"a.example\"");
        assert!(said(&cut[..15]).contains("cannot be unpacked"));
        assert!(said(&gzip(&vec![b' '; 8 << 20])).contains("larger than 1 MiB"));
        assert!(
            said(&gzip(&vec![b'A'; 2 << 20])).contains("larger than 1 MiB"),
            "Base64 that is cut stays Base64"
        );
        assert!(said(b"domain = \"\xff\"").contains("not UTF-8"));
    }

    #[test]
    fn a_mistake_in_a_marked_one_is_left_to_the_reader_of_settings() {
        assert!(said(b"#mastodon-appliance\ndomain = a\n").contains("domain = a"));
        assert!(!said(b"password = hunter2\n").contains("hunter2"));
    }
}
