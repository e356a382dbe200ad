//! Room on the store's file system: what is free, and which results go first when it is not enough.
//!
//! Only results that any build makes again from what the store has, without a network, in seconds: trees and disks of earlier
//! builds. One goes by rename, oldest use first, and never while a run uses it: whoever takes an entry holds its lock.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::Result;
use fs_err as fs;
use rustix::fs::{FlockOperation, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::{Store, allocated};

/// Kinds whose entries may go, in the order of the layout.
const REPLACEABLE: &[&str] = &["tree-v1", "disk-v1"];

/// Entries that this run has taken, by their locks; given back when the last clone of the store goes.
#[derive(Debug, Clone, Default)]
pub(super) struct InUse(Arc<Mutex<Vec<fs::File>>>);

impl InUse {
    /// Takes an entry. `false` when it is not there: never made, or removed by another run a moment ago.
    pub(super) fn take(&self, entry: &Path) -> Result<bool> {
        let Ok(folder) = fs::File::open(entry) else { return Ok(false) };
        rustix::fs::flock(&folder, FlockOperation::LockShared)?;
        // It may have been renamed away between the two.
        if !is_same(&folder, entry) {
            return Ok(false);
        }
        // When it was last used; a store that may only be read keeps no such record.
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let unchanged = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let _ = rustix::fs::futimens(
            folder.as_fd(),
            &Timestamps { last_access: unchanged, last_modification: now },
        );
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(folder);
        Ok(true)
    }
}

fn is_same(open: &fs::File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let of = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    match (open.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => of(open) == of(named),
        _ => false,
    }
}

/// Bytes that an ordinary user may still write to the file system of a folder.
pub fn free(folder: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

impl Store {
    /// Sees to `need` bytes of room on the store's file system. Returns what was removed for it, in bytes, entry by entry; nothing
    /// when there was room, or when all that may go would not be enough.
    pub fn make_room(&self, need: u64) -> Result<Vec<(PathBuf, u64)>> {
        self.give_up(need.saturating_sub(free(self.root())?))
    }

    fn give_up(&self, lacking: u64) -> Result<Vec<(PathBuf, u64)>> {
        if lacking == 0 {
            return Ok(Vec::new());
        }
        let mut candidates = self.replaceable()?;
        if candidates.iter().map(|(_, _, bytes)| bytes).sum::<u64>() < lacking {
            return Ok(Vec::new());
        }
        candidates.sort();
        let (mut removed, mut freed) = (Vec::new(), 0_u64);
        for (_, path, bytes) in candidates {
            if freed >= lacking {
                break;
            }
            if self.remove_unused(&path)? {
                freed = freed.saturating_add(bytes);
                removed.push((path, bytes));
            }
        }
        Ok(removed)
    }

    /// Entries that may go: when each was last used, where it is, its size on disk in bytes.
    fn replaceable(&self) -> Result<Vec<(SystemTime, PathBuf, u64)>> {
        let mut found = Vec::new();
        for kind in REPLACEABLE {
            let Ok(folder) = fs::read_dir(self.root().join(kind)) else { continue };
            for entry in folder {
                let entry = entry?;
                if !super::is_own(kind, &entry.file_name().to_string_lossy()) || is_used(&entry.path()) {
                    continue;
                }
                found.push((entry.metadata()?.modified()?, entry.path(), allocated(&entry.path())));
            }
        }
        Ok(found)
    }

    /// Removes an entry unless a run uses it. Returns whether it is gone.
    pub fn remove_unused(&self, entry: &Path) -> Result<bool> {
        let folder = match fs::File::open(entry) {
            Ok(folder) => folder,
            // Another run cleans too.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        if rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(false);
        }
        // Whoever waits for the lock finds the name gone.
        self.remove(entry).map(|()| true)
    }
}

fn is_used(entry: &Path) -> bool {
    fs::File::open(entry)
        .is_ok_and(|folder| rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).is_err())
}

#[cfg(test)]
mod tests {
    use super::super::Key;
    use super::*;

    /// A store with two trees, the first of them older.
    fn two_trees(folder: &Path) -> (Store, Vec<PathBuf>) {
        let store = Store::open(folder).unwrap();
        let make = |name: &str| {
            let fill = |path: &Path| Ok(fs::write(path.join("tar"), vec![1; 1 << 16])?);
            store.get_or_make("tree-v1", &Key::of("tree", 1, &[name]), fill).unwrap().0
        };
        let trees = vec![make("old"), make("new")];
        fs::File::open(&trees[0]).unwrap().file().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        // Another run: this one uses both.
        (Store::open(folder).unwrap(), trees)
    }

    /// A program that another test starts has our locks until it is the program: what is free may seem to be used for a moment.
    fn soon(mut holds: impl FnMut() -> bool) -> bool {
        (0..100).any(|_| {
            let it_does = holds();
            std::thread::sleep(std::time::Duration::from_millis(if it_does { 0 } else { 50 }));
            it_does
        })
    }

    #[test]
    fn the_one_used_longest_ago_goes_first_and_no_more_than_needed() {
        let folder = tempfile::tempdir().unwrap();
        let (store, trees) = two_trees(folder.path());
        let mut removed = Vec::new();
        assert!(soon(|| {
            removed = store.give_up(1 << 12).unwrap();
            !removed.is_empty()
        }));
        assert_eq!(removed.iter().map(|(path, _)| path).collect::<Vec<_>>(), [&trees[0]]);
        assert!(!trees[0].exists() && trees[1].is_dir());
    }

    #[test]
    fn nothing_goes_in_vain_and_nothing_while_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let (store, trees) = two_trees(folder.path());
        assert_eq!(store.make_room(1).unwrap(), []);
        assert_eq!(store.give_up(1 << 40).unwrap(), []);
        assert!(trees.iter().all(|tree| tree.is_dir()));
    }

    #[test]
    fn what_a_run_uses_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (store, trees) = two_trees(folder.path());
        let user = Store::open(folder.path()).unwrap();
        user.get_or_make("tree-v1", &Key::of("tree", 1, &["old"]), |_| panic!("it is there")).unwrap();
        assert!(!store.remove_unused(&trees[0]).unwrap() && trees[0].is_dir());
        drop(user);
        assert!(soon(|| store.remove_unused(&trees[0]).unwrap()) && !trees[0].exists());
        let again = Store::open(folder.path()).unwrap();
        assert!(!again.get_or_make("tree-v1", &Key::of("tree", 1, &["old"]), |_| Ok(())).unwrap().1);
    }
}
