//! `yarn.lock` (version 1): which npm packages a tag is made of, and taking an entry from elsewhere. Pure text, no network.
//!
//! An entry is a line of patterns at indent 0 and its keys at indent 2. `resolved` is a URL with the SHA-1 as fragment; newer
//! locks have `integrity` besides. The host of a `resolved` counts for nothing: a path below an npm registry is the same
//! below every registry, and the digest decides.

use super::tags::Replacement;

/// One package file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// The first pattern, for messages.
    pub name: String,
    /// Where it comes from.
    pub place: Place,
}

/// Where a package comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An npm registry.
    Registry {
        /// The registry that the lock names, without a slash at its end.
        registry: String,
        /// Path below it: `@babel/core/-/core-7.1.0.tgz`.
        path: String,
        /// What the file must be.
        digest: Digest,
    },
    /// A commit of a repository that GitHub packs as a tar.
    Git {
        /// `owner/name`.
        repository: String,
        /// Commit.
        commit: String,
    },
}

/// A digest as yarn states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Digest {
    /// Hexadecimal digits.
    Sha1(String),
    /// Base 64.
    Sha512(String),
}

impl Package {
    /// The name that yarn looks for in its offline mirror.
    pub fn file(&self) -> String {
        match &self.place {
            Place::Registry { path, .. } => {
                let file = path.rsplit('/').next().unwrap_or_default();
                match path.split_once('/') {
                    Some((scope, _)) if scope.starts_with('@') => format!("{scope}-{file}"),
                    _ => file.to_owned(),
                }
            }
            Place::Git { commit, .. } => commit.clone(),
        }
    }
}

/// Reads a lock.
pub fn parse(text: &str) -> Result<Vec<Package>, String> {
    let mut packages = Vec::new();
    let mut name = "";
    let mut resolved: Option<&str> = None;
    let mut integrity = "";
    // An empty line at the end closes the last entry.
    for line in text.lines().chain([""]) {
        if line.starts_with('#') || line.trim().is_empty() {
            if let Some(url) = resolved.take() {
                let place = place(url, integrity).map_err(|message| format!("entry `{name}`: {message}"))?;
                packages.push(Package { name: name.to_owned(), place });
            }
            integrity = "";
        } else if !line.starts_with(' ') {
            name = line.trim_end_matches(':').split(", ").next().unwrap_or_default().trim_matches('"');
        } else if let Some(value) = line.strip_prefix("  resolved ") {
            resolved = Some(value.trim_matches('"'));
        } else if let Some(value) = line.strip_prefix("  integrity ") {
            integrity = value.trim_matches('"');
        }
    }
    if packages.is_empty() {
        return Err("it names no package; only version 1 of the format is read".to_owned());
    }
    Ok(packages)
}

fn place(resolved: &str, integrity: &str) -> Result<Place, String> {
    let (url, fragment) = resolved.split_once('#').unwrap_or((resolved, ""));
    let url = url.split('?').next().unwrap_or_default();
    if let Some((repository, commit)) =
        url.strip_prefix("https://codeload.github.com/").and_then(|rest| rest.split_once("/tar.gz/"))
    {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let good = repository.split('/').count() == 2
            && repository.split('/').all(|part| !part.starts_with(['.', '-']) && part.chars().all(plain));
        if !good || !super::tags::is_hexadecimal(commit, 40) {
            return Err(format!("`{resolved}` is not a commit of a repository"));
        }
        return Ok(Place::Git { repository: repository.to_owned(), commit: commit.to_owned() });
    }
    let unknown = || {
        format!(
            "`{resolved}` is neither a file of an npm registry nor a commit that GitHub packs; a `[[replace]]` in the tag's file can name another"
        )
    };
    let (before, file) = url.split_once("/-/").ok_or_else(unknown)?;
    let (scheme, rest) = before.split_once("://").ok_or_else(unknown)?;
    let mut parts: Vec<&str> = rest.split('/').collect();
    let mut package = vec![parts.pop().ok_or_else(unknown)?];
    if let Some(scope) = parts.last().copied().filter(|part| part.starts_with('@')) {
        parts.pop();
        package.insert(0, scope);
    }
    let plain = |part: &&str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-+@~".contains(c))
    };
    let mut all = package.iter().chain(std::iter::once(&file));
    if parts.is_empty() || !["http", "https"].contains(&scheme) || !all.all(plain) {
        return Err(unknown());
    }
    let digest = if let Some(digest) = integrity.split(' ').find_map(|one| one.strip_prefix("sha512-")) {
        Digest::Sha512(digest.to_owned())
    } else if super::tags::is_hexadecimal(fragment, 40) {
        Digest::Sha1(fragment.to_owned())
    } else {
        return Err(format!("`{resolved}` has no digest"));
    };
    let registry = format!("{scheme}://{}", parts.join("/"));
    Ok(Place::Registry { registry, path: format!("{}/-/{file}", package.join("/")), digest })
}

