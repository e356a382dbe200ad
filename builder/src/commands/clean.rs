//! `imgbuild clean`: removes every entry of the store; the next build makes them anew.

use anyhow::Result;

use super::{context_without_project, say};
use crate::cli::{Clean, Global};
use crate::recipe::human;

/// Removes (or lists) the entries.
pub fn run(options: &Clean, global: &Global) -> Result<()> {
    let context = context_without_project(global)?;
    let mut total = 0;
    for (path, bytes) in context.store.entries()? {
        say(&format!("{}  {}", path.display(), human(bytes)))?;
        total += bytes;
        if options.dry_run {
            continue;
        }
        context.store.remove(&path)?;
    }
    say(&format!("{} {}", human(total), if options.dry_run { "would be freed" } else { "freed" }))
}
