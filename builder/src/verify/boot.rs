//! Would it boot? Looked at without booting it.

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::disk::gpt::{BIOS_BOOT, EFI_SYSTEM};
use crate::disk::menu;
use crate::exec::Run;
use crate::recipe::Menu;
use crate::view::View;

/// Drivers without which the root is not found on VMware (pvscsi, LSI Logic, SATA, NVMe), KVM or in a BIOS-era machine.
const DISK_DRIVERS: &[&str] = &[
    "vmw_pvscsi",
    "mptspi",
    "ahci",
    "nvme",
    "ata_piix",
    "virtio_blk",
    "virtio_scsi",
    "virtio_pci",
    "sd_mod",
    "ext4",
];
/// Largest initramfs that is read, in bytes: ours have 30 to 100 MiB.
const INITRD_LIMIT: u64 = 512 << 20;
/// Network cards of VMware and KVM.
const NIC_DRIVERS: &[&str] = &["vmxnet3", "virtio_net", "e1000", "e1000e"];

/// e2fsck finds nothing.
pub fn file_system(view: &View, context: &Context) -> Result<Vec<String>> {
    let target = format!("{}?offset={}", view.raw()?.display(), view.root_offset());
    // Damage that it cannot read past ends it with 8.
    let found = Run::new(&context.log, "e2fsck").arg("-fn").arg(target).judge(1..=15)?;
    Ok(found.map(|found| format!("e2fsck: {found}")).into_iter().collect())
}

/// MBR code, and a core image where it points.
pub fn bios_boot(view: &View, _: &Context) -> Result<Vec<String>> {
    let mut disk = view.disk();
    let mut mbr = [0; 512];
    disk.read_at(0, &mut mbr)?;
    if mbr[..0x5a].iter().all(|byte| *byte == 0) || mbr[510..] != [0x55, 0xaa] {
        return Ok(vec!["the MBR holds no boot code".to_owned()]);
    }
    let sector = u64::from_le_bytes(mbr[0x5c..0x64].try_into().context("eight bytes")?);
    let Some(partition) = view.partitions.iter().find(|partition| partition.kind == BIOS_BOOT) else {
        return Ok(vec!["there is no BIOS-boot partition".to_owned()]);
    };
    if sector != partition.extent.start {
        return Ok(vec![format!(
            "the MBR's code loads sector {sector}, the BIOS-boot partition starts at {}",
            partition.extent.start
        )]);
    }
    let mut core = [0; 512];
    disk.read_at(partition.extent.offset(), &mut core)?;
    Ok(if core.iter().all(|byte| *byte == 0) {
        vec!["the BIOS-boot partition is empty".to_owned()]
    } else {
        Vec::new()
    })
}

/// mtools finds the loader on the EFI system partition.
pub fn uefi_boot(view: &View, context: &Context) -> Result<Vec<String>> {
    let Some(partition) = view.partitions.iter().find(|partition| partition.kind == EFI_SYSTEM) else {
        return Ok(vec!["there is no EFI system partition".to_owned()]);
    };
    let image = format!("{}@@{}", view.raw()?.display(), partition.extent.offset());
    let listing = Run::new(&context.log, "mdir").args(["-b", "-i", &image, "::/EFI/BOOT/BOOTX64.EFI"]);
    Ok(match listing.judge(1..=1)? {
        None => Vec::new(),
        Some(_) => vec!["the EFI system partition has no EFI/BOOT/BOOTX64.EFI".to_owned()],
    })
}

/// The root's own UUID, no device of a build host.
pub fn fstab(view: &View, _: &Context) -> Result<Vec<String>> {
    let Some(text) = view.text("/etc/fstab")? else { return Ok(vec!["there is no /etc/fstab".to_owned()]) };
    let mut wrong = build_host_devices("/etc/fstab", &text);
    let wanted = format!("UUID={}", view.root.uuid());
    let root = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .find(|line| line.split_whitespace().nth(1) == Some("/"));
    match root.and_then(|line| line.split_whitespace().next()) {
        Some(device) if device == wanted => {}
        Some(device) => wrong.push(format!("its root is `{device}`, the root file system is `{wanted}`")),
        None => wrong.push("it has no entry for `/`".to_owned()),
    }
    Ok(wrong)
}

fn build_host_devices(file: &str, text: &str) -> Vec<String> {
    let devices = ["/dev/loop", "/dev/nbd", "/dev/mapper/"];
    devices
        .iter()
        .filter(|device| text.contains(**device))
        .map(|device| format!("`{file}` names {device}, a device of a build host"))
        .collect()
}

/// Kernel and initrd of the first entry; both paths as GRUB would open them.
fn first_entry(text: &str) -> Option<(String, String, String)> {
    let mut lines = text.lines().map(str::trim);
    let mut argument = |command: &str| {
        lines.by_ref().find_map(|line| {
            let (word, rest) = line.split_once(' ')?;
            ["", "16", "efi"].contains(&word.strip_prefix(command)?).then_some(rest)
        })
    };
    let linux = argument("linux")?;
    let initrd = argument("initrd")?;
    let (kernel, options) = linux.trim().split_once(' ')?;
    Some((kernel.to_owned(), options.to_owned(), initrd.trim().to_owned()))
}

/// The menu on the root file system: its path and its text.
fn menu(view: &View) -> Result<Option<(&'static str, String)>> {
    for path in [menu::path(Menu::Grubby), menu::path(Menu::Links)] {
        if let Some(text) = view.text(path)? {
            return Ok(Some((path, text)));
        }
    }
    Ok(None)
}

