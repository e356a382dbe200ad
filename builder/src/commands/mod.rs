//! One file per subcommand. Data goes to standard output, everything else to standard error.

mod app;
mod boot;
mod build;
mod clean;
mod diff;
mod doctor;
mod fetch;
mod inspect;
mod lock;
mod plan;
mod repro;
mod shell;
mod smoke;
mod verify;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use fs_err as fs;

use crate::cli::{Cli, Command, Global, Image};
use crate::context::Context;
use crate::error::Fault;
use crate::exec::Log;
use crate::mastodon::tags::Table;
use crate::project::Project;
use crate::recipe::Recipe;
use crate::rpm::TrustedKey;
use crate::store::Store;

/// Logs of this many runs are kept.
const LOGS_KEPT: usize = 20;

/// Runs the parsed command.
pub fn run(cli: Cli) -> Result<()> {
    let global = &cli.global;
    match cli.command {
        Command::Build(options) => build::run(&options, global),
        Command::Plan(options) => plan::run(&options, global),
        Command::App(options) => app::run(&options, global),
        Command::Lock(options) => lock::run(&options, global),
        Command::Fetch(options) => fetch::run(&options, global),
        Command::Boot(options) => boot::run(&options, global),
        Command::Smoke(options) => smoke::run(&options, global),
        Command::Shell(options) => shell::run(&options, global),
        Command::Inspect(options) => inspect::run(&options, global),
        Command::Diff(options) => diff::run(&options, global),
        Command::Verify(options) => verify::run(&options, global),
        Command::Repro(options) => repro::run(&options, global),
        Command::Doctor => doctor::run(global),
        Command::Clean(options) => clean::run(&options, global),
    }
}

/// A line of data.
pub(crate) fn say(text: &str) -> Result<()> {
    use std::io::Write as _;
    match writeln!(std::io::stdout(), "{text}") {
        // `imgbuild inspect … | head` is no error.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("writing to standard output"),
    }
}

/// The context for a command that needs recipes.
pub(crate) fn context(global: &Global, image: Option<&Image>, appliance: Option<PathBuf>) -> Result<Context> {
    let project = Project::find(global.project.as_deref())?;
    context_in(project, global, image, appliance)
}

/// The context for a command that only reads a file: any folder will do as the project.
pub(crate) fn context_without_project(global: &Global) -> Result<Context> {
    let project = Project::find(global.project.as_deref()).unwrap_or_else(|_| Project::none());
    context_in(project, global, None, None)
}

fn context_in(
    project: Project,
    global: &Global,
    image: Option<&Image>,
    appliance: Option<PathBuf>,
) -> Result<Context> {
    let root = Store::default_root();
    let store = Store::open(&root).map_err(|error| {
        Fault::environment(format!("the store cannot be used: {error:#}"))
            .hint("name another folder with IMGBUILD_STORE")
    })?;
    let log = new_log(&store)?;
    crate::sandbox::sweep(&store, &log)?;
    let mirrors = mirrors(image.map_or(&[], |image| &image.mirror))?;
    let keys = keys(image.map_or(&[], |image| &image.key))?;
    let reporter = crate::report::choose(global.quiet, global.no_progress);
    Ok(Context {
        store,
        project,
        reporter,
        log,
        offline: image.is_some_and(|image| image.offline),
        mirrors,
        keys,
        appliance,
        source: image.and_then(|image| image.source.clone()),
        layer: None,
        signer: None,
    })
}

/// `--mirror NAME=URL`; whether the image has such an archive is known once its recipe is read.
fn mirrors(given: &[String]) -> Result<Vec<(String, String)>> {
    let mut mirrors = Vec::new();
    for mirror in given {
        let pair = mirror.split_once('=').filter(|(name, url)| !name.is_empty() && url.contains("://"));
        let (name, url) = pair.ok_or_else(|| {
            Fault::user(format!("--mirror `{mirror}` is not NAME=URL")).hint(
                "such as --mirror centos=file:///srv/centos or --mirror debian=http://mirror.example/debian",
            )
        })?;
        crate::fetch::refuse_login(url, &format!("--mirror {name}"))?;
        mirrors.push((name.to_owned(), url.to_owned()));
    }
    Ok(mirrors)
}

/// `--key NAME=FILE`: the user vouches for the file, so its own fingerprint is the one to trust.
fn keys(given: &[String]) -> Result<Vec<(String, TrustedKey)>> {
    let mut keys = Vec::new();
    for key in given {
        let (name, file) = key
            .split_once('=')
            .filter(|(name, file)| !name.is_empty() && !file.is_empty())
            .ok_or_else(|| {
                Fault::user(format!("--key `{key}` is not NAME=FILE"))
                    .hint("write --key centos=my-mirror.asc")
            })?;
        let file = PathBuf::from(file);
        let fingerprint = crate::rpm::signature::fingerprint(&file)?;
        keys.push((name.to_owned(), TrustedKey { file: fs::canonicalize(file)?, fingerprint, sha1: false }));
    }
    Ok(keys)
}

/// Refuses a `--mirror` or `--key` for an archive that the image does not use.
fn require_archives(recipe: &Recipe, context: &Context) -> Result<()> {
    let known = recipe.archives();
    let given = context.mirrors.iter().map(|(name, _)| ("mirror", name));
    let keys = context.keys.iter().map(|(name, _)| ("key", name));
    for (option, name) in given.chain(keys) {
        if !known.contains(&name.as_str()) {
            let message = format!("--{option} `{name}`: image `{}` has no such archive", recipe.image.name);
            return Err(Fault::user(message).hint(format!("known: {}", known.join(", "))).into());
        }
    }
    Ok(())
}

/// `--tag 1.6.1` is a slip, not a tag that nobody knows.
fn refuse_bare_number(tag: Option<&str>) -> Result<()> {
    let Some(tag) = tag.filter(|tag| tag.starts_with(|first: char| first.is_ascii_digit())) else {
        return Ok(());
    };
    Err(Fault::user(format!("--tag `{tag}`: Mastodon's tags begin with a `v`"))
        .hint(format!("--tag v{tag}"))
        .into())
}

fn new_log(store: &Store) -> Result<Log> {
    let folder = store.root().join("logs");
    // Ours alone, oldest first, and none of a run that is still writing.
    let own = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(".log"));
        stem.and_then(|stem| stem.rsplit_once('-')).is_some_and(|(rest, pid)| {
            let known = rest == "look-up" || rest.starts_with(|first: char| first.is_ascii_digit());
            known && pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()
        })
    };
    let changed = |entry: &fs::DirEntry| entry.metadata().and_then(|meta| meta.modified()).ok();
    let mut old: Vec<fs::DirEntry> = fs::read_dir(&folder)?.flatten().filter(own).collect();
    old.sort_by_key(changed);
    for entry in old.iter().take(old.len().saturating_sub(LOGS_KEPT - 1)) {
        let _ = fs::remove_file(entry.path());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Log::create(&folder.join(format!(
        "{}-{:06}-{}.log",
        now.as_secs(),
        now.subsec_micros(),
        std::process::id()
    )))
}

/// The recipe that the options name; without `--image`, the one that the tag is for.
pub(crate) fn recipe(image: &Image, context: &Context) -> Result<Recipe> {
    let tag = image.tag.as_deref();
    let folder = if let Some(name) = &image.image {
        context.project.image(name)?
    } else {
        context.project.image(Table::load(&context.project.mastodon())?.image(tag))?
    };
    refuse_bare_number(tag)?;
    let recipe = Recipe::load(&folder, tag, &image.set)?;
    require_archives(&recipe, context)?;
    Ok(recipe)
}
