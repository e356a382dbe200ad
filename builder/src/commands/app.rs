//! `imgbuild app export FILE`: the application's layer, for a machine that cannot build it.

use anyhow::Result;

use super::{context, recipe, say};
use crate::cli::{App, AppVerb, Global};
use crate::error::Fault;
use crate::mastodon::package;
use crate::pipeline;

/// Builds the layer as far as it is not in the store, then writes the file.
pub fn run(options: &App, global: &Global) -> Result<()> {
    let AppVerb::Export(options) = &options.verb;
    let context = context(global, Some(&options.image), None)?;
    let recipe = recipe(&options.image, &context)?;
    if recipe.image.app.folder.is_some() {
        let message = format!("image `{}` carries a stand-in, which every builder has", recipe.image.name);
        return Err(Fault::user(message).into());
    }
    let layer = pipeline::application(&recipe, &context)?;
    let record = package::export(layer.tar(), &options.file)?;
    say(&format!("{}: Mastodon {} for {}", options.file.display(), record.tag, record.base))
}
