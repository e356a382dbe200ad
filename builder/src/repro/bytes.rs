//! Where two files, or parts of them, differ first. Holes are skipped where both have them, so a sparse disk costs what it holds.

use std::os::unix::fs::FileExt as _;

use anyhow::Result;
use fs_err as fs;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Bytes that are compared at once.
const CHUNK: usize = 1 << 20;
/// Bytes that are shown before the first difference.
const BEFORE: u64 = 16;
/// Bytes that are shown from it on.
const AFTER: usize = 24;

/// A part of an open file.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// The file.
    pub file: &'a fs::File,
    /// Where the part begins, in bytes.
    pub start: u64,
    /// Its length in bytes; the file must have them.
    pub length: u64,
}

impl<'a> Part<'a> {
    /// A whole file.
    pub fn whole(file: &'a fs::File) -> Result<Self> {
        Ok(Part { file, start: 0, length: file.metadata()?.len() })
    }

    /// The bytes around an offset of the part, readable: what is no text is escaped.
    pub fn excerpt(&self, offset: u64) -> Result<String> {
        let from = offset.saturating_sub(BEFORE).min(self.length);
        let length = usize::try_from(self.length - from)?.min(AFTER + usize::try_from(offset - from)?);
        let mut bytes = vec![0; length];
        self.file.file().read_exact_at(&mut bytes, self.start + from)?;
        Ok(bytes.escape_ascii().to_string())
    }

    /// The next byte at or after `offset` of the part that is not in a hole, or the part's end.
    fn data(&self, offset: u64) -> Result<u64> {
        match rustix::fs::seek(self.file, SeekFrom::Data(self.start + offset)) {
            Ok(at) => Ok((at - self.start).min(self.length)),
            // Nothing but a hole up to the file's end.
            Err(Errno::NXIO) => Ok(self.length),
            // A file system without holes.
            Err(Errno::INVAL | Errno::NOTSUP) => Ok(offset),
            Err(error) => Err(error.into()),
        }
    }
}

/// The offset of the first byte that differs; where one part is the beginning of the other, the shorter one's length.
pub fn first_difference(one: Part<'_>, two: Part<'_>) -> Result<Option<u64>> {
    let common = one.length.min(two.length);
    let mut buffers = [vec![0; CHUNK], vec![0; CHUNK]];
    let mut offset = 0;
    while offset < common {
        // A hole reads as zero bytes: only where neither has data is there nothing to compare.
        offset = one.data(offset)?.min(two.data(offset)?);
        if offset >= common {
            break;
        }
        let length = usize::try_from((common - offset).min(CHUNK as u64))?;
        for (part, buffer) in [one, two].iter().zip(&mut buffers) {
            part.file.file().read_exact_at(&mut buffer[..length], part.start + offset)?;
        }
        if buffers[0][..length] != buffers[1][..length] {
            let at = buffers[0].iter().zip(&buffers[1]).take_while(|(one, two)| one == two).count();
            return Ok(Some(offset + at as u64));
        }
        offset += length as u64;
    }
    Ok((one.length != two.length).then_some(common))
}

/// What is said of a first difference.
pub fn describe(one: Part<'_>, two: Part<'_>, offset: u64) -> Result<String> {
    let (first, second) = (one.excerpt(offset)?, two.excerpt(offset)?);
    let lengths = if one.length == two.length {
        String::new()
    } else {
        format!(" ({} and {} bytes long)", one.length, two.length)
    };
    Ok(format!("from byte {offset} on{lengths}: `{first}` and `{second}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[(u64, &[u8])], length: u64) -> fs::File {
        let (file, path) = tempfile::NamedTempFile::new().unwrap().keep().unwrap();
        fs::remove_file(path).unwrap();
        let file = fs::File::from_parts(file, "test");
        file.set_len(length).unwrap();
        for (offset, bytes) in content {
            file.file().write_all_at(bytes, *offset).unwrap();
        }
        file
    }

    fn differ(one: &fs::File, two: &fs::File) -> Option<u64> {
        first_difference(Part::whole(one).unwrap(), Part::whole(two).unwrap()).unwrap()
    }

    #[test]
    fn the_first_of_two_differences_behind_a_hole_is_found() {
        let far = 3 * CHUNK as u64 + 5;
        let one = file(&[(10, b"same"), (far, b"x")], far + 100);
        let two = file(&[(10, b"same"), (far, b"y"), (far + 50, b"y")], far + 100);
        assert_eq!(differ(&one, &two), Some(far));
        let (one, two) = (Part::whole(&one).unwrap(), Part::whole(&two).unwrap());
        let said = describe(one, two, far).unwrap();
        assert!(said.starts_with(&format!("from byte {far} on: `")) && said.contains("x\\x00"), "{said}");
    }

    #[test]
    fn a_hole_is_the_same_as_zero_bytes_and_not_as_others() {
        let hole = file(&[], 5 * CHUNK as u64);
        let zeros = file(&[(0, &vec![0; 2 * CHUNK])], 5 * CHUNK as u64);
        let last = file(&[(5 * CHUNK as u64 - 1, b"x")], 5 * CHUNK as u64);
        assert_eq!(differ(&hole, &zeros), None);
        assert_eq!(differ(&hole, &last), Some(5 * CHUNK as u64 - 1));
        assert_eq!(differ(&last, &zeros), Some(5 * CHUNK as u64 - 1));
    }

    #[test]
    fn a_longer_file_differs_where_the_shorter_one_ends() {
        assert_eq!(differ(&file(&[], 7), &file(&[], 9)), Some(7));
        assert_eq!(differ(&file(&[], 0), &file(&[], 0)), None);
    }
}
