//! Mastodon's own files: from a Git URL, a local repository, or a tar; kept in the store as a plain folder.
//!
//! A tag of the table must be the table's commit, wherever it comes from. Whatever the source, its files go through `unpack`,
//! which lets nothing out of the folder.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::git::{self, History};
use super::origins::Origins;
use super::tags::{Table, Tag};
use super::{derive, unpack};
use crate::context::Context;
use crate::error::Fault;
use crate::store::Key;

/// Where a source is when the recipe and the command line do not say.
pub const DEFAULT: &str = "https://github.com/tootsuite/mastodon";

/// Raise when equal sources give another folder.
const VERSION: u32 = 1;
/// Most that a file which is read as a whole may have, in bytes.
const TEXT_LIMIT: u64 = 8 << 20;

/// The files of one tag.
#[derive(Debug, Clone)]
pub struct Source {
    folder: PathBuf,
    key: Key,
    commit: Option<String>,
}

impl Source {
    /// The folder; nothing in it is to be changed.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What made it.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The commit, where it came from Git.
    pub fn commit(&self) -> Option<&str> {
        self.commit.as_deref()
    }

    /// A text file of the source.
    pub fn text(&self, name: &str) -> Result<String> {
        let missing = || Fault::user(format!("the source has no `{name}`: is it Mastodon?"));
        self.optional(name)?.ok_or_else(|| missing().into())
    }

    /// A text file that the source may have.
    pub fn optional(&self, name: &str) -> Result<Option<String>> {
        let path = self.folder.join(name);
        // A link could lead anywhere by now: only plain files are read.
        if !fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file()) {
            return Ok(None);
        }
        let mut text = String::new();
        let read = fs::File::open(&path)?.take(TEXT_LIMIT + 1).read_to_string(&mut text);
        match read {
            Ok(count) if count as u64 <= TEXT_LIMIT => Ok(Some(text)),
            Ok(_) => {
                Err(Fault::user(format!("`{name}` of the source is larger than {TEXT_LIMIT} bytes")).into())
            }
            Err(error) => Err(Fault::user(format!("`{name}` of the source: {error}")).into()),
        }
    }
}

/// Brings the source of a tag, and finds the tag's entry in the table or derives one.
pub fn obtain(tag: &str, from: &str, table: &Table, context: &Context) -> Result<(Source, Tag)> {
    let origins = Origins::new(context);
    let known = table.tag(tag);
    let path = Path::new(from);
    let source = if !from.contains("://") && path.is_file() {
        tarball(path, context)?
    } else if from.contains("://") || path.is_dir() {
        // A relative path would be looked for below the store.
        let url = if from.contains("://") {
            origins.git(from)
        } else {
            fs::canonicalize(path)?.display().to_string()
        };
        repository(tag, &url, known, context)?
    } else {
        let message = format!("--source `{from}`: there is no such file or folder, and it is no URL");
        return Err(Fault::user(message)
            .hint("give a Git URL, a clone of Mastodon, or a tar of its files")
            .into());
    };
    let version = source.text(".ruby-version")?;
    if let Some(known) = known {
        let version = version.trim();
        if version != known.ruby.version {
            let message = format!(
                "the source wants Ruby {version}, but {tag} has {}: it is another tag",
                known.ruby.version
            );
            return Err(Fault::user(message).hint("say with --tag what it is").into());
        }
        return Ok((source, known.clone()));
    }
    let derived = derive::tag(tag, &source, &table.tools, &origins, context)?;
    let names = table.names().join(", ");
    context.reporter.note(&format!(
        "{tag} is not in the table ({names}): what it needs is derived from its files, nobody has tried it"
    ));
    Ok((source, derived))
}

