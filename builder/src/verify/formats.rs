//! What other programs say of an artifact.

use std::path::Path;

use anyhow::Result;
use fs_err as fs;

use crate::context::Context;
use crate::exec::Run;
use crate::view::{Kind, kind};

/// Reads a file back; with a raw source, compares every byte. Returns what is wrong.
pub fn read_back(path: &Path, source: Option<&Path>, context: &Context) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    match kind_or_data(path)? {
        None | Some(Kind::Raw) => {}
        Some(Kind::Qcow2) => {
            run(
                Run::new(&context.log, "qemu-img").args(["check", "-q", "-f", "qcow2"]).arg(path),
                &mut wrong,
            );
            compare(path, "qcow2", source, context, &mut wrong);
        }
        Some(Kind::Vmdk) => compare(path, "vmdk", source, context, &mut wrong),
        Some(Kind::Ova) => package(path, source, context, &mut wrong)?,
    }
    Ok(wrong)
}

/// A raw data disk is all zero and has no kind.
fn kind_or_data(path: &Path) -> Result<Option<Kind>> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = fs::metadata(path)?;
    if meta.len() > 0 && meta.blocks() == 0 { Ok(None) } else { kind(path).map(Some) }
}

fn run(command: Run<'_>, wrong: &mut Vec<String>) {
    if let Err(error) = command.run() {
        wrong.push(format!("{error:#}"));
    }
}

fn compare(path: &Path, format: &str, source: Option<&Path>, context: &Context, wrong: &mut Vec<String>) {
    if let Some(source) = source {
        run(
            Run::new(&context.log, "qemu-img")
                .args(["compare", "-q", "-f", format, "-F", "raw"])
                .arg(path)
                .arg(source),
            wrong,
        );
    }
}

/// An OVA: order of its members, digests of its manifest, its first disk.
fn package(path: &Path, source: Option<&Path>, context: &Context, wrong: &mut Vec<String>) -> Result<()> {
    let scratch = context.store.scratch()?;
    let members = crate::export::ova::unpack(path, scratch.path())?;
    let names: Vec<String> = members
        .iter()
        .map(|member| member.file_name().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    let listed = Run::new(&context.log, "tar").arg("-tf").arg(path).capture()?;
    if listed.lines().collect::<Vec<_>>() != names {
        wrong.push("GNU tar lists other members than were written".to_owned());
    }
    if !names.first().is_some_and(|name| name.ends_with(".ovf")) {
        wrong.push("its first member is not the descriptor".to_owned());
    }
    let Some(manifest) =
        members.iter().find(|member| member.extension().is_some_and(|extension| extension == "mf"))
    else {
        wrong.push("it has no manifest".to_owned());
        return Ok(());
    };
    for line in fs::read_to_string(manifest)?.lines() {
        let parsed = line.strip_prefix("SHA256(").and_then(|rest| rest.split_once(")= "));
        let Some((name, digest)) = parsed else {
            wrong.push(format!("its manifest has the line `{line}`"));
            continue;
        };
        match members.iter().zip(&names).find(|(_, member)| *member == name) {
            Some((member, _)) if crate::digest::file(member)? == digest => {}
            Some(_) => wrong.push(format!("`{name}` does not have the digest of the manifest")),
            None => wrong.push(format!("its manifest names `{name}`, which is not in it")),
        }
    }
    if let Some(disk) =
        members.iter().find(|member| member.extension().is_some_and(|extension| extension == "vmdk"))
    {
        compare(disk, "vmdk", source, context, wrong);
    }
    Ok(())
}
