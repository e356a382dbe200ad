//! `imgbuild diff A B`: what two images differ in. Exit code 0 when in nothing, 1 when they differ, 2 when they could not be compared.

use anyhow::Result;

use super::{context_without_project, say};
use crate::cli::{Diff, Global};
use crate::error::{Answer, as_trouble};
use crate::survey::difference::{Difference, Side};
use crate::survey::text;
use crate::view::View;

/// Prints the difference.
pub fn run(options: &Diff, global: &Global) -> Result<()> {
    let difference = compare(options, global).map_err(as_trouble)?;
    if global.json {
        say(&serde_json::to_string_pretty(&difference)?)?;
    } else {
        say(text::difference(&difference, options.all).trim_end())?;
    }
    if difference.is_none() { Ok(()) } else { Err(Answer(1).into()) }
}

fn compare(options: &Diff, global: &Global) -> Result<Difference> {
    let context = context_without_project(global)?;
    // Both names are checked before the first image is read, which takes a while.
    crate::view::kind(&options.before)?;
    crate::view::kind(&options.after)?;
    let mut before = Side::read(View::open(&options.before, &context)?, &options.before)?;
    let mut after = Side::read(View::open(&options.after, &context)?, &options.after)?;
    Difference::between(&mut before, &mut after)
}
