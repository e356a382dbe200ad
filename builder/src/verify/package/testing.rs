//! A tiny package that keeps every rule, in parts that a test can spoil one by one.

use std::io::Write as _;

use super::section::Section;
use super::{OVA, Outcome, Report, VMDK, Verdict};
use crate::formats::part::Part;
use crate::formats::vmdk::header::{Announced, GRAIN, GRAIN_SECTORS, Header, SECTOR, marker};

/// Sectors of the disk: two tables, the second with a cut last grain.
pub(super) const CAPACITY: u64 = 514 * GRAIN_SECTORS + 20;

/// A disk that is put together when it is asked for.
pub(super) struct Disk {
    pub(super) header: Header,
    pub(super) text: String,
    /// Sector and content, compressed.
    pub(super) grains: Vec<(u64, Vec<u8>)>,
    pub(super) with_tables: bool,
    pub(super) edit_table: fn(&mut [u32]),
    pub(super) edit_directory: fn(&mut [u32]),
    pub(super) edit_footer: fn(&mut Header),
    pub(super) tail: Vec<u8>,
}

/// A package that is put together when it is asked for.
pub(super) struct Parts {
    pub(super) disk: Disk,
    /// `@SIZE@` stands for the disk's length.
    pub(super) ovf: String,
    pub(super) edit_manifest: fn(String) -> String,
    /// Changes names, contents and order of the members.
    pub(super) edit_members: fn(&mut Vec<(String, Vec<u8>)>),
    pub(super) edit_tar: fn(&mut Vec<u8>),
}

pub(super) fn pack(content: &[u8]) -> Vec<u8> {
    let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::fastest());
    let mut packed = vec![0; compressor.zlib_compress_bound(content.len())];
    let length = compressor.zlib_compress(content, &mut packed).unwrap();
    packed.truncate(length);
    packed
}

pub(super) fn whole_grain(fill: u8) -> Vec<u8> {
    vec![fill; usize::try_from(GRAIN).unwrap()]
}

impl Disk {
    pub(super) fn good() -> Self {
        let mut first = whole_grain(0);
        // Code for a BIOS, and an EFI system partition.
        (first[0], first[450], first[510], first[511]) = (0xeb, 0xef, 0x55, 0xaa);
        let last = vec![3; 20 * 512];
        let grains = [(0, first), (3 * GRAIN_SECTORS, whole_grain(7)), (514 * GRAIN_SECTORS, last)];
        Disk {
            header: Header::stream(CAPACITY, 20),
            text: format!(
                "# Disk DescriptorFile\nversion=1\nCID=a1b2c3d4\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\n\
                 RDONLY {CAPACITY} SPARSE \"small.vmdk\"\n\nddb.adapterType = \"lsilogic\"\nddb.toolsInstallType = \"4\"\n\
                 ddb.toolsVersion = \"2147483647\"\n"
            ),
            grains: grains.into_iter().map(|(sector, content)| (sector, pack(&content))).collect(),
            with_tables: true,
            edit_table: |_| {},
            edit_directory: |_| {},
            edit_footer: |_| {},
            tail: vec![0; 512],
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut file = self.header.to_bytes().to_vec();
        file.extend(self.text.as_bytes());
        file.resize(usize::try_from(GRAIN_SECTORS * SECTOR).unwrap(), 0);
        let mut directory = vec![0_u32; 2];
        for index in 0..2 {
            let mut table = vec![0_u32; 512];
            for (sector, packed) in
                self.grains.iter().filter(|(sector, _)| sector / GRAIN_SECTORS / 512 == index)
            {
                table[usize::try_from(sector / GRAIN_SECTORS % 512).unwrap()] = place(&file);
                file.extend(sector.to_le_bytes());
                file.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
                file.extend(packed);
                file.resize(file.len().next_multiple_of(512), 0);
            }
            if self.with_tables {
                (self.edit_table)(&mut table);
                file.extend(marker(Announced::Table, 4));
                directory[usize::try_from(index).unwrap()] = place(&file);
                file.extend(table.iter().flat_map(|entry| entry.to_le_bytes()));
            }
        }
        (self.edit_directory)(&mut directory);
        file.extend(marker(Announced::Directory, 1));
        let mut footer = Header { gd_offset: u64::from(place(&file)), ..self.header.clone() };
        file.extend(directory.iter().flat_map(|entry| entry.to_le_bytes()));
        file.resize(file.len().next_multiple_of(512), 0);
        file.extend(marker(Announced::Footer, 1));
        (self.edit_footer)(&mut footer);
        file.extend(footer.to_bytes());
        file.extend(&self.tail);
        file
    }
}

/// The sector at which a file ends.
fn place(file: &[u8]) -> u32 {
    u32::try_from(file.len() / 512).unwrap()
}

pub(super) const OVF: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="urn:rasd" xmlns:vmw="urn:vmw" xmlns:vssd="urn:vssd" xmlns:vbox="urn:vbox">
 <References><File ovf:href="small.vmdk" ovf:id="file1" ovf:size="@SIZE@"/></References>
 <DiskSection><Info>x</Info>
  <Disk ovf:capacity="33" ovf:capacityAllocationUnits="byte * 2^20" ovf:diskId="disk1" ovf:fileRef="file1"
    ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized" ovf:populatedSize="196608"/>
 </DiskSection>
 <NetworkSection><Info>x</Info><Network ovf:name="net"/></NetworkSection>
 <DeploymentOptionSection><Info>x</Info><Configuration ovf:id="small"/></DeploymentOptionSection>
 <VirtualSystem ovf:id="small">
  <Info>x</Info>
  <OperatingSystemSection ovf:id="107" vmw:osType="centos7_64Guest"><Info>x</Info></OperatingSystemSection>
  <VirtualHardwareSection ovf:transport="com.vmware.guestInfo iso">
   <Info>x</Info>
   <System><vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType></System>
   <Item><rasd:ElementName>cpu</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType></Item>
   <Item ovf:configuration="small"><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType></Item>
   <Item><rasd:ElementName>scsi</rasd:ElementName><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
   <Item><rasd:ElementName>disk</rasd:ElementName><rasd:HostResource>ovf:/disk/disk1</rasd:HostResource><rasd:InstanceID>4</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
   <Item><rasd:Connection>net</rasd:Connection><rasd:ElementName>nic</rasd:ElementName><rasd:InstanceID>5</rasd:InstanceID><rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>
   <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="bios"/>
   <vmw:ExtraConfig ovf:required="false" vmw:key="a.b" vmw:value="c"/>
  </VirtualHardwareSection>
  <ProductSection ovf:class="app"><Info>x</Info>
   <Property ovf:key="domain" ovf:type="string" ovf:userConfigurable="true"/>
   <Property ovf:key="port" ovf:type="uint16" ovf:value="443"/>
   <Property ovf:key="mode" ovf:type="string" ovf:value="a" ovf:qualifiers="ValueMap{&quot;a&quot;,&quot;b&quot;}"/>
   <Property ovf:key="secret" ovf:type="string" ovf:password="true"/>
  </ProductSection>
 </VirtualSystem>
</Envelope>
"#;

impl Parts {
    pub(super) fn good() -> Self {
        Parts {
            disk: Disk::good(),
            ovf: OVF.to_owned(),
            edit_manifest: |text| text,
            edit_members: |_| {},
            edit_tar: |_| {},
        }
    }

