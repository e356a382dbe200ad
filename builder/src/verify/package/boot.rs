//! What the beginning of a disk says: which firmware finds something to boot, and whether imgbuild laid the disk out.

use anyhow::Result;

use crate::disk::gpt::{self, EFI_SYSTEM, ROOT_X86_64};
use crate::error::Fault;
use crate::formats::disk::ReadDisk;

/// How the header of a GPT begins.
const GPT: &[u8; 8] = b"EFI PART";

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

/// Whether the disk has a root partition as imgbuild makes it. A partition table that is there and damaged is an error: whose disk
/// it is, nobody can say.
pub(super) fn is_ours(disk: &mut dyn ReadDisk) -> Result<bool> {
    let mut start = [0; 1024];
    if disk.size() < start.len() as u64 {
        return Ok(false);
    }
    disk.read_at(0, &mut start)?;
    let protective =
        start[510..512] == [0x55, 0xaa] && (0..4).any(|entry| start[446 + 16 * entry + 4] == 0xee);
    if !protective && !start[512..].starts_with(GPT) {
        return Ok(false);
    }
    // Where sectors have 4096 bytes it stands elsewhere; we make no such disk.
    let mut magic = [0; GPT.len()];
    if disk.size() > 8192 {
        disk.read_at(4096, &mut magic)?;
    }
    if magic == *GPT && !start[512..].starts_with(GPT) {
        return Ok(false);
    }
    match gpt::read(disk) {
        Ok(partitions) => Ok(partitions.iter().any(|partition| partition.kind == ROOT_X86_64)),
        // A damaged file has said so itself.
        Err(error) if error.chain().any(<dyn std::error::Error>::is::<Fault>) => Err(error),
        Err(error) => Err(Fault::user(format!("the disk in {} is damaged: {error:#}", disk.name()))
            .hint("copy it again from where it came from, and compare its checksum")
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Ids;
    use crate::disk::layout::Layout;
    use crate::formats::disk::Raw;
    use crate::formats::part::Part;
    use crate::formats::testing::Images;
    use crate::store::Key;

    #[test]
    fn a_damaged_table_is_not_taken_for_another_disk() {
        use std::os::unix::fs::FileExt as _;
        let images = Images::new();
        let layout = Layout::plan(300 << 20, 64 << 20).unwrap();
        let asked = |edits: &[(u64, u8)]| {
            let file = fs_err::File::create(images.path("disk")).unwrap();
            file.set_len(300 << 20).unwrap();
            gpt::write(&images.path("disk"), &layout, &Ids::derive(&Key::of("test", 1, &[]))).unwrap();
            for (at, value) in edits {
                file.file().write_all_at(&[*value], *at).unwrap();
            }
            let part = Part::whole(fs_err::File::open(images.path("disk")).unwrap()).unwrap();
            is_ours(&mut Raw::open(part).unwrap()).map_err(|error| crate::error::exit_code(&error))
        };
        assert_eq!(asked(&[]), Ok(true));
        for flipped in [512, 512 + 40, 1024 + 33] {
            assert_eq!(asked(&[(flipped, 0x77)]), Err(1), "{flipped}");
        }
        // Neither a protective MBR nor a GPT: somebody else's disk.
        assert_eq!(asked(&[(510, 0), (512, 0)]), Ok(false));
    }
}
