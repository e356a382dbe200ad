//! Bytes of an opened image's disk, at any offset.
//!
//! The one place that knows how a `View` holds its disk. Small reads, which a file system's tables are made of, go through a bounded
//! cache: a table in a compressed disk is not inflated again for each of its entries.

use std::collections::HashMap;

use anyhow::{Context as _, Result};

use crate::formats::disk::ReadDisk;
#[cfg(test)]
use crate::formats::{disk::Raw, part::Part};
use crate::view::View;

/// Bytes of a piece of the cache.
const PIECE: u64 = 64 << 10;
/// Most pieces that are kept: 64 MiB.
const PIECES: usize = 1024;

/// A part of a disk.
pub struct Source {
    disk: Box<dyn ReadDisk>,
    start: u64,
    length: u64,
    cache: HashMap<u64, Box<[u8]>>,
}

impl Source {
    /// `length` bytes of the image's disk from `start` on.
    pub fn of(view: &View, start: u64, length: u64) -> Source {
        Source { disk: view.disk(), start, length, cache: HashMap::new() }
    }

    /// A whole file.
    #[cfg(test)]
    pub fn of_file(path: &std::path::Path) -> Result<Source> {
        let disk = Raw::open(Part::whole(fs_err::File::open(path)?)?)?;
        Ok(Source { length: disk.size(), disk: Box::new(disk), start: 0, cache: HashMap::new() })
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Fills the target with what lies at an offset, past the cache.
    pub fn read(&mut self, offset: u64, target: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(target.len() as u64).filter(|end| *end <= self.length);
        end.with_context(|| format!("byte {offset} and what follows it lie outside of the partition"))?;
        self.disk.read_at(self.start + offset, target)
    }

    /// The same for a few bytes of a table.
    pub fn look(&mut self, offset: u64, target: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < target.len() {
            let at = offset.saturating_add(filled as u64);
            let piece = self.piece(at / PIECE)?;
            let within = usize::try_from(at % PIECE)?;
            let count = piece.len().saturating_sub(within).min(target.len() - filled);
            if count == 0 {
                anyhow::bail!("byte {at} lies outside of the partition");
            }
            target[filled..filled + count].copy_from_slice(&piece[within..within + count]);
            filled += count;
        }
        Ok(())
    }

    fn piece(&mut self, index: u64) -> Result<&[u8]> {
        if !self.cache.contains_key(&index) {
            let start = index.saturating_mul(PIECE);
            let length = usize::try_from(self.length.saturating_sub(start).min(PIECE))?;
            let mut piece = vec![0; length].into_boxed_slice();
            self.read(start, &mut piece)?;
            if self.cache.len() >= PIECES {
                self.cache.clear();
            }
            self.cache.insert(index, piece);
        }
        Ok(self.cache.get(&index).map_or(&[], |piece| piece))
    }
}

/// A little-endian number of 16 bits in a table; zero behind its end.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// The same of 32 bits.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}
