//! The payload of a package: a compressed cpio archive, held against the file list in the header.
//!
//! Only what the header lists comes out, each path once, with the header's size, type, link target, permissions and digest: of the
//! archive itself nothing is believed. `unpack` makes a throw-away tree ("stage 0") for el7's own rpm and yum to run in, not an
//! installation: no scripts, no database, no owners, no set-user-id, no device nodes, FIFOs or ghosts, and folders stay open to whoever
//! runs it. The caller makes `usr/{bin,sbin,lib,lib64}` and the links to them before the first package: packages rely on them.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Result;

use super::cpio::{Archive, Member};
use super::files::{FileEntry, Kind};
use super::header::Package;
use super::place::Tree;
use super::signature::Verified;
use crate::store::hex;

/// What a decompressor may take, in bytes: xz -9 needs 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;

/// Where a payload goes. A file's content is right when `end` is called, not before.
pub(super) trait Sink {
    /// A file that is being written.
    type File;
    fn folder(&mut self, entry: &FileEntry) -> Result<()>;
    fn link(&mut self, entry: &FileEntry) -> Result<()>;
    fn hard_link(&mut self, entry: &FileEntry, existing: &FileEntry) -> Result<()>;
    fn begin(&mut self, entry: &FileEntry) -> Result<Self::File>;
    fn write(&mut self, file: &mut Self::File, entry: &FileEntry, bytes: &[u8]) -> Result<()>;
    fn end(&mut self, file: Self::File, entry: &FileEntry) -> Result<()>;
}

/// Unpacks a package below `root`, over what is there. On an error the tree may hold part of the package; nothing outside was touched.
pub fn unpack(package: &Verified, root: &Path) -> Result<()> {
    walk(package, &mut Tree::open(root, package)?)
}

/// Reads the whole payload and holds it against the header.
pub(super) fn check(package: &Package) -> Result<()> {
    walk(package, &mut Nowhere)
}

/// Hard links: all but one member of an inode come without content.
#[derive(Default)]
struct Inode<'a> {
    written: Option<&'a FileEntry>,
    waiting: Vec<&'a FileEntry>,
}

fn walk(package: &Package, sink: &mut impl Sink) -> Result<()> {
    let damaged = |what: anyhow::Error| package.damaged(format!("payload: {what:#}"));
    let bad = |path: &str, what: &str| package.damaged(format!("payload: `{}` {what}", path.escape_debug()));
    let mut expected: HashMap<&str, &FileEntry> = HashMap::with_capacity(package.files().len());
    for entry in package.files() {
        if expected.insert(&entry.path, entry).is_some() {
            return Err(bad(&entry.path, "is in the header twice").into());
        }
    }
    let mut seen: HashSet<&str> = HashSet::new();
    let mut inodes: HashMap<[u32; 3], Inode<'_>> = HashMap::new();
    let mut archive = Archive::new(decompressed(package)?);
    let mut buffer = vec![0; 64 << 10];
    while let Some(member) = archive.next().map_err(damaged)? {
        let Some(entry) = expected.get(member.path.as_str()).copied() else {
            return Err(bad(&member.path, "is not in the header").into());
        };
        if !seen.insert(&entry.path) {
            return Err(bad(&entry.path, "is there twice").into());
        }
        if Kind::of(member.mode) != entry.kind() {
            return Err(bad(&entry.path, "is of another type than the header says").into());
        }
        if entry.is_ghost() {
            if member.size > 0 {
                return Err(bad(&entry.path, "has content and the header says that it has none").into());
            }
            continue;
        }
        match entry.kind() {
            Kind::Special => {}
            Kind::Folder => sink.folder(entry)?,
            Kind::Link => {
                if member.size != entry.link_to.len() as u64 {
                    return Err(bad(&entry.path, "leads elsewhere than the header says").into());
                }
                let mut target = Vec::new();
                archive
                    .by_ref()
                    .take(member.size)
                    .read_to_end(&mut target)
                    .map_err(|error| damaged(error.into()))?;
                if target != entry.link_to.as_bytes() {
                    return Err(bad(&entry.path, "leads elsewhere than the header says").into());
                }
                sink.link(entry)?;
            }
            Kind::File => {
                let inode = inodes.entry(member.inode).or_default();
                if is_name_only(&member, entry) {
                    match inode.written {
                        Some(written) => hard_link(package, sink, entry, written)?,
                        None => inode.waiting.push(entry),
                    }
                    continue;
                }
                if member.size != entry.size {
                    let what = format!("has {} bytes and not {} as the header says", member.size, entry.size);
                    return Err(bad(&entry.path, &what).into());
                }
                let mut file = sink.begin(entry)?;
                let digest = entry.digest.as_ref();
                let mut hash = digest.map(|digest| digest.algorithm.new_hasher()).transpose()?;
                loop {
                    let count = archive.read(&mut buffer).map_err(|error| damaged(error.into()))?;
                    if count == 0 {
                        break;
                    }
                    if let Some(hash) = &mut hash {
                        hash.update(&buffer[..count]);
                    }
                    sink.write(&mut file, entry, &buffer[..count])?;
                }
                if let (Some(digest), Some(hash)) = (digest, hash)
                    && hex(&hash.finalize()) != digest.hex
                {
                    return Err(bad(&entry.path, "is not what the header says: its digest differs").into());
                }
                sink.end(file, entry)?;
                if member.links > 1 {
                    inode.written = Some(entry);
                    for waiting in std::mem::take(&mut inode.waiting) {
                        hard_link(package, sink, waiting, entry)?;
                    }
                }
            }
        }
    }
    if let Some(waiting) = inodes.values().find_map(|inode| inode.waiting.first()) {
        return Err(bad(&waiting.path, "is a hard link to a file that is not there").into());
    }
    let missing = |entry: &&FileEntry| {
        !entry.is_ghost() && entry.kind() != Kind::Special && !seen.contains(entry.path.as_str())
    };
    match package.files().iter().find(missing) {
        Some(missing) => Err(bad(&missing.path, "is in the header and not there").into()),
        None => Ok(()),
    }
}

