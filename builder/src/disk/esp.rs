//! The EFI system partition: a FAT with GRUB at the path that firmware starts without being told.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;

use super::grub::{self, Platform};
use super::layout::Layout;
use crate::context::Context;
use crate::error::Fault;
use crate::exec::Run;
use crate::overlay::{ESP, ImageTree};
use crate::recipe::Menu;

/// Block size for finding holes.
const BLOCK: usize = 4096;

/// Makes the file system aside and copies its non-zero blocks into the disk.
pub fn write(
    raw: &Path,
    layout: &Layout,
    tree: &ImageTree,
    menu: Menu,
    scratch: &Path,
    context: &Context,
) -> Result<()> {
    let fat = scratch.join("esp.img");
    fs::File::create(&fat)?.set_len(layout.esp.bytes())?;
    let epoch = tree.epoch().to_string();
    let serial = format!("{:08x}", tree.ids().esp);
    let hidden = layout.esp.start.to_string();
    Run::new(&context.log, "mkfs.vfat")
        .args(["-F", "32", "-s", "1", "--invariant", "-n", "ESP", "-i", &serial, "-h", &hidden])
        .arg(&fat)
        .run()?;
    let files = scratch.join("esp");
    fs::create_dir(&files)?;
    // Loaders that packages brought: CentOS' shim and GRUB.
    let mut archive = tar::Archive::new(fs::File::open(tree.esp())?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            let message =
                format!("`{}` is a link, and an EFI system partition has none", entry.path()?.display());
            return Err(Fault::user(message).into());
        }
        let path = entry.path()?.strip_prefix(ESP.trim_start_matches('/'))?.to_owned();
        let target = files.join(path);
        fs::create_dir_all(target.parent().unwrap_or(&files))?;
        std::io::copy(&mut entry, &mut fs::File::create(&target)?)?;
    }
    let fallback = files.join("EFI/BOOT/BOOTX64.EFI");
    if menu == Menu::Grubby && !files.join("EFI/centos/grubx64.efi").is_file() {
        let message =
            "key `boot.menu`: `grubby` needs CentOS' GRUB, and no package brought EFI/centos/grubx64.efi";
        return Err(Fault::user(message).hint("add grub2-efi-x64 to the packages").into());
    }
    if !fallback.is_file() {
        if menu == Menu::Grubby {
            let message = "key `boot.menu`: `grubby` needs CentOS' boot loaders, and no package brought EFI/BOOT/BOOTX64.EFI";
            return Err(Fault::user(message).hint("add shim-x64 and grub2-efi-x64 to the packages").into());
        }
        fs::create_dir_all(files.join("EFI/BOOT"))?;
        let loader = grub::core_image(Platform::Uefi, &tree.ids().root, menu, scratch, context)?;
        fs::rename(loader, &fallback)?;
    }
    set_times(&files, tree.epoch())?;
    let mtools = |program: &str| {
        Run::new(&context.log, program)
            .env("SOURCE_DATE_EPOCH", &epoch)
            .env("MTOOLS_SKIP_CHECK", "1")
            .arg("-i")
            .arg(&fat)
    };
    // One by one: a folder's own order is the host's.
    for path in below(&files)? {
        let name = format!("::/{}", path.strip_prefix(&files)?.display());
        if path.is_dir() {
            // mmd has no option for times: an empty folder is copied instead.
            let empty = scratch.join("empty").join(path.file_name().context("a folder has a name")?);
            fs::create_dir_all(&empty)?;
            set_time(&empty, tree.epoch())?;
            mtools("mcopy").arg("-s").arg("-m").arg(&empty).arg(name).run()?;
        } else {
            mtools("mcopy").arg("-m").arg(&path).arg(name).run()?;
        }
    }
    copy_blocks(&fat, raw, layout.esp.offset())
}

/// What lies below a folder, in order of names, each folder before what it holds.
fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    entries.sort();
    for path in entries {
        let inner = if path.is_dir() { below(&path)? } else { Vec::new() };
        all.push(path);
        all.extend(inner);
    }
    Ok(all)
}

/// mtools takes all times in the partition from the files and folders that it copies (-m).
fn set_times(folder: &Path, epoch: u64) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            set_times(&path, epoch)?;
        } else {
            set_time(&path, epoch)?;
        }
    }
    // After its entries: making one changes it.
    set_time(folder, epoch)
}

fn set_time(path: &Path, epoch: u64) -> Result<()> {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(epoch);
    Ok(fs::File::open(path)?.into_parts().0.set_modified(time)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_get_the_time_of_the_build_too() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("EFI/BOOT");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("BOOTX64.EFI"), "x").unwrap();
        set_times(folder.path(), 1_000_000_000).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        for path in [folder.path(), &inner, &inner.join("BOOTX64.EFI"), &folder.path().join("EFI")] {
            assert_eq!(fs::metadata(path).unwrap().modified().unwrap(), time, "{}", path.display());
        }
    }
}
