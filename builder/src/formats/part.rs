//! A part of an open file, as if it were a file of its own: what every reader of a format is given.
//!
//! Nothing outside the part is ever read, and nothing is allocated for bytes that are not there. Twins share the open file, so
//! that several threads can read it.

use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use anyhow::Result;
use fs_err as fs;

use super::sparse;
use crate::error::Fault;

/// What to do about a file that is not what it should be.
const COPY_AGAIN: &str = "copy it again from where it came from, and compare its checksum";
/// What to do about a file that is right, and more than we read.
const CONVERT: &str = "make it one with `qemu-img convert`, if you trust where it came from";

/// See the module.
#[derive(Debug, Clone)]
pub struct Part {
    file: Arc<fs::File>,
    start: u64,
    length: u64,
    name: Arc<str>,
}

impl Part {
    /// All of a file.
    pub fn whole(file: fs::File) -> Result<Self> {
        let name = format!("`{}`", file.path().display()).into();
        Ok(Part { start: 0, length: file.metadata()?.len(), file: Arc::new(file), name })
    }

    /// A part of this part, which messages call `name`.
    pub fn within(&self, start: u64, length: u64, name: String) -> Result<Self> {
        self.check(start, length)?;
        Ok(Part { file: Arc::clone(&self.file), start: self.start + start, length, name: name.into() })
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What messages call it: a path in back-ticks, and what of it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Fills `target` with the bytes at `offset`.
    pub fn read(&self, offset: u64, target: &mut [u8]) -> Result<()> {
        self.check(offset, target.len() as u64)?;
        self.file.file().read_exact_at(target, self.start + offset).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.damaged("it became shorter while it was read"),
            _ => Fault::environment(format!("reading {}: {error}", self.name)).into(),
        })
    }

    /// A table, of which `what` has at most `limit` bytes when it is honest.
    pub fn read_table(&self, offset: u64, bytes: u64, limit: u64, what: &str) -> Result<Vec<u8>> {
        if bytes > limit {
            return Err(self.damaged(format!("{what} has {bytes} bytes, more than {limit}")));
        }
        self.check(offset, bytes)?;
        let mut table = vec![0; usize::try_from(bytes)?];
        self.read(offset, &mut table)?;
        Ok(table)
    }

    /// The first range at or behind `offset` that is no hole of the file. A file system without holes gives all that is left.
    pub fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let end = self.start + self.length;
        let from = self.start.saturating_add(offset);
        if from >= end {
            return Ok(None);
        }
        let range = sparse::range_from(&self.file, from)?.map(|range| range.start..range.end.min(end));
        Ok(range
            .filter(|range| !range.is_empty())
            .map(|range| range.start - self.start..range.end - self.start))
    }

    /// An error for a file that contradicts itself or its format.
    pub fn damaged(&self, what: impl std::fmt::Display) -> anyhow::Error {
        Fault::user(format!("{} is damaged: {what}", self.name)).hint(COPY_AGAIN).into()
    }

    /// An error for a file that may well be right, but is not what is read here.
    pub fn refused(&self, what: impl std::fmt::Display) -> anyhow::Error {
        Fault::user(format!("{} {what}", self.name)).hint(CONVERT).into()
    }

    fn check(&self, offset: u64, length: u64) -> Result<()> {
        if offset.checked_add(length).is_some_and(|end| end <= self.length) {
            return Ok(());
        }
        Err(self.damaged(format!(
            "{length} bytes at byte {offset} are wanted, it has {}; it may have been cut off",
            self.length
        )))
    }
}
