//! ext4 as its inodes say it: numbers, links, allocated blocks, extended attributes, which a reader of paths does not show.
//!
//! Read only, and of what lies on the disk alone: a journal that was not replayed is reported, not replayed. Every number comes from
//! outside; each is checked before it is used, and every list has a bound. Layout: the kernel's `Documentation/filesystems/ext4`.

mod attributes;
mod folder;
mod map;

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};

use super::source::{Source, u16_at, u32_at};
pub use folder::Name;
pub use map::Segment;

/// The number of the root folder's inode.
pub const ROOT: u32 = 2;
/// Incompatible features that this reader understands: filetype, recover, extent, 64bit, mmp, flex_bg, ea_inode, csum_seed,
/// largedir, casefold.
const UNDERSTOOD: u32 = 0x2 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x2_0000;
const RECOVER: u32 = 0x4;
const SIXTY_FOUR_BIT: u32 = 0x80;
const HUGE_FILE: u32 = 0x8;
/// Flags of an inode.
/// Longest target of a link, in bytes: the kernel's own limit.
const LINK: u64 = 4096;
const INODE_HUGE: u32 = 0x4_0000;
const INODE_EXTENTS: u32 = 0x8_0000;
/// Content that this reader cannot show: encrypted, or kept in the inode.
const INODE_OTHER: u32 = 0x800 | 0x1000_0000;
/// Most block groups: 4 TiB in groups of 8 MiB, which blocks of 1 KiB have.
const GROUPS: u64 = 1 << 19;

/// Longest file that the format knows, in bytes: 2^32 blocks of 64 KiB.
const LENGTH: u64 = 1 << 48;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Bytes.
    File,
    /// Names of files.
    Folder,
    /// A symbolic link.
    Link,
    /// A device that is read byte by byte.
    CharacterDevice,
    /// A device that is read block by block.
    BlockDevice,
    /// A named pipe.
    Pipe,
    /// A named socket.
    Socket,
}

/// One inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Its number.
    pub number: u32,
    /// What it is.
    pub kind: Kind,
    /// Permissions with setuid, setgid and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes, as programs see it.
    pub size: u64,
    /// Bytes on the disk, with the blocks of its map; holes take none.
    pub allocated: u64,
    /// How many names it has.
    pub links: u16,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
    /// Extended attributes.
    pub attributes: BTreeMap<String, Vec<u8>>,
    flags: u32,
    block: [u8; 60],
}

impl Inode {
    /// What `chattr` sets and a running system obeys: append only, immutable, synchronous and their like.
    pub fn user_flags(&self) -> u32 {
        self.flags & 0x6003_40f8
    }
}

/// Figures of the whole file system.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Totals {
    /// Its label.
    pub label: String,
    /// Its UUID.
    pub uuid: String,
    /// Bytes of a block.
    pub block_size: u64,
    /// All bytes.
    pub bytes: u64,
    /// Free bytes, with those that only root may use.
    pub free: u64,
    /// All inodes.
    pub inodes: u64,
    /// Free inodes.
    pub free_inodes: u64,
    /// Shut down in order; otherwise the journal holds changes that are not shown.
    pub clean: bool,
}

/// An opened file system.
pub struct FileSystem {
    source: Source,
    totals: Totals,
    inode_size: usize,
    inodes_per_group: u32,
    /// First byte of the inode table of each group.
    tables: Vec<u64>,
    huge_files: bool,
}

