//! Extended attributes: behind the inode's own fields, and in a block beside it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use super::FileSystem;
use crate::survey::source::{u16_at, u32_at};

const MAGIC: u32 = 0xea02_0000;
/// What an index stands for.
const PREFIXES: [(u8, &str); 7] = [
    (1, "user."),
    (2, "system.posix_acl_access"),
    (3, "system.posix_acl_default"),
    (4, "trusted."),
    (6, "security."),
    (7, "system."),
    (8, "system.richacl"),
];

/// All attributes of an inode, whose bytes are given.
pub fn read(system: &mut FileSystem, inode: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    if inode.len() > 128 {
        let start = 128 + usize::from(u16_at(inode, 0x80));
        if start + 4 <= inode.len() && u32_at(inode, start) == MAGIC {
            let area = &inode[start + 4..];
            entries(area, area, &mut found)?;
        }
    }
    let block = u64::from(u32_at(inode, 0x68)) | u64::from(u16_at(inode, 0x76)) << 32;
    let size = system.totals.block_size;
    if block != 0 {
        ensure!(block < system.totals.bytes / size, "attributes lie outside of the file system");
        let mut bytes = vec![0; usize::try_from(size)?];
        system.source.look(block * size, &mut bytes)?;
        ensure!(u32_at(&bytes, 0) == MAGIC, "a block of attributes is damaged");
        entries(&bytes[32..], &bytes, &mut found)?;
    }
    Ok(found)
}

/// `values` is what the offsets of values count from.
fn entries(mut list: &[u8], values: &[u8], found: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    // Values that lie over each other would be more than their area.
    let mut room = values.len();
    while u32_at(list, 0) != 0 {
        let length = usize::from(list[0]);
        let (offset, size) = (usize::from(u16_at(list, 2)), u32_at(list, 8));
        let in_other_inode = u32_at(list, 4) != 0;
        ensure!(list.len() >= 16 + length, "an attribute's name is cut off");
        let prefix =
            PREFIXES.iter().find(|(index, _)| *index == list[1]).map_or("unknown.", |(_, text)| text);
        let name = format!("{prefix}{}", crate::survey::shown(&list[16..16 + length]));
        // Values of more than a block lie in an inode of their own; nothing that we look for is that large.
        let value = if in_other_inode { Some(&[][..]) } else { values.get(offset..offset + size as usize) };
        ensure!(value.is_some(), "the value of attribute `{name}` is cut off");
        room = room
            .checked_sub(value.map_or(0, <[u8]>::len))
            .context("values of attributes lie over each other")?;
        found.insert(name, value.unwrap_or_default().to_vec());
        list = list.get((16 + length).next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}
