//! The overlays as data: what CentOS 7 would not understand, and what two places must say alike.

use std::path::{Path, PathBuf};

use fs_err as fs;
use testkit::systemd219;

use crate::project;

/// Every unit and drop-in below a folder.
fn units(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let parent = folder.file_name().unwrap().to_string_lossy().into_owned();
        let is_drop_in = parent.ends_with(".d") && parent.contains(".service");
        if path.is_dir() && !path.is_symlink() {
            units(&path, found);
        } else if path.is_file() && (is_drop_in || (parent == "system" && path.extension().is_some())) {
            found.push(path);
        }
    }
}

#[test]
fn every_unit_of_an_el7_image_is_known_to_systemd_219() {
    let mut found = Vec::new();
    for entry in fs::read_dir(project().join("overlays")).unwrap() {
        let entry = entry.unwrap();
        // The overlays for Debian alone may use what its systemd knows.
        if entry.path().is_dir() && !entry.file_name().to_string_lossy().contains("debian") {
            units(&entry.path(), &mut found);
        }
    }
    let faults: Vec<String> = found
        .iter()
        .flat_map(|path| {
            let text = fs::read_to_string(path).unwrap();
            systemd219::faults(&text)
                .into_iter()
                .map(|fault| format!("{}: {fault}", path.display()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
    let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_string_lossy()).collect();
    for name in [
        "appliance.service",
        "appliance-early.service",
        "appliance-grow-root.service",
        "mastodon-web.service",
    ] {
        assert!(names.iter().any(|found| found == name), "`{name}` was not looked at: {names:?}");
    }
}

#[test]
fn the_guests_own_yum_trusts_the_keys_that_the_image_was_built_with() {
    let (built, guest) =
        (project().join("images/centos7/keys"), project().join("overlays/centos7/root/etc/pki/rpm-gpg"));
    for name in ["RPM-GPG-KEY-EPEL-7", "RPM-GPG-KEY-nginx"] {
        assert_eq!(fs::read(built.join(name)).unwrap(), fs::read(guest.join(name)).unwrap(), "{name}");
    }
    let repositories = project().join("overlays/centos7/root/etc/yum.repos.d");
    for entry in fs::read_dir(repositories).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let sections = text.lines().filter(|line| line.starts_with('[')).count();
        assert_eq!(text.matches("\ngpgcheck=1\n").count(), sections, "{}", path.display());
        assert!(!text.contains("mirrorlist="), "{}", path.display());
        for key in text.lines().filter_map(|line| line.strip_prefix("gpgkey=file://")) {
            let name = Path::new(key).file_name().unwrap();
            assert!(built.join(name).is_file(), "{}: nobody brings `{key}`", path.display());
        }
    }
}
