//! `imgbuild lock`: asks the mirrors, and pins what they answer in `image.lock` beside the recipe.

use anyhow::Result;

use super::{context, recipe, say};
use crate::cli::{Global, Lock};
use crate::error::Fault;
use crate::recipe::{Base, human};
use crate::resolve;

/// Writes the lock.
pub fn run(options: &Lock, global: &Global) -> Result<()> {
    let context = context(global, Some(&options.image), None)?;
    let recipe = recipe(&options.image, &context)?;
    if let Base::Debian(_) = recipe.base() {
        let message = format!(
            "image `{}` takes its packages from a Debian mirror, which keeps no old ones to pin",
            recipe.image.name
        );
        return Err(Fault::user(message)
            .hint("the store keeps its last lock for --offline by itself")
            .into());
    }
    if context.offline {
        return Err(Fault::user("a lock is what the mirrors say: --offline makes no sense here")
            .hint("leave --offline out")
            .into());
    }
    let lock = resolve::ask(&recipe, &context)?;
    let path = resolve::commit(&recipe, &lock)?;
    if global.json {
        return say(&serde_json::to_string_pretty(&lock)?);
    }
    let size: u64 = lock.packages.iter().map(|package| package.size).sum();
    say(&format!("{}: {} packages, {}", path.display(), lock.packages.len(), human(size)))
}
