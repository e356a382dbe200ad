//! `imgbuild clean`: removes every entry of the store; the next build makes them anew. What stages have made stays while a run uses it.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use super::{context_without_project, say};
use crate::cli::{Clean, Global};
use crate::recipe::human;

/// Removes (or lists) the entries.
pub fn run(options: &Clean, global: &Global) -> Result<()> {
    let context = context_without_project(global)?;
    let mut entries = Vec::new();
    for (path, bytes) in context.store.entries()? {
        let went = options.dry_run || context.store.remove_unused(&path)?;
        if !global.json {
            let used = if went { "" } else { "  kept: another run uses it" };
            say(&format!("{}  {}{used}", path.display(), human(bytes)))?;
        }
        if went {
            entries.push((path, bytes));
        }
    }
    let total: u64 = entries.iter().map(|(_, bytes)| bytes).sum();
    if global.json {
        let entry = |(path, bytes): &(PathBuf, u64)| json!({ "path": path, "bytes": bytes });
        let entries: Vec<_> = entries.iter().map(entry).collect();
        let document = json!({ "entries": entries, "bytes": total, "removed": !options.dry_run });
        return say(&serde_json::to_string_pretty(&document)?);
    }
    say(&format!("{} {}", human(total), if options.dry_run { "would be freed" } else { "freed" }))
}
