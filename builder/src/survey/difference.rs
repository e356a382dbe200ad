//! What two images differ in: partitions, packages, units, files, sizes.
//!
//! Two images in other formats are equal when all that a running system could see is: times of files, free space and where blocks
//! lie are not compared. Contents are compared byte by byte, in the order in which they lie on the first disk, in pieces of a bounded
//! size: nothing is hashed and nothing is copied.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::catalogue::{Entry, order};
use super::ext4::{FileSystem, Inode, Kind, Segment};
use super::guest::{CAPABILITY, capabilities};
use super::source::Source;
use super::{Folder, Package, Partition, Root, Survey, Unit, shown};
use crate::disk::gpt::ROOT_X86_64;
use crate::view::View;

/// Bytes that are compared at a time.
const PIECE: usize = 1 << 20;
/// Levels of folders whose sizes are compared.
const LEVELS: usize = 3;

/// An image that is opened and surveyed.
pub struct Side {
    view: View,
    root: Root,
    survey: Survey,
}

impl Side {
    /// Surveys an opened image. `given` is the file that the user named.
    pub fn read(view: View, given: &Path) -> Result<Side> {
        let root = Root::read(&view, given)?;
        let survey = Survey::of(&view, &root, given)?;
        Ok(Side { view, root, survey })
    }
}

/// In which way something differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Only the second image has it.
    Added,
    /// Only the first image has it.
    Removed,
    /// Both have it.
    Changed,
}

impl Change {
    fn of<T>(before: Option<&T>, after: Option<&T>) -> Change {
        match (before, after) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            _ => Change::Changed,
        }
    }
}

/// All differences, each list with the largest effect first.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Difference {
    /// Version of this object's form: 1.
    pub schema: u32,
    /// The first image.
    pub before: SideFacts,
    /// The second one.
    pub after: SideFacts,
    /// How much was compared.
    pub compared: Compared,
    /// Partitions, and what lies outside of the root file system.
    pub partitions: Vec<PartitionChange>,
    /// Packages.
    pub packages: Vec<PackageChange>,
    /// Units that start by themselves.
    pub units: Vec<UnitChange>,
    /// Files of the root file system.
    pub files: Vec<FileChange>,
    /// Folders whose sizes differ.
    pub sizes: Vec<SizeChange>,
}

/// One of the two images.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SideFacts {
    /// Its file's name.
    pub name: String,
    /// Its format.
    pub kind: crate::view::Kind,
    /// Its file's length in bytes.
    pub bytes: u64,
    /// What a person calls it.
    pub title: String,
}

/// How much of the first image was compared.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Compared {
    /// Partitions.
    pub partitions: usize,
    /// Packages.
    pub packages: usize,
    /// Names of files, folders and links.
    pub files: usize,
}

/// A partition that differs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PartitionChange {
    /// In which way.
    pub change: Change,
    /// Its name, or what it is called.
    pub name: String,
    /// What differs.
    pub what: Vec<String>,
}

/// A package that differs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PackageChange {
    /// In which way.
    pub change: Change,
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub architecture: String,
    /// Its version in the first image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Its version in the second one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Bytes of the larger of the two, where that is known.
    pub effect: u64,
}

/// A unit that differs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct UnitChange {
    /// In which way.
    pub change: Change,
    /// Its name.
    pub name: String,
    /// What wants it in the first image.
    pub before: Vec<String>,
    /// What wants it in the second one.
    pub after: Vec<String>,
}

/// A file that differs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileChange {
    /// In which way.
    pub change: Change,
    /// Its path in the guest.
    pub path: String,
    /// What differs in it; empty when it is only in one image.
    pub what: Vec<String>,
    /// Bytes on the disk that are new, gone or other; of all below a folder that is new or gone.
    pub effect: u64,
    /// How many files lie below a folder that is new or gone.
    pub below: u64,
    /// Whether the folder that it lies in is in this list with the same change.
    pub inside: bool,
}

