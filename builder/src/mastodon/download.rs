//! Small files over HTTP, with a limit on each and a few tries; nothing is believed before its digest is checked.

use std::fmt;
use std::io::Read as _;
use std::time::Duration;

use base64::Engine as _;
use sha2::Digest as _;
use ureq::tls::{RootCerts, TlsConfig};

use super::yarn_lock::Digest;
use crate::store::hex;

/// Tries for one file, with a growing pause between them: a long list of small files meets every short fault of a network.
const TRIES: u32 = 3;

/// Why a file could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The server answered that it has no such file.
    NotThere,
    /// The server could not be asked, or answered with something else.
    Unreachable(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NotThere => out.write_str("the server has no such file"),
            Failure::Unreachable(why) => out.write_str(why),
        }
    }
}

/// Connections that are kept between files.
pub struct Client {
    agent: ureq::Agent,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// Without any connection yet.
    pub fn new() -> Self {
        // The host's own authorities: a registry inside an organisation is often signed by its own.
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_global(Some(Duration::from_secs(300)))
            .user_agent("imgbuild");
        Client { agent: config.build().into() }
    }

    /// A file of at most `limit` bytes.
    pub fn get(&self, url: &str, limit: u64) -> Result<Vec<u8>, Failure> {
        let mut pause = Duration::from_millis(500);
        for left in (0..TRIES).rev() {
            match self.try_get(url, limit) {
                Err(Failure::Unreachable(_)) if left > 0 => {
                    std::thread::sleep(pause);
                    pause *= 3;
                }
                result => return result,
            }
        }
        Err(Failure::Unreachable("no answer".to_owned()))
    }

    fn try_get(&self, url: &str, limit: u64) -> Result<Vec<u8>, Failure> {
        if let Some(path) = url.strip_prefix("file://") {
            return read(path, limit);
        }
        let mut response = self.agent.get(url).call().map_err(|error| match error {
            ureq::Error::StatusCode(404 | 410) => Failure::NotThere,
            error => Failure::Unreachable(error.to_string()),
        })?;
        let body = response.body_mut().with_config().limit(limit).read_to_vec();
        body.map_err(|error| Failure::Unreachable(error.to_string()))
    }
}

/// A mirror may be a folder.
fn read(path: &str, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let file = match fs_err::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Failure::NotThere),
        Err(error) => return Err(Failure::Unreachable(error.to_string())),
    };
    let count = file.take(limit + 1).read_to_end(&mut bytes);
    match count {
        Ok(count) if count as u64 <= limit => Ok(bytes),
        Ok(_) => Err(Failure::Unreachable(format!("`{path}` is larger than {limit} bytes"))),
        Err(error) => Err(Failure::Unreachable(error.to_string())),
    }
}

/// The host of a URL, for messages: without a login that it may hold.
pub fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// Whether bytes have the digest; what they have instead.
pub fn check(bytes: &[u8], wanted: &Digest) -> Result<(), String> {
    let (found, wanted) = match wanted {
        Digest::Sha1(wanted) => (hex(&sha1::Sha1::digest(bytes)), wanted),
        Digest::Sha512(wanted) => {
            (base64::engine::general_purpose::STANDARD.encode(sha2::Sha512::digest(bytes)), wanted)
        }
    };
    if found == *wanted { Ok(()) } else { Err(format!("its digest is {found}, the lock says {wanted}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_as_yarn_writes_them() {
        let sha1 = Digest::Sha1("a9993e364706816aba3e25717850c26c9cd0d89d".to_owned());
        let sha512 = Digest::Sha512(
            "3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw=="
                .to_owned(),
        );
        assert!(check(b"abc", &sha1).is_ok() && check(b"abc", &sha512).is_ok());
        assert!(check(b"abd", &sha1).is_err() && check(b"abd", &sha512).is_err());
    }

    #[test]
    fn a_login_is_not_shown() {
        assert_eq!(host("https://user:secret@npm.example:8443/x"), "npm.example:8443");
        assert_eq!(host("https://npm.example/@scope/x"), "npm.example");
    }
}
