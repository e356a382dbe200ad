//! The only way to change what is on a disk: every write, name, mode and owner of first boot goes through here.
//!
//! What a function here has returned for is durable, also when there was nothing to do: the process that did it earlier may have been
//! killed before it could sync. A power cut leaves the old content of a file or the new, never a mixture and never an empty file; a
//! new folder has its owner and mode from the moment that it has its name. Scratch names end in `.new`, and whoever needs one again
//! first removes what a cut left of it.
//!
//! Some of these files lie in folders that belong to a service, whose user can put a link or a pipe at any name in them at any time.
//! So owners and modes are only changed through what is open already, and no link is followed to get there.
//!
//! The lint `disallowed_methods` refuses the calls that change files everywhere else. What lives in `/run` comes through here too:
//! syncing memory costs nothing. Under the feature `faults` each operation can be the last one, see `durable/faults.rs`.
#![expect(clippy::disallowed_methods, reason = "this is the one place")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use rustix::fs::{Mode, OFlags};

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
    if let Some(file) = as_wanted(path, content, mode, owner) {
        sync_open(&file, path)?;
        sync_folder(parent(path))?;
        return Ok(false);
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temp)?;
    faults::created(&temp);
    file.write_all(content)?;
    faults::filled(&temp);
    set_owner_and_mode(file.file(), &temp, mode, owner)?;
    sync_open(file.file(), &temp)?;
    rename(&temp, path)?;
    Ok(true)
}

/// The file, open, if there is nothing to do to it but a sync.
fn as_wanted(path: &Path, content: &[u8], mode: u32, owner: Option<(u32, u32)>) -> Option<File> {
    let file = open(path, OFlags::NOFOLLOW).ok()?;
    let meta = file.metadata().ok()?;
    let is_alike = meta.is_file() && meta.len() == content.len() as u64 && has(&meta, mode, owner);
    let mut old = Vec::new();
    // It may grow while it is read.
    let is_read = is_alike && (&file).take(meta.len() + 1).read_to_end(&mut old).is_ok();
    (is_read && old == content).then_some(file)
}

/// Opens for reading, and never waits for the other end of a pipe.
fn open(path: &Path, flags: OFlags) -> Result<File> {
    let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())
        .with_context(|| format!("opening `{}`", path.display()))?;
    Ok(file.into())
}

/// Opens a folder itself, not what a link in its place leads to.
fn open_folder(path: &Path) -> Result<File> {
    open(path, OFlags::NOFOLLOW | OFlags::DIRECTORY)
}

fn has(meta: &std::fs::Metadata, mode: u32, owner: Option<(u32, u32)>) -> bool {
    meta.mode() & 0o7777 == mode && owner.is_none_or(|(uid, gid)| meta.uid() == uid && meta.gid() == gid)
}

/// Of what is open; the path is for messages. The owner first: changing it takes special bits of the mode away.
fn set_owner_and_mode(file: &File, path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
    let before = file.metadata()?;
    if let Some((uid, gid)) = owner {
        fchown(file, Some(uid), Some(gid))
            .with_context(|| format!("changing the owner of `{}`", path.display()))?;
        faults::changed(path, &before);
    }
    if owner.is_some() || before.mode() & 0o7777 != mode {
        file.set_permissions(std::fs::Permissions::from_mode(mode))
            .with_context(|| format!("changing the mode of `{}`", path.display()))?;
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

/// Makes sure of a folder with a mode, and an owner `uid:gid` when given. A link to a folder is none.
pub fn folder_with(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => {
            let open = open_folder(path)?;
            if !has(&open.metadata()?, mode, owner) {
                set_owner_and_mode(&open, path, mode, owner)?;
            }
            sync_open(&open, path)?;
            sync_folder(parent(path))
        }
        Ok(_) => bail!("`{}` is not a folder: move it away, or put a folder in its place", path.display()),
        Err(_) => {
            folder(parent(path))?;
            let temp = scratch(path);
            erase(&temp)?;
            make_folder(&temp, 0o700)?;
            let open = open_folder(&temp)?;
            set_owner_and_mode(&open, &temp, mode, owner)?;
            sync_open(&open, &temp)?;
            rename(&temp, path)
        }
    }
}

/// Who could open a file or folder, before [`close_to`] changed that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// Its mode, without the kind.
    pub mode: u32,
    /// Numbers of its user and its group.
    pub owner: (u32, u32),
}

