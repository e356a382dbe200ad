//! A throw-away home for command line tests: the program under test sees its own home, store and output folder and none of the
//! user's.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::TempDir;

/// The folders of one test, removed when dropped.
#[derive(Debug)]
pub struct Sandbox {
    folder: TempDir,
}

impl Sandbox {
    /// Makes `home`, `store` and `output` in a new temporary folder.
    pub fn new() -> Result<Sandbox> {
        let folder = tempfile::Builder::new().prefix("sandbox-").tempdir()?;
        for name in ["home", "store", "output"] {
            fs_err::create_dir(folder.path().join(name))?;
        }
        Ok(Sandbox { folder })
    }

    /// The home folder; a good working folder too.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// The store of stages.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Where artifacts go.
    pub fn output(&self) -> PathBuf {
        self.folder.path().join("output")
    }

    /// Writes a file below the home folder and returns its path.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.home().join(name);
        fs_err::create_dir_all(path.parent().unwrap_or(&path))?;
        fs_err::write(&path, text)?;
        Ok(path)
    }

    /// The environment for the program under test.
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![
            ("HOME", self.home()),
            ("XDG_CACHE_HOME", self.home().join(".cache")),
            ("IMGBUILD_STORE", self.store()),
            ("NO_COLOR", "1".into()),
        ]
    }

    /// Every file and folder below the output folder and the store, for "nothing is left behind".
    pub fn leftovers(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        collect(&self.output(), &mut found)?;
        collect(&self.store(), &mut found)?;
        Ok(found)
    }

    /// Filters for `insta`: what differs from run to run becomes a word in brackets.
    pub fn filters(&self) -> Vec<(String, &'static str)> {
        let folder = self.folder.path().to_string_lossy().replace('.', r"\.");
        vec![
            (folder, "[SANDBOX]"),
            (r"\b\d+(\.\d+)? ?(ms|s|min)\b".to_owned(), "[TIME]"),
            (r"\b\d+(\.\d+)? ?(B|[kKMG]i?B)\b".to_owned(), "[SIZE]"),
            (r"\b[0-9a-f]{64}\b".to_owned(), "[SHA-256]"),
        ]
    }
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            collect(&path, found)?;
        }
        found.push(path);
    }
    found.sort();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_seen() {
        let sandbox = Sandbox::new().unwrap();
        assert!(sandbox.leftovers().unwrap().is_empty());
        fs_err::create_dir(sandbox.store().join("tmp")).unwrap();
        fs_err::write(sandbox.output().join("half.raw"), "").unwrap();
        let names: Vec<_> =
            sandbox.leftovers().unwrap().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["half.raw", "tmp"]);
    }
}