/// A further name of an inode whose content comes with another member.
fn is_name_only(member: &Member, entry: &FileEntry) -> bool {
    member.links > 1 && member.size == 0 && entry.size > 0
}

fn hard_link(package: &Package, sink: &mut impl Sink, entry: &FileEntry, existing: &FileEntry) -> Result<()> {
    if entry.size != existing.size || entry.digest != existing.digest {
        let (one, two) = (entry.path.escape_debug(), existing.path.escape_debug());
        return Err(package
            .damaged(format!("payload: `{one}` is one file with `{two}`, and the header says two"))
            .into());
    }
    sink.hard_link(entry, existing)
}

/// The cpio archive. A package that does not name its compression has gzip or none.
fn decompressed(package: &Package) -> Result<Box<dyn Read>> {
    let mut payload = BufReader::with_capacity(256 << 10, package.payload()?);
    let damaged = |error: &dyn std::fmt::Display| package.damaged(format!("payload: {error}"));
    Ok(match package.compressor() {
        "" | "gzip" | "none" => {
            let is_gzip = payload.fill_buf()?.starts_with(&[0x1f, 0x8b]);
            if is_gzip { Box::new(flate2::bufread::MultiGzDecoder::new(payload)) } else { Box::new(payload) }
        }
        "xz" => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(payload, stream))
        }
        "zstd" => {
            Box::new(zstd::stream::read::Decoder::with_buffer(payload).map_err(|error| damaged(&error))?)
        }
        other => {
            let what =
                format!("its payload is compressed by `{}`, which is not understood", other.escape_debug());
            let hint = "packages of CentOS 7 are compressed by xz; gzip, zstd and none are understood too";
            return Err(package.refuse(what).hint(hint).into());
        }
    })
}

/// For looking only.
struct Nowhere;

impl Sink for Nowhere {
    type File = ();

    fn folder(&mut self, _: &FileEntry) -> Result<()> {
        Ok(())
    }

    fn link(&mut self, _: &FileEntry) -> Result<()> {
        Ok(())
    }

    fn hard_link(&mut self, _: &FileEntry, _: &FileEntry) -> Result<()> {
        Ok(())
    }

    fn begin(&mut self, _: &FileEntry) -> Result<()> {
        Ok(())
    }

    fn write(&mut self, (): &mut (), _: &FileEntry, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn end(&mut self, (): (), _: &FileEntry) -> Result<()> {
        Ok(())
    }
}
