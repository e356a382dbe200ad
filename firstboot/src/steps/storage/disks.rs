//! The machine's whole disks, from `/sys/block`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

/// A smaller disk carries a configuration or firmware, never an instance.
const SMALLEST: u64 = 1024 * 1024 * 1024;

/// One whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its device node.
    pub device: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// The disks that could carry state: fixed, writable, at least 1 GiB, neither in use nor below the root file system.
pub fn candidates() -> Result<Vec<Disk>> {
    let device_number = rustix::fs::stat("/")?.st_dev;
    let number = format!("{}:{}", rustix::fs::major(device_number), rustix::fs::minor(device_number));
    list(Path::new("/sys"), &number)
}

fn list(sys: &Path, root_device: &str) -> Result<Vec<Disk>> {
    let mut below_root = BTreeSet::new();
    if let Ok(device) = fs::canonicalize(sys.join("dev/block").join(root_device)) {
        whole_disks(&device, &mut below_root);
    }
    let mut disks = Vec::new();
    for entry in fs::read_dir(sys.join("block"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !below_root.contains(&name)
            && let Some(bytes) = usable_bytes(&entry.path(), &name)
        {
            disks.push(Disk { device: Path::new("/dev").join(&name), bytes });
        }
    }
    disks.sort_by(|one, other| one.device.cmp(&other.device));
    Ok(disks)
}

/// The size of a disk that could carry state; `None` for all others. Loop, memory and mapped devices have no `device`.
fn usable_bytes(folder: &Path, name: &str) -> Option<u64> {
    let number = |file: &str| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
    let is_disk = folder.join("device").exists() && !name.starts_with("sr") && !name.starts_with("fd");
    let is_fixed = number("removable") == Some(0) && number("ro") == Some(0);
    let is_held = fs::read_dir(folder.join("holders")).is_ok_and(|mut holders| holders.next().is_some());
    let bytes = number("size")?.checked_mul(512)?;
    (is_disk && is_fixed && !is_held && bytes >= SMALLEST).then_some(bytes)
}

/// Adds the whole disks that a block device lies on, through partitions and mapped devices.
fn whole_disks(device: &Path, found: &mut BTreeSet<String>) {
    let whole = if device.join("partition").exists() { device.parent().unwrap_or(device) } else { device };
    if let Some(name) = whole.file_name() {
        found.insert(name.to_string_lossy().into_owned());
    }
    for entry in fs::read_dir(device.join("slaves")).into_iter().flatten().flatten() {
        if let Ok(below) = fs::canonicalize(entry.path()) {
            whole_disks(&below, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::list;

    fn block(sys: &Path, name: &str, gibibytes: u64, files: &[(&str, &str)]) {
        let folder = sys.join("block").join(name);
        fs_err::create_dir_all(folder.join("holders")).unwrap();
        for (file, content) in
            [("size", (gibibytes * 2_097_152).to_string().as_str()), ("ro", "0\n"), ("removable", "0\n")]
                .iter()
                .chain(files)
        {
            let path = folder.join(file);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, content).unwrap();
        }
    }

    #[test]
    fn only_disks_that_could_carry_state_are_candidates() {
        let folder = tempfile::tempdir().unwrap();
        let sys = folder.path();
        let device = ("device/model", "disk");
        block(sys, "vda", 8, &[device, ("vda3/partition", "3")]);
        block(sys, "vdb", 32, &[device]);
        block(sys, "sdc", 32, &[device, ("removable", "1\n")]);
        block(sys, "sdd", 32, &[device, ("ro", "1\n")]);
        block(sys, "sde", 32, &[device, ("holders/dm-0", "")]);
        block(sys, "sdf", 0, &[device]);
        block(sys, "sr0", 4, &[device]);
        block(sys, "loop0", 4, &[]);
        fs_err::create_dir_all(sys.join("dev/block")).unwrap();
        symlink("../../block/vda/vda3", sys.join("dev/block/254:3")).unwrap();
        let names: Vec<_> = list(sys, "254:3").unwrap().into_iter().map(|disk| disk.device).collect();
        assert_eq!(names, [Path::new("/dev/vdb")]);
    }

    #[test]
    fn a_mapped_root_protects_the_disk_below_it() {
        let folder = tempfile::tempdir().unwrap();
        let sys = folder.path();
        block(sys, "sda", 32, &[("device/model", "disk"), ("sda2/partition", "2")]);
        block(sys, "dm-0", 30, &[("slaves/.keep", "")]);
        symlink("../../sda/sda2", sys.join("block/dm-0/slaves/sda2")).unwrap();
        fs_err::create_dir_all(sys.join("dev/block")).unwrap();
        symlink("../../block/dm-0", sys.join("dev/block/253:0")).unwrap();
        assert_eq!(list(sys, "253:0").unwrap(), []);
    }
}