/// Files exist, root is right.
pub fn grub_cfg(view: &View, _: &Context) -> Result<Vec<String>> {
    let Some((path, text)) = menu(view)? else {
        return Ok(vec![format!("there is no {}", menu::path(Menu::Links))]);
    };
    let mut wrong = build_host_devices(path, &text);
    let Some((kernel, options, initrd)) = first_entry(&text) else {
        wrong.push("it has no entry with a kernel and an initrd".to_owned());
        return Ok(wrong);
    };
    if view.root.exists(kernel.as_str()).unwrap_or(false) && version(view, &kernel)?.is_none() {
        wrong.push(format!(
            "it starts `{kernel}`, whose file has no version in its name: its modules cannot be found"
        ));
    }
    for file in [kernel, initrd] {
        if !view.root.exists(file.as_str()).unwrap_or(false) {
            wrong.push(format!("it starts `{file}`, which does not exist"));
        }
    }
    let wanted = format!("root=UUID={}", view.root.uuid());
    if !options.split_whitespace().any(|option| option == wanted) {
        wrong.push(format!("its kernel is not told `{wanted}`"));
    }
    Ok(wrong)
}

/// Name of a module without folder, suffix and the difference between `-` and `_`.
fn module(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (name, rest) = file.split_once(".ko")?;
    ["", ".xz", ".zst", ".gz"].contains(&rest).then(|| name.replace('-', "_"))
}

/// The version of a kernel that is there, of which its file is called.
fn version(view: &View, kernel: &str) -> Result<Option<String>> {
    let real = view.root.canonicalize(kernel)?.display().to_string();
    Ok(real.rsplit('/').next().and_then(|name| name.strip_prefix("vmlinuz-")).map(str::to_owned))
}

/// Folder of the first entry's modules, and the modules built into that kernel.
/// Nothing when the first entry starts no kernel, or one without a version: that is `grub-cfg`'s finding.
fn kernel_modules(view: &View) -> Result<Option<(String, Vec<String>)>> {
    let text = menu(view)?.unwrap_or_default().1;
    let Some((kernel, ..)) =
        first_entry(&text).filter(|(kernel, ..)| view.root.exists(kernel.as_str()).unwrap_or(false))
    else {
        return Ok(None);
    };
    let Some(version) = version(view, &kernel)? else { return Ok(None) };
    let folder = format!("/lib/modules/{version}");
    let builtin = view.text(&format!("{folder}/modules.builtin"))?.unwrap_or_default();
    Ok(Some((folder, builtin.lines().filter_map(module).collect())))
}

/// Every disk driver is in the initramfs or in the kernel.
pub fn initrd_drivers(view: &View, _: &Context) -> Result<Vec<String>> {
    let text = menu(view)?.unwrap_or_default().1;
    let Some((_, _, initrd)) = first_entry(&text) else { return Ok(Vec::new()) };
    if !view.root.exists(initrd.as_str()).unwrap_or(false) {
        return Ok(Vec::new());
    }
    let names = match view.bytes(&initrd, INITRD_LIMIT).and_then(|bytes| crate::initramfs::names(&bytes)) {
        Ok(names) => names,
        Err(error) => return Ok(vec![format!("`{initrd}` cannot be read: {error:#}")]),
    };
    let mut present: Vec<String> = names.iter().filter_map(|name| module(name)).collect();
    present.extend(kernel_modules(view)?.map(|(_, builtin)| builtin).unwrap_or_default());
    Ok(missing(DISK_DRIVERS, &present, &format!("`{initrd}` and the kernel lack the driver")))
}

/// Every network driver is among the kernel's modules.
pub fn nic_drivers(view: &View, _: &Context) -> Result<Vec<String>> {
    let Some((folder, mut present)) = kernel_modules(view)? else { return Ok(Vec::new()) };
    if !view.root.exists(folder.as_str())? {
        return Ok(vec![format!("`{folder}`, the kernel's modules, does not exist")]);
    }
    view.walk(&folder, &mut |node| {
        present.extend(module(&node.path));
        Ok(())
    })?;
    Ok(missing(NIC_DRIVERS, &present, &format!("`{folder}` lacks the driver")))
}

fn missing(wanted: &[&str], present: &[String], text: &str) -> Vec<String> {
    wanted
        .iter()
        .filter(|name| !present.iter().any(|other| other == *name))
        .map(|name| format!("{text} `{name}`"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_names() {
        assert_eq!(
            module("usr/lib/modules/6.1/kernel/drivers/scsi/vmw_pvscsi.ko").as_deref(),
            Some("vmw_pvscsi")
        );
        assert_eq!(module("kernel/virtio-pci.ko.xz").as_deref(), Some("virtio_pci"));
        assert_eq!(module("etc/modprobe.conf"), None);
    }

    #[test]
    fn the_first_entry_of_a_grub_cfg() {
        let (kernel, options, initrd) = first_entry(
            "set x=1\nmenuentry 'a' {\n  linux /vmlinuz root=UUID=1 ro\n  initrd /initrd.img\n}\n",
        )
        .unwrap();
        assert_eq!(
            (kernel.as_str(), options.as_str(), initrd.as_str()),
            ("/vmlinuz", "root=UUID=1 ro", "/initrd.img")
        );
    }
}
