//! The OVA: a ustar archive of the descriptor, the manifest, its signature and the disks, in that order.
//!
//! Order, format and the manifest's spelling are what vSphere's readers insist on: descriptor first, `SHA256(name)= hex`. It is
//! written in one pass: each disk is compressed into its place in the archive and hashed on the way; what stands before the disks
//! and speaks of them has its room kept free and is filled in last.

use std::io::{BufWriter, Seek as _, SeekFrom, Write};
use std::path::Path;

use anyhow::Result;
use fs_err as fs;
use sha2::{Digest as _, Sha256};

use super::{Content, ovf};
use crate::context::Context;
use crate::error::Fault;
use crate::formats::vmdk;
use crate::recipe::Recipe;
use crate::report::Unit;
use crate::store::hex;

/// Bytes of an archive's block.
const BLOCK: usize = 512;
/// Largest member that a ustar header can state, in bytes.
const MEMBER_LIMIT: u64 = (8 << 30) - 1;
/// Length of the digests in the manifest, in hexadecimal digits.
const DIGITS: usize = 64;

/// Writes the archive of these disks. `epoch` is the time of its members, in seconds since 1970.
pub fn write(
    recipe: &Recipe,
    stem: &str,
    disks: &[Content],
    epoch: u64,
    target: &Path,
    context: &Context,
) -> Result<()> {
    let names: Vec<String> = (1..=disks.len()).map(|number| format!("{stem}-disk{number}.vmdk")).collect();
    let eula = recipe.eula()?;
    let front = |descriptor: String, digests: &[String]| -> Result<Vec<(String, Vec<u8>)>> {
        let manifest_name = format!("{stem}.mf");
        let mut manifest = line(&format!("{stem}.ovf"), &hex(&Sha256::digest(&descriptor)));
        manifest.extend(names.iter().zip(digests).map(|(name, digest)| line(name, digest)));
        let mut members = vec![(format!("{stem}.ovf"), descriptor.into_bytes())];
        if let Some(signer) = &context.signer {
            let certificate = signer.cert(&manifest_name, manifest.as_bytes())?;
            members.push((format!("{stem}.cert"), certificate));
        }
        members.insert(1, (manifest_name, manifest.into_bytes()));
        Ok(members)
    };
    // As long as it will ever be: no number has more digits than these.
    let longest: Vec<ovf::Disk> = (disks.iter().zip(&names))
        .map(|(disk, name)| ovf::Disk {
            name: name.clone(),
            bytes: MEMBER_LIMIT,
            capacity: disk.size,
            populated: disk.size,
        })
        .collect();
    let longest = ovf::descriptor(recipe, stem, &longest, eula.as_deref());
    let room = longest.len();

    let mut archive = BufWriter::with_capacity(1 << 20, fs::File::create(target)?);
    for (name, content) in front(longest, &vec!["0".repeat(DIGITS); disks.len()])? {
        put_member(&mut archive, &name, &content, epoch)?;
    }
    let mut written = Vec::new();
    let mut digests = Vec::new();
    let mut headers = Vec::new();
    for (disk, name) in disks.iter().zip(&names) {
        headers.push(archive.stream_position()?);
        archive.write_all(&[0; BLOCK])?;
        let mut hashed = Hashed { target: &mut archive, hash: Sha256::new() };
        let level = recipe.image.export.level;
        let options = vmdk::write::Options { name, level, identity: disk.identity };
        let vmdk::write::Written { bytes, populated } =
            vmdk::write::write(&fs::File::open(&disk.path)?, disk.size, options, &mut hashed, |done| {
                context.reporter.progress(done, disk.size, Unit::Bytes);
            })?;
        if bytes > MEMBER_LIMIT {
            let message = format!("`{name}` has more than 8 GiB, which the archive of an OVA cannot state");
            return Err(Fault::user(message).hint("export a qcow2 or a raw disk: --format qcow2").into());
        }
        digests.push(hex(&hashed.hash.finalize()));
        written.push(ovf::Disk { name: name.clone(), bytes, capacity: disk.size, populated });
    }
    // Two blocks of zeros end an archive; a VMDK is a whole number of blocks.
    archive.write_all(&[0; BLOCK * 2])?;

    let mut descriptor = ovf::descriptor(recipe, stem, &written, eula.as_deref());
    // White space behind the document is part of no XML.
    descriptor.extend(std::iter::repeat_n('\n', room - descriptor.len()));
    archive.seek(SeekFrom::Start(0))?;
    for (name, content) in front(descriptor, &digests)? {
        put_member(&mut archive, &name, &content, epoch)?;
    }
    for (disk, at) in written.iter().zip(headers) {
        archive.seek(SeekFrom::Start(at))?;
        archive.write_all(header(&disk.name, disk.bytes, epoch)?.as_bytes())?;
    }
    archive.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    Ok(())
}

/// What goes through is hashed.
struct Hashed<W> {
    target: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.target.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.target.flush()
    }
}

fn header(name: &str, bytes: u64, epoch: u64) -> Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_mtime(epoch);
    header.set_uid(0);
    header.set_gid(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(header)
}

fn put_member(archive: &mut impl Write, name: &str, content: &[u8], epoch: u64) -> Result<()> {
    archive.write_all(header(name, content.len() as u64, epoch)?.as_bytes())?;
    archive.write_all(content)?;
    let padding = content.len().next_multiple_of(BLOCK) - content.len();
    Ok(archive.write_all(&vec![0; padding])?)
}

fn line(name: &str, digest: &str) -> String {
    format!("SHA256({name})= {digest}\n")
}
