//! Where a disk of a guest comes from: a file, or a part of one. A disk in the middle of an OVA is opened where it lies.
//!
//! QEMU is told the format of each. A guest writes its disks, headers too: what a user names is looked at each time, and a header
//! that refers to other files is refused before QEMU sees it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use crate::error::Fault;
use crate::formats::part::Part;
use crate::formats::{vhd, vmdk};
use crate::verify::package;
use crate::view::{Kind, kind, refuse_references};

/// A VHD's own size counts, not the rounded one that its geometry gives.
pub(super) const VHD_SIZE: (&str, &str) = ("force_size_calc", "current_size");

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
    /// A disk that a user names; a data disk may be blank. One that refers to other files is refused: QEMU would open them.
    pub fn of_user(path: &Path) -> Result<Self> {
        if !fs::metadata(path).map_err(|error| Fault::user(error.to_string()))?.is_file() {
            return Err(Fault::user(format!("`{}` is no file", path.display())).into());
        }
        // What is of no kind that we know is raw, and nothing in it counts.
        match kind(path) {
            Ok(kind @ (Kind::Qcow2 | Kind::Vmdk)) => {
                refuse_references(path, kind)?;
                // One that was cut off would boot to nothing, without a word.
                crate::view::disk(path)?;
                if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("raw")) {
                    let message =
                        format!("`{}` is called a raw disk, and begins as another format", path.display());
                    return Err(Fault::user(message)
                        .hint("a guest that may write to a raw disk can make it look so; give the file another name if you made it")
                        .into());
                }
            }
            Ok(Kind::Ova) => {
                return Err(Fault::user(format!("`{}` is a package, not a disk", path.display())).into());
            }
            Ok(Kind::Raw) | Err(_) => {
                vhd::footer(&Part::whole(fs::File::open(path)?)?)?;
            }
        }
        Ok(path.to_owned().into())
    }

    /// QEMU's name of the disk's format; a data disk without any content is raw.
    pub fn format(&self) -> &'static str {
        let is_vhd =
            || -> Result<bool> { Ok(vhd::footer(&Part::whole(fs::File::open(&self.path)?)?)?.is_some()) };
        match kind(&self.path) {
            _ if self.part.is_some() => "vmdk",
            Ok(Kind::Qcow2) => "qcow2",
            Ok(Kind::Vmdk) => "vmdk",
            _ if is_vhd().unwrap_or(false) => "vpc",
            _ => "raw",
        }
    }

    /// What `qemu-img` and overlays call it.
    pub fn name(&self) -> Result<String> {
        let path = fs::canonicalize(&self.path)?;
        Ok(match self.part {
            None if self.format() == "vpc" => {
                let (option, value) = VHD_SIZE;
                let file = serde_json::json!({ "driver": "file", "filename": path.display().to_string() });
                format!("json:{}", serde_json::json!({ "driver": "vpc", option: value, "file": file }))
            }
            None => path.display().to_string(),
            Some((offset, size)) => part_of(&path, offset, size),
        })
    }
}

/// The disks of an OVA in its order. One that refers to other files is refused: QEMU would open them.
pub fn of_ova(path: &Path) -> Result<Vec<Medium>> {
    let file = Part::whole(fs::File::open(path)?)?;
    let medium = |disk: package::Extent| {
        let name = format!("{}: its member `{}`", file.name(), disk.name.escape_debug());
        vmdk::read::refuse_references(&file.within(disk.offset, disk.length, name)?)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::exit_code;
    use crate::formats::Identity;
    use crate::formats::testing::Images;

    #[test]
    fn what_would_open_other_files_is_refused() {
        let images = Images::new();
        images.file("secret", b"secret");
        images.qemu_img("create -q -f qcow2 -u -F raw -b secret backed.qcow2 1M");
        images.qemu_img("create -q -f qcow2 alone.qcow2 1M");
        let blank = images.file("blank.img", &vec![0; 1 << 16]);
        for (name, format) in [("alone.qcow2", "qcow2"), ("blank.img", "raw")] {
            assert_eq!(Medium::of_user(&images.path(name)).unwrap().format(), format);
        }
        // What a guest may make of its disk, whatever the name of the file.
        let backed = fs::read(images.path("backed.qcow2")).unwrap();
        fs::write(&blank, &backed).unwrap();
        let raw = images.file("data.raw", &fs::read(images.path("alone.qcow2")).unwrap());
        for (path, message) in [
            (images.path("backed.qcow2"), "it refers to other files"),
            (blank, "it refers to other files"),
            (raw, "is called a raw disk"),
            (images.path("none"), "No such file"),
        ] {
            let error = Medium::of_user(&path).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
            assert_eq!(exit_code(&error), 1, "{error}");
        }
    }

    #[test]
    fn qemu_sees_the_disk_of_a_vhd_without_its_footer() {
        let images = Images::new();
        // No geometry has this size.
        let size = (5 << 20) + (1 << 20);
        let path = images.file("disk.vhd", &[0; 512]);
        let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        vhd::close(&file, size, Identity::of(&file, 512).unwrap(), 0).unwrap();
        let medium = Medium::of_user(&path).unwrap();
        assert_eq!(medium.format(), "vpc");
        let (backing, overlay) = (medium.name().unwrap(), images.path("overlay.qcow2"));
        let log = crate::exec::Log::create(&images.path("log-2")).unwrap();
        let run =
            |words: &[&str]| crate::exec::Run::new(&log, "qemu-img").args(words).arg(&overlay).capture();
        run(&["create", "-q", "-f", "qcow2", "-F", "vpc", "-b", &backing]).unwrap();
        let said: serde_json::Value =
            serde_json::from_str(&run(&["info", "--output=json"]).unwrap()).unwrap();
        assert_eq!(said["virtual-size"], size);
    }
}
