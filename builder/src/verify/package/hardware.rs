//! The virtual hardware of an OVF, and the guest system that it is for.

use std::collections::{BTreeMap, BTreeSet};

use super::xml::Element;
use super::{Report, rules, shown};

/// Types of guest systems that not every ESXi knows, with the first hardware version of the release that does.
const GUESTS: &[(&str, u32)] = &[
    ("centos7_64Guest", 13),
    ("debian10_64Guest", 13),
    ("centos8_64Guest", 14),
    ("rhel8_64Guest", 14),
    ("oracleLinux8_64Guest", 14),
    ("debian11_64Guest", 17),
    ("rhel9_64Guest", 18),
    ("centos9_64Guest", 18),
    ("oracleLinux9_64Guest", 18),
    ("other5xLinux64Guest", 18),
    ("debian12_64Guest", 20),
    ("rockylinux_64Guest", 20),
    ("almalinux_64Guest", 20),
    ("other6xLinux64Guest", 20),
    ("debian13_64Guest", 22),
    ("rhel10_64Guest", 22),
    ("other7xLinux64Guest", 22),
];
/// Oldest hardware version that every ESXi of today takes.
const OLDEST: u32 = 11;
/// Newest that ESXi 6.5 takes.
const WIDELY_KNOWN: u32 = 13;
/// `ResourceType` of the kinds that are looked at, with the `ResourceSubType`s that vSphere has
/// beside those that begin with `vmware.`.
const KINDS: &[(&str, &[&str])] = &[
    ("6", &["virtualscsi", "lsilogic", "lsilogicsas", "buslogic"]),
    ("20", &["ahci"]),
    ("10", &["vmxnet3", "vmxnet2", "vmxnet", "e1000", "e1000e", "pcnet32", "flexible", "sriovethernetcard"]),
];
const DISK: &str = "17";

/// What the hardware says about the disks.
#[derive(Debug, Default)]
pub(super) struct Hardware {
    pub(super) firmware: Option<String>,
    /// Ids of disks on IDE and SATA controllers.
    pub(super) ide: BTreeSet<String>,
}

/// Every item of a system's hardware, of whatever element.
pub(super) fn items(system: &Element) -> impl Iterator<Item = &Element> {
    let is_item = |item: &&Element| matches!(item.name.as_str(), "Item" | "StorageItem" | "EthernetPortItem");
    system.all("VirtualHardwareSection").flat_map(move |section| section.children.iter().filter(is_item))
}

/// How a message calls an item.
pub(super) fn called(item: &Element) -> String {
    let name = item.text_of("ElementName").or_else(|| item.text_of("Caption"));
    name.or_else(|| identity(item)).map_or_else(|| "an item".to_owned(), |name| format!("`{}`", shown(name)))
}

/// Its id, as OVF 1.1 and as 1.0 spells it.
fn identity(item: &Element) -> Option<&str> {
    item.text_of("InstanceID").or_else(|| item.text_of("InstanceId"))
}

/// Applies the rules of the hardware of every system.
pub(super) fn check(
    envelope: &Element,
    systems: &[&Element],
    disks: &[&str],
    report: &mut Report,
) -> Hardware {
    for rule in [
        rules::VIRTUALBOX,
        rules::HARDWARE_VERSION,
        rules::HARDWARE_NEW,
        rules::GUEST_OS,
        rules::ITEMS,
        rules::ITEM_ORDER,
        rules::CONTROLLERS,
        rules::EXTRA_CONFIG,
        rules::FIRMWARE_STATED,
    ] {
        report.check(&rule);
    }
    let configurations: BTreeSet<&str> = envelope
        .all("DeploymentOptionSection")
        .flat_map(|section| section.all("Configuration"))
        .filter_map(|configuration| configuration.attribute("id"))
        .collect();
    let mut hardware = Hardware::default();
    for system in systems {
        if system.first("VirtualHardwareSection").is_none() {
            report.breaks(&rules::ITEMS, "a virtual system has no `VirtualHardwareSection`");
            continue;
        }
        let version = version(system, report);
        guest(system, version, report);
        let parents = identities(system, &configurations, report);
        for item in items(system) {
            one_item(item, &parents, disks, &mut hardware, report);
        }
        for section in system.all("VirtualHardwareSection") {
            settings(section, &mut hardware, report);
        }
        for machine in system.all("Machine").filter(|machine| !machine.is_optional()) {
            report.breaks(&rules::VIRTUALBOX, format!("it has a required `{}`", shown(&machine.qualified)));
        }
    }
    if hardware.firmware.is_none() {
        report.breaks(&rules::FIRMWARE_STATED, "there is no `vmw:Config` with the key `firmware`");
    }
    hardware
}

