//! Who is answered, who is handed on, and that nobody is cut off.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use x509_parser::prelude::FromDer as _;

use super::{Gate, Standing, proxy_line};
use crate::tls::probe;

const DOMAIN: &str = "v6don.example.net";

/// A server that sends back the line with the visitor's address, and then whatever it gets.
fn web() -> SocketAddr {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut out = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut { stream }, &mut out);
            });
        }
    });
    address
}

fn standing() -> (Standing, SocketAddr) {
    let port = free_port();
    let listen = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port);
    let gate = Gate { listen, front: listen, web: web(), diversion: None };
    (Standing::put(&gate, DOMAIN, &[7; 32]).unwrap(), listen)
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// The first message of TLS that asks for these protocols.
fn hello(protocols: &[&str]) -> Vec<u8> {
    let mut config = probe::config_for_anything().unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(DOMAIN).unwrap();
    let mut text = Vec::new();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut text).unwrap();
    text
}

#[test]
fn an_authority_sees_the_digest_in_a_certificate_for_the_name_alone() {
    let (standing, address) = standing();
    standing.look(address).unwrap();
    let leaf = probe::answer(address, DOMAIN, b"acme-tls/1").unwrap();
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&leaf).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    assert_eq!(format!("{:?}", names.value.general_names), format!("[DNSName({DOMAIN:?})]"));
    let identifier = parsed
        .iter_extensions()
        .find(|extension| extension.oid.to_id_string() == "1.3.6.1.5.5.7.1.31")
        .unwrap();
    assert!(identifier.critical);
    assert_eq!(identifier.value, [&[4, 32][..], &[7; 32]].concat());

    let (other, elsewhere) = self::standing();
    assert!(other.look(address).is_err(), "another answer is not ours");
    other.look(elsewhere).unwrap();
}

#[test]
fn everybody_else_is_handed_on_byte_for_byte_behind_a_line_with_the_address() {
    let (standing, address) = standing();
    let long = [b"\x16\x03\x01\xff\xff\x01\x00\xff\xf0".as_slice(), &vec![b'x'; 60_000]].concat();
    for (what, text) in [
        ("a browser", hello(&["h2", "http/1.1"])),
        ("no protocol", hello(&[])),
        ("the authority's among others", hello(&["acme-tls/1", "h2"])),
        ("no TLS", b"GET / HTTP/1.0\r\n\r\n".to_vec()),
        ("half a message", hello(&["h2"])[..100].to_vec()),
        ("a message without end", long),
        ("nothing", Vec::new()),
    ] {
        let mut visitor = TcpStream::connect(address).unwrap();
        let own = visitor.local_addr().unwrap();
        visitor.write_all(&text).unwrap();
        visitor.shutdown(std::net::Shutdown::Write).unwrap();
        let mut line = String::new();
        let mut back = BufReader::new(&visitor);
        back.read_line(&mut line).unwrap();
        assert_eq!(line, format!("PROXY TCP6 ::1 ::1 {} 443\r\n", own.port()), "{what}");
        let mut rest = Vec::new();
        back.read_to_end(&mut rest).unwrap();
        assert!(rest == text, "{what}");
    }
    drop(standing);
}

#[test]
fn a_slow_first_message_is_put_together_and_a_connection_outlives_the_answer() {
    let (standing, address) = standing();
    let mut visitor = TcpStream::connect(address).unwrap();
    for part in hello(&["h2"]).chunks(50) {
        visitor.set_nodelay(true).unwrap();
        visitor.write_all(part).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let mut back = BufReader::new(visitor.try_clone().unwrap());
    back.read_line(&mut String::new()).unwrap();
    back.read_exact(&mut vec![0; hello(&["h2"]).len()]).unwrap();
    drop(standing);
    let start = std::time::Instant::now();
    while TcpStream::connect(address).is_ok() {
        assert!(start.elapsed() < std::time::Duration::from_secs(30), "visitors are still taken");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    visitor.write_all(b"still here").unwrap();
    let mut said = [0; 10];
    back.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"still here");
}

#[test]
fn the_line_has_one_family() {
    let line = |from: &str, to: &str| proxy_line(from.parse().unwrap(), to.parse().unwrap());
    assert_eq!(
        line("[::ffff:192.0.2.1]:50000", "[::ffff:192.0.2.9]:4000"),
        "PROXY TCP4 192.0.2.1 192.0.2.9 50000 443\r\n"
    );
    assert_eq!(
        line("[2001:db8::1]:50000", "[2001:db8::9]:4000"),
        "PROXY TCP6 2001:db8::1 2001:db8::9 50000 443\r\n"
    );
}
