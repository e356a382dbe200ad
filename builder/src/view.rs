//! Any artifact opened for reading: raw, qcow2, VMDK or OVA, down to the files of its root file system.
//!
//! Formats are told by their first bytes, never by their names. Every format is read in place, a disk in the middle of an OVA too;
//! nothing is unpacked unless somebody asks for a raw file. Nothing is mounted; ext4 is read by a crate that shares no code with
//! mke2fs.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow};
use ext4_view::{Ext4, Ext4Error, Ext4Read, Metadata};
use fs_err as fs;

use crate::context::Context;
use crate::disk::gpt::{self, Partition, ROOT_X86_64};
use crate::error::Fault;
use crate::formats::disk::{Raw, ReadDisk, to_raw};
use crate::formats::part::Part;
use crate::formats::{qcow2, tar, vhd, vmdk};
use crate::store::{Scratch, Store, room};

/// Folders in folders that are followed.
const DEPTH_LIMIT: usize = 64;
/// Largest file that is read as text, in bytes.
const TEXT_LIMIT: u64 = 64 << 20;
/// What a raw copy of an image's system disk hardly ever exceeds, in bytes.
const USUAL: u64 = 4 << 30;

/// What a file is, by its magic number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A disk with a partition table; also a fixed VHD.
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
    /// Its partitions.
    pub partitions: Vec<Partition>,
    /// Its root file system.
    pub root: Ext4,
    given: PathBuf,
    disk: Box<dyn ReadDisk>,
    store: Store,
    raw: OnceLock<(PathBuf, Scratch)>,
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
        let (kind, disk) = disk(path)?;
        let hint = "give the system disk; a data disk is blank until its first boot, and afterwards holds one file system";
        let partitions = gpt::read(disk.twin().as_mut()).map_err(|error| {
            // A damaged file has said so itself.
            if error.chain().any(<dyn std::error::Error>::is::<Fault>) {
                return error;
            }
            anyhow!(Fault::user(format!("`{}`: {error:#}", path.display())).hint(hint))
        })?;
        let root = partitions.iter().find(|partition| partition.kind == ROOT_X86_64);
        let extent = root
            .map(|partition| partition.extent)
            .ok_or_else(|| Fault::user(format!("`{}` has no root partition", path.display())))?;
        let reader = Slice { disk: disk.twin(), offset: extent.offset() };
        let root = Ext4::load(Box::new(reader))
            .map_err(|error| foreign(error, &format!("`{}`: its root file system", path.display())))?;
        let (given, store) = (path.to_owned(), context.store.clone());
        Ok(View { kind, partitions, root, given, disk, store, raw: OnceLock::new() })
    }

    /// A reader of its own for the whole disk.
    pub fn disk(&self) -> Box<dyn ReadDisk> {
        self.disk.twin()
    }

    /// The disk as a raw file, for programs that know no other: the file itself when it is raw, otherwise a copy in a scratch
    /// folder, made when it is first asked for and gone with the view.
    pub fn raw(&self) -> Result<&Path> {
        if self.kind == Kind::Raw {
            return Ok(&self.given);
        }
        if self.raw.get().is_none() {
            self.require_room()?;
            let scratch = self.store.scratch()?;
            let path = scratch.path().join("view.raw");
            to_raw(self.disk.as_ref(), &path)?;
            // Whoever was quicker has made the same.
            let _ = self.raw.set((path, scratch));
        }
        self.raw.get().map(|(path, _)| path.as_path()).context("the raw copy was just made")
    }

    /// Refuses a raw copy that the store's file system has no room for: a small file may unpack to terabytes.
    fn require_room(&self) -> Result<()> {
        let limit = room::free(self.store.root())?.max(USUAL);
        let mut disk = self.disk.twin();
        let (mut data, mut at) = (0_u64, 0);
        // Ends soon, whatever the tables claim: what counts is only whether it fits.
        while let Some(range) = disk.next_data(at)?
            && data <= limit
        {
            data = data.saturating_add(range.end - range.start);
            at = range.end;
        }
        // Results of earlier builds make way for an honest one.
        if data <= USUAL {
            self.store.make_room(data)?;
        }
        let free = room::free(self.store.root())?;
        if data <= free {
            return Ok(());
        }
        let message = format!(
            "{} has more data than the store's file system has room for ({} MiB)",
            disk.name(),
            free >> 20
        );
        Err(Fault::environment(message)
            .hint("name a folder on a larger file system with IMGBUILD_STORE; an image of a few MiB that unpacks to so much is no honest one")
            .into())
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
        if !self.root.exists(path).map_err(|error| of_file(error, path))? {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&self.bytes(path, TEXT_LIMIT)?).into_owned()))
    }

    /// A file's content, of `limit` bytes at most. The file system may claim any length, and [`Ext4::read`] would ask for that much
    /// memory: this is the way to read.
    pub fn bytes(&self, path: &str, limit: u64) -> Result<Vec<u8>> {
        let length = self.root.metadata(path).map_err(|error| of_file(error, path))?.len();
        if length > limit {
            let message =
                format!("`{path}` in the image is too large to be what it should be: {length} bytes");
            return Err(Fault::user(message).into());
        }
        self.root.read(path).map_err(|error| of_file(error, path))
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
        let blame = |error| foreign(error, &format!("`{folder}` in the image"));
        for entry in self.root.read_dir(folder).map_err(blame)? {
            let entry = entry.map_err(blame)?;
            let name = entry.file_name().display().to_string();
            if name != "." && name != ".." {
                let metadata = entry.metadata().map_err(blame)?;
                names.insert(format!("{}/{name}", folder.trim_end_matches('/')), metadata);
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

fn of_file(error: Ext4Error, path: &str) -> anyhow::Error {
    foreign(error, &format!("`{path}` in the image"))
}

/// An error of the image's file system: the image's fault, unless the disk below it has said more.
fn foreign(error: Ext4Error, what: &str) -> anyhow::Error {
    match error {
        Ext4Error::Io(error) => match error.downcast::<Fault>() {
            Ok(fault) => anyhow!(*fault).context(format!("reading {what}")),
            Err(error) => anyhow::Error::from_boxed(error).context(format!("reading {what}")),
        },
        error => Fault::user(format!("{what}: {error}")).into(),
    }
}

/// Opens the disk in a file of any kind: the first one of an OVA.
pub fn disk(path: &Path) -> Result<(Kind, Box<dyn ReadDisk>)> {
    let kind = kind(path)?;
    let part = Part::whole(fs::File::open(path)?)?;
    let disk = match kind {
        Kind::Raw => Box::new(Raw::open(vhd::without_footer(part)?)?),
        Kind::Qcow2 => qcow2::read::open(part)?,
        Kind::Vmdk => vmdk::read::open(part)?,
        Kind::Ova => {
            let member = tar::first_member(&part, |name| name.to_ascii_lowercase().ends_with(".vmdk"))?;
            let member = member.ok_or_else(|| Fault::user(format!("`{}` holds no disk", path.display())))?;
            vmdk::read::open(member)?
        }
    };
    Ok((kind, disk))
}

/// Refuses a disk whose content lies in other files: opening it would read whatever file or host its header names.
pub fn refuse_references(path: &Path, kind: Kind) -> Result<()> {
    let part = Part::whole(fs::File::open(path)?)?;
    match kind {
        Kind::Qcow2 => qcow2::read::refuse_references(&part),
        Kind::Vmdk => vmdk::read::refuse_references(&part),
        Kind::Raw | Kind::Ova => Ok(()),
    }
}

/// A part of a disk as a disk of its own.
struct Slice {
    disk: Box<dyn ReadDisk>,
    offset: u64,
}

impl Ext4Read for Slice {
    fn read(
        &mut self,
        start: u64,
        target: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        // A block far behind the end stays behind the end.
        self.disk
            .read_at(self.offset.saturating_add(start), target)
            .map_err(anyhow::Error::reallocate_into_boxed_dyn_error_without_backtrace)
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
    } else if at(0, vmdk::descriptor::SIGNATURE) {
        let message = format!(
            "`{}` is not a disk by itself: it is a VMDK's descriptor, without the disk",
            path.display()
        );
        Err(Fault::user(message)
            .hint("make it one with `qemu-img convert`, if you trust where it came from")
            .into())
    } else {
        let message = format!(
            "`{}` is no disk image: neither qcow2, VMDK, OVA nor a raw disk with a GPT",
            path.display()
        );
        Err(Fault::user(message).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Ids;
    use crate::disk::layout::Layout;
    use crate::error::{exit_code, render};
    use crate::formats::testing::{Images, Numbers, stream};
    use crate::store::Key;

    /// Long enough for grains of its own, and of no use to a compressor.
    fn content() -> String {
        Numbers(7).bytes(200_000).iter().map(|byte| char::from(b'!' + byte % 90)).collect()
    }

    /// A system disk with one file on its root, in every format.
    fn images() -> Images {
        let images = Images::new();
        let size = 120 << 20;
        let layout = Layout::plan(size, 34 << 20).unwrap();
        let disk = images.path("disk.raw");
        fs::File::create(&disk).unwrap().set_len(size).unwrap();
        gpt::write(&disk, &layout, &Ids::derive(&Key::of("test", 1, &[]))).unwrap();
        fs::create_dir(images.path("root")).unwrap();
        images.file("root/hostname", content().as_bytes());
        let (offset, blocks) = (layout.root.offset(), layout.root.bytes() / 1024);
        images.run("mke2fs", &format!("-q -F -t ext4 -d root -E offset={offset} disk.raw {blocks}k"));
        images.qemu_img("convert -f raw -O qcow2 -c -o compression_type=zstd disk.raw disk.qcow2");
        let stream = stream(&fs::read(&disk).unwrap());
        let mut archive = ::tar::Builder::new(Vec::new());
        for (name, content) in [("a.ovf", &b"<Envelope/>"[..]), ("a.mf", b""), ("a-disk1.vmdk", &stream)] {
            let mut header = ::tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, content).unwrap();
        }
        images.file("disk.vmdk", &stream);
        images.file("disk.ova", &archive.into_inner().unwrap());
        images
    }

    #[test]
    fn every_format_is_opened_down_to_its_files() {
        let images = images();
        let context = Context::for_tests(&images.path("store"));
        let raw = fs::read(images.path("disk.raw")).unwrap();
        for (name, kind) in [
            ("disk.raw", Kind::Raw),
            ("disk.qcow2", Kind::Qcow2),
            ("disk.vmdk", Kind::Vmdk),
            ("disk.ova", Kind::Ova),
        ] {
            let view = View::open(&images.path(name), &context).unwrap();
            assert_eq!(view.kind, kind);
            assert_eq!(view.text("/hostname").unwrap().unwrap(), content(), "{name}");
            let scratch = || fs::read_dir(images.path("store/tmp")).unwrap().count();
            assert_eq!(scratch(), 0, "{name}: nothing is copied before it is asked for");
            assert!(fs::read(view.raw().unwrap()).unwrap() == raw, "{name}");
            drop(view);
            assert_eq!(scratch(), 0, "{name}: the copy is gone with the view");
        }
    }

    #[test]
    fn damage_below_a_file_system_is_named_once() {
        let images = images();
        let context = Context::for_tests(&images.path("store"));
        let mut bytes = fs::read(images.path("disk.ova")).unwrap();
        // Somewhere in the grains of the one file that cannot be made smaller.
        let middle = bytes.len() / 2;
        bytes[middle..middle + 100].fill(0);
        let path = images.file("bad.ova", &bytes);
        let view = View::open(&path, &context).unwrap();
        let error = view.text("/hostname").unwrap_err();
        let text = render(&error);
        assert_eq!(exit_code(&error), 1, "{text}");
        assert_eq!(
            text.matches("bad.ova`: its member `a-disk1.vmdk` is damaged: the grain at byte").count(),
            1,
            "{text}"
        );
        assert_eq!(text.matches("hint:").count(), 1, "{text}");
    }

    #[test]
    fn a_file_of_any_length_is_read_up_to_its_limit() {
        let images = images();
        // As a hostile image has it: an inode that claims more than any memory holds.
        let offset = Layout::plan(120 << 20, 34 << 20).unwrap().root.offset();
        images.file("script", b"set_inode_field hostname size 0x20000000000\n");
        images.run("debugfs", &format!("-w -f script disk.raw?offset={offset}"));
        let context = Context::for_tests(&images.path("store"));
        let view = View::open(&images.path("disk.raw"), &context).unwrap();
        for error in [view.bytes("/hostname", 1 << 30).unwrap_err(), view.text("/hostname").unwrap_err()] {
            assert!(error.to_string().contains("too large to be what it should be"), "{error}");
            assert_eq!(exit_code(&error), 1);
        }
    }

    #[test]
    fn a_descriptor_alone_is_no_disk() {
        let images = Images::new();
        let path =
            images.file("disk.vmdk", b"# Disk DescriptorFile\nversion=1\nRW 1 FLAT \"/etc/shadow\" 0\n");
        let error = kind(&path).unwrap_err();
        assert!(error.to_string().ends_with("it is a VMDK's descriptor, without the disk"), "{error}");
    }
}
