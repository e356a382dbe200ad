//! A VMDK in one file as a disk: monolithicSparse or streamOptimized, of any version up to 3.
//!
//! Nothing but the file itself is ever opened: a disk whose descriptor names extents in other files or a parent is refused.

use std::sync::Arc;

use anyhow::Result;

use super::descriptor::Descriptor;
use super::header::{
    AT_END, FLAG_COMPRESSED, FLAG_MARKERS, FLAG_ZERO_GRAINS, Header, SECTOR, TABLE_ENTRIES, u32_at, u64_at,
};
use crate::formats::disk::{ReadDisk, limit};
use crate::formats::mapped::{Map, Mapped, Packed, Page, Place, Tools};
use crate::formats::part::Part;

/// Newest version of the format.
const VERSION: u32 = 3;
/// Smallest grain in sectors, by the specification.
const GRAIN_LEAST: u64 = 8;
/// Largest grain in sectors that is unpacked into memory: 2 MiB.
const GRAIN_MOST: u64 = 4096;
/// Largest directory in bytes: 4 TiB in grains of 4 KiB need half of it.
const DIRECTORY_LIMIT: u64 = 16 << 20;
/// Where every writer puts the descriptor, in sectors. Some readers look nowhere else, so a second one could hide from us.
const DESCRIPTOR_OFFSET: u64 = 1;
/// Largest descriptor in sectors.
const DESCRIPTOR_LIMIT: u64 = 128;
/// Sectors in which QEMU looks for a parent's name, whatever the header says of the descriptor's length.
const DESCRIPTOR_LEAST: u64 = 20;
/// Bytes before a compressed grain: its first sector, its length.
const GRAIN_MARKER: usize = 12;

/// Opens the disk.
pub fn open(part: Part) -> Result<Box<dyn ReadDisk>> {
    let mut header = head(&part)?;
    sizes(&part, &header)?;
    let compressed = header.flags & FLAG_COMPRESSED != 0;
    if compressed && (header.compression != 1 || header.flags & FLAG_MARKERS == 0) {
        return Err(part.refused("is compressed in a way that is unknown"));
    }
    if header.gd_offset == AT_END {
        header.gd_offset = footer(&part, &header)?.gd_offset;
    }
    let grains = header.capacity.div_ceil(header.grain_sectors);
    let tables = grains.div_ceil(u64::from(header.table_entries));
    let offset = header.gd_offset.saturating_mul(SECTOR);
    let directory = part.read_table(offset, tables * 4, DIRECTORY_LIMIT, "its grain directory")?;
    let map = Grains {
        size: header.capacity * SECTOR,
        grain: header.grain_sectors * SECTOR,
        table_entries: header.table_entries,
        compressed,
        knows_zeros: header.flags & FLAG_ZERO_GRAINS != 0,
        directory: directory.chunks_exact(4).map(|entry| u32_at(entry, 0)).collect(),
        part,
    };
    Ok(Box::new(Mapped::new(map)))
}

/// Refuses what is no disk by itself, before anybody else opens it.
pub fn refuse_references(part: &Part) -> Result<()> {
    head(part).map(drop)
}

/// The header of a disk that is all in this file and not larger than we know.
fn head(part: &Part) -> Result<Header> {
    let mut bytes = [0; 512];
    part.read(0, &mut bytes)?;
    let Some(header) = Header::parse(&bytes) else {
        return Err(part.damaged("its header is none of a VMDK, or its line ends were changed on the way"));
    };
    if header.version == 0 || header.version > VERSION {
        return Err(part.refused(format!("is a VMDK of version {}, newer than {VERSION}", header.version)));
    }
    // A header of a disk without sectors stands before the descriptor of a disk that lies elsewhere.
    if header.capacity == 0 || header.descriptor_offset == 0 {
        return Err(part.refused("is not a disk by itself: it is one of several files of a disk"));
    }
    limit(part, header.capacity.saturating_mul(SECTOR))?;
    if header.descriptor_offset != DESCRIPTOR_OFFSET {
        return Err(part.damaged(format!(
            "its descriptor is said to begin in sector {}, not in sector {DESCRIPTOR_OFFSET}",
            header.descriptor_offset
        )));
    }
    let bytes = header.descriptor_sectors.saturating_mul(SECTOR);
    let text = part.read_table(SECTOR, bytes, DESCRIPTOR_LIMIT * SECTOR, "its descriptor")?;
    let around = part.length().saturating_sub(SECTOR).min(DESCRIPTOR_LEAST * SECTOR);
    let around = part.read_table(SECTOR, around, around, "its descriptor")?;
    Descriptor::parse(&text).check(part, &around)?;
    Ok(header)
}

