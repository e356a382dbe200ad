//! Where files are asked for: a mirror from the command line, the host's own npm configuration, or what the lock and the tables say.
//!
//! A mirror that is given is taken alone, as with Debian's: the place that it stands for may be just what cannot be reached.

use crate::context::Context;
use crate::exec::{self, Run};

/// Names that `--mirror NAME=URL` knows for the application.
pub const MIRRORS: &[&str] = &["rubygems", "npm", "git", "ruby", "node"];

/// What `--mirror git=` stands for.
const GIT: &str = "https://github.com/";
/// What `--mirror ruby=` stands for; its OpenSSL is looked for there too.
const RUBY: &str = "https://cache.ruby-lang.org/pub/ruby/";
/// What `--mirror node=` stands for.
const NODE: &str = "https://nodejs.org/dist/";

/// The places of one run.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    mirrors: Vec<(String, String)>,
    npm: Option<String>,
}

impl Origins {
    /// From the command line, and from `npm config get registry` where the host has npm.
    pub fn new(context: &Context) -> Self {
        let npm = if context.offline { None } else { host_registry(context) };
        Origins { mirrors: context.mirrors.clone(), npm }
    }

    /// Where each of [`MIRRORS`] is asked now; none where the tag's own lock files say.
    pub fn places(&self) -> Vec<(&'static str, Option<String>)> {
        let place = |name: &'static str| {
            let site = match name {
                "npm" => self.npm.as_deref(),
                "git" => Some(GIT),
                "ruby" => Some(RUBY),
                "node" => Some(NODE),
                _ => None,
            };
            let place = self.mirror(name).or(site.map(|site| site.trim_end_matches('/')));
            (name, place.map(str::to_owned))
        };
        MIRRORS.iter().copied().map(place).collect()
    }

    fn mirror(&self, name: &str) -> Option<&str> {
        self.mirrors.iter().find(|(key, _)| key == name).map(|(_, url)| url.trim_end_matches('/'))
    }

    /// The npm registry in force, given the one that a lock names.
    pub fn npm<'a>(&'a self, named: &'a str) -> &'a str {
        self.mirror("npm").or(self.npm.as_deref()).unwrap_or(named).trim_end_matches('/')
    }

    /// The index of gems in force, given the one that a lock names.
    pub fn gems<'a>(&'a self, named: &'a str) -> &'a str {
        self.mirror("rubygems").unwrap_or(named).trim_end_matches('/')
    }

    /// A repository; on GitHub, its place on the mirror. The old unencrypted protocol, which GitHub refuses, becomes HTTPS.
    pub fn git(&self, url: &str) -> String {
        let url = match url.strip_prefix("git://github.com/") {
            Some(path) => format!("{GIT}{path}"),
            None => url.to_owned(),
        };
        match (self.mirror("git"), url.strip_prefix(GIT)) {
            (Some(mirror), Some(path)) => format!("{mirror}/{path}"),
            _ => url,
        }
    }

    /// URLs of a file of Ruby's, OpenSSL's or Node's own site, in the order in which they are to be tried.
    pub fn file(&self, url: &str) -> Vec<String> {
        for (name, site) in [("ruby", RUBY), ("node", NODE)] {
            if let (Some(mirror), Some(path)) = (self.mirror(name), url.strip_prefix(site)) {
                return vec![format!("{mirror}/{path}")];
            }
        }
        let file = url.rsplit('/').next().unwrap_or_default();
        match self.mirror("ruby").filter(|_| file.starts_with("openssl-")) {
            Some(mirror) => vec![format!("{mirror}/{file}"), url.to_owned()],
            None => vec![url.to_owned()],
        }
    }
}

fn host_registry(context: &Context) -> Option<String> {
    exec::find("npm")?;
    // A host whose npm is broken builds as one without npm.
    let output = Run::new(&context.log, "npm").args(["config", "get", "registry"]).capture().ok()?;
    let registry = output.lines().map(str::trim).rfind(|line| line.contains("://"))?;
    Some(registry.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_stands_for_its_site_alone() {
        let origins = Origins {
            mirrors: [("git", "http://m/git"), ("ruby", "http://m/ruby/"), ("npm", "http://m/npm/")]
                .map(|(name, url)| (name.to_owned(), url.to_owned()))
                .to_vec(),
            npm: Some("http://host".to_owned()),
        };
        assert_eq!(origins.git("https://github.com/rbenv/rbenv"), "http://m/git/rbenv/rbenv");
        assert_eq!(
            origins.git("git://github.com/joyent/http-parser.git"),
            "http://m/git/joyent/http-parser.git"
        );
        assert_eq!(origins.git("https://git.example/x"), "https://git.example/x");
        assert_eq!(
            origins.file("https://cache.ruby-lang.org/pub/ruby/2.4/r.tar"),
            ["http://m/ruby/2.4/r.tar"]
        );
        assert_eq!(origins.file("https://nodejs.org/dist/v8/n.tar"), ["https://nodejs.org/dist/v8/n.tar"]);
        assert_eq!(origins.file("https://x/openssl-1.tar")[0], "http://m/ruby/openssl-1.tar");
        assert_eq!(
            origins.places(),
            [
                ("rubygems", None),
                ("npm", Some("http://m/npm")),
                ("git", Some("http://m/git")),
                ("ruby", Some("http://m/ruby")),
                ("node", Some("https://nodejs.org/dist")),
            ]
            .map(|(name, place)| (name, place.map(str::to_owned)))
        );
        assert_eq!(origins.npm("http://lock"), "http://m/npm");
        assert_eq!(Origins { mirrors: Vec::new(), npm: origins.npm }.npm("http://lock"), "http://host");
    }
}
