//! The application's sources -> `Sources`; with `BaseTree` -> `AppLayer`: a tar of `/home/mastodon`, built in a root that has the tools.
//!
//! A recipe with `app.folder` carries a stand-in; without, the application is Mastodon at a tag (`mastodon`). Sources are gathered
//! before the base tree is made, so that what cannot be had is known in seconds.

use std::path::{Path, PathBuf};

use anyhow::Result;
use firstboot::facts::ApplicationFacts;
use serde::Serialize;

use crate::context::Context;
use crate::error::Fault;
use crate::mastodon::package::{self, Expected};
use crate::mastodon::source::{self, Source};
use crate::mastodon::tags::{Table, Tag};
use crate::mastodon::vendor::{self, Vendor};
use crate::mastodon::{self, build};
use crate::recipe::{Base, Recipe};
use crate::resolve::{Lock, LockedPackage};
use crate::rootfs::{self, BaseTree};
use crate::sandbox::{Network, Sandbox};
use crate::store::{Key, allocated};

/// Raise when equal inputs give another layer.
const STAGE_VERSION: u32 = 4;

/// User id of `mastodon`, as in Mastodon's own container image.
pub const MASTODON_UID: u32 = 991;

/// What the layer is made of.
#[derive(Debug, Clone)]
pub struct Sources {
    facts: ApplicationFacts,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// A folder of the recipe, and its digest.
    StandIn(PathBuf, String),
    /// Mastodon: its files, and all that its lock files name.
    Mastodon(Box<Tag>, Source, Vendor),
    /// A layer that was built elsewhere.
    Layer(PathBuf, Key),
}

impl Sources {
    /// Entries of the store that a build without network needs.
    pub fn entries(&self) -> Vec<(&'static str, Key)> {
        match &self.kind {
            Kind::StandIn(..) => Vec::new(),
            Kind::Mastodon(_, source, vendor) => {
                vec![("source-v1", source.key().clone()), ("vendor-v1", vendor.key().clone())]
            }
            Kind::Layer(_, key) => vec![("app-v1", key.clone())],
        }
    }
}

impl Sources {
    /// Bytes that they occupy: of a layer that was given, its own.
    pub fn bytes(&self, context: &Context) -> u64 {
        match &self.kind {
            Kind::StandIn(folder, _) => folder_bytes(folder),
            Kind::Layer(tar, _) => allocated(tar),
            Kind::Mastodon(..) => {
                self.entries().iter().map(|(kind, key)| allocated(&context.store.path(kind, key))).sum()
            }
        }
    }
}

/// Bytes of the stand-in that a recipe carries; none for one that is built with Mastodon.
pub fn stand_in_bytes(recipe: &Recipe) -> Option<u64> {
    Some(folder_bytes(&recipe.folder.join(recipe.image.app.folder.as_ref()?)))
}

/// The folder may be a link to another image's.
fn folder_bytes(folder: &Path) -> u64 {
    fs_err::canonicalize(folder).map_or(0, |folder| allocated(&folder))
}

/// A tar of the application's files.
#[derive(Debug, Clone)]
pub struct AppLayer {
    tar: PathBuf,
    key: Key,
    facts: ApplicationFacts,
}

impl AppLayer {
    /// The tar.
    pub fn tar(&self) -> &Path {
        &self.tar
    }

    /// Its key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// What first boot must know about it.
    pub fn facts(&self) -> &ApplicationFacts {
        &self.facts
    }
}

/// Brings the sources; refuses a tag that the image's services are not for.
pub fn gather(recipe: &Recipe, lock: &Lock, context: &Context) -> Result<(Sources, bool)> {
    let app = &recipe.image.app;
    if let (Some(folder), Some(facts)) = (&app.folder, &recipe.image.guest.application) {
        let source = recipe.folder.join(folder);
        if !source.join("live").is_dir() {
            let message = format!("key `app.folder`: `{}` has no folder `live`", source.display());
            return Err(Fault::user(message).into());
        }
        let digest = crate::digest::folder(&source)?;
        return Ok((Sources { facts: facts.clone(), kind: Kind::StandIn(source, digest) }, true));
    }
    let table = Table::load(&context.project.mastodon())?;
    if let Some(known) = table.tag(&app.tag) {
        require_services(recipe, Some(lock), known)?;
    }
    let base = mastodon_base(recipe);
    if let Some(file) = &context.layer {
        let known = table.tag(&app.tag).ok_or_else(|| {
            Fault::user(format!("--app: tag `{}` is not in the table, so its facts are not known", app.tag))
                .hint(format!("known: {}", table.names().join(", ")))
        })?;
        // Debian's release stands for its glibc.
        let glibc = lock.package("glibc").map(LockedPackage::version);
        let expected =
            Expected { tag: &app.tag, commit: known.commit.as_deref(), base, glibc: glibc.as_deref() };
        let (tar, key) = package::import(file, &expected, context)?;
        return Ok((Sources { facts: known.facts(), kind: Kind::Layer(tar, key) }, true));
    }
    let from = context.source.as_deref().or(app.source.as_deref()).unwrap_or(source::DEFAULT);
    let (source, tag) = source::obtain(&app.tag, from, &table, context)?;
    require_services(recipe, Some(lock), &tag)?;
    let (vendor, cached) = vendor::gather(&tag, &table.tools, base, &source, context)?;
    Ok((Sources { facts: tag.facts(), kind: Kind::Mastodon(Box::new(tag), source, vendor) }, cached))
}

fn mastodon_base(recipe: &Recipe) -> mastodon::Base {
    match recipe.base() {
        Base::Debian(_) => mastodon::Base::Debian,
        Base::Rpm(_) => mastodon::Base::El7,
    }
}

