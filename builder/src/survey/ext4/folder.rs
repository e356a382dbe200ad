//! The names in a folder. An index of hashes, where a folder has one, lies in entries that look unused, so reading in order shows all.

use anyhow::{Result, ensure};

use super::{FileSystem, Inode, Kind};
use crate::survey::source::{u16_at, u32_at};

/// Largest folder, in bytes: a million names.
const LIMIT: u64 = 64 << 20;

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Its bytes, without `/` and zero.
    pub bytes: Vec<u8>,
    /// The inode that it stands for.
    pub inode: u32,
}

impl FileSystem {
    /// The names in a folder in order of their bytes, without `.` and `..`.
    pub fn names(&mut self, folder: &Inode) -> Result<Vec<Name>> {
        ensure!(folder.kind == Kind::Folder, "inode {} is no folder", folder.number);
        ensure!(folder.size <= LIMIT, "folder {} is larger than {LIMIT} bytes", folder.number);
        let block_size = usize::try_from(self.totals.block_size)?;
        let segments = self.segments(folder)?;
        let mut block = vec![0; block_size];
        let mut names = Vec::new();
        for offset in (0..folder.size).step_by(block_size) {
            self.content(&segments, offset, &mut block)?;
            block_names(&block, &mut names)
                .ok_or_else(|| anyhow::anyhow!("folder {} is damaged at byte {offset}", folder.number))?;
        }
        names.sort_by(|a, b| a.bytes.cmp(&b.bytes));
        let twice = names.windows(2).find(|pair| pair[0].bytes == pair[1].bytes);
        if let Some(pair) = twice {
            anyhow::bail!("folder {} has `{}` twice", folder.number, crate::survey::shown(&pair[0].bytes));
        }
        Ok(names)
    }
}

/// `None` when an entry does not fit.
fn block_names(block: &[u8], names: &mut Vec<Name>) -> Option<()> {
    let mut at = 0;
    while at < block.len() {
        let inode = u32_at(block, at);
        // A block of 64 KiB has no number for its own length.
        let length = match u16_at(block, at + 4) {
            0 | u16::MAX => 1 << 16,
            length => usize::from(length),
        };
        let name = usize::from(*block.get(at + 6)?);
        if length < 8 || length % 4 != 0 || at + length > block.len() || 8 + name > length {
            return None;
        }
        let bytes = block.get(at + 8..at + 8 + name)?;
        if inode != 0 && bytes != b"." && bytes != b".." {
            if bytes.is_empty() || bytes.iter().any(|byte| [0, b'/'].contains(byte)) {
                return None;
            }
            names.push(Name { bytes: bytes.to_vec(), inode });
        }
        at += length;
    }
    Some(())
}
