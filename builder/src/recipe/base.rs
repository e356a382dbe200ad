//! The part of a recipe that says where the distribution's files come from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::rpm::TrustedKey;
use crate::tree::path::TreePath;

/// Who makes the base tree.
#[derive(Debug, Clone, Copy)]
pub enum Base<'a> {
    /// mmdebstrap, from a Debian mirror.
    Debian(&'a Debian),
    /// The distribution's own yum, from RPM packages that imgbuild has verified.
    Rpm(&'a Rpm),
}

/// A base tree made by mmdebstrap.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Debian {
    /// Release name, such as `bookworm`.
    pub suite: String,
    /// Archive components.
    pub components: Vec<String>,
    /// Packages to install, without recommended ones.
    pub packages: Vec<String>,
    /// Packages beside those in the tree that builds the application; not in the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build_packages: Vec<String>,
    /// Path patterns that dpkg leaves out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Folder whose files are put into the root before the packages are configured.
    pub before: Option<String>,
}

/// A base tree made of RPM packages.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rpm {
    /// Packages whose closure is unpacked first, by imgbuild itself; their yum then installs all others.
    pub bootstrap: Vec<String>,
    /// Where repositories lie, and who signs them; by the name that `--mirror NAME=URL` takes.
    pub archives: BTreeMap<String, Archive>,
    /// The repositories; of equal builds the earlier one's is taken.
    pub repositories: Vec<Repository>,
    /// Packages of the image, by archive.
    pub packages: BTreeMap<String, Vec<String>>,
    /// Packages beside those in the tree that builds the application; not in the image.
    #[serde(default)]
    pub build_packages: BTreeMap<String, Vec<String>>,
    /// Packages of these lists that the image does without; for a recipe that extends another.
    #[serde(default)]
    pub without: Vec<String>,
    /// Folder whose files are put into the tree before the packages are installed.
    pub before: Option<String>,
    /// Where in the tree today's certificate roots are put, before the packages are installed: the distribution's are old.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_roots: Option<String>,
    /// Commands run as root in the finished tree, without network.
    #[serde(default)]
    pub after: Vec<String>,
}

/// Repositories of one publisher.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Archive {
    /// Where it is kept, tried in this order.
    pub mirrors: Vec<String>,
    /// Keys that its packages may be signed with.
    pub keys: Vec<TrustedKey>,
}

/// One repository: a folder with `repodata`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Repository {
    /// Its name in messages and locks.
    pub name: String,
    /// The archive that it is part of.
    pub archive: String,
    /// Its folder below a mirror.
    pub path: String,
    /// When given, only these packages of it exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<Vec<String>>,
}

impl Debian {
    pub(super) fn check(&self) -> Result<(), String> {
        package_names("debian.packages", &self.packages)?;
        package_names("debian.build-packages", &self.build_packages)?;
        if !is_plain(&self.suite) {
            return Err(format!("key `debian.suite`: `{}` is not a suite's name", self.suite));
        }
        if let Some(name) = self.components.iter().find(|name| !is_plain(name)) {
            return Err(format!("key `debian.components`: `{name}` may have only a-z, 0-9 and `-`"));
        }
        self.before.as_deref().map_or(Ok(()), |folder| folder_below("debian.before", folder))
    }
}

impl Rpm {
    pub(super) fn check(&self) -> Result<(), String> {
        package_names("rpm.bootstrap", &self.bootstrap)?;
        if self.bootstrap.is_empty() {
            return Err("key `rpm.bootstrap`: name the package manager, such as `yum`".to_owned());
        }
        for (name, archive) in &self.archives {
            if !is_plain(name) {
                return Err(format!("table `rpm.archives`: `{name}` may have only a-z, 0-9 and `-`"));
            }
            if let Some(url) = archive.mirrors.iter().find(|url| !url.contains("://")) {
                return Err(format!("key `rpm.archives.{name}.mirrors`: `{url}` is no URL"));
            }
            for key in &archive.keys {
                folder_below(&format!("rpm.archives.{name}.keys"), &key.file.to_string_lossy())?;
                if key.fingerprint.len() < 40 || !key.fingerprint.bytes().all(|c| c.is_ascii_hexdigit()) {
                    return Err(format!(
                        "key `rpm.archives.{name}.keys`: `{}` is no fingerprint of 40 or 64 hexadecimal digits",
                        key.fingerprint
                    ));
                }
            }
        }
        let mut names = BTreeSet::new();
        for repository in &self.repositories {
            let name = &repository.name;
            if !is_plain(name) || !names.insert(name) {
                return Err(format!(
                    "table `rpm.repositories`: the name `{name}` is not plain, or used twice"
                ));
            }
            if !self.archives.contains_key(&repository.archive) {
                return Err(format!("repository `{name}`: there is no archive `{}`", repository.archive));
            }
            folder_below(&format!("rpm.repositories.{name}.path"), &repository.path)?;
        }
        for (key, lists) in [("rpm.packages", &self.packages), ("rpm.build-packages", &self.build_packages)] {
            for (archive, packages) in lists {
                if !self.repositories.iter().any(|repository| repository.archive == *archive) {
                    return Err(format!("key `{key}.{archive}`: no repository is of this archive"));
                }
                package_names(&format!("{key}.{archive}"), packages)?;
            }
        }
        if let Some(path) = &self.ca_roots {
            path.parse::<TreePath>().map_err(|message| format!("key `rpm.ca-roots`: {message}"))?;
        }
        self.before.as_deref().map_or(Ok(()), |folder| folder_below("rpm.before", folder))
    }
}

/// Lower-case letters, digits and `-`.
pub(super) fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.chars().all(plain)
}

/// A relative folder that does not leave its place.
pub(super) fn folder_below(key: &str, folder: &str) -> Result<(), String> {
    if Path::new(folder).components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(());
    }
    Err(format!("key `{key}`: `{folder}` must lie below its folder: no `..`, no `/` in front"))
}

fn package_names(key: &str, names: &[String]) -> Result<(), String> {
    let word = |c: char| c.is_ascii_alphanumeric() || "+-.:_".contains(c);
    match names.iter().find(|name| name.is_empty() || name.starts_with('-') || !name.chars().all(word)) {
        Some(name) => Err(format!("key `{key}`: `{name}` is not a package name")),
        None => Ok(()),
    }
}
