//! Hyper-V's and Azure's fixed VHD: the raw disk with a footer of one sector, as in Microsoft's "Virtual Hard Disk Image Format
//! Specification" of 2006.
//!
//! Fixed, because every reader takes it and nothing can be wrong with it; sparse on the build host, and small in any archive.

use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use anyhow::Result;
use fs_err as fs;

use super::Identity;
use super::part::Part;
use crate::error::Fault;

/// A footer's first bytes.
const COOKIE: &[u8; 8] = b"conectix";
/// Bytes of a sector.
const SECTOR: u64 = 512;
/// The type of a fixed disk.
const FIXED: u32 = 2;
/// Largest disk that the format has, in bytes: 2040 GiB.
const MOST: u64 = 2040 << 30;
/// Readers that go by the geometry see no more sectors than this.
const MOST_BY_GEOMETRY: u64 = 65535 * 16 * 255;

/// Appends the footer to a raw disk, and makes it a whole number of MiB before: Azure and Hyper-V's tools ask for that.
/// `epoch` is the time of making in seconds since 1970.
pub fn close(file: &fs::File, size: u64, identity: Identity, epoch: u64) -> Result<()> {
    fits(size)?;
    let size = size.next_multiple_of(1 << 20);
    file.set_len(size + SECTOR)?;
    file.file().write_all_at(&new_footer(size, identity, epoch), size)?;
    Ok(())
}

/// Refuses a disk that is too large for the format, before anything is written.
pub fn fits(size: u64) -> Result<()> {
    if size > MOST {
        let message = format!("a VHD has 2040 GiB at most, and a disk of this image has {} GiB", size >> 30);
        return Err(Fault::user(message).hint("make the disk smaller, or export another format").into());
    }
    Ok(())
}

/// The disk in a file that may be a fixed VHD: the file without its footer, or as it is.
pub fn without_footer(part: Part) -> Result<Part> {
    match footer(&part)? {
        Some(size) => part.within(0, size, part.name().to_owned()),
        None => Ok(part),
    }
}

/// The size in bytes of the disk in a fixed VHD; `None` for a file that does not end as a VHD. A footer that is not whole, or not
/// that of a fixed disk of this length, is refused.
pub fn footer(part: &Part) -> Result<Option<u64>> {
    let Some(size) = part.length().checked_sub(SECTOR) else { return Ok(None) };
    let mut bytes = [0; 512];
    part.read(size, &mut bytes)?;
    if !bytes.starts_with(COOKIE) {
        return Ok(None);
    }
    let number = |range: Range<usize>| bytes[range].iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
    let (said, kind, current) = (number(64..68), number(60..64), number(48..56));
    let mut own = bytes;
    own[64..68].fill(0);
    if u64::from(checksum(&own)) != said {
        return Err(part.damaged("the checksum of its VHD footer is wrong"));
    }
    if kind != u64::from(FIXED) {
        return Err(
            part.refused(format!("has the footer of a VHD of type {kind}, not of a fixed one ({FIXED})"))
        );
    }
    if current != size {
        return Err(part.damaged(format!("its VHD footer speaks of {current} bytes, and it has {size}")));
    }
    Ok(Some(size))
}

fn new_footer(size: u64, identity: Identity, epoch: u64) -> [u8; 512] {
    /// Seconds from 1970 to 2000, when the format's clock begins.
    const CLOCK: u64 = 946_684_800;
    let (cylinders, heads, sectors) = geometry(size / SECTOR);
    let mut bytes = [0; 512];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, COOKIE);
    put(8, &2_u32.to_be_bytes());
    put(12, &0x0001_0000_u32.to_be_bytes());
    // A fixed disk has no other header: all ones.
    put(16, &u64::MAX.to_be_bytes());
    put(24, &u32::try_from(epoch.saturating_sub(CLOCK)).unwrap_or(u32::MAX).to_be_bytes());
    // QEMU takes the size from the geometry unless the creator is one that is known to mean the size field.
    put(28, b"win ");
    put(32, &0x000a_0000_u32.to_be_bytes());
    put(36, b"Wi2k");
    put(40, &size.to_be_bytes());
    put(48, &size.to_be_bytes());
    put(56, &cylinders.to_be_bytes());
    put(58, &[heads, sectors]);
    put(60, &FIXED.to_be_bytes());
    put(68, &identity.bytes());
    let sum = checksum(&bytes);
    bytes[64..68].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// Of a footer whose own field for it is zero.
fn checksum(footer: &[u8; 512]) -> u32 {
    !footer.iter().map(|byte| u32::from(*byte)).sum::<u32>()
}

/// Cylinders, heads, sectors of a track: the specification's appendix.
fn geometry(total: u64) -> (u16, u8, u8) {
    let total = total.min(MOST_BY_GEOMETRY);
    let (sectors, heads, tracks) = if total >= 65535 * 16 * 63 {
        (255, 16, total / 255)
    } else {
        let tracks = total / 17;
        let heads = tracks.div_ceil(1024).max(4);
        if tracks < heads * 1024 && heads <= 16 {
            (17, heads, tracks)
        } else if total / 31 < 16 * 1024 {
            (31, 16, total / 31)
        } else {
            (63, 16, total / 63)
        }
    };
    // The bounds above keep each within its field.
    let small = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
    (u16::try_from(tracks / heads).unwrap_or(u16::MAX), small(heads), small(sectors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footer_is_believed_only_when_it_is_whole() {
        use crate::formats::testing::Images;
        let images = Images::new();
        let size: usize = 1 << 20;
        let footer = new_footer(1 << 20, "0".repeat(32).parse().unwrap(), 0);
        let read = |edit: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = vec![0; size];
            bytes.extend(footer);
            edit(&mut bytes);
            let path = images.file("disk", &bytes);
            super::footer(&Part::whole(fs::File::open(path).unwrap()).unwrap())
        };
        let refused = |edit: &dyn Fn(&mut Vec<u8>)| read(edit).unwrap_err().to_string();
        assert_eq!(read(&|_| {}).unwrap(), Some(1 << 20));
        assert_eq!(read(&|bytes| bytes[size] = 0).unwrap(), None);
        assert!(refused(&|bytes| bytes[size + 60] ^= 1).contains("the checksum of its VHD footer is wrong"));
        assert!(
            refused(&|bytes| drop(bytes.drain(..512)))
                .contains("speaks of 1048576 bytes, and it has 1048064")
        );
        // A dynamic disk; the sum is one more, its complement one less.
        let dynamic = |bytes: &mut Vec<u8>| {
            bytes[size + 63] = 3;
            let sum = u32::from_be_bytes(bytes[size + 64..size + 68].try_into().unwrap()) - 1;
            bytes[size + 64..size + 68].copy_from_slice(&sum.to_be_bytes());
        };
        assert!(refused(&dynamic).contains("a VHD of type 3"));
    }

    #[test]
    fn geometries_of_the_appendix() {
        assert_eq!(geometry((40 << 30) / 512), (20560, 16, 255));
        assert_eq!(geometry((1 << 30) / 512), (2080, 16, 63));
        assert_eq!(geometry((16 << 20) / 512), (481, 4, 17));
        assert_eq!(geometry(u64::MAX / 512), (65535, 16, 255));
    }
}
