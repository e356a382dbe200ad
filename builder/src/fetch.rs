//! Files from elsewhere -> the store, each under its SHA-256: a name appears there only once the content has been proven.
//!
//! Mirrors are tried in the order given; one that does not answer is not asked again in the same run. `file://` works like any
//! mirror. What nobody could deliver is named with every host that was tried.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use fs_err as fs;
use sha2::{Digest as _, Sha256};
use ureq::tls::{RootCerts, TlsConfig};

use crate::context::Context;
use crate::error::Fault;
use crate::recipe::human;
use crate::report::Unit;
use crate::store::hex;

/// Folder of the store.
pub const KIND: &str = "files-v1";
/// Downloads at the same time.
const WORKERS: usize = 4;
/// Most that a file of unknown size may have, in bytes.
const LIMIT: u64 = 4 << 30;
/// Errors that one message lists in full.
const SHOWN: usize = 10;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What messages call it.
    pub name: String,
    /// Who should have it, such as ``repository `base` `` or `the tag table`.
    pub origin: String,
    /// Where it may be, tried in this order.
    pub urls: Vec<String>,
    /// Its size in bytes, when known.
    pub size: Option<u64>,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
}

/// Downloads, and what was learnt about hosts.
pub struct Fetcher<'a> {
    context: &'a Context,
    agent: ureq::Agent,
    /// Hosts that do not answer, and why.
    dead: Mutex<BTreeMap<String, String>>,
}

/// Why one URL did not give what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    /// Its host does not answer; no use asking it again.
    Host(String),
    /// It answers that it has no such file.
    Missing,
    /// It answers with something else.
    File(String),
}

/// One URL that did not give what was asked. In words, a host that does not answer is the same for all its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    url: String,
    failure: Failure,
}

impl fmt::Display for Tried {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failure {
            Failure::Host(why) => write!(out, "{} does not answer: {why}", host(&self.url)),
            Failure::Missing => write!(out, "there is no {}", self.url),
            Failure::File(why) => write!(out, "{}: {why}", self.url),
        }
    }
}

/// Each thing that was tried, in words, once.
pub fn words<'a>(tried: impl IntoIterator<Item = &'a Tried>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for text in tried.into_iter().map(Tried::to_string) {
        if !all.contains(&text) {
            all.push(text);
        }
    }
    all
}

impl<'a> Fetcher<'a> {
    /// With short time limits for reaching a host and none for a slow line that still moves.
    pub fn new(context: &'a Context) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_resolve(Some(Duration::from_secs(5)))
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .timeout_recv_body(Some(Duration::from_secs(1800)))
            // A house's own mirror may have a certificate of the house.
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .build()
            .into();
        Fetcher { context, agent, dead: Mutex::default() }
    }

    /// The file in the store, downloaded if it is not there.
    pub fn file(&self, wanted: &Wanted) -> Result<PathBuf> {
        self.one(wanted).map_err(|why| self.fault(&[why]))
    }

