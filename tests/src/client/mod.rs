//! A client at a chosen place: TCP, HTTP, HTTPS and WebSocket to one host at one address.
//!
//! Name resolution plays no part: the address is given, and so the address family. Redirects are answers, never followed. Only the
//! given anchors are trusted, and the certificate chain is part of the answer.

mod http;
mod tls;
mod websocket;

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

pub use http::{Cookies, Request, Response};
pub use tls::{Certificate, Trust};
pub use websocket::{Upgrade, WebSocket};

use crate::namespace;

/// Emulated machines answer slowly: the first request to a fresh Rails process may take most of a minute.
const LIMIT: Duration = Duration::from_secs(120);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Where a client stands and whom it talks to.
#[derive(Debug, Clone)]
pub struct Client {
    host: String,
    address: IpAddr,
    trust: Trust,
    namespace: Option<String>,
    http_port: u16,
    https_port: u16,
}

/// Why a connection was not made.
#[derive(Debug)]
pub enum Refusal {
    /// The host answered that nobody listens.
    Refused,
    /// Nothing answered.
    Silent,
    /// Something else, as the system says it.
    Other(io::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Refused => formatter.write_str("connection refused"),
            Refusal::Silent => write!(formatter, "no answer within {} s", CONNECT_LIMIT.as_secs()),
            Refusal::Other(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for Refusal {}

impl Client {
    /// A client that asks `address` for `host` on the usual ports, from this process's own network.
    pub fn new(host: &str, address: IpAddr, trust: Trust) -> Client {
        Client { host: host.to_owned(), address, trust, namespace: None, http_port: 80, https_port: 443 }
    }

    /// The same, standing in a network namespace.
    #[must_use]
    pub fn in_namespace(mut self, name: &str) -> Client {
        self.namespace = Some(name.to_owned());
        self
    }

    /// Other ports for HTTP and HTTPS.
    #[must_use]
    pub fn with_ports(mut self, http: u16, https: u16) -> Client {
        (self.http_port, self.https_port) = (http, https);
        self
    }

    /// The address that is talked to.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Opens a TCP connection.
    pub fn connect(&self, port: u16) -> Result<TcpStream, Refusal> {
        let address = SocketAddr::new(self.address, port);
        let connect = || Ok(TcpStream::connect_timeout(&address, CONNECT_LIMIT));
        let connected = match &self.namespace {
            Some(name) => namespace::enter(name, connect),
            None => connect(),
        };
        let stream = match connected {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                return Err(match error.kind() {
                    io::ErrorKind::ConnectionRefused => Refusal::Refused,
                    io::ErrorKind::TimedOut => Refusal::Silent,
                    _ => Refusal::Other(error),
                });
            }
            Err(error) => return Err(Refusal::Other(io::Error::other(format!("{error:#}")))),
        };
        // The limits apply to each read and write; a stream without them could hang a test for ever.
        let limited =
            stream.set_read_timeout(Some(LIMIT)).and_then(|()| stream.set_write_timeout(Some(LIMIT)));
        limited.map(|()| stream).map_err(Refusal::Other)
    }

    /// Sends a request in the clear.
    pub fn http(&self, request: &Request) -> Result<Response> {
        let stream = self.connect(self.http_port).with_context(|| self.describe("http", request))?;
        self.exchange(stream, request, (self.http_port, 80)).with_context(|| self.describe("http", request))
    }

    /// Sends a request over TLS; the chain of the answer has been verified against the trust anchors and the host name.
    pub fn https(&self, request: &Request) -> Result<Response> {
        self.https_inner(request).with_context(|| self.describe("https", request))
    }

    /// Asks for a WebSocket over TLS.
    pub fn websocket(&self, path: &str) -> Result<Upgrade> {
        let describe = || format!("asking {} for a WebSocket at `{path}`", self.address);
        let tcp = self.connect(self.https_port).with_context(describe)?;
        let stream = tls::connect(&self.host, tcp, &self.trust).with_context(describe)?;
        websocket::open(&self.host, path, stream).with_context(describe)
    }

    fn https_inner(&self, request: &Request) -> Result<Response> {
        let stream = tls::connect(&self.host, self.connect(self.https_port)?, &self.trust)?;
        let chain = tls::chain(&stream)?;
        let mut response = self.exchange(stream, request, (self.https_port, 443))?;
        response.chain = chain;
        Ok(response)
    }

    fn exchange(
        &self,
        mut stream: impl Read + Write,
        request: &Request,
        (port, usual): (u16, u16),
    ) -> Result<Response> {
        let host = if port == usual { self.host.clone() } else { format!("{}:{port}", self.host) };
        stream.write_all(&request.encode(&host))?;
        stream.flush()?;
        let mut bytes = Vec::new();
        match stream.read_to_end(&mut bytes) {
            // Servers that close without a TLS goodbye: whether the answer is whole shows in its length.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            result => {
                result.context("reading the answer")?;
            }
        }
        Response::parse(&bytes)
    }

    fn describe(&self, scheme: &str, request: &Request) -> String {
        format!("{} {scheme}://{}{} at {}", request.method(), self.host, request.path(), self.address)
    }
}
