//! The rules of the formats, replayed on any OVA, VMDK or qcow2, ours or not: what other people's importers insist on.
//!
//! A rule that a file breaks is a finding, with what that does and where; a file that cannot be read from the disk is an error.
//! Members of an archive are read in place. Everything that a file says of itself has a limit, and texts of its own are shown
//! shortened and without control characters.

mod archive;
mod boot;
mod descriptor;
mod hardware;
mod manifest;
mod properties;
mod qcow2;
mod rules;
mod section;
mod stream;
mod tables;
mod vmdk_text;
mod xml;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::Result;
use fs_err as fs;
use serde::Serialize;

use self::archive::Member;
use self::descriptor::Described;
use self::section::Section;
use crate::context::Context;
use crate::formats;
use crate::formats::disk::ReadDisk;
use crate::formats::part::Part;
use crate::view::Kind;

pub use self::rules::{OVA, QCOW2, VMDK};

/// Findings of one rule that are kept; of the others only their number.
const KEPT: usize = 8;

/// How bad it is to break a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something refuses or misreads the file.
    Wrong,
    /// It works, and somebody should know.
    Note,
}

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Its name, which stays.
    pub name: &'static str,
    /// How bad it is to break it.
    pub level: Level,
    /// What it asks for.
    pub demands: &'static str,
    /// What breaking it does.
    pub why: &'static str,
}

/// What became of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Kept.
    Ok,
    /// Broken: something refuses or misreads the file.
    Wrong,
    /// Broken, and it works all the same.
    Note,
    /// Could not be looked at, since another rule is broken.
    Unchecked,
}

/// A rule and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// The rule.
    #[serde(flatten)]
    pub rule: Rule,
    /// What became of it.
    pub outcome: Outcome,
    /// Where it is broken.
    pub found: Vec<String>,
}

/// What the rules say of a file.
#[derive(Debug)]
pub struct Examined {
    /// Every rule of its format, in the order of the table.
    pub verdicts: Vec<Verdict>,
    /// Whether the disk's content is to be looked at.
    pub content: Readable,
}

/// Whether a disk's content is to be looked at.
#[derive(Debug)]
pub enum Readable {
    /// It is laid out as imgbuild's.
    Yes,
    /// A broken rule says why it cannot be, or it is not for imgbuild to judge.
    No(String),
    /// It cannot be read, and no rule says why.
    Failed(anyhow::Error),
}

/// Where a disk lies in a file.
#[derive(Debug, Clone)]
pub struct Extent {
    /// Its name in the archive.
    pub name: String,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// The verdicts while they are made.
pub(crate) struct Report {
    entries: Vec<Entry>,
}

struct Entry {
    rule: Rule,
    checked: bool,
    skipped: bool,
    left_out: bool,
    found: Vec<String>,
    more: usize,
}

impl Report {
    fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        let entry = |rule| Entry {
            rule,
            checked: false,
            skipped: false,
            left_out: false,
            found: Vec::new(),
            more: 0,
        };
        Report { entries: rules.into_iter().map(entry).collect() }
    }

    fn entry(&mut self, rule: &Rule) -> &mut Entry {
        let at = self.entries.iter().position(|entry| entry.rule.name == rule.name);
        // OK: a check of another format's rule is a slip that the tests see; it must not end a user's run.
        let at = at.unwrap_or_else(|| {
            self.entries.extend(Report::new([*rule]).entries);
            self.entries.len() - 1
        });
        &mut self.entries[at]
    }

    /// A rule is being looked at.
    fn check(&mut self, rule: &Rule) {
        self.entry(rule).checked = true;
    }

    /// Rules that cannot be looked at, in this file or one of its disks.
    fn skip(&mut self, rules: &[Rule]) {
        for rule in rules {
            self.entry(rule).skipped = true;
        }
    }

    /// A rule about something that the file has not.
    fn leave_out(&mut self, rule: &Rule) {
        self.entry(rule).left_out = true;
    }

