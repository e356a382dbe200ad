//! `Gemfile.lock`: which gems a tag is made of, and rewriting it where one of them left the index. Pure text, no network.
//!
//! Format: sections in capitals (`GIT`, `GEM`, `PATH`, `DEPENDENCIES`, `CHECKSUMS`, …); specs at indent 4, their dependencies
//! at indent 6. Every name and release is checked here, since both become file names and parts of URLs.

use std::collections::{BTreeMap, BTreeSet};

use super::tags::GemOverride;

/// What is read of a lock.
#[derive(Debug, Clone, Default)]
pub struct GemfileLock {
    /// Gems of an index.
    pub gems: Vec<Gem>,
    /// Gems of Git repositories.
    pub git: Vec<GitSource>,
    /// Names that the Gemfile asks for itself.
    pub roots: Vec<String>,
    /// SHA-256 by gem and release, where the lock has them (Bundler 2.5 and later).
    pub checksums: BTreeMap<(String, String), String>,
    /// Dependencies by name, of all sections.
    needs: BTreeMap<String, Vec<String>>,
}

/// A gem of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gem {
    /// Name.
    pub name: String,
    /// Release, with its platform where it has one: `1.11.7-x86_64-linux`.
    pub version: String,
    /// The index, without a slash at its end.
    pub remote: String,
}

impl Gem {
    /// `rails-5.1.4.gem`.
    pub fn file(&self) -> String {
        format!("{}-{}.gem", self.name, self.version)
    }
}

/// A `GIT` section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitSource {
    /// Repository.
    pub remote: String,
    /// Commit.
    pub revision: String,
    /// Its submodules belong to it.
    pub submodules: bool,
}