/// The newest hardware version that the system's type lists; `None` when none of them will do.
fn version(system: &Element, report: &mut Report) -> Option<u32> {
    let types: Vec<&str> = system
        .all("VirtualHardwareSection")
        .filter_map(|section| section.first("System")?.text_of("VirtualSystemType"))
        .flat_map(|types| types.split([' ', ',']))
        .filter(|word| !word.is_empty())
        .collect();
    if let Some(own) = types.iter().find(|word| word.starts_with("virtualbox")) {
        report.breaks(&rules::VIRTUALBOX, format!("the system's type is `{}`", shown(own)));
        return None;
    }
    let versions: Vec<u32> =
        types.iter().filter_map(|word| word.strip_prefix("vmx-")?.parse().ok()).collect();
    let newest = versions.iter().copied().max();
    if newest.is_none_or(|newest| newest < OLDEST) {
        let listed =
            if types.is_empty() { "missing".to_owned() } else { format!("`{}`", shown(&types.join(" "))) };
        report.breaks(&rules::HARDWARE_VERSION, format!("the system's type is {listed}"));
    }
    if let Some(least) = versions.iter().copied().min().filter(|least| *least > WIDELY_KNOWN) {
        report.breaks(
            &rules::HARDWARE_NEW,
            format!("the oldest hardware version that it names is vmx-{least}"),
        );
    }
    newest.filter(|newest| *newest >= OLDEST)
}

fn guest(system: &Element, version: Option<u32>, report: &mut Report) {
    let kind = system.first("OperatingSystemSection").and_then(|section| section.attribute("osType"));
    let (Some(kind), Some(version)) = (kind, version) else { return };
    let Some((_, needed)) = GUESTS.iter().find(|(name, _)| *name == kind) else { return };
    if *needed > version {
        let message =
            format!("`{kind}` is known from the ESXi of vmx-{needed} on, and the hardware is vmx-{version}");
        report.breaks(&rules::GUEST_OS, message);
    }
}

/// Checks ids and configurations; answers the kind of every item by its id.
fn identities<'e>(
    system: &'e Element,
    configurations: &BTreeSet<&str>,
    report: &mut Report,
) -> BTreeMap<&'e str, &'e str> {
    let mut seen = BTreeSet::new();
    let mut kinds = BTreeMap::new();
    for item in items(system) {
        let wanted = item.attribute("configuration").unwrap_or_default();
        for name in wanted.split_ascii_whitespace().filter(|name| !configurations.contains(name)) {
            report.breaks(
                &rules::ITEMS,
                format!("{} is for the configuration `{}`, which is not declared", called(item), shown(name)),
            );
        }
        let (Some(id), Some(kind)) = (identity(item), item.text_of("ResourceType")) else {
            report
                .breaks(&rules::ITEMS, format!("{} has no `InstanceID` or no `ResourceType`", called(item)));
            continue;
        };
        // One item may be there once for each configuration, and once for each bound of a range.
        if !seen.insert((id, wanted, item.attribute("bound").unwrap_or_default())) {
            report.breaks(&rules::ITEMS, format!("two items have the id `{}`", shown(id)));
        }
        kinds.insert(id, kind);
    }
    kinds
}

fn one_item(
    item: &Element,
    parents: &BTreeMap<&str, &str>,
    disks: &[&str],
    hardware: &mut Hardware,
    report: &mut Report,
) {
    if item.name != "Item" {
        report.breaks(&rules::VIRTUALBOX, format!("{} is a `{}`", called(item), shown(&item.qualified)));
    }
    let kind = item.text_of("ResourceType").unwrap_or_default();
    if let (Some((_, known)), Some(given)) =
        (KINDS.iter().find(|(number, _)| *number == kind), item.text_of("ResourceSubType"))
    {
        let given_lower = given.to_ascii_lowercase();
        let mut words = given_lower.split([' ', ',']).filter(|word| !word.is_empty());
        if !item.is_optional() && !words.any(|word| known.contains(&word) || word.starts_with("vmware.")) {
            report.breaks(&rules::CONTROLLERS, format!("{} is of the kind `{}`", called(item), shown(given)));
        }
    }
    let mut names =
        item.children.iter().filter(|child| child.qualified.starts_with("rasd:")).map(|child| &child.name);
    if let Some(mut before) = names.next() {
        for name in names {
            if name < before {
                let message =
                    format!("in {} `{}` comes after `{}`", called(item), shown(name), shown(before));
                report.breaks(&rules::ITEM_ORDER, message);
                break;
            }
            before = name;
        }
    }
    let parent = item.text_of("Parent");
    if let Some(parent) = parent.filter(|parent| !parents.contains_key(parent)) {
        report.breaks(
            &rules::ITEMS,
            format!("{} hangs on `{}`, which does not exist", called(item), shown(parent)),
        );
    }
    let Some(resource) = item.text_of("HostResource").filter(|_| kind == DISK) else { return };
    let place = resource.strip_prefix("ovf:").unwrap_or(resource).trim_start_matches('/');
    if let Some(disk) = place.strip_prefix("disk/") {
        if !disks.contains(&disk) {
            report.breaks(
                &rules::REFERENCES,
                format!("{} is the disk `{}`, which `DiskSection` has not", called(item), shown(disk)),
            );
        }
        if parent.and_then(|parent| parents.get(parent)).is_some_and(|kind| matches!(*kind, "5" | "20")) {
            hardware.ide.insert(disk.to_owned());
        }
    }
}

/// VMware's settings of a machine.
fn settings(section: &Element, hardware: &mut Hardware, report: &mut Report) {
    for extra in section.all("ExtraConfig").filter(|extra| !extra.is_optional()) {
        let key = extra.attribute("key").unwrap_or_default();
        report.breaks(&rules::EXTRA_CONFIG, format!("the key `{}` is required", shown(key)));
    }
    for config in section.all("Config").filter(|config| config.attribute("key") == Some("firmware")) {
        hardware.firmware = Some(config.attribute("value").unwrap_or_default().to_owned());
    }
}
