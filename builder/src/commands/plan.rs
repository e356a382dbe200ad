//! `imgbuild plan`: the resolved recipe and what a build would do, without doing it.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{context, recipe, say};
use crate::cli::{Global, Plan};
use crate::context::Context;
use crate::recipe::{Base, Recipe, Rpm, human};
use crate::resolve::{self, Lock, LockedPackage, Tree};

/// Prints the plan. What the recipe says comes first, so that it is seen even where no mirror can be asked.
pub fn run(options: &Plan, global: &Global) -> Result<()> {
    let context = context(global, Some(&options.image), None)?;
    let recipe = recipe(&options.image, &context)?;
    crate::overlay::require(&recipe, &context)?;
    if global.json {
        let value = match recipe.base() {
            Base::Debian(debian) => {
                serde_json::json!({ "mirrors": resolve::debian::wanted(debian, &context)? })
            }
            Base::Rpm(base) => serde_json::json!({
                "repositories": repositories(base, &context).collect::<BTreeMap<_, _>>(),
                "lock": resolve::resolve(&recipe, &context)?.0,
            }),
        };
        let mut all = serde_json::json!({ "recipe": recipe.image, "store": context.store.root() });
        if let (Some(all), Some(more)) = (all.as_object_mut(), value.as_object()) {
            all.extend(more.clone());
        }
        return say(&serde_json::to_string_pretty(&all)?);
    }
    let image = &recipe.image;
    say(&format!("image      {} ({})", image.name, image.title))?;
    say(&format!("tag        {}", image.app.tag))?;
    say(&format!("overlays   {}", image.overlays.join(" ")))?;
    say(&format!("machine    {} CPUs, {} memory", image.machine.cpus, image.machine.memory))?;
    say(&format!("disks      system {}, data {}", image.disk.system, image.disk.data))?;
    say(&format!(
        "formats    {}",
        image.formats.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    ))?;
    let kept: u64 = context.store.entries()?.iter().map(|(_, bytes)| bytes).sum();
    say(&format!("store      {} ({} kept)", context.store.root().display(), human(kept)))?;
    match recipe.base() {
        Base::Debian(debian) => {
            for (uri, suite) in resolve::debian::wanted(debian, &context)? {
                say(&format!("packages   {uri} {suite}"))?;
            }
            say(&format!("           {} named: {}", debian.packages.len(), debian.packages.join(" ")))
        }
        Base::Rpm(base) => rpm(base, &recipe, &context),
    }
}

fn repositories<'a>(base: &'a Rpm, context: &'a Context) -> impl Iterator<Item = (&'a str, Vec<String>)> {
    base.repositories
        .iter()
        .map(|repository| (repository.name.as_str(), resolve::rpm::roots(base, repository, context)))
}

fn rpm(base: &Rpm, recipe: &Recipe, context: &Context) -> Result<()> {
    for (name, roots) in repositories(base, context) {
        say(&format!("mirror     {name}: {}", roots.join(", then ")))?;
    }
    for (archive, names) in &base.packages {
        say(&format!("named      {archive}: {}", names.join(" ")))?;
    }
    for (archive, names) in &base.build_packages {
        say(&format!("to build   {archive}: {}", names.join(" ")))?;
    }
    let (lock, _) = resolve::resolve(recipe, context)?;
    for repository in &base.repositories {
        by_repository(&lock, &repository.name)?;
    }
    total(&lock, Tree::Image, "in the image")?;
    total(&lock, Tree::Build, "to build the application")
}

fn by_repository(lock: &Lock, repository: &str) -> Result<()> {
    let packages: Vec<&LockedPackage> =
        lock.tree(Tree::Image).into_iter().filter(|package| package.repository == repository).collect();
    if packages.is_empty() {
        return Ok(());
    }
    let size: u64 = packages.iter().map(|package| package.size).sum();
    say(&format!("packages   {repository}: {} packages, {}", packages.len(), human(size)))?;
    let names: Vec<String> =
        packages.iter().map(|package| format!("{}-{}", package.name, package.evr)).collect();
    say(&format!("           {}", names.join(" ")))
}

fn total(lock: &Lock, tree: Tree, what: &str) -> Result<()> {
    let packages = lock.tree(tree);
    let sum = |size: fn(&LockedPackage) -> u64| human(packages.iter().map(|package| size(package)).sum());
    say(&format!(
        "total      {} packages {what}, {} to fetch, {} installed",
        packages.len(),
        sum(|package| package.size),
        sum(|package| package.installed_size)
    ))
}