/// A folder whose size differs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SizeChange {
    /// Its path in the guest.
    pub path: String,
    /// Bytes on the disk in the first image.
    pub before: u64,
    /// Bytes on the disk in the second one.
    pub after: u64,
}

impl Difference {
    /// Compares.
    pub fn between(before: &mut Side, after: &mut Side) -> Result<Difference> {
        let facts = |side: &Side| SideFacts {
            name: side.survey.file.name.clone(),
            kind: side.survey.file.kind,
            bytes: side.survey.file.apparent,
            title: side.survey.title.clone().unwrap_or_else(|| side.survey.system.clone()),
        };
        Ok(Difference {
            schema: 1,
            before: facts(before),
            after: facts(after),
            compared: Compared {
                partitions: before.survey.partitions.len(),
                packages: before.survey.packages.len(),
                files: before.root.catalogue.entries.len(),
            },
            partitions: partitions(before, after)?,
            packages: packages(&before.survey.packages, &after.survey.packages),
            units: units(&before.survey.units, &after.survey.units),
            files: files(&mut before.root, &mut after.root)?,
            sizes: sizes(&before.survey.sizes, &after.survey.sizes),
        })
    }

    /// Whether there is none. Sizes alone do not count: the same files may lie on the disk in more pieces.
    pub fn is_none(&self) -> bool {
        self.partitions.is_empty()
            && self.packages.is_empty()
            && self.units.is_empty()
            && self.files.is_empty()
    }
}

fn partitions(before: &Side, after: &Side) -> Result<Vec<PartitionChange>> {
    let mut changes = Vec::new();
    let (old, new) = (&before.survey.partitions, &after.survey.partitions);
    for index in 0..old.len().max(new.len()) {
        let pair = (old.get(index), new.get(index));
        let name = pair.1.or(pair.0).map(|partition| partition.name.clone()).unwrap_or_default();
        let what = match pair {
            (Some(old), Some(new)) => partition(before, after, old, new)?,
            (Some(one), None) | (None, Some(one)) => vec![super::text::size(one.bytes)],
            (None, None) => Vec::new(),
        };
        if !what.is_empty() {
            changes.push(PartitionChange { change: Change::of(pair.0, pair.1), name, what });
        }
    }
    // What a BIOS starts lies before all partitions, up to the table of the old kind.
    let code = |view| -> Result<[u8; 440]> {
        let mut code = [0; 440];
        Source::of(view, 0, 512).read(0, &mut code)?;
        Ok(code)
    };
    if code(&before.view)? != code(&after.view)? {
        let what = vec!["content".to_owned()];
        changes.push(PartitionChange {
            change: Change::Changed,
            name: "boot code of the first sector".to_owned(),
            what,
        });
    }
    Ok(changes)
}

fn partition(before: &Side, after: &Side, old: &Partition, new: &Partition) -> Result<Vec<String>> {
    let mut what = Vec::new();
    let identity = |partition: &Partition| {
        let ext4 = partition.file_system.as_ref().and_then(|system| system.ext4.as_ref());
        let of_ext4 = |of: fn(&super::ext4::Totals) -> String| ext4.map(of).unwrap_or_default();
        [
            ("name", partition.name.clone()),
            ("type", partition.kind.clone()),
            ("id", partition.id.clone()),
            ("start", partition.start.to_string()),
            ("bytes", partition.bytes.to_string()),
            ("file system's label", of_ext4(|ext4| ext4.label.clone())),
            ("file system's UUID", of_ext4(|ext4| ext4.uuid.clone())),
            ("block size", of_ext4(|ext4| ext4.block_size.to_string())),
            ("inodes", of_ext4(|ext4| ext4.inodes.to_string())),
        ]
    };
    for ((name, old), (_, new)) in identity(old).into_iter().zip(identity(new)) {
        if old != new {
            what.push(format!("{name} {old} -> {new}"));
        }
    }
    // The root's content is compared file by file.
    if old.kind != ROOT_X86_64.to_string() && old.bytes == new.bytes {
        let mut one = Source::of(&before.view, old.start, old.bytes);
        let mut other = Source::of(&after.view, new.start, new.bytes);
        let (mut left, mut right) = (vec![0; PIECE], vec![0; PIECE]);
        let mut offset = 0;
        while offset < old.bytes {
            let count = usize::try_from((old.bytes - offset).min(PIECE as u64))?;
            one.read(offset, &mut left[..count])?;
            other.read(offset, &mut right[..count])?;
            if let Some(at) = first_difference(&left[..count], &right[..count]) {
                what.push(format!("content from byte {}", offset + at as u64));
                break;
            }
            offset += count as u64;
        }
    }
    Ok(what)
}

