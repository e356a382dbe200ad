//! The stages in order: the table of contents of a build.

use std::path::Path;

use anyhow::Result;

use crate::app::AppLayer;
use crate::appliance::Appliance;
use crate::context::{Context, StageTime, Stages};
use crate::export::{Artifact, Format};
use crate::overlay::ImageTree;
use crate::project::Project;
use crate::recipe::{Base, Recipe};
use crate::resolve::Lock;
use crate::rootfs::BaseTree;
use crate::store::Store;
use crate::transfer::Inputs;
use crate::{app, appliance, atomic, disk, export, overlay, preflight, resolve, rootfs, verify};

/// Number of stages, for the count on the terminal.
const STAGES: usize = 10;
/// Of them, those up to the image tree.
const TREE_STAGES: usize = 6;

/// Stages of `inputs`, without the guest's program.
const INPUT_STAGES: usize = 3;

/// Stages of the application's layer alone.
const APPLICATION_STAGES: usize = 4;

/// What a build gives.
pub struct Built {
    /// The files.
    pub artifacts: Vec<Artifact>,
    /// What each stage took.
    pub times: Vec<StageTime>,
}

/// From a recipe to verified artifacts in the output folder.
pub fn build(recipe: &Recipe, formats: &[Format], output: &Path, context: &Context) -> Result<Built> {
    for part in atomic::sweep(output)? {
        context.reporter.note(&format!("removed `{}`, left by a run that was killed", part.display()));
    }
    preflight::check(recipe, context)?;
    let mut stages = Stages::new(context.reporter.as_ref(), STAGES);
    let tree = image_tree(recipe, context, &mut stages, |lock, sources| {
        let forecast = preflight::forecast(recipe, lock, Some(sources.bytes(context)), formats, context)?;
        forecast.map_or(Ok(()), |forecast| forecast.require(output, context))
    })?;
    let disk = stages.run("disk", || disk::write(recipe, &tree, context))?;
    let verified = stages.run("verify", || Ok((verify::disk(&disk, context)?, false)))?;
    let drafts = stages.run("export", || {
        // Never from the store.
        Ok((export::write(recipe, &disk, formats, output, context)?, false))
    })?;
    let artifacts = stages.run("read back", || {
        let read_back = verify::drafts(recipe, &drafts, &disk, &verified, context)?;
        Ok((export::publish(recipe, drafts, output, &read_back)?, false))
    })?;
    Ok(Built { artifacts, times: stages.times() })
}

/// The stages up to the image tree, for commands that need no disk.
pub fn tree(recipe: &Recipe, context: &Context) -> Result<ImageTree> {
    image_tree(recipe, context, &mut Stages::new(context.reporter.as_ref(), TREE_STAGES), |_, _| Ok(()))
}

/// What a build takes from the network, brought into the store; with the guest's program when all is to be carried away.
pub fn inputs(recipe: &Recipe, with_program: bool, context: &Context) -> Result<(Lock, Inputs)> {
    let mut stages = Stages::new(context.reporter.as_ref(), INPUT_STAGES + usize::from(with_program));
    let lock = stages.run("resolve", || resolve::resolve(recipe, context))?;
    let sources = stages.run("sources", || app::gather(recipe, &lock, context))?;
    let mut inputs = Inputs { entries: sources.entries(), ..Inputs::default() };
    match recipe.base() {
        Base::Rpm(base) => {
            let packages: Vec<_> = lock.packages.iter().collect();
            stages.run("packages", || {
                Ok((rootfs::rpm::verified(base, recipe, &lock, &packages, context)?, false))
            })?;
            inputs.files.extend(
                packages.iter().map(|package| (package.sha256.clone(), package.file_name().to_owned())),
            );
        }
        Base::Debian(_) => {
            let base = stages.run("rootfs", || rootfs::make(recipe, &lock, context))?;
            inputs.entries.push(("rootfs-v1", base.key().clone()));
        }
    }
    if with_program {
        let appliance = stages.run("firstboot", || appliance::build(context))?;
        // One that was given is wherever it was given.
        if context.appliance.is_none() {
            inputs.entries.push(("appliance-v1", appliance.key().clone()));
        }
    }
    Ok((lock, inputs))
}

/// The application's layer alone, to carry to another machine.
pub fn application(recipe: &Recipe, context: &Context) -> Result<AppLayer> {
    let mut stages = Stages::new(context.reporter.as_ref(), APPLICATION_STAGES);
    let lock = stages.run("resolve", || resolve::resolve(recipe, context))?;
    let sources = stages.run("sources", || app::gather(recipe, &lock, context))?;
    let base = stages.run("rootfs", || rootfs::make(recipe, &lock, context))?;
    stages.run("app", || app::build(recipe, &sources, &base, &lock, context))
}

/// The base tree of an image's last build, out of the store; the folder is the project's.
pub fn base_tree(project: &Path, image: &str) -> Result<BaseTree> {
    let context = Context::of_store(Project::find(Some(project))?, Store::open(&Store::default_root())?)?;
    let recipe = Recipe::load(&context.project.image(image)?, None, &[])?;
    let (lock, _) = resolve::resolve(&recipe, &context)?;
    Ok(rootfs::make(&recipe, &lock, &context)?.0)
}

/// The guest's program as the last build took it, out of the store; the folder is the project's.
pub fn guest_program(project: &Path) -> Result<Appliance> {
    let context = Context::of_store(Project::find(Some(project))?, Store::open(&Store::default_root())?)?;
    Ok(appliance::build(&context)?.0)
}

/// `before` hears what is known when the slow part is about to begin.
fn image_tree(
    recipe: &Recipe,
    context: &Context,
    stages: &mut Stages<'_>,
    before: impl FnOnce(&Lock, &app::Sources) -> Result<()>,
) -> Result<ImageTree> {
    let lock = stages.run("resolve", || resolve::resolve(recipe, context))?;
    let sources = stages.run("sources", || app::gather(recipe, &lock, context))?;
    before(&lock, &sources)?;
    let base = stages.run("rootfs", || rootfs::make(recipe, &lock, context))?;
    let appliance = stages.run("firstboot", || appliance::build(context))?;
    let app = stages.run("app", || app::build(recipe, &sources, &base, &lock, context))?;
    let inputs = overlay::Inputs { recipe, base: &base, app: &app, appliance: &appliance, lock: &lock };
    stages.run("overlay", || overlay::lay(&inputs, context))
}
