//! The only way to change what is on a disk: every write, name, mode and owner of first boot goes through here.
//!
//! What a function here has returned for is durable, also when there was nothing to do: the process that did it earlier may have been
//! killed before it could sync. A power cut leaves the old content of a file or the new, never a mixture and never an empty file; a
//! new folder has its owner and mode from the moment that it has its name. Scratch names end in `.new`, and whoever needs one again
//! first removes what a cut left of it.
//!
//! The lint `disallowed_methods` refuses the calls that change files everywhere else. What lives in `/run` comes through here too:
//! syncing memory costs nothing. Under the feature `faults` each operation can be the last one, see `durable/faults.rs`.
#![expect(clippy::disallowed_methods, reason = "this is the one place")]

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;

#[cfg(feature = "faults")]
pub mod faults;
#[cfg(not(feature = "faults"))]
#[path = "durable/undisturbed.rs"]
pub(crate) mod faults;

/// The scratch name beside a path.
pub fn scratch(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    path.with_file_name(name)
}

/// Replaces a file's content and mode, owner `uid:gid` when given. Returns whether anything changed.
pub fn write(path: &Path, content: &[u8], mode: u32, owner: Option<(u32, u32)>) -> Result<bool> {
    folder(parent(path))?;
    let temp = scratch(path);
    erase(&temp)?;
    if is_as_wanted(path, content, mode, owner) {
        sync_file(path)?;
        sync_folder(parent(path))?;
        return Ok(false);
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temp)?;
    faults::created(&temp);
    file.write_all(content)?;
    faults::filled(&temp);
    set_owner_and_mode(&temp, mode, owner)?;
    file.sync_all()?;
    faults::synced(&temp);
    rename(&temp, path)?;
    Ok(true)
}

fn is_as_wanted(path: &Path, content: &[u8], mode: u32, owner: Option<(u32, u32)>) -> bool {
    let Ok(meta) = path.symlink_metadata() else { return false };
    meta.is_file() && has(&meta, mode, owner) && fs::read(path).is_ok_and(|old| old == content)
}

fn has(meta: &std::fs::Metadata, mode: u32, owner: Option<(u32, u32)>) -> bool {
    meta.mode() & 0o7777 == mode && owner.is_none_or(|(uid, gid)| meta.uid() == uid && meta.gid() == gid)
}

/// The owner first: changing it takes special bits of the mode away.
fn set_owner_and_mode(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
    let before = path.symlink_metadata()?;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::chown(path, Some(uid), Some(gid))
            .with_context(|| format!("changing the owner of `{}`", path.display()))?;
        faults::changed(path, &before);
    }
    if owner.is_some() || before.mode() & 0o7777 != mode {
        fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        faults::changed(path, &before);
    }
    Ok(())
}

/// Renames a file or folder over `to` in the same folder, and makes the folder's entry durable: a commit point.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    let kept = faults::keep(to);
    fs::rename(from, to)?;
    faults::renamed(from, to, kept);
    sync_folder(parent(to))
}

/// Points a symbolic link elsewhere in one step: a commit point.
pub fn flip_link(link: &Path, target: &str) -> Result<()> {
    let temp = scratch(link);
    erase(&temp)?;
    fs::os::unix::fs::symlink(target, &temp)?;
    faults::created(&temp);
    rename(&temp, link)
}

/// Makes sure of a folder; one that is there stays as it is.
pub fn folder(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    folder(parent(path))?;
    make_folder(path, 0o755)?;
    sync_folder(parent(path))
}

/// Makes sure of a folder with a mode, and an owner `uid:gid` when given.
pub fn folder_with(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
    match path.metadata() {
        Ok(meta) if meta.is_dir() => {
            if !has(&meta, mode, owner) {
                set_owner_and_mode(path, mode, owner)?;
            }
            sync_folder(path)?;
            sync_folder(parent(path))
        }
        _ => {
            folder(parent(path))?;
            let temp = scratch(path);
            erase(&temp)?;
            make_folder(&temp, 0o700)?;
            set_owner_and_mode(&temp, mode, owner)?;
            sync_folder(&temp)?;
            rename(&temp, path)
        }
    }
}

/// Makes sure of a folder that root alone can enter.
pub fn private_folder(path: &Path) -> Result<()> {
    folder_with(path, 0o700, None)
}

/// Makes an empty folder that root alone can enter at a scratch name, whatever a cut left there.
pub fn scratch_folder(path: &Path) -> Result<()> {
    erase(path)?;
    folder(parent(path))?;
    make_folder(path, 0o700)
}

/// A folder has its mode from the first moment, less what the process' mask takes.
fn make_folder(path: &Path, mode: u32) -> Result<()> {
    std::fs::DirBuilder::new()
        .mode(mode)
        .create(path)
        .with_context(|| format!("making the folder `{}`", path.display()))?;
    faults::created(path);
    Ok(())
}