    /// All of them, in the order given; every one that cannot be had is named.
    pub fn files(&self, wanted: &[Wanted]) -> Result<Vec<PathBuf>> {
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..WORKERS.min(wanted.len()) {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(file) = wanted.get(index) else { return };
                        self.context.reporter.doing(&file.name);
                        let result = self.one(file);
                        let mut results = lock(&results);
                        results.push((index, result));
                        self.context.reporter.progress(
                            results.len() as u64,
                            wanted.len() as u64,
                            Unit::Items,
                        );
                    }
                });
            }
        });
        let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        results.sort_by_key(|(index, _)| *index);
        let (mut paths, mut errors) = (Vec::new(), Vec::new());
        for (_, result) in results {
            match result {
                Ok(path) => paths.push(path),
                Err(why) => errors.push(why),
            }
        }
        if errors.is_empty() { Ok(paths) } else { Err(self.fault(&errors)) }
    }

    /// A small file that nothing pins, such as an index whose own content the caller checks, and the URL that gave it; else every
    /// URL with what was wrong.
    pub fn text(&self, urls: &[String], limit: u64) -> Result<(Vec<u8>, String), Vec<Tried>> {
        let mut tried = Vec::new();
        for url in urls {
            let reader = match self.open(url) {
                Ok(reader) => reader,
                Err(failure) => {
                    tried.push(self.learn(url, failure));
                    continue;
                }
            };
            let mut bytes = Vec::new();
            match reader.take(limit + 1).read_to_end(&mut bytes) {
                Ok(_) if bytes.len() as u64 <= limit => return Ok((bytes, url.clone())),
                Ok(_) => {
                    tried.push(self.learn(url, Failure::File(format!("larger than {}", human(limit)))));
                }
                Err(error) => tried.push(self.learn(url, Failure::File(error.to_string()))),
            }
        }
        Err(tried)
    }

    fn one(&self, wanted: &Wanted) -> Result<PathBuf, String> {
        let folder = self.context.store.root().join(KIND);
        let path = folder.join(&wanted.sha256);
        if path.is_file() {
            return Ok(path);
        }
        if self.context.offline {
            return Err(format!(
                "--offline, and the store does not have {} ({})",
                wanted.name, wanted.origin
            ));
        }
        let mut tried = Vec::new();
        for url in &wanted.urls {
            match self.download(url, wanted, &folder, &path) {
                Ok(()) => return Ok(path),
                Err(failure) => tried.push(self.learn(url, failure)),
            }
        }
        // A flat mirror has none of the publisher's folders; where the file was found tells more.
        if tried.iter().any(|tried| matches!(tried.failure, Failure::File(_))) {
            tried.retain(|tried| tried.failure != Failure::Missing);
        }
        let tried = if tried.is_empty() { "it has no mirror".to_owned() } else { words(&tried).join("; ") };
        Err(format!("{} ({}): {tried}", wanted.name, wanted.origin))
    }

    fn learn(&self, url: &str, failure: Failure) -> Tried {
        if let Failure::Host(why) = &failure {
            lock(&self.dead).insert(host(url).to_owned(), why.clone());
        }
        Tried { url: url.to_owned(), failure }
    }

    fn download(&self, url: &str, wanted: &Wanted, folder: &Path, path: &Path) -> Result<(), Failure> {
        let file = |error: &dyn std::fmt::Display| Failure::File(error.to_string());
        let limit = wanted.size.unwrap_or(LIMIT);
        let mut reader = self.open(url)?.take(limit + 1);
        fs::create_dir_all(folder).map_err(|error| file(&error))?;
        // In the folder that a dead run is swept from, on the store's own file system.
        let scratch = self.context.store.scratch_for(KIND).map_err(|error| file(&format!("{error:#}")))?;
        let temp = scratch.path().join("download");
        let mut output = fs::File::create(&temp).map_err(|error| file(&error))?;
        let mut hash = Sha256::new();
        let (mut buffer, mut size) = (vec![0; 128 << 10], 0);
        loop {
            let count = reader.read(&mut buffer).map_err(|error| file(&error))?;
            if count == 0 {
                break;
            }
            size += count as u64;
            hash.update(&buffer[..count]);
            output.write_all(&buffer[..count]).map_err(|error| file(&error))?;
        }
        match wanted.size {
            Some(expected) if size < expected => {
                return Err(Failure::File(format!("it is truncated: {size} of {expected} bytes")));
            }
            _ if size > limit => {
                return Err(Failure::File(format!("it is larger than the {limit} bytes expected")));
            }
            _ => {}
        }
        let digest = hex(&hash.finalize());
        if digest != wanted.sha256 {
            return Err(Failure::File(format!("its SHA-256 is {digest}, expected {}", wanted.sha256)));
        }
        output.sync_all().map_err(|error| file(&error))?;
        fs::rename(&temp, path).map_err(|error| file(&error))?;
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| file(&error))
    }

    fn open(&self, url: &str) -> Result<Box<dyn Read>, Failure> {
        if let Some(path) = url.strip_prefix("file://") {
            return match fs::File::open(Path::new(path)) {
                Ok(file) => Ok(Box::new(file)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Failure::Missing),
                Err(error) => Err(Failure::File(error.to_string())),
            };
        }
        if let Some(why) = lock(&self.dead).get(host(url)) {
            return Err(Failure::Host(why.clone()));
        }
        // The content is pinned as it lies on the server: no transfer encoding may change it.
        match self.agent.get(url).header("accept-encoding", "identity").call() {
            Ok(response) => Ok(Box::new(response.into_body().into_with_config().limit(LIMIT).reader())),
            Err(ureq::Error::StatusCode(404 | 410)) => Err(Failure::Missing),
            Err(ureq::Error::StatusCode(status)) => Err(Failure::File(format!("HTTP {status}"))),
            Err(ureq::Error::Io(error)) => Err(Failure::Host(error.to_string())),
            Err(error) => Err(Failure::Host(error.to_string())),
        }
    }

    fn fault(&self, errors: &[String]) -> anyhow::Error {
        let message = listed(errors);
        let fault = if self.context.offline {
            Fault::environment(message)
                .hint("fetch it once with a network, or bring it with `imgbuild fetch --import DIR`")
        } else {
            ways_on(Fault::environment(format!("cannot be had: {message}")))
        };
        fault.into()
    }
}

/// One line each, and not too many.
pub fn listed(lines: &[String]) -> String {
    let mut text = lines.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n       ");
    if lines.len() > SHOWN {
        text.push_str(&format!("\n       and {} more", lines.len() - SHOWN));
    }
    text
}

