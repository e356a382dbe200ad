//! `images/mastodon/tools.toml` and `images/mastodon/tags/*.toml`: what each Mastodon tag needs, with digests.
//!
//! A tag outside the table gets an entry derived from its own files (`Table::derive`), with a warning: nobody has tried it.
//! Its Ruby comes from the pinned ruby-build's definitions and its Node from `tools.toml`, so no digest is ever trusted at
//! first sight.

use std::path::Path;

use anyhow::Result;
use firstboot::facts::ApplicationFacts;
use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::rpm::evr;

/// The image for tags that the table does not have: they are newer ones.
pub(super) const DEFAULT_IMAGE: &str = "debian12";

/// The only version of both formats so far.
const SCHEMA: u32 = 1;

/// Everything that is known.
#[derive(Debug, Clone)]
pub struct Table {
    /// What all tags share.
    pub tools: Tools,
    tags: Vec<Tag>,
}

/// `tools.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tools {
    /// Version of the format; 1.
    pub schema: u32,
    /// rbenv, by commit.
    pub rbenv: GitPin,
    /// ruby-build, by commit.
    pub ruby_build: GitPin,
    /// yarn, from the npm registry.
    pub yarn: Yarn,
    /// Releases of Bundler.
    #[serde(default)]
    pub bundler: Vec<Bundler>,
    /// Releases of Node, one a line of releases.
    #[serde(default)]
    pub node: Vec<Node>,
    /// A static ffmpeg, from the npm registry.
    pub ffmpeg: Program,
    /// A static ffprobe, from the npm registry.
    pub ffprobe: Program,
    /// Gems that left the index.
    #[serde(default)]
    pub gem: Vec<GemOverride>,
}

/// A repository at a commit.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GitPin {
    /// Where it is cloned from.
    pub url: String,
    /// 40 hexadecimal digits.
    pub commit: String,
}

/// yarn.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Yarn {
    /// Release.
    pub version: String,
    /// Path below the npm registry.
    pub path: String,
    /// Digest of the file.
    pub sha256: String,
}

/// A release of Bundler.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Bundler {
    /// Release.
    pub version: String,
    /// Digest of the gem.
    pub sha256: String,
}

/// A release of Node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Node {
    /// Release.
    pub version: String,
    /// Where its tar is.
    pub url: String,
    /// Digest of the tar.
    pub sha256: String,
}

/// One program out of an npm package.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Program {
    /// Path below the npm registry.
    pub path: String,
    /// Digest of the file.
    pub sha256: String,
    /// The program in it.
    pub member: String,
}

/// A release that replaces every older one in a Gemfile.lock.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GemOverride {
    /// The gem.
    pub name: String,
    /// Locks with this release or a later one stay as they are; without it every lock is rewritten.
    pub before: Option<String>,
    /// The release to take.
    pub version: String,
    /// Its dependencies, as a Gemfile.lock writes them: `nokogiri (~> 1)`.
    #[serde(default)]
    pub dependencies: Vec<String>,
}

/// One tag's file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[expect(clippy::struct_excessive_bools, reason = "four independent facts of a tag, keys of a file")]
pub struct Tag {
    /// Version of the format; 1.
    pub schema: u32,
    /// Name, such as `v1.6.1`.
    pub tag: String,
    /// The image that it is built on unless the user says.
    pub image: String,
    /// The commit that the tag must be; none for a derived entry.
    pub commit: Option<String>,
    /// `version:` of `db/schema.rb`, digits only.
    pub schema_version: String,
    /// The environment has LOCAL_HTTPS.
    pub local_https: bool,
    /// The environment has PAPERCLIP_SECRET.
    pub paperclip_secret: bool,
    /// It starts `ffprobe`.
    pub ffprobe: bool,
    /// Compiling its npm packages takes Python 2.
    #[serde(default)]
    pub python2: bool,
    /// Release of Bundler; Ruby's own when absent.
    pub bundler: Option<String>,
    /// Release of Node.
    pub node: String,
    /// Ruby.
    pub ruby: Ruby,
    /// OpenSSL for a Ruby that cannot use the distribution's.
    pub openssl: Option<Archive>,
    /// Which PostgreSQL it works with.
    pub postgresql: Range,
    /// Which Redis it works with.
    pub redis: Range,
    /// Gems that this tag alone needs in another release.
    #[serde(default)]
    pub gem: Vec<GemOverride>,
    /// Entries of `yarn.lock` that are taken from elsewhere.
    #[serde(default)]
    pub replace: Vec<Replacement>,
    /// Lines of the source that go with that.
    #[serde(default)]
    pub edit: Vec<Edit>,
}

