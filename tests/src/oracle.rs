//! Other people's programs as judges of what was built: we write, somebody else reads.
//!
//! Each function is an error with the program's own words when the judge objects.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::exec;

/// A partition, as sfdisk reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// First byte on the disk.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
    /// Type: a GUID for GPT.
    pub kind: String,
    /// Name in the GPT; empty when it has none.
    pub name: String,
}

/// `sgdisk --verify` on a raw disk; that program ends with 0 whatever it finds, and takes a blank disk for a new one.
pub fn gpt_is_sound(disk: &Path) -> Result<()> {
    let said = exec::text("sgdisk", &["--verify".as_ref(), disk.as_os_str()])?;
    let sound = said.contains("No problems found") && !said.contains("Creating new GPT");
    ensure!(sound, "sgdisk objects to `{}`: {}", disk.display(), said.trim());
    Ok(())
}

/// The partitions of a raw disk, read by sfdisk.
pub fn partitions(disk: &Path) -> Result<Vec<Partition>> {
    let said = exec::text("sfdisk", &["--json".as_ref(), disk.as_os_str()])?;
    let table: Value =
        serde_json::from_str(&said).with_context(|| format!("reading what sfdisk said: {said}"))?;
    let table = &table["partitiontable"];
    let sector = table["sectorsize"].as_u64().unwrap_or(512);
    let bytes =
        |value: &Value| value.as_u64().map(|sectors| sectors * sector).context("sfdisk gave no number");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let partitions = table["partitions"].as_array().context("sfdisk found no partitions")?;
    partitions
        .iter()
        .map(|partition| {
            Ok(Partition {
                start: bytes(&partition["start"])?,
                size: bytes(&partition["size"])?,
                kind: text(&partition["type"]),
                name: text(&partition["name"]),
            })
        })
        .collect()
}

/// `e2fsck -fn` on an ext4 file system that fills the file.
pub fn ext4_is_clean(image: &Path) -> Result<()> {
    let output = exec::output("e2fsck", &["-fn".as_ref(), image.as_os_str()])?;
    ensure!(output.code == Some(0), "e2fsck objects to `{}`: {}", image.display(), output.text.trim());
    // With -n a journal that waits to be replayed is a warning, not an exit code: the file system was not unmounted.
    for sign in ["skipping journal recovery", "WARNING", "not cleanly unmounted"] {
        ensure!(
            !output.text.contains(sign),
            "`{}` was not unmounted: {}",
            image.display(),
            output.text.trim()
        );
    }
    Ok(())
}

/// The same for a partition of a raw disk, which is copied out sparsely into `scratch`.
pub fn partition_is_clean_ext4(disk: &Path, partition: &Partition, scratch: &Path) -> Result<()> {
    let copy = scratch.join("partition.ext4");
    copy_range(disk, partition.start, partition.size, &copy)?;
    let result = ext4_is_clean(&copy)
        .with_context(|| format!("checking `{}` at byte {}", disk.display(), partition.start));
    fs_err::remove_file(&copy)?;
    result
}

/// `qemu-img check`: the structure of an image.
pub fn image_is_sound(image: &Path) -> Result<()> {
    exec::text("qemu-img", &["check".as_ref(), image.as_os_str()])?;
    Ok(())
}

/// `qemu-img compare`: two images, of whatever formats, hold the same bytes.
pub fn images_are_equal(one: &Path, other: &Path) -> Result<()> {
    exec::text("qemu-img", &["compare".as_ref(), one.as_os_str(), other.as_os_str()])?;
    Ok(())
}

/// `qemu-img convert` of any image, with its backing files, to a raw disk.
pub fn to_raw(image: &Path, raw: &Path) -> Result<()> {
    exec::text(
        "qemu-img",
        &["convert".as_ref(), "-O".as_ref(), "raw".as_ref(), image.as_os_str(), raw.as_os_str()],
    )?;
    Ok(())
}

/// Takes a file's only name on an ext4 file system away and marks it as one in which the kernel has met errors: `e2fsck -p` leaves that to a
/// person, and whoever answers its questions finds the file in `lost+found`.
pub fn damage_ext4(raw: &Path, file: &str) -> Result<()> {
    for command in [format!("unlink {file}"), "ssv state 2".to_owned()] {
        exec::text("debugfs", &["-w".as_ref(), "-R".as_ref(), command.as_ref(), raw.as_os_str()])?;
    }
    Ok(())
}

