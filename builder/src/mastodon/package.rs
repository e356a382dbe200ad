//! A built layer as one file, `FILE.tar.zst`: built once on a machine with a network and time, used on others.
//!
//! Members in this order: `layer.toml` (what it is, and the digest of the rest), `app.tar`. A file is used only if it is for the tag
//! and the base of the image, if its glibc is not later than the image's, and if nothing in it lies outside `/home/mastodon`, belongs
//! to anybody but root and `mastodon`, or has rights of its own.

use std::io::{BufReader, Read, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::{Base, HOME};
use crate::app::MASTODON_UID;
use crate::context::Context;
use crate::error::Fault;
use crate::rpm::evr;
use crate::store::{Key, hex};
use crate::tree::path::of_member;

/// Raise when equal files give another entry.
const VERSION: u32 = 1;
/// Most that `layer.toml` may have, in bytes.
const RECORD_LIMIT: u64 = 16 << 10;
/// Most that `app.tar` may have, in bytes.
const TAR_LIMIT: u64 = 16 << 30;
/// Compression: level 9 of zstd packs a layer in a minute.
const LEVEL: i32 = 9;

/// `/home/mastodon/.layer.toml`, and in a file `layer.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Record {
    /// Version of the format; 1.
    pub schema: u32,
    /// The Mastodon tag.
    pub tag: String,
    /// Its commit; empty when the source was a tar.
    pub commit: String,
    /// `debian` or `el7`.
    pub base: String,
    /// glibc of the root that it was compiled in.
    pub glibc: String,
    /// Release of Ruby.
    pub ruby: String,
    /// Release of Node.
    pub node: String,
    /// SHA-256 of `app.tar`; only in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Bytes of `app.tar`; only in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// What an image asks of a layer.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Its tag.
    pub tag: &'a str,
    /// The commit of the tag, when the table knows it.
    pub commit: Option<&'a str>,
    /// Its base.
    pub base: Base,
    /// Its glibc, when known.
    pub glibc: Option<&'a str>,
}

/// The record in a layer's tar.
pub fn record(tar: &Path) -> Result<Record> {
    let mut archive = tar::Archive::new(BufReader::new(fs::File::open(tar)?));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path_bytes().as_ref() == format!(".{HOME}/.layer.toml").as_bytes() {
            let mut text = String::new();
            entry.by_ref().take(RECORD_LIMIT).read_to_string(&mut text)?;
            return toml::from_str(&text)
                .with_context(|| format!("reading the record of `{}`", tar.display()));
        }
    }
    Err(Fault::user("this layer is not genuine Mastodon: it has no record of what it is")
        .hint("only layers that were built from a tag's source can be exported")
        .into())
}

/// Writes a layer's file.
pub fn export(tar: &Path, target: &Path) -> Result<Record> {
    let mut record = record(tar)?;
    let bytes = fs::metadata(tar)?.len();
    record.sha256 = Some(crate::digest::file(tar)?);
    record.bytes = Some(bytes);
    let text = toml::to_string(&record)?;
    let mut temp = crate::atomic::temp_beside(target)?;
    let mut encoder = zstd::Encoder::new(temp.as_file_mut(), LEVEL)?;
    {
        let mut builder = tar::Builder::new(&mut encoder);
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        builder.append_data(&mut header, "layer.toml", text.as_bytes())?;
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes);
        builder.append_data(&mut header, "app.tar", fs::File::open(tar)?)?;
        builder.finish()?;
    }
    encoder.finish()?.flush()?;
    crate::atomic::publish(temp, target)?;
    Ok(record)
}

/// What a layer's file says of itself; refuses a file that is none.
pub fn head(file: &Path) -> Result<Record> {
    let opened = open(file)?;
    let mut archive = tar::Archive::new(opened);
    let mut entries = archive.entries().map_err(|error| broken(file, &error))?;
    read_record(file, &mut entries)
}

fn wrong(file: &Path, message: &str) -> Fault {
    Fault::user(format!("`{}`: {message}", file.display()))
}

fn broken(file: &Path, error: &std::io::Error) -> Fault {
    wrong(file, &format!("it is not a whole layer: {error}")).hint("make it again with `imgbuild app export`")
}

fn open(file: &Path) -> Result<zstd::Decoder<'static, BufReader<fs::File>>> {
    let opened = fs::File::open(file).map_err(|error| Fault::user(error.to_string()))?;
    Ok(zstd::Decoder::new(opened).map_err(|error| broken(file, &error))?)
}

