//! Which texts of a repository are believed: names, versions, digests, locations.

/// Longest name, version or location, in bytes; real ones stay below 300.
const LONGEST: usize = 1024;

/// A SHA-256 as 64 lower-case digits, from the kind and value of a checksum. Weaker ones prove nothing; nobody asked for others yet.
pub(super) fn sha256(kind: &str, value: &str) -> Result<String, String> {
    if kind != "sha256" {
        return Err(format!("a checksum is `{kind}`, and imgbuild believes `sha256` only"));
    }
    let value = value.trim();
    if value.len() != 64 || !value.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Err("a checksum is no SHA-256: 64 hexadecimal digits".to_owned());
    }
    Ok(value.to_ascii_lowercase())
}

/// A place below the repository: it becomes part of a URL and of a path in the store.
pub(super) fn location(text: &str) -> Result<String, String> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"/._+-~^@=,:()".contains(&c);
    let normal = text.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if text.len() > LONGEST || !normal || !text.bytes().all(plain) {
        return Err(format!("the location `{}` is no plain path below the repository", shown(text)));
    }
    Ok(text.to_owned())
}

/// A name, version, release or architecture: one printable word without a slash.
pub(super) fn word(what: &str, text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > LONGEST || !text.bytes().all(|c| c.is_ascii_graphic() && c != b'/') {
        return Err(format!("{what} `{}` is no plain word", shown(text)));
    }
    Ok(text.to_owned())
}

/// A count, a size or a time.
pub(super) fn number(what: &str, text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("{what} `{}` is no number", shown(text)))
}

/// A stranger's text as it may stand in a message: short, and nothing that moves the cursor.
pub(super) fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short.escape_debug().to_string()
}
