//! A Debian mirror's `InRelease` files -> the suites of a `Lock`.

use std::path::Path;

use anyhow::Result;

use super::release::Release;
use super::sizes::{Lists, Sizes};
use super::{Lock, LockedSuite, apt};
use crate::context::Context;
use crate::error::Fault;
use crate::fetch::{self, Fetcher};
use crate::recipe::Debian;

/// Largest `InRelease` that is believed, in bytes.
pub const RELEASE_LIMIT: u64 = 4 << 20;

/// What the mirrors offer now.
pub fn resolve(debian: &Debian, recipe: String, context: &Context) -> Result<Lock> {
    let fetcher = Fetcher::new(context);
    let mut suites = Vec::new();
    let mut epoch = 0;
    for (uri, suite) in wanted(debian, context)? {
        context.reporter.doing(&format!("asking {uri} for {suite}"));
        let release = release(&uri, &suite, &fetcher)?;
        epoch = epoch.max(release.date);
        suites.push(LockedSuite { uri, indexes: release.indexes(&debian.components), suite });
    }
    if !suites.iter().any(|suite| suite.suite.ends_with("-security")) {
        context.reporter.note(&format!(
            "no mirror of {}-security: the image has no security updates, and its apt asks for none; --mirror debian-security=URL names one",
            debian.suite
        ));
    }
    Ok(Lock {
        schema: super::SCHEMA,
        recipe,
        epoch,
        merged: false,
        sizes: None,
        suites,
        packages: Vec::new(),
    })
}

fn release(uri: &str, suite: &str, fetcher: &Fetcher<'_>) -> Result<Release> {
    let url = format!("{}/dists/{suite}/InRelease", uri.trim_end_matches('/'));
    let (bytes, _) = fetcher.text(&[url], RELEASE_LIMIT).map_err(|tried| {
        let why = fetch::words(&tried).join("; ");
        Fault::environment(format!("the mirror cannot be used: {why}"))
            .hint("check the network, name another with --mirror debian=URL, or use what the store has with --offline")
    })?;
    let release = Release::parse(&String::from_utf8_lossy(&bytes)).map_err(|message| {
        Fault::environment(format!(
            "`{uri}` answered with something that is no InRelease of `{suite}`: {message}"
        ))
        .hint("is it a Debian mirror? another one: --mirror debian=URL")
    })?;
    Ok(release)
}

/// What the packages will occupy by the suites' lists. Without them there is no forecast, and that is no reason not to build.
pub(super) fn sizes(debian: &Debian, lock: &Lock, context: &Context) -> Option<Sizes> {
    let fetcher = Fetcher::new(context);
    let mut lists = Lists::default();
    let mut read = || -> Result<()> {
        for LockedSuite { uri, suite, .. } in &lock.suites {
            context.reporter.doing(&format!("reading the package list of {suite}"));
            lists.add(uri, suite, &debian.components, &release(uri, suite, &fetcher)?, context)?;
        }
        Ok(())
    };
    if let Err(error) = read() {
        context.log.line(&format!("no forecast of space: {error:#}"));
        return None;
    }
    Some(lists.closure(&debian.packages))
}

/// Whether these `InRelease` files, which a tree was installed by, are those of the lock.
pub fn are_of(releases: &[String], debian: &Debian, lock: &Lock) -> bool {
    let indexes: Vec<String> = releases
        .iter()
        .filter_map(|text| Some(Release::parse(text).ok()?.indexes(&debian.components)))
        .collect();
    lock.suites.iter().all(|suite| indexes.contains(&suite.indexes))
}

/// The mirrors and suites that a recipe takes packages from.
pub fn wanted(debian: &Debian, context: &Context) -> Result<Vec<(String, String)>> {
    let suite = &debian.suite;
    let given = |name: &str| context.mirrors.iter().find(|(key, _)| key == name).map(|(_, url)| url.clone());
    let host = apt::host_mirrors(Path::new("/etc/apt"));
    let main = given("debian").or(host.main).ok_or_else(|| {
        Fault::environment("no Debian mirror: the host's apt sources name none")
            .hint("say which with --mirror debian=URL (and --mirror debian-security=URL)")
    })?;
    fetch::refuse_login(&main, "the mirror of the suite")?;
    let mut all = vec![(main.clone(), suite.clone()), (main, format!("{suite}-updates"))];
    // A mirror given on the command line is taken alone: the host's security mirror may be just what cannot be reached.
    let security =
        given("debian-security").or_else(|| given("debian").is_none().then_some(host.security).flatten());
    if let Some(security) = security {
        fetch::refuse_login(&security, "the mirror of the security suite")?;
        all.push((security, format!("{suite}-security")));
    }
    Ok(all)
}
