//! The stages in order: the table of contents of a build.

use std::path::Path;

use anyhow::Result;

use crate::context::{Context, StageTime, Stages};
use crate::export::{Artifact, Format};
use crate::overlay::ImageTree;
use crate::recipe::Recipe;
use crate::{app, appliance, disk, export, overlay, preflight, resolve, rootfs, verify};

/// Number of stages, for the count on the terminal.
const STAGES: usize = 9;
/// Of them, those up to the image tree.
const TREE_STAGES: usize = 5;

/// What a build gives.
pub struct Built {
    /// The files.
    pub artifacts: Vec<Artifact>,
    /// What each stage took.
    pub times: Vec<StageTime>,
}

/// From a recipe to verified artifacts in the output folder.
pub fn build(recipe: &Recipe, formats: &[Format], output: &Path, context: &Context) -> Result<Built> {
    preflight::check(recipe, formats, output, context)?;
    let mut stages = Stages::new(context.reporter.as_ref(), STAGES);
    let tree = image_tree(recipe, context, &mut stages)?;
    let disk = stages.run("disk", || disk::write(recipe, &tree, context))?;
    let verified = stages.run("verify", || Ok((verify::disk(&disk, context)?, false)))?;
    let drafts = stages.run("export", || export::write(recipe, &disk, formats, output, context))?;
    let artifacts = stages.run("read back", || {
        let read_back = verify::drafts(recipe, &drafts, &disk, &verified, context)?;
        Ok((export::publish(recipe, drafts, output, &read_back)?, false))
    })?;
    Ok(Built { artifacts, times: stages.times() })
}

/// The stages up to the image tree, for commands that need no disk.
pub fn tree(recipe: &Recipe, context: &Context) -> Result<ImageTree> {
    image_tree(recipe, context, &mut Stages::new(context.reporter.as_ref(), TREE_STAGES))
}

fn image_tree(recipe: &Recipe, context: &Context, stages: &mut Stages<'_>) -> Result<ImageTree> {
    let lock = stages.run("resolve", || resolve::resolve(recipe, context))?;
    let base = stages.run("rootfs", || rootfs::make(recipe, &lock, context))?;
    let appliance = stages.run("firstboot", || appliance::build(context))?;
    let app = stages.run("app", || app::build(recipe, &base, lock.epoch, context))?;
    let inputs = overlay::Inputs { recipe, base: &base, app: &app, appliance: &appliance, epoch: lock.epoch };
    stages.run("overlay", || overlay::lay(&inputs, context))
}
