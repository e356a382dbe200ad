//! `imgbuild verify FILE`: every check on an artifact that exists.

use anyhow::Result;

use super::{context_without_project, say};
use crate::cli::{File, Global};
use crate::verify;

/// Prints a line for each check; fails when one found something.
pub fn run(options: &File, global: &Global) -> Result<()> {
    let context = context_without_project(global)?;
    let findings = verify::file(&options.file, &context)?;
    if global.json {
        say(&serde_json::to_string_pretty(&findings)?)?;
    } else {
        for finding in &findings {
            say(&format!("{:<16} {}", finding.check, if finding.wrong.is_empty() { "ok" } else { "wrong" }))?;
        }
    }
    verify::refuse(&findings)
}
