//! The host's apt sources, in both formats: where this machine gets its Debian packages.

use std::path::{Path, PathBuf};

use fs_err as fs;

/// The host's mirrors.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mirrors {
    /// Of the release and its updates.
    pub main: Option<String>,
    /// Of the security updates.
    pub security: Option<String>,
}

/// Reads `sources.list` and `sources.list.d` below the folder. What cannot be read is no mirror.
pub fn host_mirrors(folder: &Path) -> Mirrors {
    let mut files = vec![folder.join("sources.list")];
    if let Ok(entries) = fs::read_dir(folder.join("sources.list.d")) {
        // As apt does: nothing that a package manager or an editor kept aside.
        let is_source =
            |path: &PathBuf| path.extension().is_some_and(|end| end == "list" || end == "sources");
        files.extend(entries.flatten().map(|entry| entry.path()).filter(is_source));
    }
    files.sort();
    let mut mirrors = Mirrors::default();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let entries = if file.extension().is_some_and(|extension| extension == "sources") {
            deb822(&text)
        } else {
            one_line(&text)
        };
        for Entry { uri, suite, components } in entries {
            // Third parties use the names of Debian's suites too, but hardly its components and its folder at once.
            let last = uri.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            let is_debian = last.starts_with("debian") || uri.starts_with("mirror+file:");
            if !is_debian || !components.iter().any(|component| component == "main") {
                continue;
            }
            if is_release(&suite) {
                mirrors.main.get_or_insert(first_of_list(uri));
            } else if suite.strip_suffix("-security").is_some_and(is_release) {
                mirrors.security.get_or_insert(first_of_list(uri));
            }
        }
    }
    mirrors
}

/// One archive that is named.
struct Entry {
    uri: String,
    suite: String,
    components: Vec<String>,
}

/// Debian's cloud images name a file with mirrors (`mirror+file:/etc/apt/mirrors/debian.list`); its first line stands for it.
fn first_of_list(uri: String) -> String {
    let Some(file) = uri.strip_prefix("mirror+file:") else { return uri };
    let text = fs::read_to_string(format!("/{}", file.trim_start_matches('/'))).unwrap_or_default();
    text.lines().map(str::trim).find(|line| line.contains("://")).map_or(uri, str::to_owned)
}

fn is_release(suite: &str) -> bool {
    ["bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable"].contains(&suite)
}

fn one_line(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let Some(rest) = line.trim().strip_prefix("deb ") else { continue };
        let rest = match rest.trim_start().strip_prefix('[') {
            Some(options) => options.split_once(']').map_or("", |(_, rest)| rest),
            None => rest,
        };
        let mut words = rest.split_whitespace().map(str::to_owned);
        if let (Some(uri), Some(suite)) = (words.next(), words.next()) {
            entries.push(Entry { uri, suite, components: words.collect() });
        }
    }
    entries
}

fn deb822(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            let mut lines = stanza.lines().filter(|line| !line.starts_with('#'));
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or("").trim()
        };
        let is_binary = field("Types").split_whitespace().any(|kind| kind == "deb");
        if !is_binary || field("Enabled").eq_ignore_ascii_case("no") {
            continue;
        }
        let components: Vec<String> = field("Components").split_whitespace().map(str::to_owned).collect();
        for uri in field("URIs").split_whitespace() {
            for suite in field("Suites").split_whitespace() {
                entries.push(Entry {
                    uri: uri.to_owned(),
                    suite: suite.to_owned(),
                    components: components.clone(),
                });
            }
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, text: &str) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sources.list.d")).unwrap();
        fs::write(folder.path().join(name), text).unwrap();
        let mirrors = host_mirrors(folder.path());
        assert_eq!(mirrors.main.as_deref(), Some("http://mirror.test/debian"));
        assert_eq!(mirrors.security.as_deref(), Some("http://mirror.test/debian-security"));
    }

    #[test]
    fn both_formats() {
        check(
            "sources.list",
            "# x\ndeb https://other.test/apt cloud-bookworm main\ndeb https://other.test/linux/debian bookworm stable\n\
             deb https://other.test/repos/cli bookworm main\ndeb [arch=amd64 signed-by=/k] http://mirror.test/debian bookworm main\n\
             deb http://mirror.test/debian-security bookworm-security main\n",
        );
        check(
            "sources.list.d/debian.sources",
            "Types: deb\n# a comment\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\n\
             Types: deb\nURIs: http://mirror.test/debian-security\nSuites: bookworm-security\nComponents: main\n",
        );
    }
}
