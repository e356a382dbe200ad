//! What the beginning of a disk says: which firmware finds something to boot, and whether imgbuild laid the disk out.

use std::io::{Read, Seek, SeekFrom};

use crate::disk::gpt::{self, EFI_SYSTEM, ROOT_X86_64};

/// The beginning of a disk as if the rest were zeros.
struct Head<'h> {
    bytes: &'h [u8],
    size: u64,
    at: u64,
}

impl Read for Head<'_> {
    fn read(&mut self, target: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let count = target.len().min(left);
        let start = usize::try_from(self.at).unwrap_or(usize::MAX).min(self.bytes.len());
        let known = &self.bytes[start..];
        for (index, byte) in target[..count].iter_mut().enumerate() {
            *byte = known.get(index).copied().unwrap_or(0);
        }
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Head<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = target.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// Who can boot a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Boots {
    pub(super) bios: bool,
    pub(super) efi: bool,
}

/// Who can boot the disk that begins so; `None` when it has no partition table.
pub(super) fn boots(head: &[u8], size: u64) -> Option<Boots> {
    let sector = head.get(..512)?;
    if sector[510..] != [0x55, 0xaa] {
        return None;
    }
    let partitions = gpt::read(&mut Head { bytes: head, size, at: 0 }).unwrap_or_default();
    let kinds: Vec<u8> = (0..4).map(|entry| sector[446 + 16 * entry + 4]).collect();
    let by_gpt = partitions.iter().any(|partition| partition.kind == EFI_SYSTEM);
    // A protective table alone, whose GPT cannot be read, says nothing.
    if partitions.is_empty() && kinds.contains(&0xee) {
        return None;
    }
    Some(Boots { bios: sector[..440].iter().any(|byte| *byte != 0), efi: by_gpt || kinds.contains(&0xef) })
}

/// Whether the disk has a root partition as imgbuild makes it.
pub(super) fn is_ours(head: &[u8], size: u64) -> bool {
    gpt::read(&mut Head { bytes: head, size, at: 0 })
        .is_ok_and(|partitions| partitions.iter().any(|partition| partition.kind == ROOT_X86_64))
}
