//! The files of a Debian root: what its archives say of each, and their contents on disk once they are wanted.
//!
//! Guarantees: every path is absolute, without `..`, and as in a merged `/usr`; an archive that came first wins.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use fs_err as fs;
use tar::{Archive, EntryType};

/// Folders of the root that are links into `/usr`.
const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// No text of the root that is read here comes near this.
const TEXT_LIMIT: u64 = 64 << 20;
/// The attribute with a file's capabilities, as a tar of the pax format names it.
const CAPABILITIES: &str = "SCHILY.xattr.security.capability";

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File,
    Link,
}

/// A path of the root.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub kind: Kind,
    pub mode: u32,
    pub owner: String,
    pub group: String,
    /// As `cap_from_text` reads them.
    pub capabilities: Option<String>,
    /// Where an absolute link leads.
    pub target: Option<String>,
    archive: usize,
}

impl Entry {
    /// What root owns.
    pub fn of_root(kind: Kind, mode: u32) -> Entry {
        let root = || "root".to_owned();
        Entry {
            kind,
            mode,
            owner: root(),
            group: root(),
            capabilities: None,
            target: None,
            archive: usize::MAX,
        }
    }
}

/// The files of a root, by path.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub entries: BTreeMap<String, Entry>,
    archives: Vec<PathBuf>,
    texts: BTreeMap<String, String>,
    users: BTreeMap<u64, String>,
    groups: BTreeMap<u64, String>,
}

impl Tree {
    /// Reads a root's tar.
    pub fn read(archive: &Path) -> Result<Tree> {
        let mut tree = Tree::default();
        // Names of owners come first: they are in files of the archive itself.
        tree.read_texts(archive)?;
        tree.users = names(tree.text("/etc/passwd")?);
        tree.groups = names(tree.text("/etc/group")?);
        tree.add(archive)?;
        Ok(tree)
    }

    /// Adds the files of another archive that are not there yet; every path that it has.
    pub fn add(&mut self, archive: &Path) -> Result<BTreeSet<String>> {
        let index = self.archives.len();
        self.archives.push(archive.to_owned());
        let mut paths = BTreeSet::new();
        let mut reader = Archive::new(fs::File::open(archive)?);
        for entry in reader.entries_with_seek().with_context(|| reading(archive))? {
            let mut entry = entry.with_context(|| reading(archive))?;
            let path = canonical(&entry.path()?)?;
            let header = entry.header();
            let kind = match header.entry_type() {
                EntryType::Directory => Kind::Folder,
                EntryType::Regular | EntryType::Link => Kind::File,
                EntryType::Symlink => Kind::Link,
                // Nodes: the machine makes its own.
                _ => continue,
            };
            let target = entry.link_name()?.filter(|link| kind == Kind::Link && link.is_absolute());
            // A link that leads out of its archive leads nowhere.
            let target = target.and_then(|link| canonical(&link).ok());
            let header = entry.header();
            let (mode, owner, group) = (header.mode()? & 0o7777, header.uid()?, header.gid()?);
            let mut capabilities = None;
            for extension in entry.pax_extensions()?.into_iter().flatten() {
                let extension = extension?;
                if extension.key()? == CAPABILITIES {
                    capabilities = Some(capability_text(&path, extension.value_bytes())?);
                }
            }
            paths.insert(path.clone());
            let owner = name_of(&self.users, owner, &path)?;
            let group = name_of(&self.groups, group, &path)?;
            // A package may name a folder that is a link in the root: `/lib`, `/var/run`.
            self.entries.entry(path).or_insert(Entry {
                kind,
                mode,
                owner,
                group,
                capabilities,
                target,
                archive: index,
            });
        }
        Ok(paths)
    }

    fn read_texts(&mut self, archive: &Path) -> Result<()> {
        use std::io::Read as _;
        let wanted = ["/etc/passwd", "/etc/group", "/etc/apt/sources.list", "/var/lib/dpkg/status"];
        let mut reader = Archive::new(fs::File::open(archive)?);
        for entry in reader.entries_with_seek().with_context(|| reading(archive))? {
            let entry = entry.with_context(|| reading(archive))?;
            let path = canonical(&entry.path()?)?;
            let list = path.starts_with("/var/lib/dpkg/info/") && path.ends_with(".list");
            if list || wanted.contains(&path.as_str()) {
                let mut text = String::new();
                entry.take(TEXT_LIMIT).read_to_string(&mut text).with_context(|| reading(archive))?;
                self.texts.insert(path, text);
            }
        }
        Ok(())
    }

    /// One of the root's texts that say what it is made of.
    pub fn text(&self, path: &str) -> Result<&str> {
        self.texts.get(path).map(String::as_str).with_context(|| format!("the Debian root has no `{path}`"))
    }

