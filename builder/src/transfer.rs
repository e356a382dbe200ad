//! The inputs of a build as a folder that a person can carry: for a builder without network.
//!
//! `inputs.json` names every file with its size and SHA-256; nothing enters the store before that has been checked. RPM packages keep
//! their signatures, which the build verifies again.

use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::Fault;
use crate::fetch;
use crate::recipe::Recipe;
use crate::resolve::{self, Lock};
use crate::store::Key;

/// The only version of the format so far.
const SCHEMA: u32 = 1;
/// Results that travel whole, because a package manager of the host or cargo made them.
const ENTRIES: &[&str] = &["rootfs-v1", "appliance-v1", "source-v1", "vendor-v1"];

/// What a build takes.
#[derive(Debug, Default)]
pub struct Inputs {
    /// SHA-256 of files in the store, and what messages call them.
    pub files: Vec<(String, String)>,
    /// Entries of the store: kind and key.
    pub entries: Vec<(&'static str, Key)>,
}

/// `inputs.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Manifest {
    schema: u32,
    image: String,
    lock: Lock,
    files: Vec<File>,
    entries: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    name: String,
    size: u64,
    sha256: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    kind: String,
    key: String,
    tar: File,
}

/// Writes the inputs into a folder; returns how many files there are and their bytes.
pub fn export(
    recipe: &Recipe,
    lock: &Lock,
    inputs: &Inputs,
    folder: &Path,
    context: &Context,
) -> Result<(usize, u64)> {
    let mut manifest = Manifest {
        schema: SCHEMA,
        image: recipe.image.name.clone(),
        lock: lock.clone(),
        files: Vec::new(),
        entries: Vec::new(),
    };
    let store = context.store.root();
    for (sha256, name) in &inputs.files {
        let file = copy(&store.join(fetch::KIND).join(sha256), &folder.join("files").join(sha256))?;
        manifest.files.push(File { name: name.clone(), ..file });
    }
    for (kind, key) in &inputs.entries {
        let name = format!("{kind}-{}.tar", key.as_str());
        context.reporter.doing(&name);
        let target = folder.join("entries").join(&name);
        pack(&context.store.path(kind, key), &target)?;
        let tar = File { size: fs::metadata(&target)?.len(), sha256: crate::digest::file(&target)?, name };
        manifest.entries.push(Entry { kind: (*kind).to_owned(), key: key.as_str().to_owned(), tar });
    }
    // Last: a folder without it is no export.
    crate::atomic::write(&folder.join("inputs.json"), serde_json::to_string_pretty(&manifest)?.as_bytes())?;
    let all = || manifest.files.iter().chain(manifest.entries.iter().map(|entry| &entry.tar));
    Ok((all().count(), all().map(|file| file.size).sum()))
}

/// Takes a folder's inputs into the store, each checked.
pub fn import(recipe: &Recipe, folder: &Path, context: &Context) -> Result<usize> {
    let path = folder.join("inputs.json");
    let text = fs::read_to_string(&path).map_err(|error| {
        Fault::user(format!(
            "`{}` is no folder that `imgbuild fetch --export` wrote: {error}",
            folder.display()
        ))
    })?;
    let manifest: Manifest = serde_json::from_str(&text).map_err(|error| wrong(&path, &error))?;
    if manifest.schema != SCHEMA || manifest.image != recipe.image.name {
        let message = format!(
            "`{}` has the inputs of image `{}` in format {}; wanted: `{}` in format {SCHEMA}",
            path.display(),
            manifest.image,
            manifest.schema,
            recipe.image.name
        );
        return Err(Fault::user(message)
            .hint("export that image's inputs with this version of imgbuild")
            .into());
    }
    manifest.lock.check().map_err(|error| wrong(&path, &format!("{error:#}")))?;
    let mut count = 0;
    for file in &manifest.files {
        context.reporter.doing(&file.name);
        let source = folder.join("files").join(plain(&path, &file.sha256)?);
        check(&source, file)?;
        fetch::adopt(context, &source)?;
        count += 1;
    }
    for entry in &manifest.entries {
        let kind = ENTRIES.iter().find(|kind| **kind == entry.kind).ok_or_else(|| {
            wrong(&path, &format!("`{}` is nothing that can be imported", entry.kind.escape_debug()))
        })?;
        let key = Key::parse(&entry.key)
            .ok_or_else(|| wrong(&path, &format!("`{}` is no key", entry.key.escape_debug())))?;
        context.reporter.doing(&entry.tar.name);
        let tar = folder.join("entries").join(plain(&path, &entry.tar.name)?);
        check(&tar, &entry.tar)?;
        context.store.get_or_make(kind, &key, |target| {
            let mut archive = tar::Archive::new(BufReader::new(fs::File::open(&tar)?));
            archive.set_preserve_permissions(false);
            // It unpacks nothing outside its folder, through no link either.
            archive.unpack(target).map_err(|error| Fault::user(format!("`{}`: {error}", tar.display())))?;
            Ok(())
        })?;
        count += 1;
    }
    let lock = serde_json::to_string_pretty(&manifest.lock)?;
    crate::atomic::write(&resolve::kept_path(context, recipe), lock.as_bytes())?;
    Ok(count)
}

/// Packs an entry of the store, under a temporary name first.
fn pack(entry: &Path, target: &Path) -> Result<()> {
    let folder = target.parent().context("the target has a folder")?;
    fs::create_dir_all(folder)?;
    let mut temp = crate::atomic::temp_beside(target)?;
    {
        let mut builder = tar::Builder::new(BufWriter::new(temp.as_file_mut()));
        builder.follow_symlinks(false);
        builder.mode(tar::HeaderMode::Deterministic);
        builder.append_dir_all("", entry)?;
        builder.into_inner()?.flush()?;
    }
    crate::atomic::publish(temp, target)
}

fn wrong(manifest: &Path, what: &dyn std::fmt::Display) -> Fault {
    Fault::user(format!("`{}`: {what}", manifest.display()))
        .hint("make the folder again with `imgbuild fetch --export`")
}

/// A name that is one part of a path.
fn plain<'a>(manifest: &Path, name: &'a str) -> Result<&'a str> {
    if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
        return Err(wrong(manifest, &format!("`{}` is no plain file name", name.escape_debug())).into());
    }
    Ok(name)
}

fn check(path: &Path, expected: &File) -> Result<()> {
    let size = fs::metadata(path)
        .map_err(|error| {
            Fault::user(format!("the import lacks {}: {error}", expected.name))
                .hint("copy it again, or export it again")
        })?
        .len();
    if size != expected.size || crate::digest::file(path)? != expected.sha256 {
        let message = format!(
            "`{}` ({}) is not what `inputs.json` says: damaged on its way",
            path.display(),
            expected.name
        );
        return Err(Fault::user(message).hint("copy it again, or export it again").into());
    }
    Ok(())
}

/// Copies a file under a temporary name first; an equal one that is there stays.
fn copy(source: &Path, target: &PathBuf) -> Result<File> {
    let size = fs::metadata(source)?.len();
    let sha256 = crate::digest::file(source)?;
    let same =
        target.is_file() && fs::metadata(target)?.len() == size && crate::digest::file(target)? == sha256;
    if !same {
        let folder = target.parent().context("the target has a folder")?;
        fs::create_dir_all(folder)?;
        let mut temp = crate::atomic::temp_beside(target)?;
        std::io::copy(&mut fs::File::open(source)?, temp.as_file_mut())?;
        crate::atomic::publish(temp, target)?;
    }
    Ok(File { name: String::new(), size, sha256 })
}
