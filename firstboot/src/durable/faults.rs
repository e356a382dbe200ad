//! The fault layer of the crash matrix: counts operations, ends the process after one of them, and takes from the disk what a power
//! cut would have taken. Only under the feature `faults`, which no release build has.
//!
//! An operation is what the kernel does as a whole: a name made, a file filled, an owner or mode changed, a rename, a removal, a
//! sync; and the start and the end of each program that [`crate::exec`] runs, so that "it ended, but nobody noted its result" is a
//! cut of its own.
//!
//! | Modelled | How |
//! | --- | --- |
//! | names | made, renamed or removed ones last from the sync of their folder on; [`Loss::All`] takes back all others, [`Loss::Some`] the last so many, because a journal commits in order |
//! | content | a file's lasts from its sync on; until then it is empty after the cut, also under a name that lasts (ext4's files of length zero). With `Some`, by chance |
//! | owners, modes | last from the sync of the file or folder on |
//! | files of programs | what a program made counts as synced until first boot gives it its name by a rename: from then on everything below the new name that first boot has not synced itself is lost as above |
//! | a tree half removed | half of its entries are gone |
//!
//! Not modelled: a write torn within a file (durable.rs gives no file its name before it is synced whole), a disk that lies about
//! flushes, and what running servers had not synced: that PostgreSQL's files outlive a cut is PostgreSQL's own promise. The tests with
//! virtual disks look at those.

use std::collections::HashMap;
use std::fs::{self, Metadata, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
#[cfg(not(test))]
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Signal, getpid, kill_process};

/// What a cut takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The process alone ends: the kernel still has everything.
    Nothing,
    /// Everything that was not synced.
    All,
    /// A part of it; the number picks which.
    Some(u64),
}

/// Where the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// After which operation, from 1 on. Where there are fewer, they are counted only.
    pub at: u64,
    /// What is lost then.
    pub loss: Loss,
}

/// What a name had before something was renamed over it.
#[must_use]
pub(crate) struct Kept(Option<PathBuf>);

/// A change of names, owners or modes that is not durable yet.
struct Pending {
    /// The file or folder whose sync makes the change durable.
    settled_by: PathBuf,
    undo: Undo,
}

enum Undo {
    Created(PathBuf),
    Renamed { from: PathBuf, to: PathBuf, kept: Option<PathBuf> },
    Removed { path: PathBuf, kept: PathBuf },
    Changed { path: PathBuf, before: Metadata },
}

impl Undo {
    /// Every name in it.
    fn paths(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Undo::Created(path) | Undo::Changed { path, .. } => vec![path],
            Undo::Renamed { from, to, kept } => [from, to].into_iter().chain(kept).collect(),
            Undo::Removed { path, kept } => vec![path, kept],
        }
    }
}

/// When a file was last changed, and its size.
type Stamp = (i64, i64, u64);

struct Layer {
    plan: Plan,
    operations: Vec<String>,
    begun: (i64, i64),
    pending: Vec<Pending>,
    /// Files whose content, and folders whose entries, are not durable.
    dirty: Vec<PathBuf>,
    /// By inode: what it was when it was synced last.
    synced: HashMap<u64, Stamp>,
    graves: u64,
}

#[cfg(not(test))]
static LAYER: Mutex<Option<Layer>> = Mutex::new(None);

