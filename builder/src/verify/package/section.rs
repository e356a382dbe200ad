//! A part of a file, read in place: what lies outside it cannot be reached, whatever a header says.

use anyhow::{Context as _, Result};
use fs_err as fs;

/// Bytes that are read at once where a whole part is gone through.
const PIECE: usize = 1 << 20;

/// Something with bytes at offsets.
pub(super) trait Source {
    /// Fills `target` with the bytes from `at` on.
    fn fill(&self, at: u64, target: &mut [u8]) -> std::io::Result<()>;
}

impl Source for fs::File {
    fn fill(&self, at: u64, target: &mut [u8]) -> std::io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self.file(), target, at)
    }
}

impl Source for &[u8] {
    fn fill(&self, at: u64, target: &mut [u8]) -> std::io::Result<()> {
        let end = std::io::ErrorKind::UnexpectedEof;
        let start = usize::try_from(at).map_err(|_| end)?;
        let bytes = self.get(start..).and_then(|rest| rest.get(..target.len())).ok_or(end)?;
        target.copy_from_slice(bytes);
        Ok(())
    }
}

/// A part of a source.
#[derive(Clone, Copy)]
pub(super) struct Section<'s> {
    source: &'s dyn Source,
    offset: u64,
    length: u64,
}

impl<'s> Section<'s> {
    /// The first `length` bytes of a source.
    pub(super) fn new(source: &'s dyn Source, length: u64) -> Self {
        Section { source, offset: 0, length }
    }

    /// Its length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// A part of it; `None` when that does not lie within.
    pub(super) fn part(&self, at: u64, length: u64) -> Option<Section<'s>> {
        let end = at.checked_add(length)?;
        (end <= self.length).then(|| Section { source: self.source, offset: self.offset + at, length })
    }

    /// Fills `target`; answers `false` when the bytes are not all within.
    pub(super) fn fill(&self, at: u64, target: &mut [u8]) -> Result<bool> {
        if at.checked_add(target.len() as u64).is_none_or(|end| end > self.length) {
            return Ok(false);
        }
        self.source.fill(self.offset + at, target).context("reading the file")?;
        Ok(true)
    }

    /// `length` bytes; `None` when they are not all within. The caller has a limit for `length`.
    pub(super) fn bytes(&self, at: u64, length: usize) -> Result<Option<Vec<u8>>> {
        if at.checked_add(length as u64).is_none_or(|end| end > self.length) {
            return Ok(None);
        }
        let mut bytes = vec![0; length];
        self.fill(at, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// One sector.
    pub(super) fn sector(&self, at: u64) -> Result<Option<[u8; 512]>> {
        let mut sector = [0; 512];
        Ok(self.fill(at, &mut sector)?.then_some(sector))
    }

    /// All of it, piece by piece, until `each` answers `false`.
    pub(super) fn each(&self, mut each: impl FnMut(&[u8]) -> bool) -> Result<()> {
        let mut buffer = vec![0; PIECE];
        let mut at = 0;
        while at < self.length {
            // OK: a piece's length fits.
            let count = usize::try_from(self.length - at).unwrap_or(PIECE).min(PIECE);
            self.fill(at, &mut buffer[..count])?;
            if !each(&buffer[..count]) {
                break;
            }
            at += count as u64;
        }
        Ok(())
    }

    /// Whether every byte is zero.
    pub(super) fn is_zero(&self) -> Result<bool> {
        let mut zero = true;
        self.each(|piece| {
            zero = piece.iter().all(|byte| *byte == 0);
            zero
        })?;
        Ok(zero)
    }
}
