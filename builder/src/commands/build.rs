//! `imgbuild build`.

use anyhow::Result;

use super::{context, recipe, say};
use crate::cli::{Build, Global};
use crate::error::Fault;
use crate::export::Format;
use crate::export::sign::Signer;
use crate::formats::vhd;
use crate::mastodon::package;
use crate::pipeline;
use crate::recipe::human;

/// Builds, then lists the artifacts on standard output.
pub fn run(options: &Build, global: &Global) -> Result<()> {
    let mut context = context(global, Some(&options.image), options.appliance.clone())?;
    context.layer.clone_from(&options.app);
    // Before anything is fetched or built.
    if let (Some(key), Some(chain)) = (&options.sign_key, &options.sign_cert) {
        context.signer = Some(Signer::load(key, chain)?);
    }
    let recipe = recipe(&options.image, &context)?;
    if let Some(file) = &options.app {
        if recipe.image.app.folder.is_some() {
            let message = format!(
                "--app: image `{}` carries a stand-in, no layer has a place in it",
                recipe.image.name
            );
            return Err(Fault::user(message).hint("leave --app or --image out").into());
        }
        // Before anything is fetched.
        package::head(file)?;
    }
    let wanted = if options.format.is_empty() { &recipe.image.formats } else { &options.format };
    let mut formats: Vec<Format> = Vec::new();
    for format in wanted {
        if !formats.contains(format) {
            formats.push(*format);
        }
    }
    // What an export would refuse at its end.
    if formats.contains(&Format::Ova) {
        recipe.eula()?;
    }
    if formats.contains(&Format::Vhd) {
        vhd::fits(recipe.image.disk.system.bytes())?;
        vhd::fits(recipe.image.disk.data.bytes())?;
    }
    if context.signer.is_some() && !formats.contains(&Format::Ova) {
        let message = "--sign-key: nothing that is built here can be signed, only an OVA";
        return Err(Fault::user(message).hint("add --format ova, or leave --sign-key out").into());
    }
    let built = pipeline::build(&recipe, &formats, &options.output, &context)?;
    if global.json {
        let times: Vec<_> = built
            .times
            .iter()
            .map(|time| serde_json::json!({ "stage": time.name, "seconds": time.seconds, "cached": time.cached }))
            .collect();
        let value = serde_json::json!({ "image": recipe.image.name, "tag": recipe.image.app.tag, "artifacts": built.artifacts, "stages": times });
        return say(&serde_json::to_string_pretty(&value)?);
    }
    for artifact in &built.artifacts {
        say(&format!("{}  {}", artifact.path.display(), human(artifact.bytes)))?;
    }
    Ok(())
}
