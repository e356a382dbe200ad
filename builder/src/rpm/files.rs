//! The list of files in a package's header: what may be unpacked, and what it must be.

use anyhow::{Context as _, Result, bail, ensure};
use pgp::crypto::hash::HashAlgorithm;

use super::index::Header;

/// Tags, as in `rpmTag`.
mod tag {
    pub(super) const OLD_NAMES: u32 = 1027;
    pub(super) const SIZES: u32 = 1028;
    pub(super) const MODES: u32 = 1030;
    pub(super) const TIMES: u32 = 1034;
    pub(super) const DIGESTS: u32 = 1035;
    pub(super) const LINKS: u32 = 1036;
    pub(super) const FLAGS: u32 = 1037;
    pub(super) const FOLDER_INDEXES: u32 = 1116;
    pub(super) const BASE_NAMES: u32 = 1117;
    pub(super) const FOLDERS: u32 = 1118;
    pub(super) const LONG_SIZES: u32 = 5008;
    pub(super) const DIGEST_ALGORITHM: u32 = 5011;
}

/// `RPMFILE_GHOST`: the package owns the path and does not bring it.
const GHOST: u32 = 1 << 6;

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// A device node, a FIFO or a socket.
    Special,
}

impl Kind {
    /// From `st_mode`.
    pub(super) fn of(mode: u32) -> Self {
        match mode & 0o170_000 {
            0o040_000 => Kind::Folder,
            0o100_000 => Kind::File,
            0o120_000 => Kind::Link,
            _ => Kind::Special,
        }
    }
}

/// Digest of a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDigest {
    pub(super) algorithm: HashAlgorithm,
    /// Lower-case hexadecimal.
    pub hex: String,
}

impl FileDigest {
    /// Whether nobody can make another content with this digest.
    pub(super) fn is_strong(&self) -> bool {
        super::signature::is_strong(self.algorithm)
    }
}

/// One path of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// As the package names it: absolute, once the package is verified.
    pub path: String,
    /// `st_mode`: type and permissions.
    pub mode: u32,
    /// Bytes of a regular file.
    pub size: u64,
    /// Modification time, seconds since 1970.
    pub modified: u32,
    /// Only regular files have one.
    pub digest: Option<FileDigest>,
    /// Target of a symbolic link, else empty.
    pub link_to: String,
    /// `RPMFILE_*` bits.
    pub flags: u32,
}

impl FileEntry {
    /// What it is.
    pub fn kind(&self) -> Kind {
        Kind::of(self.mode)
    }

    /// Whether the package only owns the path: it is not in the payload.
    pub fn is_ghost(&self) -> bool {
        self.flags & GHOST != 0
    }

    /// Absolute, no empty part, no `.`, no `..`, no control character: it cannot lead out of a tree.
    pub(super) fn is_safe(&self) -> bool {
        let Some(rest) = self.path.strip_prefix('/') else { return false };
        let part_is_safe = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= 255;
        let all = rest.is_empty() || rest.split('/').all(part_is_safe);
        all && self.path.len() < 4096 && !self.path.chars().any(char::is_control)
    }
}

/// Reads the list.
pub(super) fn read(header: &Header) -> Result<Vec<FileEntry>> {
    let paths = paths(header)?;
    let count = paths.len();
    let modes = header.u16s(tag::MODES)?;
    let mut sizes = header.u64s(tag::LONG_SIZES)?;
    if sizes.is_empty() {
        sizes = header.u32s(tag::SIZES)?.into_iter().map(u64::from).collect();
    }
    let times = header.u32s(tag::TIMES)?;
    let digests = header.strings(tag::DIGESTS)?;
    let links = header.strings(tag::LINKS)?;
    let flags = header.u32s(tag::FLAGS)?;
    for (what, length) in [
        ("modes", modes.len()),
        ("sizes", sizes.len()),
        ("times", times.len()),
        ("digests", digests.len()),
        ("link targets", links.len()),
        ("flags", flags.len()),
    ] {
        ensure!(length == count, "it has {count} files and {length} {what}");
    }
    let algorithm = algorithm(header)?;
    let mut entries = Vec::with_capacity(count);
    for (number, path) in paths.into_iter().enumerate() {
        let digest = digest(algorithm, digests[number]).with_context(|| format!("digest of `{path}`"))?;
        entries.push(FileEntry {
            mode: u32::from(modes[number]),
            size: sizes[number],
            modified: times[number],
            digest,
            link_to: links[number].to_owned(),
            flags: flags[number],
            path,
        });
    }
    Ok(entries)
}

/// Folder and name apart, as rpm has written them since 4.0; or whole, as before.
fn paths(header: &Header) -> Result<Vec<String>> {
    let names = header.strings(tag::BASE_NAMES)?;
    if names.is_empty() {
        return Ok(header.strings(tag::OLD_NAMES)?.into_iter().map(str::to_owned).collect());
    }
    let folders = header.strings(tag::FOLDERS)?;
    let indexes = header.u32s(tag::FOLDER_INDEXES)?;
    ensure!(indexes.len() == names.len(), "it has {} names and {} folders", names.len(), indexes.len());
    let path = |(name, index): (&str, u32)| match folders.get(index as usize) {
        // A name with a slash in it would be another file's path.
        Some(folder) if !name.contains('/') => Ok(format!("{folder}{name}")),
        Some(_) => bail!("the name `{}` has a slash in it", name.escape_debug()),
        None => bail!("`{}` is in a folder that is not there", name.escape_debug()),
    };
    names.into_iter().zip(indexes).map(path).collect()
}

/// MD5 where the header names none: so it was before rpm 4.6.
fn algorithm(header: &Header) -> Result<HashAlgorithm> {
    let number = header.u32s(tag::DIGEST_ALGORITHM)?.first().copied().unwrap_or(1);
    match u8::try_from(number).map(HashAlgorithm::from) {
        Ok(algorithm) if algorithm.digest_size().is_some() => Ok(algorithm),
        _ => bail!("the digests of its files are of the unknown kind {number}"),
    }
}

fn digest(algorithm: HashAlgorithm, hex: &str) -> Result<Option<FileDigest>> {
    if hex.is_empty() {
        return Ok(None);
    }
    let length = algorithm.digest_size().unwrap_or_default() * 2;
    ensure!(hex.len() == length && hex.bytes().all(|c| c.is_ascii_hexdigit()), "is not one of {algorithm}");
    Ok(Some(FileDigest { algorithm, hex: hex.to_ascii_lowercase() }))
}
