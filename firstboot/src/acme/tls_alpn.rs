//! The answer to a tls-alpn-01 challenge (RFC 8737), for whom nobody can reach on port 80.
//!
//! nginx has port 443 and cannot speak `acme-tls/1`. So for the seconds of an order new connections are led to a socket of ours: it
//! answers whoever speaks that protocol alone, and hands everybody else on to the web server, byte for byte, behind a line with the
//! visitor's address (PROXY protocol, version 1). Nothing is ended: connections from before stay with nginx, and those that were
//! handed on stay so until they end by themselves.

use std::any::Any;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as Bound};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::Acceptor;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::tls::probe;

/// The protocol (ALPN) that an authority asks with.
const PROTOCOL: &[u8] = b"acme-tls/1";

/// Connections whose first message is waited for, at one time; the next ones wait in the kernel. All limits are the process's, since
/// those of the answer before may still be there. The unit has files for all of them.
static GREETINGS: Semaphore = Semaphore::const_new(1000);
/// Visitors who are handed on, at one time, each with two files; the next ones are turned away, so that an authority still gets through.
static VISITORS: Semaphore = Semaphore::const_new(3000);
/// How long the first message of TLS may take, and the whole of an authority's handshake.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest first message in bytes: one with the keys of post-quantum exchanges has 2,000.
const LONGEST: usize = 32 << 10;
/// How long connections that were on their way are still taken after the last one was led here.
const REST: Duration = Duration::from_secs(2);
/// How long a visitor may leave unread what the web server has sent: as long as nginx allows it.
const UNREAD: Duration = Duration::from_secs(60);
/// How long a visitor may keep a connection that the web server has ended.
const FAREWELL: Duration = Duration::from_secs(30);

/// Leads new connections to port 443 of this machine to another port of it.
pub trait Divert: fmt::Debug + Send + Sync {
    /// Begins; dropping the value ends it.
    fn to(&self, port: u16) -> Result<Box<dyn Any + Send + Sync>>;
}

/// How connections come here and leave.
#[derive(Debug, Clone)]
pub struct Gate {
    /// Where they are taken; port 0 is any that is free.
    pub listen: SocketAddr,
    /// Port 443 of this machine as it sees itself; that of the socket without a diversion.
    pub front: SocketAddr,
    /// Where nginx takes those of everybody else, by the PROXY protocol.
    pub web: SocketAddr,
    /// How they come here; without it, whoever looks knows the port.
    pub diversion: Option<Arc<dyn Divert>>,
}

/// The answer, there until it is dropped.
pub struct Standing {
    // Before the socket goes.
    _diversion: Option<Box<dyn Any + Send + Sync>>,
    _end: oneshot::Sender<()>,
    certificate: Vec<u8>,
    domain: String,
}

impl Standing {
    /// Puts an answer there: the SHA-256 of a challenge's key authorization.
    pub fn put(gate: &Gate, domain: &str, digest: &[u8]) -> Result<Standing> {
        let (config, certificate) = answer(domain, digest).context("making the answer to the challenge")?;
        let bound = listen(gate.listen)
            .with_context(|| format!("listening on `{}` for the authority", gate.listen))?;
        let port = bound.local_addr().context("asking for the socket's port")?.port();
        let (end, ended) = oneshot::channel();
        let web = gate.web;
        let (said, is_ready) = mpsc::channel();
        let work = move || {
            // Made and dropped on its own thread: the order's own runtime forbids it elsewhere.
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    let _ = said.send(Ok(()));
                    runtime.block_on(stand(bound, TlsAcceptor::from(config), web, ended));
                }
                Err(error) => drop(said.send(Err(error))),
            }
        };
        std::thread::Builder::new()
            .name("tls-alpn-01".to_owned())
            .spawn(work)
            .and_then(|_| is_ready.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())))
            .context("starting the answer to the challenge")?;
        let diversion = match &gate.diversion {
            Some(diversion) => Some(diversion.to(port)?),
            None => None,
        };
        Ok(Standing { _diversion: diversion, _end: end, certificate, domain: domain.to_owned() })
    }

    /// Asks for it as an authority would.
    pub fn look(&self, address: SocketAddr) -> Result<()> {
        if probe::answer(address, &self.domain, PROTOCOL)? != self.certificate {
            bail!("another server answers there");
        }
        Ok(())
    }
}

/// A socket that takes IPv4 too where it takes any IPv6, whatever the machine's default is.
fn listen(address: SocketAddr) -> Result<Bound> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    if address.is_ipv6() {
        net::sockopt::set_ipv6_v6only(&socket, false)?;
    }
    net::bind(&socket, &address)?;
    net::listen(&socket, 1024)?;
    Ok(Bound::from(socket))
}

