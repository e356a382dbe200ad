//! Disks and CD-ROMs that somebody attached: which there are, and a look at their files.
//!
//! They are mounted read-only, without device nodes, programs and set-user-id, as one of the file systems that are made for
//! exchange, and are unmounted whatever the look finds.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::durable;
use crate::exec::Run;

/// Of this process alone: `appliance diagnose` looks while the daemon does, and neither may read or unmount what the other mounted.
fn mount_point() -> String {
    format!("/run/appliance/volume-{}", std::process::id())
}

/// The devices that carry a label. udev's link costs nothing; `blkid` also finds what udev has not linked.
pub(super) fn labelled(label: &str) -> Vec<PathBuf> {
    // udev writes a blank in a name like this.
    let link = Path::new("/dev/disk/by-label").join(label.replace(' ', "\\x20"));
    if link.exists() {
        return vec![link];
    }
    let token = format!("LABEL={label}");
    let found = Run::new("blkid", &["-c", "/dev/null", "-o", "device", "-t", &token]).output();
    found.map(|output| output.stdout.lines().map(PathBuf::from).collect()).unwrap_or_default()
}

/// The CD drives that hold a disc with a file system, in order of their names.
pub(super) fn discs() -> Vec<PathBuf> {
    let Ok(entries) = fs_err::read_dir("/sys/class/block") else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut drives: Vec<PathBuf> = names
        .filter(|name| name.strip_prefix("sr").is_some_and(|number| number.parse::<u16>().is_ok()))
        .map(|name| Path::new("/dev").join(name))
        .collect();
    drives.sort();
    // An empty drive, or one with music, is no fault, and mounting it would be one.
    drives.retain(|drive| {
        let drive = drive.to_string_lossy();
        let kind = Run::new("blkid", &["-p", "-o", "value", "-s", "TYPE", "--", &drive]).output();
        kind.is_ok_and(|output| ["iso9660", "udf"].contains(&output.stdout.trim()))
    });
    drives
}

/// Mounts a device, shows its folder to `read`, and unmounts it.
pub(super) fn visit<T>(device: &Path, read: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let mount = Mount::read_only(device)?;
    let result = read(Path::new(&mount_point()));
    mount.close()?;
    result
}

/// A mounted device; unmounted when dropped.
struct Mount {
    open: bool,
}

impl Mount {
    fn read_only(device: &Path) -> Result<Mount> {
        let folder = mount_point();
        durable::folder(Path::new(&folder))?;
        let device = device.to_string_lossy();
        // A journalling file system could be written to even by a read-only mount; volumes for exchange have none.
        let options = ["-t", "iso9660,udf,vfat", "-o", "ro,nosuid,nodev,noexec", "--", &device, &folder];
        Run::new("mount", &options)
            .text()
            .context("mounting it as ISO 9660, UDF or FAT; make the volume with one of these")?;
        Ok(Mount { open: true })
    }

    fn close(mut self) -> Result<()> {
        self.open = false;
        let folder = mount_point();
        Run::new("umount", &["--", &folder]).text()?;
        durable::remove_empty_folder(Path::new(&folder))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.open {
            Run::new("umount", &["--", &mount_point()]).succeeds();
        }
    }
}