impl FileSystem {
    /// Reads the superblock and the group descriptors.
    pub fn open(mut source: Source) -> Result<FileSystem> {
        let mut bytes = [0; 1024];
        source.look(1024, &mut bytes)?;
        ensure!(u16_at(&bytes, 0x38) == 0xef53, "it is no ext4 file system");
        let incompatible = u32_at(&bytes, 0x60);
        ensure!(incompatible & 0x40 != 0, "it is older than ext4: it has no extents");
        ensure!(
            incompatible & !UNDERSTOOD == 0,
            "it has features that cannot be read: {:#x}",
            incompatible & !UNDERSTOOD
        );
        let shift = u32_at(&bytes, 0x18);
        ensure!(shift <= 6, "its blocks have an impossible size");
        let block_size = 1024_u64 << shift;
        let is_wide = incompatible & SIXTY_FOUR_BIT != 0;
        let wide = |low: usize, high: usize| {
            u64::from(u32_at(&bytes, low)) | if is_wide { u64::from(u32_at(&bytes, high)) << 32 } else { 0 }
        };
        let blocks = wide(0x04, 0x150);
        let size = blocks.checked_mul(block_size).filter(|size| *size <= source.length());
        let Some(size) = size else { bail!("it claims to be larger than its partition") };
        let (first, per_group) = (u64::from(u32_at(&bytes, 0x14)), u64::from(u32_at(&bytes, 0x20)));
        let inodes_per_group = u32_at(&bytes, 0x28);
        let inode_size = usize::from(u16_at(&bytes, 0x58));
        ensure!(per_group > 0 && inodes_per_group > 0 && first < blocks, "its groups have impossible sizes");
        ensure!(
            (128..=4096).contains(&inode_size) && inode_size.is_power_of_two(),
            "its inodes have an impossible size"
        );
        let groups = (blocks - first).div_ceil(per_group);
        ensure!(groups <= GROUPS, "it claims {groups} groups of blocks");
        let entry = if is_wide { u64::from(u16_at(&bytes, 0xfe)).max(32) } else { 32 };
        ensure!(entry <= 1024, "its group descriptors have an impossible size");
        let mut tables = Vec::with_capacity(usize::try_from(groups)?);
        let mut descriptor = vec![0; usize::try_from(entry)?];
        for group in 0..groups {
            source.look((first + 1) * block_size + group * entry, &mut descriptor)?;
            let high = if is_wide && entry >= 64 { u64::from(u32_at(&descriptor, 0x28)) << 32 } else { 0 };
            let block = u64::from(u32_at(&descriptor, 0x08)) | high;
            ensure!(block < blocks, "the inode table of group {group} lies outside of it");
            tables.push(block * block_size);
        }
        let name: Vec<u8> = bytes[0x78..0x88].iter().copied().take_while(|byte| *byte != 0).collect();
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[0x68..0x78]);
        let totals = Totals {
            label: super::shown(&name),
            uuid: uuid_text(u128::from_be_bytes(uuid)),
            block_size,
            bytes: size,
            free: wide(0x0c, 0x158).min(blocks) * block_size,
            inodes: u64::from(u32_at(&bytes, 0)),
            free_inodes: u64::from(u32_at(&bytes, 0x10)),
            clean: incompatible & RECOVER == 0,
        };
        let huge_files = u32_at(&bytes, 0x64) & HUGE_FILE != 0;
        Ok(FileSystem { source, totals, inode_size, inodes_per_group, tables, huge_files })
    }

    /// Its figures.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// One inode.
    pub fn inode(&mut self, number: u32) -> Result<Inode> {
        let index = number.checked_sub(1).unwrap_or(u32::MAX);
        let group = usize::try_from(index / self.inodes_per_group)?;
        let Some(table) = self.tables.get(group) else { bail!("there is no inode {number}") };
        let offset = table + u64::from(index % self.inodes_per_group) * self.inode_size as u64;
        let mut bytes = vec![0; self.inode_size];
        self.source.look(offset, &mut bytes)?;
        let word = u16_at(&bytes, 0);
        let kind = match word >> 12 {
            0x8 => Kind::File,
            0x4 => Kind::Folder,
            0xa => Kind::Link,
            0x2 => Kind::CharacterDevice,
            0x6 => Kind::BlockDevice,
            0x1 => Kind::Pipe,
            0xc => Kind::Socket,
            other => bail!("inode {number} is of the unknown type {other:#x}"),
        };
        let flags = u32_at(&bytes, 0x20);
        let unit = if self.huge_files && flags & INODE_HUGE != 0 { self.totals.block_size } else { 512 };
        let sectors = u64::from(u32_at(&bytes, 0x1c)) | u64::from(u16_at(&bytes, 0x74)) << 32;
        let mut block = [0; 60];
        block.copy_from_slice(&bytes[0x28..0x64]);
        let size = u64::from(u32_at(&bytes, 0x04)) | u64::from(u32_at(&bytes, 0x6c)) << 32;
        ensure!(size <= LENGTH, "inode {number} claims {size} bytes");
        let is_device = matches!(kind, Kind::CharacterDevice | Kind::BlockDevice);
        Ok(Inode {
            number,
            kind,
            mode: word & 0o7777,
            uid: u32::from(u16_at(&bytes, 0x02)) | u32::from(u16_at(&bytes, 0x78)) << 16,
            gid: u32::from(u16_at(&bytes, 0x18)) | u32::from(u16_at(&bytes, 0x7a)) << 16,
            size,
            allocated: sectors.saturating_mul(unit),
            links: u16_at(&bytes, 0x1a),
            device: is_device.then(|| device(&block)),
            attributes: attributes::read(self, &bytes)?,
            flags,
            block,
        })
    }

    /// Where a symbolic link leads.
    pub fn target(&mut self, inode: &Inode) -> Result<Vec<u8>> {
        ensure!(inode.size <= LINK, "inode {} is a link that is too long", inode.number);
        let length = usize::try_from(inode.size)?;
        // A short target lies where the map would; such an inode has no map.
        if length < 60 && inode.flags & INODE_EXTENTS == 0 {
            return Ok(inode.block[..length].to_vec());
        }
        let segments = self.segments(inode)?;
        let mut target = vec![0; length];
        self.content(&segments, 0, &mut target)?;
        Ok(target)
    }

    /// Bytes of a file, whose map is given; holes are zero. The caller stays inside of the file's length.
    pub fn content(&mut self, segments: &[Segment], offset: u64, target: &mut [u8]) -> Result<()> {
        target.fill(0);
        let block_size = self.totals.block_size;
        let end = offset + target.len() as u64;
        let first = segments.partition_point(|segment| segment.end() * block_size <= offset);
        for segment in &segments[first..] {
            let (from, until) = (segment.logical * block_size, segment.end() * block_size);
            if from >= end {
                break;
            }
            if segment.physical == 0 {
                continue;
            }
            let (low, high) = (from.max(offset), until.min(end));
            let place = usize::try_from(low - offset)?..usize::try_from(high - offset)?;
            self.source.read(segment.physical * block_size + (low - from), &mut target[place])?;
        }
        Ok(())
    }
}

/// The old form of a device number, then the new one.
fn device(block: &[u8; 60]) -> (u32, u32) {
    match (u32_at(block, 0), u32_at(block, 4)) {
        (0, new) => ((new >> 8) & 0xfff, (new & 0xff) | ((new >> 12) & 0xfff00)),
        (old, _) => ((old >> 8) & 0xff, old & 0xff),
    }
}

fn uuid_text(value: u128) -> String {
    let hex = format!("{value:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
