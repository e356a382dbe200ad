//! A probe of a web server on this machine: one plain GET, one answer.
//!
//! HTTP/1.0 on purpose: the server then closes the connection at the end and never chunks.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// An answer longer than this is cut.
const LARGEST: u64 = 1 << 20;

/// What the server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body, lossily as UTF-8.
    pub body: String,
}

/// Asks for a path as a reverse proxy with HTTPS in front would: with the host's name and `X-Forwarded-Proto: https`.
pub fn get(address: SocketAddr, host: &str, path: &str, patience: Duration) -> Result<Answer> {
    let ask = || -> Result<Answer> {
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let request = format!(
            "GET {path} HTTP/1.0\r\nHost: {host}\r\nX-Forwarded-Proto: https\r\nUser-Agent: appliance\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut bytes = Vec::new();
        stream.take(LARGEST).read_to_end(&mut bytes)?;
        parse(&String::from_utf8_lossy(&bytes)).context("the answer is not HTTP")
    };
    ask().with_context(|| format!("asking `http://{address}{path}`"))
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut words = head.lines().next()?.split(' ');
    let version = words.next()?;
    let status = words.next()?.parse().ok()?;
    version.starts_with("HTTP/1.").then(|| Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::{Answer, parse};

    #[test]
    fn answers_are_read() {
        let answer = |status, body: &str| Some(Answer { status, body: body.to_owned() });
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n{}", answer(200, "{}")),
            ("HTTP/1.0 401\r\n\r\n", answer(401, "")),
            ("HTTP/1.1 200 OK\r\n", None),
            ("+PONG\r\n\r\n", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }
}