fn repository(tag: &str, url: &str, known: Option<&Tag>, context: &Context) -> Result<Source> {
    let pinned = known.and_then(|known| known.commit.clone());
    // The commit tells the content: with it in the store nobody needs to be asked.
    if let Some(commit) = &pinned {
        let key = key_of(commit);
        let folder = context.store.path("source-v1", &key).join("live");
        let local = Path::new(url).is_absolute();
        if folder.is_dir() && !local {
            return Ok(Source { folder, key, commit: pinned });
        }
    }
    let remembered = context
        .store
        .root()
        .join("locks")
        .join(format!("source-{}.txt", Key::of("tag", VERSION, &[url, tag]).as_str()));
    let commit = if context.offline && url.contains("://") {
        pinned.clone().or_else(|| fs::read_to_string(&remembered).ok()).ok_or_else(|| {
            Fault::environment(format!("--offline, and the store does not know tag {tag} of `{url}`"))
                .hint("build it once with a network, or give a clone with --source FOLDER")
        })?
    } else {
        context.reporter.doing(&format!("asking {url} for {tag}"));
        git::remote_tag(url, tag, context)?.ok_or_else(|| {
            Fault::user(format!("`{url}` has no tag {tag}")).hint("in a clone: git fetch --tags")
        })?
    };
    if let Some(pinned) = pinned.filter(|pinned| *pinned != commit) {
        let message = format!("tag {tag} of `{url}` is commit {commit}, but Mastodon's own is {pinned}");
        return Err(Fault::user(message)
            .hint("a fork needs a tag name of its own; another source: --source")
            .into());
    }
    if !context.offline {
        fs::create_dir_all(remembered.parent().unwrap_or(context.store.root()))?;
        crate::atomic::write(&remembered, commit.as_bytes())?;
    }
    context.reporter.doing(&format!("bringing {tag} from {url}"));
    let bare = git::commit(url, &commit, History::None, context)?;
    let key = key_of(&commit);
    let (folder, _) = context.store.get_or_make("source-v1", &key, |folder| {
        let tar = folder.join("source.tar");
        git::archive(&bare, &commit, "live/", &tar, context)?;
        let live = folder.join("live");
        fs::create_dir(&live)?;
        let message = |message| Fault::user(format!("commit {commit} of `{url}`: {message}"));
        unpack::stripped(std::io::BufReader::new(fs::File::open(&tar)?), &live).map_err(message)?;
        Ok(fs::remove_file(tar)?)
    })?;
    Ok(Source { folder: folder.join("live"), key, commit: Some(commit) })
}

fn key_of(commit: &str) -> Key {
    Key::of("source", VERSION, &["commit", commit])
}

