//! Before a build starts: are the programs there, and is there room? A build that cannot end does not begin.

use std::path::Path;

use anyhow::Result;
use fs_err as fs;

use crate::context::Context;
use crate::error::Fault;
use crate::export::Format;
use crate::recipe::{Base, Recipe, human};
use crate::tools;

/// Bytes for the store, an estimate: the demo's base tree is a tar of 1.5 GB, and is there as that tar, unpacked, as the image
/// tree and in the disk; cargo's folder and room to spare are the rest.
const STORE_NEED: u64 = 9 << 30;
/// Bytes that one exported format takes at most.
const FORMAT_NEED: u64 = 2 << 30;
const TOOLS: &[&str] =
    &["unshare", "tar", "grub-mkimage", "mke2fs", "e2fsck", "mkfs.vfat", "mcopy", "qemu-img"];

/// Refuses to start without the tools or the room.
pub fn check(recipe: &Recipe, formats: &[Format], output: &Path, context: &Context) -> Result<()> {
    let mut wanted = TOOLS.to_vec();
    match recipe.base() {
        Base::Debian(_) => wanted.insert(0, "mmdebstrap"),
        Base::Rpm(_) => {}
    }
    if recipe.image.app.folder.is_none() {
        wanted.push("git");
    }
    tools::require(&wanted)?;
    tools::require_files()?;
    crate::disk::require_tools(context)?;
    if !rustix::process::geteuid().is_root() {
        tools::require(&["newuidmap"])?;
    }
    let cached =
        fs::read_dir(context.store.root().join("disk-v1")).is_ok_and(|mut entries| entries.next().is_some());
    // With earlier results in the store less is needed, but how much less only the stages know.
    room(context.store.root(), if cached { STORE_NEED / 2 } else { STORE_NEED }, "the store")?;
    let need: u64 = formats
        .iter()
        .map(|format| if matches!(format, Format::Raw | Format::Vhd) { FORMAT_NEED * 2 } else { FORMAT_NEED })
        .sum();
    // The folder itself is made by the export; its nearest ancestor that is there tells the room.
    let there = output.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    room(there, need, &format!("image `{}`", recipe.image.name))
}

fn room(folder: &Path, need: u64, what: &str) -> Result<()> {
    let stat = rustix::fs::statvfs(folder)?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= need {
        return Ok(());
    }
    let message =
        format!("no space: `{}` has {} free, {what} needs {}", folder.display(), human(free), human(need));
    Err(Fault::environment(message)
        .hint("free some, run `imgbuild clean`, or use another folder (IMGBUILD_STORE, --output)")
        .into())
}
