//! `imgbuild plan`: the resolved recipe and what a build would do, without doing it.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{context, recipe, say};
use crate::app;
use crate::cli::{Global, Plan};
use crate::context::Context;
use crate::mastodon::origins::Origins;
use crate::mastodon::source;
use crate::mastodon::tags::{Table, Tag};
use crate::preflight::{self, Forecast};
use crate::recipe::{Base, Recipe, Rpm, human};
use crate::resolve::{self, Lock, LockedPackage, Tree};

/// Prints the plan. What the recipe says comes first, so that it is seen even where no mirror can be asked.
pub fn run(options: &Plan, global: &Global) -> Result<()> {
    let context = context(global, Some(&options.image), None)?;
    let recipe = recipe(&options.image, &context)?;
    crate::overlay::require(&recipe, &context)?;
    if global.json {
        let (value, lock) = match recipe.base() {
            Base::Debian(debian) => {
                (serde_json::json!({ "mirrors": resolve::debian::wanted(debian, &context)? }), None)
            }
            Base::Rpm(base) => {
                let lock = resolve::resolve(&recipe, &context)?.0;
                let repositories = repositories(base, &context).collect::<BTreeMap<_, _>>();
                (serde_json::json!({ "repositories": repositories, "lock": &lock }), Some(lock))
            }
        };
        let application = application(&recipe, &context)?;
        if let Some(tag) = application.as_ref().and_then(|application| application.needs.as_ref()) {
            app::require_services(&recipe, lock.as_ref(), tag)?;
        }
        let application = application.map(|application| application.json(&recipe, lock.as_ref()));
        let mut all = serde_json::json!({
            "recipe": recipe.image, "store": context.store.root(), "application": application,
        });
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
    let application = application(&recipe, &context)?;
    application.as_ref().map_or(Ok(()), Application::say)?;
    let lock = match recipe.base() {
        Base::Debian(debian) => {
            for (uri, suite) in resolve::debian::wanted(debian, &context)? {
                say(&format!("packages   {uri} {suite}"))?;
            }
            say(&format!("           {} named: {}", debian.packages.len(), debian.packages.join(" ")))?;
            None
        }
        Base::Rpm(base) => Some(rpm(base, &recipe, &context)?),
    };
    room(&recipe, lock.as_ref(), &context)?;
    let Some(application) = application else { return Ok(()) };
    let services = app::services(&recipe, lock.as_ref());
    for (label, release) in [("postgresql", &services.postgresql), ("redis", &services.redis)] {
        say(&format!(
            "{label:<10} {}",
            release.as_deref().unwrap_or("not known before the packages are there")
        ))?;
    }
    application.needs.map_or(Ok(()), |tag| app::require_services(&recipe, lock.as_ref(), &tag))
}

/// What a build needs on disk, as far as that is known without asking a mirror for more.
fn room(recipe: &Recipe, lock: Option<&Lock>, context: &Context) -> Result<()> {
    let last = if lock.is_none() { resolve::last(recipe, context)? } else { None };
    let forecast = match lock.or(last.as_ref()) {
        Some(lock) => {
            let sources = app::stand_in_bytes(recipe);
            preflight::forecast(recipe, lock, sources, &recipe.image.formats, context)?
        }
        None => None,
    };
    let Some(forecast) = forecast else {
        return say("room       not known before the mirror's package lists have been read");
    };
    let Forecast { store, output, assumed } = forecast;
    say(&format!("room       at most {} in the store, {} for the artifacts", human(store), human(output)))?;
    assumed.iter().try_for_each(|assumption| say(&format!("           assumed: {assumption}")))
}

/// What Mastodon at the recipe's tag is built with.
struct Application {
    /// The tag's entry of the table; none for a tag whose needs only its own files say.
    needs: Option<Tag>,
    tag: String,
    yarn: String,
    source: String,
    origins: Origins,
}

/// None for an image that carries a stand-in.
fn application(recipe: &Recipe, context: &Context) -> Result<Option<Application>> {
    let app = &recipe.image.app;
    if app.folder.is_some() {
        return Ok(None);
    }
    let table = Table::load(&context.project.mastodon())?;
    let source = context.source.as_deref().or(app.source.as_deref()).unwrap_or(source::DEFAULT);
    Ok(Some(Application {
        needs: table.tag(&app.tag).cloned(),
        tag: app.tag.clone(),
        yarn: table.tools.yarn.version,
        source: source.to_owned(),
        origins: Origins::new(context),
    }))
}

impl Application {
    fn say(&self) -> Result<()> {
        match &self.needs {
            Some(tag) => {
                say(&format!("ruby       {}", tag.ruby.version))?;
                say(&format!("node       {}", tag.node))?;
                say(&format!("bundler    {}", tag.bundler.as_deref().unwrap_or("Ruby's own")))?;
            }
            None => say(&format!(
                "ruby       as the files of {0} say, node and bundler too: {0} is not in the table, nobody has tried it",
                self.tag
            ))?,
        }
        say(&format!("yarn       {}", self.yarn))?;
        say(&format!("source     {}", self.source))?;
        for (name, place) in self.origins.places() {
            say(&format!(
                "mirror     {name}: {}",
                place.as_deref().unwrap_or("as the tag's lock files say")
            ))?;
        }
        Ok(())
    }

    fn json(&self, recipe: &Recipe, lock: Option<&Lock>) -> serde_json::Value {
        let needs = self.needs.as_ref();
        let services = app::services(recipe, lock);
        serde_json::json!({
            "in-table": needs.is_some(),
            "ruby": needs.map(|tag| &tag.ruby.version),
            "node": needs.map(|tag| &tag.node),
            "bundler": needs.and_then(|tag| tag.bundler.as_ref()),
            "yarn": self.yarn,
            "postgresql": services.postgresql,
            "redis": services.redis,
            "source": self.source,
            "mirrors": self.origins.places().into_iter().collect::<BTreeMap<_, _>>(),
        })
    }
}

fn repositories<'a>(base: &'a Rpm, context: &'a Context) -> impl Iterator<Item = (&'a str, Vec<String>)> {
    base.repositories
        .iter()
        .map(|repository| (repository.name.as_str(), resolve::rpm::roots(base, repository, context)))
}

fn rpm(base: &Rpm, recipe: &Recipe, context: &Context) -> Result<Lock> {
    for repository in &base.repositories {
        // The archive is what `--mirror` takes.
        let (name, archive) = (&repository.name, &repository.archive);
        let part = if name == archive { String::new() } else { format!(" ({name})") };
        let roots = resolve::rpm::roots(base, repository, context).join(", then ");
        say(&format!("mirror     {archive}{part}: {roots}"))?;
    }
    for (archive, names) in base.packages.iter().filter(|(_, names)| !names.is_empty()) {
        say(&format!("named      {archive}: {}", names.join(" ")))?;
    }
    for (archive, names) in base.build_packages.iter().filter(|(_, names)| !names.is_empty()) {
        say(&format!("to build   {archive}: {}", names.join(" ")))?;
    }
    let (lock, _) = resolve::resolve(recipe, context)?;
    for repository in &base.repositories {
        by_repository(&lock, &repository.name)?;
    }
    total(&lock, Tree::Image, "in the image")?;
    if base.build_packages.values().any(|names| !names.is_empty()) {
        total(&lock, Tree::Build, "with those that build the application")?;
    }
    Ok(lock)
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
