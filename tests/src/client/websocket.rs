//! WebSocket over TLS: the upgrade or its refusal, and messages with a limit.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tungstenite::handshake::HandshakeError;
use tungstenite::{Error, Message};

use super::tls::Stream;

/// What became of the request for a WebSocket.
#[derive(Debug)]
pub enum Upgrade {
    /// Status 101.
    Open(Box<WebSocket>),
    /// Any other status.
    Status(u16),
}

/// An open WebSocket.
#[derive(Debug)]
pub struct WebSocket(tungstenite::WebSocket<Stream>);

impl Upgrade {
    /// The WebSocket, or an error with the status that came instead.
    pub fn expect_open(self) -> Result<Box<WebSocket>> {
        match self {
            Upgrade::Open(socket) => Ok(socket),
            Upgrade::Status(status) => bail!("status {status} instead of 101"),
        }
    }
}

impl WebSocket {
    /// The first text message that `wanted` accepts.
    pub fn wait(&mut self, what: &str, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let end = Instant::now() + limit;
        let mut others = 0;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "waiting {} s on the WebSocket for {what}: {others} other messages came",
                    limit.as_secs()
                );
            }
            self.0.get_ref().sock.set_read_timeout(Some(left))?;
            match self.0.read() {
                Ok(Message::Text(text)) if wanted(&text) => return Ok(text.to_string()),
                Ok(Message::Close(reason)) => bail!("the server closed the WebSocket: {reason:?}"),
                Ok(_) => others += 1,
                // The limit of the socket: the loop's own limit decides.
                Err(Error::Io(error))
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Err(error) => return Err(error).context("reading from the WebSocket"),
            }
        }
    }
}

pub(super) fn open(host: &str, path: &str, stream: Stream) -> Result<Upgrade> {
    match tungstenite::client(format!("wss://{host}{path}"), stream) {
        Ok((socket, _)) => Ok(Upgrade::Open(Box::new(WebSocket(socket)))),
        Err(HandshakeError::Failure(Error::Http(response))) => {
            Ok(Upgrade::Status(response.status().as_u16()))
        }
        Err(error) => bail!("{error}"),
    }
}
