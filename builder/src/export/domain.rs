//! libvirt's domain XML beside the qcow2: the machine for `virsh define`.
//!
//! libvirt takes absolute paths only, so the disks are named where its default pool keeps them, [`POOL`]; whoever puts them
//! elsewhere changes two lines. The type is `qemu`, which every host can run; a comment says what to write where KVM is.

use super::xml::Xml;
use crate::recipe::{Firmware, Recipe};

/// Folder of libvirt's default storage pool.
pub const POOL: &str = "/var/lib/libvirt/images";

/// The document for the disks with these names in [`POOL`]: the system disk, then the data disk. The names of the disks in the
/// guest (`vda`, `vdb`) follow their order.
pub fn domain(recipe: &Recipe, stem: &str, disks: [&str; 2]) -> String {
    let image = &recipe.image;
    let mut xml = Xml::new();
    xml.comment(&format!(
        "1. Copy both disks to {POOL}, or change the two paths below; libvirt wants absolute ones. \
         2. Where /dev/kvm is, write type=\"kvm\" in the next line: ten times as fast. 3. virsh define this file."
    ));
    xml.within("domain", &[("type", "qemu")], |xml| {
        xml.leaf("name", &[], stem);
        xml.leaf("title", &[], &image.title.replace('\n', " "));
        xml.leaf("description", &[], &format!("Made by imgbuild for Mastodon {}; first boot wants a configuration: a CD in the drive, or fw_cfg", image.app.tag));
        xml.leaf("memory", &[("unit", "KiB")], &(image.machine.memory.bytes() >> 10).to_string());
        xml.leaf("vcpu", &[], &image.machine.cpus.to_string());
        let firmware: &[_] = match image.export.firmware {
            Firmware::Bios => &[],
            Firmware::Efi => &[("firmware", "efi")],
        };
        xml.within("os", firmware, |xml| {
            xml.leaf("type", &[("arch", "x86_64"), ("machine", "q35")], "hvm");
            if image.export.firmware == Firmware::Efi {
                // No key of the image is enrolled anywhere.
                xml.within("firmware", &[], |xml| {
                    xml.empty("feature", &[("enabled", "no"), ("name", "secure-boot")]);
                });
            }
            xml.empty("boot", &[("dev", "hd")]);
        });
        xml.within("features", &[], |xml| {
            xml.empty("acpi", &[]);
            xml.empty("apic", &[]);
        });
        xml.empty("clock", &[("offset", "utc")]);
        xml.leaf("on_poweroff", &[], "destroy");
        xml.leaf("on_reboot", &[], "restart");
        xml.leaf("on_crash", &[], "restart");
        xml.within("devices", &[], |xml| devices(xml, disks));
    });
    xml.finish()
}

fn devices(xml: &mut Xml, disks: [&str; 2]) {
    for (disk, target, serial) in [(disks[0], "vda", "system"), (disks[1], "vdb", "data")] {
        xml.within("disk", &[("type", "file"), ("device", "disk")], |xml| {
            xml.empty("driver", &[("name", "qemu"), ("type", "qcow2"), ("discard", "unmap")]);
            xml.empty("source", &[("file", &format!("{POOL}/{disk}"))]);
            xml.empty("target", &[("dev", target), ("bus", "virtio")]);
            xml.leaf("serial", &[], serial);
        });
    }
    // Empty; a disc with a configuration is put in by `virsh change-media`.
    xml.within("disk", &[("type", "file"), ("device", "cdrom")], |xml| {
        xml.empty("target", &[("dev", "sda"), ("bus", "sata")]);
        xml.empty("readonly", &[]);
    });
    xml.within("interface", &[("type", "network")], |xml| {
        xml.empty("source", &[("network", "default")]);
        xml.empty("model", &[("type", "virtio")]);
    });
    xml.within("channel", &[("type", "unix")], |xml| {
        xml.empty("target", &[("type", "virtio"), ("name", "org.qemu.guest_agent.0")]);
    });
    xml.within("serial", &[("type", "pty")], |xml| xml.empty("target", &[("port", "0")]));
    xml.within("console", &[("type", "pty")], |xml| {
        xml.empty("target", &[("type", "serial"), ("port", "0")]);
    });
    xml.empty("graphics", &[("type", "vnc"), ("autoport", "yes"), ("listen", "127.0.0.1")]);
    xml.within("video", &[], |xml| xml.empty("model", &[("type", "vga")]));
    xml.within("rng", &[("model", "virtio")], |xml| {
        xml.leaf("backend", &[("model", "random")], "/dev/urandom");
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::ovf::tests::recipe;

    #[test]
    fn it_is_what_libvirt_reads_by_either_firmware() {
        for set in [&[][..], &["export.firmware=efi".to_owned()]] {
            let text = domain(&recipe(set), "demo-v1", ["demo-v1.qcow2", "demo-v1-data.qcow2"]);
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("demo-v1.xml");
            fs_err::write(&file, &text).unwrap();
            testkit::oracle::domain_is_valid(&file).unwrap();
            assert_eq!(text.contains("secure-boot"), !set.is_empty());
            for part in ["/var/lib/libvirt/images/demo-v1-data.qcow2", "<vcpu>2</vcpu>", ">2097152</memory>"]
            {
                assert!(text.contains(part), "{part}");
            }
            fs_err::write(&file, text.replace("q35", "")).unwrap();
            assert!(testkit::oracle::domain_is_valid(&file).is_err());
        }
    }
}
