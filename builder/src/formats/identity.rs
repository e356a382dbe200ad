//! A name for a disk's content: equal disks have equal names.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use anyhow::Result;
use fs_err as fs;
use xxhash_rust::xxh3::Xxh3;

use super::chunks::{Encoder, Source};

/// Bytes that are looked at as one: zeros in them do not count, wherever the file system keeps holes.
const UNIT: u64 = 65536;

/// 128 bits of a hash that is quick, not cryptographic: it tells disks apart, it proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity(u128);

impl Identity {
    /// Reads the disk of `size` bytes in the raw `file`.
    pub fn of(file: &fs::File, size: u64) -> Result<Self> {
        let mut hash = Xxh3::new();
        hash.update(&size.to_le_bytes());
        let source = Source { file, size, unit: UNIT };
        source.encode(
            || Ok(Digest),
            |number, digest| {
                hash.update(&number.to_le_bytes());
                hash.update(digest);
                Ok(())
            },
            |_| (),
        )?;
        Ok(Identity(hash.digest128()))
    }

    /// For a VMDK's `longContentID`.
    pub fn long(self) -> u128 {
        // The last of it is the CID, in VMware's own disks.
        self.0 >> 32 << 32 | u128::from(self.short())
    }

    /// For a VMDK's CID.
    pub fn short(self) -> u32 {
        let bytes = self.0.to_le_bytes();
        // ffffffff means no parent, fffffffe one that was never set; both have a use of their own.
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) & 0x7fff_ffff
    }

    /// For a disk that wants a UUID.
    pub fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}", self.0)
    }
}

impl FromStr for Identity {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        u128::from_str_radix(text, 16).map(Identity)
    }
}

struct Digest;

impl Encoder for Digest {
    fn encode(&mut self, unit: &[u8], target: &mut Vec<u8>) -> Result<()> {
        target.extend_from_slice(&xxhash_rust::xxh3::xxh3_128(unit).to_le_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    fn identity(content: &[(u64, &[u8])], size: u64) -> Identity {
        let file = fs::File::from_parts(tempfile::tempfile().unwrap(), "disk");
        file.set_len(size).unwrap();
        for (offset, bytes) in content {
            file.file().write_all_at(bytes, *offset).unwrap();
        }
        Identity::of(&file, size).unwrap()
    }

    #[test]
    fn content_place_and_size_count_and_holes_do_not() {
        let one = identity(&[(1 << 20, b"a")], 4 << 20);
        assert_eq!(one, identity(&[(1 << 20, b"a"), (2 << 20, &vec![0; 65536])], 4 << 20));
        assert_ne!(one, identity(&[(2 << 20, b"a")], 4 << 20));
        assert_ne!(one, identity(&[(1 << 20, b"b")], 4 << 20));
        assert_ne!(one, identity(&[(1 << 20, b"a")], 5 << 20));
        assert_eq!(one.long() & 0xffff_ffff, u128::from(one.short()));
        assert_eq!(one.to_string().parse(), Ok(one));
    }
}