    /// A rule is broken.
    fn breaks(&mut self, rule: &Rule, found: impl Into<String>) {
        let entry = self.entry(rule);
        entry.checked = true;
        if entry.found.len() < KEPT {
            entry.found.push(found.into());
        } else {
            entry.more += 1;
        }
    }

    fn breaks_any(&self, rules: &[Rule]) -> bool {
        self.entries
            .iter()
            .any(|entry| !entry.found.is_empty() && rules.iter().any(|rule| rule.name == entry.rule.name))
    }

    fn verdicts(self) -> Vec<Verdict> {
        let verdict = |entry: Entry| {
            let outcome = match (entry.found.is_empty(), entry.rule.level) {
                (false, Level::Wrong) => Outcome::Wrong,
                (false, Level::Note) => Outcome::Note,
                _ if entry.skipped || !entry.checked => Outcome::Unchecked,
                _ => Outcome::Ok,
            };
            let mut found = entry.found;
            if entry.more > 0 {
                found.push(format!("and {} more", entry.more));
            }
            Verdict { rule: entry.rule, outcome, found }
        };
        let entries = self.entries.into_iter();
        entries.filter(|entry| !entry.left_out || !entry.found.is_empty()).map(verdict).collect()
    }
}

/// Replays every rule of the file's format; a raw disk has none.
pub fn examine(path: &Path, kind: Kind, context: &Context) -> Result<Examined> {
    let file = fs::File::open(path)?;
    let whole = Section::new(&file, file.metadata()?.len());
    let mut report = Report::new(match kind {
        Kind::Raw => Vec::new(),
        Kind::Ova => [OVA, VMDK].concat(),
        Kind::Vmdk => VMDK.to_vec(),
        Kind::Qcow2 => QCOW2.to_vec(),
    });
    let part = Part::whole(fs::File::open(path)?)?;
    let disk = match kind {
        // A raw disk is imgbuild's to judge: it has nothing but content.
        Kind::Raw => return Ok(Examined { verdicts: Vec::new(), content: Readable::Yes }),
        Kind::Ova => ova(&whole, &part, &mut report)?,
        Kind::Vmdk => {
            stream::check(&whole, "", false, &mut report)?;
            Some(formats::vmdk::read::open(part))
        }
        Kind::Qcow2 => {
            qcow2::check(&whole, path, context, &mut report)?;
            Some(formats::qcow2::read::open(part))
        }
    };
    let judged = if report.breaks_any(rules::UNREADABLE) {
        Readable::No("a broken rule keeps the disk from being read".to_owned())
    } else {
        readable(disk)
    };
    Ok(Examined { verdicts: report.verdicts(), content: judged })
}

/// `disk` is the first one, nothing where there is none.
fn readable(disk: Option<Result<Box<dyn ReadDisk>>>) -> Readable {
    match disk.map(|disk| boot::is_ours(disk?.as_mut())) {
        Some(Ok(true)) => Readable::Yes,
        Some(Err(error)) => Readable::Failed(error),
        Some(Ok(false)) | None => Readable::No(
            "the disk has no root partition as imgbuild makes it; for such a disk the rules are the whole answer"
                .to_owned(),
        ),
    }
}

/// The disks of an OVA in the order of its archive, without judging anything.
pub fn disks_of(path: &Path) -> Result<Vec<Extent>> {
    let file = fs::File::open(path)?;
    let members =
        archive::read(&Section::new(&file, file.metadata()?.len()), &mut Report::new(OVA.iter().copied()))?;
    // As whoever opens an OVA for its files looks for them; that this is no name for a disk, the rules say.
    let disks = members.into_iter().filter(|member| member.name.to_ascii_lowercase().ends_with(".vmdk"));
    Ok(disks.map(|member| Extent { name: member.name, offset: member.offset, length: member.size }).collect())
}