/// Reads a lock.
pub fn parse(text: &str) -> Result<GemfileLock, String> {
    let mut lock = GemfileLock::default();
    let mut section = "";
    let mut remote = String::new();
    let mut spec = String::new();
    for (number, line) in text.lines().enumerate() {
        let at = |message: String| format!("line {}: {message}", number + 1);
        let content = line.trim();
        if content.is_empty() {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        if indent == 0 {
            section = line;
            match section {
                "GIT" => lock.git.push(GitSource::default()),
                "PLUGIN SOURCE" => return Err(at("plugins of Bundler are not supported".to_owned())),
                _ => {}
            }
            continue;
        }
        match (section, indent) {
            ("GEM", 2) => {
                if let Some(url) = content.strip_prefix("remote: ") {
                    url.trim_end_matches('/').clone_into(&mut remote);
                }
            }
            ("GIT", 2) => {
                if let Some(source) = lock.git.last_mut() {
                    git_key(source, content).map_err(at)?;
                }
            }
            ("GEM" | "GIT" | "PATH", 4) => {
                let (name, version) = named(content).map_err(at)?;
                spec.clone_from(&name);
                lock.needs.entry(name.clone()).or_default();
                if section == "GEM" {
                    let version = version.ok_or_else(|| at(format!("`{content}` names no release")))?;
                    lock.gems.push(Gem { name, version, remote: remote.clone() });
                }
            }
            ("GEM" | "GIT" | "PATH", 6) => {
                let name = content.split(" (").next().unwrap_or_default().trim_end_matches('!');
                lock.needs.entry(spec.clone()).or_default().push(name.to_owned());
            }
            ("DEPENDENCIES", 2) => {
                let name = content.split(" (").next().unwrap_or_default().trim_end_matches('!');
                lock.roots.push(name.to_owned());
            }
            ("CHECKSUMS", 2) => {
                if let Some((gem, digest)) = content.split_once(" sha256=")
                    && let (name, Some(version)) = named(gem).map_err(at)?
                {
                    lock.checksums.insert((name, version), digest.to_owned());
                }
            }
            _ => {}
        }
    }
    if lock.gems.is_empty() {
        return Err("it names no gem".to_owned());
    }
    if let Some(source) = lock.git.iter().find(|source| source.revision.is_empty()) {
        return Err(format!("Git source `{}` has no revision", source.remote));
    }
    Ok(lock)
}

fn git_key(source: &mut GitSource, content: &str) -> Result<(), String> {
    match content.split_once(": ") {
        Some(("remote", url)) => url.clone_into(&mut source.remote),
        Some(("revision", commit)) => {
            if !super::tags::is_hexadecimal(commit, 40) {
                return Err(format!("`{commit}` is not a commit"));
            }
            commit.clone_into(&mut source.revision);
        }
        Some(("submodules", value)) => source.submodules = value == "true",
        _ => {}
    }
    Ok(())
}

/// `name (release)`, or a name alone.
fn named(text: &str) -> Result<(String, Option<String>), String> {
    let plain = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    let version = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    if !plain(name) || version.is_some_and(|version| !plain(version)) {
        return Err(format!("`{text}` is not a gem and its release"));
    }
    Ok((name.to_owned(), version.map(str::to_owned)))
}

impl GemfileLock {
    /// The gems that production needs: what follows from the Gemfile's gems outside its `development` and `test` groups.
    ///
    /// The Gemfile is Ruby; only plain `group … do` blocks and `group:` options are understood. What is not understood counts as
    /// needed, so the answer is too large rather than too small.
    pub fn production(&self, gemfile: &str) -> BTreeSet<String> {
        let apart = only_development(gemfile);
        let mut found = BTreeSet::new();
        let mut left: Vec<String> =
            self.roots.iter().filter(|root| !apart.contains(*root)).cloned().collect();
        while let Some(name) = left.pop() {
            if found.insert(name.clone()) {
                left.extend(self.needs.get(&name).into_iter().flatten().cloned());
            }
        }
        found
    }
}

/// Gems of a Gemfile that are in the groups `development` and `test` alone.
fn only_development(gemfile: &str) -> BTreeSet<String> {
    let symbols = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
        words.filter_map(|word| word.strip_prefix(':')).map(str::to_owned).collect()
    };
    let apart = |groups: &[String]| {
        !groups.is_empty() && groups.iter().all(|group| ["development", "test"].contains(&group.as_str()))
    };
    let mut names = BTreeSet::new();
    let mut others = BTreeSet::new();
    // One entry a block: whether what is in it belongs to development alone.
    let mut blocks: Vec<bool> = Vec::new();
    for line in gemfile.lines().map(str::trim) {
        if line.starts_with('#') {
            continue;
        }
        if let Some(rest) = line.strip_prefix("gem ") {
            let Some(name) = rest.split(['\'', '"']).nth(1) else { continue };
            let option = rest.split_once("group:").or_else(|| rest.split_once(":group =>"));
            let option = option.or_else(|| rest.split_once("groups:")).map(|(_, groups)| {
                let end = groups.find(if groups.trim_start().starts_with('[') { ']' } else { ',' });
                symbols(&groups[..end.unwrap_or(groups.len())])
            });
            let inside = blocks.last().copied().unwrap_or(false);
            let set = if option.map_or(inside, |groups| apart(&groups)) { &mut names } else { &mut others };
            set.insert(name.to_owned());
        } else if line.starts_with("group ") && line.ends_with(" do") {
            blocks.push(apart(&symbols(line)));
        } else if line.ends_with(" do") || line.starts_with("if ") || line.starts_with("unless ") {
            blocks.push(blocks.last().copied().unwrap_or(false));
        } else if line == "end" {
            blocks.pop();
        }
    }
    names.retain(|name| !others.contains(name));
    names
}

