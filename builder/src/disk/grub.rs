//! GRUB for both firmwares, installed by hand: no device, no root.
//!
//! What grub-install would do for BIOS: the core image goes to the BIOS-boot partition, its first sector learns where the rest is,
//! and the MBR's code learns where that first sector is (GRUB 2.06, `grub-core/boot/i386/pc/{boot,diskboot}.S`).

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;

use super::Ids;
use super::gpt::Guid;
use super::layout::{Layout, SECTOR};
use super::menu;
use crate::context::Context;
use crate::exec::Run;
use crate::recipe::Menu;

/// Where the host has GRUB's images.
const GRUB: &str = "/usr/lib/grub";
const BOOT_IMAGE: &str = "i386-pc/boot.img";
/// Bytes of the MBR that are code.
const BOOT_CODE: usize = 440;
/// In `boot.img`: the sector that it loads.
const KERNEL_SECTOR: usize = 0x5c;
/// In `boot.img`: the drive to read from; 0xff is the one that the BIOS says.
const BOOT_DRIVE: usize = 0x64;
/// In `boot.img`: a jump that skips the BIOS's word about the drive; two NOPs take that word.
const DRIVE_CHECK: usize = 0x66;
/// In the core image's first sector: block list of the rest, `u64` sector, `u16` count, `u16` segment.
const BLOCK_LIST: usize = 500;
/// Segment that the core image is loaded to.
const CORE_SEGMENT: u16 = 0x820;

const COMMON: &[&str] = &[
    "part_gpt",
    "ext2",
    "fat",
    "search",
    "search_fs_uuid",
    "normal",
    "configfile",
    "linux",
    "echo",
    "test",
    "true",
    "serial",
    "terminal",
    "ls",
    "cat",
    "reboot",
    "halt",
    "sleep",
    "minicmd",
];

/// Firmwares that a core image can be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// `i386-pc`.
    Bios,
    /// `x86_64-efi`.
    Uefi,
}

/// Makes a core image that finds the root file system by its UUID and reads the menu there.
pub fn core_image(
    platform: Platform,
    root: &Guid,
    menu: Menu,
    folder: &Path,
    context: &Context,
) -> Result<PathBuf> {
    let early = folder.join("early.cfg");
    fs::write(
        &early,
        format!(
            "search.fs_uuid {root} root\nset prefix=($root)/boot/grub\nconfigfile ($root){}\n",
            menu::path(menu)
        ),
    )?;
    let (format, name, own): (_, _, &[&str]) = match platform {
        Platform::Bios => ("i386-pc", "core.img", &["biosdisk", "linux16"]),
        Platform::Uefi => ("x86_64-efi", "BOOTX64.EFI", &["efi_gop", "efi_uga", "all_video"]),
    };
    let output = folder.join(name);
    let run = Run::new(&context.log, "grub-mkimage")
        .args(["-O", format, "-p", "/boot/grub", "-c"])
        .arg(&early)
        .arg("-o")
        .arg(&output);
    run.args(COMMON).args(own).run()?;
    Ok(output)
}

/// SHA-256 over the host's GRUB, for both firmwares: another version of it makes another disk.
pub fn digest() -> Result<String> {
    let mut all = String::new();
    for image in ["i386-pc/kernel.img", BOOT_IMAGE, "x86_64-efi/kernel.img"] {
        all.push_str(&crate::digest::file(&Path::new(GRUB).join(image))?);
    }
    Ok(all)
}

/// Puts the core image and the MBR's code on the disk.
pub fn install_bios(
    raw: &Path,
    layout: &Layout,
    ids: &Ids,
    menu: Menu,
    scratch: &Path,
    context: &Context,
) -> Result<()> {
    let core = fs::read(core_image(Platform::Bios, &ids.root, menu, scratch, context)?)?;
    let boot = fs::read(Path::new(GRUB).join(BOOT_IMAGE))?;
    let start = layout.bios_boot.start;
    let (mbr, core) = patch(&boot, core, start)?;
    ensure!(
        core.len() as u64 <= layout.bios_boot.bytes(),
        "GRUB's core image does not fit the BIOS-boot partition"
    );
    let mut file = fs::OpenOptions::new().write(true).open(raw)?;
    file.write_all(&mbr)?;
    file.seek(SeekFrom::Start(start * SECTOR))?;
    file.write_all(&core)?;
    Ok(())
}

/// The MBR's code and the core image, patched for a core image at sector `start`.
fn patch(boot: &[u8], mut core: Vec<u8>, start: u64) -> Result<(Vec<u8>, Vec<u8>)> {
    ensure!(
        boot.len() == 512 && core.len() > 512,
        "GRUB's images have unexpected sizes: {} and {}",
        boot.len(),
        core.len()
    );
    let mut mbr = boot[..BOOT_CODE].to_vec();
    mbr[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&start.to_le_bytes());
    mbr[BOOT_DRIVE] = 0xff;
    mbr[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    let sectors = (core.len() as u64).div_ceil(SECTOR);
    let rest = u16::try_from(sectors - 1).context("GRUB's core image is too large")?;
    core[BLOCK_LIST..BLOCK_LIST + 8].copy_from_slice(&(start + 1).to_le_bytes());
    core[BLOCK_LIST + 8..BLOCK_LIST + 10].copy_from_slice(&rest.to_le_bytes());
    core[BLOCK_LIST + 10..BLOCK_LIST + 12].copy_from_slice(&CORE_SEGMENT.to_le_bytes());
    Ok((mbr, core))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_point_at_each_other() {
        let (mbr, core) = patch(&[1; 512], vec![2; 3 * 512 + 1], 2048).unwrap();
        assert_eq!(mbr[KERNEL_SECTOR..KERNEL_SECTOR + 8], 2048u64.to_le_bytes());
        assert_eq!(core[500..512], [1, 8, 0, 0, 0, 0, 0, 0, 3, 0, 0x20, 0x08]);
        assert!(patch(&[1; 511], vec![2; 1024], 2048).is_err());
    }
}