/// `qemu-img convert` of a raw disk to a qcow2 without a backing file.
pub fn to_qcow2(raw: &Path, image: &Path) -> Result<()> {
    exec::text(
        "qemu-img",
        &[
            "convert".as_ref(),
            "-f".as_ref(),
            "raw".as_ref(),
            "-O".as_ref(),
            "qcow2".as_ref(),
            raw.as_os_str(),
            image.as_os_str(),
        ],
    )?;
    Ok(())
}

/// `cp` of a raw disk that keeps its holes.
pub fn copy_sparse(disk: &Path, copy: &Path) -> Result<()> {
    exec::text("cp", &["--sparse=always".as_ref(), "--".as_ref(), disk.as_os_str(), copy.as_os_str()])?;
    Ok(())
}

/// Which of some texts `strings` and `grep` find on a raw disk, whose holes tar leaves out: they would be most of the time. Each text
/// is printable and of 16 characters at least.
pub fn found_by_strings(disk: &Path, texts: &BTreeSet<String>, scratch: &Path) -> Result<BTreeSet<String>> {
    let list = scratch.join("texts");
    let lines: Vec<&str> = texts.iter().map(String::as_str).collect();
    fs_err::write(&list, lines.join("\n"))?;
    // grep ends with 1 when it finds nothing; a pipe that breaks ends with more.
    let script = "set -o pipefail; tar --create --sparse --absolute-names --file=- -- \"$1\" | strings --all --bytes=16 | LC_ALL=C grep --fixed-strings --only-matching --file=\"$2\" || test $? = 1";
    let args = ["-c".as_ref(), script.as_ref(), "strings".as_ref(), disk.as_os_str(), list.as_os_str()];
    let said = exec::text("bash", &args)?;
    fs_err::remove_file(&list)?;
    Ok(said.lines().map(str::to_owned).collect())
}

/// Names in a tar archive, in their order, read by GNU tar.
pub fn tar_names(archive: &Path) -> Result<Vec<String>> {
    let said = exec::text("tar", &["--list".as_ref(), "--file".as_ref(), archive.as_os_str()])?;
    Ok(said.lines().map(str::to_owned).collect())
}

/// A file out of a tar archive.
pub fn tar_text(archive: &Path, name: &str) -> Result<String> {
    let args =
        ["--extract".as_ref(), "--to-stdout".as_ref(), "--file".as_ref(), archive.as_os_str(), name.as_ref()];
    exec::text("tar", &args)
}

/// `xmllint`: the file is well-formed XML.
pub fn xml_is_well_formed(file: &Path) -> Result<()> {
    exec::text("xmllint", &["--noout".as_ref(), file.as_os_str()])?;
    Ok(())
}

/// `xmllint` with libvirt's own schema: the file is a domain that libvirt reads.
pub fn domain_is_valid(file: &Path) -> Result<()> {
    let schema = "/usr/share/libvirt/schemas/domain.rng";
    exec::text(
        "xmllint",
        &["--noout".as_ref(), "--nonet".as_ref(), "--relaxng".as_ref(), schema.as_ref(), file.as_os_str()],
    )?;
    Ok(())
}

/// An RSA key without a passphrase and its own certificate, made by openssl: `NAME.key` and `NAME.pem` in the folder.
pub fn rsa_certificate(folder: &Path, name: &str) -> Result<(PathBuf, PathBuf)> {
    let (key, certificate) = (folder.join(format!("{name}.key")), folder.join(format!("{name}.pem")));
    let args: [&OsStr; 12] = [
        "req".as_ref(),
        "-x509".as_ref(),
        "-newkey".as_ref(),
        "rsa:2048".as_ref(),
        "-noenc".as_ref(),
        "-subj".as_ref(),
        "/CN=imgbuild test".as_ref(),
        "-keyout".as_ref(),
        key.as_os_str(),
        "-out".as_ref(),
        certificate.as_os_str(),
        "-batch".as_ref(),
    ];
    exec::text("openssl", &args)?;
    Ok((key, certificate))
}

