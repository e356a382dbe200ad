//! What VMDK and qcow2 have in common: a disk in units of one size, found through two levels of tables, each unit stored as it is
//! or compressed by itself.
//!
//! The upper table is in memory, of bounded size and shared by all twins. The lower ones are read when they are needed, and
//! forgotten.

use std::ops::Range;

use anyhow::Result;

use super::cache::Cache;
use super::disk::{ReadDisk, within};
use super::part::Part;

/// Bytes of lower tables that are remembered.
const PAGES: usize = 1 << 20;
/// Bytes of unpacked units that are remembered.
const UNITS: usize = 16 << 20;

/// Where a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: it is zero.
    Empty,
    /// As it is, from this byte on.
    Stored(u64),
    /// Compressed, in at most so many bytes from this one on.
    Packed(Packed),
}

/// Where a compressed unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packed {
    pub offset: u64,
    pub bytes: u64,
}

/// A piece of a lower table.
#[derive(Debug, Clone)]
pub(super) struct Page {
    /// Where it begins in the file; `None` where there is no table, and all its units are zero.
    pub offset: Option<u64>,
    /// The units that it speaks of.
    pub units: Range<u64>,
}

/// What a format knows of itself.
pub(super) trait Map: Clone + Send + 'static {
    /// Bytes of a lower table's entry.
    const ENTRY: usize;

    /// The file.
    fn part(&self) -> &Part;
    /// Size of the disk in bytes.
    fn size(&self) -> u64;
    /// Bytes of a unit.
    fn unit(&self) -> u64;
    /// Bytes of a page.
    fn page_bytes(&self) -> usize;
    /// See [`ReadDisk::most_data`].
    fn most_data(&self) -> u64;
    /// The page that speaks of a unit.
    fn page(&self, unit: u64) -> Result<Page>;
    /// What an entry says.
    fn place(&self, entry: &[u8]) -> Result<Place>;
    /// Unpacks a unit into `target`, which has its full length.
    fn unpack(&self, unit: u64, packed: Packed, tools: &mut Tools, target: &mut [u8]) -> Result<()>;
}

/// What unpacking needs each time.
pub(super) struct Tools {
    /// Compressed bytes.
    pub input: Vec<u8>,
    /// Deflate, in its frame or without.
    pub inflate: libdeflater::Decompressor,
    /// Zstandard, made when first needed.
    pub zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Tools {
    fn new() -> Self {
        Tools { input: Vec::new(), inflate: libdeflater::Decompressor::new(), zstd: None }
    }

    /// Reads compressed bytes into `input`. Their number is bounded by the caller.
    pub fn load(&mut self, part: &Part, offset: u64, bytes: u64) -> Result<()> {
        self.input.resize(usize::try_from(bytes)?, 0);
        part.read(offset, &mut self.input)
    }
}

/// A disk by its map.
pub(super) struct Mapped<M> {
    map: M,
    pages: Cache,
    units: Cache,
    tools: Tools,
}

impl<M: Map> Mapped<M> {
    /// Reads nothing yet.
    pub fn new(map: M) -> Self {
        Mapped { map, pages: Cache::new(PAGES), units: Cache::new(UNITS), tools: Tools::new() }
    }

    fn place(&mut self, unit: u64) -> Result<Place> {
        let page = self.map.page(unit)?;
        let Some(offset) = page.offset else { return Ok(Place::Empty) };
        let bytes = load(&mut self.pages, &self.map, offset)?;
        self.map.place(entry::<M>(bytes, &page, unit)?)
    }

    /// The first unit from `unit` on whose being empty is `empty`; the number of units when there is none.
    fn find(&mut self, mut unit: u64, empty: bool) -> Result<u64> {
        let count = self.map.size().div_ceil(self.map.unit());
        while unit < count {
            let page = self.map.page(unit)?;
            let end = page.units.end.min(count);
            match page.offset {
                None if empty => return Ok(unit),
                None => {}
                Some(offset) => {
                    let bytes = load(&mut self.pages, &self.map, offset)?;
                    for unit in unit..end {
                        let place = self.map.place(entry::<M>(bytes, &page, unit)?)?;
                        if (place == Place::Empty) == empty {
                            return Ok(unit);
                        }
                    }
                }
            }
            unit = end;
        }
        Ok(count)
    }
}

fn load<'a, M: Map>(pages: &'a mut Cache, map: &M, offset: u64) -> Result<&'a [u8]> {
    pages.get(offset, map.page_bytes(), |target| map.part().read(offset, target))
}

fn entry<'a, M: Map>(bytes: &'a [u8], page: &Page, unit: u64) -> Result<&'a [u8]> {
    let at = usize::try_from(unit - page.units.start)? * M::ENTRY;
    Ok(&bytes[at..at + M::ENTRY])
}

impl<M: Map> ReadDisk for Mapped<M> {
    fn size(&self) -> u64 {
        self.map.size()
    }

    fn read_at(&mut self, mut offset: u64, mut target: &mut [u8]) -> Result<()> {
        within(self.map.part(), self.size(), offset, target.len())?;
        let length = self.map.unit();
        while !target.is_empty() {
            let (unit, skip) = (offset / length, offset % length);
            let count = usize::try_from(length - skip)?.min(target.len());
            let (now, later) = target.split_at_mut(count);
            match self.place(unit)? {
                Place::Empty => now.fill(0),
                Place::Stored(start) => self.map.part().read(start.saturating_add(skip), now)?,
                Place::Packed(packed) => {
                    let (map, tools) = (&self.map, &mut self.tools);
                    let fill = |target: &mut [u8]| map.unpack(unit, packed, tools, target);
                    let bytes = self.units.get(unit, usize::try_from(length)?, fill)?;
                    let skip = usize::try_from(skip)?;
                    now.copy_from_slice(&bytes[skip..skip + count]);
                }
            }
            offset += count as u64;
            target = later;
        }
        Ok(())
    }

    fn next_data(&mut self, offset: u64) -> Result<Option<Range<u64>>> {
        let length = self.map.unit();
        let start = self.find(offset / length, false)?;
        let end = self.find(start, true)?;
        let range = offset.max(start.saturating_mul(length))..end.saturating_mul(length).min(self.size());
        Ok((!range.is_empty()).then_some(range))
    }

    fn most_data(&self) -> u64 {
        self.map.most_data()
    }

    fn name(&self) -> &str {
        self.map.part().name()
    }

    fn twin(&self) -> Box<dyn ReadDisk> {
        Box::new(Mapped::new(self.map.clone()))
    }
}
