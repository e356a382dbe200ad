//! The table: every rule of the formats, what it asks for, and what breaking it does, with the product's name.
//!
//! `Wrong` means that something refuses or misreads such a file, `Note` that it works and that somebody should know. What is
//! likely and not proven says so.

use super::{Level, Rule};

const fn wrong(name: &'static str, demands: &'static str, why: &'static str) -> Rule {
    Rule { name, level: Level::Wrong, demands, why }
}

const fn note(name: &'static str, demands: &'static str, why: &'static str) -> Rule {
    Rule { name, level: Level::Note, demands, why }
}

pub(super) const TAR_WHOLE: Rule = wrong(
    "tar-whole",
    "the archive has every byte that its headers announce, and ends with two empty blocks",
    "every reader stops where the archive does, and vSphere leaves half an upload behind",
);
pub(super) const TAR_FORMAT: Rule = wrong(
    "tar-format",
    "plain ustar headers: no PAX or GNU extension, no sparse member",
    "vSphere reads ustar alone: it chokes on sparse members, and takes an extension's header for a file",
);
pub(super) const TAR_SIZE: Rule = note(
    "tar-size",
    "no member of 8 GiB or more",
    "ustar cannot say such a size; readers that know no extension refuse the archive",
);
pub(super) const MEMBER_KIND: Rule = wrong(
    "member-kind",
    "plain files only: no folder, link or device",
    "vSphere and ovftool look for files that the descriptor names and refuse anything else",
);
pub(super) const MEMBER_NAMES: Rule = wrong(
    "member-names",
    "names without a folder, each once; manifest and certificate are called as the descriptor is",
    "vSphere looks for the names that the descriptor has, and `./a.vmdk` is not `a.vmdk`",
);
pub(super) const MEMBER_ORDER: Rule = wrong(
    "member-order",
    "first the descriptor, then manifest and certificate, then the files as `References` lists them",
    "vSphere reads the archive while it comes in: it must know descriptor and digests before the first disk",
);
pub(super) const MANIFEST_PLACE: Rule = note(
    "manifest-place",
    "the manifest comes right after the descriptor",
    "at the end OVF allows it too, but a reader of the stream then learns the digests after the disks (VirtualBox does so)",
);
pub(super) const MANIFEST: Rule = note(
    "manifest",
    "there is a manifest",
    "without digests neither vSphere nor ovftool notices a damaged upload",
);
pub(super) const MANIFEST_SPELLING: Rule = wrong(
    "manifest-spelling",
    "every line of the manifest is `SHA256(name)= digest`, to the space",
    "vCenter refuses a space before the bracket (as `sha256sum --tag` writes) and `SHA2-256(` (as OpenSSL 3 does)",
);
pub(super) const MANIFEST_MEMBERS: Rule = wrong(
    "manifest-members",
    "the manifest names the descriptor and every file once, and nothing else",
    "vSphere and ovftool refuse a manifest that is not about this package",
);
pub(super) const MANIFEST_DIGESTS: Rule = wrong(
    "manifest-digests",
    "every digest is right",
    "vSphere refuses the import after it has read the whole disk",
);
pub(super) const MANIFEST_SHA1: Rule = note(
    "manifest-sha1",
    "the digests are SHA-256 or better",
    "only ESXi up to 6.0 and old Fusion need SHA-1, and it no longer proves anything",
);
pub(super) const CERTIFICATE: Rule = wrong(
    "certificate",
    "the certificate file signs the manifest: `SHA256(name.mf)= signature`, then an X.509 certificate",
    "vSphere refuses a signed package whose signature it cannot read; imgbuild does not verify the signature itself",
);
pub(super) const DESCRIPTOR: Rule = wrong(
    "ovf-xml",
    "one descriptor: well-formed XML in UTF-8 without a DTD, an `Envelope` with a virtual system",
    "no importer gets beyond a descriptor that it cannot read",
);
pub(super) const OVF_VERSION: Rule = wrong(
    "ovf-version",
    "the envelope is of OVF 1 (`http://schemas.dmtf.org/ovf/envelope/1`)",
    "vSphere and ovftool read OVF 1 only; OVF 2.0 is what VirtualBox exports on request",
);
pub(super) const OVF_SYSTEM: Rule = note(
    "ovf-system",
    "the descriptor describes one machine, not a collection",
    "ESXi without vCenter refuses a collection (a vApp)",
);
pub(super) const VIRTUALBOX: Rule = wrong(
    "ovf-virtualbox",
    "nothing of VirtualBox alone: `virtualbox-2.2`, `StorageItem`, `EthernetPortItem`, a required `vbox:Machine`",
    "vSphere answers `Unsupported hardware family 'virtualbox-2.2'` or `unsupported element`, and imports nothing",
);
pub(super) const HARDWARE_VERSION: Rule = wrong(
    "ovf-hardware",
    "the system's type is a VMware hardware version of 11 or later, such as `vmx-13`",
    "the newest ESXi refuses vmx-10 and older, and every one refuses a type that it does not know",
);
pub(super) const HARDWARE_NEW: Rule = note(
    "ovf-hardware-new",
    "the hardware version is at most 13, which ESXi 6.5 knows",
    "older ESXi refuses the package: 14 needs 6.7, 15 needs 6.7 U2, 17 needs 7.0, 20 needs 8.0",
);
pub(super) const GUEST_OS: Rule = wrong(
    "ovf-guest-os",
    "the guest system's type is no younger than the hardware version",
    "an ESXi that knows the hardware but not the type answers `guest operating system not supported`",
);
pub(super) const REFERENCES: Rule = wrong(
    "ovf-references",
    "`References` and the archive have the same files, disks and items name what is there",
    "vSphere stops at `file not found`, after the disks before it were uploaded",
);
pub(super) const FILE_SIZE: Rule = wrong(
    "ovf-file-size",
    "`ovf:size` is the file's length in bytes",
    "vSphere's transfer waits for bytes that never come, or cuts the disk short",
);
pub(super) const DISK_FORMAT: Rule = wrong(
    "ovf-disk-format",
    "disks are streamOptimized VMDK, neither compressed again nor in pieces",
    "vSphere's content library takes streamOptimized disks alone",
);
pub(super) const CAPACITY: Rule = wrong(
    "ovf-capacity",
    "`capacity` is a whole number of `byte`, `byte * 2^20` or `byte * 2^30`, and no less than the disk in the file",
    "govc and vSphere parse these units only; a smaller capacity cuts the file system off",
);
pub(super) const POPULATED_SIZE: Rule = note(
    "ovf-populated-size",
    "`populatedSize` is what the disk holds unpacked, not the length of the compressed file",
    "vSphere's forecast of space for a thin disk is too small by the compression",
);
pub(super) const NETWORK: Rule = wrong(
    "ovf-network",
    "every network card is connected to a network that `NetworkSection` names",
    "vSphere and Cluster API end with `Host did not have any virtual network defined`",
);
pub(super) const NETWORK_UNUSED: Rule = note(
    "ovf-network-unused",
    "`NetworkSection` names no network without a card",
    "vSphere's wizard asks for a port group that nothing uses",
);
pub(super) const ITEMS: Rule = wrong(
    "ovf-items",
    "every hardware item has its own id, a type and a parent that exists; configurations are declared",
    "ovftool and vSphere refuse the hardware section",
);
pub(super) const ITEM_ORDER: Rule = note(
    "ovf-item-order",
    "the elements of an item are in the schema's order, which is the alphabet's",
    "importers that validate against the schema refuse it",
);
pub(super) const CONTROLLERS: Rule = wrong(
    "ovf-controllers",
    "controllers and cards are of kinds that vSphere has",
    "vSphere answers `No support for the virtual hardware device type`",
);
pub(super) const EXTRA_CONFIG: Rule = wrong(
    "ovf-extra-config",
    "`vmw:ExtraConfig` has `ovf:required=\"false\"`",
    "ESXi refuses a package that requires a key it does not know",
);
pub(super) const FIRMWARE: Rule = wrong(
    "ovf-firmware",
    "the firmware is `bios` or `efi`, and the disk boots by it",
    "the machine imports, and finds nothing to boot",
);
pub(super) const FIRMWARE_STATED: Rule = note(
    "ovf-firmware-stated",
    "the descriptor states the firmware",
    "vSphere takes BIOS, other importers what they like",
);
pub(super) const PROPERTIES: Rule = wrong(
    "ovf-properties",
    "properties have a key of their own, a type of OVF and a default of that type; only strings are passwords",
    "vSphere refuses the product section, or a value that is its own default",
);
pub(super) const TRANSPORT: Rule = note(
    "ovf-transport",
    "a system with properties says how they reach the guest: `com.vmware.guestInfo`, `iso`",
    "vSphere asks for the values and never hands them over",
);

