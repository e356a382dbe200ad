//! Files and bytes that somebody else made: read without following links, waiting or believing their size.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// No configuration is larger; certificates and keys included.
pub(super) const LIMIT: u64 = 1024 * 1024;

/// Reads a file that somebody else made as text; see [`read_bytes`] and [`accept`].
pub(super) fn read_offered(path: &Path, source: &str) -> Result<Option<String>> {
    read_bytes(path, source)?.map_or(Ok(None), |bytes| accept(bytes, source))
}

/// Reads a file that somebody else made: no link, regular, at most 1 MiB. `None` when it is absent.
pub(super) fn read_bytes(path: &Path, source: &str) -> Result<Option<Vec<u8>>> {
    let mut options = fs_err::OpenOptions::new();
    // Neither follows a link out of the volume nor waits for the writer of a named pipe.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    options.read(true).options_mut().custom_flags(flags.bits().cast_signed());
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {source}")),
    };
    if !file.metadata()?.is_file() {
        bail!("{source} is not a regular file: put the configuration itself there");
    }
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes).with_context(|| format!("reading {source}"))?;
    if bytes.len() as u64 > LIMIT {
        bail!("{source} is larger than 1 MiB: this cannot be a configuration");
    }
    Ok(Some(bytes))
}

/// The text of what was offered: at most 1 MiB, UTF-8, without NUL but at its end; `None` when it is empty or the literal `null` that
/// some hypervisors write for an empty field.
pub(super) fn accept(bytes: Vec<u8>, source: &str) -> Result<Option<String>> {
    if bytes.len() as u64 > LIMIT {
        bail!("{source} is larger than 1 MiB: this cannot be a configuration");
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| anyhow::anyhow!("{source} is not UTF-8 text: save it as plain text"))?;
    let said = text.trim_matches(|character: char| character.is_whitespace() || character == '\0');
    if said.contains('\0') {
        bail!("{source} has NUL bytes in it, so it is damaged or no text: write it again");
    }
    if said.is_empty() || said == "null" { Ok(None) } else { Ok(Some(text)) }
}
