//! The envelope of an OVF: what it refers to, its disks and its networks.

use std::collections::BTreeSet;

use super::archive::Member;
use super::xml::Element;
use super::{Report, hardware, properties, rules, shown};

/// The namespace of OVF 1.
const ENVELOPE: &str = "http://schemas.dmtf.org/ovf/envelope/1";
/// How the formats of streamOptimized disks end.
const STREAM: &str = "#streamOptimized";

/// The rules that read the envelope.
const RULES: &[super::Rule] = &[
    rules::OVF_SYSTEM,
    rules::REFERENCES,
    rules::FILE_SIZE,
    rules::DISK_FORMAT,
    rules::CAPACITY,
    rules::POPULATED_SIZE,
    rules::NETWORK,
    rules::NETWORK_UNUSED,
    rules::MEMBER_ORDER,
];

/// A disk of the descriptor whose content is a member of the archive.
#[derive(Debug, Clone)]
pub(super) struct DiskUse {
    /// The file.
    pub(super) member: Member,
    /// Its capacity in bytes as the descriptor says; `None` when it does not say it rightly.
    pub(super) capacity: Option<u64>,
    /// It hangs on a controller that takes IDE disks.
    pub(super) ide: bool,
}

/// What the rules of the disks need to know.
#[derive(Debug, Default)]
pub(super) struct Described {
    pub(super) disks: Vec<DiskUse>,
    /// What the descriptor says of the firmware.
    pub(super) firmware: Option<String>,
}

/// A reference to a file.
struct File<'e> {
    id: &'e str,
    name: &'e str,
    member: Option<&'e Member>,
    whole: bool,
}

/// Applies every rule of the descriptor.
pub(super) fn check(envelope: &Element, members: &[Member], report: &mut Report) -> Described {
    report.check(&rules::DESCRIPTOR);
    if envelope.name != "Envelope" {
        report.breaks(
            &rules::DESCRIPTOR,
            format!("its root is `{}`, not `Envelope`", shown(&envelope.qualified)),
        );
        return Described::default();
    }
    report.check(&rules::OVF_VERSION);
    version(envelope, report);
    let systems = systems(envelope);
    if systems.is_empty() {
        report.breaks(&rules::DESCRIPTOR, "it describes no virtual system");
        return Described::default();
    }
    for rule in RULES {
        report.check(rule);
    }
    let files = references(envelope, members, report);
    order(&files, members, report);
    let declared: Vec<&str> = envelope
        .all("DiskSection")
        .flat_map(|section| section.all("Disk"))
        .filter_map(|disk| disk.attribute("diskId"))
        .collect();
    let hardware = hardware::check(envelope, &systems, &declared, report);
    properties::check(&systems, report);
    networks(envelope, &systems, report);
    let disks = disks(envelope, &files, &hardware.ide, report);
    Described { disks, firmware: hardware.firmware }
}

fn version(envelope: &Element, report: &mut Report) {
    match envelope.namespace() {
        Some(ENVELOPE) => {}
        Some(other) => report.breaks(&rules::OVF_VERSION, format!("its envelope is of `{}`", shown(other))),
        None => report.breaks(&rules::OVF_VERSION, "its envelope is of no namespace"),
    }
}

/// Every machine, those of collections too; the depth of the tree is bounded by its reader.
fn systems(envelope: &Element) -> Vec<&Element> {
    let mut found = Vec::new();
    let mut left = vec![envelope];
    while let Some(element) = left.pop() {
        found.extend(element.all("VirtualSystem"));
        left.extend(element.all("VirtualSystemCollection"));
    }
    found
}

