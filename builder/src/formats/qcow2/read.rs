//! A qcow2 in one file as a disk: versions 2 and 3, clusters whole, zero or compressed by deflate or Zstandard.
//!
//! Nothing but the file itself is ever opened: a backing file or a data file is refused. Of several states only the active one is
//! read; reference counts are not looked at.

use std::sync::Arc;

use anyhow::Result;

use super::header::{
    CLUSTER_BITS_LEAST, CLUSTER_BITS_MOST, COMPRESSED, COMPRESSION, CORRUPT, Compressed, DEFLATE, DIRTY,
    ENTRY, EXTENDED_L2, EXTERNAL_DATA, HEADER_V2, HEADER_V3, HEADER_V3_COMPRESSION, Header, OFFSET, ZERO,
    ZSTD, u32_at, u64_at,
};
use crate::formats::disk::{ReadDisk, limit};
use crate::formats::mapped::{Map, Mapped, Packed, Page, Place, Tools};
use crate::formats::part::Part;

/// Largest first-level table in bytes, the limit that QEMU has too.
const L1_LIMIT: u64 = 32 << 20;
/// Bytes of a second-level table that are read at a time, where a cluster has so many.
const PAGE: usize = 4096;

/// Opens the disk.
pub fn open(part: Part) -> Result<Box<dyn ReadDisk>> {
    let header = head(&part)?;
    if header.encryption != 0 {
        return Err(part.refused("is encrypted"));
    }
    if header.incompatible & CORRUPT != 0 {
        let message = "it is marked as corrupt; `qemu-img check -r all` may repair a copy of it";
        return Err(part.damaged(message));
    }
    if header.incompatible & EXTENDED_L2 != 0 {
        return Err(part.refused("has subclusters (extended_l2), which are not read here"));
    }
    let unknown = header.incompatible & !(DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION | EXTENDED_L2);
    if unknown != 0 {
        return Err(part.refused(format!("has features that are unknown (bits {unknown:#x})")));
    }
    let zstd = match header.compression {
        DEFLATE => false,
        ZSTD => true,
        other => return Err(part.refused(format!("is compressed in a way that is unknown ({other})"))),
    };
    if zstd != (header.incompatible & COMPRESSION != 0) {
        return Err(part.damaged("its feature bits contradict its compression type"));
    }
    let cluster = header.cluster();
    // What one second-level table speaks of.
    let covered = cluster * (cluster / ENTRY);
    let tables = header.size.div_ceil(covered);
    if u64::from(header.l1_entries) < tables {
        return Err(part.damaged("its first-level table is too small for the disk"));
    }
    let l1 = part.read_table(header.l1_offset, tables * ENTRY, L1_LIMIT, "its first-level table")?;
    let map = Clusters {
        size: header.size,
        cluster_bits: header.cluster_bits,
        version: header.version,
        zstd,
        l1: l1.chunks_exact(8).map(|entry| u64_at(entry, 0)).collect(),
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
    let mut bytes = [0; HEADER_V3_COMPRESSION];
    let there = HEADER_V3_COMPRESSION.min(usize::try_from(part.length())?);
    part.read(0, &mut bytes[..there])?;
    if there >= HEADER_V2 {
        let version = u32_at(&bytes, 4);
        if !(2..=3).contains(&version) {
            return Err(part.refused(format!("is a qcow of version {version}, not 2 or 3")));
        }
    }
    let Some(header) = Header::parse(&bytes[..there]) else {
        return Err(part.damaged("its header is none of a qcow2, or was cut off"));
    };
    if header.backing_offset != 0 || header.incompatible & EXTERNAL_DATA != 0 {
        let what = if header.backing_offset == 0 {
            "its clusters lie in a data file"
        } else {
            "it holds only what differs from a backing file"
        };
        return Err(part.refused(format!("is not a disk by itself: it refers to other files ({what})")));
    }
    limit(part, header.size)?;
    if !(CLUSTER_BITS_LEAST..=CLUSTER_BITS_MOST).contains(&header.cluster_bits) {
        let bits = header.cluster_bits;
        return Err(part.damaged(format!("its clusters are said to have 2^{bits} bytes")));
    }
    let header_bytes = u64::from(header.header_bytes);
    if header.version > 2 && !(HEADER_V3 as u64..=header.cluster()).contains(&header_bytes) {
        return Err(part.damaged(format!("its header is said to have {header_bytes} bytes")));
    }
    Ok(header)
}

/// The disk's map: two levels of tables.
#[derive(Debug, Clone)]
struct Clusters {
    part: Part,
    size: u64,
    cluster_bits: u32,
    version: u32,
    /// Compressed clusters are Zstandard, not deflate.
    zstd: bool,
    /// Entries of the first-level table, as they are in the file.
    l1: Arc<[u64]>,
}

impl Clusters {
    /// Where an entry says that something begins; it must be a cluster of the file.
    fn offset(&self, entry: u64, what: &str) -> Result<u64> {
        let offset = entry & OFFSET;
        if !offset.is_multiple_of(self.unit()) || offset >= self.part.length() {
            let message = format!("{what} is said to begin at byte {offset}, which is no cluster of it");
            return Err(self.part.damaged(message));
        }
        Ok(offset)
    }
}

impl Map for Clusters {
    const ENTRY: usize = 8;

    fn part(&self) -> &Part {
        &self.part
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn unit(&self) -> u64 {
        1 << self.cluster_bits
    }

    fn page_bytes(&self) -> usize {
        PAGE.min(1 << self.cluster_bits)
    }

    fn most_data(&self) -> u64 {
        // A compressed cluster of next to nothing has at least its entry.
        (self.part.length() / ENTRY).saturating_mul(self.unit())
    }

    fn page(&self, unit: u64) -> Result<Page> {
        let (table_entries, page_entries) = (self.unit() / ENTRY, self.page_bytes() as u64 / ENTRY);
        let table = unit / table_entries;
        let entry = usize::try_from(table).ok().and_then(|table| self.l1.get(table)).copied().unwrap_or(0);
        if entry & OFFSET == 0 {
            return Ok(Page { offset: None, units: table * table_entries..(table + 1) * table_entries });
        }
        let first = unit / page_entries * page_entries;
        let offset = self.offset(entry, "a second-level table")? + first % table_entries * ENTRY;
        Ok(Page { offset: Some(offset), units: first..first + page_entries })
    }

    fn place(&self, entry: &[u8]) -> Result<Place> {
        let entry = u64_at(entry, 0);
        if entry & COMPRESSED != 0 {
            let place = Compressed::parse(entry, self.cluster_bits);
            let Some(left) = self.part.length().checked_sub(place.offset).filter(|left| *left > 0) else {
                let message = format!("a cluster is said to begin at byte {}, behind its end", place.offset);
                return Err(self.part.damaged(message));
            };
            // The last sector is counted whole, and need not be there whole.
            let bytes = place.bytes().min(left);
            return Ok(Place::Packed(Packed { offset: place.offset, bytes }));
        }
        if entry & ZERO != 0 {
            if self.version < 3 {
                return Err(self.part.damaged("it has clusters of zeros, which its version does not know"));
            }
            return Ok(Place::Empty);
        }
        if entry & OFFSET == 0 {
            return Ok(Place::Empty);
        }
        Ok(Place::Stored(self.offset(entry, "a cluster")?))
    }

    fn unpack(&self, _: u64, packed: Packed, tools: &mut Tools, target: &mut [u8]) -> Result<()> {
        let damaged = |what: String| {
            self.part.damaged(format!("the compressed cluster at byte {} {what}", packed.offset))
        };
        // At most twice a cluster, by the bits that there are for it.
        tools.load(&self.part, packed.offset, packed.bytes)?;
        let length = if self.zstd {
            // The frame ends somewhere in the last sector; behind it begins the next one.
            let frame = zstd::zstd_safe::find_frame_compressed_size(&tools.input)
                .ok()
                .and_then(|length| tools.input.get(..length))
                .ok_or_else(|| damaged("is no Zstandard frame".to_owned()))?;
            let zstd = match &mut tools.zstd {
                Some(zstd) => zstd,
                none => none.insert(zstd::bulk::Decompressor::new()?),
            };
            zstd.decompress_to_buffer(frame, target).map_err(|error| damaged(format!("is wrong: {error}")))?
        } else {
            tools
                .inflate
                .deflate_decompress(&tools.input, target)
                .map_err(|error| damaged(format!("cannot be inflated: {error}")))?
        };
        if length != target.len() {
            return Err(damaged(format!("has only {length} bytes when unpacked")));
        }
        Ok(())
    }
}
