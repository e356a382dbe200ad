//! GRUB's menu: which kernel is started, and how.
//!
//! Debian's kernel packages move links, so one menu that names the links serves both firmwares for ever. On CentOS 7 grubby edits
//! the menu of the firmware that the machine was started by, with the 16-bit and EFI boot protocols of its own GRUB, so each
//! firmware has its own.

use super::gpt::Guid;
use crate::recipe::{Boot, Menu};

/// The menu of GRUB's EFI build of CentOS 7, on the EFI system partition.
pub const GRUBBY_EFI: &str = "/boot/efi/EFI/centos/grub.cfg";

/// Both consoles, where there is a serial port.
const CONSOLES: &str = "if serial --unit=0 --speed=115200; then\n    terminal_input console serial\n    terminal_output console serial\nfi\n";

/// The menu that a machine started by its BIOS reads, on the root file system.
pub fn path(menu: Menu) -> &'static str {
    match menu {
        Menu::Links => "/boot/grub/grub.cfg",
        Menu::Grubby => "/boot/grub2/grub.cfg",
    }
}

/// Every menu of an image: its path and its text.
pub fn all(boot: &Boot, title: &str, root: &Guid) -> Vec<(&'static str, String)> {
    let title = title.replace(['\'', '\\'], "");
    match boot.menu {
        Menu::Links => vec![(path(boot.menu), links(boot, &title, root))],
        Menu::Grubby => vec![
            (path(boot.menu), grubby(boot, &title, root, "16", CONSOLES)),
            (GRUBBY_EFI, grubby(boot, &title, root, "efi", "")),
        ],
    }
}

/// The current kernel, the previous one as a second entry.
fn links(boot: &Boot, title: &str, root: &Guid) -> String {
    let entry = |name: &str, suffix: &str| {
        format!(
            "menuentry '{name}' {{\n    linux {}{suffix} root=UUID={root} {}\n    initrd {}{suffix}\n}}\n",
            boot.kernel, boot.options, boot.initrd
        )
    };
    format!(
        "# Made by imgbuild. The kernel's paths are links that package updates move, so this file never changes.\n\
         set timeout=2\nset default=0\n{CONSOLES}{}if [ -e {}.old ]; then\n{}fi\n",
        entry(title, ""),
        boot.kernel,
        entry(&format!("{title} (previous kernel)"), ".old")
    )
}

/// One entry, in the form that grubby takes as its template for the next kernel.
fn grubby(boot: &Boot, title: &str, root: &Guid, protocol: &str, consoles: &str) -> String {
    format!(
        "# Made by imgbuild; grubby adds the kernels of updates.\nset timeout=2\nset default=\"0\"\n{consoles}\
         search --no-floppy --fs-uuid --set=root {root}\n\
         menuentry '{title}' {{\n\tlinux{protocol} {} root=UUID={root} {}\n\tinitrd{protocol} {}\n}}\n",
        boot.kernel, boot.options, boot.initrd
    )
}
