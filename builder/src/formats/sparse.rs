//! Where a sparse file has data. What was never written is not read.

use std::ops::Range;

use fs_err as fs;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Iterates over the file's ranges with data, in bytes, in order. A file system without holes gives one range.
pub fn ranges(file: &fs::File) -> Ranges<'_> {
    Ranges { file, position: 0 }
}

/// See [`ranges`].
#[derive(Debug)]
pub struct Ranges<'a> {
    file: &'a fs::File,
    position: u64,
}

impl Iterator for Ranges<'_> {
    type Item = std::io::Result<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        let range = range_from(self.file, self.position).transpose()?;
        if let Ok(range) = &range {
            self.position = range.end;
        }
        Some(range)
    }
}

/// The first range with data at or behind `offset`; `None` when there is none.
pub fn range_from(file: &fs::File, offset: u64) -> std::io::Result<Option<Range<u64>>> {
    let start = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some(start..rustix::fs::seek(file, SeekFrom::Hole(start))?))
}

/// Whether every byte is zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Blocks without a branch in them: the compiler makes them a few wide instructions.
    bytes.chunks(4096).all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn holes_are_skipped_and_the_end_is_found() {
        let file = tempfile::tempfile().unwrap();
        let file = fs::File::from_parts(file, "disk");
        file.set_len(10 << 20).unwrap();
        assert_eq!(ranges(&file).count(), 0);
        file.file().write_all_at(b"x", 3 << 20).unwrap();
        file.file().write_all_at(b"y", (10 << 20) - 1).unwrap();
        let found: Vec<_> = ranges(&file).map(Result::unwrap).collect();
        assert_eq!(found.len(), 2);
        assert!(found[0].contains(&(3 << 20)) && found[1].end == 10 << 20);
        assert!(found[0].end - found[0].start < 1 << 20);
    }

    #[test]
    fn one_byte_makes_a_block_not_zero() {
        let mut block = vec![0; 65536];
        assert!(is_zero(&block));
        block[65535] = 1;
        assert!(!is_zero(&block));
    }
}
