//! `DiskImage` -> `Artifact`s: the files that a user imports.
//!
//! Each is written as a `Draft` under a temporary name in the output folder. Only drafts that were read back get their own names;
//! `SHA256SUMS` goes first and comes back last, so that it never speaks of other files than those beside it.

pub mod domain;
pub mod ova;
pub mod ovf;
pub mod sign;
mod xml;

use std::fmt;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::disk::DiskImage;
use crate::formats::{Identity, qcow2, vhd};
use crate::recipe::{Compression, Recipe};
use crate::report::Unit;
use crate::verify::ReadBack;

/// Level of zstd: that of qemu-img.
pub const ZSTD_LEVEL: u8 = 3;

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
    /// Hyper-V's fixed disk.
    Vhd,
    /// libvirt's description of the machine: comes with every qcow2, not by itself.
    #[value(skip)]
    #[serde(skip_deserializing)]
    Domain,
}

/// A disk that is to be exported.
#[derive(Debug, Clone)]
pub struct Content {
    /// Its raw file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// The name of its content.
    pub identity: Identity,
}

impl Content {
    /// A raw disk; reads it for its name.
    pub fn of(path: &Path) -> Result<Self> {
        let file = fs::File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Content { path: path.to_owned(), size, identity: Identity::of(&file, size)? })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Ova => "ova",
            Format::Vhd => "vhd",
            Format::Domain => "xml",
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
) -> Result<Vec<Draft>> {
    fs::create_dir_all(output)?;
    let stem = format!("{}-{}", recipe.image.name, recipe.image.app.tag);
    let scratch = context.store.scratch()?;
    // The data disk is empty: a sparse file of its size.
    let data = scratch.path().join("data.raw");
    fs::File::create(&data)?.set_len(recipe.image.disk.data.bytes())?;
    let system = Content {
        path: disk.path().to_owned(),
        size: recipe.image.disk.system.bytes(),
        identity: disk.identity(),
    };
    let contents = [system, Content::of(&data)?];
    let mut drafts = Vec::new();
    for format in formats {
        context.reporter.doing(&format!("writing {format}"));
        if *format == Format::Ova {
            let path = output.join(format!("{stem}.ova"));
            let temp = crate::atomic::temp_beside(&path)?;
            ova::write(recipe, &stem, &contents, disk.epoch(), temp.path(), context)?;
            drafts.push(Draft { format: *format, data_disk: false, temp, path });
            continue;
        }
        for (content, data_disk) in contents.iter().zip([false, true]) {
            let path = output.join(format!("{stem}{}.{format}", if data_disk { "-data" } else { "" }));
            let temp = crate::atomic::temp_beside(&path)?;
            write_disk(*format, content, recipe, disk.epoch(), temp.path(), context)?;
            drafts.push(Draft { format: *format, data_disk, temp, path });
        }
        if *format == Format::Qcow2 {
            let path = output.join(format!("{stem}.{}", Format::Domain));
            let temp = crate::atomic::temp_beside(&path)?;
            let disks = [format!("{stem}.qcow2"), format!("{stem}-data.qcow2")];
            fs::write(temp.path(), domain::domain(recipe, &stem, [&disks[0], &disks[1]]))?;
            drafts.push(Draft { format: Format::Domain, data_disk: false, temp, path });
        }
    }
    Ok(drafts)
}

/// Writes a disk by itself into an empty file.
pub fn write_disk(
    format: Format,
    disk: &Content,
    recipe: &Recipe,
    epoch: u64,
    target: &Path,
    context: &Context,
) -> Result<()> {
    let Content { path, size, identity } = disk;
    match format {
        Format::Raw => copy_sparse(path, target, context),
        Format::Vhd => {
            copy_sparse(path, target, context)?;
            let file = fs::OpenOptions::new().read(true).write(true).open(target)?;
            vhd::close(&file, *size, *identity, epoch)
        }
        Format::Qcow2 => {
            let output = BufWriter::with_capacity(1 << 20, fs::File::create(target)?);
            let seen = |done| context.reporter.progress(done, *size, Unit::Bytes);
            let method = match recipe.image.export.qcow2 {
                Compression::Zstd => qcow2::write::Method::Zstd(ZSTD_LEVEL.into()),
                Compression::Zlib => qcow2::write::Method::Deflate(recipe.image.export.level),
            };
            qcow2::write::write(&fs::File::open(path)?, *size, method, output, seen)
        }
        Format::Ova | Format::Domain => unreachable!("no disk by itself"),
    }
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

fn copy_sparse(source: &Path, target: &Path, context: &Context) -> Result<()> {
    crate::exec::Run::new(&context.log, "cp")
        .args(["--sparse=always", "--reflink=auto", "--no-preserve=all", "-T"])
        .arg(source)
        .arg(target)
        .run()
}