/// Sizes that everything else is computed with.
fn sizes(part: &Part, header: &Header) -> Result<()> {
    let grain = header.grain_sectors;
    if !grain.is_power_of_two() || !(GRAIN_LEAST..=GRAIN_MOST).contains(&grain) {
        return Err(part.damaged(format!("its grains are said to have {grain} sectors")));
    }
    if header.table_entries == 0 || header.table_entries > TABLE_ENTRIES {
        let entries = header.table_entries;
        return Err(part.damaged(format!("its grain tables are said to have {entries} entries")));
    }
    Ok(())
}

/// The header's copy at the end of a stream, the only one that knows where the directory is.
fn footer(part: &Part, header: &Header) -> Result<Header> {
    let mut bytes = [0; 512];
    if let Some(offset) = part.length().checked_sub(2 * SECTOR) {
        part.read(offset, &mut bytes)?;
    }
    let sizes = |header: &Header| {
        let Header { capacity, grain_sectors, table_entries, flags, compression, .. } = *header;
        (capacity, grain_sectors, table_entries, flags, compression)
    };
    let footer =
        Header::parse(&bytes).filter(|footer| footer.gd_offset != AT_END && sizes(footer) == sizes(header));
    footer.ok_or_else(|| {
        part.damaged(
            "it has no footer before its last sector, or one that contradicts the header; it may have been cut off",
        )
    })
}

/// The disk's map: a directory of grain tables.
#[derive(Debug, Clone)]
struct Grains {
    part: Part,
    size: u64,
    /// Bytes of a grain.
    grain: u64,
    table_entries: u32,
    compressed: bool,
    /// An entry of 1 means zeros.
    knows_zeros: bool,
    /// Where the tables begin, in sectors; 0 for none.
    directory: Arc<[u32]>,
}

impl Map for Grains {
    const ENTRY: usize = 4;

    fn part(&self) -> &Part {
        &self.part
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn unit(&self) -> u64 {
        self.grain
    }

    fn page_bytes(&self) -> usize {
        self.table_entries as usize * Self::ENTRY
    }

    fn most_data(&self) -> u64 {
        // A compressed grain has a sector of its own; of one as it is the end of the disk may be missing.
        let length = self.part.length();
        if self.compressed { (length / SECTOR).saturating_mul(self.grain) } else { length + self.grain }
    }

    fn page(&self, unit: u64) -> Result<Page> {
        let entries = u64::from(self.table_entries);
        let table = unit / entries;
        let sector = usize::try_from(table).ok().and_then(|table| self.directory.get(table)).copied();
        let sector = sector.filter(|sector| *sector != 0);
        Ok(Page {
            offset: sector.map(|sector| u64::from(sector) * SECTOR),
            units: table * entries..(table + 1) * entries,
        })
    }

    fn place(&self, entry: &[u8]) -> Result<Place> {
        let sector = u32_at(entry, 0);
        if sector == 0 || (sector == 1 && self.knows_zeros) {
            return Ok(Place::Empty);
        }
        let offset = u64::from(sector) * SECTOR;
        if offset >= self.part.length() {
            let message = format!("a grain is said to begin at byte {offset}, behind its end");
            return Err(self.part.damaged(message));
        }
        let bytes = self.part.length() - offset;
        Ok(if self.compressed { Place::Packed(Packed { offset, bytes }) } else { Place::Stored(offset) })
    }

    fn unpack(&self, unit: u64, packed: Packed, tools: &mut Tools, target: &mut [u8]) -> Result<()> {
        let Packed { offset, .. } = packed;
        let damaged = |what: &str| self.part.damaged(format!("the grain at byte {offset} {what}"));
        let mut marker = [0; GRAIN_MARKER];
        self.part.read(offset, &mut marker)?;
        let (sector, bytes) = (u64_at(&marker, 0), u64::from(u32_at(&marker, 8)));
        let start = unit * self.grain;
        if sector != start / SECTOR {
            return Err(damaged(&format!("says that it is of sector {sector}, not {}", start / SECTOR)));
        }
        // What cannot be made smaller becomes a little larger, never twice as large.
        if bytes == 0 || bytes > 2 * self.grain {
            return Err(damaged(&format!("says that it has {bytes} bytes")));
        }
        tools.load(&self.part, offset + GRAIN_MARKER as u64, bytes)?;
        let length = match tools.inflate.zlib_decompress(&tools.input, target) {
            Ok(length) => length,
            Err(error) => return Err(damaged(&format!("cannot be inflated: {error}"))),
        };
        // The last grain may end with the disk.
        if (length as u64) < self.grain.min(self.size - start) {
            return Err(damaged(&format!("has only {length} bytes when inflated")));
        }
        target[length..].fill(0);
        Ok(())
    }
}