    /// The same where it may be absent.
    pub fn text_if_any(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    /// Writes the wanted paths below a folder, for rpmbuild, which takes owners and modes from elsewhere.
    pub fn write(&self, wanted: &BTreeSet<&str>, folder: &Path) -> Result<()> {
        for (index, archive) in self.archives.iter().enumerate() {
            let mut reader = Archive::new(fs::File::open(archive)?);
            for entry in reader.entries_with_seek().with_context(|| reading(archive))? {
                let mut entry = entry.with_context(|| reading(archive))?;
                let path = canonical(&entry.path()?)?;
                let known = self.entries.get(&path).is_some_and(|entry| entry.archive == index);
                if !known || !wanted.contains(path.as_str()) {
                    continue;
                }
                let target = below(folder, &path);
                if let Some(parent) = target.parent() {
                    fs::create_dir_all(parent)?;
                }
                let link = entry.link_name()?.map(std::borrow::Cow::into_owned);
                match entry.header().entry_type() {
                    EntryType::Directory => fs::create_dir_all(&target)?,
                    EntryType::Symlink => {
                        let link = link.with_context(|| format!("`{path}` links to nothing"))?;
                        symlink(&link, &target).with_context(|| format!("linking `{}`", target.display()))?;
                    }
                    EntryType::Link => {
                        let link = link.with_context(|| format!("`{path}` links to nothing"))?;
                        let first = canonical(&link)?;
                        fs::hard_link(below(folder, &first), &target)
                            .with_context(|| format!("`{path}` is another name of `{first}`"))?;
                    }
                    _ => {
                        let time = entry.header().mtime()?;
                        let mut file = fs::File::create(&target)?;
                        std::io::copy(&mut entry, &mut file).with_context(|| reading(archive))?;
                        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(time);
                        file.file().set_modified(time)?;
                        // Readable for us whatever it will be in the guest; scripts must look like scripts to rpmbuild.
                        let mode = self.entries[&path].mode & 0o111 | 0o600;
                        file.file().set_permissions(std::fs::Permissions::from_mode(mode))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// A path of the root below a folder of the host.
pub(super) fn below(folder: &Path, path: &str) -> PathBuf {
    folder.join(path.trim_start_matches('/'))
}

/// An absolute path in a root whose `/bin`, `/sbin` and `/lib*` are links into `/usr`.
pub(super) fn canonical(path: &Path) -> Result<String> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => {
                let name = name.to_str().with_context(|| format!("`{}` is not UTF-8", path.display()))?;
                parts.push(name);
            }
            Component::ParentDir | Component::Prefix(_) => {
                bail!("`{}` leaves its archive", path.display())
            }
        }
    }
    let merged = parts.len() > 1 && MERGED.contains(&parts[0]);
    Ok(format!("/{}{}", if merged { "usr/" } else { "" }, parts.join("/")))
}

fn reading(archive: &Path) -> String {
    format!("reading `{}`", archive.display())
}

/// Names by id, out of `/etc/passwd` or `/etc/group`.
fn names(text: &str) -> BTreeMap<u64, String> {
    let line = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((fields.nth(1)?.parse().ok()?, name))
    };
    text.lines().filter_map(line).collect()
}

fn name_of(names: &BTreeMap<u64, String>, id: u64, path: &str) -> Result<String> {
    names
        .get(&id)
        .cloned()
        .with_context(|| format!("`{path}` belongs to id {id}, which has no name in the root"))
}

/// `struct vfs_cap_data` as text: the kernel's words of permitted and inheritable capabilities, by number.
fn capability_text(path: &str, data: &[u8]) -> Result<String> {
    let word = |index: usize| {
        let bytes = data.get(index * 4..index * 4 + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        bytes.map(u32::from_le_bytes).with_context(|| format!("the capabilities of `{path}` are cut short"))
    };
    let permitted = u64::from(word(1)?) | u64::from(word(3)?) << 32;
    let inheritable = u64::from(word(2)?) | u64::from(word(4)?) << 32;
    if inheritable != 0 {
        bail!("`{path}` has inheritable capabilities, which no package of a Debian root has");
    }
    let numbers = (0..64).filter(|bit| permitted >> bit & 1 == 1).map(|bit: u32| bit.to_string());
    let effective = if word(0)? & 1 == 1 { "e" } else { "" };
    Ok(format!("{}={effective}p", numbers.collect::<Vec<_>>().join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_a_merged_root() {
        let path = |text: &str| canonical(Path::new(text)).unwrap();
        assert_eq!(path("./bin/sh"), "/usr/bin/sh");
        assert_eq!(path("./bin"), "/bin");
        assert_eq!(path("usr/lib/x"), "/usr/lib/x");
        assert_eq!(path("./"), "/");
        assert!(canonical(Path::new("./usr/../../etc/passwd")).is_err());
    }

    #[test]
    fn capabilities_are_read_as_the_kernel_writes_them() {
        let mut data = [0; 20];
        (data[0], data[3], data[5]) = (1, 2, 1 << 5);
        assert_eq!(capability_text("/usr/bin/ping", &data).unwrap(), "13=ep");
        assert!(capability_text("/usr/bin/ping", &data[..12]).is_err());
    }
}
