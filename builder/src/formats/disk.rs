//! A disk for reading, whatever the format of its file, and its copy as a raw file.
//!
//! No reader believes its file: every offset is checked against the file's length, memory is bounded by constants, and any file
//! ends in bytes or in one message that names it, what is wrong and the remedy.

use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use fs_err as fs;

use super::part::Part;
use super::sparse;
use crate::error::Fault;

/// Largest disk that is opened, in bytes.
pub const SIZE_LIMIT: u64 = 1 << 42;

/// Bytes that one thread copies at a time: a multiple of every format's unit, so that no unit is unpacked twice.
const CHUNK: u64 = 2 << 20;
/// Zeros of this length, in bytes, become a hole.
const HOLE: usize = 4096;

/// A disk for reading.
pub trait ReadDisk: Send {
    /// Its size in bytes.
    fn size(&self) -> u64;

    /// Fills `target` with the bytes at `offset`. What lies behind the end of the disk is an error.
    fn read_at(&mut self, offset: u64, target: &mut [u8]) -> Result<()>;

    /// The first range at or behind `offset` that may hold something else than zeros; `None` when there is none.
    fn next_data(&mut self, offset: u64) -> Result<Option<Range<u64>>>;

    /// Bytes of data that a file of this length can hold when it holds every byte once: a file that claims more is hostile.
    fn most_data(&self) -> u64;

    /// What messages call its file.
    fn name(&self) -> &str;

    /// Another reader of the same open file, for another thread.
    fn twin(&self) -> Box<dyn ReadDisk>;
}

/// A disk byte by byte as it is.
#[derive(Debug, Clone)]
pub struct Raw(Part);

impl Raw {
    /// A part of a file as a disk.
    pub fn open(part: Part) -> Result<Self> {
        limit(&part, part.length())?;
        Ok(Raw(part))
    }
}

impl ReadDisk for Raw {
    fn size(&self) -> u64 {
        self.0.length()
    }

    fn read_at(&mut self, offset: u64, target: &mut [u8]) -> Result<()> {
        within(&self.0, self.size(), offset, target.len())?;
        self.0.read(offset, target)
    }

    fn next_data(&mut self, offset: u64) -> Result<Option<Range<u64>>> {
        self.0.next_data(offset)
    }

    fn most_data(&self) -> u64 {
        self.size()
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn twin(&self) -> Box<dyn ReadDisk> {
        Box::new(self.clone())
    }
}

/// Refuses a disk that is larger than any that we know of: its tables alone would fill the memory.
pub(super) fn limit(part: &Part, size: u64) -> Result<()> {
    if size > SIZE_LIMIT {
        return Err(part.refused("claims to be larger than 4 TiB"));
    }
    Ok(())
}

/// Refuses what lies behind the end of a disk: a file system that is larger than its disk asks for that.
pub(super) fn within(part: &Part, size: u64, offset: u64, length: usize) -> Result<()> {
    if offset.checked_add(length as u64).is_none_or(|end| end > size) {
        return Err(part.damaged(format!("its disk ends at byte {size}, and what is on it goes on")));
    }
    Ok(())
}

/// Copies a disk into a new raw file on all cores; zeros become holes.
pub fn to_raw(disk: &dyn ReadDisk, target: &Path) -> Result<()> {
    let file = fs::File::create(target)?;
    file.set_len(disk.size())?;
    let feed = Mutex::new(Feed { disk: disk.twin(), left: 0..0, most: disk.most_data(), ended: false });
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        let start = || {
            let twin = disk.twin();
            scope.spawn(|| copy(twin, &feed, &file))
        };
        let threads: Vec<_> = (0..threads).map(|_| start()).collect();
        let mut result = Ok(());
        for thread in threads {
            let one = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(one);
        }
        result
    })
}

/// What is left to be copied.
struct Feed {
    disk: Box<dyn ReadDisk>,
    left: Range<u64>,
    most: u64,
    ended: bool,
}

impl Feed {
    /// The next chunk.
    fn next(&mut self) -> Result<Option<Range<u64>>> {
        if self.ended {
            return Ok(None);
        }
        if self.left.is_empty() {
            match self.disk.next_data(self.left.end)? {
                Some(range) => self.left = range,
                None => return Ok(None),
            }
        }
        let start = self.left.start;
        let end = self.left.end.min((start / CHUNK + 1) * CHUNK);
        self.left.start = end;
        let Some(most) = self.most.checked_sub(end - start) else {
            let message =
                format!("{} claims to hold more data than its length has room for", self.disk.name());
            return Err(Fault::user(message).hint("do not trust where it came from").into());
        };
        self.most = most;
        Ok(Some(start..end))
    }
}

fn copy(mut disk: Box<dyn ReadDisk>, feed: &Mutex<Feed>, target: &fs::File) -> Result<()> {
    let lock = || -> MutexGuard<'_, Feed> { feed.lock().unwrap_or_else(PoisonError::into_inner) };
    let mut one = |buffer: &mut Vec<u8>| -> Result<bool> {
        let Some(range) = lock().next()? else { return Ok(false) };
        buffer.resize(usize::try_from(range.end - range.start)?, 0);
        disk.read_at(range.start, buffer)?;
        put(target, range.start, buffer)?;
        Ok(true)
    };
    let mut buffer = Vec::new();
    loop {
        match one(&mut buffer) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => {
                // The others need not go on.
                lock().ended = true;
                return Err(error);
            }
        }
    }
}

/// Writes what is not zero.
fn put(target: &fs::File, offset: u64, bytes: &[u8]) -> Result<()> {
    let mut start = 0;
    let mut at = 0;
    for block in bytes.chunks(HOLE).chain([&[][..]]) {
        // The empty block at the end is zero, and ends what came before.
        if sparse::is_zero(block) {
            if start < at {
                target.file().write_all_at(&bytes[start..at], offset + start as u64).map_err(|error| {
                    std::io::Error::new(
                        error.kind(),
                        format!("writing `{}`: {error}", target.path().display()),
                    )
                })?;
            }
            start = at + block.len();
        }
        at += block.len();
    }
    Ok(())
}