fn read_record<R: Read>(file: &Path, entries: &mut tar::Entries<'_, R>) -> Result<Record> {
    let mut first = next(entries, "layer.toml")
        .map_err(|error| wrong(file, &error).hint("`imgbuild app export` makes such files"))?;
    let mut text = String::new();
    first.by_ref().take(RECORD_LIMIT).read_to_string(&mut text).map_err(|error| broken(file, &error))?;
    let record = toml::from_str(&text);
    Ok(record.map_err(|error| wrong(file, &format!("layer.toml: {}", error.to_string().trim_end())))?)
}

/// Takes a layer's file into the store and returns the tar with its key; refuses one that does not fit.
pub fn import(file: &Path, expected: &Expected<'_>, context: &Context) -> Result<(PathBuf, Key)> {
    let wrong = |message: String| wrong(file, &message);
    let broken = |error: std::io::Error| broken(file, &error);
    let mut archive = tar::Archive::new(open(file)?);
    let mut entries = archive.entries().map_err(broken)?;
    let record = read_record(file, &mut entries)?;
    fits(&record, expected).map_err(wrong)?;
    let (Some(sha256), Some(bytes)) = (&record.sha256, record.bytes) else {
        return Err(wrong("layer.toml: no `sha256` and `bytes`".to_owned()).into());
    };
    let key = Key::of("app-import", VERSION, &[sha256]);
    let path = context.store.path("app-v1", &key).join("app.tar");
    if path.is_file() {
        return Ok((path, key));
    }
    let mut second = next(&mut entries, "app.tar").map_err(wrong)?;
    if second.size() != bytes || bytes > TAR_LIMIT {
        return Err(wrong(format!("app.tar has {} bytes, layer.toml says {bytes}", second.size())).into());
    }
    context.store.get_or_make("app-v1", &key, |folder| {
        let target = folder.join("app.tar");
        let mut output = fs::File::create(&target)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = second.read(&mut buffer).map_err(broken)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            output.write_all(&buffer[..count])?;
        }
        output.sync_all()?;
        if hex(&hash.finalize()) != *sha256 {
            return Err(wrong("app.tar does not have the digest that layer.toml states".to_owned())
                .hint("copy it again, or make it again with `imgbuild app export`")
                .into());
        }
        Ok(contained(BufReader::new(fs::File::open(&target)?)).map_err(wrong)?)
    })?;
    Ok((path, key))
}

fn next<'a, R: Read>(entries: &mut tar::Entries<'a, R>, name: &str) -> Result<tar::Entry<'a, R>, String> {
    let entry = entries.next().and_then(Result::ok);
    entry
        .filter(|entry| {
            entry.path_bytes().as_ref() == name.as_bytes()
                && entry.header().entry_type() == EntryType::Regular
        })
        .ok_or_else(|| format!("it is no layer: `{name}` is not where it must be"))
}

fn fits(record: &Record, expected: &Expected<'_>) -> Result<(), String> {
    if record.schema != 1 {
        return Err(format!("layer.toml: key `schema`: got {}, this imgbuild reads 1", record.schema));
    }
    if record.tag != expected.tag {
        return Err(format!("it is Mastodon {}, the image has {}", record.tag, expected.tag));
    }
    if let Some(commit) =
        expected.commit.filter(|commit| !record.commit.is_empty() && *commit != record.commit)
    {
        return Err(format!("it is commit {}, the tag is {commit}", record.commit));
    }
    if record.base != expected.base.name() {
        return Err(format!("it was built for {}, the image is {}", record.base, expected.base.name()));
    }
    match expected.glibc {
        Some(glibc) if evr::compare_versions(&record.glibc, glibc).is_gt() => {
            Err(format!("it needs glibc {}, the image has {glibc}", record.glibc))
        }
        _ => Ok(()),
    }
}

