//! What the beginning of a disk says: which firmware finds something to boot, and whether imgbuild laid the disk out.

use crate::disk::gpt::{self, EFI_SYSTEM, ROOT_X86_64};
use crate::formats::disk::ReadDisk;

/// Who can boot a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Boots {
    pub(super) bios: bool,
    pub(super) efi: bool,
}

/// Who can boot a disk; `None` when it has no partition table, or cannot be read.
pub(super) fn boots(disk: &mut dyn ReadDisk) -> Option<Boots> {
    let mut sector = [0; 512];
    disk.read_at(0, &mut sector).ok()?;
    if sector[510..] != [0x55, 0xaa] {
        return None;
    }
    let partitions = gpt::read(disk).unwrap_or_default();
    let kinds: Vec<u8> = (0..4).map(|entry| sector[446 + 16 * entry + 4]).collect();
    let by_gpt = partitions.iter().any(|partition| partition.kind == EFI_SYSTEM);
    // A protective table alone, whose GPT cannot be read, says nothing.
    if partitions.is_empty() && kinds.contains(&0xee) {
        return None;
    }
    Some(Boots { bios: sector[..440].iter().any(|byte| *byte != 0), efi: by_gpt || kinds.contains(&0xef) })
}

/// Whether the disk has a root partition as imgbuild makes it.
pub(super) fn is_ours(disk: &mut dyn ReadDisk) -> bool {
    gpt::read(disk).is_ok_and(|partitions| partitions.iter().any(|partition| partition.kind == ROOT_X86_64))
}
