//! How a name is proven to an authority, and the proof itself for as long as anybody may look at it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use instant_acme::{ChallengeHandle, ChallengeType};

use super::answer::{self, Answer, CHALLENGES};
use super::record::Published;
use super::tls_alpn::{Gate, Standing};
use crate::http;

/// How a name is proven.
#[derive(Debug, Clone)]
pub enum Proof {
    /// http-01: by what port 80 serves.
    Http {
        /// Folder that port 80 of the domain serves below `/.well-known/acme-challenge/`.
        webroot: PathBuf,
        /// Our own web server's port 80.
        server: SocketAddr,
    },
    /// tls-alpn-01: by what answers on port 443.
    TlsAlpn(Gate),
    /// dns-01: by a record that a program puts into the zone.
    Dns {
        /// The program.
        hook: PathBuf,
        /// Whom to ask whether the record is there.
        resolvers: Vec<SocketAddr>,
        /// Port of the zone's own servers.
        zone_port: u16,
    },
}

/// The proof lies there until this is dropped; the fields are there for their ends alone.
pub(super) enum Held<'a> {
    Http { _answer: Answer },
    TlsAlpn { _answer: Standing },
    Dns { _record: Published<'a> },
}

impl Proof {
    /// Its name in RFC 8555, RFC 8737 and in CAA records.
    pub fn method(&self) -> &'static str {
        match self {
            Proof::Http { .. } => "http-01",
            Proof::TlsAlpn(_) => "tls-alpn-01",
            Proof::Dns { .. } => "dns-01",
        }
    }

    /// The port of the name that an authority looks at, if it looks at this machine.
    pub fn port(&self) -> Option<u16> {
        match self {
            Proof::Http { server, .. } => Some(server.port()),
            Proof::TlsAlpn(gate) => Some(gate.front.port()),
            Proof::Dns { .. } => None,
        }
    }

    /// Takes away what a cut has left of an earlier proof.
    pub fn sweep(&self) -> Result<()> {
        match self {
            Proof::Http { webroot, .. } => answer::sweep(webroot),
            // A socket is gone with its process, and a record in DNS is worth nothing without our account's key.
            Proof::TlsAlpn(_) | Proof::Dns { .. } => Ok(()),
        }
    }

    pub(super) fn kind(&self) -> ChallengeType {
        match self {
            Proof::Http { .. } => ChallengeType::Http01,
            Proof::TlsAlpn(_) => ChallengeType::TlsAlpn01,
            Proof::Dns { .. } => ChallengeType::Dns01,
        }
    }

    /// Puts the proof where it belongs and sees it there.
    pub(super) fn put(&self, domain: &str, challenge: &ChallengeHandle<'_>) -> Result<Held<'_>> {
        let key = challenge.key_authorization();
        Ok(match self {
            Proof::Http { webroot, server } => {
                Held::Http { _answer: served(domain, webroot, *server, &challenge.token, key.as_str())? }
            }
            Proof::TlsAlpn(gate) => {
                let answer = Standing::put(gate, domain, key.digest().as_ref())?;
                answer.look(gate.front).context("looking at our own answer to the challenge")?;
                Held::TlsAlpn { _answer: answer }
            }
            Proof::Dns { hook, resolvers, zone_port } => {
                let record = Published::put(hook, domain, &key.dns_value())?;
                record.wait(resolvers, *zone_port)?;
                Held::Dns { _record: record }
            }
        })
    }
}

/// An answer in the webroot that our own web server has given out.
fn served(domain: &str, webroot: &Path, server: SocketAddr, token: &str, content: &str) -> Result<Answer> {
    let answer = Answer::put(webroot, token, content)?;
    let path = format!("/{CHALLENGES}/{token}");
    let own = http::get(server, domain, &path, Duration::from_secs(10))
        .context("fetching the answer to the challenge from our own web server")?;
    if own.status != 200 || own.body.trim() != content {
        bail!(
            "our own web server answers `{path}` with {} and not with what lies in the webroot",
            own.status
        );
    }
    Ok(answer)
}