/// Removes a file or link. It may be absent, with its folder.
pub fn remove(path: &Path) -> Result<()> {
    erase(path)?;
    if parent(path).is_dir() { sync_folder(parent(path)) } else { Ok(()) }
}

/// Takes what a cut left at a scratch name away: a file, a link, or a folder with all that is in it. That this is durable matters to
/// nobody.
pub fn erase(path: &Path) -> Result<()> {
    let Ok(meta) = path.symlink_metadata() else { return Ok(()) };
    if faults::takes_away(path) {
        return Ok(());
    }
    if meta.is_dir() {
        fs::remove_dir_all(path)?;
    } else {
        fs::remove_file(path)?;
    }
    faults::removed(path);
    Ok(())
}

/// Removes a folder that has to be empty: what is left in a place where something was mounted may be the mount itself.
pub fn remove_empty_folder(path: &Path) -> Result<()> {
    fs::remove_dir(path)?;
    faults::removed(path);
    sync_folder(parent(path))
}

/// Writes over a part of a device, in place and durably: for what has no file system yet.
pub fn overwrite(device: &std::fs::File, content: &[u8], offset: u64) -> std::io::Result<()> {
    device.write_all_at(content, offset)?;
    faults::happened("written on a device");
    device.sync_all()?;
    faults::happened("synced a device");
    Ok(())
}

/// Opens a log for adding to it. Its lines are for people: nothing depends on them, and they are not synced.
pub fn log(path: &Path) -> Result<std::fs::File> {
    folder(parent(path))?;
    Ok(fs::OpenOptions::new().create(true).append(true).open(path)?.into_parts().0)
}

/// Opens the file that a lock is held on. It never has a content.
pub fn lock_file(path: &Path) -> Result<std::fs::File> {
    folder(parent(path))?;
    Ok(fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?.into_parts().0)
}

/// Makes a file's content durable that a program has written.
pub fn sync_file(path: &Path) -> Result<()> {
    fs::File::open(path)?.sync_all()?;
    faults::synced(path);
    Ok(())
}

/// Makes a folder's entries durable.
pub fn sync_folder(folder: &Path) -> Result<()> {
    sync_file(folder)
}

/// Makes a whole tree durable: every file, then every folder.
pub fn sync_tree(folder: &Path) -> Result<()> {
    sync_below(folder)?;
    faults::happened("synced a tree");
    Ok(())
}

fn sync_below(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_below(&entry.path())?;
        } else if kind.is_file() {
            fs::File::open(entry.path())?.sync_all()?;
            faults::synced_quietly(&entry.path());
        }
    }
    fs::File::open(folder)?.sync_all()?;
    faults::synced_quietly(folder);
    Ok(())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::{erase, flip_link, folder_with, remove_empty_folder, scratch, scratch_folder, write};

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn what_a_cut_left_does_not_count() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/file");
        assert!(write(&path, b"one", 0o600, None).unwrap());
        fs_err::write(scratch(&path), "half").unwrap();
        assert!(!write(&path, b"one", 0o600, None).unwrap());
        assert!(!scratch(&path).exists());
        fs_err::create_dir(scratch(&path)).unwrap();
        assert!(write(&path, b"one", 0o644, None).unwrap(), "another mode is a change");
        assert_eq!((fs_err::read(&path).unwrap(), mode(&path)), (b"one".to_vec(), 0o644));

        let link = root.path().join("link");
        symlink("half", scratch(&link)).unwrap();
        flip_link(&link, "deep").unwrap();
        assert_eq!(fs_err::read_link(&link).unwrap(), Path::new("deep"));
        // A link is taken away, never what it points to.
        erase(&link).unwrap();
        assert!(path.exists());
    }

    #[test]
    fn a_folder_gets_its_mode_when_it_is_new_and_when_it_is_not() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/private");
        fs_err::create_dir_all(scratch(&path).join("left")).unwrap();
        folder_with(&path, 0o750, None).unwrap();
        assert_eq!((mode(&path), fs_err::read_dir(&path).unwrap().count()), (0o750, 0));
        folder_with(&path, 0o700, None).unwrap();
        assert_eq!(mode(&path), 0o700);
        fs_err::write(path.join("file"), "").unwrap();
        scratch_folder(&path).unwrap();
        assert_eq!(fs_err::read_dir(&path).unwrap().count(), 0);
        assert!(
            remove_empty_folder(path.parent().unwrap()).is_err() && path.exists(),
            "only an empty one goes"
        );
        remove_empty_folder(&path).unwrap();
        assert!(!path.exists());
    }
}