#[cfg(not(test))]
fn layer<T>(act: impl FnOnce(&mut Option<Layer>) -> T) -> T {
    act(&mut LAYER.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

#[cfg(test)]
use tests::layer;

/// Begins to count. What is on the disk now counts as durable.
pub fn arm(plan: Plan) {
    layer(|layer| *layer = Some(Layer::new(plan)));
}

/// The operations since then, in words; they are counted from 1 on.
pub fn operations() -> Vec<String> {
    with(|layer| layer.operations.clone()).unwrap_or_default()
}

fn with<T>(act: impl FnOnce(&mut Layer) -> T) -> Option<T> {
    layer(|layer| layer.as_mut().map(act))
}

pub(crate) fn created(path: &Path) {
    with(|layer| {
        layer.created(path);
        layer.hit("made", path);
    });
}

pub(crate) fn filled(path: &Path) {
    with(|layer| {
        layer.dirty.push(path.to_owned());
        layer.hit("filled", path);
    });
}

pub(crate) fn changed(path: &Path, before: &Metadata) {
    with(|layer| {
        layer.changed(path, before);
        layer.hit("changed owner or mode of", path);
    });
}

pub(crate) fn keep(path: &Path) -> Kept {
    Kept(with(|layer| layer.keep(path)).flatten())
}

pub(crate) fn renamed(from: &Path, to: &Path, kept: Kept) {
    with(|layer| {
        layer.renamed(from, to, kept);
        layer.hit("renamed to", to);
    });
}

/// Removes in our place, if what is removed may have to come back.
pub(crate) fn takes_away(path: &Path) -> bool {
    with(|layer| {
        for half in entries(path).iter().step_by(2) {
            if !layer.bury(half) {
                let _ = if half.is_dir() { fs::remove_dir_all(half) } else { fs::remove_file(half) };
            }
        }
        if path.is_dir() && !path.is_symlink() {
            layer.hit("removed half of", path);
        }
        let buried = layer.bury(path);
        if buried {
            layer.hit("removed", path);
        }
        buried
    })
    .unwrap_or(false)
}

pub(crate) fn removed(path: &Path) {
    with(|layer| layer.hit("removed", path));
}

pub(crate) fn synced(path: &Path) {
    with(|layer| {
        layer.synced(path);
        layer.hit("synced", path);
    });
}

/// One of the many files of a tree: not a cut of its own.
pub(crate) fn synced_quietly(path: &Path) {
    with(|layer| layer.synced(path));
}

pub(crate) fn happened(what: &str) {
    with(|layer| layer.hit(what, Path::new("")));
}

pub(crate) fn program(what: &str, line: &str) {
    with(|layer| layer.hit(what, Path::new(line)));
}

impl Layer {
    fn new(plan: Plan) -> Layer {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Times of files come from a clock of 4 to 10 ms: what is made from here on is seen to be younger.
        std::thread::sleep(Duration::from_millis(12));
        let begun = (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), i64::from(now.subsec_nanos()));
        let (pending, dirty, synced) = (Vec::new(), Vec::new(), HashMap::new());
        Layer { plan, operations: Vec::new(), begun, pending, dirty, synced, graves: 0 }
    }

    fn hit(&mut self, what: &str, whose: &Path) {
        self.operations.push(format!("{what} {}", whose.display()));
        let count = self.operations.len() as u64;
        if count != self.plan.at {
            return;
        }
        self.lose();
        // The harness shows this line; without a reader the cut is the same.
        let _ = writeln!(std::io::stderr(), "CUT {count} {what} {}", whose.display());
        let _ = kill_process(getpid(), Signal::KILL);
    }

    fn created(&mut self, path: &Path) {
        let settled_by = path.parent().unwrap_or(Path::new("/")).to_owned();
        self.pending.push(Pending { settled_by, undo: Undo::Created(path.to_owned()) });
    }

    fn changed(&mut self, path: &Path, before: &Metadata) {
        let undo = Undo::Changed { path: path.to_owned(), before: before.clone() };
        self.pending.push(Pending { settled_by: path.to_owned(), undo });
    }

    /// A name beside `path`, for what may have to come back.
    fn grave(&mut self, path: &Path) -> PathBuf {
        self.graves += 1;
        path.with_file_name(format!(".kept-{}", self.graves))
    }

    fn keep(&mut self, path: &Path) -> Option<PathBuf> {
        if self.plan.loss == Loss::Nothing {
            return None;
        }
        let grave = self.grave(path);
        fs::hard_link(path, &grave).is_ok().then_some(grave)
    }

    fn bury(&mut self, path: &Path) -> bool {
        if self.plan.loss == Loss::Nothing {
            return false;
        }
        let kept = self.grave(path);
        if fs::rename(path, &kept).is_err() {
            return false;
        }
        self.dirty.iter_mut().for_each(|dirty| move_below(dirty, path, &kept));
        let settled_by = path.parent().unwrap_or(Path::new("/")).to_owned();
        self.pending.push(Pending { settled_by, undo: Undo::Removed { path: path.to_owned(), kept } });
        true
    }

    fn renamed(&mut self, from: &Path, to: &Path, kept: Kept) {
        for path in
            self.dirty.iter_mut().chain(self.pending.iter_mut().map(|pending| &mut pending.settled_by))
        {
            move_below(path, from, to);
        }
        let undo = Undo::Renamed { from: from.to_owned(), to: to.to_owned(), kept: kept.0 };
        self.pending.push(Pending { settled_by: to.parent().unwrap_or(Path::new("/")).to_owned(), undo });
        self.suspect(to);
    }

    /// Finds what programs made and nobody synced.
    fn suspect(&mut self, path: &Path) {
        let Ok(meta) = path.symlink_metadata() else { return };
        if meta.is_symlink() {
            return;
        }
        let is_old = (meta.ctime(), meta.ctime_nsec()) < self.begun;
        let is_synced = self.synced.get(&meta.ino()) == Some(&stamp(&meta));
        if !is_old && !is_synced && !self.dirty.iter().any(|dirty| dirty == path) {
            self.dirty.push(path.to_owned());
        }
        for entry in entries(path) {
            self.suspect(&entry);
        }
    }

    fn synced(&mut self, path: &Path) {
        if let Ok(meta) = path.symlink_metadata() {
            self.synced.insert(meta.ino(), stamp(&meta));
        }
        self.dirty.retain(|dirty| dirty != path);
        let mut open: Vec<Pending> = Vec::new();
        for change in std::mem::take(&mut self.pending) {
            if change.settled_by != path {
                open.push(change);
                continue;
            }
            if let Undo::Renamed { from, to, .. } = &change.undo {
                // What happened before under the old name has to be undone under the new one.
                for earlier in open.iter_mut().flat_map(|earlier| earlier.undo.paths()) {
                    move_below(earlier, from, to);
                }
            }
            forget(&change);
        }
        self.pending = open;
    }

    /// The disk as a cut at this moment leaves it.
    fn lose(&mut self) {
        let mut numbers = match self.plan.loss {
            Loss::Nothing => return,
            Loss::All => None,
            Loss::Some(seed) => Some(Numbers(seed ^ (self.plan.at << 32))),
        };
        let last = numbers.as_mut().map_or(0, |numbers| numbers.below(self.pending.len() + 1));
        for lost in self.pending.split_off(last).into_iter().rev() {
            self.undo(lost.undo);
        }
        self.pending.iter().for_each(forget);
        for path in &self.dirty {
            if numbers.as_mut().is_some_and(|numbers| numbers.below(2) == 0) {
                continue;
            }
            if path.is_dir() {
                for entry in entries(path) {
                    remove(&entry);
                }
            } else if path.is_file() {
                let _ = fs::OpenOptions::new().write(true).truncate(true).open(path);
            }
        }
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Created(path) => remove(&path),
            Undo::Renamed { from, to, kept } => {
                let _ = fs::rename(&to, &from);
                self.dirty.iter_mut().for_each(|dirty| move_below(dirty, &to, &from));
                if let Some(kept) = kept {
                    let _ = fs::rename(kept, &to);
                }
            }
            Undo::Removed { path, kept } => {
                let _ = fs::rename(&kept, &path);
                self.dirty.iter_mut().for_each(|dirty| move_below(dirty, &kept, &path));
            }
            Undo::Changed { path, before } => {
                let _ = lchown(&path, Some(before.uid()), Some(before.gid()));
                let _ = fs::set_permissions(&path, Permissions::from_mode(before.mode()));
            }
        }
    }
}

/// The change is durable: what it replaced does not come back.
fn forget(pending: &Pending) {
    match &pending.undo {
        Undo::Renamed { kept: Some(kept), .. } | Undo::Removed { kept, .. } => remove(kept),
        _ => {}
    }
}

fn remove(path: &Path) {
    // What an earlier change took away is not there any more.
    let _ =
        if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    if folder.is_symlink() {
        return Vec::new();
    }
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn move_below(path: &mut PathBuf, from: &Path, to: &Path) {
    if let Ok(rest) = path.strip_prefix(from) {
        // Joining an empty path would add a slash.
        *path = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
    }
}

fn stamp(meta: &Metadata) -> Stamp {
    (meta.mtime(), meta.mtime_nsec(), meta.size())
}

/// Numbers by chance, the same for the same seed (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((number ^ (number >> 31)) % limit as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
