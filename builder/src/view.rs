//! Any artifact opened for reading: raw, qcow2, VMDK or OVA, down to the files of its root file system.
//!
//! Formats are told by their first bytes, never by their names. Nothing is mounted; ext4 is read by a crate that shares no code
//! with mke2fs.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use ext4_view::{Ext4, Ext4Read, Metadata};
use fs_err as fs;

use crate::context::Context;
use crate::disk::gpt::{self, Partition, ROOT_X86_64};
use crate::error::Fault;
use crate::exec::Run;
use crate::store::Scratch;

/// Folders in folders that are followed.
const DEPTH_LIMIT: usize = 64;
/// Largest file that is read as text, in bytes.
const TEXT_LIMIT: u64 = 64 << 20;

/// What a file is, by its magic number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A disk with a partition table.
    Raw,
    /// QEMU's format.
    Qcow2,
    /// A sparse VMware disk.
    Vmdk,
    /// A tar with an OVF descriptor.
    Ova,
}

/// An opened image.
pub struct View {
    /// What was opened.
    pub kind: Kind,
    /// Its raw disk, in a scratch folder unless the file itself is raw.
    pub raw: PathBuf,
    /// Its partitions.
    pub partitions: Vec<Partition>,
    /// Its root file system.
    pub root: Ext4,
    _scratch: Option<Scratch>,
}

/// A file of the root file system.
pub struct Node {
    /// Guest path.
    pub path: String,
    /// Owner, mode, length.
    pub metadata: Metadata,
}

impl View {
    /// Opens a file of any kind that imgbuild writes.
    pub fn open(path: &Path, context: &Context) -> Result<Self> {
        let kind = kind(path)?;
        if kind == Kind::Raw {
            return Self::of_raw(kind, path, path.to_owned(), None);
        }
        let scratch = context.store.scratch()?;
        refuse_references(path, kind, context)?;
        let disk = match kind {
            Kind::Ova => {
                let members = crate::export::ova::unpack(path, scratch.path())?;
                let is_disk =
                    |member: &PathBuf| member.extension().is_some_and(|extension| extension == "vmdk");
                let first = members.into_iter().find(is_disk);
                first.ok_or_else(|| Fault::user(format!("`{}` holds no disk", path.display())))?
            }
            _ => path.to_owned(),
        };
        if kind == Kind::Ova {
            refuse_references(&disk, Kind::Vmdk, context)?;
        }
        let raw = scratch.path().join("view.raw");
        let format = if kind == Kind::Qcow2 { "qcow2" } else { "vmdk" };
        Run::new(&context.log, "qemu-img")
            .args(["convert", "-f", format, "-O", "raw"])
            .arg(&disk)
            .arg(&raw)
            .run()?;
        Self::of_raw(kind, path, raw, Some(scratch))
    }

    /// `given` is the file that the user named.
    fn of_raw(kind: Kind, given: &Path, raw: PathBuf, scratch: Option<Scratch>) -> Result<Self> {
        let hint = "give the system disk; a data disk is blank until its first boot, and afterwards holds one file system";
        let named = |error: anyhow::Error| {
            anyhow!(Fault::user(format!("`{}`: {error:#}", given.display())).hint(hint))
        };
        let partitions = gpt::read(&mut fs::File::open(&raw)?).map_err(named)?;
        let root = partitions
            .iter()
            .find(|partition| partition.kind == ROOT_X86_64)
            .map(|partition| partition.extent.offset());
        let offset =
            root.ok_or_else(|| Fault::user(format!("`{}` has no root partition", given.display())))?;
        let reader = Slice { file: fs::File::open(&raw)?, offset };
        let root = Ext4::load(Box::new(reader))
            .map_err(|error| Fault::user(format!("`{}`: its root file system: {error}", given.display())))?;
        Ok(View { kind, raw, partitions, root, _scratch: scratch })
    }

    /// Where the root partition begins, in bytes.
    pub fn root_offset(&self) -> u64 {
        self.partitions
            .iter()
            .find(|partition| partition.kind == ROOT_X86_64)
            .map_or(0, |partition| partition.extent.offset())
    }

