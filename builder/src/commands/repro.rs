//! `imgbuild repro`: builds an image twice and says whether both are the same.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;

use super::{context, recipe, say};
use crate::cli::{Global, Repro};
use crate::recipe::human;
use crate::repro::{self, Options, Report};

/// Prints the report; an error when something differs.
pub fn run(options: &Repro, global: &Global) -> Result<()> {
    let mut context = context(global, Some(&options.image), options.appliance.clone())?;
    context.layer.clone_from(&options.app);
    let recipe = recipe(&options.image, &context)?;
    let formats =
        if options.format.is_empty() { recipe.image.formats.clone() } else { options.format.clone() };
    let mut given = Vec::new();
    if let Some(tag) = &options.image.tag {
        given.extend(["--tag".to_owned(), tag.clone()]);
    }
    for set in &options.image.set {
        given.extend(["--set".to_owned(), set.clone()]);
    }
    let wanted = Options { formats, fresh: options.fresh, work: options.work.clone(), given };
    let report = repro::check(&recipe, &wanted, context)?;
    if global.json {
        say(&serde_json::to_string_pretty(&report)?)?;
    } else {
        print(&report)?;
    }
    report.require_identical()
}

fn print(report: &Report) -> Result<()> {
    for (stage, seconds) in &report.from_the_store {
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(*seconds));
        say(&format!("first      {stage} from the store, built on {date}"))?;
    }
    say(&format!("second     {}", report.perturbations.join("; ")))?;
    for file in &report.files {
        let verdict = if file.differences.is_empty() { "identical" } else { "differs" };
        say(&format!("{:<10} {:<32} {:>10}  {verdict}", file.stage, file.name, human(file.bytes)))?;
        for line in &file.differences {
            say(&format!("             {line}"))?;
        }
    }
    Ok(())
}