/// The rules of an OVA; those of its disks follow.
pub const OVA: &[Rule] = &[
    TAR_WHOLE,
    TAR_FORMAT,
    TAR_SIZE,
    MEMBER_KIND,
    MEMBER_NAMES,
    MEMBER_ORDER,
    MANIFEST_PLACE,
    MANIFEST,
    MANIFEST_SPELLING,
    MANIFEST_MEMBERS,
    MANIFEST_DIGESTS,
    MANIFEST_SHA1,
    CERTIFICATE,
    DESCRIPTOR,
    OVF_VERSION,
    OVF_SYSTEM,
    VIRTUALBOX,
    HARDWARE_VERSION,
    HARDWARE_NEW,
    GUEST_OS,
    REFERENCES,
    FILE_SIZE,
    DISK_FORMAT,
    CAPACITY,
    POPULATED_SIZE,
    NETWORK,
    NETWORK_UNUSED,
    ITEMS,
    ITEM_ORDER,
    CONTROLLERS,
    EXTRA_CONFIG,
    FIRMWARE,
    FIRMWARE_STATED,
    PROPERTIES,
    TRANSPORT,
];

pub(super) const VMDK_HEADER: Rule = wrong(
    "vmdk-header",
    "version 3, with compressed grains, markers and line-end bytes; grains and tables of legal sizes; closed",
    "ESXi and ovftool refuse other versions as a stream, and a disk that was not closed everywhere",
);
pub(super) const VMDK_DESCRIPTOR: Rule = wrong(
    "vmdk-descriptor",
    "the descriptor inside is readable: `streamOptimized`, one extent, no parent",
    "VMware's readers open what it names: another file, or nothing",
);
pub(super) const VMDK_CAPACITY: Rule = wrong(
    "vmdk-capacity",
    "header and descriptor give the same size",
    "readers that believe one and readers that believe the other see different disks",
);
pub(super) const VMDK_CID: Rule = wrong(
    "vmdk-cid",
    "the content id is none of those that mean `no content`",
    "VMware takes `ffffffff` for `no parent`: Workstation cannot make a snapshot of such a disk",
);
pub(super) const VMDK_ADAPTER: Rule = wrong(
    "vmdk-adapter",
    "the adapter type is `lsilogic` (or `ide` on an IDE or SATA controller)",
    "ESXi warns of or refuses an IDE disk on a SCSI controller; qemu-img writes `ide` unless told otherwise",
);
pub(super) const VMDK_TOOLS: Rule = note(
    "vmdk-tools",
    "the disk says who looks after VMware's tools: `ddb.toolsInstallType = \"4\"` with version 2147483647",
    "vCenter reports outdated tools and offers to install its own over open-vm-tools",
);
pub(super) const VMDK_GRAINS: Rule = wrong(
    "vmdk-grains",
    "grains come in the order of the disk, lie within it, and inflate to exactly their size",
    "vSphere writes the stream as it comes: it stops at the first bad grain",
);
pub(super) const VMDK_TABLES: Rule = wrong(
    "vmdk-tables",
    "tables and directory name every grain at its place, and nothing else",
    "QEMU and Workstation read by the tables, vSphere reads the stream: they would see different disks",
);
pub(super) const VMDK_FOOTER: Rule = wrong(
    "vmdk-footer",
    "the footer repeats the header and says where the directory is",
    "QEMU and ovftool find the directory through it alone",
);
pub(super) const VMDK_END: Rule = wrong(
    "vmdk-end-of-stream",
    "the last sector, and only that, is an end-of-stream marker",
    "VMware's own converter ends a disk so, qemu-img does not; disks that end otherwise were refused by vSphere's content \
     library, ovftool and Workstation (the likely cause, not a proven one)",
);
pub(super) const VMDK_REDUNDANT: Rule = note(
    "vmdk-redundant",
    "a stream has no second directory",
    "VMware's converter writes none, qemu-img does; no reader of a stream needs it",
);

