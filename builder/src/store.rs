//! The store: the only cache. An entry is a folder that is complete and never changed.
//!
//! Layout: `<root>/<kind>/<key>/…` for results, `<root>/tmp/…` for work under way, `<root>/logs/…`, `<root>/tools/…` for programs
//! that `cargo ci setup` put there. The kind carries the format's version (`rootfs-v1`). Work happens in `tmp` and gets its
//! name by rename; what a killed run left in `tmp` is swept by the next run, which knows by a lock that its owner is dead. An entry
//! stays as long as a run uses it; when room is short, what can be made again goes ([`room`]).

pub mod room;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;
use rustix::fs::FlockOperation;
use sha2::{Digest as _, Sha256};

/// Folders that hold results, which `clean` may remove. A store may share its folder with other things; they are not its own.
const KINDS: &[&str] = &[
    "rootfs-v1",
    "appliance-v1",
    "app-v1",
    "source-v1",
    "git-v1",
    "packages-v1",
    "vendor-v1",
    "tree-v1",
    "disk-v1",
    "files-v1",
    "locks",
    "kvm",
];

/// Names of scratch folders begin with this.
const SCRATCH: &str = "work-";
/// And those of their locks end with this.
const LOCK: &str = ".lock";

/// Length of the kernel's name of a boot, by which an accelerator's verdict is kept.
const BOOT_ID: usize = 36;

/// SHA-256 of what made an entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// Key of a stage: its name, its version, the keys of its inputs, its options in canonical form.
    pub fn of(stage: &str, version: u32, parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in [stage, &version.to_string()].iter().chain(parts) {
            // Lengths keep ("ab", "c") apart from ("a", "bc").
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        Key(hex(&hash.finalize()))
    }

    /// A key that another store had: 64 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let hexadecimal = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        (text.len() == 64 && text.bytes().all(hexadecimal)).then(|| Key(text.to_owned()))
    }

    /// Lower-case hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// 16 bytes for an identifier named `purpose` that must be the same in every build of the same inputs.
    pub fn derive(&self, purpose: &str) -> [u8; 16] {
        let digest = Sha256::digest(format!("{purpose} {}", self.0));
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        bytes
    }
}

/// Lower-case hexadecimal digits of bytes.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // OK: writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The store's root folder.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    in_use: room::InUse,
}

/// A folder for work under way; removed when dropped, or by the next run when this one was killed.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _lock: fs::File,
}

impl Scratch {
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove_tree(&self.path);
    }
}

impl Store {
    /// `$IMGBUILD_STORE`, else `imgbuild` in the user's cache folder.
    pub fn default_root() -> PathBuf {
        let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        from("IMGBUILD_STORE").unwrap_or_else(|| {
            from("XDG_CACHE_HOME")
                .unwrap_or_else(|| from("HOME").unwrap_or_else(|| PathBuf::from("/var/cache")).join(".cache"))
                .join("imgbuild")
        })
    }

    /// Opens the store, creates its folders, sweeps what dead runs left.
    pub fn open(root: &Path) -> Result<Self> {
        fs::create_dir_all(root.join("tmp"))?;
        fs::create_dir_all(root.join("logs"))?;
        let store = Store { root: fs::canonicalize(root)?, in_use: room::InUse::default() };
        store.sweep()?;
        Ok(store)
    }

    /// The root folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where an entry is or will be.
    pub fn path(&self, kind: &str, key: &Key) -> PathBuf {
        self.root.join(kind).join(key.as_str())
    }

    /// A new folder for work under way, on the store's file system.
    pub fn scratch(&self) -> Result<Scratch> {
        // The lock comes first: a folder without one would never be swept. It stands beside the folder, not in it.
        let lock = loop {
            let lock =
                tempfile::Builder::new().prefix(SCRATCH).suffix(LOCK).tempfile_in(self.root.join("tmp"))?;
            // Another run's sweep may see the file before its lock, and hold it while it removes it.
            rustix::fs::flock(lock.as_file(), FlockOperation::LockExclusive)
                .context("locking a scratch folder")?;
            if lock.as_file().metadata()?.nlink() > 0 {
                break lock;
            }
        };
        let (lock, lock_path) = lock.keep()?;
        let lock = fs::File::from_parts(lock, &lock_path);
        let path = lock_path.with_extension("");
        fs::create_dir(&path)?;
        // mmdebstrap's subordinate users must be able to walk through; what is secret has modes of its own.
        fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(Scratch { path, _lock: lock })
    }

    /// The same for what becomes an entry of a kind, on that kind's file system: `imgbuild repro` links the kinds of another store.
    pub fn scratch_for(&self, kind: &str) -> Result<Scratch> {
        let folder = self.root.join(kind);
        fs::create_dir_all(&folder)?;
        let real = fs::canonicalize(&folder)?;
        match real.parent() {
            Some(home) if home != self.root => {
                fs::create_dir_all(home.join("tmp"))?;
                Store { root: home.to_owned(), in_use: self.in_use.clone() }.scratch()
            }
            _ => self.scratch(),
        }
    }