fn first_difference(left: &[u8], right: &[u8]) -> Option<usize> {
    // The comparison of slices is much faster than a search, and nearly always the answer.
    if left == right { None } else { left.iter().zip(right).position(|(left, right)| left != right) }
}

fn packages(before: &[Package], after: &[Package]) -> Vec<PackageChange> {
    type Versions<'a> = BTreeMap<(&'a str, &'a str), BTreeMap<&'a str, u64>>;
    fn grouped(packages: &[Package]) -> Versions<'_> {
        let mut groups = Versions::new();
        for package in packages {
            let group = groups.entry((&package.name, &package.architecture)).or_default();
            group.insert(&package.version, package.bytes.unwrap_or(0));
        }
        groups
    }
    let (before, after) = (grouped(before), grouped(after));
    let nothing = BTreeMap::new();
    let mut changes = Vec::new();
    for key in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        let (old, new) = (before.get(key).unwrap_or(&nothing), after.get(key).unwrap_or(&nothing));
        let gone: Vec<_> = old.iter().filter(|(version, _)| !new.contains_key(*version)).collect();
        let come: Vec<_> = new.iter().filter(|(version, _)| !old.contains_key(*version)).collect();
        // Several versions of a package may be installed, as of a kernel: they are paired as far as they go.
        for index in 0..gone.len().max(come.len()) {
            let (old, new) = (gone.get(index), come.get(index));
            changes.push(PackageChange {
                change: Change::of(old, new),
                name: key.0.to_owned(),
                architecture: key.1.to_owned(),
                before: old.map(|(version, _)| (**version).to_owned()),
                after: new.map(|(version, _)| (**version).to_owned()),
                effect: old.map_or(0, |(_, bytes)| **bytes).max(new.map_or(0, |(_, bytes)| **bytes)),
            });
        }
    }
    changes.sort_by(|a, b| b.effect.cmp(&a.effect).then_with(|| a.name.cmp(&b.name)));
    changes
}