fn tarball(path: &Path, context: &Context) -> Result<Source> {
    let wrong = |message: String| Fault::user(format!("`{}`: {message}", path.display()));
    let key = Key::of("source", VERSION, &["tar", &crate::digest::file(path)?]);
    let (folder, _) = context.store.get_or_make("source-v1", &key, |folder| {
        let mut magic = [0; 4];
        let count = fs::File::open(path)?.read(&mut magic)?;
        let file = std::io::BufReader::new(fs::File::open(path)?);
        let input: Box<dyn Read> = match &magic[..count] {
            [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
            [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(file)?),
            [0xfd, b'7', b'z', b'X'] | [b'B', b'Z', b'h', _] => {
                return Err(wrong("tars packed by xz or bzip2 are not read".to_owned())
                    .hint("unpack it and pack it with gzip or zstd, or leave it a plain tar")
                    .into());
            }
            _ => Box::new(file),
        };
        let live = folder.join("live");
        fs::create_dir(&live)?;
        Ok(unpack::stripped(input, &live).map_err(wrong)?)
    })?;
    Ok(Source { folder: folder.join("live"), key, commit: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Run;

    struct Ground {
        temp: tempfile::TempDir,
        context: Context,
    }

    impl Ground {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let context = Context::for_tests(&temp.path().join("store"));
            Ground { temp, context }
        }

        /// A repository with a commit and a tag, as a stand-in for Mastodon's.
        fn repository(&self, tag: &str) -> PathBuf {
            let folder = self.temp.path().join("clone");
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join(".ruby-version"), "2.4.1\n").unwrap();
            let git = |arguments: &[&str]| {
                let run = Run::new(&self.context.log, "git").arg("-C").arg(&folder);
                run.args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(arguments).run().unwrap();
            };
            git(&["init", "-q"]);
            git(&["add", "."]);
            git(&["commit", "-qm", "one"]);
            git(&["tag", "-am", "release", tag]);
            folder
        }

        fn obtain(&self, tag: &str, from: &Path) -> Result<(Source, Tag)> {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/mastodon");
            obtain(tag, from.to_str().unwrap(), &Table::load(&folder).unwrap(), &self.context)
        }
    }

    #[test]
    fn a_tag_of_the_table_must_be_its_commit() {
        let ground = Ground::new();
        let folder = ground.repository("v1.6.1");
        let error = ground.obtain("v1.6.1", &folder).unwrap_err();
        assert!(error.to_string().contains("Mastodon's own is 4c14ff659b8a"), "{error}");
        assert_eq!(crate::error::exit_code(&error), 1);
        let error = ground.obtain("v9.9.9", &folder).unwrap_err();
        assert!(error.to_string().contains("has no tag v9.9.9"), "{error}");
    }

    #[test]
    fn a_commit_becomes_a_folder_without_git() {
        let ground = Ground::new();
        let folder = ground.repository("v0");
        let url = fs::canonicalize(folder).unwrap();
        let source = repository("v0", url.to_str().unwrap(), None, &ground.context).unwrap();
        assert_eq!(source.text(".ruby-version").unwrap(), "2.4.1\n");
        assert!(!source.folder().join(".git").exists() && source.commit().unwrap().len() == 40);
        assert!(source.text("Gemfile.lock").unwrap_err().to_string().contains("is it Mastodon?"));
    }

    #[test]
    fn a_tar_is_taken_when_it_is_the_tag() {
        let ground = Ground::new();
        let write = |name: &str, version: &str| {
            let path = ground.temp.path().join(name);
            let gzip =
                flate2::write::GzEncoder::new(fs::File::create(&path).unwrap(), flate2::Compression::fast());
            let mut builder = tar::Builder::new(gzip);
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_size(version.len() as u64);
            builder.append_data(&mut header, "mastodon-1.6.1/.ruby-version", version.as_bytes()).unwrap();
            builder.into_inner().unwrap().finish().unwrap();
            path
        };
        let (source, tag) = ground.obtain("v1.6.1", &write("a.tar.gz", "2.4.1\n")).unwrap();
        assert!(source.commit().is_none() && tag.tag == "v1.6.1");
        let error = ground.obtain("v1.6.1", &write("b.tar.gz", "2.7.2\n")).unwrap_err();
        assert!(error.to_string().contains("wants Ruby 2.7.2"), "{error}");
        let broken = ground.temp.path().join("c.tar.gz");
        fs::write(&broken, [0x1f, 0x8b, 0, 0]).unwrap();
        let error = ground.obtain("v1.6.1", &broken).unwrap_err();
        assert!(error.to_string().contains("c.tar.gz`: it is not a whole tar"), "{error}");
        let error = ground.obtain("v1.6.1", Path::new("nosuch")).unwrap_err();
        assert!(error.to_string().contains("no such file or folder"), "{error}");
    }

    #[test]
    fn a_host_that_does_not_answer_comes_with_the_ways_on() {
        let ground = Ground::new();
        // Port 9 (discard) of the loopback: nobody listens there.
        let error = ground.obtain("v1.6.1", Path::new("http://127.0.0.1:9/mastodon")).unwrap_err();
        let text = crate::error::render(&error);
        assert!(
            text.contains("`127.0.0.1:9` cannot be reached") && text.contains("--source FOLDER"),
            "{text}"
        );
        assert_eq!(crate::error::exit_code(&error), 2);
    }
}
