//! `ImageTree` -> `DiskImage`: one sparse raw disk that boots by BIOS and by UEFI.
//!
//! GPT with a BIOS-boot partition, an EFI system partition and an ext4 root. No loop device, no kernel mount, no root: mke2fs
//! and mtools write into files. Nothing here knows of packages or distributions.

pub mod gpt;
pub mod layout;

mod esp;
mod ext4;
mod grub;
pub mod menu;

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use crate::context::Context;
use crate::error::Fault;
use crate::formats::Identity;
use crate::overlay::ImageTree;
use crate::recipe::{Boot, Recipe};
use crate::store::Key;
use gpt::Guid;
use layout::Layout;

/// Raise when equal inputs give another disk.
const STAGE_VERSION: u32 = 4;

/// The raw system disk; never changed once made.
#[derive(Debug, Clone)]
pub struct DiskImage {
    path: PathBuf,
    layout: Layout,
    identity: Identity,
    epoch: u64,
}

impl DiskImage {
    /// The raw file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its partitions are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The name of its content.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The time of everything in it, in seconds since 1970.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// Identifiers of an image's disk and file systems, derived from what the image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// The GPT.
    pub disk: Guid,
    /// The three partitions, in order.
    pub partitions: [Guid; 3],
    /// The root file system.
    pub root: Guid,
    /// Seed of the root file system's directory hashes.
    pub hash_seed: Guid,
    /// Serial number of the EFI system partition.
    pub esp: u32,
}

impl Ids {
    /// From the key of the image tree's inputs.
    pub fn derive(key: &Key) -> Self {
        let guid = |purpose: &str| Guid::random_form(key.derive(purpose));
        let esp = key.derive("esp");
        Ids {
            disk: guid("disk"),
            partitions: [guid("bios-boot"), guid("esp-partition"), guid("root-partition")],
            root: guid("root"),
            hash_seed: guid("hash-seed"),
            esp: u32::from_le_bytes([esp[0], esp[1], esp[2], esp[3]]),
        }
    }
}

/// `/etc/fstab` of the image. The root grows into its partition at boot where systemd can do that.
pub fn fstab(ids: &Ids) -> String {
    let serial = format!("{:04X}-{:04X}", ids.esp >> 16, ids.esp & 0xffff);
    format!(
        "# Made by imgbuild.\n\
         UUID={} / ext4 errors=remount-ro,x-systemd.growfs 0 1\n\
         UUID={serial} /boot/efi vfat umask=0077,nofail 0 2\n",
        ids.root
    )
}

/// GRUB's menus: paths in the image, and texts.
pub fn menus(boot: &Boot, title: &str, ids: &Ids) -> Vec<(&'static str, String)> {
    menu::all(boot, title, &ids.root)
}

/// Writes the disk, or takes it from the store.
pub fn write(recipe: &Recipe, tree: &ImageTree, context: &Context) -> Result<(DiskImage, bool)> {
    let disk = &recipe.image.disk;
    let options = Recipe::canonical(&(disk.system, disk.esp))?;
    let loaders = grub::digest()?;
    let key = Key::of("disk", STAGE_VERSION, &[tree.key().as_str(), &options, &loaders]);
    let layout = Layout::plan(disk.system.bytes(), disk.esp.bytes())?;
    let (folder, cached) = context.store.get_or_make("disk-v1", &key, |folder| {
        let raw = folder.join("system.raw");
        fs::File::create(&raw)?.set_len(disk.system.bytes())?;
        let scratch = context.store.scratch()?;
        context.reporter.doing("partition table and boot code");
        gpt::write(&raw, &layout, tree.ids())?;
        grub::install_bios(&raw, &layout, tree.ids(), recipe.image.boot.menu, scratch.path(), context)?;
        context.reporter.doing("EFI system partition");
        esp::write(&raw, &layout, tree, recipe.image.boot.menu, scratch.path(), context)?;
        context.reporter.doing("root file system");
        ext4::write(&raw, &layout, tree, context)?;
        // Here, where the disk is still in memory, so that an export reads it once.
        let identity = Identity::of(&fs::File::open(&raw)?, disk.system.bytes())?;
        Ok(fs::write(folder.join("identity"), identity.to_string())?)
    })?;
    let path = folder.join("identity");
    let identity = fs::read_to_string(&path)?
        .parse()
        .map_err(|_| Fault::environment(format!("`{}` is damaged; remove its folder", path.display())))?;
    Ok((DiskImage { path: folder.join("system.raw"), layout, identity, epoch: tree.epoch() }, cached))
}

/// Refuses host tools that are too old for what this module asks of them.
pub fn require_tools(context: &Context) -> Result<()> {
    ext4::require_tool(context)
}
