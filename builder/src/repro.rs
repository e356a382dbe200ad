//! Does an image come out the same twice? It is built, then built again under perturbation by a second imgbuild, and every stage's
//! result and every artifact is compared byte by byte. What differs is named down to the file and the byte.
//!
//! The first build may take stages from the store; when those were made is part of the report.

mod archive;
mod bytes;
mod disk;
mod rerun;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, Result};
use fs_err as fs;
use serde::Serialize;

use crate::context::Context;
use crate::error::Fault;
use crate::export::Format;
use crate::pipeline;
use crate::recipe::Recipe;
use crate::resolve;
use crate::store::{Key, Store};
use bytes::{Part, describe, first_difference};
use rerun::{Second, throw_away_store};

/// Stages whose results the store keeps, in the order of a build, and the kinds of their entries.
const STAGES: &[(&str, &str)] = &[
    ("rootfs", "rootfs-v1"),
    ("firstboot", "appliance-v1"),
    ("app", "app-v1"),
    ("overlay", "tree-v1"),
    ("disk", "disk-v1"),
];
/// What artifacts are called in the place of a stage.
const EXPORT: &str = "export";
/// Differences that are listed for one file.
const LISTED: usize = 10;

/// What is to be compared.
#[derive(Debug)]
pub struct Options {
    /// Formats to export.
    pub formats: Vec<Format>,
    /// Build the first anew too.
    pub fresh: bool,
    /// Where the second build works, instead of in the store; another file system has another order of folders.
    pub work: Option<PathBuf>,
    /// Options of the command line that say what the image is, for the second build.
    pub given: Vec<String>,
}

/// What was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Stages that the first build took from the store, and when those were made, in seconds since 1970.
    pub from_the_store: Vec<(String, u64)>,
    /// Seconds between the starts of the builds.
    pub seconds_between: u64,
    /// What was different for the second build.
    pub perturbations: Vec<String>,
    /// Every file that was compared, in the order of a build.
    pub files: Vec<Compared>,
}

/// One file of both builds.
#[derive(Debug, Serialize)]
pub struct Compared {
    /// The stage that made it.
    pub stage: String,
    /// Its name.
    pub name: String,
    /// Its length in bytes in the first build; 0 where that has none.
    pub bytes: u64,
    /// What differs; nothing when every byte is the same.
    pub differences: Vec<String>,
}

impl Report {
    /// The first file that differs.
    pub fn first_difference(&self) -> Option<&Compared> {
        self.files.iter().find(|file| !file.differences.is_empty())
    }

    /// An error when something differs.
    pub fn require_identical(&self) -> Result<()> {
        let Some(first) = self.first_difference() else { return Ok(()) };
        let what = first.differences.first().map_or("", String::as_str);
        let fault = Fault::user(format!(
            "the builds differ, first in the result of stage `{}`, file `{}`: {what}",
            first.stage, first.name
        ));
        let is_old = self.from_the_store.iter().any(|(stage, _)| *stage == first.stage);
        let hint = "the first build took that stage from the store, where other versions of the host's programs may have made it; \
                    `--fresh` makes it anew";
        Err(if is_old { fault.hint(hint) } else { fault }.into())
    }
}

