//! What is on a disk, and what follows from it: use it, format it, or ask.
//!
//! Guarantee: [`Decision::Format`] is reached only for a disk that is provably blank, or that carries the mark of a format which we
//! ourselves began and which never came to its end.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::disks::Disk;
use super::filesystem::{LABEL, has_mark};
use crate::exec::Run;

/// What must be zero at the end of a disk before it counts as blank.
const EDGE: u64 = 1 << 20;
/// The same at its start: partition tables, file systems, and the start of a first partition.
const START: u64 = 4 << 20;
/// How far apart it is looked at between: ext4 repeats its superblock at such places, also behind the first MiB of a partition table, so a
/// disk whose start was lost or wiped is not taken for a blank one.
const STRIDE: u64 = 128 << 20;
/// What is read there.
const SAMPLE: u64 = 4 << 10;

/// What is on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Our finished data disk.
    Ours,
    /// A format of ours that was cut.
    Unfinished,
    /// Nothing at all.
    Blank,
    /// Somebody else's, without interest for us: a configuration volume.
    Volume,
    /// Anything else; the text completes "the disk …".
    Foreign(String),
}

/// What to do about the data disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// There is none: state stays on the system disk.
    SystemDisk,
    /// Use this one.
    Use(Disk),
    /// Format this one first.
    Format(Disk),
    /// A person must decide.
    Ask(String),
}

/// What follows from the disks found. `was_used` says that this system disk has kept its state on a data disk before.
pub fn decide(disks: &[(Disk, Content)], was_used: bool) -> Decision {
    let with = |wanted: &Content| -> Vec<&Disk> {
        disks.iter().filter(|(_, content)| content == wanted).map(|(disk, _)| disk).collect()
    };
    match (with(&Content::Ours).as_slice(), with(&Content::Unfinished).as_slice()) {
        ([disk], _) => return Decision::Use((*disk).clone()),
        ([], [disk]) if !was_used => return Decision::Format((*disk).clone()),
        ([], _) => {}
        (several, _) => {
            return Decision::Ask(format!(
                "which disk is this machine's data disk? {} all have the label `{LABEL}`: leave one attached and reboot",
                names(several)
            ));
        }
    }
    let foreign = disks.iter().find_map(|(disk, content)| match content {
        Content::Foreign(what) => Some((disk, what)),
        _ => None,
    });
    if was_used {
        let seen =
            foreign.map(|(disk, what)| format!("; `{}` {what}", disk.device.display())).unwrap_or_default();
        return Decision::Ask(format!(
            "where is the data disk? this system keeps its state on a disk with the label `{LABEL}`, and none is \
             attached{seen}: attach it and reboot"
        ));
    }
    match (with(&Content::Blank).as_slice(), foreign) {
        ([disk], _) => Decision::Format((*disk).clone()),
        ([], None) => Decision::SystemDisk,
        ([], Some((disk, what))) => Decision::Ask(format!(
            "is `{}` the data disk? it {what}, so it was not touched: detach it, or attach an empty disk in its place, and run \
             `appliance retry`",
            disk.device.display()
        )),
        (several, _) => Decision::Ask(format!(
            "which disk shall become the data disk? {} are all empty: leave one attached and run `appliance retry`",
            names(several)
        )),
    }
}

fn names(disks: &[&Disk]) -> String {
    let names: Vec<String> = disks.iter().map(|disk| format!("`{}`", disk.device.display())).collect();
    names.join(", ")
}

/// Looks at a disk, without changing it.
pub fn probe(device: &Path, bytes: u64) -> Result<Content> {
    let output = Run::new("blkid", &["-p", "-o", "export", "--", &device.to_string_lossy()]).output()?;
    let signature = match output.code {
        0 => Signature::parse(&output.stdout),
        2 => Signature::default(),
        8 => Signature { unclear: true, ..Signature::default() },
        code => {
            bail!("`blkid` cannot read `{}`: exit code {code}: {}", device.display(), output.stderr.trim())
        }
    };
    let file = fs_err::File::open(device)?;
    let blank = signature == Signature::default() && is_blank(file.file(), bytes)?;
    Ok(classify(&signature, has_mark(file.file(), bytes)?, blank))
}

/// What `blkid -p` recognised.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Signature {
    kind: String,
    label: String,
    table: String,
    unclear: bool,
}

impl Signature {
    fn parse(export: &str) -> Signature {
        let mut signature = Signature::default();
        for (key, value) in export.lines().filter_map(|line| line.split_once('=')) {
            match key {
                "TYPE" => value.clone_into(&mut signature.kind),
                "LABEL" => value.clone_into(&mut signature.label),
                "PTTYPE" => value.clone_into(&mut signature.table),
                _ => {}
            }
        }
        signature
    }
}

fn classify(signature: &Signature, marked: bool, blank: bool) -> Content {
    let ours = signature.kind == "ext4" && signature.label == LABEL && signature.table.is_empty();
    let nothing_else = ours || *signature == Signature::default();
    match (marked, ours) {
        (true, _) if nothing_else => Content::Unfinished,
        (false, true) => Content::Ours,
        _ if blank && !marked => Content::Blank,
        _ if signature.kind == "iso9660"
            || ["CIDATA", "MASTODON"].contains(&signature.label.to_uppercase().as_str()) =>
        {
            Content::Volume
        }
        _ if signature.unclear => Content::Foreign("has the traces of several formats".to_owned()),
        _ if !signature.table.is_empty() => {
            Content::Foreign(format!("has a partition table ({})", printable(&signature.table)))
        }
        _ if !signature.kind.is_empty() => Content::Foreign(format!(
            "holds a file system or volume of type {} with the label `{}`",
            printable(&signature.kind),
            printable(&signature.label)
        )),
        _ => Content::Foreign("holds data in no format that is known here".to_owned()),
    }
}

