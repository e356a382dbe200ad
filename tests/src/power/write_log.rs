//! What a disk was told, as QEMU's filter `blklogwrites` records it (the format of Linux' dm-log-writes): a superblock, then one
//! sector for each entry, followed by what was written.
//!
//! An entry stands where its request ended, so all that a flush has made durable stands before it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::Dice;

const MAGIC: u64 = 0x6a_7366_7773_6872;
/// The size of a sector, as QEMU is told.
pub const SECTOR: u64 = 512;
/// What a disk writes in one piece; a longer write may be cut between two of them.
const UNIT: u64 = 4096;

const FLUSH: u64 = 1;
const DISCARD: u64 = 4;

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    /// Everything that ended before it is durable.
    Flush,
    /// Bytes of the disk, and where they are in the log.
    Write { at: u64, length: u64, data: u64 },
    /// Bytes of the disk that hold nothing any more.
    Discard { at: u64, length: u64 },
}

/// The requests of one boot.
#[derive(Debug)]
pub struct WriteLog {
    path: PathBuf,
    requests: Vec<Request>,
}

impl WriteLog {
    /// Reads the log as far as its superblock vouches for it, up to the last flush, and no further than it is whole.
    pub fn read(path: &Path) -> Result<WriteLog> {
        let file = fs_err::File::open(path)?.into_parts().0;
        let number = |at: u64| -> Result<u64> {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, at).with_context(|| format!("reading `{}`", path.display()))?;
            Ok(u64::from_le_bytes(bytes))
        };
        let length = file.metadata()?.len();
        // A machine that was cut before its first flush leaves no superblock.
        if length < SECTOR || number(0)? == 0 {
            return Ok(WriteLog { path: path.to_owned(), requests: Vec::new() });
        }
        ensure!(number(0)? == MAGIC && number(8)? == 1, "`{}` is no log of writes", path.display());
        ensure!(number(24)? & 0xffff_ffff == SECTOR, "`{}` has other sectors than asked for", path.display());
        let mut requests = Vec::new();
        let mut at = SECTOR;
        for entry in 0..number(16)? {
            if at + SECTOR > length {
                break;
            }
            let (sector, sectors, flags) = (number(at)?, number(at + 8)?, number(at + 16)?);
            at += SECTOR;
            // QEMU gives an entry its place before it writes it: one that was on its way when QEMU was killed is a hole, and so
            // its length is not known.
            if (sectors, flags) == (0, 0) || flags & DISCARD == 0 && at + sectors * SECTOR > length {
                break;
            }
            let (start, bytes) = (sector * SECTOR, sectors * SECTOR);
            requests.push(match flags {
                0 => {
                    let data = at;
                    at += bytes;
                    Request::Write { at: start, length: bytes, data }
                }
                FLUSH => Request::Flush,
                DISCARD => Request::Discard { at: start, length: bytes },
                _ => bail!("`{}`: entry {entry} has flags {flags:#x}", path.display()),
            });
        }
        Ok(WriteLog { path: path.to_owned(), requests })
    }

    /// The same up to a number of requests.
    #[must_use]
    pub fn up_to(mut self, requests: usize) -> WriteLog {
        self.requests.truncate(requests);
        self
    }

    /// Number of requests.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether nothing was asked of the disk.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Number of flushes.
    pub fn flushes(&self) -> usize {
        self.requests.iter().filter(|request| **request == Request::Flush).count()
    }

    /// Up to which byte of the log all is durable after the first `moment` requests.
    pub fn durable(&self, moment: usize) -> u64 {
        let end = |request: &Request| match *request {
            Request::Write { length, .. } => SECTOR + length,
            Request::Flush | Request::Discard { .. } => SECTOR,
        };
        let seen = &self.requests[..moment.min(self.requests.len())];
        let flushed =
            seen.iter().rposition(|request| *request == Request::Flush).map_or(0, |flush| flush + 1);
        SECTOR + seen[..flushed].iter().map(end).sum::<u64>()
    }

    /// Makes `disk`, as it was before the first request, what it may be after a cut behind the first `moment` requests: all that a
    /// flush had made durable, and of the rest a random part, in random shape. Returns how many requests were dropped or torn.
    pub fn cut(&self, disk: &Path, moment: usize, dice: &mut Dice) -> Result<usize> {
        let seen = &self.requests[..moment.min(self.requests.len())];
        let durable =
            seen.iter().rposition(|request| *request == Request::Flush).map_or(0, |flush| flush + 1);
        let log = fs_err::File::open(&self.path)?.into_parts().0;
        let disk = fs_err::OpenOptions::new().write(true).open(disk)?.into_parts().0;
        let mut lost = 0;
        for (index, request) in seen.iter().enumerate() {
            match *request {
                Request::Flush => {}
                _ if index < durable => apply(request, 0..u64::MAX, &log, &disk)?,
                _ => match dice.below(4) {
                    0 | 1 => apply(request, 0..u64::MAX, &log, &disk)?,
                    2 => lost += 1,
                    // Torn: its beginning or its end, at a unit that the disk writes in one piece.
                    _ => {
                        let (Request::Write { length, .. } | Request::Discard { length, .. }) = *request
                        else {
                            continue;
                        };
                        let at = dice.below(length / UNIT + 1) * UNIT;
                        let part = if dice.below(2) == 0 { 0..at } else { at..u64::MAX };
                        apply(request, part, &log, &disk)?;
                        lost += 1;
                    }
                },
            }
        }
        Ok(lost)
    }
}

