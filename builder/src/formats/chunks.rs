//! A sparse disk cut into units of one size, each compressed by itself on all cores; results come in the order of the disk.
//!
//! The disk is read once, holes and units of zeros are left out. What comes out does not depend on the number of threads, and
//! not on which zeros the file system keeps as holes. Memory is bounded by the number of batches under way, not by the disk.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, anyhow};
use fs_err as fs;

use super::sparse;

/// Bytes of the disk that one thread takes at a time.
const BATCH: u64 = 1 << 20;
/// Batches under way for each thread: enough that none waits while the slowest is written.
const AHEAD: usize = 4;

/// Compresses one unit; each thread has one of its own.
pub trait Encoder {
    /// Appends the unit's form in the file.
    fn encode(&mut self, unit: &[u8], target: &mut Vec<u8>) -> Result<()>;
}

/// The disk to be read.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its raw file.
    pub file: &'a fs::File,
    /// Its size in bytes; the file may be shorter, never longer.
    pub size: u64,
    /// Bytes of a unit. The last unit is filled up with zeros.
    pub unit: u64,
}

/// Some units of the disk, one behind the other.
#[derive(Debug, Default)]
struct Batch {
    number: u64,
    /// Numbers of its units.
    units: Range<u64>,
    /// Encoded units: number, place in `bytes`.
    encoded: Vec<(u64, Range<usize>)>,
    bytes: Vec<u8>,
}

impl Source<'_> {
    /// Gives every unit that is not all zero to `take`, encoded, in order. `seen` hears how far into the disk that is, in bytes.
    pub fn encode<E: Encoder>(
        self,
        encoder: impl Fn() -> Result<E> + Sync,
        mut take: impl FnMut(u64, &[u8]) -> Result<()>,
        mut seen: impl FnMut(u64),
    ) -> Result<()> {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let (to_worker, from_main) = sync_channel::<Batch>(threads * AHEAD);
        let (to_main, from_worker) = sync_channel::<Result<Batch>>(threads * AHEAD);
        let from_main = Arc::new(Mutex::new(from_main));
        let encoder = &encoder;
        // `move`: an error drops the channels, and that ends the threads.
        std::thread::scope(move |scope| {
            for _ in 0..threads {
                let (from_main, to_main) = (Arc::clone(&from_main), to_main.clone());
                scope.spawn(move || self.work(encoder, &from_main, &to_main));
            }
            // Their ends alone are left: when the last thread is gone the channels say so.
            drop((to_main, from_main));
            let mut waiting: BTreeMap<u64, Batch> = BTreeMap::new();
            let mut idle: Vec<Batch> = Vec::new();
            let (mut sent, mut written) = (0, 0);
            let mut batches = self.batches();
            loop {
                while sent - written < (threads * AHEAD) as u64 {
                    let Some(units) = batches.next().transpose()? else { break };
                    let batch = Batch { number: sent, units, ..idle.pop().unwrap_or_default() };
                    to_worker.send(batch).map_err(|_| anyhow!("a compressing thread has ended"))?;
                    sent += 1;
                }
                if written == sent {
                    return Ok(());
                }
                let batch = from_worker.recv().context("a compressing thread has ended")??;
                waiting.insert(batch.number, batch);
                while let Some(mut batch) = waiting.remove(&written) {
                    for (unit, place) in batch.encoded.drain(..) {
                        take(unit, &batch.bytes[place])?;
                    }
                    seen((batch.units.end * self.unit).min(self.size));
                    batch.bytes.clear();
                    idle.push(batch);
                    written += 1;
                }
            }
        })
    }

    /// Numbers of the units that have data, in pieces of a batch.
    fn batches(self) -> impl Iterator<Item = Result<Range<u64>>> {
        let mut ranges = sparse::ranges(self.file);
        let mut left = 0..0;
        std::iter::from_fn(move || {
            while left.is_empty() {
                match ranges.next()? {
                    Err(error) => return Some(Err(error.into())),
                    // A unit may hold the end of one range and the beginning of the next.
                    Ok(range) => {
                        left = left.end.max(range.start / self.unit)..range.end.div_ceil(self.unit);
                    }
                }
            }
            let end = left.end.min(left.start + (BATCH / self.unit).max(1));
            let units = left.start..end;
            left.start = end;
            Some(Ok(units))
        })
    }

    fn work<E: Encoder>(
        self,
        encoder: &impl Fn() -> Result<E>,
        batches: &Mutex<Receiver<Batch>>,
        done: &SyncSender<Result<Batch>>,
    ) {
        let mut buffer = Vec::new();
        let mut encoder = match encoder() {
            Ok(encoder) => encoder,
            Err(error) => {
                // Nobody listens any more when another thread has failed first.
                let _ = done.send(Err(error));
                return;
            }
        };
        loop {
            // A poisoned lock: another thread has panicked, and the scope passes that on.
            let Ok(Ok(batch)) = batches.lock().map(|batches| batches.recv()) else { return };
            // Whoever waits for this batch must hear of a panic too. Nothing is used after it: the error ends all threads.
            let filled = catch_unwind(AssertUnwindSafe(|| self.fill(batch, &mut encoder, &mut buffer)));
            if done
                .send(filled.unwrap_or_else(|_| Err(anyhow!("a compressing thread has panicked"))))
                .is_err()
            {
                return;
            }
        }
    }

    fn fill<E: Encoder>(self, mut batch: Batch, encoder: &mut E, buffer: &mut Vec<u8>) -> Result<Batch> {
        let length = usize::try_from((batch.units.end - batch.units.start) * self.unit)?;
        let start = batch.units.start * self.unit;
        let there = usize::try_from(self.size.saturating_sub(start))?.min(length);
        buffer.resize(length, 0);
        read_full(self.file, start, &mut buffer[..there])
            .with_context(|| format!("reading `{}`", self.file.path().display()))?;
        buffer[there..].fill(0);
        for (number, unit) in batch.units.clone().zip(buffer.chunks_exact(usize::try_from(self.unit)?)) {
            if sparse::is_zero(unit) {
                continue;
            }
            let begin = batch.bytes.len();
            encoder.encode(unit, &mut batch.bytes)?;
            batch.encoded.push((number, begin..batch.bytes.len()));
        }
        Ok(batch)
    }
}

