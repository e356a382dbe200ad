//! What other programs say of an artifact. A program that is missing is an error; what it says of the file is a finding.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use crate::context::Context;
use crate::exec::Run;
use crate::export::Format;
use crate::view::{Kind, kind};

/// A disk that a build wrote: sound, and every byte that of its source.
pub fn disk(path: &Path, format: Format, source: &Path, context: &Context) -> Vec<String> {
    let mut wrong = Vec::new();
    let name = match format {
        Format::Qcow2 => "qcow2",
        Format::Vhd => "vpc",
        // No disk; its schema is libvirt's, and the tests hold it against that.
        Format::Domain => return wrong,
        Format::Raw | Format::Ova => "raw",
    };
    if format == Format::Qcow2 {
        check(path, context, &mut wrong);
    }
    compare(path, name, source, context, &mut wrong);
    wrong
}

/// A file of any kind, by itself.
pub fn file(path: &Path, context: &Context) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    match kind(path)? {
        Kind::Raw => {}
        Kind::Qcow2 => check(path, context, &mut wrong),
        Kind::Vmdk => {
            run(Run::new(&context.log, "qemu-img").args(["info", "-f", "vmdk"]).arg(path), &mut wrong);
        }
        Kind::Ova => wrong = package(path, &[], context)?,
    }
    Ok(wrong)
}

/// An OVA: order of its members, digests of its manifest, and its disks against their sources as far as given.
pub fn package(path: &Path, sources: &[&Path], context: &Context) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let scratch = context.store.scratch()?;
    let members = crate::export::ova::unpack(path, scratch.path())?;
    let names: Vec<String> = members.iter().map(|member| file_name(member)).collect();
    let listed = Run::new(&context.log, "tar").arg("-tf").arg(path).capture()?;
    if listed.lines().collect::<Vec<_>>() != names {
        wrong.push("GNU tar lists other members than we do".to_owned());
    }
    if !names.first().is_some_and(|name| name.ends_with(".ovf")) {
        wrong.push("its first member is not the descriptor".to_owned());
    }
    let Some(manifest) = members.iter().find(|member| has_extension(member, "mf")) else {
        wrong.push("it has no manifest".to_owned());
        return Ok(wrong);
    };
    wrong.extend(digests(&fs::read_to_string(manifest)?, &file_name(manifest), &members)?);
    let disks: Vec<&PathBuf> = members.iter().filter(|member| has_extension(member, "vmdk")).collect();
    if disks.is_empty() || (!sources.is_empty() && disks.len() != sources.len()) {
        wrong.push(format!("it has {} disks", disks.len()));
    }
    for (disk, source) in disks.iter().zip(sources) {
        compare(disk, "vmdk", source, context, &mut wrong);
    }
    Ok(wrong)
}

/// The manifest names every other member exactly once, with its digest.
fn digests(manifest: &str, own_name: &str, members: &[PathBuf]) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    // A signature is of the manifest, so the manifest cannot speak of it.
    let mut left: Vec<&PathBuf> = members
        .iter()
        .filter(|member| file_name(member) != own_name && !has_extension(member, "cert"))
        .collect();
    for line in manifest.lines() {
        let Some((name, digest)) = line.strip_prefix("SHA256(").and_then(|rest| rest.split_once(")= "))
        else {
            wrong.push(format!("its manifest has the line `{line}`"));
            continue;
        };
        let Some(at) = left.iter().position(|member| file_name(member) == name) else {
            wrong.push(format!("its manifest names `{name}`, which is not in it or was named before"));
            continue;
        };
        if crate::digest::file(left.remove(at))? != digest {
            wrong.push(format!("`{name}` does not have the digest of the manifest"));
        }
    }
    wrong.extend(left.iter().map(|member| format!("its manifest does not name `{}`", file_name(member))));
    Ok(wrong)
}

fn check(path: &Path, context: &Context, wrong: &mut Vec<String>) {
    run(Run::new(&context.log, "qemu-img").args(["check", "-q", "-f", "qcow2"]).arg(path), wrong);
}

fn compare(path: &Path, format: &str, source: &Path, context: &Context, wrong: &mut Vec<String>) {
    run(
        Run::new(&context.log, "qemu-img")
            .args(["compare", "-q", "-f", format, "-F", "raw"])
            .arg(path)
            .arg(source),
        wrong,
    );
}

fn run(command: Run<'_>, wrong: &mut Vec<String>) {
    if let Err(error) = command.run() {
        wrong.push(format!("{error:#}"));
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_must_name_every_member_rightly() {
        let folder = tempfile::tempdir().unwrap();
        let members: Vec<PathBuf> =
            ["a.ovf", "a.mf", "a.vmdk"].iter().map(|name| folder.path().join(name)).collect();
        for member in &members {
            fs::write(member, "x").unwrap();
        }
        let digest = crate::digest::file(&members[0]).unwrap();
        let check = |text: &str| digests(text, "a.mf", &members).unwrap().len();
        assert_eq!(check(&format!("SHA256(a.ovf)= {digest}\nSHA256(a.vmdk)= {digest}\n")), 0);
        assert_eq!(check(""), 2);
        assert_eq!(check(&format!("SHA256(a.ovf)= {digest}\nSHA256(a.vmdk)= 00\n")), 1);
        assert_eq!(check(&format!("SHA2-256(a.ovf)= {digest}\nSHA256(a.vmdk)= {digest}\n")), 2);
    }
}
