//! `Recipe` -> `Lock`: every input by digest. One of the rooms that use the network.
//!
//! `image.lock` beside the recipe decides when it is there (`imgbuild lock` writes it). Otherwise the mirrors are asked what they
//! offer now; the answer is kept in the store, so that `--offline` builds from the last one, and is renewed only when something
//! in it changed: equal offers give an equal epoch.

mod apt;
pub mod debian;
mod release;
pub mod rpm;
mod sizes;

use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use fs_err as fs;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::context::Context;
use crate::error::Fault;
use crate::recipe::{Base, Recipe};
use crate::rpm::evr::Evr;
use crate::store::{Key, hex};
pub use sizes::Sizes;

/// No package of a supported distribution is older than 2000-01-01, in seconds since 1970.
const EARLIEST: u64 = 946_684_800;
/// The only version of the lock's format so far.
const SCHEMA: u32 = 1;

/// What a build is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lock {
    /// Version of this format; 1.
    pub schema: u32,
    /// SHA-256 of the part of the recipe that it answers.
    pub recipe: String,
    /// Seconds since 1970 that stand for the time of the build: the newest index's or package's date.
    pub epoch: u64,
    /// Made from a mirror that holds the packages of all archives in one repository: then the keys of all count for each.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub merged: bool,
    /// What the suites' lists say of the size of a Debian tree, for the forecast of space; not part of what the image is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sizes: Option<Sizes>,
    /// The suites that Debian packages come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suites: Vec<LockedSuite>,
    /// The RPM packages, sorted by name.
    #[serde(default, rename = "package", skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<LockedPackage>,
}

/// One suite of one Debian mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedSuite {
    /// Mirror.
    pub uri: String,
    /// Suite, such as `bookworm-security`.
    pub suite: String,
    /// SHA-256 over the package indexes' digests.
    pub indexes: String,
}

/// One RPM package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedPackage {
    /// Name.
    pub name: String,
    /// `[epoch:]version-release`.
    pub evr: String,
    /// `x86_64` or `noarch`.
    pub arch: String,
    /// The recipe's name of its repository.
    pub repository: String,
    /// Its file below the repository.
    pub location: String,
    /// Size of the file, in bytes.
    pub size: u64,
    /// Size of what it installs, in bytes.
    pub installed_size: u64,
    /// SHA-256 of the file.
    pub sha256: String,
    /// The trees that it is part of.
    pub trees: Vec<Tree>,
}

/// The trees that an RPM image is built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tree {
    /// The throw-away root whose yum installs the others.
    Bootstrap,
    /// The image.
    Image,
    /// The image's tree with compilers, which builds the application.
    Build,
}

impl LockedPackage {
    /// Upstream's version.
    pub fn version(&self) -> String {
        Evr::parse(&self.evr).version
    }

    /// The last part of its location.
    pub fn file_name(&self) -> &str {
        self.location.rsplit('/').next().unwrap_or(&self.location)
    }
}

impl Lock {
    /// The part of a stage's key that the lock gives; no mirror's name is part of it.
    pub fn key(&self) -> Key {
        let epoch = self.epoch.to_string();
        let mut all = vec![epoch.as_str()];
        all.extend(self.suites.iter().flat_map(|suite| [suite.suite.as_str(), suite.indexes.as_str()]));
        all.extend(self.packages.iter().map(|package| package.sha256.as_str()));
        Key::of("lock", 2, &all)
    }

    /// What the image's packages occupy, as far as the lock knows.
    pub fn sizes(&self) -> Option<Sizes> {
        let packages = self.tree(Tree::Image);
        let sum = |size: fn(&LockedPackage) -> u64| {
            packages.iter().fold(0_u64, |sum, package| sum.saturating_add(size(package)))
        };
        let of_packages =
            Sizes { download: sum(|package| package.size), installed: sum(|package| package.installed_size) };
        self.sizes.or((!packages.is_empty()).then_some(of_packages))
    }

    /// The packages of one tree.
    pub fn tree(&self, tree: Tree) -> Vec<&LockedPackage> {
        self.packages.iter().filter(|package| package.trees.contains(&tree)).collect()
    }

    /// A package of the image, by name.
    pub fn package(&self, name: &str) -> Option<&LockedPackage> {
        self.packages.iter().find(|package| package.name == name && package.trees.contains(&Tree::Image))
    }
}

/// The lock in force; asks mirrors only where nothing else answers.
pub fn resolve(recipe: &Recipe, context: &Context) -> Result<(Lock, bool)> {
    let digest = recipe_digest(recipe)?;
    if let Some(lock) = committed(recipe)? {
        if lock.recipe == digest {
            return Ok((lock, true));
        }
        context.reporter.note(&format!(
            "`{}` is for another list of packages, so the mirrors are asked; `imgbuild lock` renews it",
            committed_path(recipe).display()
        ));
    }
    let kept = kept_path(context, recipe);
    let last: Option<Lock> = load(&kept, |text| checked(serde_json::from_str(text)?))?;
    if context.offline {
        let missing = || {
            Fault::environment(format!(
                "--offline, and the store has no lock for image `{}`",
                recipe.image.name
            ))
            .hint("build it once with a network, or bring its inputs with `imgbuild fetch --import DIR`")
        };
        return Ok((last.filter(|lock| lock.recipe == digest).ok_or_else(missing)?, true));
    }
    let lock = ask(recipe, context)?;
    // A last one without sizes is of an earlier imgbuild.
    let last = last.filter(|last| last.without_epoch() == lock.without_epoch());
    let sizes = last.as_ref().and_then(|last| last.sizes);
    let epoch = last.as_ref().map_or(lock.epoch, |last| last.epoch);
    let sizes = sizes.or_else(|| match recipe.base() {
        Base::Debian(debian) => debian::sizes(debian, &lock, context),
        Base::Rpm(_) => None,
    });
    let lock = Lock { epoch, sizes, ..lock };
    if last.as_ref() == Some(&lock) {
        return Ok((lock, false));
    }
    crate::atomic::write(&kept, serde_json::to_string_pretty(&lock)?.as_bytes())?;
    Ok((lock, false))
}

