//! As much of SMTP as shows whether a relay would take a message: the whole dialogue up to the recipient, then `RSET`. No message is sent.
//!
//! Spec: RFC 5321; STARTTLS RFC 3207; AUTH RFC 4954. Everything that a relay says has a limit in length and time, and is shown in one line
//! without control characters and without our own password.

mod watchdog;
mod wire;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper_rustls::ConfigBuilderExt as _;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::tls::probe;
use watchdog::Watchdog;
use wire::{Reply, Session, Stream};

/// What the application would do, and with what.
#[derive(Clone)]
pub struct Dialogue {
    /// Name or address of the relay.
    pub relay: String,
    /// Its port.
    pub port: u16,
    /// What we call ourselves.
    pub helo: String,
    /// When the connection becomes encrypted.
    pub encryption: Encryption,
    /// Whether the relay's certificate must be valid.
    pub verify: bool,
    /// Trust anchors (PEM); the machine's own count when absent.
    pub ca: Option<String>,
    /// The login, if there is one.
    pub login: Option<Login>,
    /// Envelope sender.
    pub from: String,
    /// Envelope recipient.
    pub to: String,
    /// Time for connecting to one address; four times of it for every read and write, eight times for everything.
    pub patience: Duration,
}

/// When the connection becomes encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// When the relay offers STARTTLS.
    Offered,
    /// From the first byte.
    Implicit,
    /// Never.
    Never,
}

/// A login, and the mechanism that the application uses whatever the relay offers.
#[derive(Clone)]
pub struct Login {
    /// User.
    pub user: String,
    /// Password.
    pub password: String,
    /// How they are said.
    pub mechanism: Mechanism,
}

/// A mechanism of AUTH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// The older one of many relays.
    Login,
    /// One that is not spoken here: the dialogue ends before it.
    Other,
}

/// Where a dialogue ended, with the relay's own words or the system's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name has no address.
    #[error("the name is not found: {0}")]
    Unknown(String),
    /// There are IPv4 addresses only, and none can be reached from here.
    #[error("it has IPv4 addresses only ({0}), and this machine has no way to them")]
    Ipv4Only(String),
    /// No address answers.
    #[error("{0}")]
    Unreachable(String),
    /// The connection broke, or nothing came in time.
    #[error("{0}")]
    Broken(String),
    /// What answers is no SMTP server.
    #[error("it does not speak SMTP: it says `{0}`")]
    Foreign(String),
    /// The encrypted connection does not come about.
    #[error("the encrypted connection does not come about: {0}")]
    Tls(String),
    /// A refused command: its verb, without what may be secret, and the reply.
    #[error("it answers {verb} with `{words}`")]
    Reply {
        /// `EHLO`, `AUTH`, `MAIL FROM` …
        verb: &'static str,
        /// Code and text.
        words: String,
    },
}

impl Dialogue {
    /// Goes through the dialogue.
    pub fn run(&self) -> Result<(), Refusal> {
        let deadline = Instant::now() + self.patience * 8;
        let stream = self.connect(deadline)?;
        // What reads byte by byte, as a handshake does, looks at no clock between them.
        let watchdog =
            Watchdog::new(&stream, deadline).map_err(|error| Refusal::Broken(error.to_string()))?;
        let result = self.speak(stream, deadline);
        match (watchdog.end(), result) {
            (true, Err(_)) => Err(broken(wire::Fault::Silence)),
            (_, result) => result,
        }
    }

    fn speak(&self, stream: TcpStream, deadline: Instant) -> Result<(), Refusal> {
        let stream: Box<dyn Stream> = if self.encryption == Encryption::Implicit {
            Box::new(self.encrypted(stream)?)
        } else {
            Box::new(stream)
        };
        let mut session = Session::new(stream, deadline);
        self.said(session.reply(), "the connection", &[220])?;
        let mut offers = self.hello(&mut session)?;
        if self.encryption == Encryption::Offered && offers.iter().any(|offer| offer == "STARTTLS") {
            self.ask(&mut session, "STARTTLS", "STARTTLS", &[220])?;
            // What came in one packet with the answer is not encrypted, and must not count as if it were.
            let Some(stream) = session.into_stream() else {
                return Err(Refusal::Foreign("bytes before the encryption".to_owned()));
            };
            session = Session::new(Box::new(self.encrypted(stream)?), deadline);
            offers = self.hello(&mut session)?;
        }
        if let Some(login) = &self.login {
            match login.mechanism {
                Mechanism::Plain => {
                    let secret = STANDARD.encode(format!("\0{}\0{}", login.user, login.password));
                    self.ask(&mut session, "AUTH", &format!("AUTH PLAIN {secret}"), &[235])?;
                }
                Mechanism::Login => {
                    self.ask(&mut session, "AUTH", "AUTH LOGIN", &[334])?;
                    self.ask(&mut session, "AUTH", &STANDARD.encode(&login.user), &[334])?;
                    self.ask(&mut session, "AUTH", &STANDARD.encode(&login.password), &[235])?;
                }
                Mechanism::Other => return Ok(()),
            }
        }
        drop(offers);
        self.ask(&mut session, "MAIL FROM", &format!("MAIL FROM:<{}>", self.from), &[250])?;
        self.ask(&mut session, "RCPT TO", &format!("RCPT TO:<{}>", self.to), &[250, 251, 252])?;
        // It has said all that matters; how it says farewell does not.
        for word in ["RSET", "QUIT"] {
            let _ = session.command(word);
        }
        Ok(())
    }

