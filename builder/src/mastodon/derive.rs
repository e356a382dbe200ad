//! The entry of a tag that the table does not have, from the tag's own files.
//!
//! What is derived is where and which, never a digest: Ruby's comes from the definition in the pinned ruby-build, Node's from
//! `tools.toml`. A tag that needs something of which no digest is known is refused.

use anyhow::Result;

use super::git::{self, History};
use super::origins::Origins;
use super::source::Source;
use super::tags::{Archive, Range, Ruby, Tag, Tools, is_hexadecimal, is_release};
use crate::context::Context;
use crate::error::Fault;

/// Derives and checks an entry.
pub fn tag(name: &str, source: &Source, tools: &Tools, origins: &Origins, context: &Context) -> Result<Tag> {
    let wrong = |message: String| {
        Fault::user(format!("tag {name}: {message}"))
            .hint(format!("write `images/mastodon/tags/{name}.toml` for it"))
    };
    let version = source.text(".ruby-version")?.trim().to_owned();
    if !is_release(&version) {
        return Err(wrong(format!("`.ruby-version` says `{version}`, not a release of Ruby")).into());
    }
    let pin = &tools.ruby_build;
    let repository = git::commit(&origins.git(&pin.url), &pin.commit, History::None, context)?;
    let definition = git::file(&repository, &pin.commit, &format!("share/ruby-build/{version}"), context);
    let definition =
        definition.ok_or_else(|| wrong(format!("ruby-build {} has no Ruby {version}", pin.commit)))?;
    let packages = packages(&definition);
    let package = |start: &str| {
        let found = packages.iter().find(|(name, _)| name.starts_with(start));
        found.map(|(_, archive)| archive.clone())
    };
    let ruby =
        package("ruby-").ok_or_else(|| wrong(format!("ruby-build gives no digest for Ruby {version}")))?;
    let lock = source.text("Gemfile.lock")?;
    let schema = source.text("db/schema.rb")?;
    let sample = source.optional(".env.production.sample")?.unwrap_or_default();
    let names = |key: &str| sample.lines().any(|line| line.starts_with(&format!("{key}=")));
    let needs = |gem: &str, major: u32| gem_major(&lock, gem).is_some_and(|found| found >= major);
    let tag = Tag {
        schema: 1,
        tag: name.to_owned(),
        image: super::tags::DEFAULT_IMAGE.to_owned(),
        commit: None,
        schema_version: schema_version(&schema).map_err(wrong)?,
        local_https: names("LOCAL_HTTPS"),
        paperclip_secret: names("PAPERCLIP_SECRET"),
        ffprobe: true,
        python2: source.text("yarn.lock")?.contains("\nnode-sass@"),
        bundler: bundler(&lock, tools).map_err(wrong)?,
        node: node(source, tools).map_err(wrong)?,
        ruby: Ruby { version, url: ruby.url, sha256: ruby.sha256 },
        openssl: package("openssl-"),
        postgresql: Range {
            // `jsonb` came with v2.4, `ON CONFLICT` with v2.5; what is older lives on CentOS 7's own 9.2.
            minimum: if schema.contains("jsonb") { "9.5" } else { "9.2" }.to_owned(),
            below: (!needs("rails", 6) && lock.contains("\n    rails (5.1.")).then(|| "12".to_owned()),
        },
        redis: Range { minimum: if needs("sidekiq", 6) { "4.0" } else { "2.8" }.to_owned(), below: None },
        gem: Vec::new(),
        replace: Vec::new(),
        edit: Vec::new(),
    };
    tag.check(tools).map_err(wrong)?;
    Ok(tag)
}

/// Name, URL and SHA-256 of every `install_package` of a definition of ruby-build.
fn packages(definition: &str) -> Vec<(String, Archive)> {
    let line = |line: &str| {
        let mut words = line
            .trim()
            .strip_prefix("install_package ")?
            .split_whitespace()
            .map(|word| word.trim_matches('"'));
        let (name, place) = (words.next()?, words.next()?);
        let (url, sha256) = place.split_once('#').filter(|(_, digest)| is_hexadecimal(digest, 64))?;
        Some((name.to_owned(), Archive { url: url.to_owned(), sha256: sha256.to_owned() }))
    };
    definition.lines().filter_map(line).collect()
}