/// What an authority is shown: a certificate for the name with the digest in it (RFC 8737, section 3).
fn answer(domain: &str, digest: &[u8]) -> Result<(Arc<ServerConfig>, Vec<u8>)> {
    if digest.len() != 32 {
        bail!("the digest has {} bytes and not 32", digest.len());
    }
    let mut parameters = CertificateParams::new(vec![domain.to_owned()])?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.custom_extensions.push(CustomExtension::new_acme_identifier(digest));
    let key = KeyPair::generate()?;
    let certificate = parameters.self_signed(&key)?;
    let der = certificate.der().to_vec();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
    // Taken as it is: rustls' own look at a pair does not know the extension, which must be critical.
    let pair = CertifiedKey::new(vec![CertificateDer::from(der.clone())], key);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok((Arc::new(config), der))
}

/// Takes connections until the answer is dropped, then waits for those that were handed on.
async fn stand(bound: Bound, answer: TlsAcceptor, web: SocketAddr, ended: oneshot::Receiver<()>) {
    let Ok(listener) = TcpListener::from_std(bound) else { return };
    let mut all = JoinSet::new();
    let taking = async {
        loop {
            let Ok(greeting) = GREETINGS.acquire().await else { return };
            while all.try_join_next().is_some() {}
            match listener.accept().await {
                // A connection that breaks is its two ends' affair.
                Ok((stream, visitor)) => {
                    drop(all.spawn(attend(stream, visitor, answer.clone(), web, greeting)));
                }
                // Such as too many open files: time mends it.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let ending = async {
        let _ = ended.await;
        tokio::time::sleep(REST).await;
    };
    tokio::select! {
        () = taking => {}
        () = ending => {}
    }
    drop(listener);
    while all.join_next().await.is_some() {}
}

async fn attend(
    mut stream: TcpStream,
    visitor: SocketAddr,
    answer: TlsAcceptor,
    web: SocketAddr,
    greeting: SemaphorePermit<'static>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut hello = Vec::new();
    let is_authority = tokio::time::timeout(PATIENCE, read_hello(&mut stream, &mut hello)).await??;
    if is_authority {
        let (read, write) = stream.split();
        let whole = tokio::io::join(hello.as_slice().chain(read), write);
        let mut session = tokio::time::timeout(PATIENCE, answer.accept(whole)).await??;
        return session.shutdown().await;
    }
    drop(greeting);
    let Ok(_place) = VISITORS.try_acquire() else { return Ok(()) };
    let line = proxy_line(visitor, stream.local_addr()?);
    let mut server = TcpStream::connect(web).await?;
    server.set_nodelay(true)?;
    server.write_all(line.as_bytes()).await?;
    server.write_all(&hello).await?;
    hand_on(&mut stream, &mut server).await
}

/// Copies both ways. The web server's end is the end: it has limits for everything that a visitor may leave undone, but for one, since
/// it does not see what waits here.
async fn hand_on(visitor: &mut TcpStream, server: &mut TcpStream) -> io::Result<()> {
    let (mut from_visitor, mut to_visitor) = visitor.split();
    let (mut from_server, mut to_server) = server.split();
    let up = async {
        tokio::io::copy(&mut from_visitor, &mut to_server).await?;
        to_server.shutdown().await
    };
    let down = async {
        let mut chunk = vec![0; 16 << 10];
        loop {
            let count = from_server.read(&mut chunk).await?;
            if count == 0 {
                return to_visitor.shutdown().await;
            }
            tokio::time::timeout(UNREAD, to_visitor.write_all(&chunk[..count])).await??;
        }
    };
    tokio::pin!(up, down);
    tokio::select! {
        sent = &mut up => {
            sent?;
            down.await
        }
        received = &mut down => {
            received?;
            tokio::time::timeout(FAREWELL, up).await?
        }
    }
}

/// Reads the first message of TLS, and whether it asks for the authority's protocol and no other. What is no such message is the web
/// server's to answer.
async fn read_hello(stream: &mut TcpStream, hello: &mut Vec<u8>) -> io::Result<bool> {
    let mut acceptor = Acceptor::default();
    loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await?;
        let mut rest = &chunk[..count];
        hello.extend_from_slice(rest);
        if rest.is_empty() {
            return Ok(false);
        }
        while !rest.is_empty() {
            if acceptor.read_tls(&mut rest).is_err() {
                return Ok(false);
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => {
                    let asked = accepted.client_hello().alpn();
                    return Ok(asked
                        .is_some_and(|mut names| names.next() == Some(PROTOCOL) && names.next().is_none()));
                }
                Ok(None) => {}
                Err(_) => return Ok(false),
            }
        }
        if hello.len() > LONGEST {
            return Ok(false);
        }
    }
}

/// Who comes from where, in the PROXY protocol's first version. Version 1 has no words for a mixture of families, so both ends are those
/// of the same connection.
fn proxy_line(visitor: SocketAddr, own: SocketAddr) -> String {
    let (from, to) = (visitor.ip().to_canonical(), own.ip().to_canonical());
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {from} {to} {} 443\r\n", visitor.port())
}

#[cfg(test)]
mod tests;
