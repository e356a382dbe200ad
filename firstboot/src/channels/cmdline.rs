//! The kernel's command line: `mastodon.KEY=value`, one setting a word, or `mastodon.config.base64=` with a whole file.
//!
//! Words are split as the kernel splits them: at blanks outside of double quotes, which then go; there is no way to write a double
//! quote itself. Where a word is there twice, the last one counts, as for the kernel's own parameters: that is the one that
//! somebody has just added in the boot menu. Everybody on the machine can read `/proc/cmdline`, the application too, so secrets are
//! refused there. Booleans of the appliance itself: `mastodon.imds=on` or `off`, see [`super::imds`].

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};

use super::words::Words;
use super::{Offer, Wrong, merge, read_offered};
use crate::settings::schema::FIELDS;

const FILE: &str = "proc/cmdline";
/// What the operator knows it as.
pub(super) const SOURCE: &str = "the kernel command line";
/// What everybody can read.
const THERE: &str = "the command line";
const PREFIX: &str = "mastodon.";
/// The one word that is no setting.
const IMDS: &str = "imds";

/// What the command line offers: the whole file, and single settings.
pub(super) fn look(root: &Path) -> Result<Vec<Offer>> {
    match read_offered(&root.join(FILE), SOURCE)? {
        Some(line) => offers(&line),
        None => Ok(Vec::new()),
    }
}

/// Whether the command line says to ask EC2's metadata service, or not to; `None` when it says nothing that can be read.
pub(super) fn asks_imds(root: &Path) -> Option<bool> {
    let line = read_offered(&root.join(FILE), SOURCE).ok()??;
    match ours(&line).get(IMDS)?.as_str() {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

pub(super) fn offers(line: &str) -> Result<Vec<Offer>> {
    let mut words = Words::new(SOURCE);
    for (key, value) in ours(line) {
        if key == IMDS {
            if !["on", "off"].contains(&value.as_str()) {
                bail!(Wrong(format!("{SOURCE}: `mastodon.{IMDS}` must be on or off")));
            }
            continue;
        }
        if FIELDS.iter().any(|field| field.path == key && field.is_secret()) || key.starts_with("extra-env.")
        {
            return Err(secret(SOURCE, &key, THERE));
        }
        words.say(&key, &value)?;
    }
    let offers = words.offers()?;
    for offer in &offers {
        refuse_secrets(offer, THERE)?;
    }
    Ok(offers)
}

/// Refuses an offer with a secret in it that everybody can read there.
pub(super) fn refuse_secrets(offer: &Offer, there: &str) -> Result<()> {
    let Ok(table) = toml::from_str(&offer.text) else { return Ok(()) };
    for path in merge::leaves(&table).keys() {
        let within = |secret: &str| {
            path.strip_prefix(secret).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if let Some(field) = FIELDS.iter().find(|field| field.is_secret() && within(field.path)) {
            return Err(secret(&offer.source, field.path, there));
        }
    }
    Ok(())
}

fn secret(source: &str, key: &str, there: &str) -> anyhow::Error {
    anyhow::anyhow!(Wrong(format!(
        "{source}: key `{key}`: everybody on this machine can read {there}, so no secret may stand there: remove it, \
         change that secret where it is used, and give it another way, such as fw_cfg, SMBIOS type 11 or a config volume"
    )))
}

/// Our words without their prefix; of several with the same key the last one.
fn ours(line: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for word in split(line) {
        if let Some((key, value)) =
            word.strip_prefix(PREFIX).map(|word| word.split_once('=').unwrap_or((word, "")))
        {
            found.insert(key.to_owned(), value.to_owned());
        }
    }
    found
}

/// The words, without their quotes.
fn split(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for character in line.trim_end_matches('\0').chars() {
        match character {
            '"' => is_quoted = !is_quoted,
            blank if blank.is_ascii_whitespace() && !is_quoted => words.push(String::new()),
            other => {
                if let Some(word) = words.last_mut() {
                    word.push(other);
                }
            }
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::super::packed::BASE64;
    use super::*;

    fn said(line: &str) -> String {
        match offers(line) {
            Ok(offers) => {
                let lines = offers.into_iter().map(|offer| format!("{}: {}", offer.source, offer.text));
                lines.collect::<Vec<_>>().concat()
            }
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn words_are_split_as_the_kernel_splits_them() {
        for (line, expected) in [
            ("a b=c\n", &["a", "b=c"][..]),
            ("a=\"b c\" \"d=e f\"  g", &["a=b c", "d=e f", "g"]),
            ("a=\"b", &["a=b"]),
            ("a='b c'", &["a='b", "c'"]),
            ("", &[]),
        ] {
            assert_eq!(split(line), expected, "{line:?}");
        }
    }

    #[test]
    fn settings_arrive() {
        assert_eq!(said("BOOT_IMAGE=/vmlinuz root=LABEL=root ro quiet console=ttyS0 mastodon=no\n"), "");
        let line = "ro mastodon.domain=old.example mastodon.web.listen=ipv6 \"mastodon.network.dns=2001:db8::53, 192.0.2.53\" \
                    mastodon.tls.mode= mastodon.imds=off mastodon.domain=a.example\n";
        insta::assert_snapshot!(said(line), @r#"
        the kernel command line: domain = "a.example"
        schema = 1

        [network]
        dns = ["2001:db8::53", "192.0.2.53"]

        [web]
        listen = "ipv6"
        "#);
        let file = "schema = 1\ndomain = \"a.example\"\n";
        let line = format!("quiet mastodon.config.base64={}", BASE64.encode(file));
        assert_eq!(said(&line), format!("the kernel command line (mastodon.config.base64): {file}"));
    }

    #[test]
    fn secrets_are_refused() {
        let file = BASE64.encode("[mail]\npassword = \"hunter2\"\n");
        let pairs = BASE64.encode("extra-env = { A = \"hunter2\" }\n");
        for (line, key) in [
            ("mastodon.mail.password=hunter2".to_owned(), "`mail.password`"),
            ("mastodon.extra-env=A=hunter2".to_owned(), "`extra-env`"),
            ("mastodon.extra-env.A=hunter2".to_owned(), "`extra-env.A`"),
            (format!("mastodon.config.base64={file}"), "`mail.password`"),
            (format!("mastodon.config.base64={pairs}"), "`extra-env`"),
        ] {
            let message = said(&line);
            assert!(message.contains(key) && message.contains("no secret may stand there"), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
        assert!(said("mastodon.imds=maybe").contains("must be on or off"));
        assert!(said("mastodon.domian").contains("unknown key `domian`"));
    }

    #[test]
    fn the_metadata_service_is_switched() {
        for (line, expected) in
            [("quiet", None), ("mastodon.imds=on", Some(true)), ("mastodon.imds=off a", Some(false))]
        {
            let root = tempfile::tempdir().unwrap();
            fs_err::create_dir_all(root.path().join("proc")).unwrap();
            fs_err::write(root.path().join(FILE), line).unwrap();
            assert_eq!(asks_imds(root.path()), expected);
        }
    }
}
