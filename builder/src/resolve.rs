//! `Recipe` -> `Lock`: what the mirror offers now, by digest. One of the three rooms that use the network.
//!
//! Mirrors are the host's own (its apt sources) unless `--mirror` names others. The lock is kept in the store, so that
//! `--offline` builds from the last one, and is renewed only when an index changed: equal indexes give an equal epoch.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::Fault;
use crate::recipe::Recipe;
use crate::release::Release;
use crate::store::Key;

mod apt;

/// Largest `InRelease` that is believed, in bytes.
const RELEASE_LIMIT: u64 = 4 << 20;

/// What a build is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lock {
    /// Seconds since 1970 that stand for the time of the build: the newest index's date.
    pub epoch: u64,
    /// The suites that packages come from.
    pub suites: Vec<LockedSuite>,
}

/// One suite of one mirror.
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

impl Lock {
    /// The part of a stage's key that the lock gives; the mirror's name is no part of it.
    pub fn key(&self) -> Key {
        let parts: Vec<&str> =
            self.suites.iter().flat_map(|suite| [suite.suite.as_str(), suite.indexes.as_str()]).collect();
        let epoch = self.epoch.to_string();
        let mut all = vec![epoch.as_str()];
        all.extend(parts);
        Key::of("lock", 1, &all)
    }
}

/// Asks the mirrors; offline, takes the last answer.
pub fn resolve(recipe: &Recipe, context: &Context) -> Result<(Lock, bool)> {
    let kept = kept_path(context, recipe);
    let last = load(&kept)?;
    if context.offline {
        let Some(lock) = last else {
            let message = format!("--offline, and the store has no lock for image `{}`", recipe.image.name);
            return Err(Fault::environment(message).hint("build it once with a network").into());
        };
        return Ok((lock, true));
    }
    let mut suites = Vec::new();
    let mut epoch = 0;
    for (uri, suite) in wanted(recipe, context)? {
        context.reporter.doing(&format!("asking {uri} for {suite}"));
        let text = get(&format!("{}/dists/{suite}/InRelease", uri.trim_end_matches('/')))?;
        let release = Release::parse(&text).map_err(|message| {
            Fault::environment(format!(
                "`{uri}` answered with something that is no InRelease of `{suite}`: {message}"
            ))
            .hint("is it a Debian mirror? another one: --mirror debian=URL")
        })?;
        epoch = epoch.max(release.date);
        suites.push(LockedSuite { uri, indexes: release.indexes(&recipe.image.debian.components), suite });
    }
    if let Some(last) = last {
        let same = |lock: &Lock| {
            lock.suites.iter().map(|suite| (suite.suite.clone(), suite.indexes.clone())).collect::<Vec<_>>()
        };
        let fresh = Lock { epoch, suites };
        if same(&last) == same(&fresh) {
            return Ok((Lock { epoch: last.epoch, suites: fresh.suites }, false));
        }
        return save(&kept, &fresh).map(|()| (fresh, false));
    }
    let lock = Lock { epoch, suites };
    save(&kept, &lock)?;
    Ok((lock, false))
}

/// The mirrors and suites that a recipe takes packages from.
pub fn wanted(recipe: &Recipe, context: &Context) -> Result<Vec<(String, String)>> {
    let suite = &recipe.image.debian.suite;
    let given = |name: &str| context.mirrors.iter().find(|(key, _)| key == name).map(|(_, url)| url.clone());
    let host = apt::host_mirrors(Path::new("/etc/apt"));
    let main = given("debian").or(host.main).ok_or_else(|| {
        Fault::environment("no Debian mirror: the host's apt sources name none")
            .hint("say which with --mirror debian=URL (and --mirror debian-security=URL)")
    })?;
    let mut all = vec![(main.clone(), suite.clone()), (main, format!("{suite}-updates"))];
    // A mirror given on the command line is taken alone: the host's security mirror may be just what cannot be reached.
    let security =
        given("debian-security").or_else(|| given("debian").is_none().then_some(host.security).flatten());
    if let Some(security) = security {
        all.push((security, format!("{suite}-security")));
    }
    Ok(all)
}

fn kept_path(context: &Context, recipe: &Recipe) -> PathBuf {
    context.store.root().join("locks").join(format!("{}.json", recipe.image.name))
}

fn load(path: &Path) -> Result<Option<Lock>> {
    match fs::read_to_string(path) {
        Ok(text) => {
            serde_json::from_str(&text).map(Some).with_context(|| format!("reading `{}`", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn save(path: &Path, lock: &Lock) -> Result<()> {
    crate::atomic::write(path, serde_json::to_string_pretty(lock)?.as_bytes())
}

fn get(url: &str) -> Result<String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .into();
    let unreachable = |why: String| {
        Fault::environment(format!("the mirror cannot be used: {url}: {why}"))
            .hint("check the network, name another with --mirror debian=URL, or use what the store has with --offline")
    };
    let mut response = agent.get(url).call().map_err(|error| unreachable(error.to_string()))?;
    let mut text = String::new();
    let mut body = response.body_mut().as_reader().take(RELEASE_LIMIT);
    body.read_to_string(&mut text).map_err(|error| unreachable(error.to_string()))?;
    Ok(text)
}
