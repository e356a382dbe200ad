//! Checks of single values that several tables share: numbers in a range, URLs, hosts with a port, paths.
//!
//! Every refusal says what was written, unless it may be a secret, and what to write instead.

use serde::{Deserialize, Deserializer};

use super::network::host_or_address;

/// Longest URL or path that is taken, in bytes.
const LONGEST: usize = 2048;

/// A number between two others, both included.
pub(super) fn within<'de, D: Deserializer<'de>, const LEAST: u16, const MOST: u16>(
    deserializer: D,
) -> Result<u16, D::Error> {
    let number = i64::deserialize(deserializer)?;
    u16::try_from(number).ok().filter(|number| (LEAST..=MOST).contains(number)).ok_or_else(|| {
        serde::de::Error::custom(format!("{number} is out of range: write a number from {LEAST} to {MOST}"))
    })
}

/// A text that a function accepts.
pub(super) fn checked<'de, D, F>(deserializer: D, check: F) -> Result<String, D::Error>
where
    D: Deserializer<'de>,
    F: FnOnce(&str) -> Result<(), String>,
{
    let text = String::deserialize(deserializer)?;
    check(&text).map_err(serde::de::Error::custom)?;
    Ok(text)
}

/// Checks a URL of one of these schemes: a host, perhaps a port and a path, nothing after that.
pub(super) fn url(text: &str, schemes: &[&str]) -> Result<(), String> {
    let wanted = || format!("write a URL such as `{}://files.example.net`", schemes.join("://…` or `"));
    // First: every other refusal shows the text.
    if text.contains('@') {
        return Err(format!("a URL with a login was given: a login has keys of its own; {}", wanted()));
    }
    let parts = text.split_once("://").filter(|(scheme, _)| schemes.contains(scheme));
    let Some((_, rest)) = parts else {
        return Err(format!("{text:?} does not begin with `{}://`: {}", schemes.join("://` or `"), wanted()));
    };
    let (host, path) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
    let is_bad = |character: char| !character.is_ascii_graphic() || "\"'\\<>{}|^`?#".contains(character);
    if text.len() > LONGEST || path.contains(is_bad) {
        return Err(format!("{text:?} is no plain URL, or longer than {LONGEST} characters: {}", wanted()));
    }
    host_and_port(host)
}

/// The same without a path: something else is put behind it.
pub(super) fn bare_url(text: &str, schemes: &[&str]) -> Result<(), String> {
    url(text, schemes)?;
    match text.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| text.len() - rest.len() + at)) {
        Some(at) => {
            Err(format!("{text:?} has a path, which is put there by Mastodon: write `{}`", &text[..at]))
        }
        None => Ok(()),
    }
}

/// Checks a host by name or address, perhaps with a port; an IPv6 address is in brackets then.
pub(super) fn host_and_port(text: &str) -> Result<(), String> {
    let is_port =
        |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0) && !port.starts_with(['+', '0']);
    if text.contains('@') {
        return Err(
            "a host with a login was given: a login has keys of its own; write one such as `files.example.net:9000`".to_owned()
        );
    }
    let wrong = || format!("{text:?} is no host with a port: write one such as `files.example.net:9000`");
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or_else(wrong)?;
        let is_good = address.parse::<std::net::Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
        return if is_good { Ok(()) } else { Err(wrong()) };
    }
    match text.split_once(':') {
        Some((host, port)) if is_port(port) => host_or_address(host),
        Some(_) => Err(wrong()),
        None => host_or_address(text),
    }
}

/// Checks the whole path of a file or folder. Blanks, quotes and dots that lead upwards are refused: the path stands in files of
/// several programs.
pub(super) fn path(text: &str, example: &str) -> Result<(), String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@".contains(&byte);
    let is_good = text.len() <= LONGEST
        && text.strip_prefix('/').is_some_and(|rest| {
            rest.split('/').all(|part| !["", ".", ".."].contains(&part)) && rest.bytes().all(known)
        });
    if is_good {
        return Ok(());
    }
    Err(format!(
        "{text:?} is not a whole path of letters, digits and any of `._-+@`, without a `/` at its end: write one such as `{example}`"
    ))
}

#[cfg(test)]
mod tests {
    use super::{bare_url, host_and_port, path, url};

    #[test]
    fn urls_have_a_scheme_and_a_host() {
        for (text, is_url, is_bare) in [
            ("https://files.example.net", true, true),
            ("https://files.example.net/", true, false),
            ("http://[2001:db8::1]:9000/a/b", true, false),
            ("https://192.0.2.1:9000", true, true),
            ("ftp://files.example.net", false, false),
            ("files.example.net", false, false),
            ("https://", false, false),
            ("https:///path", false, false),
            ("https://me:hunter2@files.example.net", false, false),
            ("https://files.example.net:0", false, false),
            ("https://files.example.net:99999", false, false),
            ("https://files.example.net/a b", false, false),
            ("https://files.example.net/it's", false, false),
            ("https://files.example.net/?a=b", false, false),
            ("https://Files.example.net", false, false),
        ] {
            assert_eq!(url(text, &["http", "https"]).is_ok(), is_url, "{text}");
            assert_eq!(bare_url(text, &["http", "https"]).is_ok(), is_bare, "{text}");
        }
        for text in
            ["https://me:hunter2@files.example.net", "s3://me:hunter2@host", "https://me:hunter2@host/a b"]
        {
            let message = url(text, &["https"]).unwrap_err();
            assert!(!message.contains("hunter2"), "{message}");
        }
        let message = host_and_port("me:hunter2@files.example.net:9000").unwrap_err();
        assert!(!message.contains("hunter2"), "{message}");
        let message = bare_url("https://files.example.net/", &["https"]).unwrap_err();
        assert!(message.ends_with("write `https://files.example.net`"), "{message}");
    }

    #[test]
    fn hosts_may_have_a_port() {
        for (text, expected) in [
            ("files.example.net", true),
            ("192.168.1.123:9000", true),
            ("[2001:db8::1]", true),
            ("[2001:db8::1]:9000", true),
            ("[2001:db8::1]9000", false),
            ("files.example.net:", false),
            ("files.example.net:http", false),
            ("", false),
        ] {
            assert_eq!(host_and_port(text).is_ok(), expected, "{text}");
        }
    }

    #[test]
    fn paths_are_whole() {
        for (text, expected) in [
            ("/srv/mastodon", true),
            ("/srv/mastodon/", false),
            ("/", false),
            ("srv", false),
            ("/srv//a", false),
            ("/srv/../etc", false),
            ("/srv/a b", false),
            ("/srv/a;b", false),
            ("/srv/$a", false),
        ] {
            assert_eq!(path(text, "/srv").is_ok(), expected, "{text}");
        }
    }
}