/// Builds twice and compares.
pub fn check(recipe: &Recipe, options: &Options, mut context: Context) -> Result<Report> {
    let user_store = context.store.clone();
    let workshop = match &options.work {
        Some(folder) => Store::open(folder).with_context(|| format!("--work `{}`", folder.display()))?,
        None => user_store.clone(),
    };
    // Swept by the next run if this one is killed, like every folder for work under way.
    let scratch = workshop.scratch()?;
    let folder = |name: &str| scratch.path().join(name);
    if options.fresh {
        context.store = throw_away_store(&user_store, &folder("first"))?;
    }
    let start = Instant::now();
    let outputs = [folder("artifacts"), folder("artifacts-of-the-second")];
    context.reporter.note("first build");
    let built = pipeline::build(recipe, &options.formats, &outputs[0], &context)?;
    let lock = resolve::last(recipe, &context)?.map(|lock| lock.key());

    let seconds_between = start.elapsed().as_secs();
    context.reporter.note("second build, under other circumstances");
    let second_store = throw_away_store(&context.store, &folder("a-longer-name-for-the-second"))?;
    let second = Second {
        recipe,
        formats: &options.formats,
        options: &options.given,
        output: &outputs[1],
        store: &second_store,
        folder: &folder("elsewhere"),
    };
    fs::create_dir(second.folder)?;
    let mut perturbations = vec![format!("{seconds_between} s later")];
    perturbations.extend(second.run(&context)?);

    let second_lock = second_store.root().join("locks").join(format!("{}.json", recipe.image.name));
    let second_lock = fs::read_to_string(second_lock).ok();
    let second_lock: Option<resolve::Lock> = second_lock.and_then(|text| serde_json::from_str(&text).ok());
    // By what is in it: the forecast's sizes may be missing after a list that could not be had.
    if second_lock.map(|lock| lock.key()) != lock {
        let message = "the mirrors offered other packages to the second build than to the first";
        return Err(Fault::environment(message)
            .hint("run it again, or pin the packages with `imgbuild lock`")
            .into());
    }
    context.reporter.note("comparing");
    let mut report = Report { from_the_store: Vec::new(), seconds_between, perturbations, files: Vec::new() };
    for (stage, kind) in STAGES {
        for key in keys(&second_store, kind)? {
            let first = context.store.path(kind, &key);
            let both = [first.as_path(), &second_store.path(kind, &key)];
            if !first.is_dir() {
                let name = key.as_str().to_owned();
                let said = "the second build made it of other inputs, so under another key".to_owned();
                report.files.push(Compared {
                    stage: (*stage).to_owned(),
                    name,
                    bytes: 0,
                    differences: vec![said],
                });
                continue;
            }
            if built.times.iter().any(|time| time.name == *stage && time.cached) {
                let made = fs::metadata(&first)?.modified()?.duration_since(SystemTime::UNIX_EPOCH);
                report.from_the_store.push(((*stage).to_owned(), made.unwrap_or_default().as_secs()));
            }
            folders(stage, both, &mut report.files, &context)?;
        }
    }
    folders(EXPORT, [&outputs[0], &outputs[1]], &mut report.files, &context)?;
    Ok(report)
}

/// The entries of a kind that a store has itself.
fn keys(store: &Store, kind: &str) -> Result<Vec<Key>> {
    let folder = store.root().join(kind);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
    Ok(names.iter().filter_map(|name| Key::parse(name.to_str()?)).collect())
}

/// Compares the files of two folders by their names.
fn folders(stage: &str, both: [&Path; 2], files: &mut Vec<Compared>, context: &Context) -> Result<()> {
    let mut names: BTreeSet<OsString> = BTreeSet::new();
    for folder in both {
        for entry in fs::read_dir(folder)? {
            names.insert(entry?.file_name());
        }
    }
    for name in names {
        let paths = both.map(|folder| folder.join(&name));
        let name = name.to_string_lossy().into_owned();
        context.reporter.doing(&format!("comparing {name}"));
        let differences = match [paths[0].is_file(), paths[1].is_file()] {
            [true, true] => self::differences(&paths[0], &paths[1], context)?,
            [true, false] => vec!["the second build did not make it".to_owned()],
            _ => vec!["only the second build made it".to_owned()],
        };
        let bytes = fs::metadata(&paths[0]).map_or(0, |meta| meta.len());
        files.push(Compared { stage: stage.to_owned(), name, bytes, differences });
    }
    Ok(())
}

/// What differs between two files, as deep as their kind can be looked into; nothing when every byte is the same.
fn differences(one: &Path, two: &Path, context: &Context) -> Result<Vec<String>> {
    let files = [fs::File::open(one)?, fs::File::open(two)?];
    let parts = [Part::whole(&files[0])?, Part::whole(&files[1])?];
    let Some(offset) = first_difference(parts[0], parts[1])? else { return Ok(Vec::new()) };
    let extension = one.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    // A file that cannot be looked into still has its bytes.
    let (mut found, more) = match extension {
        "tar" | "ova" => archive::differences(&files[0], &files[1], LISTED),
        "raw" => disk::differences(one, two, LISTED, context),
        _ => Ok((Vec::new(), 0)),
    }
    .unwrap_or_default();
    if found.is_empty() {
        found.push(describe(parts[0], parts[1], offset)?);
    }
    if more > 0 {
        found.push(format!("and {more} more differences"));
    }
    Ok(found)
}
