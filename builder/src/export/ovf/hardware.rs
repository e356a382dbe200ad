//! The virtual hardware, and the sizes that it can be deployed in.

use super::{Disk, NETWORK};
use crate::export::xml::Xml;
use crate::formats::vmdk::write::HARDWARE;
use crate::recipe::{Controller, Firmware, Recipe};

/// Identifiers of devices that others refer to, or that stand once.
const CPUS: &str = "1";
const MEMORY: &str = "2";
const SCSI: &str = "3";
const IDE: &str = "4";
/// Those of the disks begin here.
const FIRST_DISK: usize = 10;
const NETWORK_CARD: &str = "20";
const CD_DRIVE: &str = "30";

/// A size to deploy the machine in.
struct Size {
    id: &'static str,
    label: &'static str,
    cpus: u32,
    memory_mib: u64,
}

impl Size {
    fn text(&self) -> String {
        let memory = if self.memory_mib.is_multiple_of(1024) {
            format!("{} GiB", self.memory_mib / 1024)
        } else {
            format!("{} MiB", self.memory_mib)
        };
        format!("{} virtual CPUs, {memory} of memory", self.cpus)
    }
}

/// The first is the recipe's, and the default.
fn all_sizes(recipe: &Recipe) -> [Size; 3] {
    let cpus = recipe.image.machine.cpus;
    let memory_mib = recipe.image.machine.memory.bytes() >> 20;
    [
        Size { id: "small", label: "Small", cpus, memory_mib },
        Size { id: "medium", label: "Medium", cpus, memory_mib: memory_mib.saturating_mul(2) },
        Size {
            id: "large",
            label: "Large",
            cpus: cpus.saturating_mul(2),
            memory_mib: memory_mib.saturating_mul(4),
        },
    ]
}

/// The sizes by name.
pub(super) fn sizes(xml: &mut Xml, recipe: &Recipe) {
    xml.within("DeploymentOptionSection", &[("ovf:required", "false")], |xml| {
        xml.leaf("Info", &[], "Sizes of the machine");
        for (index, size) in all_sizes(recipe).iter().enumerate() {
            let mut attributes = vec![("ovf:id", size.id)];
            if index == 0 {
                attributes.push(("ovf:default", "true"));
            }
            xml.within("Configuration", &attributes, |xml| {
                xml.leaf("Label", &[], size.label);
                xml.leaf("Description", &[], &size.text());
            });
        }
    });
}

/// The devices.
pub(super) fn section(xml: &mut Xml, recipe: &Recipe, stem: &str, disks: &[Disk]) {
    let export = &recipe.image.export;
    let [small, medium, large] = all_sizes(recipe);
    xml.within("VirtualHardwareSection", &[("ovf:transport", "com.vmware.guestInfo iso")], |xml| {
        xml.leaf("Info", &[], "Virtual hardware");
        xml.within("System", &[], |xml| {
            xml.leaf("vssd:ElementName", &[], "Virtual Hardware Family");
            xml.leaf("vssd:InstanceID", &[], "0");
            xml.leaf("vssd:VirtualSystemIdentifier", &[], stem);
            xml.leaf("vssd:VirtualSystemType", &[], &format!("vmx-{HARDWARE}"));
        });
        // Of items with one identifier the last that applies counts. Readers that do not know configurations take the first of them
        // (virt-v2v) or the last (VirtualBox), so the default stands at both ends.
        for (size, configuration) in
            [(&small, None), (&medium, Some(medium.id)), (&large, Some(large.id)), (&small, Some(small.id))]
        {
            processors_and_memory(xml, size, configuration);
        }
        let controller = match export.controller {
            Controller::Pvscsi => "VirtualSCSI",
            Controller::Lsilogic => "lsilogic",
        };
        item(
            xml,
            &[],
            &[
                ("Address", "0"),
                ("ElementName", "SCSI controller 0"),
                ("InstanceID", SCSI),
                ("ResourceSubType", controller),
                ("ResourceType", "6"),
            ],
        );
        item(
            xml,
            &[],
            &[
                ("Address", "0"),
                ("ElementName", "IDE controller 0"),
                ("InstanceID", IDE),
                ("ResourceType", "5"),
            ],
        );
        for (index, name) in ["System disk", "Data disk"].iter().enumerate().take(disks.len()) {
            item(
                xml,
                &[],
                &[
                    ("AddressOnParent", &index.to_string()),
                    ("ElementName", name),
                    ("HostResource", &format!("ovf:/disk/disk{}", index + 1)),
                    ("InstanceID", &(FIRST_DISK + index).to_string()),
                    ("Parent", SCSI),
                    ("ResourceType", "17"),
                ],
            );
        }
        item(
            xml,
            &[],
            &[
                ("AddressOnParent", "7"),
                ("AutomaticAllocation", "true"),
                ("Connection", NETWORK),
                ("ElementName", "Network adapter 1"),
                ("InstanceID", NETWORK_CARD),
                ("ResourceSubType", "VmxNet3"),
                ("ResourceType", "10"),
            ],
        );
        // What the transport `iso` puts the properties into.
        item(
            xml,
            &[("ovf:required", "false")],
            &[
                ("AddressOnParent", "0"),
                ("AutomaticAllocation", "false"),
                ("ElementName", "CD drive 1"),
                ("InstanceID", CD_DRIVE),
                ("Parent", IDE),
                ("ResourceSubType", "vmware.cdrom.remotepassthrough"),
                ("ResourceType", "15"),
            ],
        );
        let firmware = match export.firmware {
            Firmware::Bios => "bios",
            Firmware::Efi => "efi",
        };
        xml.empty(
            "vmw:Config",
            &[("ovf:required", "false"), ("vmw:key", "firmware"), ("vmw:value", firmware)],
        );
    });
}

fn processors_and_memory(xml: &mut Xml, size: &Size, configuration: Option<&str>) {
    let attributes: Vec<_> = configuration.map(|id| ("ovf:configuration", id)).into_iter().collect();
    item(
        xml,
        &attributes,
        &[
            ("AllocationUnits", "hertz * 10^6"),
            ("ElementName", &format!("{} virtual CPUs", size.cpus)),
            ("InstanceID", CPUS),
            ("ResourceType", "3"),
            ("VirtualQuantity", &size.cpus.to_string()),
        ],
    );
    item(
        xml,
        &attributes,
        &[
            ("AllocationUnits", "byte * 2^20"),
            ("ElementName", &format!("{} MB of memory", size.memory_mib)),
            ("InstanceID", MEMORY),
            ("ResourceType", "4"),
            ("VirtualQuantity", &size.memory_mib.to_string()),
        ],
    );
}

/// One `Item`; the schema wants its elements in alphabetical order.
fn item(xml: &mut Xml, attributes: &[(&str, &str)], fields: &[(&str, &str)]) {
    xml.within("Item", attributes, |xml| {
        for (name, value) in fields {
            xml.leaf(&format!("rasd:{name}"), &[], value);
        }
    });
}