/// The rules of a streamOptimized disk.
pub const VMDK: &[Rule] = &[
    VMDK_HEADER,
    VMDK_DESCRIPTOR,
    VMDK_CAPACITY,
    VMDK_CID,
    VMDK_ADAPTER,
    VMDK_TOOLS,
    VMDK_GRAINS,
    VMDK_TABLES,
    VMDK_FOOTER,
    VMDK_END,
    VMDK_REDUNDANT,
];

pub(super) const QCOW2_HEADER: Rule = wrong(
    "qcow2-header",
    "version 2 or 3, with sizes that the format allows, unencrypted",
    "QEMU refuses the disk, or asks for a key that nobody has",
);
pub(super) const QCOW2_REFERENCES: Rule = wrong(
    "qcow2-references",
    "no backing file and no data file: the disk is all in this file",
    "QEMU reads whatever file or host such a disk names; clouds (OpenStack, Proxmox) refuse it for that",
);
pub(super) const QCOW2_FEATURES: Rule = wrong(
    "qcow2-features",
    "no feature bit that readers do not know, and neither marked dirty nor corrupt",
    "QEMU refuses a disk with an unknown bit, and opens a corrupt one for reading only",
);
pub(super) const QCOW2_CHECK: Rule = wrong(
    "qcow2-check",
    "`qemu-img check` finds no error and no lost cluster",
    "QEMU may hand one cluster to two places: the guest's data is overwritten",
);
pub(super) const QCOW2_READERS: Rule = note(
    "qcow2-readers",
    "every QEMU of today's long-term distributions reads it",
    "older QEMU (CentOS 7 and 8, Ubuntu 20.04, Debian 10) refuses the disk: export with zlib for these",
);
pub(super) const QCOW2_SNAPSHOTS: Rule = note(
    "qcow2-snapshots",
    "no snapshot inside",
    "a snapshot takes space and carries what the disk once held",
);

/// The rules of a qcow2.
pub const QCOW2: &[Rule] =
    &[QCOW2_HEADER, QCOW2_REFERENCES, QCOW2_FEATURES, QCOW2_CHECK, QCOW2_READERS, QCOW2_SNAPSHOTS];

/// Broken, they keep others from reading the disk, so that its content is not looked at.
pub(super) const UNREADABLE: &[Rule] = &[
    TAR_WHOLE,
    TAR_FORMAT,
    MEMBER_KIND,
    MEMBER_NAMES,
    DESCRIPTOR,
    REFERENCES,
    VMDK_HEADER,
    VMDK_DESCRIPTOR,
    VMDK_CAPACITY,
    VMDK_GRAINS,
    VMDK_TABLES,
    VMDK_FOOTER,
    QCOW2_HEADER,
    QCOW2_REFERENCES,
    QCOW2_FEATURES,
    QCOW2_CHECK,
];