/// A release of Ruby.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Ruby {
    /// Release.
    pub version: String,
    /// Where its tar is.
    pub url: String,
    /// Digest of the tar.
    pub sha256: String,
}

/// A file of a project's own site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Archive {
    /// Where it is.
    pub url: String,
    /// Its digest.
    pub sha256: String,
}

/// Releases of a service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Range {
    /// The earliest that works.
    pub minimum: String,
    /// The first later one that does not.
    pub below: Option<String>,
}

/// An entry of `yarn.lock` whose package comes from the npm registry instead of a Git host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Replacement {
    /// The entry's `resolved`, without a fragment.
    pub resolved: String,
    /// Release that stands in.
    pub version: String,
    /// Path below the npm registry.
    pub path: String,
    /// SHA-1, the digest that such a lock has.
    pub sha1: String,
}

/// A text in a file of the source that is replaced, everywhere in that file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Edit {
    /// File below the source's root.
    pub file: String,
    /// Text that must be there.
    pub from: String,
    /// What it becomes.
    pub to: String,
}

impl Table {
    /// Reads `tools.toml` and `tags/*.toml` in a folder (`images/mastodon`) and checks them.
    pub fn load(folder: &Path) -> Result<Self> {
        let tools: Tools = read(&folder.join("tools.toml"))?;
        tools.check().map_err(|message| wrong(&folder.join("tools.toml"), &message))?;
        let mut tags: Vec<Tag> = Vec::new();
        let mut files = fs::read_dir(folder.join("tags"))?.collect::<Result<Vec<_>, _>>()?;
        files.sort_by_key(fs::DirEntry::file_name);
        for file in files.iter().map(fs::DirEntry::path) {
            if file.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let tag: Tag = read(&file)?;
            tag.check(&tools).map_err(|message| wrong(&file, &message))?;
            if file.file_stem().is_none_or(|stem| stem != tag.tag.as_str()) {
                return Err(wrong(&file, &format!("key `tag`: `{}` is not the file's name", tag.tag)).into());
            }
            tags.push(tag);
        }
        Ok(Table { tools, tags })
    }

    /// The entry of a tag.
    pub fn tag(&self, name: &str) -> Option<&Tag> {
        self.tags.iter().find(|tag| tag.tag == name)
    }

    /// The image that a tag is built on unless the user says; without a tag, the one of the oldest tag in the table.
    pub fn image(&self, tag: Option<&str>) -> &str {
        let known = match tag {
            Some(tag) => self.tag(tag),
            None => self.tags.first(),
        };
        known.map_or(DEFAULT_IMAGE, |tag| tag.image.as_str())
    }

    /// The names in the table, sorted.
    pub fn names(&self) -> Vec<&str> {
        self.tags.iter().map(|tag| tag.tag.as_str()).collect()
    }
}

impl Tools {
    /// The file of a release of Node.
    pub fn node(&self, version: &str) -> Option<&Node> {
        self.node.iter().find(|node| node.version == version)
    }

    /// The file of a release of Bundler.
    pub fn bundler(&self, version: &str) -> Option<&Bundler> {
        self.bundler.iter().find(|bundler| bundler.version == version)
    }

    fn check(&self) -> Result<(), String> {
        schema(self.schema)?;
        for (key, pin) in [("rbenv", &self.rbenv), ("ruby-build", &self.ruby_build)] {
            hexadecimal(&format!("{key}.commit"), &pin.commit, 40)?;
            url(&format!("{key}.url"), &pin.url)?;
        }
        let files = [("yarn", &self.yarn.path, &self.yarn.sha256)].into_iter().chain([
            ("ffmpeg", &self.ffmpeg.path, &self.ffmpeg.sha256),
            ("ffprobe", &self.ffprobe.path, &self.ffprobe.sha256),
        ]);
        for (key, path, digest) in files {
            relative(&format!("{key}.path"), path)?;
            hexadecimal(&format!("{key}.sha256"), digest, 64)?;
        }
        for bundler in &self.bundler {
            release("bundler.version", &bundler.version)?;
            hexadecimal("bundler.sha256", &bundler.sha256, 64)?;
        }
        for node in &self.node {
            release("node.version", &node.version)?;
            url("node.url", &node.url)?;
            hexadecimal("node.sha256", &node.sha256, 64)?;
        }
        self.gem.iter().try_for_each(GemOverride::check)
    }
}

