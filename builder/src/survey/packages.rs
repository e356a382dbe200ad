//! The packages of an image, and which file is whose: dpkg's own database, or the list that an RPM image carries.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Result, ensure};

use super::catalogue::{Catalogue, order};
use crate::view::View;

/// dpkg's database.
const STATUS: &str = "/var/lib/dpkg/status";
/// A list of files for each package.
const LISTS: &str = "/var/lib/dpkg/info";

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, with epoch and release.
    pub version: String,
    /// Its architecture.
    pub architecture: String,
    /// Bytes on the disk of the files that are its own; absent when the image does not say which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// Which package a file belongs to.
#[derive(Debug, Default)]
pub struct Owners {
    /// By the entry's place in the catalogue.
    owner: HashMap<usize, usize>,
    names: Vec<String>,
}

impl Owners {
    /// The package of an entry.
    pub fn of(&self, entry: usize) -> Option<usize> {
        self.owner.get(&entry).copied()
    }

    /// The name of a package.
    pub fn name(&self, package: usize) -> Option<&str> {
        self.names.get(package).map(String::as_str)
    }
}

/// Most bytes of all lists together: those of an image have ten million.
const LISTED: usize = 512 << 20;

/// All packages by name, and what is theirs.
pub fn read(view: &View, catalogue: &Catalogue) -> Result<(Vec<Package>, Owners)> {
    if let Some(list) = view.text(crate::overlay::PACKAGES)? {
        return Ok((sorted(listed(&list)), Owners::default()));
    }
    if catalogue.find(STATUS).is_none() {
        return Ok((Vec::new(), Owners::default()));
    }
    // A package has one stanza for each architecture; more would have its list read again and again.
    let mut packages = sorted(dpkg(&view.text(STATUS)?.unwrap_or_default()));
    packages.dedup_by(|a, b| (&a.name, &a.architecture) == (&b.name, &b.architecture));
    let mut owners = Owners {
        owner: HashMap::new(),
        names: packages.iter().map(|package| package.name.clone()).collect(),
    };
    let folders = Folders::new(catalogue);
    let mut read = 0_usize;
    for (index, package) in packages.iter_mut().enumerate() {
        // A package that may be there for several architectures has its own in its list's name.
        let names = [
            format!("{LISTS}/{}.list", package.name),
            format!("{LISTS}/{}:{}.list", package.name, package.architecture),
        ];
        let Some(path) = names.iter().find(|path| catalogue.find(path).is_some()) else { continue };
        let mut bytes = 0_u64;
        let list = view.text(path)?.unwrap_or_default();
        read = read.saturating_add(list.len());
        ensure!(read <= LISTED, "the lists of packages' files have more than {LISTED} bytes");
        for line in list.lines() {
            let Some(at) = folders.entry(line) else { continue };
            let entry = &catalogue.entries[at];
            let inode = catalogue.inode(entry.inode)?;
            if inode.kind == super::ext4::Kind::Folder || owners.owner.insert(at, index).is_some() {
                continue;
            }
            bytes = bytes.saturating_add(if entry.again { 0 } else { inode.allocated });
        }
        package.bytes = Some(bytes);
    }
    Ok((packages, owners))
}

/// Finds the entries that lists of files mean: they say `/bin/sh`, and `/bin` is a link to `usr/bin`.
struct Folders<'a> {
    catalogue: &'a Catalogue,
    links: BTreeMap<String, String>,
}

impl<'a> Folders<'a> {
    fn new(catalogue: &'a Catalogue) -> Self {
        let link = |name: String| {
            let inode = catalogue.find(&format!("/{name}"))?;
            let target = std::str::from_utf8(catalogue.target(inode.number)?).ok()?;
            Some((name, target.trim_start_matches('/').to_owned()))
        };
        Folders { catalogue, links: catalogue.names_in("/").filter_map(link).collect() }
    }

    fn entry(&self, path: &str) -> Option<usize> {
        let find = |path: &str| {
            self.catalogue.entries.binary_search_by(|entry| order(&entry.path, path.as_bytes())).ok()
        };
        let (top, rest) = path.strip_prefix('/')?.split_once('/').unwrap_or_default();
        match self.links.get(top) {
            Some(target) => find(&format!("/{target}/{rest}")),
            None => find(path),
        }
    }
}

fn sorted(mut packages: Vec<Package>) -> Vec<Package> {
    packages
        .sort_by(|a, b| (&a.name, &a.version, &a.architecture).cmp(&(&b.name, &b.version, &b.architecture)));
    packages
}

/// `name version architecture repository`: one line a package.
fn listed(text: &str) -> Vec<Package> {
    let line = |line: &str| {
        let mut words = line.split(' ').map(|word| super::shown(word.as_bytes()));
        let (name, version) = words.next().zip(words.next())?;
        Some(Package { name, version, architecture: words.next().unwrap_or_default(), bytes: None })
    };
    text.lines().filter_map(line).collect()
}

/// Installed packages of dpkg's database; what was removed and left its configuration is not installed.
fn dpkg(status: &str) -> Vec<Package> {
    let stanza = |stanza: &str| {
        let field = |key: &str| {
            stanza.lines().find_map(|line| line.strip_prefix(key)).map(|value| super::shown(value.as_bytes()))
        };
        field("Status: ").filter(|status| status.ends_with(" installed"))?;
        Some(Package {
            name: field("Package: ")?,
            version: field("Version: ")?,
            architecture: field("Architecture: ").unwrap_or_default(),
            bytes: None,
        })
    };
    status.split("\n\n").filter_map(stanza).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages() {
        let status = "Package: b\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\nPackage: a\nStatus: deinstall ok config-files\nVersion: 2\n";
        let packages = dpkg(status);
        assert_eq!(packages.len(), 1);
        assert_eq!((packages[0].name.as_str(), packages[0].architecture.as_str()), ("b", "amd64"));
        let packages = listed("bash 4.2.46-35.el7_9 x86_64 updates\n\nodd\n");
        assert_eq!((packages.len(), packages[0].version.as_str()), (1, "4.2.46-35.el7_9"));
    }
}
