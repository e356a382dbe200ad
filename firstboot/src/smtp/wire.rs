//! Lines and replies, with their limits.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use rustls::{ClientConnection, StreamOwned};

/// RFC 5321 allows 512 bytes; real relays take some liberty.
const LONGEST_LINE: usize = 4096;
/// More lines than any relay has to say.
const MOST_LINES: usize = 64;

/// What lines go over.
pub(super) trait Stream: Read + Write {
    /// The connection below, if it is not encrypted yet.
    fn tcp(self: Box<Self>) -> Option<TcpStream>;
}

impl Stream for TcpStream {
    fn tcp(self: Box<Self>) -> Option<TcpStream> {
        Some(*self)
    }
}

impl Stream for StreamOwned<ClientConnection, TcpStream> {
    fn tcp(self: Box<Self>) -> Option<TcpStream> {
        None
    }
}

/// Why there is no reply.
#[derive(Debug)]
pub(super) enum Fault {
    /// Not a reply.
    Foreign(String),
    /// Too many bytes or lines.
    TooLong,
    /// Nothing within the time.
    Silence,
    /// The other side has closed.
    Ended,
    /// Anything else, in the system's words.
    Io(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Fault::Silence,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Fault::Ended
            }
            _ => Fault::Io(error.to_string()),
        }
    }
}

/// A reply: its code and its lines without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub code: u16,
    pub lines: Vec<String>,
}

/// One connection.
pub(super) struct Session {
    stream: Box<dyn Stream>,
    /// Read, but not used yet.
    buffer: Vec<u8>,
    deadline: Instant,
}

impl Session {
    pub fn new(stream: Box<dyn Stream>, deadline: Instant) -> Session {
        Session { stream, buffer: Vec::new(), deadline }
    }

    /// The connection, if nothing was read that was not used, and it is not encrypted.
    pub fn into_stream(self) -> Option<TcpStream> {
        if self.buffer.is_empty() { self.stream.tcp() } else { None }
    }

    /// Says one line and waits for the reply. A line with a break in it would be two commands.
    pub fn command(&mut self, line: &str) -> Result<Reply, Fault> {
        if line.contains(['\r', '\n', '\0']) {
            return Err(Fault::Io("a setting has a line break in it".to_owned()));
        }
        self.stream.write_all(format!("{line}\r\n").as_bytes())?;
        self.stream.flush()?;
        self.reply()
    }

    /// Reads a reply: lines `250-text`, the last one `250 text`.
    pub fn reply(&mut self) -> Result<Reply, Fault> {
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            let digits = line.get(..3).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
            let (Some(digits), mark) = (digits, line.as_bytes().get(3)) else {
                return Err(Fault::Foreign(line));
            };
            if !matches!(mark, None | Some(b' ' | b'-')) {
                return Err(Fault::Foreign(line));
            }
            // OK: three digits.
            let code = digits.parse().unwrap_or_default();
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if mark != Some(&b'-') {
                return Ok(Reply { code, lines });
            }
            if lines.len() >= MOST_LINES {
                return Err(Fault::TooLong);
            }
        }
    }

    fn line(&mut self) -> Result<String, Fault> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.buffer.len() > LONGEST_LINE {
                return Err(Fault::TooLong);
            }
            if Instant::now() > self.deadline {
                return Err(Fault::Silence);
            }
            let mut bytes = [0; 1024];
            let length = self.stream.read(&mut bytes)?;
            if length == 0 {
                return Err(match String::from_utf8_lossy(&self.buffer).into_owned() {
                    said if said.is_empty() => Fault::Ended,
                    said => Fault::Foreign(said),
                });
            }
            self.buffer.extend_from_slice(&bytes[..length]);
        }
    }
}
