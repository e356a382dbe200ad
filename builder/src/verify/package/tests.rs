//! One good package, spoilt by one fault at a time: exactly the rule that forbids it must fire.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::section::Section;
use super::testing::{Disk, Parts, broken, examine_ova, examine_vmdk, line, pack, tar_header, whole_grain};
use super::{OVA, Outcome, QCOW2, Report, VMDK, qcow2, xml};
use crate::formats::testing::Images;
use crate::formats::vmdk::header::{
    FLAG_MARKERS, FLAG_NEWLINES, FLAG_REDUNDANT, FLAG_ZERO_GRAINS, GRAIN_SECTORS, Header,
};

/// What is done to the package, and the rules that must fire.
type Fault = (&'static str, fn(&mut Parts), &'static [&'static str]);

fn replace(from: &'static str, to: &'static str) -> impl Fn(&mut Parts) {
    move |parts| parts.replace(from, to)
}

fn with(edit: impl Fn(&mut Parts)) -> Vec<&'static str> {
    let mut parts = Parts::good();
    edit(&mut parts);
    broken(&examine_ova(&parts.bytes()))
}

#[test]
fn a_good_package_breaks_no_rule_and_none_is_left_unchecked() {
    let verdicts = examine_ova(&Parts::good().bytes());
    assert_eq!(broken(&verdicts), Vec::<&str>::new(), "{verdicts:#?}");
    assert!(verdicts.iter().all(|verdict| verdict.outcome == Outcome::Ok), "{verdicts:#?}");
    assert_eq!(verdicts.len(), super::OVA.len() + super::VMDK.len() - 1, "all but that of the certificate");
}

const ARCHIVE: &[Fault] = &[
    ("cut before its end", |parts| parts.edit_tar = |tar| tar.truncate(tar.len() - 1024), &["tar-whole"]),
    ("one empty block", |parts| parts.edit_tar = |tar| tar.truncate(tar.len() - 512), &["tar-whole"]),
    ("something after it", |parts| parts.edit_tar = |tar| tar.extend([0, 0, 1]), &["tar-whole"]),
    (
        "GNU's magic",
        |parts| {
            parts.edit_tar = |tar| again(tar, |header| header[257..265].copy_from_slice(b"ustar  \0"));
        },
        &["tar-format"],
    ),
    (
        "before ustar",
        |parts| parts.edit_tar = |tar| again(tar, |header| header[257..265].fill(0)),
        &["tar-format"],
    ),
    (
        "a size that ustar cannot say",
        |parts| {
            parts.edit_tar = |tar| {
                again(tar, |header| {
                    let octal = std::str::from_utf8(&header[124..135]).unwrap().to_owned();
                    let size = u64::from_str_radix(&octal, 8).unwrap();
                    header[124..136].fill(0);
                    header[124] = 0x80;
                    header[128..136].copy_from_slice(&size.to_be_bytes());
                });
            };
        },
        &["tar-size"],
    ),
    (
        "a PAX header",
        |parts| {
            parts.edit_tar = |tar| {
                let mut records = tar_header("pax", 20, b'x').to_vec();
                records.extend(b"20 mtime=1700000000\n");
                records.resize(1024, 0);
                tar.splice(0..0, records);
            };
        },
        &["tar-format"],
    ),
    (
        "a folder",
        |parts| parts.edit_tar = |tar| drop(tar.splice(0..0, tar_header("folder", 0, b'5'))),
        &["member-kind"],
    ),
    (
        "a name with a folder",
        |parts| parts.edit_members = |members| members[0].0 = "./small.ovf".to_owned(),
        &["member-names", "manifest-members"],
    ),
    (
        "disk before manifest",
        |parts| {
            parts.edit_members = |members| {
                let disk = members[2].clone();
                members.insert(1, disk);
                members.pop();
                members.push(("other.txt".to_owned(), Vec::new()));
            }
        },
        &["member-order", "manifest-members", "ovf-references"],
    ),
    ("descriptor last", |parts| parts.edit_members = |members| members.rotate_left(1), &["member-order"]),
    ("manifest last", |parts| parts.edit_members = |members| members.swap(1, 2), &["manifest-place"]),
    (
        "another name of the manifest",
        |parts| parts.edit_members = |members| members[1].0 = "a.mf".to_owned(),
        &["member-names"],
    ),
    ("no manifest", |parts| parts.edit_members = |members| drop(members.remove(1)), &["manifest"]),
    (
        "twice the disk",
        |parts| parts.edit_members = |members| members.push(members[2].clone()),
        &["member-names", "manifest-members"],
    ),
    (
        "no descriptor",
        |parts| parts.edit_members = |members| members[0].0 = "small.xml".to_owned(),
        &["manifest-members", "ovf-xml"],
    ),
    (
        "a certificate that is none",
        |parts| {
            parts.edit_members = |members| members.insert(2, ("small.cert".to_owned(), b"hello".to_vec()));
        },
        &["certificate"],
    ),
    (
        "a good certificate",
        |parts| {
            parts.edit_members = |members| {
                let text = format!(
                    "SHA256(small.mf)= {}\n-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n",
                    "0a".repeat(256)
                );
                members.insert(2, ("small.cert".to_owned(), text.into_bytes()));
            };
        },
        &[],
    ),
];

#[test]
fn each_fault_of_the_archive_breaks_its_rule_alone() {
    check(ARCHIVE);
}

const MANIFEST: &[Fault] = &[
    // As `sha256sum --tag` writes it, OpenSSL 3, `sha256sum`, and a slip.
    (
        "HAOS' space",
        |parts| parts.edit_manifest = |text| text.replace("256(", "256 (").replace(")= ", ") = "),
        &["manifest-spelling"],
    ),
    (
        "OpenSSL 3's name",
        |parts| parts.edit_manifest = |text| text.replace("SHA256", "SHA2-256"),
        &["manifest-spelling"],
    ),
    ("no space", |parts| parts.edit_manifest = |text| text.replace(")= ", ")="), &["manifest-spelling"]),
    (
        "another kind of line",
        |parts| parts.edit_manifest = |text| text + "checked by me\n",
        &["manifest-spelling"],
    ),
    (
        "a wrong digest",
        |parts| {
            parts.edit_manifest = |text| line("small.ovf", b"") + text.lines().nth(1).unwrap_or_default();
        },
        &["manifest-digests"],
    ),
    (
        "a name too many",
        |parts| parts.edit_manifest = |text| text + &line("b.vmdk", b""),
        &["manifest-members"],
    ),
    (
        "digests of old",
        |parts| {
            parts.edit_members = |members| {
                use sha1::Digest as _;
                let line = |(name, content): &(String, Vec<u8>)| {
                    format!("SHA1({name})= {}\n", crate::store::hex(&sha1::Sha1::digest(content)))
                };
                members[1].1 = (line(&members[0]) + &line(&members[2])).into_bytes();
            };
        },
        &["manifest-sha1"],
    ),
    ("a name twice", |parts| parts.edit_manifest = |text| text.repeat(2), &["manifest-members"]),
    (
        "upper-case digests",
        |parts| {
            parts.edit_manifest = |text| {
                text.to_ascii_uppercase()
                    .replace("SMALL.OVF", "small.ovf")
                    .replace("SMALL.VMDK", "small.vmdk")
            }
        },
        &[],
    ),
];

#[test]
fn each_fault_of_the_manifest_breaks_its_rule_alone() {
    check(MANIFEST);
}

/// Changes the first header of an archive and mends its checksum.
fn again(archive: &mut [u8], edit: fn(&mut [u8])) {
    edit(&mut archive[..512]);
    archive[148..156].fill(b' ');
    let sum: u32 = archive[..512].iter().map(|byte| u32::from(*byte)).sum();
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn check(faults: &[Fault]) {
    for (name, fault, expected) in faults {
        assert_eq!(with(fault), *expected, "{name}");
    }
}

const DISK: &[Fault] = &[
    ("version 1", |parts| parts.disk.header.version = 1, &["vmdk-header"]),
    ("no line ends", |parts| parts.disk.header.flags &= !FLAG_NEWLINES, &["vmdk-header"]),
    ("no markers", |parts| parts.disk.header.flags &= !FLAG_MARKERS, &["vmdk-header"]),
    ("not closed", |parts| parts.disk.header.unclean = true, &["vmdk-header"]),
    ("odd grains", |parts| parts.disk.header.grain_sectors = 100, &["vmdk-header"]),
    ("no grains", |parts| parts.disk.header.grain_sectors = 0, &["vmdk-header"]),
    ("claims too much", |parts| parts.disk.header.capacity = u64::MAX, &["vmdk-header", "vmdk-capacity"]),
    ("a second directory", |parts| parts.disk.header.flags |= FLAG_REDUNDANT, &["vmdk-redundant"]),
    ("another type", |parts| edit(parts, "streamOptimized", "monolithicSparse"), &["vmdk-descriptor"]),
    ("another extent", |parts| edit(parts, "\"small.vmdk\"", "\"/etc/shadow\""), &["vmdk-descriptor"]),
    ("a parent", |parts| edit(parts, "parentCID=ffffffff", "parentCID=12345678"), &["vmdk-descriptor"]),
    ("a second extent", |parts| parts.disk.text += "RW 1 FLAT \"b\" 0\n", &["vmdk-descriptor"]),
    ("another size", |parts| edit(parts, "RDONLY 6", "RDONLY 7"), &["vmdk-capacity"]),
    ("no content id", |parts| edit(parts, "CID=a1b2c3d4", "CID=fffffffe"), &["vmdk-cid"]),
    ("an IDE disk", |parts| edit(parts, "lsilogic", "ide"), &["vmdk-adapter"]),
    ("tools", |parts| edit(parts, "ddb.toolsInstallType = \"4\"\n", ""), &["vmdk-tools"]),
    ("grains out of order", |parts| parts.disk.grains.swap(0, 1), &["vmdk-grains"]),
    ("a grain between grains", |parts| parts.disk.grains[1].0 += 1, &["vmdk-grains"]),
    ("a grain outside", |parts| parts.disk.grains[2].0 += GRAIN_SECTORS, &["vmdk-grains"]),
    ("a damaged grain", |parts| parts.disk.grains[1].1[9] ^= 0xff, &["vmdk-grains"]),
    ("a short grain", |parts| parts.disk.grains[1].1 = pack(&[7; 512]), &["vmdk-grains"]),
    ("a long grain", |parts| parts.disk.grains[1].1 = pack(&whole_grain(7).repeat(2)), &["vmdk-grains"]),
    ("a whole last grain", |parts| parts.disk.grains[2].1 = pack(&whole_grain(3)), &[]),
    ("no grain but the first", |parts| parts.disk.grains.truncate(1), &[]),
    ("a table that lies", |parts| parts.disk.edit_table = |table| table[3] ^= 1, &["vmdk-tables"]),
    ("a grain too many in a table", |parts| parts.disk.edit_table = |table| table[9] = 200, &["vmdk-tables"]),
    (
        "grains of zeros in a table",
        |parts| {
            parts.disk.header.flags |= FLAG_ZERO_GRAINS;
            parts.disk.edit_table = |table| table[9] = 1;
        },
        &[],
    ),
    (
        "grains of zeros that the header does not announce",
        |parts| parts.disk.edit_table = |table| table[9] = 1,
        &["vmdk-tables"],
    ),
    ("no tables", |parts| parts.disk.with_tables = false, &["vmdk-tables"]),
    (
        "a directory that lies",
        |parts| parts.disk.edit_directory = |directory| directory.swap(0, 1),
        &["vmdk-tables"],
    ),
    ("a footer that lies", |parts| parts.disk.edit_footer = |footer| footer.capacity += 1, &["vmdk-footer"]),
    (
        "a footer without directory",
        |parts| parts.disk.edit_footer = |footer| footer.gd_offset = 5,
        &["vmdk-footer"],
    ),
    ("no end of stream", |parts| parts.disk.tail.clear(), &["vmdk-end-of-stream"]),
    ("qemu-img's end", |parts| parts.disk.tail = vec![0; 64_512], &["vmdk-end-of-stream"]),
    ("half a sector", |parts| parts.disk.tail.truncate(100), &["vmdk-end-of-stream"]),
    ("half a sector more", |parts| parts.disk.tail.extend([0; 100]), &["vmdk-end-of-stream"]),
    ("something after it", |parts| parts.disk.tail.extend([1; 512]), &["vmdk-end-of-stream"]),
    ("no code for a BIOS", |parts| parts.disk.grains[0].1 = pack(&boot_sector(0, 0xef)), &["ovf-firmware"]),
];

#[test]
fn each_fault_of_the_disk_breaks_its_rule_alone() {
    check(DISK);
}

fn edit(parts: &mut Parts, from: &str, to: &str) {
    assert!(parts.disk.text.contains(from), "no `{from}`");
    parts.disk.text = parts.disk.text.replace(from, to);
}

fn boot_sector(code: u8, partition: u8) -> Vec<u8> {
    let mut grain = whole_grain(0);
    (grain[0], grain[450], grain[510], grain[511]) = (code, partition, 0x55, 0xaa);
    grain
}

const DESCRIPTOR: &[(&str, &str, &str)] = &[
    // VirtualBox, as it exports.
    ("vmx-13<", "virtualbox-2.2<", "ovf-virtualbox"),
    ("<vmw:Config", "<vbox:Machine/><vmw:Config", ""),
    ("</VirtualHardwareSection>", "</VirtualHardwareSection><vbox:Machine ovf:required=\"false\"/>", ""),
    ("</VirtualHardwareSection>", "</VirtualHardwareSection><vbox:Machine/>", "ovf-virtualbox"),
    ("<Item><rasd:ElementName>disk", "<StorageItem><rasd:ElementName>disk", "ovf-xml"),
    ("envelope/1\" xmlns:ovf", "envelope/2\" xmlns:ovf", "ovf-version"),
    // osbuild, without a network.
    ("<NetworkSection><Info>x</Info><Network ovf:name=\"net\"/></NetworkSection>", "", "ovf-network"),
    ("<rasd:Connection>net<", "<rasd:Connection>lan<", "ovf-network ovf-network-unused"),
    ("<rasd:Connection>net</rasd:Connection>", "", "ovf-network ovf-network-unused"),
    (
        "<Network ovf:name=\"net\"/>",
        "<Network ovf:name=\"net\"/><Network ovf:name=\"b\"/>",
        "ovf-network-unused",
    ),
    ("vmx-13<", "vmx-10<", "ovf-hardware"),
    ("vmx-13<", "vmx-11, vmx-17<", ""),
    ("vmx-13<", "xen-3<", "ovf-hardware"),
    ("<System><vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType></System>", "", "ovf-hardware"),
    ("vmx-13<", "vmx-17<", "ovf-hardware-new"),
    ("centos7_64Guest", "debian12_64Guest", "ovf-guest-os"),
    ("centos7_64Guest", "debian10_64Guest", ""),
    ("href=\"small.vmdk\"", "href=\"other.vmdk\"", "ovf-references"),
    ("ovf:fileRef=\"file1\"", "ovf:fileRef=\"file2\"", "ovf-references"),
    ("ovf:/disk/disk1", "ovf:/disk/disk2", "ovf-references"),
    ("ovf:/disk/disk1", "/disk/disk1", ""),
    ("ovf:size=\"@SIZE@\"", "ovf:size=\"5\"", "ovf-file-size"),
    ("ovf:size=\"@SIZE@\"", "", ""),
    ("#streamOptimized", "#sparse", "ovf-disk-format"),
    ("ovf:capacity=\"33\"", "ovf:capacity=\"32\"", "ovf-capacity"),
    ("ovf:capacity=\"33\"", "ovf:capacity=\"33.5\"", "ovf-capacity"),
    ("ovf:capacity=\"33\"", "ovf:capacity=\"99999999999999999\"", "ovf-capacity"),
    ("byte * 2^20", "MegaBytes", "ovf-capacity"),
    ("byte * 2^20", "byte*2^30", ""),
    ("byte * 2^20", "byte * 2^10", "ovf-capacity"),
    ("byte * 2^20", "byte * 2^40", "ovf-capacity"),
    ("populatedSize=\"196608\"", "populatedSize=\"@SIZE@\"", "ovf-populated-size"),
    ("populatedSize=\"196608\"", "populatedSize=\"99999999\"", "ovf-populated-size"),
    ("ovf:configuration=\"small\"", "ovf:configuration=\"large\"", "ovf-items"),
    ("<rasd:InstanceID>5<", "<rasd:InstanceID>4<", "ovf-items"),
    ("<rasd:Parent>3<", "<rasd:Parent>9<", "ovf-items"),
    (
        "<rasd:InstanceID>4</rasd:InstanceID><rasd:Parent>3</rasd:Parent>",
        "<rasd:Parent>3</rasd:Parent><rasd:InstanceID>4</rasd:InstanceID>",
        "ovf-item-order",
    ),
    (">VirtualSCSI<", ">virtio<", "ovf-controllers"),
    (">VirtualSCSI<", ">lsilogic<", ""),
    (">VmxNet3<", ">PCNet32 E1000<", ""),
    (">VmxNet3<", ">virtio<", "ovf-controllers"),
    ("<vmw:ExtraConfig ovf:required=\"false\"", "<vmw:ExtraConfig", "ovf-extra-config"),
    ("vmw:value=\"bios\"", "vmw:value=\"efi\"", ""),
    ("vmw:value=\"bios\"", "vmw:value=\"uefi\"", "ovf-firmware"),
    (
        "<vmw:Config ovf:required=\"false\" vmw:key=\"firmware\" vmw:value=\"bios\"/>",
        "",
        "ovf-firmware-stated",
    ),
    ("key=\"port\"", "key=\"domain\"", "ovf-properties"),
    ("ovf:value=\"443\"", "ovf:value=\"70000\"", "ovf-properties"),
    ("ovf:value=\"a\"", "ovf:value=\"c\"", "ovf-properties"),
    ("type=\"uint16\"", "type=\"number\"", "ovf-properties"),
    ("type=\"string\" ovf:password", "type=\"boolean\" ovf:password", "ovf-properties"),
    (" ovf:transport=\"com.vmware.guestInfo iso\"", "", "ovf-transport"),
    ("<?xml version=\"1.0\" encoding=\"UTF-8\"?>", "<!DOCTYPE Envelope [<!ENTITY a \"b\">]>", "ovf-xml"),
    ("<Info>x</Info>", "<Info>&xxe;</Info>", "ovf-xml"),
    ("</Envelope>", "", "ovf-xml"),
    ("Envelope", "Package", "ovf-xml"),
    ("VirtualSystem", "Machine", "ovf-xml"),
];

#[test]
fn each_fault_of_the_descriptor_breaks_its_rule_alone() {
    for (from, to, expected) in DESCRIPTOR {
        let found = with(replace(from, to));
        assert_eq!(found.join(" "), *expected, "`{from}` -> `{to}`");
    }
}

/// The machine in a collection: the one fault that takes two places.
fn collection() -> Vec<&'static str> {
    with(|parts| {
        parts.replace("<VirtualSystem ", "<VirtualSystemCollection><VirtualSystem ");
        parts.replace("</VirtualSystem>", "</VirtualSystem></VirtualSystemCollection>");
    })
}

#[test]
fn a_collection_is_noted() {
    assert_eq!(collection(), ["ovf-system"]);
}

/// Every rule is broken by some fault here: one that nothing breaks may as well not be there.
#[test]
fn no_rule_is_without_its_fault() {
    let listed =
        [ARCHIVE, MANIFEST, DISK].concat().into_iter().flat_map(|(_, _, rules)| rules.iter().copied());
    let listed = listed.chain(DESCRIPTOR.iter().flat_map(|(_, _, rules)| rules.split_whitespace()));
    let mut broken: BTreeSet<&str> = listed.chain(HEADER.iter().map(|(_, rule)| *rule)).collect();
    // These have tests of their own.
    broken.extend(["ovf-system", "qcow2-check"]);
    let rules: BTreeSet<&str> = [OVA, VMDK, QCOW2].concat().iter().map(|rule| rule.name).collect();
    assert_eq!(broken, rules);
}

#[test]
fn an_ide_disk_is_right_on_an_ide_controller() {
    let found = with(|parts| {
        edit(parts, "lsilogic", "ide");
        parts.replace(
            "<rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType><rasd:ResourceType>6<",
            "<rasd:ResourceType>5<",
        );
    });
    assert_eq!(found, Vec::<&str>::new());
}

#[test]
fn a_descriptor_has_limits() {
    let deep = "<a>".repeat(70) + &"</a>".repeat(70);
    assert!(xml::parse(deep.as_bytes()).unwrap_err().contains("too deep"));
    let many = format!("<a>{}</a>", "<b/>".repeat(60_000));
    assert!(xml::parse(many.as_bytes()).unwrap_err().contains("too many"));
    let attributes = (0..200).fold(String::new(), |text, number| format!("{text} a{number}=\"\""));
    assert!(xml::parse(format!("<a{attributes}/>").as_bytes()).unwrap_err().contains("too many"));
    assert!(xml::parse(b"<a b=\"1\" b=\"2\"/>").is_err());
    assert!(xml::parse(b"\xff\xfe<\0a\0").unwrap_err().contains("UTF-8"));
}

#[test]
fn a_finding_is_kept_short_however_much_is_wrong() {
    let found = Parts { edit_manifest: |text| text + &"x\n".repeat(1000), ..Parts::good() };
    let verdicts = examine_ova(&found.bytes());
    let spelling = verdicts.iter().find(|verdict| verdict.rule.name == "manifest-spelling").unwrap();
    assert_eq!(spelling.found.len(), 9);
    assert_eq!(spelling.found[8], "and 992 more");
}

#[test]
fn what_a_broken_disk_hides_is_not_called_right() {
    let mut bytes = Disk::good().bytes();
    bytes[0] = b'X';
    let verdicts = examine_vmdk(&bytes);
    assert_eq!(broken(&verdicts), ["vmdk-header"]);
    assert!(verdicts[1..].iter().all(|verdict| verdict.outcome == Outcome::Unchecked), "{verdicts:#?}");
}

/// Bytes and their places.
type Edits<'e> = &'e [(usize, &'e [u8])];

/// A qcow2's header, with bytes put at places.
fn qcow2_with(edits: Edits<'_>) -> Vec<&'static str> {
    let mut head = vec![0; 512];
    let good: [(usize, &[u8]); 6] =
        [(0, b"QFI\xfb"), (7, &[3]), (23, &[16]), (28, &[1]), (99, &[4]), (103, &[112])];
    for (at, bytes) in good.iter().chain(edits) {
        head[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
    let length = head.len() as u64;
    let mut report = Report::new(QCOW2.iter().copied());
    qcow2::header(&Section::new(&head.as_slice(), length), &mut report).unwrap();
    broken(&report.verdicts())
}

const HEADER: &[(Edits<'_>, &str)] = &[
    (&[(7, &[4])], "qcow2-header"),
    (&[(23, &[60])], "qcow2-header"),
    (&[(24, &[255])], "qcow2-header"),
    (&[(35, &[1])], "qcow2-header"),
    (&[(103, &[9])], "qcow2-header"),
    (&[(15, &[200])], "qcow2-references"),
    (&[(79, &[4])], "qcow2-references"),
    (&[(79, &[1])], "qcow2-features"),
    (&[(79, &[2])], "qcow2-features"),
    (&[(72, &[1])], "qcow2-features"),
    (&[(79, &[8])], "qcow2-features"),
    (&[(79, &[8]), (104, &[1])], "qcow2-readers"),
    (&[(79, &[16])], "qcow2-readers"),
    (&[(63, &[2])], "qcow2-snapshots"),
];

#[test]
fn each_fault_of_a_qcow2_breaks_its_rule_alone() {
    assert_eq!(qcow2_with(&[]), Vec::<&str>::new());
    for (edits, expected) in HEADER {
        assert_eq!(qcow2_with(edits), [*expected], "{edits:?}");
    }
}

#[test]
fn a_cluster_that_is_used_and_not_counted_is_found() {
    let images = Images::new();
    images.qemu_img("create -q -f qcow2 disk.qcow2 1M");
    let context = crate::context::Context::for_tests(&images.path("store"));
    let mut bytes = fs_err::read(images.path("disk.qcow2")).unwrap();
    let mut found = |edit: fn(&mut [u8])| {
        edit(&mut bytes);
        let path = images.file("disk.qcow2", &bytes);
        let mut report = Report::new(QCOW2.iter().copied());
        let whole = bytes.as_slice();
        qcow2::check(&Section::new(&whole, bytes.len() as u64), &path, &context, &mut report).unwrap();
        broken(&report.verdicts())
    };
    assert_eq!(found(|_| {}), Vec::<&str>::new());
    // Header, table and block of the counts, then the first table: its count becomes zero.
    assert_eq!(found(|bytes| bytes[(2 << 16) + 7] = 0), ["qcow2-check"]);
}

/// The disk with its tables in front, as qemu-img and VMware's converter arrange it.
fn with_tables_in_front(spoil: fn(&mut [u8])) -> Vec<&'static str> {
    let good = Disk::good();
    let mut file = Header { gd_offset: 30, ..good.header.clone() }.to_bytes().to_vec();
    file.extend(good.text.as_bytes());
    file.resize(128 * 512, 0);
    let put = |file: &mut [u8], at: usize, value: usize| {
        file[at..at + 4].copy_from_slice(&u32::try_from(value).unwrap().to_le_bytes());
    };
    put(&mut file, 30 * 512, 40);
    put(&mut file, 30 * 512 + 4, 44);
    for (sector, packed) in &good.grains {
        let number = usize::try_from(sector / GRAIN_SECTORS).unwrap();
        let place = file.len() / 512;
        put(&mut file, 40 * 512 + 4 * number, place);
        file.extend(sector.to_le_bytes());
        file.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
        file.extend(packed);
        file.resize(file.len().next_multiple_of(512), 0);
    }
    file.extend([0; 512]);
    spoil(&mut file);
    broken(&examine_vmdk(&file))
}

#[test]
fn tables_in_front_are_compared_too() {
    assert_eq!(with_tables_in_front(|_| {}), Vec::<&str>::new());
    assert_eq!(with_tables_in_front(|file| file[40 * 512 + 12] ^= 1), ["vmdk-tables"]);
    assert_eq!(with_tables_in_front(|file| file[40 * 512 + 40] = 200), ["vmdk-tables"]);
    assert_eq!(with_tables_in_front(|file| file[30 * 512 + 4] = 0), ["vmdk-tables"]);
    assert_eq!(with_tables_in_front(|file| file[30 * 512 + 5] = 0xff), ["vmdk-tables"]);
    assert_eq!(with_tables_in_front(|file| file[56] = 0xf0), ["vmdk-tables"]);
    // The directory is said to be further away than bytes can be counted.
    let far = |file: &mut [u8]| {
        file[56..64].copy_from_slice(&(1_u64 << 60).to_le_bytes());
        file[64..72].copy_from_slice(&u64::MAX.to_le_bytes());
    };
    assert!(with_tables_in_front(far).contains(&"vmdk-tables"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is changed, an answer comes, and soon; the digests catch it unless it lies between members.
    #[test]
    fn a_mutated_package_gets_an_answer(edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12), cut in any::<Option<prop::sample::Index>>()) {
        let mut bytes = Parts::good().bytes();
        for (at, value) in &edits {
            // Three of four edits hit headers, descriptor and manifest, which are a small part of the file.
            let end = if value % 4 == 0 { bytes.len() } else { 9000.min(bytes.len()) };
            bytes[at.index(end)] = *value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        examine_ova(&bytes);
    }

    #[test]
    fn a_mutated_disk_gets_an_answer(edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12), front in any::<bool>()) {
        let mut bytes = Disk::good().bytes();
        for (at, value) in &edits {
            let at = if value % 2 == 0 { at.index(1200) } else { 128 * 512 + at.index(bytes.len() - 128 * 512) };
            bytes[at] = *value;
        }
        if front {
            bytes[56..64].copy_from_slice(&30_u64.to_le_bytes());
        }
        examine_vmdk(&bytes);
    }

    #[test]
    fn any_text_is_read_as_xml_or_refused(text in "[<>&;/a-z \"'=!\\[\\]-]{0,200}") {
        let _ = xml::parse(text.as_bytes());
    }
}