/// A label is whatever somebody wrote on a disk; the console gets its harmless part.
fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(32).collect()
}

/// Whether everything that is looked at is zero.
fn is_blank(file: &std::fs::File, bytes: u64) -> std::io::Result<bool> {
    let between = (1..=bytes / STRIDE).flat_map(|number| {
        let place = number * STRIDE;
        [(place, SAMPLE), (place + EDGE, SAMPLE)]
    });
    for (place, length) in [(0, START), (bytes.saturating_sub(EDGE), EDGE)].into_iter().chain(between) {
        let length = length.min(bytes.saturating_sub(place));
        let mut buffer = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut buffer, place)?;
        if buffer.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Every candidate with its content. A disk that cannot be read is an error: it may be ours.
pub fn survey(disks: Vec<Disk>, mounted: &[PathBuf]) -> Result<Vec<(Disk, Content)>> {
    let free = disks.into_iter().filter(|disk| !mounted.contains(&disk.device));
    free.map(|disk| probe(&disk.device, disk.bytes).map(|content| (disk, content))).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::{Content, Decision, Disk, Signature, classify, decide, is_blank};
    use crate::exec::Run;

    fn disk(name: &str) -> Disk {
        Disk { device: format!("/dev/{name}").into(), bytes: 1 << 35 }
    }

    #[test]
    fn a_disk_is_formatted_only_when_it_is_blank_or_our_own_unfinished_one() {
        let foreign = Content::Foreign("has a partition table (gpt)".to_owned());
        let (ours, blank, cut, volume) =
            (Content::Ours, Content::Blank, Content::Unfinished, Content::Volume);
        for (contents, was_used, expected) in [
            (vec![], false, "system"),
            (vec![&volume], false, "system"),
            (vec![&blank], false, "format sda"),
            (vec![&foreign, &blank], false, "format sdb"),
            (vec![&cut, &blank], false, "format sda"),
            (vec![&ours], false, "use sda"),
            (vec![&blank, &ours, &foreign, &cut], true, "use sdb"),
            (vec![&ours, &ours], false, "ask which disk is"),
            (vec![&blank, &blank], false, "ask which disk shall"),
            (vec![&foreign], false, "ask is `/dev/sda`"),
            (vec![&blank], true, "ask where is"),
            (vec![&cut], true, "ask where is"),
            (vec![], true, "ask where is"),
        ] {
            let disks: Vec<_> = ["sda", "sdb", "sdc", "sdd"]
                .iter()
                .zip(&contents)
                .map(|(name, content)| (disk(name), (*content).clone()))
                .collect();
            let name = |disk: Disk| disk.device.file_name().unwrap().to_string_lossy().into_owned();
            let decision = match decide(&disks, was_used) {
                Decision::SystemDisk => "system".to_owned(),
                Decision::Use(disk) => format!("use {}", name(disk)),
                Decision::Format(disk) => format!("format {}", name(disk)),
                Decision::Ask(text) => format!("ask {text}"),
            };
            assert!(decision.starts_with(expected), "{contents:?}: {decision}");
        }
    }

    #[test]
    fn a_file_system_whose_start_is_lost_is_not_blank() {
        const SIZE: u64 = 1 << 30;
        let disk = tempfile::NamedTempFile::new().unwrap();
        let file = disk.as_file();
        file.set_len(SIZE).unwrap();
        assert!(is_blank(file, SIZE).unwrap());
        for offset in ["0", "1048576"] {
            file.set_len(0).unwrap();
            file.set_len(SIZE).unwrap();
            let offset = format!("offset={offset}");
            Run::new(
                "mke2fs",
                &["-q", "-F", "-t", "ext4", "-E", &offset, &disk.path().to_string_lossy(), "900M"],
            )
            .text()
            .unwrap();
            // What wipes the first partition with the table.
            file.write_all_at(&vec![0; 8 << 20], 0).unwrap();
            assert!(!is_blank(file, SIZE).unwrap(), "{offset}");
        }
    }

    #[test]
    fn signatures_are_told_apart() {
        for (export, marked, blank, expected) in [
            ("", false, true, "Blank"),
            ("", false, false, "Foreign(\"holds data"),
            ("", true, false, "Unfinished"),
            ("LABEL=mastodon-data\nTYPE=ext4\n", false, false, "Ours"),
            ("LABEL=mastodon-data\nTYPE=ext4\n", true, false, "Unfinished"),
            ("LABEL=mastodon-data\nTYPE=xfs\n", false, false, "Foreign(\"holds a file system"),
            ("LABEL=mastodon-data\nTYPE=xfs\n", true, false, "Foreign(\"holds a file system"),
            ("PTTYPE=gpt\n", false, false, "Foreign(\"has a partition table (gpt)"),
            ("PTTYPE=gpt\n", true, false, "Foreign(\"has a partition table (gpt)"),
            ("LABEL=cidata\nTYPE=vfat\n", false, false, "Volume"),
        ] {
            let content = format!("{:?}", classify(&Signature::parse(export), marked, blank));
            assert!(content.starts_with(expected), "{export:?} {marked}: {content}");
        }
    }
}
