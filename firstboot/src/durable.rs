//! The only way to change a file for good: temp, fsync, rename, fsync of the folder.
//!
//! A power cut leaves the old content or the new, never a mixture and never an empty file. Scratch names end in `.new`
//! and are swept at every start.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;

/// The scratch name beside a path.
pub fn scratch(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    path.with_file_name(name)
}

/// Replaces a file's content and mode, owner `uid:gid` when given. Returns whether anything changed.
pub fn write(path: &Path, content: &[u8], mode: u32, owner: Option<(u32, u32)>) -> Result<bool> {
    if is_as_wanted(path, content, mode, owner) {
        return Ok(false);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let temp = scratch(path);
    if temp.symlink_metadata().is_ok() {
        fs::remove_file(&temp)?;
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temp)?;
    file.write_all(content)?;
    fs::set_permissions(&temp, std::fs::Permissions::from_mode(mode))?;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::chown(&temp, Some(uid), Some(gid))
            .with_context(|| format!("changing the owner of `{}`", temp.display()))?;
    }
    file.sync_all()?;
    rename(&temp, path)?;
    Ok(true)
}

fn is_as_wanted(path: &Path, content: &[u8], mode: u32, owner: Option<(u32, u32)>) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = path.symlink_metadata() else { return false };
    meta.is_file()
        && meta.mode() & 0o7777 == mode
        && owner.is_none_or(|(uid, gid)| meta.uid() == uid && meta.gid() == gid)
        && fs::read(path).is_ok_and(|old| old == content)
}

/// Renames a file or folder over `to` and makes the folder's entry durable: a commit point.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)?;
    sync_folder(to.parent().unwrap_or(Path::new("/")))
}

/// Points a symbolic link elsewhere in one step: a commit point.
pub fn flip_link(link: &Path, target: &str) -> Result<()> {
    let temp = scratch(link);
    if temp.symlink_metadata().is_ok() {
        fs::remove_file(&temp)?;
    }
    fs::os::unix::fs::symlink(target, &temp)?;
    rename(&temp, link)
}

/// Makes sure of a folder that root alone can enter.
pub fn private_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    Ok(())
}

/// Makes a folder's entries durable.
pub fn sync_folder(folder: &Path) -> Result<()> {
    fs::File::open(folder)?.sync_all()?;
    Ok(())
}

/// Makes a whole tree durable: every file, then every folder.
pub fn sync_tree(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            fs::File::open(entry.path())?.sync_all()?;
        }
    }
    sync_folder(folder)
}
