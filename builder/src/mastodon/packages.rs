//! The many small files of the lock files: gems and npm packages, several at a time, each kept as soon as it has been checked.
//!
//! A yarn.lock has digests. A Gemfile.lock of that time has none: a gem's SHA-256 is the one that the index states
//! (`/info/NAME`, the compact index), which also says whether the release is still there.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Result;
use fs_err as fs;
use sha2::{Digest as _, Sha256};

use super::download::{self, Client, Failure, host};
use super::gemfile_lock::{Gem, GemfileLock};
use super::origins::Origins;
use super::yarn_lock::{Package, Place};
use crate::context::Context;
use crate::error::Fault;
use crate::report::Unit;
use crate::store::{Key, hex};

/// Raise when the layout of an entry changes.
const VERSION: u32 = 1;
/// Downloads at the same time.
const WORKERS: usize = 8;
/// Most that one package may have, in bytes.
const PACKAGE_LIMIT: u64 = 256 << 20;
/// Most that the index's lines of one gem may have, in bytes.
const INFO_LIMIT: u64 = 16 << 20;
/// Names that one message lists.
const SHOWN: usize = 10;

/// An npm registry.
#[derive(Debug, Clone)]
pub struct Registry {
    base: String,
}

impl Registry {
    /// The one in force for a lock.
    pub fn of(packages: &[Package], origins: &Origins) -> Self {
        let named = packages.iter().find_map(|package| match &package.place {
            Place::Registry { registry, .. } => Some(registry.as_str()),
            Place::Git { .. } => None,
        });
        Registry { base: origins.npm(named.unwrap_or_default()).to_owned() }
    }

    /// URL of a path below it.
    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }
}

/// Why a package could not be had.
#[derive(Debug)]
enum Problem {
    /// The place where it should be does not have it any more.
    Gone,
    /// `--offline`, and it is not in the store.
    Offline,
    /// Its place cannot be used; the text says why. No use going on.
    Broken(String),
}

/// Brings the npm packages of a registry; their paths have the names that yarn looks for.
pub fn npm(packages: &[Package], registry: &Registry, context: &Context) -> Result<Vec<PathBuf>> {
    let client = Client::new();
    let packages: Vec<&Package> =
        packages.iter().filter(|package| matches!(package.place, Place::Registry { .. })).collect();
    let results = each(&packages, context, |package| {
        let Place::Registry { path, digest, .. } = &package.place else { return Err(Problem::Gone) };
        keep(&["npm", path, &format!("{digest:?}")], &package.file(), context, || {
            let url = registry.url(path);
            let bytes = client.get(&url, PACKAGE_LIMIT).map_err(|failure| problem(&url, &failure))?;
            download::check(&bytes, digest).map_err(|why| Problem::Broken(format!("{url}: {why}")))?;
            Ok(bytes)
        })
    });
    let (found, gone) =
        sort(results, &packages, |package| package.name.clone(), &registry.base, "npm", context)?;
    if gone.is_empty() {
        return Ok(found);
    }
    let message = format!("the npm registry `{}` does not have {}", host(&registry.base), list(&gone));
    Err(Fault::environment(message)
        .hint("another registry: --mirror npm=URL")
        .hint("a package that stands in for one that is gone: `[[replace]]` in the tag's file in `images/mastodon/tags`")
        .into())
}

/// Brings gems. One that the index does not have any more is an error only if production needs it.
pub fn gems(
    lock: &GemfileLock,
    needed: &BTreeSet<String>,
    tag: &str,
    origins: &Origins,
    context: &Context,
) -> Result<Vec<PathBuf>> {
    let client = Client::new();
    let index = lock.gems.first().map_or("", |gem| gem.remote.as_str());
    let results = each(&lock.gems, context, |gem| {
        let stated = lock.checksums.get(&(gem.name.clone(), gem.version.clone()));
        let pin = stated.map_or("", String::as_str);
        let base = origins.gems(&gem.remote);
        // Without a digest in the lock the index vouches, so what one index gave is nothing to another.
        let voucher = if pin.is_empty() { base } else { "" };
        keep(&["gem", &gem.file(), pin, voucher], &gem.file(), context, || {
            let wanted = match stated {
                Some(digest) => digest.clone(),
                None => ask_index(&client, base, gem)?,
            };
            let url = format!("{base}/gems/{}", gem.file());
            let bytes = client.get(&url, PACKAGE_LIMIT).map_err(|failure| problem(&url, &failure))?;
            let found = hex(&Sha256::digest(&bytes));
            if found == wanted {
                return Ok(bytes);
            }
            Err(Problem::Broken(format!("{url}: its SHA-256 is {found}, the index says {wanted}")))
        })
    });
    let base = origins.gems(index);
    let (found, gone) = sort(results, &lock.gems, |gem| gem.name.clone(), base, "rubygems", context)?;
    if gone.len() == lock.gems.len() {
        let message = format!(
            "`{}` has none of the {} gems: it is no index of gems (`/info/NAME`)",
            host(base),
            gone.len()
        );
        return Err(Fault::environment(message).hint("another index: --mirror rubygems=URL").into());
    }
    let missing: Vec<String> = lock
        .gems
        .iter()
        .filter(|gem| gone.contains(&gem.name) && needed.contains(&gem.name))
        .map(|gem| format!("{} {}", gem.name, gem.version))
        .collect();
    if !missing.is_empty() {
        let message = format!(
            "{} were removed from the index `{}` (yanked), and {tag} needs them",
            list(&missing),
            host(base)
        );
        return Err(Fault::environment(message)
            .hint(format!("name a release that replaces each: `[[gem]]` with `name`, `version` and `dependencies` in `images/mastodon/tags/{tag}.toml`"))
            .hint("an index that still has them: --mirror rubygems=URL")
            .into());
    }
    if !gone.is_empty() {
        context
            .reporter
            .note(&format!("gone from the index, and needed for development only: {}", list(&gone)));
    }
    Ok(found)
}

