//! `imgbuild plan`: the resolved recipe and what a build would do, without doing it.

use anyhow::Result;

use super::{context, recipe, say};
use crate::cli::{Global, Plan};
use crate::recipe::human;
use crate::resolve;

/// Prints the plan; touches no network.
pub fn run(options: &Plan, global: &Global) -> Result<()> {
    let context = context(global, Some(&options.image), None)?;
    let recipe = recipe(&options.image, &context)?;
    crate::overlay::require(&recipe, &context)?;
    let mirrors = resolve::wanted(&recipe, &context)?;
    if global.json {
        let value =
            serde_json::json!({ "recipe": recipe.image, "mirrors": mirrors, "store": context.store.root() });
        return say(&serde_json::to_string_pretty(&value)?);
    }
    let image = &recipe.image;
    say(&format!("image      {} ({})", image.name, image.title))?;
    say(&format!("tag        {}", image.app.tag))?;
    for (uri, suite) in mirrors {
        say(&format!("packages   {uri} {suite}"))?;
    }
    say(&format!("           {} named: {}", image.debian.packages.len(), image.debian.packages.join(" ")))?;
    say(&format!("overlays   {}", image.overlays.join(" ")))?;
    say(&format!("machine    {} CPUs, {} memory", image.machine.cpus, image.machine.memory))?;
    say(&format!("disks      system {}, data {}", image.disk.system, image.disk.data))?;
    say(&format!(
        "formats    {}",
        image.formats.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    ))?;
    let kept: u64 = context.store.entries()?.iter().map(|(_, bytes)| bytes).sum();
    say(&format!("store      {} ({} kept)", context.store.root().display(), human(kept)))
}
