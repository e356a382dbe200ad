//! `DiskImage` -> `Artifact`s: the files that a user imports.
//!
//! Each is written under a temporary name in the output folder and gets its own name when it is complete. `SHA256SUMS` is last.

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

/// Exports every wanted format, replacing what an earlier build left under the same names.
pub fn write(
    recipe: &Recipe,
    disk: &DiskImage,
    formats: &[Format],
    output: &Path,
    context: &Context,
) -> Result<(Vec<Artifact>, bool)> {
    fs::create_dir_all(output)?;
    let stem = format!("{}-{}", recipe.image.name, recipe.image.app.tag);
    let scratch = context.store.scratch()?;
    // The data disk is empty: a sparse file of its size.
    let data = scratch.path().join("data.raw");
    fs::File::create(&data)?.set_len(recipe.image.disk.data.bytes())?;
    let mut artifacts = Vec::new();
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
                    crate::atomic::publish(temp, &path)?;
                    artifacts.push(artifact(*format, data_disk, path)?);
                }
            }
            Format::Ova => {
                let path = output.join(format!("{stem}.ova"));
                let temp = temp_beside(&path)?;
                ova::write(recipe, &stem, [disk.path(), &data], temp.path(), scratch.path(), context)?;
                crate::atomic::publish(temp, &path)?;
                artifacts.push(artifact(*format, false, path)?);
            }
        }
    }
    let mut sums = String::new();
    for artifact in &artifacts {
        let name = artifact.path.file_name().unwrap_or_default().to_string_lossy();
        sums.push_str(&format!("{}  {name}\n", artifact.sha256));
    }
    crate::atomic::write(&output.join(format!("{stem}.SHA256SUMS")), sums.as_bytes())?;
    Ok((artifacts, false))
}

fn temp_beside(path: &Path) -> Result<tempfile::NamedTempFile> {
    let folder = path.parent().unwrap_or(Path::new("."));
    Ok(tempfile::Builder::new().prefix(".imgbuild-").suffix(".part").tempfile_in(folder)?)
}

fn artifact(format: Format, data_disk: bool, path: PathBuf) -> Result<Artifact> {
    // A raw disk is mostly holes, which hash as slowly as data: its name in SHA256SUMS is worth the time only for a release.
    let sha256 = crate::digest::file(&path)?;
    Ok(Artifact { format, data_disk, bytes: fs::metadata(&path)?.len(), sha256, path })
}

fn copy_sparse(source: &Path, target: &Path, context: &Context) -> Result<()> {
    crate::exec::Run::new(&context.log, "cp")
        .args(["--sparse=always", "--reflink=auto", "--no-preserve=all", "-T"])
        .arg(source)
        .arg(target)
        .run()
}
