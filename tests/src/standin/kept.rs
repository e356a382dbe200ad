//! A stand-in's repository that outlives its maker, so that later runs need no network for it.
//!
//! It is known by the Debian tree that it was made of and by the sources of this module: another of either makes another
//! repository, and the one before is removed. The secret key is gone when it is finished; nothing in it can be signed again.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;

use super::{KEY, Repository};

/// Names of folders begin so.
const PREFIX: &str = "repository-";
/// What decides how a repository comes out.
const SOURCES: [&str; 7] = [
    include_str!("compose.rs"),
    include_str!("debian.rs"),
    include_str!("missing.rs"),
    include_str!("mod.rs"),
    include_str!("signer.rs"),
    include_str!("spec.rs"),
    include_str!("tree.rs"),
];

/// A finished repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The folder with `repodata` and `Packages`.
    pub folder: PathBuf,
}

impl Kept {
    /// The repository of a Debian root's tar, below a folder: the one that is there, else a new one, for which see
    /// [`Repository::make`]. `name` stands for the tar's content.
    pub fn find_or_make(base_tar: &Path, name: &str, below: &Path) -> Result<Kept> {
        Kept::get(name, below, |folder| Repository::make(base_tar, folder).map(|_| ()))
    }

    fn get(name: &str, below: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<Kept> {
        let mut hash = DefaultHasher::new();
        (name, SOURCES).hash(&mut hash);
        fs::create_dir_all(below)?;
        // Its path goes into a URL.
        let below = &fs::canonicalize(below)?;
        let folder = below.join(format!("{PREFIX}{:016x}", hash.finish()));
        if folder.is_dir() {
            return Ok(Kept { folder });
        }
        for entry in fs::read_dir(below)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        // One that a killed run left half made never gets the name that is looked for.
        let work = tempfile::Builder::new().prefix(".making-").tempdir_in(below)?;
        let unnamed = work.path().join("repository");
        make(&unnamed).context("making the stand-in for CentOS 7's repositories")?;
        fs::rename(&unnamed, &folder)?;
        Ok(Kept { folder })
    }

    /// Arguments of `imgbuild` that name the repository and its key.
    pub fn arguments(&self) -> [String; 4] {
        let folder = self.folder.display();
        [
            "--mirror".to_owned(),
            format!("stand-in=file://{folder}"),
            "--key".to_owned(),
            format!("stand-in={folder}/{KEY}"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_for_each_tree_and_only_the_last_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let make = |path: &Path| Ok(fs::create_dir(path)?);
        let first = Kept::get("a", folder.path(), make).unwrap();
        assert_eq!(Kept::get("a", folder.path(), |_| panic!("made twice")).unwrap(), first);
        let second = Kept::get("b", folder.path(), make).unwrap();
        assert!(second.folder.is_dir() && !first.folder.exists());
        assert!(Kept::get("c", folder.path(), |_| anyhow::bail!("no network")).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing half made stays");
    }
}
