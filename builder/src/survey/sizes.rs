//! Where the bytes are: each folder with all that is below it. A file with several names counts once, at its first one; holes
//! count nothing.

use std::collections::BTreeMap;

use super::catalogue::Catalogue;
use super::ext4::Kind;
use super::packages::Owners;

/// A folder and what is below it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Folder {
    /// Its name; `/` for the root.
    pub name: String,
    /// Bytes on the disk, its own blocks included.
    pub bytes: u64,
    /// Lengths of the files, as programs see them.
    pub apparent: u64,
    /// How many files are below it, folders not counted.
    pub files: u64,
    /// Bytes on the disk of its own files, without those of its folders.
    pub own: u64,
    /// The packages with the most bytes in its own files, where packages say what is theirs; largest first, at most three.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// Its own large files, largest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub large: Vec<Large>,
    /// Its folders by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<Folder>,
}

/// A file that is worth its own name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Large {
    /// Its name.
    pub name: String,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Its package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
}

/// A large file has at least this many bytes.
const LARGE: u64 = 512 << 10;
/// The packages that a folder names.
const NAMED: usize = 3;

/// A folder whose content is still being counted.
struct Open {
    folder: Folder,
    /// Bytes of its own files by package.
    packages: BTreeMap<usize, u64>,
}

impl Open {
    fn new(name: String) -> Open {
        Open { folder: Folder { name, ..Folder::default() }, packages: BTreeMap::new() }
    }

    fn finish(mut self, owners: &Owners) -> Folder {
        let mut packages: Vec<_> = self.packages.into_iter().collect();
        packages.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let named = packages.iter().take(NAMED).filter_map(|(package, _)| owners.name(*package));
        self.folder.large.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
        self.folder.packages = named.map(str::to_owned).collect();
        self.folder
    }
}

/// The innermost folder is complete: it goes into its parent.
fn close(open: &mut Vec<Open>, owners: &Owners) {
    let Some(folder) = open.pop().map(|opened| opened.finish(owners)) else { return };
    if let Some(Open { folder: parent, .. }) = open.last_mut() {
        parent.bytes = parent.bytes.saturating_add(folder.bytes);
        parent.apparent = parent.apparent.saturating_add(folder.apparent);
        parent.files += folder.files;
        parent.folders.push(folder);
    }
}

impl Folder {
    /// The tree of an image.
    pub fn tree(catalogue: &Catalogue, owners: &Owners) -> Folder {
        // The folders on the way to the current one, outermost first.
        let mut open = vec![Open::new("/".to_owned())];
        for (index, (entry, inode)) in catalogue.each().enumerate() {
            let is_root = entry.path == b"/";
            let depth = if is_root { 0 } else { entry.path.split(|byte| *byte == b'/').count() - 1 };
            while open.len() > depth.max(1) {
                close(&mut open, owners);
            }
            if inode.kind == Kind::Folder {
                if !is_root {
                    let name = entry.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                    open.push(Open::new(super::shown(name)));
                }
                if let Some(Open { folder, .. }) = open.last_mut() {
                    folder.bytes = folder.bytes.saturating_add(inode.allocated);
                    folder.own = folder.own.saturating_add(inode.allocated);
                }
                continue;
            }
            let Some(Open { folder, packages }) = open.last_mut() else { continue };
            folder.files += 1;
            if entry.again {
                continue;
            }
            folder.bytes = folder.bytes.saturating_add(inode.allocated);
            folder.own = folder.own.saturating_add(inode.allocated);
            folder.apparent =
                folder.apparent.saturating_add(if inode.kind == Kind::File { inode.size } else { 0 });
            let owner = owners.of(index);
            if inode.allocated >= LARGE {
                let name = entry.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                let package = owner.and_then(|owner| owners.name(owner)).map(str::to_owned);
                folder.large.push(Large { name: super::shown(name), bytes: inode.allocated, package });
            }
            if let Some(owner) = owner {
                let bytes = packages.entry(owner).or_default();
                *bytes = bytes.saturating_add(inode.allocated);
            }
        }
        while open.len() > 1 {
            close(&mut open, owners);
        }
        open.pop().map(|opened| opened.finish(owners)).unwrap_or_default()
    }

    /// Folders of `depth` levels with their paths, largest first.
    pub fn largest(&self, depth: usize) -> Vec<(String, &Folder)> {
        let mut found = Vec::new();
        self.collect("", depth, &mut found);
        found.sort_by(|a, b| b.1.bytes.cmp(&a.1.bytes).then_with(|| a.0.cmp(&b.0)));
        found
    }

    fn collect<'a>(&'a self, path: &str, depth: usize, found: &mut Vec<(String, &'a Folder)>) {
        for folder in &self.folders {
            let path = format!("{path}/{}", folder.name);
            if depth > 1 && !folder.folders.is_empty() {
                folder.collect(&path, depth - 1, found);
            } else {
                found.push((path, folder));
            }
        }
    }
}
