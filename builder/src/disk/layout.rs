//! Where the partitions lie: data, computed before anything is written.

use anyhow::Result;

use crate::error::Fault;

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// Partitions start at whole MiB.
const ALIGN: u64 = (1 << 20) / SECTOR;
/// Sectors of one copy of the table: a header and 128 entries of 128 bytes.
pub const TABLE_SECTORS: u64 = 33;

/// A partition in sectors; the end is not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First sector.
    pub start: u64,
    /// One behind the last.
    pub end: u64,
}

impl Extent {
    /// First byte.
    pub fn offset(self) -> u64 {
        self.start * SECTOR
    }

    /// Length in bytes.
    pub fn bytes(self) -> u64 {
        (self.end - self.start) * SECTOR
    }
}

/// The whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Sectors of the disk.
    pub sectors: u64,
    /// GRUB's core image for BIOS.
    pub bios_boot: Extent,
    /// FAT for UEFI.
    pub esp: Extent,
    /// ext4 up to the end.
    pub root: Extent,
}

impl Layout {
    /// Three partitions on a disk of `size` bytes, the root taking what is left. Its end is where systemd-repart would put it, so
    /// that a disk that was not enlarged is not rewritten at first boot.
    pub fn plan(size: u64, esp: u64) -> Result<Self> {
        let sectors = size / SECTOR;
        let bios_boot = Extent { start: ALIGN, end: 2 * ALIGN };
        let esp =
            Extent { start: bios_boot.end, end: bios_boot.end + (esp / SECTOR).next_multiple_of(ALIGN) };
        let end = sectors.saturating_sub(TABLE_SECTORS) / 8 * 8;
        let root = Extent { start: esp.end, end };
        if root.end <= root.start + 64 * ALIGN {
            return Err(
                Fault::user(format!("a disk of {size} bytes has no room for a root file system")).into()
            );
        }
        Ok(Layout { sectors, bios_boot, esp, root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn disjoint_aligned_and_inside(mib in 200u64..3_000_000, esp in 34u64..100) {
            let layout = Layout::plan(mib << 20, esp << 20).unwrap();
            let parts = [layout.bios_boot, layout.esp, layout.root];
            proptest::prop_assert!(parts[0].start > TABLE_SECTORS);
            for pair in parts.windows(2) {
                proptest::prop_assert!(pair[0].end <= pair[1].start);
            }
            for part in parts {
                proptest::prop_assert!(part.start < part.end && part.start % ALIGN == 0);
            }
            proptest::prop_assert!(layout.root.end + TABLE_SECTORS <= layout.sectors && layout.root.bytes().is_multiple_of(4096));
        }
    }

    #[test]
    fn a_disk_that_is_too_small_is_refused() {
        assert!(Layout::plan(100 << 20, 64 << 20).is_err());
    }
}