fn ask_index(client: &Client, base: &str, gem: &Gem) -> Result<String, Problem> {
    let url = format!("{base}/info/{}", gem.name);
    let bytes = client.get(&url, INFO_LIMIT).map_err(|failure| problem(&url, &failure))?;
    checksum(&String::from_utf8_lossy(&bytes), &gem.version).ok_or(Problem::Gone)
}

/// SHA-256 of a release in a gem's lines of the compact index: `5.1.4 dep:= 1,other:>= 0|checksum:…,ruby:>= 2.2`.
fn checksum(info: &str, version: &str) -> Option<String> {
    let line = info.lines().find(|line| line.split(' ').next() == Some(version))?;
    let (_, requirements) = line.split_once('|')?;
    let digest = requirements.split(',').find_map(|one| one.strip_prefix("checksum:"))?;
    super::tags::is_hexadecimal(digest, 64).then(|| digest.to_owned())
}

fn problem(url: &str, failure: &Failure) -> Problem {
    match failure {
        Failure::NotThere => Problem::Gone,
        Failure::Unreachable(why) => Problem::Broken(format!("{}: {why}", without_login(url))),
    }
}

fn without_login(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (_, path) = rest.split_once('/').unwrap_or((rest, ""));
            format!("{scheme}://{}/{path}", host(url))
        }
        None => url.to_owned(),
    }
}

/// The file in the store, made if it is not there.
fn keep(
    parts: &[&str],
    name: &str,
    context: &Context,
    make: impl FnOnce() -> Result<Vec<u8>, Problem>,
) -> Result<PathBuf, Problem> {
    let key = Key::of("package", VERSION, parts);
    let path = context.store.path("packages-v1", &key).join(name);
    if path.is_file() {
        return Ok(path);
    }
    if context.offline {
        return Err(Problem::Offline);
    }
    let bytes = make()?;
    let store = |folder: &std::path::Path| Ok(fs::write(folder.join(name), &bytes)?);
    let kept = context.store.get_or_make("packages-v1", &key, store);
    kept.map(|_| path).map_err(|error| Problem::Broken(format!("{error:#}")))
}

/// Does the work on every item, several at a time; stops early after a `Broken`. Items that nobody came to have no result.
fn each<T: Sync>(
    items: &[T],
    context: &Context,
    work: impl Fn(&T) -> Result<PathBuf, Problem> + Sync,
) -> Vec<Option<Result<PathBuf, Problem>>> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let results = Mutex::new((0, items.iter().map(|_| None).collect::<Vec<_>>()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min(items.len()) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { return };
                    let result = work(item);
                    if matches!(result, Err(Problem::Broken(_))) {
                        stop.store(true, Ordering::Relaxed);
                    }
                    let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    results.0 += 1;
                    results.1[index] = Some(result);
                    context.reporter.progress(results.0, items.len() as u64, Unit::Items);
                }
            });
        }
    });
    results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).1
}

/// Paths of what is there and names of what is gone; anything else is one error.
fn sort<T>(
    results: Vec<Option<Result<PathBuf, Problem>>>,
    items: &[T],
    name: impl Fn(&T) -> String,
    base: &str,
    mirror: &str,
    context: &Context,
) -> Result<(Vec<PathBuf>, Vec<String>)> {
    let (mut found, mut gone, mut absent) = (Vec::new(), Vec::new(), Vec::new());
    for (result, item) in results.into_iter().zip(items) {
        match result {
            Some(Ok(path)) => found.push(path),
            Some(Err(Problem::Gone)) => gone.push(name(item)),
            Some(Err(Problem::Offline)) => absent.push(name(item)),
            Some(Err(Problem::Broken(why))) => {
                let message = format!("`{}` cannot be used: {}: {why}", host(base), name(item));
                return Err(Fault::environment(message)
                    .hint(format!(
                        "another place: --mirror {mirror}=URL; what is there already stays in the store ({})",
                        context.store.root().display()
                    ))
                    .hint("what another machine's store has: imgbuild fetch --import")
                    .into());
            }
            None => {}
        }
    }
    if absent.is_empty() {
        return Ok((found, gone));
    }
    let message = format!(
        "--offline, and the store lacks {} of {} packages: {}",
        absent.len(),
        items.len(),
        list(&absent)
    );
    Err(Fault::environment(message)
        .hint("build it once with a network, or bring another machine's files: imgbuild fetch --import")
        .into())
}

