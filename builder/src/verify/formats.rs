//! What other programs say of an artifact that a build wrote. What they say is a finding; a program that is missing, was killed or
//! could not do its work is an error.

use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::Result;

use super::package;
use crate::context::Context;
use crate::exec::Run;
use crate::qemu::medium::part_of;

/// How `qemu-img compare` ends when the disks differ; beyond that it could not compare them.
const DIFFERENT: RangeInclusive<i32> = 1..=1;

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
        let within = Run::new(&context.log, "qemu-img").args(["compare", "-f", "vmdk", "-F", "raw"]);
        let differs = within.arg(part_of(path, disk.offset, disk.length)).arg(source).judge(DIFFERENT)?;
        wrong.extend(differs);
    }
    Ok(wrong)
}

/// Every byte of a disk against its source.
pub fn compare(path: &Path, format: &str, source: &Path, context: &Context) -> Result<Option<String>> {
    let whole = Run::new(&context.log, "qemu-img").args(["compare", "-f", format, "-F", "raw"]);
    whole.arg(path).arg(source).judge(DIFFERENT)
}
