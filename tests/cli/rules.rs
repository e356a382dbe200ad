//! `imgbuild verify` on packages of others: which rule they break, where, and what that does.

use imgbuild::formats::vmdk::header::{Announced, GRAIN, Header, marker};
use testkit::sandbox::Sandbox;

use crate::{imgbuild, transcript};

/// As VirtualBox and qemu-img together make it: their family of hardware, no network, an IDE disk, zeros at the end.
const OVF: &str = r#"<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="urn:rasd" xmlns:vssd="urn:vssd">
 <References><File ovf:id="file1" ovf:href="box-disk001.vmdk"/></References>
 <DiskSection><Info/><Disk ovf:capacity="65536" ovf:diskId="vmdisk1" ovf:fileRef="file1"
  ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/></DiskSection>
 <VirtualSystem ovf:id="box"><Info/>
  <VirtualHardwareSection><Info/>
   <System><vssd:VirtualSystemType>virtualbox-2.2</vssd:VirtualSystemType></System>
   <Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>lsilogic</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
   <Item><rasd:HostResource>/disk/vmdisk1</rasd:HostResource><rasd:InstanceID>4</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
  </VirtualHardwareSection>
 </VirtualSystem>
</Envelope>
"#;

/// A disk of one empty grain that is not stored, with `zeros` bytes where the end of the stream should be.
fn disk(zeros: usize) -> Vec<u8> {
    let header = Header::stream(GRAIN / 512, 20);
    let mut file = header.to_bytes().to_vec();
    file.extend(
        b"# Disk DescriptorFile\nversion=1\nCID=8ce696e9\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\
          RW 128 SPARSE \"box-disk001.vmdk\"\nddb.adapterType = \"ide\"\nddb.toolsVersion = \"2147483647\"\n",
    );
    file.resize(usize::try_from(GRAIN).unwrap(), 0);
    file.extend(marker(Announced::Directory, 1));
    let directory = file.len() as u64 / 512;
    file.resize(file.len() + 512, 0);
    file.extend(marker(Announced::Footer, 1));
    file.extend(Header { gd_offset: directory, ..header }.to_bytes());
    file.resize(file.len() + zeros, 0);
    file
}