impl GemOverride {
    fn check(&self) -> Result<(), String> {
        word("gem.name", &self.name)?;
        word("gem.version", &self.version)?;
        self.before.as_ref().map_or(Ok(()), |before| word("gem.before", before))
    }

    /// Whether a lock with this release is to be rewritten.
    pub fn concerns(&self, version: &str) -> bool {
        let older = |before: &String| evr::compare_versions(version, before).is_lt();
        self.before.as_ref().map_or(version != self.version, older)
    }
}

impl Tag {
    /// The part of the image's facts that the tag decides.
    pub fn facts(&self) -> ApplicationFacts {
        ApplicationFacts {
            root: format!("{}/live", super::HOME),
            user: "mastodon".to_owned(),
            bundle: format!("{}/.rbenv/shims/bundle", super::HOME),
            node: "/usr/bin/node".to_owned(),
            schema_version: self.schema_version.clone(),
            local_https: self.local_https,
            paperclip_secret: self.paperclip_secret,
        }
    }

    pub(super) fn check(&self, tools: &Tools) -> Result<(), String> {
        schema(self.schema)?;
        word("tag", &self.tag)?;
        if let Some(commit) = &self.commit {
            hexadecimal("commit", commit, 40)?;
        }
        if self.schema_version.is_empty() || !self.schema_version.chars().all(|c| c.is_ascii_digit()) {
            return Err(format!("key `schema-version`: `{}` has more than digits", self.schema_version));
        }
        release("ruby.version", &self.ruby.version)?;
        url("ruby.url", &self.ruby.url)?;
        hexadecimal("ruby.sha256", &self.ruby.sha256, 64)?;
        if let Some(openssl) = &self.openssl {
            url("openssl.url", &openssl.url)?;
            hexadecimal("openssl.sha256", &openssl.sha256, 64)?;
        }
        if tools.node(&self.node).is_none() {
            return Err(format!("key `node`: `tools.toml` has no Node {}", self.node));
        }
        if let Some(bundler) = self.bundler.as_ref().filter(|version| tools.bundler(version).is_none()) {
            return Err(format!("key `bundler`: `tools.toml` has no Bundler {bundler}"));
        }
        for (key, range) in [("postgresql", &self.postgresql), ("redis", &self.redis)] {
            word(&format!("{key}.minimum"), &range.minimum)?;
        }
        for replacement in &self.replace {
            hexadecimal("replace.sha1", &replacement.sha1, 40)?;
            relative("replace.path", &replacement.path)?;
            word("replace.version", &replacement.version)?;
        }
        for edit in &self.edit {
            relative("edit.file", &edit.file)?;
            if edit.from.is_empty() {
                return Err("key `edit.from`: it is empty".to_owned());
            }
        }
        self.gem.iter().try_for_each(GemOverride::check)
    }

    /// Refuses a PostgreSQL or Redis that the tag does not work with; `None` where the release is not known.
    pub fn require_services(&self, postgresql: Option<&str>, redis: Option<&str>) -> Result<(), Fault> {
        for (name, range, version) in
            [("PostgreSQL", &self.postgresql, postgresql), ("Redis", &self.redis, redis)]
        {
            let Some(version) = version else { continue };
            let early = evr::compare_versions(version, &range.minimum).is_lt();
            let late =
                range.below.as_ref().is_some_and(|below| evr::compare_versions(version, below).is_ge());
            if early || late {
                let below =
                    range.below.as_ref().map_or_else(String::new, |below| format!(" and below {below}"));
                let message = format!(
                    "Mastodon {} does not work with {name} {version}: it needs {} or later{below}",
                    self.tag, range.minimum
                );
                return Err(Fault::user(message).hint("choose another base or another tag"));
            }
        }
        Ok(())
    }
}

fn read<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T> {
    let text = fs::read_to_string(file)?;
    Ok(toml::from_str(&text).map_err(|error| wrong(file, error.to_string().trim_end()))?)
}