/// Takes from a file or folder what a mode does not allow, and gives it its owner `uid:gid` when given; adds no right. Returns how it
/// was, if that was to be changed. What is neither, a link, or a file with several names is left as it is: `None`.
pub fn close_to(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<Option<Open>> {
    let Some((file, before)) = look_at(path, mode, owner)? else { return Ok(None) };
    set_owner_and_mode(&file, path, before.mode & mode, owner)?;
    sync_open(&file, path)?;
    Ok(Some(before))
}

/// Whether [`close_to`] would change a file or folder.
pub fn is_open_beyond(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<bool> {
    Ok(look_at(path, mode, owner)?.is_some())
}

fn look_at(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<Option<(File, Open)>> {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() || meta.is_file() => {}
        _ => return Ok(None),
    }
    let file = open(path, OFlags::NOFOLLOW)?;
    let meta = file.metadata()?;
    let open = Open { mode: meta.mode() & 0o7777, owner: (meta.uid(), meta.gid()) };
    let is_alone = meta.is_dir() || meta.is_file() && meta.nlink() == 1;
    let is_beyond = open.mode & !mode != 0 || owner.is_some_and(|owner| owner != open.owner);
    Ok((is_alone && is_beyond).then_some((file, open)))
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

/// Makes a new file of so many bytes that the disk has set aside for it, without holes.
pub fn allocate(path: &Path, bytes: u64, mode: u32) -> Result<()> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    faults::created(path);
    rustix::fs::fallocate(file.file(), rustix::fs::FallocateFlags::empty(), 0, bytes)
        .with_context(|| format!("setting {bytes} bytes aside for `{}`", path.display()))?;
    sync_open(file.file(), path)
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
    sync_open(&open(path, OFlags::empty())?, path)
}

fn sync_open(file: &File, path: &Path) -> Result<()> {
    file.sync_all().with_context(|| format!("syncing `{}`", path.display()))?;
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
            sync_quietly(&entry.path(), OFlags::NOFOLLOW)?;
        }
    }
    sync_quietly(folder, OFlags::empty())
}

fn sync_quietly(path: &Path, flags: OFlags) -> Result<()> {
    open(path, flags)?.sync_all().with_context(|| format!("syncing `{}`", path.display()))?;
    faults::synced_quietly(path);
    Ok(())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::{
        close_to, erase, flip_link, folder_with, is_open_beyond, make_folder, open_folder,
        remove_empty_folder, scratch, scratch_folder, set_owner_and_mode, write,
    };

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

    /// What the user of a service can do in a folder that is its own.
    #[test]
    fn no_link_leads_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let (victim, folder) = (root.path().join("victim"), root.path().join("victims"));
        fs_err::write(&victim, "text").unwrap();
        fs_err::create_dir(&folder).unwrap();
        let untouched = |what: &str| {
            let modes = (mode(&victim), mode(&folder));
            assert_eq!((fs_err::read(&victim).unwrap(), modes), (b"text".to_vec(), (0o604, 0o705)), "{what}");
        };
        for (path, mode) in [(&victim, 0o604), (&folder, 0o705)] {
            fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }

        // In the place of a file: the link goes, even if what it leads to is just what is wanted.
        let path = root.path().join("file");
        symlink(&victim, &path).unwrap();
        assert!(write(&path, b"text", 0o604, None).unwrap());
        assert!(path.symlink_metadata().unwrap().is_file());
        untouched("a link in the place of a file");

        // In the place of the scratch name, between its making and the change of its owner.
        let temp = scratch(&path);
        let file = fs_err::File::create(&temp).unwrap();
        erase(&temp).unwrap();
        symlink(&victim, &temp).unwrap();
        set_owner_and_mode(file.file(), &temp, 0o666, None).unwrap();
        untouched("a link in the place of a scratch file");

        // In the place of a folder, and of its scratch name.
        let path = root.path().join("folder");
        symlink(&folder, &path).unwrap();
        let error = folder_with(&path, 0o777, None).unwrap_err().to_string();
        assert!(error.contains("is not a folder: move it away"), "{error}");
        assert!(open_folder(&path).is_err());
        let temp = scratch(&path);
        make_folder(&temp, 0o700).unwrap();
        let open = open_folder(&temp).unwrap();
        erase(&temp).unwrap();
        symlink(&folder, &temp).unwrap();
        set_owner_and_mode(&open, &temp, 0o777, None).unwrap();
        untouched("a link in the place of a folder");
    }

    #[test]
    fn what_is_too_open_is_closed_and_nothing_else_is_touched() {
        let root = tempfile::tempdir().unwrap();
        let set = |name: &str, mode: u32| {
            let path = root.path().join(name);
            fs_err::write(&path, name).unwrap();
            fs_err::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let open = set("open", 0o644);
        assert!(is_open_beyond(&open, 0o600, None).unwrap());
        assert_eq!(close_to(&open, 0o600, None).unwrap().unwrap().mode, 0o644);
        assert_eq!((mode(&open), close_to(&open, 0o600, None).unwrap()), (0o600, None));
        let closed = set("closed", 0o400);
        assert_eq!(
            (close_to(&closed, 0o600, None).unwrap(), mode(&closed)),
            (None, 0o400),
            "no right is added"
        );
        // A link is not followed, and a file with a second name may be somebody else's.
        let other = set("other", 0o644);
        symlink(&other, root.path().join("link")).unwrap();
        assert_eq!(close_to(&root.path().join("link"), 0o600, None).unwrap(), None);
        fs_err::hard_link(&other, root.path().join("name")).unwrap();
        assert_eq!((close_to(&root.path().join("name"), 0o600, None).unwrap(), mode(&other)), (None, 0o644));
        assert_eq!(close_to(&root.path().join("absent"), 0o600, None).unwrap(), None);
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_is_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .unwrap();
        assert!(write(&path, b"", 0o700, None).unwrap());
        assert!(path.symlink_metadata().unwrap().is_file());
    }
}
