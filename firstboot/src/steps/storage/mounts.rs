//! What is mounted where, and the bind mounts that put state on the data disk.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use fs_err as fs;

use crate::durable;
use crate::exec::Run;

/// Where the data disk is mounted.
pub const MOUNT_POINT: &str = "/srv/appliance";

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The folder within the mounted file system.
    pub root: String,
    /// Where it is mounted.
    pub point: String,
    /// The device, as the kernel was told.
    pub source: String,
}

/// Everything that is mounted now.
pub fn read() -> Result<Vec<Mount>> {
    Ok(parse(&fs::read_to_string("/proc/self/mountinfo")?))
}

fn parse(mountinfo: &str) -> Vec<Mount> {
    let line = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let source = filesystem.split(' ').nth(1)?;
        Some(Mount { root: unescape(root), point: unescape(point), source: unescape(source) })
    };
    mountinfo.lines().filter_map(line).collect()
}

/// The kernel writes space, tab, line feed and backslash as octal escapes.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

/// The folder on the data disk that holds a path: `/var/lib/redis` is `state/var-lib-redis`.
fn place(path: &str) -> String {
    format!("/state/{}", path.trim_matches('/').replace('/', "-"))
}

/// Whether the data disk is mounted.
pub fn is_mounted(mounts: &[Mount]) -> bool {
    mounts.iter().any(|mount| mount.point == MOUNT_POINT)
}

/// Whether a path shows its folder on the data disk.
pub fn is_bound(mounts: &[Mount], path: &str) -> bool {
    // The last mount on a point hides the others.
    mounts.iter().rfind(|mount| mount.point == path).is_some_and(|mount| mount.root == place(path))
}

/// Mounts the data disk.
pub fn mount(device: &Path) -> Result<()> {
    durable::folder(Path::new(MOUNT_POINT))?;
    // `noinit_itable`: the kernel would otherwise write all inode tables, and inflate a thin disk for nothing.
    let options = "nodev,nosuid,noinit_itable";
    let args = ["-t", "ext4", "-o", options, &device.to_string_lossy(), MOUNT_POINT];
    // After a power cut it first replays the journal.
    Run::new("mount", &args).unlimited().text()?;
    Ok(())
}

/// Puts a path on the data disk: copies what the image has there if the disk has nothing yet, then binds it.
pub fn bind(path: &str) -> Result<()> {
    let image = Path::new(path);
    let place = PathBuf::from(format!("{MOUNT_POINT}{}", place(path)));
    create_like_parent(image)?;
    copy_once(image, &place)?;
    Run::new("mount", &["--bind", &place.to_string_lossy(), path]).text()?;
    Ok(())
}

/// Copies a folder with owners, modes and labels; the rename at the end is the commit point.
fn copy_once(image: &Path, place: &Path) -> Result<()> {
    if place.exists() {
        return Ok(());
    }
    let scratch = durable::scratch(place);
    durable::erase(&scratch)?;
    durable::folder(place.parent().unwrap_or(Path::new(MOUNT_POINT)))?;
    let (from, to) = (image.to_string_lossy(), scratch.to_string_lossy());
    Run::new("cp", &["--archive", "--", &from, &to])
        .unlimited()
        .text()
        .context("copying the image's state to the data disk")?;
    durable::sync_tree(&scratch)?;
    durable::rename(&scratch, place)
}

/// Makes a folder that the image does not have, with the owner of the folder that it lies in.
fn create_like_parent(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let Some(parent) = path.parent() else { bail!("`{}` is no folder for state", path.display()) };
    create_like_parent(parent)?;
    let owner = parent.metadata().with_context(|| format!("reading `{}`", parent.display()))?;
    durable::folder_with(path, 0o755, Some((owner.uid(), owner.gid())))
}

/// Both disks hold an instance, and not the same one: state on the system disk would vanish below the data disk's.
pub fn conflict() -> bool {
    let id = |path: String| fs::read_to_string(path).ok();
    let system = id("/var/lib/appliance/instance-id".to_owned());
    let data = id(format!("{MOUNT_POINT}{}/instance-id", place("/var/lib/appliance")));
    system.is_some() && data.is_some() && system != data
}

#[cfg(test)]
mod tests {
    use super::{copy_once, is_bound, is_mounted, parse};

    const MOUNTINFO: &str = "\
22 1 254:3 / / rw,relatime shared:1 - ext4 /dev/vda3 rw
40 22 254:16 / /srv/appliance rw,relatime - ext4 /dev/vdb rw
41 22 254:16 /state/var-lib-redis /var/lib/redis rw,relatime shared:2 master:1 - ext4 /dev/vdb rw
42 22 0:40 / /mnt/a\\040b rw - tmpfs tmpfs rw
";

    #[test]
    fn binds_are_recognised_by_their_folder() {
        let mounts = parse(MOUNTINFO);
        assert!(is_mounted(&mounts));
        assert_eq!(mounts[1].source, "/dev/vdb");
        assert_eq!(mounts[3].point, "/mnt/a b");
        assert!(is_bound(&mounts, "/var/lib/redis"));
        assert!(!is_bound(&mounts, "/var/lib/postgresql"));
        let hidden = format!("{MOUNTINFO}43 22 0:41 / /var/lib/redis rw - tmpfs tmpfs rw\n");
        assert!(!is_bound(&parse(&hidden), "/var/lib/redis"));
    }

    #[test]
    fn state_is_copied_once_with_its_modes() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (image, place) = (folder.path().join("image"), folder.path().join("disk/state/var-lib-redis"));
        fs_err::create_dir(&image).unwrap();
        fs_err::set_permissions(&image, std::fs::Permissions::from_mode(0o750)).unwrap();
        fs_err::write(image.join("dump"), "one").unwrap();
        // What a cut left behind is not state.
        fs_err::create_dir_all(folder.path().join("disk/state/var-lib-redis.new/dump")).unwrap();
        copy_once(&image, &place).unwrap();
        fs_err::write(image.join("dump"), "two").unwrap();
        copy_once(&image, &place).unwrap();
        assert_eq!(fs_err::read_to_string(place.join("dump")).unwrap(), "one");
        assert_eq!(fs_err::metadata(&place).unwrap().permissions().mode() & 0o7777, 0o750);
    }
}