/// What lies behind the end of the file is zero, as it is for whoever opens the raw disk.
fn read_full(file: &fs::File, mut offset: u64, mut target: &mut [u8]) -> std::io::Result<()> {
    while !target.is_empty() {
        let count = file.file().read_at(target, offset)?;
        if count == 0 {
            target.fill(0);
            return Ok(());
        }
        target = &mut target[count..];
        offset += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Plain;

    impl Encoder for Plain {
        fn encode(&mut self, unit: &[u8], target: &mut Vec<u8>) -> Result<()> {
            target.extend_from_slice(unit);
            Ok(())
        }
    }

    struct Broken;

    impl Encoder for Broken {
        fn encode(&mut self, _: &[u8], _: &mut Vec<u8>) -> Result<()> {
            Err(anyhow!("no"))
        }
    }

    struct Panicking;

    impl Encoder for Panicking {
        fn encode(&mut self, unit: &[u8], _: &mut Vec<u8>) -> Result<()> {
            assert!(unit[0] != b'b', "as a bug would");
            Ok(())
        }
    }

    fn disk(content: &[(u64, &[u8])], size: u64) -> fs::File {
        let file = fs::File::from_parts(tempfile::tempfile().unwrap(), "disk");
        file.set_len(size).unwrap();
        for (offset, bytes) in content {
            file.file().write_all_at(bytes, *offset).unwrap();
        }
        file
    }

    #[test]
    fn units_come_in_order_and_zeros_do_not_come() {
        // Data in many batches, a unit of written zeros, and an end in the middle of a unit.
        let size = (40 << 20) + 100;
        let file = disk(&[(0, b"a"), (65536, &vec![0; 65536]), (size - 1, b"z")], size);
        for block in 1..40_u64 {
            file.file().write_all_at(&block.to_le_bytes(), block << 20).unwrap();
        }
        let mut found = Vec::new();
        let source = Source { file: &file, size, unit: 65536 };
        source
            .encode(
                || Ok(Plain),
                |unit, bytes| {
                    assert_eq!(bytes.len(), 65536);
                    found.push((unit, bytes[0]));
                    Ok(())
                },
                |_| (),
            )
            .unwrap();
        let wanted: Vec<_> = std::iter::once((0, b'a'))
            .chain((1..40_u64).map(|block| (block * 16, u8::try_from(block).unwrap())))
            .chain([(640, 0)])
            .collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn errors_of_both_ends_come_out() {
        let file = disk(&[(0, b"a"), (1 << 20, b"b"), (30 << 20, b"c")], 64 << 20);
        let source = Source { file: &file, size: 64 << 20, unit: 65536 };
        assert_eq!(source.encode(|| Ok(Broken), |_, _| Ok(()), |_| ()).unwrap_err().to_string(), "no");
        let panicked = source.encode(|| Ok(Panicking), |_, _| Ok(()), |_| ()).unwrap_err();
        assert_eq!(panicked.to_string(), "a compressing thread has panicked");
        let full = source.encode(|| Ok(Plain), |_, _| Err(anyhow!("full")), |_| ());
        assert_eq!(full.unwrap_err().to_string(), "full");
    }
}