/// Rewrites gems that left the index; also says what was rewritten.
pub fn rewrite(text: &str, overrides: &[&GemOverride]) -> Result<(String, Vec<String>), String> {
    let known: BTreeSet<String> = parse(text)?.needs.into_keys().collect();
    let mut output = String::with_capacity(text.len());
    let mut notes = Vec::new();
    let mut section = "";
    let mut dropping = false;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if indent == 0 && !line.is_empty() {
            section = line;
        }
        dropping &= indent == 6;
        if dropping {
            continue;
        }
        let changed = (section == "GEM" && indent == 4 || section == "CHECKSUMS" && indent == 2)
            .then(|| named(line.trim().split(" sha256=").next().unwrap_or_default()).ok())
            .flatten()
            .and_then(|(name, version)| {
                let version = version?;
                let found = overrides.iter().find(|one| one.name == name && one.concerns(&version))?;
                Some((found, version))
            });
        let Some((gem, version)) = changed else {
            output.push_str(line);
            output.push('\n');
            continue;
        };
        if section == "CHECKSUMS" {
            output.push_str(&format!("  {} ({})\n", gem.name, gem.version));
            continue;
        }
        output.push_str(&format!("    {} ({})\n", gem.name, gem.version));
        for dependency in &gem.dependencies {
            let name = dependency.split(' ').next().unwrap_or_default();
            if !known.contains(name) {
                return Err(format!(
                    "gem {} {} would need `{name}`, which the lock does not have",
                    gem.name, gem.version
                ));
            }
            output.push_str(&format!("      {dependency}\n"));
        }
        notes.push(format!("Gemfile.lock: {} {version} is taken as {}", gem.name, gem.version));
        dropping = true;
    }
    Ok((output, notes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "\
GIT
  remote: https://git.example/tmm1/http_parser.rb
  revision: 54b17ba8c7d8d20a16dfc65d1775241833219cf2
  ref: 54b17ba8c7d8d20a16dfc65d1775241833219cf2
  submodules: true
  specs:
    http_parser.rb (0.6.1)

GEM
  remote: https://gems.example/
  specs:
    bullet (5.5.1)
      uniform_notifier (~> 1.10.0)
    mimemagic (0.3.2)
    nokogiri (1.8.0)
      mini_portile2 (~> 2.2.0)
    mini_portile2 (2.2.0)
    paperclip (5.1.0)
      mimemagic (~> 0.3.0)
    rake (12.0.0)
    uniform_notifier (1.10.0)

PLATFORMS
  ruby

DEPENDENCIES
  bullet (~> 5.5)
  http_parser.rb (~> 0.6)!
  paperclip (~> 5.1)
  rake

RUBY VERSION
   ruby 2.4.1p111

BUNDLED WITH
   1.15.4
";

    fn mimemagic() -> GemOverride {
        GemOverride {
            name: "mimemagic".to_owned(),
            before: Some("0.3.7".to_owned()),
            version: "0.3.10".to_owned(),
            dependencies: vec!["nokogiri (~> 1)".to_owned(), "rake".to_owned()],
        }
    }

    #[test]
    fn reads_gems_and_git_sources() {
        let lock = parse(LOCK).unwrap();
        assert_eq!(lock.gems.len(), 7);
        assert_eq!(lock.gems[1].file(), "mimemagic-0.3.2.gem");
        assert_eq!(lock.gems[1].remote, "https://gems.example");
        assert!(lock.git[0].submodules && lock.git[0].revision.starts_with("54b1"));
        for (from, to) in [
            ("rake (12.0.0)", "../rake (12.0.0)"),
            ("revision: 54", "revision: z4"),
            ("(1.10.0)\n\nP", "(1/0)\n\nP"),
        ] {
            assert!(parse(&LOCK.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn a_yanked_gem_is_rewritten_and_nothing_else() {
        let (text, notes) = rewrite(LOCK, &[&mimemagic()]).unwrap();
        let expected = LOCK.replace(
            "    mimemagic (0.3.2)\n",
            "    mimemagic (0.3.10)\n      nokogiri (~> 1)\n      rake\n",
        );
        assert_eq!(text, expected);
        assert_eq!(notes, ["Gemfile.lock: mimemagic 0.3.2 is taken as 0.3.10"]);
        // A lock that is new enough stays as it is, and so does one that was rewritten.
        assert_eq!(rewrite(&text, &[&mimemagic()]).unwrap(), (text.clone(), Vec::new()));
        let error = rewrite(&LOCK.replace("    rake (12.0.0)\n", ""), &[&mimemagic()]).unwrap_err();
        assert!(error.contains("`rake`"), "{error}");
    }

    #[test]
    fn production_leaves_out_what_only_development_needs() {
        let gemfile = "gem 'paperclip', '~> 5.1'\ngem 'rake'\ngroup :production do\n  gem 'http_parser.rb'\nend\ngroup :development, :test do\n  gem 'bullet'\n  gem 'rake'\nend\n";
        let found = parse(LOCK).unwrap().production(gemfile);
        assert!(found.contains("mimemagic") && found.contains("http_parser.rb") && found.contains("rake"));
        assert!(!found.contains("bullet") && !found.contains("uniform_notifier"));
        // What is not understood is kept.
        assert!(parse(LOCK).unwrap().production("strange\n").contains("bullet"));
    }
}