    /// Replaces text of the descriptor that must be there.
    pub(super) fn replace(&mut self, from: &str, to: &str) {
        assert!(self.ovf.contains(from), "no `{from}`");
        self.ovf = self.ovf.replace(from, to);
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let disk = self.disk.bytes();
        let ovf = self.ovf.replace("@SIZE@", &disk.len().to_string()).into_bytes();
        let manifest = (self.edit_manifest)(line("small.ovf", &ovf) + &line("small.vmdk", &disk));
        let mut members = vec![
            ("small.ovf".to_owned(), ovf),
            ("small.mf".to_owned(), manifest.into_bytes()),
            ("small.vmdk".to_owned(), disk),
        ];
        (self.edit_members)(&mut members);
        let mut archive = tar(&members);
        (self.edit_tar)(&mut archive);
        archive
    }
}

pub(super) fn line(name: &str, content: &[u8]) -> String {
    use sha2::Digest as _;
    format!("SHA256({name})= {}\n", crate::store::hex(&sha2::Sha256::digest(content)))
}

/// A ustar archive.
pub(super) fn tar(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in members {
        archive.extend(tar_header(name, content.len() as u64, b'0'));
        archive.write_all(content).unwrap();
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

pub(super) fn tar_header(name: &str, size: u64, kind: u8) -> [u8; 512] {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(size);
    header.set_mode(0o644);
    header.as_mut_bytes()[156] = kind;
    header.set_cksum();
    *header.as_bytes()
}

pub(super) fn examine_ova(bytes: &[u8]) -> Vec<Verdict> {
    let length = bytes.len() as u64;
    let mut report = Report::new([OVA, VMDK].concat());
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let part = Part::whole(fs_err::File::open(file.path()).unwrap()).unwrap();
    super::ova(&Section::new(&bytes, length), &part, &mut report).unwrap();
    report.verdicts()
}

pub(super) fn examine_vmdk(bytes: &[u8]) -> Vec<Verdict> {
    let length = bytes.len() as u64;
    let mut report = Report::new(VMDK.iter().copied());
    super::stream::check(&Section::new(&bytes, length), "", false, &mut report).unwrap();
    report.verdicts()
}

/// The names of the rules that are broken.
pub(super) fn broken(verdicts: &[Verdict]) -> Vec<&'static str> {
    let bad = |verdict: &&Verdict| matches!(verdict.outcome, Outcome::Wrong | Outcome::Note);
    verdicts.iter().filter(bad).map(|verdict| verdict.rule.name).collect()
}
