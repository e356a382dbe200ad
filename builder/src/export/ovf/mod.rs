//! The OVF 1.1 descriptor (DSP0243): what vSphere, Workstation, Fusion and VirtualBox read.
//!
//! Guarantees: the same arguments give the same text; sections and elements stand in the order that the schema (DSP8023) wants; no
//! property is required, so that no machine is kept from powering on; what only VMware knows is marked as not required, so that
//! others pass over it.

mod hardware;
mod properties;
#[cfg(test)]
pub(super) mod tests;

use super::xml::Xml;
use crate::recipe::Recipe;

/// What the descriptor calls the one network.
pub const NETWORK: &str = "VM Network";

const STREAM_OPTIMIZED: &str = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";

/// One disk of the package.
#[derive(Debug, Clone)]
pub struct Disk {
    /// File name in the package.
    pub name: String,
    /// Length of that file in bytes.
    pub bytes: u64,
    /// Size of the disk in bytes.
    pub capacity: u64,
    /// Bytes that the disk's content occupies.
    pub populated: u64,
}

/// The descriptor's text. `eula` is what [`Recipe::eula`] read. Of the disks, `bytes` and `populated` change nothing but their own
/// digits: with `u64::MAX` in both the text is as long as it can become, and white space behind its end keeps it valid, so that a
/// writer can leave room for what it does not know yet.
pub fn descriptor(recipe: &Recipe, stem: &str, disks: &[Disk], eula: Option<&str>) -> String {
    let mut xml = Xml::new();
    let names = [
        ("xmlns", "http://schemas.dmtf.org/ovf/envelope/1"),
        ("xmlns:ovf", "http://schemas.dmtf.org/ovf/envelope/1"),
        ("xmlns:rasd", "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"),
        ("xmlns:vmw", "http://www.vmware.com/schema/ovf"),
        ("xmlns:vssd", "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"),
    ];
    xml.within("Envelope", &names, |xml| {
        package(xml, disks);
        hardware::sizes(xml, recipe);
        xml.within("VirtualSystem", &[("ovf:id", stem)], |xml| {
            xml.leaf("Info", &[], "A Mastodon appliance");
            xml.leaf("Name", &[], stem);
            about(xml, recipe, eula);
            properties::product(xml, recipe);
            hardware::section(xml, recipe, stem, disks);
        });
    });
    xml.finish()
}

/// Files, disks and the network.
fn package(xml: &mut Xml, disks: &[Disk]) {
    xml.within("References", &[], |xml| {
        for (number, disk) in (1..).zip(disks) {
            let attributes = [
                ("ovf:href", &*disk.name),
                ("ovf:id", &format!("file{number}")),
                ("ovf:size", &disk.bytes.to_string()),
            ];
            xml.empty("File", &attributes);
        }
    });
    xml.within("DiskSection", &[], |xml| {
        xml.leaf("Info", &[], "Virtual disks");
        for (number, disk) in (1..).zip(disks) {
            let attributes = [
                ("ovf:capacity", &*disk.capacity.to_string()),
                ("ovf:capacityAllocationUnits", "byte"),
                ("ovf:diskId", &format!("disk{number}")),
                ("ovf:fileRef", &format!("file{number}")),
                ("ovf:format", STREAM_OPTIMIZED),
                ("ovf:populatedSize", &disk.populated.to_string()),
            ];
            xml.empty("Disk", &attributes);
        }
    });
    xml.within("NetworkSection", &[], |xml| {
        xml.leaf("Info", &[], "The networks that the machine is attached to");
        xml.within("Network", &[("ovf:name", NETWORK)], |xml| {
            xml.leaf("Description", &[], "The network that the instance is reached through");
        });
    });
}

/// The guest system, the annotation, the licence.
fn about(xml: &mut Xml, recipe: &Recipe, eula: Option<&str>) {
    let image = &recipe.image;
    let guest = &*image.machine.vsphere_guest;
    let attributes = [("ovf:id", system_type(guest)), ("vmw:osType", guest)];
    xml.within("OperatingSystemSection", &attributes, |xml| {
        xml.leaf("Info", &[], "The guest operating system");
        xml.leaf("Description", &[], &image.title);
    });
    xml.within("AnnotationSection", &[("ovf:required", "false")], |xml| {
        xml.leaf("Info", &[], "About this appliance");
        let text = format!(
            "{} (tag {}): a system disk of {}, and a data disk of {} that all state is kept on. Fill in the properties when \
             you deploy it, or attach a CD with a configuration; the console says what it waits for.",
            image.title,
            image.app.tag,
            image.disk.system,
            image.disk.data
        );
        xml.leaf("Annotation", &[], &text);
    });
    if let Some(text) = eula {
        xml.within("EulaSection", &[], |xml| {
            xml.leaf("Info", &[], "The licence that whoever deploys the appliance accepts");
            xml.leaf("License", &[], text);
        });
    }
}

/// `CIM_OperatingSystem.OsType` of vSphere's name of a guest.
fn system_type(guest: &str) -> &'static str {
    if !guest.ends_with("64Guest") {
        "36" // Linux
    } else if guest.starts_with("centos") {
        "107"
    } else if guest.starts_with("debian") {
        "96"
    } else {
        "101" // Linux 64-Bit
    }
}