fn references<'e>(envelope: &'e Element, members: &'e [Member], report: &mut Report) -> Vec<File<'e>> {
    if envelope.first("VirtualSystemCollection").is_some() {
        report.breaks(&rules::OVF_SYSTEM, "it describes a `VirtualSystemCollection`");
    }
    let mut files: Vec<File<'e>> = Vec::new();
    let mut ids = BTreeSet::new();
    for file in envelope.all("References").flat_map(|section| section.all("File")) {
        let (Some(id), Some(name)) = (file.attribute("id"), file.attribute("href")) else {
            report.breaks(&rules::REFERENCES, "a `File` has no `ovf:id` or no `ovf:href`");
            continue;
        };
        let said = shown(name);
        if !ids.insert(id) {
            report.breaks(&rules::REFERENCES, format!("two files have the id `{}`", shown(id)));
        }
        let packed = file.attribute("compression").filter(|kind| !matches!(*kind, "" | "identity"));
        if let Some(kind) = packed {
            report.breaks(&rules::DISK_FORMAT, format!("`{said}` is compressed by `{}`", shown(kind)));
        }
        let pieces = file.attribute("chunkSize").is_some();
        if pieces {
            report.breaks(&rules::DISK_FORMAT, format!("`{said}` is in pieces (`ovf:chunkSize`)"));
        }
        let member = members.iter().find(|member| member.name == name);
        if member.is_none() && !pieces {
            report.breaks(&rules::REFERENCES, format!("`{said}` is not in the archive"));
        }
        if let (Some(size), Some(member)) = (file.attribute("size"), member)
            && size.trim().parse() != Ok(member.size)
        {
            let message = format!("`{said}` has {} bytes, and `ovf:size` is `{}`", member.size, shown(size));
            report.breaks(&rules::FILE_SIZE, message);
        }
        files.push(File { id, name, member, whole: packed.is_none() && !pieces });
    }
    let in_pieces = files.iter().any(|file| file.member.is_none());
    for member in members.iter().filter(|member| !["ovf", "mf", "cert"].iter().any(|end| member.is(end))) {
        if !in_pieces && !files.iter().any(|file| file.name == member.name) {
            report.breaks(&rules::REFERENCES, format!("no `File` names `{}`", shown(&member.name)));
        }
    }
    files
}

