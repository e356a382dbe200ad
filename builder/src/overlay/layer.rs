//! Overlays as data: `overlays/<name>/overlay.toml` and the files below `root/`, gathered in order.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use fs_err as fs;
use serde::Deserialize;

use crate::error::Fault;
use crate::tree::accounts::User;
use crate::tree::path::TreePath;

/// What an added path holds.
#[derive(Debug, Clone)]
pub enum Content {
    /// A folder.
    Folder,
    /// A symbolic link.
    Link(String),
    /// These bytes.
    Bytes(Vec<u8>),
    /// A file of the host.
    Host(PathBuf),
}

/// One path that is added.
#[derive(Debug, Clone)]
pub struct Added {
    /// Mode unless `overlay.toml` states another.
    pub mode: u32,
    /// What it holds.
    pub content: Content,
    /// Who adds it, for messages.
    pub origin: String,
}

/// Owner and mode of a path.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawPath {
    path: TreePath,
    mode: String,
    owner: Option<String>,
    group: Option<String>,
    /// The path is a folder even when nothing lies in it.
    #[serde(default)]
    folder: bool,
}

/// A checked `[[path]]`.
#[derive(Debug, Clone)]
pub struct Stated {
    /// Mode bits.
    pub mode: u32,
    /// User by name; root when absent.
    pub owner: Option<String>,
    /// Group by name; the owner's when absent.
    pub group: Option<String>,
    folder: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawOverlay {
    schema: u32,
    #[serde(default)]
    replace: BTreeSet<TreePath>,
    #[serde(default)]
    enable: Vec<String>,
    #[serde(default)]
    disable: Vec<String>,
    #[serde(default)]
    mask: Vec<String>,
    #[serde(default)]
    remove: Vec<TreePath>,
    #[serde(default)]
    user: Vec<User>,
    #[serde(default)]
    path: Vec<RawPath>,
}

/// All overlays together.
#[derive(Debug, Default)]
pub struct Layer {
    /// Files, links and folders to add.
    pub files: BTreeMap<TreePath, Added>,
    /// Package files that may be replaced.
    pub replace: BTreeSet<String>,
    /// Units to enable.
    pub enable: Vec<String>,
    /// Units whose links are left out.
    pub disable: Vec<String>,
    /// Units to link to `/dev/null`.
    pub mask: Vec<String>,
    /// Stated owners and modes.
    pub paths: BTreeMap<TreePath, Stated>,
    /// Users to add.
    pub users: Vec<User>,
    remove: Vec<TreePath>,
}

impl Layer {
    /// Adds an overlay's folder. A file that an earlier overlay has is replaced.
    pub fn load(&mut self, folder: &Path) -> Result<()> {
        let file = folder.join("overlay.toml");
        let text = fs::read_to_string(&file)?;
        let raw: RawOverlay = toml::from_str(&text).map_err(|error| {
            Fault::user(format!("`{}`: {}", file.display(), error.to_string().trim_end()))
        })?;
        if raw.schema != 1 {
            return Err(Fault::user(format!(
                "`{}`: key `schema`: got {}, this imgbuild reads 1",
                file.display(),
                raw.schema
            ))
            .into());
        }
        self.replace.extend(raw.replace.iter().map(ToString::to_string));
        self.enable.extend(raw.enable);
        self.disable.extend(raw.disable);
        self.mask.extend(raw.mask);
        self.remove.extend(raw.remove);
        self.users.extend(raw.user);
        for entry in raw.path {
            let mode = u32::from_str_radix(&entry.mode, 8).ok().filter(|mode| *mode <= 0o7777);
            let mode = mode.ok_or_else(|| {
                Fault::user(format!(
                    "`{}`: path `{}`: mode `{}` is not octal",
                    file.display(),
                    entry.path,
                    entry.mode
                ))
            })?;
            self.paths.insert(
                entry.path,
                Stated { mode, owner: entry.owner, group: entry.group, folder: entry.folder },
            );
        }
        let root = folder.join("root");
        if root.is_dir() { self.walk(&root, &TreePath::root(), &file) } else { Ok(()) }
    }

    fn walk(&mut self, folder: &Path, guest: &TreePath, origin: &Path) -> Result<()> {
        let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let name = name
                .to_str()
                .ok_or_else(|| Fault::user(format!("`{}`: its name is not UTF-8", entry.path().display())))?;
            let path = guest.join(name).map_err(|message| anyhow!(message))?;
            let kind = entry.file_type()?;
            let (mode, content) = if kind.is_dir() {
                (0o755, Content::Folder)
            } else if kind.is_symlink() {
                (0o777, Content::Link(fs::read_link(entry.path())?.to_string_lossy().into_owned()))
            } else {
                let executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
                (if executable { 0o755 } else { 0o644 }, Content::Host(entry.path()))
            };
            let is_folder = kind.is_dir();
            self.files.insert(path.clone(), Added { mode, content, origin: origin.display().to_string() });
            if is_folder {
                self.walk(&entry.path(), &path, origin)?;
            }
        }
        Ok(())
    }

    /// Adds a file that the builder makes.
    pub fn add(&mut self, path: &str, mode: u32, content: Content) -> Result<()> {
        let path: TreePath = path.parse().map_err(|message: String| anyhow!(message))?;
        self.files.insert(path, Added { mode, content, origin: "imgbuild".to_owned() });
        Ok(())
    }

    /// Whether a path of the base tree is to go.
    pub fn removes(&self, path: &TreePath) -> bool {
        self.remove.iter().any(|gone| path.is_within(gone.as_str()))
    }

    /// Whether the path is stated to be a folder.
    pub fn stated_folder(&self, path: &TreePath) -> bool {
        self.paths.get(path).is_some_and(|stated| stated.folder)
    }
}
