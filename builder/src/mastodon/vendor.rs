//! `Source` -> `Vendor`: every file that building a tag takes, brought from the network, checked, kept in the store.
//!
//! The programs that usually download for themselves (Bundler, yarn, ruby-build) find it all on disk and run without network:
//! gems for `vendor/cache`, npm packages as yarn's offline mirror, Git repositories behind `insteadOf`, tars for ruby-build.
//! Every single file is kept as soon as it is there, so that a run that was cut off goes on where it was.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use flate2::{Compression, write::GzEncoder};
use fs_err as fs;

use super::git::{self, History};
use super::origins::Origins;
use super::packages::{self, Registry};
use super::source::Source;
use super::tags::{Tag, Tools};
use super::yarn_lock::{self, Package, Place};
use super::{Base, gemfile_lock, unpack};
use crate::context::Context;
use crate::error::Fault;
use crate::fetch::{Fetcher, Wanted};
use crate::recipe::Recipe;
use crate::store::Key;

/// Raise when equal inputs give another folder.
const VERSION: u32 = 1;
/// Where the folder is in the build root.
pub const PLACE: &str = "/build";
/// Levels of submodules within submodules.
const DEPTH: usize = 3;

/// A folder with all that a build takes:
///
/// | Folder | Content |
/// | --- | --- |
/// | `live/` | files of the source that are replaced: rewritten lock files, edits |
/// | `gems/` | for Bundler's cache |
/// | `npm/` | yarn's offline mirror |
/// | `git/HOST/…` | repositories of gems |
/// | `rbenv/` | rbenv with ruby-build as its plugin |
/// | `ruby/` | ruby-build's cache |
/// | `tools/` | `node.tar.xz`, `yarn.tgz`, `bundler.gem`, `ffmpeg.tgz`, `ffprobe.tgz` |
/// | `home/` | `.gitconfig` and `.yarnrc` of the build |
#[derive(Debug, Clone)]
pub struct Vendor {
    folder: PathBuf,
    key: Key,
}