    fn connect(&self, deadline: Instant) -> Result<TcpStream, Refusal> {
        let found = (self.relay.as_str(), self.port).to_socket_addrs();
        let addresses: Vec<SocketAddr> =
            found.map_err(|error| Refusal::Unknown(plain(&error.to_string())))?.take(8).collect();
        let mut last = None;
        for address in &addresses {
            let left = deadline.saturating_duration_since(Instant::now());
            // No time at all would be an error of ours.
            match TcpStream::connect_timeout(address, self.patience.min(left).max(Duration::from_millis(1))) {
                Ok(stream) => {
                    // As patient as the application: a busy relay may think before it greets.
                    let patience = Some(self.patience * READING);
                    let limits =
                        stream.set_read_timeout(patience).and_then(|()| stream.set_write_timeout(patience));
                    return limits.map(|()| stream).map_err(|error| Refusal::Broken(error.to_string()));
                }
                Err(error) => last = Some((address, error)),
            }
        }
        let Some((address, error)) = last else { return Err(Refusal::Unknown("no address".to_owned())) };
        let is_far =
            matches!(error.kind(), io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable);
        if is_far && addresses.iter().all(SocketAddr::is_ipv4) {
            let tried: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
            return Err(Refusal::Ipv4Only(tried.join(", ")));
        }
        Err(Refusal::Unreachable(match error.kind() {
            io::ErrorKind::ConnectionRefused => format!("nobody listens on {address}"),
            io::ErrorKind::TimedOut => format!("{address} does not answer"),
            _ => format!("{address}: {error}"),
        }))
    }

    fn encrypted(&self, stream: TcpStream) -> Result<StreamOwned<ClientConnection, TcpStream>, Refusal> {
        let make = || -> anyhow::Result<StreamOwned<ClientConnection, TcpStream>> {
            let name = match self.relay.parse::<IpAddr>() {
                Ok(address) => ServerName::from(address),
                Err(_) => ServerName::try_from(self.relay.clone())?,
            };
            let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(self.config()?), name)?, stream);
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock)?;
            }
            Ok(stream)
        };
        make().map_err(|error| Refusal::Tls(plain(&format!("{error:#}"))))
    }

    fn config(&self) -> anyhow::Result<ClientConfig> {
        if !self.verify {
            return probe::config_for_anything();
        }
        // Only the first call in a process decides, and every call decides the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = ClientConfig::builder();
        let Some(pem) = &self.ca else {
            return Ok(builder.try_with_platform_verifier()?.with_no_client_auth());
        };
        let mut roots = rustls::RootCertStore::empty();
        for anchor in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(anchor?)?;
        }
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }

    /// Greets, and returns what the relay offers, in capitals.
    fn hello(&self, session: &mut Session) -> Result<Vec<String>, Refusal> {
        let reply = session.command(&format!("EHLO {}", self.helo)).map_err(broken)?;
        if matches!(reply.code, 500..=504) {
            self.ask(session, "HELO", &format!("HELO {}", self.helo), &[250])?;
            return Ok(Vec::new());
        }
        let reply = self.said(Ok(reply), "EHLO", &[250])?;
        Ok(reply.lines.iter().skip(1).map(|line| line.trim().to_ascii_uppercase()).collect())
    }

    fn ask(
        &self,
        session: &mut Session,
        verb: &'static str,
        line: &str,
        wanted: &[u16],
    ) -> Result<(), Refusal> {
        self.said(session.command(line), verb, wanted).map(drop)
    }

    fn said(
        &self,
        reply: Result<Reply, wire::Fault>,
        verb: &'static str,
        wanted: &[u16],
    ) -> Result<Reply, Refusal> {
        let reply = reply.map_err(broken)?;
        if wanted.contains(&reply.code) {
            return Ok(reply);
        }
        Err(Refusal::Reply {
            verb,
            words: self.without_secrets(&format!("{} {}", reply.code, reply.lines.join(" "))),
        })
    }

    /// A relay could say what it was told.
    fn without_secrets(&self, words: &str) -> String {
        let mut words = plain(words);
        if let Some(login) = &self.login {
            let pair = STANDARD.encode(format!("\0{}\0{}", login.user, login.password));
            for secret in [&login.password, &STANDARD.encode(&login.password), &pair] {
                if !secret.is_empty() {
                    words = words.replace(secret.as_str(), "(redacted)");
                }
            }
        }
        words.chars().take(LONGEST).collect()
    }
}

/// How many times longer than for connecting a relay is waited for once it is connected: Ruby's `Net::SMTP` has 60 s for one read.
const READING: u32 = 4;

/// The longest words of a relay that are shown, in characters.
const LONGEST: usize = 300;

fn plain(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    line.join(" ").chars().filter(|character| !character.is_control()).take(4 * LONGEST).collect()
}

fn broken(fault: wire::Fault) -> Refusal {
    match fault {
        wire::Fault::Foreign(said) => Refusal::Foreign(plain(&said).chars().take(80).collect()),
        wire::Fault::TooLong => Refusal::Foreign("more than any reply has".to_owned()),
        wire::Fault::Silence => Refusal::Broken("it does not answer in time".to_owned()),
        wire::Fault::Ended => Refusal::Broken("it ends the connection without a word".to_owned()),
        wire::Fault::Io(error) => Refusal::Broken(plain(&error)),
    }
}

#[cfg(test)]
mod tests;