fn package(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

fn verified(name: &str, content: &[u8], options: &[&str]) -> String {
    let sandbox = Sandbox::new().unwrap();
    let path = sandbox.home().join(name);
    fs_err::write(&path, content).unwrap();
    transcript(&sandbox, imgbuild(&sandbox).arg("verify").args(options).arg(path))
}

#[test]
fn a_package_that_vsphere_refuses() {
    let disk = disk(64_512);
    let manifest = "SHA2-256(box.ovf)= 00\n";
    let archive =
        package(&[("box.ovf", OVF.as_bytes()), ("box.mf", manifest.as_bytes()), ("box-disk001.vmdk", &disk)]);
    insta::assert_snapshot!(verified("box.ova", &archive, &[]), @r#"
    exit code 1
    tar-whole            ok
    tar-format           ok
    tar-size             ok
    member-kind          ok
    member-names         ok
    member-order         ok
    manifest-place       ok
    manifest             ok
    manifest-spelling    wrong
        `SHA2-256(box.ovf)= 00` is no line of a manifest
        rule: every line of the manifest is `SHA256(name)= digest`, to the space
        else: vCenter refuses a space before the bracket (as `sha256sum --tag` writes) and `SHA2-256(` (as OpenSSL 3 does)
    manifest-members     not checked
    manifest-digests     not checked
    manifest-sha1        ok
    ovf-xml              ok
    ovf-version          ok
    ovf-system           ok
    ovf-virtualbox       wrong
        the system's type is `virtualbox-2.2`
        rule: nothing of VirtualBox alone: `virtualbox-2.2`, `StorageItem`, `EthernetPortItem`, a required `vbox:Machine`
        else: vSphere answers `Unsupported hardware family 'virtualbox-2.2'` or `unsupported element`, and imports nothing
    ovf-hardware         ok
    ovf-hardware-new     ok
    ovf-guest-os         ok
    ovf-references       ok
    ovf-file-size        ok
    ovf-disk-format      ok
    ovf-capacity         ok
    ovf-populated-size   ok
    ovf-network          wrong
        it has no `NetworkSection` with a network
        rule: every network card is connected to a network that `NetworkSection` names
        else: vSphere and Cluster API end with `Host did not have any virtual network defined`
    ovf-network-unused   ok
    ovf-items            ok
    ovf-item-order       ok
    ovf-controllers      ok
    ovf-extra-config     ok
    ovf-firmware         ok
    ovf-firmware-stated  note
        there is no `vmw:Config` with the key `firmware`
        rule: the descriptor states the firmware
        else: vSphere takes BIOS, other importers what they like
    ovf-properties       ok
    ovf-transport        ok
    vmdk-header          ok
    vmdk-descriptor      ok
    vmdk-capacity        ok
    vmdk-cid             ok
    vmdk-adapter         wrong
        `box-disk001.vmdk`: its adapter type is `ide`
        rule: the adapter type is `lsilogic` (or `ide` on an IDE or SATA controller)
        else: ESXi warns of or refuses an IDE disk on a SCSI controller; qemu-img writes `ide` unless told otherwise
    vmdk-tools           note
        `box-disk001.vmdk`: it does not say that the tools are the system's own
        rule: the disk says who looks after VMware's tools: `ddb.toolsInstallType = "4"` with version 2147483647
        else: vCenter reports outdated tools and offers to install its own over open-vm-tools
    vmdk-grains          ok
    vmdk-tables          ok
    vmdk-footer          ok
    vmdk-end-of-stream   wrong
        `box-disk001.vmdk`: 64000 zero bytes follow its end-of-stream sector at byte 67584
        rule: the last sector, and only that, is an end-of-stream marker
        else: VMware's own converter ends a disk so, qemu-img does not; disks that end otherwise were refused by vSphere's content library, ovftool and Workstation (the likely cause, not a proven one)
    vmdk-redundant       ok
    content              not checked: `[SANDBOX]/home/box.ova`: its member `box-disk001.vmdk` is damaged: it has no footer before its last sector, or one that contradicts the header; it may have been cut off
    error: `[SANDBOX]/home/box.ova` is wrong: manifest-spelling, ovf-virtualbox, ovf-network, vmdk-adapter, vmdk-end-of-stream
    "#);
}

#[test]
fn a_disk_as_json() {
    let answer = verified("box.vmdk", &disk(512), &["--json"]);
    let (code, text) = answer.split_once('\n').unwrap();
    assert_eq!(code, "exit code 1");
    let text = text.split_once("\nerror: ").unwrap().0;
    let answer: serde_json::Value = serde_json::from_str(text).unwrap();
    let rule = |name: &str| {
        answer["rules"].as_array().unwrap().iter().find(|rule| rule["name"] == name).unwrap().clone()
    };
    assert_eq!(rule("vmdk-adapter")["outcome"], "wrong");
    assert_eq!(rule("vmdk-adapter")["found"][0], "its adapter type is `ide`");
    assert_eq!(rule("vmdk-tools")["outcome"], "note");
    assert_eq!(rule("vmdk-end-of-stream")["outcome"], "ok");
    assert!(answer["checks"].as_array().unwrap().is_empty() && answer["unchecked"].is_string());
}

#[test]
fn archives_that_are_no_packages() {
    let sandbox = Sandbox::new().unwrap();
    let mut archive = package(&[("readme.txt", b"hello")]);
    archive.truncate(600);
    let path = sandbox.home().join("cut.ova");
    fs_err::write(&path, archive).unwrap();
    let said = transcript(&sandbox, imgbuild(&sandbox).arg("verify").arg(path));
    insta::assert_snapshot!(said.lines().last().unwrap(), @"error: `[SANDBOX]/home/cut.ova` is wrong: tar-whole, ovf-xml");
    assert!(said.contains("    it ends at byte 600 without the two empty blocks"), "{said}");
    assert!(said.contains("    there is not exactly one `.ovf` in the archive"), "{said}");
}