impl Vendor {
    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What made it.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

/// What the lock files say after rewriting, and the files that this changes.
struct Plan {
    gems: gemfile_lock::GemfileLock,
    packages: Vec<Package>,
    files: Vec<(String, String)>,
}

/// Brings everything, or takes it from the store.
pub fn gather(
    tag: &Tag,
    tools: &Tools,
    base: Base,
    source: &Source,
    context: &Context,
) -> Result<(Vendor, bool)> {
    let parts = [Recipe::canonical(tag)?, Recipe::canonical(tools)?];
    let key = Key::of("vendor", VERSION, &[source.key().as_str(), &parts[0], &parts[1], base.name()]);
    let (folder, cached) = context.store.get_or_make("vendor-v1", &key, |folder| {
        let origins = Origins::new(context);
        let plan = plan(tag, tools, source, context)?;
        for (name, text) in &plan.files {
            write(&folder.join("live").join(name), text)?;
        }
        archives(tag, tools, base, &plan, &origins, folder, context)?;
        context.reporter.doing("bringing gems");
        let needed = plan.gems.production(&source.text("Gemfile")?);
        let found = packages::gems(&plan.gems, &needed, &tag.tag, &origins, context)?;
        link_all(&found, &folder.join("gems"))?;
        context.reporter.doing("bringing npm packages");
        let registry = Registry::of(&plan.packages, &origins);
        let found = packages::npm(&plan.packages, &registry, context)?;
        link_all(&found, &folder.join("npm"))?;
        repositories(tools, &plan, &origins, folder, context)
    })?;
    Ok((Vendor { folder, key }, cached))
}

fn plan(tag: &Tag, tools: &Tools, source: &Source, context: &Context) -> Result<Plan> {
    let wrong = |file: &str, message: String| Fault::user(format!("`{file}` of {}: {message}", tag.tag));
    let mut files = Vec::new();
    let overrides: Vec<_> = tag.gem.iter().chain(&tools.gem).collect();
    let before = source.text("Gemfile.lock")?;
    let (lock, notes) =
        gemfile_lock::rewrite(&before, &overrides).map_err(|error| wrong("Gemfile.lock", error))?;
    let gems = gemfile_lock::parse(&lock).map_err(|error| wrong("Gemfile.lock", error))?;
    let yarn_before = source.text("yarn.lock")?;
    let (yarn, more) =
        yarn_lock::rewrite(&yarn_before, &tag.replace).map_err(|error| wrong("yarn.lock", error))?;
    let packages = yarn_lock::parse(&yarn).map_err(|error| wrong("yarn.lock", error))?;
    for note in notes.iter().chain(&more) {
        context.reporter.note(note);
    }
    if lock != before {
        files.push(("Gemfile.lock".to_owned(), lock));
    }
    if yarn != yarn_before {
        files.push(("yarn.lock".to_owned(), yarn));
    }
    for edit in &tag.edit {
        let known = files.iter().position(|(name, _)| *name == edit.file);
        let text = known.map_or_else(|| source.text(&edit.file), |at| Ok(files[at].1.clone()))?;
        if !text.contains(&edit.from) {
            return Err(wrong(
                &edit.file,
                format!("it does not have the text `{}` that `[[edit]]` replaces", edit.from),
            )
            .into());
        }
        let text = text.replace(&edit.from, &edit.to);
        match known {
            Some(at) => files[at].1 = text,
            None => files.push((edit.file.clone(), text)),
        }
    }
    Ok(Plan { gems, packages, files })
}

/// Ruby, Node, yarn, Bundler and the static programs: files that the tables pin.
fn archives(
    tag: &Tag,
    tools: &Tools,
    base: Base,
    plan: &Plan,
    origins: &Origins,
    folder: &Path,
    context: &Context,
) -> Result<()> {
    let registry = Registry::of(&plan.packages, origins);
    let mut all: Vec<(String, Wanted)> = Vec::new();
    let mut add = |place: String, urls: Vec<String>, sha256: &str| {
        let name = urls.first().and_then(|url| url.rsplit('/').next()).unwrap_or_default().to_owned();
        let wanted = Wanted {
            name,
            origin: format!("the table of {}", tag.tag),
            urls,
            size: None,
            sha256: sha256.to_owned(),
        };
        all.push((place, wanted));
    };
    let file = |url: &str| url.rsplit('/').next().unwrap_or_default().to_owned();
    add(format!("ruby/{}", file(&tag.ruby.url)), origins.file(&tag.ruby.url), &tag.ruby.sha256);
    if let Some(openssl) = tag.openssl.as_ref().filter(|_| base.lacks_old_openssl()) {
        add(format!("ruby/{}", file(&openssl.url)), origins.file(&openssl.url), &openssl.sha256);
    }
    let node =
        tools.node(&tag.node).ok_or_else(|| Fault::user(format!("`tools.toml` has no Node {}", tag.node)))?;
    add("tools/node.tar.xz".to_owned(), origins.file(&node.url), &node.sha256);
    add("tools/yarn.tgz".to_owned(), vec![registry.url(&tools.yarn.path)], &tools.yarn.sha256);
    if let Some(bundler) = tag.bundler.as_ref().and_then(|version| tools.bundler(version)) {
        let index = plan.gems.gems.first().map_or("", |gem| gem.remote.as_str());
        let url = format!("{}/gems/bundler-{}.gem", origins.gems(index), bundler.version);
        add("tools/bundler.gem".to_owned(), vec![url], &bundler.sha256);
    }
    if base.lacks_ffmpeg() {
        add("tools/ffmpeg.tgz".to_owned(), vec![registry.url(&tools.ffmpeg.path)], &tools.ffmpeg.sha256);
        if tag.ffprobe {
            add(
                "tools/ffprobe.tgz".to_owned(),
                vec![registry.url(&tools.ffprobe.path)],
                &tools.ffprobe.sha256,
            );
        }
    }
    let (places, wanted): (Vec<String>, Vec<Wanted>) = all.into_iter().unzip();
    let found = Fetcher::new(context).files(&wanted)?;
    for (place, path) in places.iter().zip(found) {
        link(&path, &folder.join(place))?;
    }
    Ok(())
}

/// rbenv, ruby-build, gems and npm packages that are commits of repositories, and the configuration by which they are found.
fn repositories(
    tools: &Tools,
    plan: &Plan,
    origins: &Origins,
    folder: &Path,
    context: &Context,
) -> Result<()> {
    let scratch = context.store.scratch()?;
    let tar = scratch.path().join("export.tar");
    for (pin, place) in [(&tools.rbenv, "rbenv"), (&tools.ruby_build, "rbenv/plugins/ruby-build")] {
        context.reporter.doing(&format!("bringing {}", pin.url));
        let bare = git::commit(&origins.git(&pin.url), &pin.commit, History::None, context)?;
        git::archive(&bare, &pin.commit, "export/", &tar, context)?;
        let target = folder.join(place);
        fs::create_dir_all(&target)?;
        let input = std::io::BufReader::new(fs::File::open(&tar)?);
        unpack::stripped(input, &target)
            .map_err(|message| Fault::environment(format!("`{}`: {message}", pin.url)))?;
    }
    for package in &plan.packages {
        let Place::Git { repository, commit } = &package.place else { continue };
        context.reporter.doing(&format!("bringing {repository}"));
        let url = origins.git(&format!("https://github.com/{repository}"));
        let bare = git::commit(&url, commit, History::None, context)?;
        git::archive(&bare, commit, "package/", &tar, context)?;
        fs::create_dir_all(folder.join("npm"))?;
        let output = fs::File::create(folder.join("npm").join(package.file()))?;
        let mut gzip = GzEncoder::new(output, Compression::default());
        std::io::copy(&mut fs::File::open(&tar)?, &mut gzip)?;
        gzip.finish()?;
    }
    let mut left: Vec<(String, String, bool, usize)> = plan
        .gems
        .git
        .iter()
        .map(|source| (source.remote.clone(), source.revision.clone(), source.submodules, 0))
        .collect();
    let mut hosts = BTreeSet::new();
    while let Some((url, commit, submodules, depth)) = left.pop() {
        context.reporter.doing(&format!("bringing {url}"));
        let place = place_of(&url)
            .ok_or_else(|| Fault::user(format!("`{url}` of Gemfile.lock is not a repository's URL")))?;
        let bare = git::commit(&origins.git(&url), &commit, History::Full, context)?;
        link_tree(&bare, &folder.join("git").join(&place))?;
        hosts.insert(place.split('/').next().unwrap_or_default().to_owned());
        if submodules {
            if depth == DEPTH {
                return Err(Fault::user(format!("`{url}` has more than {DEPTH} levels of submodules")).into());
            }
            let found = git::submodules(&bare, &commit, context)?;
            left.extend(found.into_iter().map(|module| (module.url, module.commit, true, depth + 1)));
        }
    }
    write(&folder.join("home/.gitconfig"), &gitconfig(&hosts))?;
    write(
        &folder.join("home/.yarnrc"),
        &format!("yarn-offline-mirror \"{PLACE}/npm\"\nyarn-offline-mirror-pruning false\n"),
    )
}

/// Every URL of these hosts is read from the build root's own folder. Later versions of git let submodules use `file` only when told.
fn gitconfig(hosts: &BTreeSet<String>) -> String {
    let mut text = "[protocol \"file\"]\n\tallow = always\n".to_owned();
    for host in hosts {
        text.push_str(&format!("[url \"file://{PLACE}/git/{host}/\"]\n"));
        for scheme in ["https", "http", "git"] {
            text.push_str(&format!("\tinsteadOf = {scheme}://{host}/\n"));
        }
    }
    text
}

/// `github.com/tmm1/http_parser.rb` of a URL, only of plain parts.
fn place_of(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let rest = rest.trim_end_matches('/');
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    (rest.contains('/') && rest.split('/').all(plain)).then(|| rest.to_owned())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    Ok(fs::write(path, text)?)
}

fn link(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(Path::new("/")))?;
    // Both lie in the store, on one file system, and neither is ever changed.
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        result => Ok(result?),
    }
}

fn link_all(files: &[PathBuf], folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    files.iter().try_for_each(|file| link(file, &folder.join(file.file_name().unwrap_or_default())))
}

fn link_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            link_tree(&entry.path(), &place)?;
        } else {
            link(&entry.path(), &place)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_get_plain_places() {
        assert_eq!(
            place_of("https://github.com/tmm1/http_parser.rb").unwrap(),
            "github.com/tmm1/http_parser.rb"
        );
        assert_eq!(
            place_of("git://github.com/ruby-rdf/json-ld.git").unwrap(),
            "github.com/ruby-rdf/json-ld.git"
        );
        for url in [
            "https://github.com/../x",
            "git@github.com:x/y",
            "https://host",
            "https://h//x",
            "https://u:p@h/x",
        ] {
            assert!(place_of(url).is_none(), "{url}");
        }
    }

    #[test]
    fn git_reads_the_build_roots_own_folder() {
        let text = gitconfig(&BTreeSet::from(["github.com".to_owned()]));
        assert!(
            text.contains("[url \"file:///build/git/github.com/\"]")
                && text.contains("insteadOf = git://github.com/"),
            "{text}"
        );
    }
}
