//! As much of the Redis protocol (RESP 2) as first boot asks: one command, one reply.
//!
//! Spec: <https://redis.io/docs/latest/develop/reference/protocol-spec/>. Every read and write has a time limit.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// Time for connecting, for every write and for every read.
const PATIENCE: Duration = Duration::from_secs(5);

/// More than this is not an answer to what we ask.
const LARGEST: usize = 1 << 20;

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+OK` or a bulk string.
    Text(String),
    /// `:1`.
    Integer(i64),
    /// A null string or array.
    Nothing,
    /// An array.
    List(Vec<Reply>),
}

impl Reply {
    /// The texts of a list, or of the one text.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Reply::Text(text) => vec![text],
            Reply::List(items) => items.iter().flat_map(Reply::texts).collect(),
            Reply::Integer(_) | Reply::Nothing => Vec::new(),
        }
    }
}

/// A connection to a server.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let connect = || -> std::io::Result<TcpStream> {
            let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        let stream = connect().with_context(|| format!("connecting to Redis at `{address}`"))?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    /// Sends one command and reads its reply; an error reply is an error.
    pub fn command(&mut self, words: &[&str]) -> Result<Reply> {
        let mut request = Vec::new();
        write!(request, "*{}\r\n", words.len())?;
        for word in words {
            write!(request, "${}\r\n{word}\r\n", word.len())?;
        }
        self.stream.get_mut().write_all(&request)?;
        reply(&mut self.stream).with_context(|| format!("asking Redis `{}`", words.join(" ")))
    }
}

fn reply(stream: &mut impl BufRead) -> Result<Reply> {
    let mut line = String::new();
    stream.by_ref().take(LARGEST as u64).read_line(&mut line)?;
    let Some(line) = line.strip_suffix("\r\n") else { bail!("the answer ended early") };
    let (kind, rest) = line.split_at_checked(1).context("the answer is empty")?;
    match kind {
        "+" => Ok(Reply::Text(rest.to_owned())),
        "-" => bail!("the server said `{rest}`"),
        ":" => Ok(Reply::Integer(rest.parse().context("reading a number")?)),
        "$" => match length(rest)? {
            None => Ok(Reply::Nothing),
            Some(length) => {
                let mut bytes = vec![0; length + 2];
                stream.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
            }
        },
        "*" => match length(rest)? {
            None => Ok(Reply::Nothing),
            Some(count) => (0..count).map(|_| reply(stream)).collect::<Result<_>>().map(Reply::List),
        },
        _ => bail!("`{line}` is no answer of a Redis server"),
    }
}

fn length(text: &str) -> Result<Option<usize>> {
    if text == "-1" {
        return Ok(None);
    }
    let length: usize = text.parse().with_context(|| format!("reading the length `{text}`"))?;
    if length > LARGEST {
        bail!("an answer of {length} bytes is too long");
    }
    Ok(Some(length))
}

#[cfg(test)]
mod tests {
    use super::{Reply, reply};

    fn check(bytes: &str, expected: Result<Reply, &str>) {
        match (reply(&mut bytes.as_bytes()), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(expected)) => assert!(found.to_string().contains(expected), "{found}"),
            (found, expected) => panic!("{bytes:?}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn replies_are_read() {
        let text = |text: &str| Reply::Text(text.to_owned());
        check("+PONG\r\n", Ok(text("PONG")));
        check(":12\r\n", Ok(Reply::Integer(12)));
        check("$5\r\na\r\nbc\r\n", Ok(text("a\r\nbc")));
        check("$-1\r\n", Ok(Reply::Nothing));
        check(
            "*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
            Ok(Reply::List(vec![text("a"), Reply::List(vec![Reply::Integer(1)])])),
        );
        check("-NOAUTH wrong\r\n", Err("NOAUTH wrong"));
        check("$99999999\r\n", Err("too long"));
        check("+PON", Err("ended early"));
        check("HTTP/1.1 400\r\n", Err("no answer of a Redis server"));
    }
}
