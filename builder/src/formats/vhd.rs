//! Hyper-V's and Azure's fixed VHD: the raw disk with a footer of one sector, as in Microsoft's "Virtual Hard Disk Image Format
//! Specification" of 2006.
//!
//! Fixed, because every reader takes it and nothing can be wrong with it; sparse on the build host, and small in any archive.

use std::os::unix::fs::FileExt as _;

use anyhow::{Result, ensure};
use fs_err as fs;

use super::Identity;
use super::part::Part;

/// A footer's first bytes.
const COOKIE: &[u8; 8] = b"conectix";
/// Bytes of a sector.
const SECTOR: u64 = 512;
/// Largest disk that the format has, in bytes: 2040 GiB.
const MOST: u64 = 2040 << 30;
/// Readers that go by the geometry see no more sectors than this.
const MOST_BY_GEOMETRY: u64 = 65535 * 16 * 255;

/// Appends the footer to a raw disk, and makes it a whole number of MiB before: Azure and Hyper-V's tools ask for that.
/// `epoch` is the time of making in seconds since 1970.
pub fn close(file: &fs::File, size: u64, identity: Identity, epoch: u64) -> Result<()> {
    let size = size.next_multiple_of(1 << 20);
    ensure!(size <= MOST, "a VHD has 2040 GiB at most, this disk has {} GiB", size >> 30);
    file.set_len(size + SECTOR)?;
    file.file().write_all_at(&footer(size, identity, epoch), size)?;
    Ok(())
}

/// The disk in a file that may be a fixed VHD: the file without its footer, or as it is.
pub fn without_footer(part: Part) -> Result<Part> {
    let Some(size) = part.length().checked_sub(SECTOR) else { return Ok(part) };
    let mut cookie = [0; COOKIE.len()];
    part.read(size, &mut cookie)?;
    if cookie == *COOKIE { part.within(0, size, part.name().to_owned()) } else { Ok(part) }
}

fn footer(size: u64, identity: Identity, epoch: u64) -> [u8; 512] {
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
    put(60, &2_u32.to_be_bytes());
    put(68, &identity.bytes());
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    bytes[64..68].copy_from_slice(&(!sum).to_be_bytes());
    bytes
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
    fn geometries_of_the_appendix() {
        assert_eq!(geometry((40 << 30) / 512), (20560, 16, 255));
        assert_eq!(geometry((1 << 30) / 512), (2080, 16, 63));
        assert_eq!(geometry((16 << 20) / 512), (481, 4, 17));
        assert_eq!(geometry(u64::MAX / 512), (65535, 16, 255));
    }
}