    /// A file's text; `None` when it is not there.
    pub fn text(&self, path: &str) -> Result<Option<String>> {
        if !self.root.exists(path).with_context(|| format!("looking for `{path}` in the image"))? {
            return Ok(None);
        }
        if self.root.metadata(path)?.len() > TEXT_LIMIT {
            return Err(
                Fault::user(format!("`{path}` in the image is too large to be what it should be")).into()
            );
        }
        let bytes = self.root.read(path).with_context(|| format!("reading `{path}` in the image"))?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Every file at or below a folder, folders before what they hold, in order of names. Links are not followed.
    pub fn walk(&self, folder: &str, visit: &mut dyn FnMut(&Node) -> Result<()>) -> Result<()> {
        // A damaged or hostile file system may hold a folder in itself.
        if folder.matches('/').count() > DEPTH_LIMIT {
            return Err(Fault::user(format!(
                "the image's folders are nested deeper than {DEPTH_LIMIT}: `{folder}`"
            ))
            .into());
        }
        let mut names: BTreeMap<String, Metadata> = BTreeMap::new();
        for entry in self.root.read_dir(folder).with_context(|| format!("listing `{folder}` in the image"))? {
            let entry = entry?;
            let name = entry.file_name().display().to_string();
            if name != "." && name != ".." {
                names.insert(format!("{}/{name}", folder.trim_end_matches('/')), entry.metadata()?);
            }
        }
        for (path, metadata) in names {
            let is_folder = metadata.is_dir();
            visit(&Node { path: path.clone(), metadata })?;
            if is_folder {
                self.walk(&path, visit)?;
            }
        }
        Ok(())
    }
}

/// Largest virtual disk that is opened, in bytes.
const SIZE_LIMIT: u64 = 1 << 42;

/// Refuses a disk whose content lies in other files: opening it would read whatever file or host its header names.
pub fn refuse_references(path: &Path, kind: Kind, context: &Context) -> Result<()> {
    let format = match kind {
        Kind::Qcow2 => "qcow2",
        Kind::Vmdk => "vmdk",
        Kind::Raw | Kind::Ova => return Ok(()),
    };
    let text = Run::new(&context.log, "qemu-img")
        .args(["info", "--output=json", "-f", format])
        .arg(path)
        .capture()?;
    let info: serde_json::Value = serde_json::from_str(&text)
        .with_context(|| format!("reading what qemu-img says of `{}`", path.display()))?;
    let specific = &info["format-specific"]["data"];
    let extents = specific["extents"].as_array().map_or(0, Vec::len);
    if info.get("backing-filename").is_some() || specific.get("data-file").is_some() || extents > 1 {
        let message = format!("`{}` is not a disk by itself: it refers to other files", path.display());
        return Err(Fault::user(message)
            .hint("make it one with `qemu-img convert`, if you trust where it came from")
            .into());
    }
    if info["virtual-size"].as_u64().is_none_or(|size| size > SIZE_LIMIT) {
        return Err(Fault::user(format!("`{}` claims to be larger than 4 TiB", path.display())).into());
    }
    Ok(())
}

/// A part of a file as a disk of its own.
struct Slice {
    file: fs::File,
    offset: u64,
}

impl Ext4Read for Slice {
    fn read(
        &mut self,
        start: u64,
        target: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.file.seek(SeekFrom::Start(self.offset + start))?;
        self.file.read_exact(target)?;
        Ok(())
    }
}

/// What a file is.
pub fn kind(path: &Path) -> Result<Kind> {
    let mut head = Vec::new();
    let file = fs::File::open(path).map_err(|error| Fault::user(error.to_string()))?;
    if !file.metadata()?.is_file() {
        return Err(Fault::user(format!("`{}` is no file", path.display())).into());
    }
    file.take(1024).read_to_end(&mut head)?;
    let at = |offset: usize, magic: &[u8]| head.get(offset..offset + magic.len()) == Some(magic);
    if at(0, b"QFI\xfb") {
        Ok(Kind::Qcow2)
    } else if at(0, b"KDMV") {
        Ok(Kind::Vmdk)
    } else if at(257, b"ustar") {
        Ok(Kind::Ova)
    } else if at(512, b"EFI PART") {
        Ok(Kind::Raw)
    } else {
        let message = format!(
            "`{}` is no disk image: neither qcow2, VMDK, OVA nor a raw disk with a GPT",
            path.display()
        );
        Err(Fault::user(message).into())
    }
}
