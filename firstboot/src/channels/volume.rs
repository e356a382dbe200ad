//! A configuration volume: a disk or CD-ROM with the label `CIDATA` or `MASTODON` that holds `config.toml`, or `user-data` in our
//! own format. Layout and label are those of cloud-init's NoCloud, so that every tool that makes such volumes can make ours.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{Offer, read_offered};
use crate::exec::Run;

const LABELS: [&str; 4] = ["CIDATA", "cidata", "MASTODON", "mastodon"];
const MOUNT_POINT: &str = "/run/appliance/volume";
/// First line of a `user-data` that is a configuration; a comment in TOML.
const MARK: &str = "#mastodon-appliance";

pub(super) fn look(root: &Path) -> Result<Option<Offer>> {
    if root != Path::new("/") {
        return Ok(None);
    }
    for label in LABELS {
        for device in devices(label) {
            let mount = Mount::read_only(&device)
                .with_context(|| format!("reading the volume `{label}` on `{}`", device.display()))?;
            let offer = read_folder(Path::new(MOUNT_POINT), label);
            mount.close()?;
            if let Some(offer) = offer? {
                return Ok(Some(offer));
            }
        }
    }
    Ok(None)
}

/// The devices that carry a label. udev's link costs nothing; `blkid` also finds what udev has not linked.
fn devices(label: &str) -> Vec<PathBuf> {
    let link = Path::new("/dev/disk/by-label").join(label);
    if link.exists() {
        return vec![link];
    }
    let token = format!("LABEL={label}");
    let found = Run::new("blkid", &["-c", "/dev/null", "-o", "device", "-t", &token]).output();
    found.map(|output| output.stdout.lines().map(PathBuf::from).collect()).unwrap_or_default()
}

/// What the mounted volume offers.
fn read_folder(folder: &Path, label: &str) -> Result<Option<Offer>> {
    let source = format!("config.toml on the volume {label}");
    if let Some(text) = read_offered(&folder.join("config.toml"), &source)? {
        return Ok(Some(Offer { source, text }));
    }
    let source = format!("user-data on the volume {label}");
    let Some(text) = read_offered(&folder.join("user-data"), &source)? else { return Ok(None) };
    match text.lines().next().map(str::trim_end) {
        Some(MARK) => Ok(Some(Offer { source, text })),
        Some(first) => {
            let kind =
                if first.starts_with("#cloud-config") { "a cloud-config" } else { "in an unknown format" };
            bail!(
                "{source} is {kind}, which this appliance does not read: put `config.toml` on the volume (see \
                 `appliance config example`), or the same text as `user-data` with `{MARK}` as its first line"
            );
        }
        None => Ok(None),
    }
}

/// A mounted volume; unmounted when dropped.
struct Mount {
    open: bool,
}

impl Mount {
    fn read_only(device: &Path) -> Result<Mount> {
        fs_err::create_dir_all(MOUNT_POINT)?;
        let device = device.to_string_lossy();
        // A journalling file system could be written to even by a read-only mount; volumes for exchange have none.
        let options = ["-t", "iso9660,udf,vfat", "-o", "ro,nosuid,nodev,noexec", "--", &device, MOUNT_POINT];
        Run::new("mount", &options)
            .text()
            .context("mounting it as ISO 9660, UDF or FAT; make the volume with one of these")?;
        Ok(Mount { open: true })
    }

    fn close(mut self) -> Result<()> {
        self.open = false;
        Run::new("umount", &[MOUNT_POINT]).text()?;
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.open {
            Run::new("umount", &[MOUNT_POINT]).succeeds();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::read_folder;

    fn check(files: &[(&str, &str)]) -> String {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs_err::write(folder.path().join(name), text).unwrap();
        }
        match read_folder(folder.path(), "CIDATA") {
            Ok(Some(offer)) => format!("{}: {}", offer.source, offer.text),
            Ok(None) => "nothing".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn config_toml_goes_before_user_data() {
        assert_eq!(check(&[]), "nothing");
        assert_eq!(check(&[("config.toml", "a"), ("user-data", "b")]), "config.toml on the volume CIDATA: a");
        let ours = "#mastodon-appliance\nschema = 1";
        assert_eq!(check(&[("user-data", ours)]), format!("user-data on the volume CIDATA: {ours}"));
        assert_eq!(check(&[("meta-data", "instance-id: a"), ("user-data", "\n")]), "nothing");
    }

    #[test]
    fn foreign_user_data_is_refused_with_the_remedy() {
        insta::assert_snapshot!(check(&[("user-data", "#cloud-config\npackages: []\n")]), @"user-data on the volume CIDATA is a cloud-config, which this appliance does not read: put `config.toml` on the volume (see `appliance config example`), or the same text as `user-data` with `#mastodon-appliance` as its first line");
        assert!(check(&[("user-data", "#!/bin/sh\n")]).contains("in an unknown format"));
    }
}