fn wrong(file: &Path, message: &str) -> Fault {
    Fault::user(format!("`{}`: {message}", file.display()))
}

fn schema(found: u32) -> Result<(), String> {
    if found == SCHEMA {
        return Ok(());
    }
    Err(format!("key `schema`: got {found}, this imgbuild reads {SCHEMA}"))
}

pub(super) fn is_hexadecimal(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn hexadecimal(key: &str, text: &str, digits: usize) -> Result<(), String> {
    if is_hexadecimal(text, digits) {
        return Ok(());
    }
    Err(format!("key `{key}`: `{text}` is not {digits} lower-case hexadecimal digits"))
}

fn url(key: &str, text: &str) -> Result<(), String> {
    if text.starts_with("https://") && !text.contains(char::is_whitespace) {
        return Ok(());
    }
    Err(format!("key `{key}`: `{text}` is not an https URL"))
}

/// Names and releases get into file names and commands.
fn word(key: &str, text: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(plain) {
        return Ok(());
    }
    Err(format!("key `{key}`: `{text}` may have only letters, digits, `.`, `_` and `-`"))
}

pub(super) fn is_release(text: &str) -> bool {
    let numbers: Vec<&str> = text.split('.').collect();
    let number = |part: &&str| !part.is_empty() && part.len() < 6 && part.bytes().all(|b| b.is_ascii_digit());
    numbers.len() == 3 && numbers.iter().all(number)
}

fn release(key: &str, text: &str) -> Result<(), String> {
    if is_release(text) {
        return Ok(());
    }
    Err(format!("key `{key}`: `{text}` is not three numbers, such as 2.4.1"))
}

fn relative(key: &str, text: &str) -> Result<(), String> {
    if crate::tree::path::of_member(text).is_ok() && !text.is_empty() {
        return Ok(());
    }
    Err(format!("key `{key}`: `{text}` is not a plain relative path"))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn folder() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/mastodon")
    }

    #[test]
    fn the_table_holds() {
        let table = Table::load(&folder()).unwrap();
        assert_eq!(table.names(), ["v1.6.1", "v2.0.0", "v2.4.3", "v2.9.4", "v3.0.0", "v3.4.1"]);
        let first = table.tag("v1.6.1").unwrap();
        assert_eq!(first.facts().schema_version, "20170913000752");
        assert!(first.facts().local_https && !table.tag("v3.4.1").unwrap().facts().paperclip_secret);
    }

    #[test]
    fn services_outside_the_range_are_refused() {
        let table = Table::load(&folder()).unwrap();
        let tag = table.tag("v1.6.1").unwrap();
        assert!(tag.require_services(Some("9.2.24"), Some("3.2.12")).is_ok());
        let text = tag.require_services(Some("15"), None).unwrap_err().to_string();
        assert!(text.contains("PostgreSQL 15") && text.contains("below 12"), "{text}");
        let last = table.tag("v3.4.1").unwrap();
        assert!(
            last.require_services(None, Some("3.2.12")).is_err()
                && last.require_services(Some("15"), Some("7.0")).is_ok()
        );
    }

    #[test]
    fn mistakes_name_the_file_and_the_key() {
        let check = |from: &str, to: &str, expected: &str| {
            let temp = tempfile::tempdir().unwrap();
            fs::create_dir(temp.path().join("tags")).unwrap();
            fs::copy(folder().join("tools.toml"), temp.path().join("tools.toml")).unwrap();
            let text = fs::read_to_string(folder().join("tags/v1.6.1.toml")).unwrap();
            assert!(text.contains(from), "{from}");
            fs::write(temp.path().join("tags/v1.6.1.toml"), text.replacen(from, to, 1)).unwrap();
            let text = Table::load(temp.path()).unwrap_err().to_string();
            assert!(text.contains("v1.6.1.toml") && text.contains(expected), "{text}");
        };
        check("commit = \"4c", "commit = \"zc", "key `commit`");
        check("node = \"8.17.0\"", "node = \"7.0.0\"", "no Node 7.0.0");
        check("file = \"app/", "file = \"../app/", "key `edit.file`");
        check("ffprobe", "ffprobes", "unknown field `ffprobes`");
        check("tag = \"v1.6.1\"", "tag = \"v1.6.2\"", "not the file's name");
    }
}
