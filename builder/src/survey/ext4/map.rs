//! Where a file's blocks lie: the extent tree.

use anyhow::{Result, bail, ensure};

use super::{FileSystem, INODE_EXTENTS, INODE_OTHER, Inode};
use crate::survey::source::{u16_at, u32_at};

const MAGIC: u16 = 0xf30a;
/// Deepest tree that the format allows.
const DEPTH: u16 = 5;
/// Most segments of one file: a file of 4 TiB in pieces of 4 MiB.
const SEGMENTS: usize = 1 << 20;
/// Blocks of an extent with this flag are allocated and read as zero.
const UNWRITTEN: u32 = 32768;

/// Blocks that lie together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// First block of the file.
    pub logical: u64,
    /// First block of the file system; 0 for blocks that were allocated and never written.
    pub physical: u64,
    /// How many.
    pub count: u64,
}

impl Segment {
    /// One behind the last block of the file.
    pub fn end(self) -> u64 {
        self.logical + self.count
    }
}

impl FileSystem {
    /// The segments of a file or folder in order; what lies between them, and what was never written, is zero.
    pub fn segments(&mut self, inode: &Inode) -> Result<Vec<Segment>> {
        if inode.size == 0 {
            return Ok(Vec::new());
        }
        ensure!(
            inode.flags & INODE_OTHER == 0,
            "the content of inode {} cannot be read: it is encrypted or inline",
            inode.number
        );
        if inode.flags & INODE_EXTENTS == 0 {
            // mke2fs and the kernel make these on ext3 alone, but for a file of holes only, which has no block at all.
            ensure!(
                inode.block.iter().all(|byte| *byte == 0),
                "inode {} has a block map of ext3",
                inode.number
            );
            return Ok(Vec::new());
        }
        let mut segments = Vec::new();
        let depth = u16_at(&inode.block, 6);
        ensure!(depth <= DEPTH, "the map of inode {} is {depth} levels deep", inode.number);
        self.branch(&inode.block, depth, inode.number, &mut segments)?;
        // Blocks that lie in a file many times would make it larger than the disk, and its reading without end.
        let blocks: u64 =
            segments.iter().filter(|segment| segment.physical != 0).map(|segment| segment.count).sum();
        ensure!(
            blocks <= self.totals.bytes / self.totals.block_size,
            "the map of inode {} names more blocks than the file system has",
            inode.number
        );
        Ok(segments)
    }

    fn branch(&mut self, node: &[u8], depth: u16, number: u32, segments: &mut Vec<Segment>) -> Result<()> {
        let entries = usize::from(u16_at(node, 2));
        if u16_at(node, 0) != MAGIC || u16_at(node, 6) != depth || 12 + entries * 12 > node.len() {
            bail!("the map of inode {number} is damaged");
        }
        let blocks = self.totals.bytes / self.totals.block_size;
        for entry in node[12..12 + entries * 12].chunks_exact(12) {
            let first = u64::from(u32_at(entry, 0));
            if segments.last().is_some_and(|last: &Segment| first < last.end()) {
                bail!("the map of inode {number} is out of order");
            }
            if depth > 0 {
                let block = u64::from(u32_at(entry, 4)) | u64::from(u16_at(entry, 8)) << 32;
                ensure!(block < blocks, "the map of inode {number} lies outside of the file system");
                let mut child = vec![0; usize::try_from(self.totals.block_size)?];
                self.source.look(block * self.totals.block_size, &mut child)?;
                let before = segments.len();
                self.branch(&child, depth - 1, number, segments)?;
                // A branch without leaves could be there any number of times.
                ensure!(segments.len() > before, "the map of inode {number} has an empty branch");
                continue;
            }
            let length = u32::from(u16_at(entry, 4));
            let physical = u64::from(u32_at(entry, 8)) | u64::from(u16_at(entry, 6)) << 32;
            let count = u64::from(if length > UNWRITTEN { length - UNWRITTEN } else { length });
            let fits = physical.checked_add(count).is_some_and(|end| end <= blocks);
            ensure!(fits && count > 0, "the map of inode {number} leads outside of the file system");
            ensure!(segments.len() < SEGMENTS, "inode {number} is in more than {SEGMENTS} pieces");
            let physical = if length > UNWRITTEN { 0 } else { physical };
            segments.push(Segment { logical: first, physical, count });
        }
        Ok(())
    }
}
