//! `imgbuild fetch`: an image's inputs into the store, into a folder to carry, or out of one.

use anyhow::Result;

use super::{context, recipe, say};
use crate::cli::{Fetch, Global};
use crate::recipe::human;
use crate::{pipeline, transfer};

/// Fetches; exports or imports when asked to.
pub fn run(options: &Fetch, global: &Global) -> Result<()> {
    let context = context(global, Some(&options.image), options.appliance.clone())?;
    let recipe = recipe(&options.image, &context)?;
    if let Some(folder) = &options.import {
        let count = transfer::import(&recipe, folder, &context)?;
        return say(&format!(
            "{count} files are in the store; build with --offline, and with the same --key"
        ));
    }
    let (lock, inputs) = pipeline::inputs(&recipe, options.export.is_some(), &context)?;
    let Some(folder) = &options.export else {
        let bytes: u64 = lock.packages.iter().map(|package| package.size).sum();
        return say(&format!("{} packages, {}, are in the store", lock.packages.len(), human(bytes)));
    };
    let (count, bytes) = transfer::export(&recipe, &lock, &inputs, folder, &context)?;
    say(&format!("{}: {count} files, {}", folder.display(), human(bytes)))
}