    /// The entry's folder and whether it was there already; `make` fills an empty folder otherwise. It stays there as long as this
    /// store is open.
    pub fn get_or_make(
        &self,
        kind: &str,
        key: &Key,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<(PathBuf, bool)> {
        let path = self.path(kind, key);
        if self.in_use.take(&path)? {
            return Ok((path, true));
        }
        let scratch = self.scratch_for(kind)?;
        let folder = scratch.path().join("entry");
        fs::create_dir(&folder)?;
        make(&folder)?;
        // A whole tree may lie in it: everything of this file system is on the disk before the name is.
        rustix::fs::syncfs(fs::File::open(&folder)?.file()).context("writing the store")?;
        self.in_use.take(&folder)?;
        match fs::rename(&folder, &path) {
            Ok(()) => {}
            // Another run finished the same entry first: equal inputs, equal result.
            Err(_) if self.in_use.take(&path)? => {}
            Err(error) => return Err(error.into()),
        }
        fs::File::open(self.root.join(kind))?.sync_all()?;
        Ok((path, false))
    }

    /// Entries by kind, with their sizes on disk in bytes, for `clean`.
    pub fn entries(&self) -> Result<Vec<(PathBuf, u64)>> {
        let mut entries = Vec::new();
        for kind in fs::read_dir(&self.root)? {
            let kind = kind?;
            let name = kind.file_name().to_string_lossy().into_owned();
            if !kind.file_type()?.is_dir() || !KINDS.contains(&name.as_str()) {
                continue;
            }
            for entry in fs::read_dir(kind.path())? {
                let entry = entry?;
                if is_own(&name, &entry.file_name().to_string_lossy()) {
                    entries.push((entry.path(), allocated(&entry.path())));
                }
            }
        }
        entries.sort();
        Ok(entries)
    }

    /// Removes an entry: out of its place by rename first, so that it is there whole or not at all.
    pub fn remove(&self, entry: &Path) -> Result<()> {
        let scratch = self.scratch()?;
        let moved = scratch.path().join("entry");
        match fs::rename(entry, &moved) {
            // Another run cleans too.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            result => result?,
        }
        let removed = if moved.is_dir() { fs::remove_dir_all(&moved) } else { fs::remove_file(&moved) };
        removed.with_context(|| format!("removing `{}`", entry.display()))
    }

    fn sweep(&self) -> Result<()> {
        // Dropping removes what is this user's own.
        self.left_over().map(drop)
    }

    /// Scratch folders of dead runs, now this one's. After [`Store::open`] they hold trees whose owners are subordinate ids: only
    /// the sandbox's user namespace may remove those ([`crate::sandbox::sweep`]).
    pub fn left_over(&self) -> Result<Vec<Scratch>> {
        let mut dead = Vec::new();
        for entry in fs::read_dir(self.root.join("tmp"))? {
            let entry = entry?;
            let (name, lock_path) = (entry.file_name(), entry.path());
            let ours = name.to_str().is_some_and(|name| name.starts_with(SCRATCH) && name.ends_with(LOCK));
            // A store may lie where others keep things too.
            if !ours || !entry.file_type()?.is_file() {
                continue;
            }
            let Ok(lock) = fs::File::open(&lock_path) else { continue };
            if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                dead.push(Scratch { path: lock_path.with_extension(""), _lock: lock });
            }
        }
        Ok(dead)
    }
}

/// Whether an entry of a kind has a name that imgbuild gives: a digest, a lock's recipe, or an accelerator's verdict.
fn is_own(kind: &str, name: &str) -> bool {
    match kind {
        "locks" => name.ends_with(".json"),
        "kvm" => name.len() == BOOT_ID,
        _ => name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()),
    }
}

/// Bytes that a tree occupies.
pub(crate) fn allocated(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    let own = meta.blocks() * 512;
    if !meta.is_dir() {
        return own;
    }
    let Ok(children) = fs::read_dir(path) else { return own };
    own + children.flatten().map(|child| allocated(&child.path())).sum::<u64>()
}

/// Removes a scratch folder and its lock. Trees that a sandbox made hold folders of other owners; the sandbox removes those
/// itself, so what is left here is ours.
fn remove_tree(path: &Path) {
    let _ = fs::remove_dir_all(path);
    // What cannot be removed keeps its lock, so that the next sweep tries again.
    if path.symlink_metadata().is_err() {
        let _ = fs::remove_file(path.with_extension("lock"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_make_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let key = Key::of("test", 1, &["a"]);
        let made = store.get_or_make("test-v1", &key, |path| {
            fs::write(path.join("half"), "x").unwrap();
            anyhow::bail!("no")
        });
        assert!(made.is_err() && !store.path("test-v1", &key).exists());
        assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn an_entry_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let key = Key::of("test", 1, &["a"]);
        assert!(!store.get_or_make("test-v1", &key, |_| Ok(())).unwrap().1);
        assert!(store.get_or_make("test-v1", &key, |_| panic!("made twice")).unwrap().1);
    }

    #[test]
    fn what_others_keep_in_the_folder_is_theirs() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["tmp/data/notes", "locks/mine/notes", "kvm/notes", "files-v1/notes"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        fs::write(folder.path().join("tmp/data.lock"), "").unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.entries().unwrap(), []);
        assert!(
            folder.path().join("tmp/data/notes").is_dir() && folder.path().join("tmp/data.lock").is_file()
        );
    }

    #[test]
    fn a_dead_run_is_swept_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let alive = store.scratch().unwrap();
        let dead = folder.path().join("tmp/work-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.with_extension("lock"), "").unwrap();
        Store::open(folder.path()).unwrap();
        assert!(alive.path().is_dir() && !dead.exists());
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(Key::of("s", 1, &["ab", "c"]), Key::of("s", 1, &["a", "bc"]));
    }
}
