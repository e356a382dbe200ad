//! The EFI system partition: a FAT with GRUB at the path that firmware starts without being told.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::Result;
use fs_err as fs;

use super::grub::{self, Platform};
use super::layout::Layout;
use crate::context::Context;
use crate::exec::Run;
use crate::overlay::ImageTree;

/// Block size for finding holes.
const BLOCK: usize = 4096;

/// Makes the file system aside and copies its non-zero blocks into the disk.
pub fn write(raw: &Path, layout: &Layout, tree: &ImageTree, scratch: &Path, context: &Context) -> Result<()> {
    let fat = scratch.join("esp.img");
    fs::File::create(&fat)?.set_len(layout.esp.bytes())?;
    let epoch = tree.epoch().to_string();
    let serial = format!("{:08x}", tree.ids().esp);
    let hidden = layout.esp.start.to_string();
    Run::new(&context.log, "mkfs.vfat")
        .args(["-F", "32", "-s", "1", "--invariant", "-n", "ESP", "-i", &serial, "-h", &hidden])
        .arg(&fat)
        .run()?;
    let loader = grub::core_image(Platform::Uefi, &tree.ids().root, scratch, context)?;
    // mtools takes the times of folders from the epoch and those of files from the files themselves (-m).
    let times = fs::File::options().write(true).open(&loader)?;
    times
        .into_parts()
        .0
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(tree.epoch()))?;
    let mtools = |program: &str| {
        Run::new(&context.log, program)
            .env("SOURCE_DATE_EPOCH", &epoch)
            .env("MTOOLS_SKIP_CHECK", "1")
            .arg("-i")
            .arg(&fat)
    };
    mtools("mmd").args(["::/EFI", "::/EFI/BOOT"]).run()?;
    mtools("mcopy").arg("-m").arg(&loader).arg("::/EFI/BOOT/BOOTX64.EFI").run()?;
    copy_blocks(&fat, raw, layout.esp.offset())
}

fn copy_blocks(source: &Path, target: &Path, offset: u64) -> Result<()> {
    let mut input = fs::File::open(source)?;
    let mut output = fs::OpenOptions::new().write(true).open(target)?;
    let mut block = [0; BLOCK];
    let mut position = 0;
    loop {
        let count = input.read(&mut block)?;
        if count == 0 {
            return Ok(());
        }
        if block[..count].iter().any(|byte| *byte != 0) {
            output.seek(SeekFrom::Start(offset + position))?;
            output.write_all(&block[..count])?;
        }
        position += count as u64;
    }
}
