//! `DiskImage` -> `Artifact`s: the files that a user imports.
//!
//! Each is written as a `Draft` under a temporary name in the output folder. Only drafts that were read back get their own names;
//! `SHA256SUMS` goes first and comes back last, so that it never speaks of other files than those beside it.

pub mod ova;
mod ovf;
mod qemu_img;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::disk::DiskImage;
use crate::recipe::Recipe;
use crate::verify::ReadBack;

/// A format of a disk or appliance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// The disk as it is, sparse.
    Raw,
    /// QEMU's format, compressed.
    Qcow2,
    /// VMware's streamOptimized disk inside an OVF package.
    Ova,
}

impl fmt::Display for Format {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Ova => "ova",
        })
    }
}

/// One finished file.
#[derive(Debug, Clone, Serialize)]
pub struct Artifact {
    /// Its format.
    pub format: Format,
    /// Whether it is the empty data disk.
    pub data_disk: bool,
    /// Where it is.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

/// A complete file that has not been read back yet.
#[derive(Debug)]
pub struct Draft {
    format: Format,
    data_disk: bool,
    temp: tempfile::NamedTempFile,
    path: PathBuf,
}

impl Draft {
    /// Its name for now.
    pub fn temp(&self) -> &Path {
        self.temp.path()
    }

    /// Its name to be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether it is the empty data disk.
    pub fn is_data_disk(&self) -> bool {
        self.data_disk
    }
}

/// Writes every wanted format.
pub fn write(
    recipe: &Recipe,
    disk: &DiskImage,
    formats: &[Format],
    output: &Path,
    context: &Context,
) -> Result<(Vec<Draft>, bool)> {
    fs::create_dir_all(output)?;
    let stem = format!("{}-{}", recipe.image.name, recipe.image.app.tag);
    let scratch = context.store.scratch()?;
    // The data disk is empty: a sparse file of its size.
    let data = scratch.path().join("data.raw");
    fs::File::create(&data)?.set_len(recipe.image.disk.data.bytes())?;
    let mut drafts = Vec::new();
    for format in formats {
        context.reporter.doing(&format!("writing {format}"));
        match format {
            Format::Raw | Format::Qcow2 => {
                for (source, suffix, data_disk) in [(disk.path(), "", false), (data.as_path(), "-data", true)]
                {
                    let path = output.join(format!("{stem}{suffix}.{format}"));
                    let temp = temp_beside(&path)?;
                    match format {
                        Format::Raw => copy_sparse(source, temp.path(), context)?,
                        _ => qemu_img::qcow2(source, temp.path(), context)?,
                    }
                    drafts.push(Draft { format: *format, data_disk, temp, path });
                }
            }
            Format::Ova => {
                let path = output.join(format!("{stem}.ova"));
                let temp = temp_beside(&path)?;
                ova::write(recipe, &stem, [disk.path(), &data], temp.path(), scratch.path(), context)?;
                drafts.push(Draft { format: *format, data_disk: false, temp, path });
            }
        }
    }
    Ok((drafts, false))
}

/// Gives drafts their names, replacing what an earlier build left under them. `_read_back` is the proof that they may have them.
pub fn publish(
    recipe: &Recipe,
    drafts: Vec<Draft>,
    output: &Path,
    _read_back: &ReadBack,
) -> Result<Vec<Artifact>> {
    let sums_path = output.join(format!("{}-{}.SHA256SUMS", recipe.image.name, recipe.image.app.tag));
    if sums_path.exists() {
        fs::remove_file(&sums_path)?;
    }
    let mut artifacts = Vec::new();
    let mut sums = String::new();
    for Draft { format, data_disk, temp, path } in drafts {
        let sha256 = crate::digest::file(temp.path())?;
        crate::atomic::publish(temp, &path)?;
        sums.push_str(&format!("{sha256}  {}\n", path.file_name().unwrap_or_default().to_string_lossy()));
        artifacts.push(Artifact { format, data_disk, bytes: fs::metadata(&path)?.len(), sha256, path });
    }
    crate::atomic::write(&sums_path, sums.as_bytes())?;
    Ok(artifacts)
}

fn temp_beside(path: &Path) -> Result<tempfile::NamedTempFile> {
    let folder = path.parent().unwrap_or(Path::new("."));
    Ok(tempfile::Builder::new().prefix(".imgbuild-").suffix(".part").tempfile_in(folder)?)
}

fn copy_sparse(source: &Path, target: &Path, context: &Context) -> Result<()> {
    crate::exec::Run::new(&context.log, "cp")
        .args(["--sparse=always", "--reflink=auto", "--no-preserve=all", "-T"])
        .arg(source)
        .arg(target)
        .run()
}