/// Descriptor, manifest, certificate, then files as the references list them.
fn order(files: &[File<'_>], members: &[Member], report: &mut Report) {
    let place = |member: &Member| {
        if member.is("ovf") {
            return Some(0);
        }
        if member.is("mf") {
            return Some(1);
        }
        if member.is("cert") {
            return Some(2);
        }
        files.iter().position(|file| file.name == member.name).map(|at| at + 3)
    };
    if let Some(first) = members.first().filter(|first| !first.is("ovf")) {
        report.breaks(
            &rules::MEMBER_ORDER,
            format!("its first member is `{}`, not the descriptor", shown(&first.name)),
        );
        return;
    }
    let stem = members.first().and_then(|first| first.name.strip_suffix(".ovf")).unwrap_or_default();
    for member in members.iter().filter(|member| member.is("mf") || member.is("cert")) {
        if member.name.rsplit_once('.').is_some_and(|(own, _)| own != stem) {
            let message =
                format!("`{}` is not called as the descriptor `{}.ovf`", shown(&member.name), shown(stem));
            report.breaks(&rules::MEMBER_NAMES, message);
        }
    }
    // At the end OVF allows manifest and certificate too.
    let trailing = members.iter().rev().take_while(|member| member.is("mf") || member.is("cert")).count();
    let has_files = members.len() > trailing + 1;
    let (front, back) = members.split_at(if has_files { members.len() - trailing } else { members.len() });
    if let Some(late) = back.first() {
        report.breaks(&rules::MANIFEST_PLACE, format!("`{}` comes after the disks", shown(&late.name)));
    }
    let mut before: Option<(usize, &Member)> = None;
    for member in front {
        let Some(place) = place(member) else { continue };
        if let Some((other, earlier)) = before
            && other > place
        {
            let message = format!("`{}` comes after `{}`", shown(&member.name), shown(&earlier.name));
            report.breaks(&rules::MEMBER_ORDER, message);
            return;
        }
        before = Some((place, member));
    }
}

fn disks(
    envelope: &Element,
    files: &[File<'_>],
    ide: &BTreeSet<String>,
    report: &mut Report,
) -> Vec<DiskUse> {
    let mut uses = Vec::new();
    let mut ids = BTreeSet::new();
    for disk in envelope.all("DiskSection").flat_map(|section| section.all("Disk")) {
        let id = disk.attribute("diskId").unwrap_or_default();
        if id.is_empty() || !ids.insert(id) {
            report.breaks(&rules::REFERENCES, format!("a disk has no id of its own: `{}`", shown(id)));
        }
        let reference = disk.attribute("fileRef").filter(|reference| !reference.is_empty());
        let capacity = capacity(disk, id, reference.is_some(), report);
        // Without a file it is an empty disk, made by the importer.
        let Some(reference) = reference else { continue };
        let Some(file) = files.iter().find(|file| file.id == reference) else {
            let message =
                format!("disk `{}` is of file `{}`, which `References` has not", shown(id), shown(reference));
            report.breaks(&rules::REFERENCES, message);
            continue;
        };
        let format = disk.attribute("format").unwrap_or_default();
        if !format.trim_end().ends_with(STREAM) {
            report.breaks(
                &rules::DISK_FORMAT,
                format!("disk `{}` is of the format `{}`", shown(id), shown(format)),
            );
        }
        let Some(member) = file.member else { continue };
        populated(disk, id, member, capacity, report);
        if file.whole && !uses.iter().any(|other: &DiskUse| other.member.name == member.name) {
            uses.push(DiskUse { member: member.clone(), capacity, ide: ide.contains(id) });
        }
    }
    uses
}

/// The capacity in bytes. An empty disk may leave it to a property (`${size}`).
fn capacity(disk: &Element, id: &str, filled: bool, report: &mut Report) -> Option<u64> {
    let text = disk.attribute("capacity").unwrap_or_default().trim();
    if !filled && text.starts_with("${") {
        return None;
    }
    let units = disk.attribute("capacityAllocationUnits").unwrap_or("byte");
    let bytes = text.parse::<u64>().ok().and_then(|number| number.checked_mul(unit(units)?));
    if bytes.is_none_or(|bytes| bytes == 0) {
        let message =
            format!("disk `{}` has the capacity `{}` in `{}`", shown(id), shown(text), shown(units));
        report.breaks(&rules::CAPACITY, message);
        return None;
    }
    bytes
}

/// `byte`, `byte * 2^20`, `byte * 2^30`; importers differ about every other way to write it.
fn unit(text: &str) -> Option<u64> {
    let dense: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
    match dense.as_str() {
        "byte" => Some(1),
        "byte*2^20" => Some(1 << 20),
        "byte*2^30" => Some(1 << 30),
        _ => None,
    }
}

fn populated(disk: &Element, id: &str, member: &Member, capacity: Option<u64>, report: &mut Report) {
    let Some(text) = disk.attribute("populatedSize") else { return };
    let wrong = match text.trim().parse::<u64>() {
        Err(_) => "is no number".to_owned(),
        Ok(size) if size == member.size => "is the length of the compressed file".to_owned(),
        Ok(size) if capacity.is_some_and(|capacity| size > capacity) => {
            "is more than the capacity".to_owned()
        }
        Ok(_) => return,
    };
    report.breaks(&rules::POPULATED_SIZE, format!("disk `{}`: `{}` {wrong}", shown(id), shown(text)));
}

fn networks(envelope: &Element, systems: &[&Element], report: &mut Report) {
    let named: BTreeSet<&str> = envelope
        .all("NetworkSection")
        .flat_map(|section| section.all("Network"))
        .filter_map(|network| network.attribute("name"))
        .collect();
    if named.is_empty() {
        report.breaks(&rules::NETWORK, "it has no `NetworkSection` with a network");
    }
    let mut used = BTreeSet::new();
    for item in systems.iter().flat_map(|system| hardware::items(system)) {
        let kind = item.text_of("ResourceType");
        let is_card = kind == Some("10") || item.name == "EthernetPortItem";
        used.extend(item.text_of("Connection"));
        if !is_card || named.is_empty() {
            continue;
        }
        match item.text_of("Connection") {
            Some(network) if named.contains(network) => {}
            Some(network) => {
                let message = format!(
                    "{} is connected to `{}`, which no `Network` is called",
                    hardware::called(item),
                    shown(network)
                );
                report.breaks(&rules::NETWORK, message);
            }
            None => report
                .breaks(&rules::NETWORK, format!("{} is connected to no network", hardware::called(item))),
        }
    }
    for network in named.difference(&used) {
        report.breaks(&rules::NETWORK_UNUSED, format!("no card is connected to `{}`", shown(network)));
    }
}
