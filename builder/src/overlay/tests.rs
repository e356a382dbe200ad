//! What goes where in the two tars of an image tree.

use tar::EntryType;

use super::layer::Added;
use super::*;

/// A tar of these members; a name that ends with `/` is a folder.
fn tar_of(names: &[&str]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for name in names {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(if name.ends_with('/') { EntryType::Directory } else { EntryType::Regular });
        header.set_mode(0o755);
        header.set_size(0);
        builder.append_data(&mut header, name, std::io::empty()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Members of a tar, and their content.
fn members(tar: &[u8]) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap();
    let member = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (entry.path().unwrap().display().to_string(), text)
    };
    entries.map(member).collect()
}

/// Lays files of the builder over a base tree; gives the members of the root and of the EFI system partition.
fn composed(base: &[&str], own: &[(&str, &str)], replace: &[&str]) -> Result<[Vec<(String, String)>; 2]> {
    let mut layer = Layer::default();
    for (path, text) in own {
        let content = Content::Bytes(text.as_bytes().to_vec());
        layer
            .files
            .insert(path.parse().unwrap(), Added { mode: 0o644, content, origin: "imgbuild".to_owned() });
    }
    layer.replace.extend(replace.iter().map(|path| (*path).to_owned()));
    let writer = || TreeWriter::new(Vec::new(), 0);
    let mut composer = Composer::new(layer, writer(), writer());
    composer.copy_base(tar::Archive::new(tar_of(base).as_slice()), |_| {})?;
    composer.copy_app(tar::Archive::new(tar_of(&[]).as_slice()))?;
    Ok(composer.finish(0)?.map(|tar| members(&tar)))
}

fn names(members: &[(String, String)]) -> Vec<&str> {
    members.iter().map(|(name, _)| name.trim_start_matches("./")).collect()
}

#[test]
fn what_lies_below_the_mount_point_goes_to_the_partition() {
    const MENU: &str = "/boot/efi/EFI/centos/grub.cfg";
    let base = [
        "./boot/",
        "./boot/efi/",
        "./boot/efi/EFI/",
        "./boot/efi/EFI/centos/",
        "./boot/efi/EFI/centos/shimx64.efi",
        "./boot/efi/EFI/centos/grub.cfg",
        "./boot/efi-notes",
    ];
    let own = [(MENU, "ours"), ("/boot/grub2/grub.cfg", "of the BIOS")];
    let [root, esp] = composed(&base, &own, &[MENU]).unwrap();
    // Folders are made on the partition as files need them; the mount point itself stays with the root.
    assert_eq!(names(&esp), ["boot/efi/EFI/centos/shimx64.efi", "boot/efi/EFI/centos/grub.cfg"]);
    assert_eq!(esp[1].1, "ours");
    let root = names(&root);
    for kept in ["boot/efi", "boot/efi-notes", "boot/grub2", "boot/grub2/grub.cfg"] {
        assert!(root.iter().any(|name| name.trim_end_matches('/') == kept), "{kept}: {root:?}");
    }
    assert!(!root.iter().any(|name| name.starts_with("boot/efi/E")), "{root:?}");
}

#[test]
fn a_packages_file_is_replaced_only_when_that_is_said() {
    let own = [("/boot/efi/EFI/centos/grub.cfg", "ours")];
    let error = composed(&["./boot/efi/EFI/centos/grub.cfg"], &own, &[]).unwrap_err();
    assert!(error.to_string().contains("which a package brought"), "{error}");
    assert_eq!(crate::error::exit_code(&error), 1);
}

#[test]
fn a_link_to_what_no_image_has_goes_with_it() {
    let mut builder = tar::Builder::new(Vec::new());
    let links = [
        ("./etc/ssl/certs/62742064.0", "ssl-cert-snakeoil.pem"),
        ("./etc/ssl/certs/607986c7.0", "DigiCert.pem"),
        ("./etc/ssl/certs/own.pem", "../private/ssl-cert-snakeoil.pem"),
    ];
    for (name, target) in links {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, name, target).unwrap();
    }
    let base = builder.into_inner().unwrap();
    let writer = || TreeWriter::new(Vec::new(), 0);
    let mut composer = Composer::new(Layer::default(), writer(), writer());
    composer.copy_base(tar::Archive::new(base.as_slice()), |_| {}).unwrap();
    let [root, _] = composer.finish(0).unwrap().map(|tar| members(&tar));
    let links: Vec<&str> = names(&root).into_iter().filter(|name| name.starts_with("etc/ssl")).collect();
    assert_eq!(links, ["etc/ssl/certs/607986c7.0", "etc/ssl/certs/own.pem"]);
}