fn units(before: &[Unit], after: &[Unit]) -> Vec<UnitChange> {
    let by_name = |units: &[Unit]| -> BTreeMap<String, Vec<String>> {
        units.iter().map(|unit| (unit.name.clone(), unit.wanted_by.clone())).collect()
    };
    let (before, after) = (by_name(before), by_name(after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let change = |name: &String| {
        let (old, new) = (before.get(name), after.get(name));
        (old != new).then(|| UnitChange {
            change: Change::of(old, new),
            name: name.clone(),
            before: old.cloned().unwrap_or_default(),
            after: new.cloned().unwrap_or_default(),
        })
    };
    names.into_iter().filter_map(change).collect()
}

fn sizes(before: &Folder, after: &Folder) -> Vec<SizeChange> {
    let by_path = |root: &Folder| -> BTreeMap<String, u64> {
        root.largest(LEVELS).into_iter().map(|(path, folder)| (path, folder.bytes)).collect()
    };
    let (before, after) = (by_path(before), by_path(after));
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let size = |sizes: &BTreeMap<String, u64>, path: &String| sizes.get(path).copied().unwrap_or(0);
    let mut changes: Vec<SizeChange> = paths
        .into_iter()
        .map(|path| SizeChange { path: path.clone(), before: size(&before, path), after: size(&after, path) })
        .filter(|change| change.before != change.after)
        .collect();
    changes.sort_by(|a, b| {
        b.before.abs_diff(b.after).cmp(&a.before.abs_diff(a.after)).then_with(|| a.path.cmp(&b.path))
    });
    changes
}

fn files(before: &mut Root, after: &mut Root) -> Result<Vec<FileChange>> {
    let (contents, mut changes) = (&mut Contents::default(), Vec::new());
    // Contents are compared in a second pass, in the order of the disk; this is what they wait for.
    let mut pairs: Vec<(Entry, Entry)> = Vec::new();
    let (old, new) = (&before.catalogue, &after.catalogue);
    let (mut left, mut right) = (old.entries.iter().peekable(), new.entries.iter().peekable());
    loop {
        let side = match (left.peek(), right.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => order(&old.path, &new.path),
        };
        match side {
            Ordering::Equal => pairs.extend(left.next().cloned().zip(right.next().cloned())),
            Ordering::Less => changes.extend(
                left.next().map(|entry| lone(Change::Removed, entry, old.inode(entry.inode))).transpose()?,
            ),
            Ordering::Greater => changes.extend(
                right.next().map(|entry| lone(Change::Added, entry, new.inode(entry.inode))).transpose()?,
            ),
        }
    }
    fold(&mut changes);
    for (one, other) in &pairs {
        let (one, other) = (old.inode(one.inode)?, new.inode(other.inode)?);
        if one.kind == Kind::File && other.kind == Kind::File && one.size == other.size {
            contents.want(&mut before.system, one, other)?;
        }
    }
    contents.compare(before, after)?;
    let (old, new) = (&before.catalogue, &after.catalogue);
    for (one, other) in &pairs {
        let (left, right) = (old.inode(one.inode)?, new.inode(other.inode)?);
        let mut what = properties(left, right);
        let mut effect = 0;
        if left.kind != right.kind {
            effect = left.allocated.max(right.allocated);
        } else if left.kind == Kind::Link && old.target(left.number) != new.target(right.number) {
            let target = |target: Option<&[u8]>| shown(target.unwrap_or_default());
            what.push(format!(
                "leads to {} -> {}",
                target(old.target(left.number)),
                target(new.target(right.number))
            ));
        } else if left.kind == Kind::File && left.size != right.size {
            what.push(format!("content, {} -> {} bytes", left.size, right.size));
            effect = left.allocated.max(right.allocated);
        } else if let Some(at) = contents.result(left, right) {
            what.push(format!("content from byte {at}"));
            effect = left.allocated.max(right.allocated);
        }
        if !what.is_empty() {
            changes.push(FileChange {
                change: Change::Changed,
                path: shown(&one.path),
                what,
                effect,
                below: 0,
                inside: false,
            });
        }
    }
    changes.sort_by(|a, b| b.effect.cmp(&a.effect).then_with(|| a.path.cmp(&b.path)));
    Ok(changes)
}

/// A file that is in one image only.
fn lone(change: Change, entry: &Entry, inode: Result<&Inode>) -> Result<FileChange> {
    let effect = if entry.again { 0 } else { inode?.allocated };
    Ok(FileChange { change, path: shown(&entry.path), what: Vec::new(), effect, below: 0, inside: false })
}

/// Gives each folder that is new or gone the sum of what is in it. The list is in the order of the catalogues, folders first.
fn fold(changes: &mut [FileChange]) {
    for change in [Change::Added, Change::Removed] {
        // The outermost folder that is still open.
        let mut top: Option<usize> = None;
        for index in 0..changes.len() {
            if changes[index].change != change {
                continue;
            }
            let is_below = top.is_some_and(|top| {
                let rest = changes[index].path.strip_prefix(&changes[top].path);
                rest.is_some_and(|rest| rest.starts_with('/'))
            });
            match top.filter(|_| is_below) {
                Some(top) => {
                    changes[index].inside = true;
                    changes[top].effect = changes[top].effect.saturating_add(changes[index].effect);
                    changes[top].below += 1;
                }
                None => top = Some(index),
            }
        }
    }
}

/// What differs but content.
fn properties(old: &Inode, new: &Inode) -> Vec<String> {
    let mut what = Vec::new();
    let kind = |kind: Kind| format!("{kind:?}").to_lowercase();
    let device = |device: Option<(u32, u32)>| {
        device.map(|(major, minor)| format!("{major}:{minor}")).unwrap_or_default()
    };
    // A folder's links are its folders.
    let links =
        |inode: &Inode| if inode.kind == Kind::Folder { String::new() } else { inode.links.to_string() };
    let pairs = [
        ("is a", kind(old.kind), kind(new.kind)),
        ("mode", format!("{:04o}", old.mode), format!("{:04o}", new.mode)),
        ("owner", format!("{}:{}", old.uid, old.gid), format!("{}:{}", new.uid, new.gid)),
        ("device", device(old.device), device(new.device)),
        ("names", links(old), links(new)),
        ("flags", format!("{:#x}", old.user_flags()), format!("{:#x}", new.user_flags())),
    ];
    what.extend(
        pairs
            .into_iter()
            .filter(|(_, old, new)| old != new)
            .map(|(name, old, new)| format!("{name} {old} -> {new}")),
    );
    for name in old.attributes.keys().chain(new.attributes.keys()).collect::<BTreeSet<_>>() {
        let (before, after) = (old.attributes.get(name), new.attributes.get(name));
        if before == after {
            continue;
        }
        let value = |value: Option<&Vec<u8>>| match value {
            None => "none".to_owned(),
            Some(value) if name == CAPABILITY => capabilities(value),
            Some(value) => shown(&value[..value.len().min(64)]),
        };
        what.push(format!("{name} {} -> {}", value(before), value(after)));
    }
    what
}

/// Pairs of inodes whose contents are compared, each once however many names they have.
#[derive(Default)]
struct Contents {
    wanted: BTreeSet<(u64, u32, u32)>,
    differing: HashMap<(u32, u32), u64>,
}

impl Contents {
    fn want(&mut self, system: &mut FileSystem, one: &Inode, other: &Inode) -> Result<()> {
        let first = system.segments(one)?.first().map_or(0, |segment| segment.physical);
        self.wanted.insert((first, one.number, other.number));
        Ok(())
    }

    fn compare(&mut self, before: &mut Root, after: &mut Root) -> Result<()> {
        let (mut left, mut right) = (vec![0; PIECE], vec![0; PIECE]);
        for (_, one, other) in &self.wanted {
            let inodes = (before.catalogue.inode(*one)?, after.catalogue.inode(*other)?);
            let segments = (
                before.system.segments(inodes.0).map_err(|error| before.damaged(&error))?,
                after.system.segments(inodes.1).map_err(|error| after.damaged(&error))?,
            );
            let sizes = (before.system.totals().block_size, after.system.totals().block_size);
            let mut offset = 0;
            // Holes in both are passed over: a file may be nothing else.
            while let Some(next) = next_data(&segments.0, sizes.0, offset)
                .into_iter()
                .chain(next_data(&segments.1, sizes.1, offset))
                .min()
                .filter(|next| *next < inodes.0.size)
            {
                let count = usize::try_from((inodes.0.size - next).min(PIECE as u64))?;
                let read = before.system.content(&segments.0, next, &mut left[..count]);
                read.map_err(|error| before.damaged(&error))?;
                let read = after.system.content(&segments.1, next, &mut right[..count]);
                read.map_err(|error| after.damaged(&error))?;
                if let Some(at) = first_difference(&left[..count], &right[..count]) {
                    self.differing.insert((*one, *other), next + at as u64);
                    break;
                }
                offset = next + count as u64;
            }
        }
        Ok(())
    }

    fn result(&self, one: &Inode, other: &Inode) -> Option<u64> {
        self.differing.get(&(one.number, other.number)).copied()
    }
}

/// The first byte at or behind an offset that is not in a hole.
fn next_data(segments: &[Segment], block_size: u64, offset: u64) -> Option<u64> {
    let first = segments.partition_point(|segment| segment.end() * block_size <= offset);
    let segment = segments[first..].iter().find(|segment| segment.physical != 0)?;
    Some(offset.max(segment.logical * block_size))
}
