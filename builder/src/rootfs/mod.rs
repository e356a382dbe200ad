//! `Recipe`, `Lock` -> `BaseTree`: the distribution's files as one tar, made by its own package manager.
//!
//! Every package is verified before the package manager sees it: Debian's by apt inside mmdebstrap, RPM packages by imgbuild
//! itself. As root it works in a chroot, as an ordinary user in a user namespace. Equal inputs give an equal tree: what scripts of
//! packages make by chance is removed or set (`settle.rs`, `debian.rs`).

pub mod debian;
pub mod rpm;
mod settle;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use crate::context::Context;
use crate::error::Fault;
use crate::recipe::{Base, Recipe};
use crate::resolve::{Lock, Tree};
use crate::sandbox::Sandbox;
use crate::store::Key;
use crate::tree::path::TreePath;
use crate::tree::writer::{Meta, TreeWriter};

/// The trees' entries in the store.
const KIND: &str = "rootfs-v1";
/// The tar in an entry.
const TAR: &str = "base.tar";

/// A tar of the distribution's files.
#[derive(Debug, Clone)]
pub struct BaseTree {
    tar: PathBuf,
    key: Key,
}

impl BaseTree {
    /// The tar.
    pub fn tar(&self) -> &Path {
        &self.tar
    }

    /// The version of its kernel, where the name of the kernel's file says it.
    pub fn kernel(&self) -> Option<String> {
        let text = fs::read_to_string(self.tar.with_file_name(rpm::KERNEL)).ok()?;
        (!text.is_empty()).then_some(text)
    }

    /// Its key.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

/// Makes the tree, or takes it from the store.
pub fn make(recipe: &Recipe, lock: &Lock, context: &Context) -> Result<(BaseTree, bool)> {
    let key = key(recipe, lock, context)?;
    let (folder, cached) = context.store.get_or_make(KIND, &key, |folder| {
        let tar = folder.join(TAR);
        match recipe.base() {
            Base::Debian(debian) => debian::make(debian, recipe, lock, &tar, context),
            Base::Rpm(base) => rpm::make(base, recipe, lock, &tar, context),
        }
    })?;
    Ok((BaseTree { tar: folder.join(TAR), key }, cached))
}

fn key(recipe: &Recipe, lock: &Lock, context: &Context) -> Result<Key> {
    match recipe.base() {
        Base::Debian(debian) => debian::key(debian, recipe, lock),
        Base::Rpm(base) => rpm::key(base, recipe, lock, context),
    }
}

/// The size in bytes of the tree that the store has already.
pub fn kept(recipe: &Recipe, lock: &Lock, context: &Context) -> Result<Option<u64>> {
    let tar = context.store.path(KIND, &key(recipe, lock, context)?).join(TAR);
    Ok(fs::metadata(tar).ok().map(|meta| meta.len()))
}

/// What stands for the compilers in the key of an application.
pub fn compilers_key(recipe: &Recipe, lock: &Lock) -> Result<Key> {
    Ok(match recipe.base() {
        Base::Debian(debian) => {
            Key::of("compilers", 1, &[lock.key().as_str(), &Recipe::canonical(&debian.build_packages)?])
        }
        Base::Rpm(_) => rpm::trees_key(lock, &[Tree::Build]),
    })
}

/// The tree with the compilers beside it, unpacked: where an application is built. Nothing of it but the result gets into an image.
pub fn with_compilers<'a>(
    recipe: &Recipe,
    lock: &Lock,
    base: &BaseTree,
    context: &'a Context,
) -> Result<Sandbox<'a>> {
    context.reporter.doing("unpacking the base tree");
    let sandbox = Sandbox::unpack(base.tar(), context)?;
    match recipe.base() {
        Base::Debian(debian) => debian::add_compilers(debian, &sandbox, context)?,
        Base::Rpm(base) => rpm::add_compilers(base, recipe, lock, &sandbox, context)?,
    }
    Ok(sandbox)
}

/// Files of the recipe that go into the root before packages are configured, as a tar: owners and modes of a checkout must not reach
/// the guest, so it says root, 0644 or 0755, and names no folder.
fn files_before(folder: &Path, epoch: u64, tar: &Path) -> Result<()> {
    let mut writer = TreeWriter::new(fs::File::create(tar)?, epoch);
    add_files(folder, &TreePath::root(), &mut writer)?;
    Ok(writer.finish()?.sync_all()?)
}

/// Adds the files below a folder of the recipe, folders only as parts of their names.
fn add_files(folder: &Path, guest: &TreePath, writer: &mut TreeWriter<fs::File>) -> Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = guest.join(&entry.file_name().to_string_lossy()).map_err(Fault::user)?;
        if entry.file_type()?.is_dir() {
            add_files(&entry.path(), &path, writer)?;
        } else {
            let executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
            writer.file(
                &path,
                Meta::root(if executable { 0o755 } else { 0o644 }),
                &fs::read(entry.path())?,
            )?;
        }
    }
    Ok(())
}
