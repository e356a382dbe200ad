//! Files on the build host: temp, fsync, rename, so that a killed run leaves the old file or the new one.
//!
//! A temp file stands beside the name that it shall get, is called `.imgbuild-*.part`, and is locked while its owner lives. What a
//! killed run left is therefore known by its name and by its free lock, and [`sweep`] removes it, however large it is.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use tempfile::NamedTempFile;

use crate::error::Fault;

/// Names of temp files begin with this.
const PREFIX: &str = ".imgbuild-";
/// And end with this.
const SUFFIX: &str = ".part";

/// Replaces a file's content; mode 0644. What is there and no file, such as `/dev/null`, is refused.
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Err(Fault::user(format!("`{}` is no regular file", path.display()))
            .hint("name a file, or one that does not exist yet")
            .into());
    }
    fs::create_dir_all(folder_of(path))?;
    let mut temp = temp_beside(path)?;
    temp.write_all(content).with_context(|| format!("writing `{}`", path.display()))?;
    publish(temp, path)
}

/// Gives a finished temp file, made in the same folder, its final name.
pub fn publish(temp: NamedTempFile, path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    temp.as_file().sync_all().with_context(|| format!("writing `{}`", path.display()))?;
    // NamedTempFile makes 0600; artifacts and logs are no secrets.
    temp.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    temp.persist(path)
        .map_err(|error| error.error)
        .with_context(|| format!("writing `{}`", path.display()))?;
    fs::File::open(folder_of(path))?.sync_all()?;
    Ok(())
}

/// An empty file in the folder of `path`, this process' own until it is published or dropped.
pub fn temp_beside(path: &Path) -> Result<NamedTempFile> {
    let folder = folder_of(path);
    // A folder that may be written to and not be listed is no reason to fail.
    let _ = sweep(folder);
    loop {
        let temp = tempfile::Builder::new()
            .prefix(PREFIX)
            .suffix(SUFFIX)
            .tempfile_in(folder)
            .with_context(|| format!("making a file in `{}`", folder.display()))?;
        // Another run's sweep may see the file before its lock: it holds the lock while it removes, so we wait for it here.
        match rustix::fs::flock(temp.as_file(), FlockOperation::LockExclusive) {
            Ok(()) if temp.as_file().metadata()?.nlink() == 0 => {}
            // Some network file systems have no locks: then nothing there is ever swept.
            Ok(()) | Err(Errno::NOLCK | Errno::NOTSUP | Errno::NOSYS) => return Ok(temp),
            Err(Errno::INTR) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("locking `{}`", temp.path().display()));
            }
        }
    }
}

/// Removes the temp files that killed runs left in a folder, and returns their names; those of living runs stay. A folder that is
/// not there has none.
pub fn sweep(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut removed = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        // A link or a folder of such a name is nobody's temp file.
        if !ours || !entry.file_type()?.is_file() {
            continue;
        }
        // It may be gone by now, or another user's: then it is not ours to remove.
        let Ok(file) = fs::OpenOptions::new().write(true).open(entry.path()) else { continue };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            && fs::remove_file(entry.path()).is_ok()
        {
            removed.push(entry.path());
        }
    }
    Ok(removed)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::{Log, Run};

    /// Where [`holder`] makes its file.
    const FOLDER: &str = "IMGBUILD_TEST_HOLDER";

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The process that `what_a_killed_run_left_is_swept` starts and kills; without its folder there is nothing to do.
    #[test]
    fn holder() {
        let Some(folder) = std::env::var_os(FOLDER) else { return };
        let mut temp = temp_beside(&Path::new(&folder).join("disk.raw")).unwrap();
        temp.write_all(b"half of a disk").unwrap();
        std::thread::sleep(std::time::Duration::from_mins(1));
    }

    #[test]
    fn what_a_killed_run_left_is_swept() {
        let (folder, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let others = ["notes.part", ".imgbuild-notes"];
        for name in others {
            fs::write(folder.path().join(name), "the user's own").unwrap();
        }
        fs::create_dir(folder.path().join(".imgbuild-folder.part")).unwrap();
        let kept = names(folder.path());
        let log = Log::create(&logs.path().join("log")).unwrap();
        let mut child = Run::new(&log, std::env::current_exe().unwrap())
            .args(["--exact", "atomic::tests::holder"])
            .env(FOLDER, folder.path())
            .start(&fs::File::create(logs.path().join("output")).unwrap())
            .unwrap();
        let filled = || {
            let files = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
            files
                .filter(|file| file.metadata().unwrap().len() == 14 && file.path().extension().is_some())
                .any(|file| file.file_name() != "notes.part")
        };
        while !filled() {
            assert!(child.try_wait().unwrap().is_none(), "the holder ended by itself");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(sweep(folder.path()).unwrap(), Vec::<PathBuf>::new(), "swept from under a living run");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(names(folder.path()).len(), kept.len() + 1, "SIGKILL left nothing to sweep");
        assert_eq!(sweep(folder.path()).unwrap().len(), 1);
        assert_eq!(names(folder.path()), kept);
    }

    #[test]
    fn a_published_file_leaves_no_other() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("sums"), b"one").unwrap();
        write(&folder.path().join("sums"), b"two").unwrap();
        assert_eq!(names(folder.path()), ["sums"]);
        assert_eq!(sweep(&folder.path().join("none")).unwrap(), Vec::<PathBuf>::new());
    }
}