/// Refuses anything that could reach beyond the application's own files.
fn contained(input: impl Read) -> Result<(), String> {
    let mut archive = tar::Archive::new(input);
    let broken = |error: std::io::Error| format!("app.tar is broken: {error}");
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = of_member(&name)?;
        let inside = |path: &crate::tree::path::TreePath| path.is_within(HOME);
        let refuse = |why: &str| Err(format!("app.tar: `{path}` {why}"));
        if !inside(&path) {
            return refuse(&format!("lies outside {HOME}"));
        }
        let header = entry.header();
        match header.entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::Directory | EntryType::Symlink => {}
            EntryType::Link => {
                let target =
                    String::from_utf8_lossy(&entry.link_name_bytes().unwrap_or_default()).into_owned();
                if !of_member(&target).is_ok_and(|target| inside(&target)) {
                    return refuse("is a link to a file outside");
                }
            }
            _ => return refuse("is neither file, folder nor link"),
        }
        if header.mode().map_err(broken)? & 0o6000 != 0 {
            return refuse("is set-user-id or set-group-id");
        }
        let owners = [header.uid().map_err(broken)?, header.gid().map_err(broken)?];
        if owners.iter().any(|owner| ![0, u64::from(MASTODON_UID)].contains(owner)) {
            return refuse(&format!("belongs to {}:{}", owners[0], owners[1]));
        }
        if let Some(extensions) = entry.pax_extensions().map_err(broken)? {
            for extension in extensions {
                let extension = extension.map_err(broken)?;
                if extension.key().is_ok_and(|key| key.contains("xattr")) {
                    return refuse("has extended attributes");
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = "schema = 1\ntag = \"v1.6.1\"\ncommit = \"4c\"\nbase = \"el7\"\nglibc = \"2.17\"\nruby = \"2.4.1\"\nnode = \"8.17.0\"\n";

    fn expected() -> Expected<'static> {
        Expected { tag: "v1.6.1", commit: Some("4c"), base: Base::El7, glibc: Some("2.17") }
    }

    /// A layer's tar with one more member.
    fn layer(folder: &Path, name: &str, change: impl Fn(&mut tar::Header)) -> PathBuf {
        let path = folder.join("app.tar");
        let mut builder = tar::Builder::new(fs::File::create(&path).unwrap());
        for (name, content) in [("./home/mastodon/.layer.toml", RECORD), (name, "x")] {
            let mut header = tar::Header::new_ustar();
            header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_mode(0o644);
            header.set_uid(991);
            header.set_gid(991);
            header.set_size(content.len() as u64);
            if content == "x" {
                change(&mut header);
            }
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap();
        path
    }

    #[test]
    fn a_layer_comes_back_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let context = Context::for_tests(&temp.path().join("store"));
        let tar = layer(temp.path(), "./home/mastodon/live/x", |_| {});
        let file = temp.path().join("layer.tar.zst");
        export(&tar, &file).unwrap();
        let (path, _) = import(&file, &expected(), &context).unwrap();
        assert_eq!(fs::read(path).unwrap(), fs::read(&tar).unwrap());
    }

    #[test]
    fn a_layer_that_does_not_fit_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let context = Context::for_tests(&temp.path().join("store"));
        let file = temp.path().join("layer.tar.zst");
        export(&layer(temp.path(), "./home/mastodon/live/x", |_| {}), &file).unwrap();
        for (expected, message) in [
            (Expected { tag: "v2.0.0", ..expected() }, "it is Mastodon v1.6.1, the image has v2.0.0"),
            (Expected { base: Base::Debian, ..expected() }, "built for el7"),
            (Expected { commit: Some("4d"), ..expected() }, "the tag is 4d"),
            (Expected { glibc: Some("2.5"), ..expected() }, "needs glibc 2.17"),
        ] {
            let error = import(&file, &expected, &context).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
            assert_eq!(crate::error::exit_code(&error), 1);
        }
        fs::write(&file, "nonsense").unwrap();
        assert!(import(&file, &expected(), &context).unwrap_err().to_string().contains("layer.tar.zst`"));
    }

    #[test]
    fn nothing_reaches_beyond_the_application() {
        type Change = fn(&mut tar::Header);
        let cases: [(&str, Change, &str); 5] = [
            ("./etc/x", |_| {}, "lies outside"),
            ("./home/mastodon/../../etc/x", |_| {}, "component"),
            ("./home/mastodon/x", |header| header.set_mode(0o4755), "set-user-id"),
            ("./home/mastodon/x", |header| header.set_uid(5), "belongs to 5:991"),
            ("./home/mastodon/x", |header| header.set_entry_type(EntryType::Block), "neither file"),
        ];
        for (name, change, message) in cases {
            let temp = tempfile::tempdir().unwrap();
            let context = Context::for_tests(&temp.path().join("store"));
            let file = temp.path().join("layer.tar.zst");
            export(&layer(temp.path(), name, change), &file).unwrap();
            let error = import(&file, &expected(), &context).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
