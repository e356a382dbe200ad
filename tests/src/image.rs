//! The disks of an image in an output folder of `imgbuild build --format qcow2`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

/// Both disks of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disks {
    /// The disk to boot from.
    pub system: PathBuf,
    /// The empty disk for all that must survive.
    pub data: PathBuf,
}

impl Disks {
    /// Finds the one pair `NAME.qcow2` and `NAME-data.qcow2`.
    pub fn find(folder: &Path) -> Result<Disks> {
        const SUFFIX: &str = "-data.qcow2";
        let mut found = Vec::new();
        for entry in fs_err::read_dir(folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(stem) = name.strip_suffix(SUFFIX) {
                found.push(Disks { system: folder.join(format!("{stem}.qcow2")), data: folder.join(name) });
            }
        }
        match &found[..] {
            [disks] => {
                ensure!(
                    disks.system.is_file(),
                    "`{}` is missing beside its data disk",
                    disks.system.display()
                );
                Ok(disks.clone())
            }
            _ => bail!("one image was expected in `{}`, {} are there", folder.display(), found.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pair_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let find = || Disks::find(folder.path()).map_err(|error| error.to_string());
        assert!(find().unwrap_err().ends_with("0 are there"));
        fs_err::write(path("demo-data.qcow2"), "").unwrap();
        assert!(find().unwrap_err().contains("is missing beside"));
        fs_err::write(path("demo.qcow2"), "").unwrap();
        assert_eq!(find().unwrap(), Disks { system: path("demo.qcow2"), data: path("demo-data.qcow2") });
        fs_err::write(path("old-data.qcow2"), "").unwrap();
        assert!(find().unwrap_err().ends_with("2 are there"));
    }
}
