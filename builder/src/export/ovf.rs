//! The OVF 1.1 descriptor: what vSphere, Workstation, Fusion and VirtualBox read.

use crate::recipe::Recipe;

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

/// The descriptor's text.
pub fn descriptor(recipe: &Recipe, stem: &str, disks: &[Disk]) -> String {
    let image = &recipe.image;
    let title = escape(&image.title);
    let mut files = String::new();
    let mut table = String::new();
    let mut drives = String::new();
    for (index, disk) in disks.iter().enumerate() {
        let number = index + 1;
        files.push_str(&format!(
            "    <File ovf:href=\"{}\" ovf:id=\"file{number}\" ovf:size=\"{}\"/>\n",
            disk.name, disk.bytes
        ));
        table.push_str(&format!(
            "    <Disk ovf:capacity=\"{}\" ovf:capacityAllocationUnits=\"byte\" ovf:diskId=\"disk{number}\" ovf:fileRef=\"file{number}\" \
             ovf:format=\"http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized\" ovf:populatedSize=\"{}\"/>\n",
            disk.capacity, disk.populated
        ));
        drives.push_str(&item(&[
            ("AddressOnParent", &index.to_string()),
            ("ElementName", &format!("Hard disk {number}")),
            ("HostResource", &format!("ovf:/disk/disk{number}")),
            ("InstanceID", &(10 + index).to_string()),
            ("Parent", "3"),
            ("ResourceType", "17"),
        ]));
    }
    let cpus = image.machine.cpus.to_string();
    let memory = (image.machine.memory.bytes() >> 20).to_string();
    let hardware = [
        item(&[
            ("AllocationUnits", "hertz * 10^6"),
            ("ElementName", &format!("{cpus} virtual CPUs")),
            ("InstanceID", "1"),
            ("ResourceType", "3"),
            ("VirtualQuantity", &cpus),
        ]),
        item(&[
            ("AllocationUnits", "byte * 2^20"),
            ("ElementName", &format!("{memory} MB of memory")),
            ("InstanceID", "2"),
            ("ResourceType", "4"),
            ("VirtualQuantity", &memory),
        ]),
        item(&[
            ("Address", "0"),
            ("ElementName", "SCSI controller 0"),
            ("InstanceID", "3"),
            ("ResourceSubType", "VirtualSCSI"),
            ("ResourceType", "6"),
        ]),
        drives,
        item(&[
            ("AddressOnParent", "7"),
            ("AutomaticAllocation", "true"),
            ("Connection", "VM Network"),
            ("ElementName", "Network adapter 1"),
            ("InstanceID", "20"),
            ("ResourceSubType", "VmxNet3"),
            ("ResourceType", "10"),
        ]),
    ]
    .concat();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\" \
         xmlns:rasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData\" \
         xmlns:vmw=\"http://www.vmware.com/schema/ovf\" \
         xmlns:vssd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData\">\n  \
         <References>\n{files}  </References>\n  \
         <DiskSection>\n    <Info>Virtual disks</Info>\n{table}  </DiskSection>\n  \
         <NetworkSection>\n    <Info>The networks that the machine is attached to</Info>\n    \
         <Network ovf:name=\"VM Network\">\n      <Description>The network that the instance is reached through</Description>\n    </Network>\n  </NetworkSection>\n  \
         <VirtualSystem ovf:id=\"{stem}\">\n    <Info>A Mastodon appliance</Info>\n    <Name>{stem}</Name>\n    \
         <OperatingSystemSection ovf:id=\"96\" vmw:osType=\"{}\">\n      <Info>The guest operating system</Info>\n    </OperatingSystemSection>\n    \
         <AnnotationSection>\n      <Info>About this appliance</Info>\n      <Annotation>{title}</Annotation>\n    </AnnotationSection>\n    \
         <VirtualHardwareSection>\n      <Info>Virtual hardware</Info>\n      <System>\n        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>\n        \
         <vssd:InstanceID>0</vssd:InstanceID>\n        <vssd:VirtualSystemIdentifier>{stem}</vssd:VirtualSystemIdentifier>\n        \
         <vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType>\n      </System>\n{hardware}      \
         <vmw:Config ovf:required=\"false\" vmw:key=\"firmware\" vmw:value=\"bios\"/>\n    </VirtualHardwareSection>\n  </VirtualSystem>\n</Envelope>\n",
        image.machine.vsphere_guest
    )
}

/// One `Item`; the schema wants its elements in alphabetical order.
fn item(fields: &[(&str, &str)]) -> String {
    let mut text = String::from("      <Item>\n");
    for (name, value) in fields {
        text.push_str(&format!("        <rasd:{name}>{}</rasd:{name}>\n", escape(value)));
    }
    text.push_str("      </Item>\n");
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