fn list(names: &[String]) -> String {
    let mut text = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mastodon::{gemfile_lock, yarn_lock};

    /// An index of gems as a folder: `file://` works like any mirror.
    fn index(folder: &std::path::Path) -> String {
        for (name, info) in [("rails", "5.1.4"), ("rake", "12.0.0"), ("bullet", "9.9.9")] {
            let content = format!("{name} {info}");
            let digest = hex(&Sha256::digest(content.as_bytes()));
            fs::create_dir_all(folder.join("info")).unwrap();
            fs::create_dir_all(folder.join("gems")).unwrap();
            fs::write(
                folder.join("info").join(name),
                format!("---\n{info} a:>= 1|checksum:{digest},ruby:>= 2\n"),
            )
            .unwrap();
            fs::write(folder.join(format!("gems/{name}-{info}.gem")), content).unwrap();
        }
        format!("file://{}", folder.display())
    }

    fn lock(index: &str, rails: &str) -> GemfileLock {
        let text = format!(
            "GEM\n  remote: {index}\n  specs:\n    bullet (5.5.1)\n    rails ({rails})\n      rake\n    rake (12.0.0)\n\nDEPENDENCIES\n  bullet\n  rails\n"
        );
        gemfile_lock::parse(&text).unwrap()
    }

    #[test]
    fn gems_are_checked_by_the_index_and_a_yanked_one_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let mut context = Context::for_tests(&temp.path().join("store"));
        let index = index(&temp.path().join("index"));
        let needed = lock(&index, "5.1.4").production("gem 'rails'\ngroup :test do\n  gem 'bullet'\nend\n");
        let bring = |rails: &str, context: &Context| {
            gems(&lock(&index, rails), &needed, "v0", &Origins::default(), context)
        };
        // `bullet` 5.5.1 is gone, but only tests need it.
        assert_eq!(bring("5.1.4", &context).unwrap().len(), 2);
        let text = crate::error::render(&bring("5.1.3", &context).unwrap_err());
        assert!(
            text.contains("rails 5.1.3 were removed") && text.contains("[[gem]]") && text.contains("v0.toml"),
            "{text}"
        );
        // The store has them now: neither a changed server nor no server matters.
        fs::write(temp.path().join("index/gems/rails-5.1.4.gem"), "evil").unwrap();
        context.offline = true;
        let text = bring("5.1.4", &context).unwrap_err().to_string();
        assert!(text.contains("lacks 1 of 3 packages: bullet"), "{text}");
        let other = Context::for_tests(&temp.path().join("other"));
        let text = bring("5.1.4", &other).unwrap_err().to_string();
        assert!(text.contains("rails-5.1.4.gem: its SHA-256 is"), "{text}");
    }

    #[test]
    fn npm_packages_are_checked_by_the_lock() {
        let temp = tempfile::tempdir().unwrap();
        let context = Context::for_tests(&temp.path().join("store"));
        let folder = temp.path().join("warning/-");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("warning-3.0.0.tgz"), "abc").unwrap();
        let bring = |digest: &str, file: &str| {
            let text = format!(
                "warning@^3.0.0:\n  version \"3.0.0\"\n  resolved \"https://npm.example/warning/-/{file}#{digest}\"\n"
            );
            let packages = yarn_lock::parse(&text).unwrap();
            let registry = Registry { base: format!("file://{}", temp.path().display()) };
            npm(&packages, &registry, &context)
        };
        let found = bring("a9993e364706816aba3e25717850c26c9cd0d89d", "warning-3.0.0.tgz").unwrap();
        assert!(found[0].ends_with("warning-3.0.0.tgz"));
        let wrong = bring("b9993e364706816aba3e25717850c26c9cd0d89d", "warning-3.0.0.tgz").unwrap_err();
        assert!(wrong.to_string().contains("its digest is a9993e36"), "{wrong}");
        let gone = bring("a9993e364706816aba3e25717850c26c9cd0d89d", "warning-3.0.1.tgz").unwrap_err();
        assert!(gone.to_string().contains("does not have warning@^3.0.0"), "{gone}");
    }
}
