//! Where a disk of a guest comes from: a file, or a part of one. A disk in the middle of an OVA is opened where it lies.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use crate::formats::part::Part;
use crate::formats::vmdk;
use crate::verify::package;
use crate::view::{Kind, kind};

/// A disk as a user has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    /// The file.
    pub path: PathBuf,
    /// Offset and length of a VMDK in it, in bytes; the whole file otherwise.
    pub part: Option<(u64, u64)>,
}

impl From<PathBuf> for Medium {
    fn from(path: PathBuf) -> Self {
        Medium { path, part: None }
    }
}

impl Medium {
    /// QEMU's name of the disk's format; a data disk without any content is raw.
    pub fn format(&self) -> &'static str {
        // A guest that may write to a raw disk could make it look like another format that names files of the host.
        if self.path.extension().is_some_and(|extension| extension == "raw") {
            return "raw";
        }
        match kind(&self.path) {
            _ if self.part.is_some() => "vmdk",
            Ok(Kind::Qcow2) => "qcow2",
            Ok(Kind::Vmdk) => "vmdk",
            _ => "raw",
        }
    }

    /// What `qemu-img` and overlays call it.
    pub fn name(&self) -> Result<String> {
        let path = fs::canonicalize(&self.path)?;
        Ok(match self.part {
            None => path.display().to_string(),
            Some((offset, size)) => part_of(&path, offset, size),
        })
    }
}

/// The disks of an OVA in its order. One that refers to other files is refused: QEMU would open them.
pub fn of_ova(path: &Path) -> Result<Vec<Medium>> {
    let file = Part::whole(fs::File::open(path)?)?;
    let medium = |disk: package::Extent| {
        vmdk::read::refuse_references(&file.within(disk.offset, disk.length, disk.name)?)?;
        Ok(Medium { path: path.to_owned(), part: Some((disk.offset, disk.length)) })
    };
    package::disks_of(path)?.into_iter().map(medium).collect()
}

/// A VMDK in the middle of a file, in the words of QEMU's block layer.
pub fn part_of(path: &Path, offset: u64, size: u64) -> String {
    let file = serde_json::json!({ "driver": "file", "filename": path.display().to_string() });
    let part = serde_json::json!({ "driver": "raw", "offset": offset, "size": size, "file": file });
    format!("json:{}", serde_json::json!({ "driver": "vmdk", "file": part }))
}
