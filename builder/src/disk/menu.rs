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

#[cfg(test)]
mod tests {
    use super::*;

    fn menus(menu: Menu) -> Vec<(&'static str, String)> {
        let boot = Boot {
            menu,
            kernel: "/boot/vmlinuz-3.10".to_owned(),
            initrd: "/boot/initramfs-3.10.img".to_owned(),
            options: "ro console=ttyS0".to_owned(),
        };
        // The title is quoted in the menu: it must not end the quotes.
        all(&boot, "Bob's \\ Mastodon", &Guid::random_form([0x11; 16]))
    }

    #[test]
    fn grubby_finds_one_menu_for_each_firmware() {
        let menus = menus(Menu::Grubby);
        let paths: Vec<_> = menus.iter().map(|(path, _)| *path).collect();
        assert_eq!(paths, ["/boot/grub2/grub.cfg", "/boot/efi/EFI/centos/grub.cfg"]);
        insta::assert_snapshot!(menus[0].1, @r#"
        # Made by imgbuild; grubby adds the kernels of updates.
        set timeout=2
        set default="0"
        if serial --unit=0 --speed=115200; then
            terminal_input console serial
            terminal_output console serial
        fi
        search --no-floppy --fs-uuid --set=root 11111111-1111-4111-9111-111111111111
        menuentry 'Bobs  Mastodon' {
        	linux16 /boot/vmlinuz-3.10 root=UUID=11111111-1111-4111-9111-111111111111 ro console=ttyS0
        	initrd16 /boot/initramfs-3.10.img
        }
        "#);
        insta::assert_snapshot!(menus[1].1, @r#"
        # Made by imgbuild; grubby adds the kernels of updates.
        set timeout=2
        set default="0"
        search --no-floppy --fs-uuid --set=root 11111111-1111-4111-9111-111111111111
        menuentry 'Bobs  Mastodon' {
        	linuxefi /boot/vmlinuz-3.10 root=UUID=11111111-1111-4111-9111-111111111111 ro console=ttyS0
        	initrdefi /boot/initramfs-3.10.img
        }
        "#);
    }

    #[test]
    fn debian_has_one_menu_of_links() {
        let menus = menus(Menu::Links);
        assert_eq!(menus.len(), 1);
        assert_eq!(menus[0].0, "/boot/grub/grub.cfg");
        insta::assert_snapshot!(menus[0].1, @r"
        # Made by imgbuild. The kernel's paths are links that package updates move, so this file never changes.
        set timeout=2
        set default=0
        if serial --unit=0 --speed=115200; then
            terminal_input console serial
            terminal_output console serial
        fi
        menuentry 'Bobs  Mastodon' {
            linux /boot/vmlinuz-3.10 root=UUID=11111111-1111-4111-9111-111111111111 ro console=ttyS0
            initrd /boot/initramfs-3.10.img
        }
        if [ -e /boot/vmlinuz-3.10.old ]; then
        menuentry 'Bobs  Mastodon (previous kernel)' {
            linux /boot/vmlinuz-3.10.old root=UUID=11111111-1111-4111-9111-111111111111 ro console=ttyS0
            initrd /boot/initramfs-3.10.img.old
        }
        fi
        ");
    }
}