/// What a user can do when the hosts of an image cannot be reached.
pub fn ways_on(fault: Fault) -> Fault {
    fault
        .hint("use a mirror that you can reach: --mirror NAME=URL (`imgbuild plan` names them; file:///… works too)")
        .hint("or bring the files from a machine that has them: `imgbuild fetch --export DIR` there, `imgbuild fetch --import DIR` here")
        .hint("or build what needs Debian's mirror alone: `imgbuild --image demo`")
}

/// Scheme and host of a URL.
fn host(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find('/').map_or(url.len(), |at| start + at);
    &url[..end]
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Puts a file that is already on this machine into the store; its digest is its name.
pub fn adopt(context: &Context, file: &Path) -> Result<PathBuf> {
    let sha256 = crate::digest::file(file)?;
    let folder = context.store.root().join(KIND);
    let path = folder.join(&sha256);
    if !path.is_file() {
        let scratch = context.store.scratch_for(KIND)?;
        let temp = scratch.path().join("copy");
        fs::copy(file, &temp)?;
        fs::File::open(&temp)?.sync_all()?;
        if crate::digest::file(&temp)? != sha256 {
            return Err(Fault::environment(format!("`{}` changed while it was read", file.display())).into());
        }
        fs::rename(&temp, &path).with_context(|| format!("storing `{}`", file.display()))?;
    }
    Ok(path)
}

/// Refuses a mirror whose URL holds a login: the image names its mirrors.
pub fn refuse_login(url: &str, what: &str) -> Result<()> {
    let authority = url.split_once("://").and_then(|(_, rest)| rest.split('/').next());
    if authority.is_some_and(|authority| authority.contains('@')) {
        return Err(Fault::user(format!(
            "{what}: the URL holds a login, which would be readable in the image"
        ))
        .hint("let the mirror in by address, or use a local copy: --mirror NAME=URL")
        .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;

    fn wanted(urls: Vec<String>, content: &[u8]) -> Wanted {
        Wanted {
            name: "a.rpm".to_owned(),
            origin: "repository `base`".to_owned(),
            urls,
            size: Some(content.len() as u64),
            sha256: hex(&Sha256::digest(content)),
        }
    }

    #[test]
    fn the_first_mirror_that_has_the_right_bytes_wins_and_the_others_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let context = Context::for_tests(&folder.path().join("store"));
        let fetcher = Fetcher::new(&context);
        let url = |name: &str| format!("file://{}/{name}", folder.path().display());
        for (name, content) in [("short", "go"), ("wrong", "bad"), ("good", "yes"), ("long", "yes, and more")]
        {
            fs::write(folder.path().join(name), content).unwrap();
        }
        let bad = wanted(vec![url("none"), url("short"), url("wrong"), url("long")], b"yes");
        let text = fetcher.file(&bad).unwrap_err().to_string();
        assert!(!text.contains("there is no"), "{text}");
        let none = fetcher.file(&wanted(vec![url("none")], b"yes")).unwrap_err().to_string();
        assert!(none.ends_with(&format!("there is no {}", url("none"))), "{none}");
        for part in
            ["a.rpm (repository `base`)", "truncated: 2 of 3", "expected 8a798890", "larger than the 3"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        let kept = || fs::read_dir(context.store.root().join(KIND)).map_or(0, Iterator::count);
        assert_eq!(kept(), 0);
        let good = wanted(vec![url("wrong"), url("good")], b"yes");
        let path = fetcher.file(&good).unwrap();
        assert_eq!((fs::read(path).unwrap(), kept()), (b"yes".to_vec(), 1));
        // The store answers from now on.
        fs::remove_file(folder.path().join("good")).unwrap();
        assert!(fetcher.files(&[good.clone(), good]).is_ok());
    }

    #[test]
    fn a_host_that_does_not_answer_is_asked_and_named_once() {
        let folder = tempfile::tempdir().unwrap();
        let context = Context::for_tests(&folder.path().join("store"));
        let fetcher = Fetcher::new(&context);
        // Port 9 (discard) of the loopback: nobody listens there.
        let urls = vec!["http://127.0.0.1:9/a".to_owned(), "http://127.0.0.1:9/b".to_owned()];
        let error = fetcher.file(&wanted(urls, b"x")).unwrap_err();
        let why = "http://127.0.0.1:9 does not answer: Connection refused (os error 111)";
        assert_eq!(error.to_string(), format!("cannot be had: a.rpm (repository `base`): {why}"));
        let again = fetcher.open("http://127.0.0.1:9/c").err();
        assert_eq!(again, Some(Failure::Host("Connection refused (os error 111)".to_owned())));
        assert_eq!(crate::error::exit_code(&error), 2);
    }
}
