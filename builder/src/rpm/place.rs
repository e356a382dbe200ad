//! Files of packages put into a tree, never outside of it.
//!
//! Every parent is opened by the kernel's own rule (`openat2`, `RESOLVE_BENEATH`): symbolic links within the tree are followed, as
//! `/lib64` must be, and one that leads out or is absolute is refused, even one that another package has just made. The last part of
//! a path is never followed: what is there is removed first.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::files::FileEntry;
use super::header::Package;
use super::payload::Sink;
use crate::error::Fault;

/// Set-user-id and set-group-id are not for a throw-away tree.
const PERMISSIONS: u32 = 0o1777;
/// Folders stay open to whoever builds: el7's are 0555.
const OWNER: u32 = 0o700;

/// A tree and the package that is being put into it.
pub(super) struct Tree<'a> {
    root: OwnedFd,
    package: &'a Package,
}

impl<'a> Tree<'a> {
    /// The folder must be there.
    pub(super) fn open(root: &Path, package: &'a Package) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())
            .with_context(|| format!("opening the tree `{}`", root.display()))?;
        Ok(Tree { root, package })
    }

    /// The folder that a path lies in, made where it is missing, and the last part of the path; none for the root itself.
    fn parent<'p>(&self, path: &'p str) -> Result<Option<(OwnedFd, &'p str)>> {
        let relative = path.trim_start_matches('/');
        if relative.is_empty() {
            return Ok(None);
        }
        let (folder, name) = relative.rsplit_once('/').unwrap_or((".", relative));
        let opened = match self.beneath(folder) {
            Err(Errno::NOENT) => self.make_folders(path, folder)?,
            other => other.map_err(|errno| self.refused(path, folder, errno))?,
        };
        Ok(Some((opened, name)))
    }

    fn make_folders(&self, path: &str, folder: &str) -> Result<OwnedFd> {
        let mut parent = self.beneath(".").map_err(|errno| self.refused(path, ".", errno))?;
        let ends = folder.match_indices('/').map(|(at, _)| at).chain([folder.len()]);
        for end in ends {
            let upper = &folder[..end];
            let name = upper.rsplit('/').next().unwrap_or(upper);
            parent = match self.beneath(upper) {
                Err(Errno::NOENT) => {
                    // The only thing there that is not found is a symbolic link to nothing.
                    rustix::fs::mkdirat(&parent, name, Mode::RWXU)
                        .and_then(|()| {
                            rustix::fs::chmodat(&parent, name, Mode::from_raw_mode(0o755), AtFlags::empty())
                        })
                        .map_err(|errno| self.refused(path, upper, errno))?;
                    self.beneath(upper)
                }
                other => other,
            }
            .map_err(|errno| self.refused(path, upper, errno))?;
        }
        Ok(parent)
    }

    /// `EAGAIN` is the kernel's answer when something was renamed meanwhile: once more, then.
    fn beneath(&self, folder: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..16 {
            match rustix::fs::openat2(&self.root, folder, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    fn refused(&self, path: &str, folder: &str, errno: Errno) -> anyhow::Error {
        let what = match errno {
            Errno::XDEV | Errno::LOOP => {
                format!(
                    "path `{path}` leads out of the tree: `/{folder}` is or passes a symbolic link to the outside"
                )
            }
            Errno::EXIST => format!("path `{path}` is behind `/{folder}`, a symbolic link to nothing"),
            Errno::NOTDIR => format!("path `{path}` is below `/{folder}`, which is not a folder"),
            Errno::NOSYS => {
                return Fault::environment("this kernel has no openat2: it must be Linux 5.6 or later")
                    .into();
            }
            errno => return anyhow::Error::from(std::io::Error::from(errno)).context(self.writing(path)),
        };
        self.package
            .refuse(what)
            .hint("unpack into a new folder, the package that makes the link first")
            .into()
    }

    fn writing(&self, path: &str) -> String {
        format!("writing `{path}` of package {}", self.package.nevra())
    }

    /// Removes what is there, but no folder.
    fn clear(&self, parent: &OwnedFd, name: &str, path: &str) -> Result<()> {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => {
                let what = format!("`{path}` is a folder already, and the package has something else there");
                Err(self.package.refuse(what).hint("unpack the package that makes it before others").into())
            }
            Err(errno) => Err(std::io::Error::from(errno)).with_context(|| self.writing(path)),
        }
    }

    fn place<T>(&self, path: &str, work: impl FnOnce(&OwnedFd, &str) -> Result<T, Errno>) -> Result<T> {
        let Some((parent, name)) = self.parent(path)? else {
            return Err(self.package.refuse(format!("path `{path}` is the tree itself")).into());
        };
        self.clear(&parent, name, path)?;
        work(&parent, name).map_err(std::io::Error::from).with_context(|| self.writing(path))
    }
}

impl Sink for Tree<'_> {
    type File = File;

    fn folder(&mut self, entry: &FileEntry) -> Result<()> {
        let path = entry.path.as_str();
        let Some((parent, name)) = self.parent(path)? else { return Ok(()) };
        let failed =
            |errno: Errno| anyhow::Error::from(std::io::Error::from(errno)).context(self.writing(path));
        let found = match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Some(FileType::from_raw_mode(found.st_mode)),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(failed(errno)),
        };
        match found {
            Some(FileType::Directory) => {}
            // A link to a folder serves as one, if it stays within.
            Some(FileType::Symlink) => {
                let relative = path.trim_start_matches('/');
                self.beneath(relative).map_err(|errno| self.refused(path, relative, errno))?;
                return Ok(());
            }
            Some(_) => {
                self.clear(&parent, name, path)?;
                rustix::fs::mkdirat(&parent, name, Mode::RWXU).map_err(failed)?;
            }
            None => rustix::fs::mkdirat(&parent, name, Mode::RWXU).map_err(failed)?,
        }
        let mode = Mode::from_raw_mode(entry.mode & PERMISSIONS | OWNER);
        rustix::fs::chmodat(&parent, name, mode, AtFlags::empty()).map_err(failed)
    }

    fn link(&mut self, entry: &FileEntry) -> Result<()> {
        self.place(&entry.path, |parent, name| rustix::fs::symlinkat(entry.link_to.as_str(), parent, name))
    }

    fn hard_link(&mut self, entry: &FileEntry, existing: &FileEntry) -> Result<()> {
        let Some((from, from_name)) = self.parent(&existing.path)? else {
            return Err(self.package.refuse("a hard link to the tree itself").into());
        };
        self.place(&entry.path, |parent, name| {
            rustix::fs::linkat(&from, from_name, parent, name, AtFlags::empty())
        })
    }

    fn begin(&mut self, entry: &FileEntry) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        self.place(&entry.path, |parent, name| rustix::fs::openat(parent, name, flags, mode)).map(File::from)
    }

    fn write(&mut self, file: &mut File, entry: &FileEntry, bytes: &[u8]) -> Result<()> {
        file.write_all(bytes).with_context(|| self.writing(&entry.path))
    }

    fn end(&mut self, file: File, entry: &FileEntry) -> Result<()> {
        // Python holds the time of a source against the one in its byte code.
        let time = Timespec { tv_sec: i64::from(entry.modified), tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode & PERMISSIONS))
            .and_then(|()| rustix::fs::futimens(&file, &times))
            .map_err(std::io::Error::from)
            .with_context(|| self.writing(&entry.path))
    }
}