/// The rules of an OVA and of its disks; answers the first disk, or why one of them cannot be read. `part` is the same file.
fn ova(whole: &Section<'_>, part: &Part, report: &mut Report) -> Result<Option<Result<Box<dyn ReadDisk>>>> {
    let members = archive::read(whole, report)?;
    manifest::check(whole, &members, report)?;
    let described = describe(whole, &members, report)?;
    let uses = described.as_ref().map_or_else(|| undescribed(&members), |described| described.disks.clone());
    let mut boots = Vec::new();
    let mut first = None;
    for (index, disk) in uses.iter().enumerate() {
        let Some(content) = whole.part(disk.member.offset, disk.member.size) else { continue };
        let label = format!("`{}`: ", shown(&disk.member.name));
        let Some(size) = stream::check(&content, &label, disk.ide, report)? else { continue };
        if let Some(capacity) = disk.capacity.filter(|capacity| *capacity < size) {
            let message = format!("{label}the descriptor gives it {capacity} bytes, and it has {size}");
            report.breaks(&rules::CAPACITY, message);
        }
        let name = format!("{}: its member `{}`", part.name(), shown(&disk.member.name));
        let opened =
            part.within(disk.member.offset, disk.member.size, name).and_then(formats::vmdk::read::open);
        match opened {
            Ok(mut opened) => {
                boots.extend(boot::boots(opened.as_mut()));
                if index == 0 {
                    first = Some(Ok(opened));
                }
            }
            Err(error) => first = Some(Err(error)),
        }
    }
    if let Some(described) = described {
        firmware(described.firmware.as_deref(), &boots, report);
    }
    Ok(first)
}

/// Reads the descriptor and applies its rules; `None` when it cannot be read.
fn describe(whole: &Section<'_>, members: &[Member], report: &mut Report) -> Result<Option<Described>> {
    report.check(&rules::DESCRIPTOR);
    let mut descriptors = members.iter().filter(|member| member.is("ovf"));
    let (Some(descriptor), None) = (descriptors.next(), descriptors.next()) else {
        report.breaks(&rules::DESCRIPTOR, "there is not exactly one `.ovf` in the archive");
        return Ok(None);
    };
    let name = shown(&descriptor.name);
    if descriptor.size > xml::LIMIT {
        report.breaks(&rules::DESCRIPTOR, format!("`{name}` is larger than {} MiB", xml::LIMIT >> 20));
        return Ok(None);
    }
    let length = usize::try_from(descriptor.size).unwrap_or_default();
    let bytes = whole.bytes(descriptor.offset, length)?.unwrap_or_default();
    match xml::parse(&bytes) {
        Ok(envelope) => Ok(Some(descriptor::check(&envelope, members, report))),
        Err(reason) => {
            report.breaks(&rules::DESCRIPTOR, format!("`{name}`: {reason}"));
            Ok(None)
        }
    }
}

/// Without a descriptor, every file that is called a disk.
fn undescribed(members: &[Member]) -> Vec<descriptor::DiskUse> {
    let disks = members.iter().filter(|member| member.is("vmdk"));
    disks.map(|member| descriptor::DiskUse { member: member.clone(), capacity: None, ide: false }).collect()
}

fn firmware(stated: Option<&str>, boots: &[boot::Boots], report: &mut Report) {
    report.check(&rules::FIRMWARE);
    let fits: fn(&boot::Boots) -> bool = match stated.unwrap_or("bios") {
        "bios" => |boots| boots.bios,
        "efi" => |boots| boots.efi,
        other => {
            report.breaks(&rules::FIRMWARE, format!("the firmware is `{}`", shown(other)));
            return;
        }
    };
    if !boots.is_empty() && !boots.iter().any(fits) {
        let lacks = if stated == Some("efi") { "an EFI system partition" } else { "boot code for a BIOS" };
        report.breaks(
            &rules::FIRMWARE,
            format!("the firmware is `{}`, and no disk has {lacks}", stated.unwrap_or("bios")),
        );
    }
}

/// A stranger's text as it may stand in a message: short, and nothing that moves the cursor.
fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(120).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
        .chars()
        .flat_map(|letter| {
            if letter == '"' || letter == '\'' { vec![letter] } else { letter.escape_debug().collect() }
        })
        .collect()
}