/// Digits of `ActiveRecord::Schema.define(version: 2018_07_07_154237) do`.
fn schema_version(schema: &str) -> Result<String, String> {
    let line = schema.lines().find(|line| line.contains("Schema") && line.contains("version:"));
    let number = line.and_then(|line| line.split_once("version:")).map(|(_, rest)| rest.trim_start());
    let digits: String = number
        .unwrap_or_default()
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '_')
        .filter(char::is_ascii_digit)
        .collect();
    if digits.len() == 14 { Ok(digits) } else { Err("`db/schema.rb` states no version".to_owned()) }
}

/// The major release of a gem in a lock.
fn gem_major(lock: &str, gem: &str) -> Option<u32> {
    let (_, rest) = lock.split_once(&format!("\n    {gem} ("))?;
    rest.split('.').next()?.parse().ok()
}

/// The Bundler that a lock wants: a pinned one of the first major release; Ruby's own for later locks.
fn bundler(lock: &str, tools: &Tools) -> Result<Option<String>, String> {
    let wanted = lock.split_once("BUNDLED WITH\n").map(|(_, rest)| rest.trim().to_owned());
    let Some(wanted) = wanted.filter(|wanted| wanted.starts_with("1.")) else { return Ok(None) };
    let pinned = tools.bundler.iter().find(|bundler| bundler.version.starts_with("1."));
    pinned
        .map(|bundler| Some(bundler.version.clone()))
        .ok_or_else(|| format!("no Bundler like {wanted} is pinned"))
}

/// The pinned Node with the major release that the tag names, or the next later one.
fn node(source: &Source, tools: &Tools) -> Result<String, String> {
    let text = |name: &str| source.optional(name).ok().flatten().unwrap_or_default();
    let number = |text: &str| {
        let digits: String =
            text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    };
    let engines = || {
        let package: serde_json::Value = serde_json::from_str(&text("package.json")).unwrap_or_default();
        number(package["engines"]["node"].as_str().unwrap_or_default())
    };
    let wanted =
        number(&text(".nvmrc")).or_else(engines).ok_or("neither `.nvmrc` nor `package.json` names a Node")?;
    let major =
        |version: &str| version.split('.').next().and_then(|part| part.parse::<u32>().ok()).unwrap_or(0);
    let later = tools.node.iter().filter(|node| major(&node.version) >= wanted);
    let found = later.min_by_key(|node| major(&node.version));
    found
        .map(|node| node.version.clone())
        .ok_or_else(|| format!("it wants Node {wanted}, and `tools.toml` has none so late"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_come_from_the_definition() {
        let digest = "ccfb2d0a61e2a9c374d51e099b0d833b09241ee78fc17e1fe38e3b282160237c";
        let text = format!(
            "install_package \"openssl-1.1.1w\" \"https://o/o.tar.gz#short\" openssl --if needs\ninstall_package \"ruby-2.4.1\" \"https://r/r.tar.bz2#{digest}\" warn_eol enable_shared standard\n"
        );
        let found = packages(&text);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0],
            (
                "ruby-2.4.1".to_owned(),
                Archive { url: "https://r/r.tar.bz2".to_owned(), sha256: digest.to_owned() }
            )
        );
    }

    #[test]
    fn facts_of_the_files() {
        assert_eq!(
            schema_version("ActiveRecord::Schema.define(version: 2018_07_07_154237) do").unwrap(),
            "20180707154237"
        );
        assert_eq!(
            schema_version("ActiveRecord::Schema.define(version: 20170913000752) do").unwrap(),
            "20170913000752"
        );
        assert!(schema_version("create_table").is_err());
        assert_eq!(gem_major("\n    sidekiq (6.2.1)\n", "sidekiq"), Some(6));
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/mastodon");
        let tools = super::super::tags::Table::load(&folder).unwrap().tools;
        assert_eq!(bundler("BUNDLED WITH\n   1.16.2\n", &tools).unwrap().as_deref(), Some("1.17.3"));
        assert_eq!(bundler("BUNDLED WITH\n   2.2.3\n", &tools).unwrap(), None);
    }
}
