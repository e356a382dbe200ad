//! What other programs say of an artifact that a build wrote. A program that is missing is an error; what it says is a finding.

use std::path::Path;

use anyhow::Result;

use super::package;
use crate::context::Context;
use crate::exec::Run;
use crate::qemu::medium::part_of;

/// An OVA: its members as GNU tar lists them, and its disks against their sources, in place.
pub fn package(path: &Path, sources: &[&Path], context: &Context) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let disks = package::disks_of(path)?;
    let listed = Run::new(&context.log, "tar").arg("-tf").arg(path).capture()?;
    let listed: Vec<&str> = listed.lines().filter(|name| name.ends_with(".vmdk")).collect();
    if listed != disks.iter().map(|disk| disk.name.as_str()).collect::<Vec<_>>() {
        wrong.push("GNU tar lists other disks than we do".to_owned());
    }
    if disks.len() != sources.len() {
        wrong.push(format!("it has {} disks", disks.len()));
    }
    for (disk, source) in disks.iter().zip(sources) {
        let within = Run::new(&context.log, "qemu-img").args(["compare", "-q", "-f", "vmdk", "-F", "raw"]);
        run(within.arg(part_of(path, disk.offset, disk.length)).arg(source), &mut wrong);
    }
    Ok(wrong)
}

/// Every byte of a disk against its source.
pub fn compare(path: &Path, format: &str, source: &Path, context: &Context, wrong: &mut Vec<String>) {
    let whole = Run::new(&context.log, "qemu-img").args(["compare", "-q", "-f", format, "-F", "raw"]);
    run(whole.arg(path).arg(source), wrong);
}

fn run(command: Run<'_>, wrong: &mut Vec<String>) {
    if let Err(error) = command.run() {
        wrong.push(format!("{error:#}"));
    }
}