/// Carries out the part of a request whose bytes, counted from its start, lie in `part`.
fn apply(request: &Request, part: std::ops::Range<u64>, log: &File, disk: &File) -> Result<()> {
    const BLOCK: u64 = 1 << 20;
    let (at, length, mut data) = match *request {
        Request::Flush => return Ok(()),
        Request::Write { at, length, data } => (at, length, Some(data)),
        Request::Discard { at, length } => (at, length, None),
    };
    let (start, end) = (part.start.min(length), part.end.min(length));
    if let Some(data) = &mut data {
        *data += start;
    }
    let Some(mut data) = data else {
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        return if start == end {
            Ok(())
        } else {
            rustix::fs::fallocate(disk, flags, at + start, end - start).context("discarding a part of a disk")
        };
    };
    let mut done = start;
    while done < end {
        let count = (end - done).min(BLOCK);
        let mut bytes = vec![0; usize::try_from(count)?];
        log.read_exact_at(&mut bytes, data)?;
        disk.write_all_at(&bytes, at + done)?;
        done += count;
        data += count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log: letters are writes of one unit to the place of the letter, `!` is a flush, `-` discards the first unit.
    fn log(folder: &Path, requests: &str) -> WriteLog {
        let mut entries = Vec::new();
        for request in requests.bytes() {
            let (place, units, flags) = match request {
                b'!' => (0, 0, FLUSH),
                b'-' => (0, 1, DISCARD),
                letter => (u64::from(letter - b'a'), 1, 0),
            };
            let mut entry = Vec::new();
            for number in [place * UNIT / SECTOR, units * UNIT / SECTOR, flags, 0] {
                entry.extend(number.to_le_bytes());
            }
            entry.resize(512, 0);
            if flags == 0 {
                entry.resize(512 + 4096, request);
            }
            entries.extend(entry);
        }
        let mut bytes = Vec::new();
        for number in [MAGIC, 1, requests.len() as u64, SECTOR] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.resize(512, 0);
        bytes.extend(entries);
        fs_err::write(folder.join("log"), bytes).unwrap();
        WriteLog::read(&folder.join("log")).unwrap()
    }

    /// The first byte of each unit of a disk of four.
    fn cut(log: &WriteLog, folder: &Path, moment: usize, seed: u64) -> String {
        let disk = folder.join("disk");
        fs_err::write(&disk, vec![b'.'; 4 * 4096]).unwrap();
        log.cut(&disk, moment, &mut Dice::new(seed)).unwrap();
        let bytes = fs_err::read(&disk).unwrap();
        (0..4)
            .map(|unit| if bytes[unit * 4096] == 0 { '0' } else { char::from(bytes[unit * 4096]) })
            .collect()
    }

    #[test]
    fn what_was_flushed_is_there_and_what_was_not_yet_asked_for_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(folder.path(), "ab!-c!d");
        assert_eq!((log.len(), log.flushes()), (7, 2));
        for seed in 0..20 {
            assert_eq!(cut(&log, folder.path(), 3, seed), "ab..");
            assert_eq!(cut(&log, folder.path(), 6, seed), "0bc.");
        }
    }

    #[test]
    fn what_was_not_flushed_may_be_lost_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(folder.path(), "a!bc");
        let mut seen: Vec<String> = (0..60).map(|seed| cut(&log, folder.path(), 4, seed)).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen, ["a...", "a.c.", "ab..", "abc."]);
    }

    #[test]
    fn a_log_that_was_cut_ends_before_the_hole() {
        let folder = tempfile::tempdir().unwrap();
        log(folder.path(), "a!bc!");
        let path = folder.path().join("log");
        let whole = fs_err::read(&path).unwrap();
        let third = 512 + (512 + 4096) + 512;
        let mut holed = whole.clone();
        holed[third..third + 512].fill(0);
        for cut in [holed, whole[..third + 100].to_vec(), whole[..third + 2000].to_vec()] {
            fs_err::write(&path, cut).unwrap();
            assert_eq!(WriteLog::read(&path).unwrap().len(), 2);
        }
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs_err::write(&path, vec![7; 1024]).unwrap();
        assert!(WriteLog::read(&path).unwrap_err().to_string().contains("no log of writes"));
        fs_err::write(&path, "").unwrap();
        assert!(WriteLog::read(&path).unwrap().is_empty());
    }
}
