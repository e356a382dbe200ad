//! The GUID partition table, written and read (UEFI specification 2.10, chapter 5).

use std::fmt;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Result, bail};
use fs_err as fs;

use super::Ids;
use super::layout::{Extent, Layout, SECTOR, TABLE_SECTORS};
use crate::formats::disk::ReadDisk;

/// A GUID in the byte order of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guid([u8; 16]);

impl Guid {
    /// A constant, written as 32 hexadecimal digits.
    pub const fn new(value: u128) -> Self {
        Guid(value.to_be_bytes())
    }

    /// Bytes made into the form of a random (version 4) UUID.
    pub fn random_form(mut bytes: [u8; 16]) -> Self {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Guid(bytes)
    }

    /// On disk the first three fields are little-endian.
    fn to_disk(self) -> [u8; 16] {
        let b = self.0;
        [b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]
    }

    fn from_disk(b: [u8; 16]) -> Self {
        // The swap is its own inverse.
        Guid(Guid(b).to_disk())
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if [4, 6, 8, 10].contains(&index) {
                out.write_str("-")?;
            }
            write!(out, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// Partition type: GRUB's core image.
pub const BIOS_BOOT: Guid = Guid::new(0x2168_6148_6449_6e6f_744e_6565_6445_4649);
/// Partition type: EFI system partition.
pub const EFI_SYSTEM: Guid = Guid::new(0xc12a_7328_f81f_11d2_ba4b_00a0_c93e_c93b);
/// Partition type: root file system of x86-64, which systemd-repart grows.
pub const ROOT_X86_64: Guid = Guid::new(0x4f68_bce3_e8cd_4db1_96e7_fbca_f984_b709);

const ENTRIES: u32 = 128;
const ENTRY_SIZE: u32 = 128;
const HEADER_SIZE: u32 = 92;

/// Writes the protective MBR's partition entry and both copies of the table. The MBR's boot code is left alone.
pub fn write(raw: &Path, layout: &Layout, ids: &Ids) -> Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(raw)?;
    let mut mbr = [0u8; 66];
    // One partition of type 0xEE over the whole disk; sizes that do not fit are all ones.
    let size = u32::try_from(layout.sectors - 1).unwrap_or(u32::MAX);
    mbr[..8].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
    mbr[8..12].copy_from_slice(&1u32.to_le_bytes());
    mbr[12..16].copy_from_slice(&size.to_le_bytes());
    mbr[64..].copy_from_slice(&[0x55, 0xaa]);
    put(&mut file, 446, &mbr)?;

    let entries = entries(layout, ids);
    let last = layout.sectors - 1;
    put(&mut file, SECTOR, &header(1, last, 2, layout, ids, &entries))?;
    put(&mut file, 2 * SECTOR, &entries)?;
    put(&mut file, (last - TABLE_SECTORS + 1) * SECTOR, &entries)?;
    put(&mut file, last * SECTOR, &header(last, 1, last - TABLE_SECTORS + 1, layout, ids, &entries))
}

fn put(file: &mut fs::File, offset: u64, bytes: &[u8]) -> Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(bytes)?;
    Ok(())
}

fn entries(layout: &Layout, ids: &Ids) -> Vec<u8> {
    let parts = [
        (BIOS_BOOT, layout.bios_boot, "bios-boot"),
        (EFI_SYSTEM, layout.esp, "esp"),
        (ROOT_X86_64, layout.root, "root"),
    ];
    let mut bytes = vec![0; (ENTRIES * ENTRY_SIZE) as usize];
    for ((entry, (kind, extent, name)), id) in
        bytes.chunks_mut(ENTRY_SIZE as usize).zip(parts).zip(ids.partitions)
    {
        entry[..16].copy_from_slice(&kind.to_disk());
        entry[16..32].copy_from_slice(&id.to_disk());
        entry[32..40].copy_from_slice(&extent.start.to_le_bytes());
        entry[40..48].copy_from_slice(&(extent.end - 1).to_le_bytes());
        for (unit, place) in name.encode_utf16().zip(entry[56..].chunks_mut(2)) {
            place.copy_from_slice(&unit.to_le_bytes());
        }
    }
    bytes
}

fn header(own: u64, other: u64, table: u64, layout: &Layout, ids: &Ids, entries: &[u8]) -> [u8; 512] {
    let mut bytes = [0u8; 512];
    bytes[..8].copy_from_slice(b"EFI PART");
    bytes[8..12].copy_from_slice(&0x0001_0000u32.to_le_bytes());
    bytes[12..16].copy_from_slice(&HEADER_SIZE.to_le_bytes());
    bytes[24..32].copy_from_slice(&own.to_le_bytes());
    bytes[32..40].copy_from_slice(&other.to_le_bytes());
    bytes[40..48].copy_from_slice(&(1 + TABLE_SECTORS).to_le_bytes());
    bytes[48..56].copy_from_slice(&(layout.sectors - TABLE_SECTORS - 1).to_le_bytes());
    bytes[56..72].copy_from_slice(&ids.disk.to_disk());
    bytes[72..80].copy_from_slice(&table.to_le_bytes());
    bytes[80..84].copy_from_slice(&ENTRIES.to_le_bytes());
    bytes[84..88].copy_from_slice(&ENTRY_SIZE.to_le_bytes());
    bytes[88..92].copy_from_slice(&crc32fast::hash(entries).to_le_bytes());
    let crc = crc32fast::hash(&bytes[..HEADER_SIZE as usize]);
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// A partition read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its type.
    pub kind: Guid,
    /// Its own identifier.
    pub id: Guid,
    /// Where it lies.
    pub extent: Extent,
    /// Its name.
    pub name: String,
}

/// Reads the primary table; every length is checked before it is used.
pub fn read(disk: &mut dyn ReadDisk) -> Result<Vec<Partition>> {
    let size = disk.size();
    let mut header = [0; 512];
    if size >= 2 * SECTOR {
        disk.read_at(SECTOR, &mut header)?;
    }
    if &header[..8] != b"EFI PART" {
        bail!("it has no GUID partition table");
    }
    let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (count, entry_size) = (u32_at(80), u32_at(84));
    if count > 1024 || entry_size != ENTRY_SIZE {
        bail!("its partition table has {count} entries of {entry_size} bytes");
    }
    let mut own = header;
    own[16..20].fill(0);
    if crc32fast::hash(&own[..HEADER_SIZE as usize]) != u32_at(16) {
        bail!("the checksum of its partition table is wrong");
    }
    let mut bytes = vec![0; (count * entry_size) as usize];
    disk.read_at(u64_at(&header, 72).saturating_mul(SECTOR), &mut bytes)?;
    if crc32fast::hash(&bytes) != u32_at(88) {
        bail!("the checksum of its partition entries is wrong");
    }
    let mut partitions = Vec::new();
    for entry in bytes.chunks(ENTRY_SIZE as usize).filter(|entry| entry[..16] != [0; 16]) {
        let (start, last) = (u64_at(entry, 32), u64_at(entry, 40));
        if start > last || last >= size / SECTOR {
            bail!("a partition from sector {start} to {last} does not fit the disk");
        }
        let guid = |at: usize| Guid::from_disk(entry[at..at + 16].try_into().unwrap_or_default());
        let name = entry[56..]
            .chunks(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .take_while(|unit| *unit != 0);
        let name = char::decode_utf16(name).map(|unit| unit.unwrap_or('?')).collect();
        partitions.push(Partition {
            kind: guid(0),
            id: guid(16),
            extent: Extent { start, end: last + 1 },
            name,
        });
    }
    Ok(partitions)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::disk::Raw;
    use crate::formats::part::Part;
    use crate::store::Key;

    fn read_file(path: &Path) -> Result<Vec<Partition>> {
        read(&mut Raw::open(Part::whole(fs::File::open(path)?)?)?)
    }

    fn disk() -> (tempfile::NamedTempFile, Layout, Ids) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(300 << 20).unwrap();
        let layout = Layout::plan(300 << 20, 64 << 20).unwrap();
        let ids = Ids::derive(&Key::of("test", 1, &[]));
        write(file.path(), &layout, &ids).unwrap();
        (file, layout, ids)
    }

    #[test]
    fn reads_back_what_it_wrote() {
        let (file, layout, ids) = disk();
        let partitions = read_file(file.path()).unwrap();
        assert_eq!(partitions.len(), 3);
        assert_eq!(
            partitions[2],
            Partition { kind: ROOT_X86_64, id: ids.partitions[2], extent: layout.root, name: "root".into() }
        );
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        for offset in [SECTOR + 40, 2 * SECTOR + 33] {
            let (file, ..) = disk();
            let mut handle = fs::OpenOptions::new().write(true).open(file.path()).unwrap();
            put(&mut handle, offset, &[0x77]).unwrap();
            assert!(read_file(file.path()).is_err(), "{offset}");
        }
    }

    #[test]
    fn text_and_disk_order() {
        assert_eq!(EFI_SYSTEM.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        assert_eq!(EFI_SYSTEM.to_disk()[..4], [0x28, 0x73, 0x2a, 0xc1]);
        assert_eq!(Guid::from_disk(EFI_SYSTEM.to_disk()), EFI_SYSTEM);
    }
}
