//! Every file of a root file system: its path, its inode, where it leads.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result, bail, ensure};

use super::ext4::{FileSystem, Inode, Kind, ROOT};

/// Most files of one image: fifteen times those of an application with all its packages.
const ENTRIES: usize = 2_000_000;
/// Longest path, in bytes: the kernel's own limit.
const PATH: usize = 4096;
/// Most bytes of all paths and targets together: an image's hundred thousand files have ten million.
const TEXT: usize = 512 << 20;

/// One name of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Guest path, beginning with `/`.
    pub path: Vec<u8>,
    /// Number of its inode.
    pub inode: u32,
    /// Whether an earlier path has the same inode, so that its bytes are counted already.
    pub again: bool,
}

/// All names below the root, each folder before what it holds, in order of [`order`].
pub struct Catalogue {
    /// The names; the root itself is the first.
    pub entries: Vec<Entry>,
    inodes: HashMap<u32, Inode>,
    targets: HashMap<u32, Vec<u8>>,
}

impl Catalogue {
    /// Reads every folder and every inode.
    pub fn read(system: &mut FileSystem) -> Result<Catalogue> {
        let mut catalogue =
            Catalogue { entries: Vec::new(), inodes: HashMap::new(), targets: HashMap::new() };
        // Pushed in reverse, so that names come off in order.
        let mut waiting = vec![(b"/".to_vec(), ROOT)];
        let mut text = 0;
        while let Some((path, number)) = waiting.pop() {
            let again = catalogue.inodes.contains_key(&number);
            if !again {
                let inode = system
                    .inode(number)
                    .with_context(|| format!("reading `{}` in the image", super::shown(&path)))?;
                if inode.kind == Kind::Link {
                    let target = system.target(&inode).with_context(|| {
                        format!("reading the link `{}` in the image", super::shown(&path))
                    })?;
                    text += target.len();
                    catalogue.targets.insert(number, target);
                }
                catalogue.inodes.insert(number, inode);
            }
            let inode = catalogue.inode(number)?;
            if inode.kind == Kind::Folder {
                // A folder has one name; another one would make it its own ancestor, without end.
                ensure!(!again, "the folder `{}` has two names", super::shown(&path));
                let folder = inode.clone();
                let names = system
                    .names(&folder)
                    .with_context(|| format!("listing `{}` in the image", super::shown(&path)))?;
                for name in names.into_iter().rev() {
                    let mut below = path.clone();
                    if below != b"/" {
                        below.push(b'/');
                    }
                    below.extend(&name.bytes);
                    ensure!(
                        below.len() <= PATH,
                        "a path in the image is longer than {PATH} bytes: `{}`",
                        super::shown(&below)
                    );
                    text += below.len();
                    waiting.push((below, name.inode));
                }
            }
            ensure!(text <= TEXT, "the names in the image have more than {TEXT} bytes");
            if catalogue.entries.len() + waiting.len() > ENTRIES {
                bail!("the image has more than {ENTRIES} files");
            }
            catalogue.entries.push(Entry { path, inode: number, again });
        }
        Ok(catalogue)
    }

    /// An inode that an entry names.
    pub fn inode(&self, number: u32) -> Result<&Inode> {
        self.inodes.get(&number).with_context(|| format!("there is no inode {number}"))
    }

    /// Every entry with its inode.
    pub fn each(&self) -> impl Iterator<Item = (&Entry, &Inode)> {
        self.entries.iter().filter_map(|entry| Some((entry, self.inodes.get(&entry.inode)?)))
    }

    /// Where an inode leads, if it is a symbolic link.
    pub fn target(&self, number: u32) -> Option<&[u8]> {
        self.targets.get(&number).map(Vec::as_slice)
    }

    /// The inode behind a path. Links are not followed.
    pub fn find(&self, path: &str) -> Option<&Inode> {
        let at = self.entries.binary_search_by(|entry| order(&entry.path, path.as_bytes())).ok()?;
        self.inodes.get(&self.entries[at].inode)
    }

    /// The names in a folder.
    pub fn names_in(&self, folder: &str) -> impl Iterator<Item = String> {
        let prefix = format!("{}/", folder.trim_end_matches('/')).into_bytes();
        self.entries.iter().filter_map(move |entry| {
            let name = entry.path.strip_prefix(prefix.as_slice()).filter(|name| !name.is_empty())?;
            (!name.contains(&b'/')).then(|| super::shown(name))
        })
    }

    /// Files by what they are.
    pub fn counts(&self) -> BTreeMap<Kind, u64> {
        let mut counts = BTreeMap::new();
        for (_, inode) in self.each() {
            *counts.entry(inode.kind).or_default() += 1;
        }
        counts
    }
}

/// The order of entries: name by name, so that a folder's content follows it at once.
pub fn order(a: &[u8], b: &[u8]) -> Ordering {
    let parts = |path| <[u8]>::split(path, |byte| *byte == b'/').filter(|part| !part.is_empty());
    parts(a).cmp(parts(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_comes_right_before_its_content() {
        let mut paths = ["/a-b", "/a/b", "/", "/a", "/a.c", "/a/b/c"];
        paths.sort_by(|a, b| order(a.as_bytes(), b.as_bytes()));
        assert_eq!(paths, ["/", "/a", "/a/b", "/a/b/c", "/a-b", "/a.c"]);
    }
}