/// The lock of the last build, where it is for this recipe: asks nobody.
pub fn last(recipe: &Recipe, context: &Context) -> Result<Option<Lock>> {
    let digest = recipe_digest(recipe)?;
    let last: Option<Lock> = load(&kept_path(context, recipe), |text| checked(serde_json::from_str(text)?))?;
    Ok(last.filter(|lock| lock.recipe == digest))
}

/// What the mirrors offer now.
pub fn ask(recipe: &Recipe, context: &Context) -> Result<Lock> {
    let recipe_digest = recipe_digest(recipe)?;
    let lock = match recipe.base() {
        Base::Debian(debian) => debian::resolve(debian, recipe_digest, context)?,
        Base::Rpm(base) => rpm::resolve(base, &recipe_digest, context)?,
    };
    lock.check()?;
    Ok(lock)
}

/// Writes `image.lock` beside the recipe.
pub fn commit(recipe: &Recipe, lock: &Lock) -> Result<PathBuf> {
    let path = committed_path(recipe);
    let text = format!(
        "# Written by `imgbuild lock`: every package that the image is made of.\n{}",
        toml::to_string(lock)?
    );
    crate::atomic::write(&path, text.as_bytes())?;
    Ok(path)
}

/// Where the store keeps the last lock of an image.
pub fn kept_path(context: &Context, recipe: &Recipe) -> PathBuf {
    context.store.root().join("locks").join(format!("{}.json", recipe.image.name))
}

impl Lock {
    /// Refuses what an edited file could do: another format, names that leave their place, digests that are none.
    pub fn check(&self) -> Result<()> {
        if self.schema != SCHEMA {
            return Err(Fault::user(format!(
                "key `schema`: got {}, this imgbuild reads {SCHEMA}",
                self.schema
            ))
            .into());
        }
        // It becomes the earliest time that a guest believes in, and nobody has signed it.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if !(EARLIEST..=now + 86_400).contains(&self.epoch) {
            let message =
                format!("its newest package is of second {} since 1970, which cannot be", self.epoch);
            return Err(Fault::user(message)
                .hint("is this host's clock right? if so, use another mirror")
                .into());
        }
        for package in &self.packages {
            let wrong = |key: &str, value: &str, what: &str| {
                let value = value.escape_debug();
                Fault::user(format!("package `{}`: key `{key}`: `{value}` is no {what}", package.name))
            };
            let normal =
                Path::new(&package.location).components().all(|part| matches!(part, Component::Normal(_)));
            if !normal || package.file_name().is_empty() {
                return Err(wrong("location", &package.location, "path below a repository").into());
            }
            if Key::parse(&package.sha256).is_none() {
                return Err(wrong("sha256", &package.sha256, "SHA-256 of 64 lower-case digits").into());
            }
        }
        Ok(())
    }

    /// For comparing what the mirrors offer: not when, and not which mirror.
    fn without_epoch(&self) -> Lock {
        let mut lock = Lock { epoch: 0, sizes: None, ..self.clone() };
        for suite in &mut lock.suites {
            suite.uri.clear();
        }
        lock
    }
}

fn committed_path(recipe: &Recipe) -> PathBuf {
    recipe.folder.join("image.lock")
}

fn committed(recipe: &Recipe) -> Result<Option<Lock>> {
    load(&committed_path(recipe), |text| checked(toml::from_str(text)?))
}

fn checked(lock: Lock) -> Result<Lock> {
    lock.check()?;
    Ok(lock)
}

fn recipe_digest(recipe: &Recipe) -> Result<String> {
    let text = match recipe.base() {
        Base::Debian(debian) => Recipe::canonical(&(&debian.suite, &debian.components))?,
        // Mirrors may move; what is asked of them stays the same.
        Base::Rpm(base) => Recipe::canonical(&(
            &base.bootstrap,
            &base.without,
            &base.packages,
            &base.build_packages,
            base.repositories
                .iter()
                .map(|repository| (&repository.name, &repository.only))
                .collect::<Vec<_>>(),
        ))?,
    };
    Ok(hex(&Sha256::digest(text)))
}

fn load(path: &Path, parse: impl FnOnce(&str) -> Result<Lock>) -> Result<Option<Lock>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match parse(&text) {
        Ok(lock) => Ok(Some(lock)),
        // The store's own is only a memory: one of an older version is forgotten.
        Err(_) if path.extension().is_some_and(|extension| extension == "json") => Ok(None),
        Err(error) => {
            let message = format!("`{}` is no lock of this imgbuild: {error:#}", path.display());
            Err(Fault::user(message.trim_end())
                .hint("write it anew with `imgbuild lock`, or remove it")
                .into())
        }
    }
}
