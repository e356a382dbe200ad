//! One file per subcommand. Data goes to standard output, everything else to standard error.

mod boot;
mod build;
mod clean;
mod doctor;
mod inspect;
mod plan;
mod shell;
mod smoke;
mod verify;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use fs_err as fs;

use crate::cli::{Cli, Command, Global, Image};
use crate::context::Context;
use crate::error::Fault;
use crate::exec::Log;
use crate::project::Project;
use crate::recipe::Recipe;
use crate::store::Store;

/// Logs of this many runs are kept.
const LOGS_KEPT: usize = 20;

/// Runs the parsed command.
pub fn run(cli: Cli) -> Result<()> {
    let global = &cli.global;
    match cli.command {
        Command::Build(options) => build::run(&options, global),
        Command::Plan(options) => plan::run(&options, global),
        Command::Boot(options) => boot::run(&options, global),
        Command::Smoke(options) => smoke::run(&options, global),
        Command::Shell(options) => shell::run(&options, global),
        Command::Inspect(options) => inspect::run(&options, global),
        Command::Verify(options) => verify::run(&options, global),
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
    let mut mirrors = Vec::new();
    for mirror in image.map_or(&[][..], |image| &image.mirror) {
        let pair = mirror.split_once('=').filter(|(name, url)| !name.is_empty() && url.contains("://"));
        let (name, url) = pair.ok_or_else(|| {
            Fault::user(format!("--mirror `{mirror}` is not NAME=URL"))
                .hint("write --mirror debian=http://mirror.example/debian")
        })?;
        if !["debian", "debian-security"].contains(&name) {
            return Err(Fault::user(format!("--mirror `{name}`: no such archive"))
                .hint("known: debian, debian-security")
                .into());
        }
        if url
            .split_once("://")
            .is_some_and(|(_, rest)| rest.split('/').next().is_some_and(|host| host.contains('@')))
        {
            let message =
                format!("--mirror {name}: the URL holds a login, which would be readable in the image");
            return Err(Fault::user(message)
                .hint("let the mirror in by address, or use a local copy")
                .into());
        }
        mirrors.push((name.to_owned(), url.to_owned()));
    }
    let reporter = crate::report::choose(global.quiet, global.no_progress);
    Ok(Context {
        store,
        project,
        reporter,
        log,
        offline: image.is_some_and(|image| image.offline),
        mirrors,
        appliance,
    })
}

fn new_log(store: &Store) -> Result<Log> {
    let folder = store.root().join("logs");
    let mut old: Vec<PathBuf> = fs::read_dir(&folder)?.flatten().map(|entry| entry.path()).collect();
    old.sort();
    for path in old.iter().take(old.len().saturating_sub(LOGS_KEPT - 1)) {
        let _ = fs::remove_file(path);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Log::create(&folder.join(format!(
        "{}-{:06}-{}.log",
        now.as_secs(),
        now.subsec_micros(),
        std::process::id()
    )))
}

/// The recipe that the options name.
pub(crate) fn recipe(image: &Image, context: &Context) -> Result<Recipe> {
    let recipe = Recipe::load(&context.project.image(&image.image)?, &image.set)?;
    if let Some(tag) = &image.tag {
        recipe.require_tag(tag)?;
    }
    Ok(recipe)
}
