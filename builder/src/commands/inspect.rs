//! `imgbuild inspect FILE`: what is in an image, as text, as JSON, as a page.

use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result};

use super::{context_without_project, say};
use crate::cli::{Global, Inspect};
use crate::error::Fault;
use crate::qemu::record::Record;
use crate::survey::{Root, Survey, html, text};
use crate::view::View;

/// Prints the survey, and writes the page where one is asked for.
pub fn run(options: &Inspect, global: &Global) -> Result<()> {
    let context = context_without_project(global)?;
    if let Some(page) = &options.html
        && let (Ok(page), Ok(image)) = (fs_err::metadata(page), fs_err::metadata(&options.file))
        && (page.dev(), page.ino()) == (image.dev(), image.ino())
    {
        return Err(Fault::user("--html names the image itself")
            .hint("name another file for the page")
            .into());
    }
    // A record that cannot be read is known before the image is opened, which takes a while.
    let record = options.boot.as_deref().map(Record::load).transpose()?;
    let view = View::open(&options.file, &context)?;
    let root = Root::read(&view, &options.file)?;
    let survey = Survey::of(&view, &root, &options.file)?;
    if let Some(path) = &options.html {
        crate::atomic::write(path, html::page(&survey, record.as_ref()).as_bytes())
            .with_context(|| format!("writing the page `{}`", path.display()))?;
    }
    if global.json {
        return say(&serde_json::to_string_pretty(&survey)?);
    }
    say(text::survey(&survey, options.all).trim_end())?;
    match &options.html {
        Some(path) => say(&format!("\nthe page is `{}`", path.display())),
        None if options.all => Ok(()),
        None => say(&format!("\n{}", text::MORE)),
    }
}