/// Releases of the services in an image, where they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Services {
    /// PostgreSQL.
    pub postgresql: Option<String>,
    /// Redis.
    pub redis: Option<String>,
}

/// The releases of PostgreSQL and Redis that the image has: the recipe says, or its packages.
pub fn services(recipe: &Recipe, lock: Option<&Lock>) -> Services {
    let release = |stated: &Option<String>, packages: &[&str]| {
        let locked = || packages.iter().find_map(|name| lock?.package(name)).map(LockedPackage::version);
        stated.clone().or_else(locked)
    };
    let app = &recipe.image.app;
    Services {
        postgresql: release(&app.postgresql, &["postgresql11-server", "postgresql-server"]),
        redis: release(&app.redis, &["redis"]),
    }
}

/// Refuses a tag that does not work with them, or that the image's distribution cannot compile.
pub fn require_services(recipe: &Recipe, lock: Option<&Lock>, tag: &Tag) -> Result<()> {
    if tag.python2 && mastodon_base(recipe) == mastodon::Base::Debian {
        let message = format!(
            "Mastodon {} is compiled with Python 2, which image `{}` does not have",
            tag.tag, recipe.image.name
        );
        return Err(Fault::user(message).hint(format!("its own image: --image {}", tag.image)).into());
    }
    let services = services(recipe, lock);
    Ok(tag.require_services(services.postgresql.as_deref(), services.redis.as_deref())?)
}

/// Builds the layer, or takes it from the store.
pub fn build(
    recipe: &Recipe,
    sources: &Sources,
    base: &BaseTree,
    lock: &Lock,
    context: &Context,
) -> Result<(AppLayer, bool)> {
    let facts = sources.facts.clone();
    let parts = match &sources.kind {
        Kind::Layer(tar, key) => return Ok((AppLayer { tar: tar.clone(), key: key.clone(), facts }, true)),
        Kind::StandIn(_, digest) => vec![digest.clone(), Recipe::canonical(&recipe.image.app)?],
        Kind::Mastodon(_, source, vendor) => {
            [source.key(), vendor.key(), &rootfs::compilers_key(recipe, lock)?]
                .map(|key| key.as_str().to_owned())
                .to_vec()
        }
    };
    let epoch = lock.epoch.to_string();
    let mut all = vec![base.key().as_str(), &epoch];
    all.extend(parts.iter().map(String::as_str));
    let key = Key::of("app", STAGE_VERSION, &all);
    let (folder, cached) = context.store.get_or_make("app-v1", &key, |folder| {
        let sandbox = match &sources.kind {
            Kind::StandIn(source, _) => stand_in(recipe, source, base, context)?,
            Kind::Mastodon(tag, source, vendor) => {
                let sandbox = rootfs::with_compilers(recipe, lock, base, context)?;
                build::layer(tag, mastodon_base(recipe), source, vendor, &sandbox, context)?;
                sandbox
            }
            Kind::Layer(..) => unreachable!("a layer was returned above"),
        };
        context.reporter.doing("packing the layer");
        sandbox.pack(mastodon::HOME, lock.epoch, &folder.join("app.tar"))
    })?;
    Ok((AppLayer { tar: folder.join("app.tar"), key, facts }, cached))
}

fn stand_in<'a>(
    recipe: &Recipe,
    source: &Path,
    base: &BaseTree,
    context: &'a Context,
) -> Result<Sandbox<'a>> {
    context.reporter.doing("unpacking the base tree");
    let sandbox = Sandbox::unpack(base.tar(), context)?;
    sandbox.copy_in(&source.join("live"), "/home/mastodon/live", MASTODON_UID)?;
    if source.join("rbenv").is_dir() {
        sandbox.copy_in(&source.join("rbenv"), "/home/mastodon/.rbenv", MASTODON_UID)?;
    }
    let owner = format!("{MASTODON_UID}:{MASTODON_UID}");
    sandbox.run(&["chown", &owner, mastodon::HOME], Network::None)?;
    for command in &recipe.image.app.build {
        context.reporter.doing(command);
        sandbox.run_as(MASTODON_UID, "/home/mastodon/live", command)?;
    }
    Ok(sandbox)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::Tree;

    fn locked(name: &str, evr: &str) -> LockedPackage {
        LockedPackage {
            name: name.to_owned(),
            evr: evr.to_owned(),
            arch: "x86_64".to_owned(),
            repository: "base".to_owned(),
            location: format!("{name}.rpm"),
            size: 1,
            installed_size: 1,
            sha256: "0".repeat(64),
            trees: vec![Tree::Image],
        }
    }

    #[test]
    fn the_recipe_or_the_packages_say_which_services_there_are() {
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images");
        let load = |image: &str| Recipe::load(&images.join(image), None, &[]).unwrap();
        let of = |image: &str, packages: Vec<LockedPackage>| {
            let lock = Lock {
                schema: 1,
                recipe: String::new(),
                epoch: 0,
                merged: false,
                sizes: None,
                suites: Vec::new(),
                packages,
            };
            let services = services(&load(image), Some(&lock));
            (services.postgresql.unwrap_or_default(), services.redis.unwrap_or_default())
        };
        let redis = || locked("redis", "3.2.12-2.el7");
        let base = vec![locked("postgresql-server", "9.2.24-9.el7_9"), redis()];
        assert_eq!(of("centos7", base), ("9.2.24".to_owned(), "3.2.12".to_owned()));
        let pgdg = vec![locked("postgresql11-server", "11.22-1PGDG.rhel7"), redis()];
        assert_eq!(of("centos7-pg11", pgdg).0, "11.22");
        assert_eq!(services(&load("centos7"), None), Services::default());
        assert_eq!(services(&load("debian12"), None).postgresql.as_deref(), Some("15"));
    }
}