/// Takes entries from elsewhere; also says which. The registry is the one that the lock's other entries name.
pub fn rewrite(text: &str, replacements: &[Replacement]) -> Result<(String, Vec<String>), String> {
    let registry = parse(text)?.into_iter().find_map(|package| match package.place {
        Place::Registry { registry, .. } => Some(registry),
        Place::Git { .. } => None,
    });
    let registry = registry.ok_or("it names no package of a registry")?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut notes = Vec::new();
    for replacement in replacements {
        let line = format!("  resolved \"{}", replacement.resolved);
        let is_it = |candidate: &String| {
            candidate.strip_prefix(&line).is_some_and(|rest| rest.starts_with(['"', '#']))
        };
        let Some(at) = lines.iter().position(is_it) else {
            return Err(format!(
                "no entry is resolved to `{}`, which `[[replace]]` names",
                replacement.resolved
            ));
        };
        lines[at] = format!("  resolved \"{registry}/{}#{}\"", replacement.path, replacement.sha1);
        if let Some(version) =
            lines[..at].iter_mut().rev().take(2).find(|line| line.starts_with("  version "))
        {
            *version = format!("  version \"{}\"", replacement.version);
        }
        notes.push(format!("yarn.lock: `{}` is taken from {}", replacement.resolved, replacement.path));
    }
    Ok((lines.join("\n") + "\n", notes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "\
# THIS IS AN AUTOGENERATED FILE. DO NOT EDIT THIS FILE DIRECTLY.
# yarn lockfile v1


\"@babel/core@^7.1.0\", \"@babel/core@^7.2.0\":
  version \"7.1.0\"
  resolved \"https://npm.example/mirror/@babel/core/-/core-7.1.0.tgz#0123456789abcdef0123456789abcdef01234567\"
  integrity sha512-Zm9v
  dependencies:
    warning \"^3.0.0\"

react-router-scroll@ytase/react-router-scroll#build:
  version \"0.4.1\"
  resolved \"https://codeload.github.com/ytase/react-router-scroll/tar.gz/991ecddb08885e1fb80ec1e9dbf3a35844b7d4cd\"
  dependencies:
    warning \"^3.0.0\"

warning@^3.0.0:
  version \"3.0.0\"
  resolved \"https://npm.example/mirror/warning/-/warning-3.0.0.tgz#32e5377cb572de4ab04753bdf8821c01ed605b7c\"
";

    #[test]
    fn places_digests_and_the_names_yarn_looks_for() {
        let packages = parse(LOCK).unwrap();
        let files: Vec<String> = packages.iter().map(Package::file).collect();
        assert_eq!(
            files,
            ["@babel-core-7.1.0.tgz", "991ecddb08885e1fb80ec1e9dbf3a35844b7d4cd", "warning-3.0.0.tgz"]
        );
        let Place::Registry { registry, path, digest } = &packages[0].place else { panic!() };
        assert_eq!(
            (registry.as_str(), path.as_str()),
            ("https://npm.example/mirror", "@babel/core/-/core-7.1.0.tgz")
        );
        assert_eq!(*digest, Digest::Sha512("Zm9v".to_owned()));
        let Place::Registry { digest, .. } = &packages[2].place else { panic!() };
        assert_eq!(*digest, Digest::Sha1("32e5377cb572de4ab04753bdf8821c01ed605b7c".to_owned()));
    }

    #[test]
    fn an_entry_is_taken_from_the_registry_instead() {
        let replacement = Replacement {
            resolved: "https://codeload.github.com/ytase/react-router-scroll/tar.gz/991ecddb08885e1fb80ec1e9dbf3a35844b7d4cd".to_owned(),
            version: "1.0.0-beta.2".to_owned(),
            path: "react-router-scroll-4/-/react-router-scroll-4-1.0.0-beta.2.tgz".to_owned(),
            sha1: "d887063ec0f66124aaf450158dd158ff7d3dc279".to_owned(),
        };
        let (text, notes) = rewrite(LOCK, std::slice::from_ref(&replacement)).unwrap();
        assert_eq!(parse(&text).unwrap()[1].file(), "react-router-scroll-4-1.0.0-beta.2.tgz");
        assert!(text.contains("#build:\n  version \"1.0.0-beta.2\"\n  resolved \"https://npm.example/mirror/react-router-scroll-4/-/"), "{text}");
        assert_eq!(notes.len(), 1);
        assert!(rewrite(&text, &[replacement]).unwrap_err().contains("no entry is resolved"));
    }

    #[test]
    fn what_cannot_be_checked_is_refused() {
        let check = |from: &str, to: &str, expected: &str| {
            let error = parse(&LOCK.replace(from, to)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check("#32e5377cb572de4ab04753bdf8821c01ed605b7c", "", "entry `warning@^3.0.0`: ");
        check("https://npm.example/mirror/warning/-/", "git+ssh://git@host/warning.git/", "neither a file");
        check("warning/-/warning-3.0.0.tgz", "warning/-/../../x.tgz", "neither a file");
        check("/ytase/react-router-scroll/tar", "/ytase/../tar", "not a commit");
        assert!(parse("__metadata:\n  version: 6\n").is_err());
    }
}