/// `openssl dgst -verify`: the hexadecimal signature is that of the bytes, by the key of the first certificate in the file.
pub fn signature_is_good(certificate: &Path, signature: &str, signed: &[u8], scratch: &Path) -> Result<()> {
    let [public, binary, content] = ["public.pem", "signature", "signed"].map(|name| scratch.join(name));
    let args =
        ["x509".as_ref(), "-noout".as_ref(), "-pubkey".as_ref(), "-in".as_ref(), certificate.as_os_str()];
    exec::to_file("openssl", &args, &public)?;
    let digits: Vec<char> = signature.chars().collect();
    let bytes: Result<Vec<u8>, _> =
        digits.chunks(2).map(|pair| u8::from_str_radix(&String::from_iter(pair), 16)).collect();
    fs_err::write(&binary, bytes.context("the signature is not hexadecimal")?)?;
    fs_err::write(&content, signed)?;
    let args: [&OsStr; 7] = [
        "dgst".as_ref(),
        "-sha256".as_ref(),
        "-verify".as_ref(),
        public.as_os_str(),
        "-signature".as_ref(),
        binary.as_os_str(),
        content.as_os_str(),
    ];
    exec::text("openssl", &args)?;
    Ok(())
}

/// Copies a range of a file; blocks of zeros become holes.
fn copy_range(source: &Path, start: u64, size: u64, target: &Path) -> Result<()> {
    const BLOCK: usize = 1 << 20;
    let mut input = fs_err::File::open(source)?;
    input.seek(SeekFrom::Start(start))?;
    let mut input = input.take(size);
    let mut output = fs_err::File::create(target)?;
    let mut block = Vec::with_capacity(BLOCK);
    let mut position = 0;
    loop {
        block.clear();
        let count = input.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
        if count == 0 {
            break;
        }
        if block.iter().any(|byte| *byte != 0) {
            output.seek(SeekFrom::Start(position))?;
            std::io::Write::write_all(&mut output, &block)?;
        }
        position += count as u64;
    }
    if position != size {
        bail!("`{}` ends {} bytes before its partition does", source.display(), size - position);
    }
    output.set_len(size)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blank(folder: &Path, name: &str) -> std::path::PathBuf {
        let path = folder.join(name);
        fs_err::File::create(&path).unwrap().set_len(8 << 20).unwrap();
        path
    }

    #[test]
    fn partition_table_and_file_system_are_judged() {
        let folder = tempfile::tempdir().unwrap();
        let disk = blank(folder.path(), "disk.raw");
        assert!(gpt_is_sound(&disk).is_err());
        exec::text(
            "sgdisk",
            &["--new=1:2048:+5M".as_ref(), "--change-name=1:root".as_ref(), disk.as_os_str()],
        )
        .unwrap();
        gpt_is_sound(&disk).unwrap();
        let partition = partitions(&disk).unwrap().remove(0);
        assert_eq!((partition.start, partition.size, &*partition.name), (1 << 20, 5 << 20, "root"));

        let check = || partition_is_clean_ext4(&disk, &partition, folder.path());
        assert!(check().is_err(), "a partition of zeros is no file system");
        let offset = format!("-Eoffset={}", partition.start);
        exec::text(
            "mke2fs",
            &["-qt".as_ref(), "ext4".as_ref(), offset.as_ref(), disk.as_os_str(), "5M".as_ref()],
        )
        .unwrap();
        check().unwrap();
    }

    #[test]
    fn images_and_archives_are_judged() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (blank(folder.path(), "one"), blank(folder.path(), "other"));
        images_are_equal(&one, &other).unwrap();
        fs_err::write(&other, [1; 4096]).unwrap();
        assert!(images_are_equal(&one, &other).is_err());
        let archive = folder.path().join("a.tar");
        let args =
            ["-cf".as_ref(), archive.as_os_str(), "-C".as_ref(), folder.path().as_os_str(), "one".as_ref()];
        exec::text("tar", &args).unwrap();
        assert_eq!(tar_names(&archive).unwrap(), ["one"]);
        fs_err::write(&one, "<a><b/></a>").unwrap();
        xml_is_well_formed(&one).unwrap();
        fs_err::write(&one, "<a><b></a>").unwrap();
        assert!(xml_is_well_formed(&one).is_err());
    }
}
