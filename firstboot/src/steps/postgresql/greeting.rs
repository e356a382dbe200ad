//! The first words of PostgreSQL's protocol, as far as a server says how it wants the password.
//!
//! Spec: <https://www.postgresql.org/docs/current/protocol-message-formats.html>. No password is ever sent here. `psql` does not say
//! which way it went in, and Node's library knows fewer ways.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::settings::{Database, SslMode};
use crate::tls::probe;

/// Time for connecting, for every write and for every read.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request for encryption, and the version of the protocol.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const VERSION: [u8; 4] = [0, 3, 0, 0];

/// `AuthenticationSASL`.
const SASL: u32 = 10;

/// Whether the server wants SCRAM. What goes wrong here is no news: `psql` has been in and out.
pub(super) fn asks_for_scram(server: &Database) -> bool {
    authentication(server).is_ok_and(|kind| kind == SASL)
}

fn authentication(server: &Database) -> Result<u32> {
    let host = server.host.as_deref().context("no server")?;
    let addresses = (host, server.port).to_socket_addrs()?;
    let mut stream = connect(addresses).context("no address answers")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    if matches!(server.sslmode, SslMode::Disable | SslMode::Prefer) {
        return ask(&mut stream, server);
    }
    stream.write_all(&SSL_REQUEST)?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    if answer != *b"S" {
        bail!("it has no encryption");
    }
    let name = ServerName::try_from(host.to_owned())?;
    let connection = ClientConnection::new(Arc::new(probe::config_for_anything()?), name)?;
    ask(&mut StreamOwned::new(connection, stream), server)
}

fn connect(addresses: impl Iterator<Item = std::net::SocketAddr>) -> Option<TcpStream> {
    addresses.take(8).find_map(|address| TcpStream::connect_timeout(&address, PATIENCE).ok())
}

fn ask(stream: &mut (impl Read + Write), server: &Database) -> Result<u32> {
    let mut body = VERSION.to_vec();
    for word in ["user", &server.user, "database", &server.name, ""] {
        body.extend_from_slice(word.as_bytes());
        body.push(0);
    }
    let length = u32::try_from(body.len() + 4)?;
    stream.write_all(&[&length.to_be_bytes(), body.as_slice()].concat())?;
    stream.flush()?;
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    // OK: four bytes of nine.
    let [b'R', _, _, _, _, kind @ ..] = head else { bail!("it refuses before it asks") };
    Ok(u32::from_be_bytes(kind))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::{asks_for_scram, authentication};
    use crate::settings::Database;

    fn told(answer: &'static [u8]) -> Database {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten().take(2) {
                let mut request = [0; 512];
                let length = stream.read(&mut request).unwrap();
                assert_eq!(request[..length].len(), usize::from(request[3]));
                assert!(request[..length].ends_with(b"\0database\0mastodon\0\0"));
                stream.write_all(answer).unwrap();
            }
        });
        Database { host: Some("127.0.0.1".to_owned()), port, ..Database::default() }
    }

    #[test]
    fn the_way_that_a_server_wants_the_password_is_read() {
        assert_eq!(authentication(&told(b"R\0\0\0\x0c\0\0\0\x05abcd")).unwrap(), 5);
        assert!(asks_for_scram(&told(b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0")));
        assert!(!asks_for_scram(&told(b"E\0\0\0\x0cSFATAL\0\0")));
        assert!(!asks_for_scram(&told(b"HTTP")));
    }
}
