//! The OVA: a ustar archive of the descriptor, the manifest and the disks, in that order.
//!
//! Order, format and the manifest's spelling are what vSphere's readers insist on: descriptor first, `SHA256(name)= hex`.

use std::io::BufWriter;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::{ovf, qemu_img};
use crate::context::Context;
use crate::recipe::Recipe;
use crate::store::hex;

/// Writes the archive for the system and the data disk.
pub fn write(
    recipe: &Recipe,
    stem: &str,
    raw: [&Path; 2],
    target: &Path,
    scratch: &Path,
    context: &Context,
) -> Result<()> {
    let mut disks = Vec::new();
    for (index, source) in raw.iter().enumerate() {
        let name = format!("{stem}-disk{}.vmdk", index + 1);
        let path = scratch.join(&name);
        qemu_img::vmdk(source, &path, context)?;
        let meta = fs::metadata(source)?;
        disks.push(ovf::Disk {
            name,
            bytes: fs::metadata(&path)?.len(),
            capacity: meta.len(),
            populated: meta.blocks() * 512,
        });
    }
    let descriptor = ovf::descriptor(recipe, stem, &disks);
    let descriptor_name = format!("{stem}.ovf");
    let mut manifest = line(&descriptor_name, &sha256(descriptor.as_bytes()));
    for disk in &disks {
        manifest.push_str(&line(&disk.name, &crate::digest::file(&scratch.join(&disk.name))?));
    }
    let mut archive = tar::Builder::new(BufWriter::with_capacity(1 << 20, fs::File::create(target)?));
    append(&mut archive, &descriptor_name, descriptor.len() as u64, descriptor.as_bytes())?;
    append(&mut archive, &format!("{stem}.mf"), manifest.len() as u64, manifest.as_bytes())?;
    for disk in &disks {
        let path: PathBuf = scratch.join(&disk.name);
        append(&mut archive, &disk.name, disk.bytes, fs::File::open(&path)?)?;
        fs::remove_file(path)?;
    }
    archive.into_inner()?.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    Ok(())
}

fn append(
    archive: &mut tar::Builder<impl std::io::Write>,
    name: &str,
    size: u64,
    content: impl std::io::Read,
) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    archive.append_data(&mut header, name, content)?;
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex(&sha2::Sha256::digest(bytes))
}

fn line(name: &str, digest: &str) -> String {
    format!("SHA256({name})= {digest}\n")
}

/// Takes the members out of an OVA; names must be plain. Returns their paths in archive order.
pub fn unpack(ova: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut archive = tar::Archive::new(fs::File::open(ova)?);
    let mut members = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if name.contains('/') || name.starts_with('.') || !entry.header().entry_type().is_file() {
            return Err(crate::error::Fault::user(format!(
                "`{}`: its member `{name}` is no plain file",
                ova.display()
            ))
            .into());
        }
        let path = folder.join(&name);
        std::io::copy(&mut entry, &mut fs::File::create(&path)?)?;
        members.push(path);
    }
    Ok(members)
}
