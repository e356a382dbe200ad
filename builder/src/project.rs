//! Where `images/`, `overlays/` and `firstboot/` are: the project's folder, found from the working folder upwards.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use crate::error::Fault;

/// A folder that holds `images/` and `overlays/`.
#[derive(Debug, Clone)]
pub struct Project {
    root: PathBuf,
}

impl Project {
    /// `given` (from `--project`), else the nearest folder at or above the working folder.
    pub fn find(given: Option<&Path>) -> Result<Self> {
        let start = match given {
            Some(folder) => folder.to_owned(),
            None => std::env::current_dir()?,
        };
        for folder in start.ancestors() {
            if folder.join("images").is_dir() && folder.join("overlays").is_dir() {
                return Ok(Project { root: fs::canonicalize(folder)? });
            }
            if given.is_some() {
                break;
            }
        }
        let message = format!("no `images` and `overlays` folders in `{}`", start.display());
        Err(Fault::user(message)
            .hint("run imgbuild inside a clone of its repository, or name one with --project")
            .into())
    }

    /// For commands that use no recipe.
    pub fn none() -> Self {
        Project { root: PathBuf::from("/nonexistent") }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of an image: a path when it has a slash, else a name below `images/`.
    pub fn image(&self, name: &str) -> Result<PathBuf> {
        let folder =
            if name.contains('/') { PathBuf::from(name) } else { self.root.join("images").join(name) };
        if folder.join("image.toml").is_file() {
            return Ok(fs::canonicalize(folder)?);
        }
        let message = format!("no image `{name}`: `{}` does not exist", folder.join("image.toml").display());
        let known = self.images();
        let fault = Fault::user(message);
        let fault =
            if known.is_empty() { fault } else { fault.hint(format!("known images: {}", known.join(", "))) };
        Err(fault.into())
    }

    fn images(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.join("images")) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .flatten()
            .filter(|entry| entry.path().join("image.toml").is_file())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// The folder of the table of Mastodon's tags.
    pub fn mastodon(&self) -> PathBuf {
        self.root.join("images/mastodon")
    }

    /// The folder of an overlay.
    pub fn overlay(&self, name: &str) -> PathBuf {
        self.root.join("overlays").join(name)
    }
}
