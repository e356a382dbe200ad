//! The dialogue with relays of one connection each, which say what a script says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{Dialogue, Encryption, Login, Mechanism, Refusal};

/// What a relay answers to a line that begins so; everything else with 250.
type Script = &'static [(&'static str, &'static str)];

/// Speaks to one client; sends what it was told when the client has gone.
fn relay(greeting: &'static str, script: Script) -> (u16, Receiver<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, told) = channel();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut lines = Vec::new();
        // A client that goes away early is its own affair.
        let _ = (&stream).write_all(greeting.as_bytes());
        if speak(&stream, &stream, script, &mut lines).is_ok_and(|encrypts| encrypts) {
            let mut stream = StreamOwned::new(ServerConnection::new(certificate()).unwrap(), stream);
            let mut reader = vec![];
            let _ = speak_encrypted(&mut stream, script, &mut lines, &mut reader);
        }
        let _ = sender.send(lines);
    });
    (port, told)
}

fn answer(script: Script, line: &str) -> &'static str {
    script.iter().find(|(start, _)| line.starts_with(start)).map_or("250 fine\r\n", |(_, answer)| answer)
}

fn speak(
    reader: &TcpStream,
    mut writer: &TcpStream,
    script: Script,
    lines: &mut Vec<String>,
) -> std::io::Result<bool> {
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        lines.push(line.trim_end().to_owned());
        let answer = answer(script, &line);
        writer.write_all(answer.as_bytes())?;
        if line.starts_with("STARTTLS") && answer.starts_with("220 go\r\n") {
            return Ok(true);
        }
        line.clear();
    }
    Ok(false)
}

fn speak_encrypted(
    stream: &mut StreamOwned<ServerConnection, TcpStream>,
    script: Script,
    lines: &mut Vec<String>,
    line: &mut Vec<u8>,
) -> std::io::Result<()> {
    let mut byte = [0];
    while stream.read(&mut byte)? > 0 {
        line.push(byte[0]);
        if byte == *b"\n" {
            let text = String::from_utf8_lossy(line).trim_end().to_owned();
            line.clear();
            stream.write_all(answer(script, &text).as_bytes())?;
            lines.push(format!("encrypted {text}"));
        }
    }
    Ok(())
}

/// Every relay's certificate, which is for `localhost`, and its key.
static PAIR: LazyLock<(String, String)> =
    LazyLock::new(|| crate::tls::selfsigned::make("localhost", 0, 4_000_000_000).unwrap());

fn certificate() -> Arc<ServerConfig> {
    let (chain, key) = &*PAIR;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

fn dialogue(port: u16) -> Dialogue {
    Dialogue {
        relay: "127.0.0.1".to_owned(),
        port,
        helo: "v6don.example.net".to_owned(),
        encryption: Encryption::Offered,
        verify: false,
        ca: None,
        login: None,
        from: "words@example.net".to_owned(),
        to: "alice@example.net".to_owned(),
        patience: Duration::from_secs(5),
    }
}

fn with_login(mechanism: Mechanism, port: u16) -> Dialogue {
    let login = Login { user: "words".to_owned(), password: "hunter2".to_owned(), mechanism };
    Dialogue { login: Some(login), ..dialogue(port) }
}

fn refused(script: Script) -> Refusal {
    let (port, _told) = relay("220 relay\r\n", script);
    dialogue(port).run().unwrap_err()
}

#[test]
fn a_relay_that_takes_mail_is_asked_everything_but_the_message() {
    let (port, told) = relay(
        "220-relay\r\n220 at your service\r\n",
        &[("EHLO", "250-relay\r\n250 SIZE 1000\r\n"), ("RCPT", "251 will forward\r\n")],
    );
    dialogue(port).run().unwrap();
    assert_eq!(
        told.recv().unwrap(),
        [
            "EHLO v6don.example.net",
            "MAIL FROM:<words@example.net>",
            "RCPT TO:<alice@example.net>",
            "RSET",
            "QUIT"
        ]
    );
    let (port, told) = relay("220 old\r\n", &[("EHLO", "502 what\r\n")]);
    dialogue(port).run().unwrap();
    assert_eq!(told.recv().unwrap()[1], "HELO v6don.example.net");
}

#[test]
fn refusals_are_in_the_relays_words() {
    let check = |script, expected: &str| assert_eq!(refused(script).to_string(), expected);
    check(&[("RCPT", "554 relay access denied\r\n")], "it answers RCPT TO with `554 relay access denied`");
    check(&[("MAIL", "550-not\r\n550 you\x1b[2J\r\n")], "it answers MAIL FROM with `550 not you[2J`");
    check(&[("RCPT", "451 greylisted\r\n")], "it answers RCPT TO with `451 greylisted`");
    let (port, _told) = relay("554 no service\r\n", &[]);
    assert_eq!(
        dialogue(port).run().unwrap_err().to_string(),
        "it answers the connection with `554 no service`"
    );
}

#[test]
fn a_login_is_said_as_the_application_says_it_and_never_shown() {
    let (port, told) = relay("220 relay\r\n", &[("AUTH", "235 welcome\r\n")]);
    with_login(Mechanism::Plain, port).run().unwrap();
    assert_eq!(told.recv().unwrap()[1], "AUTH PLAIN AHdvcmRzAGh1bnRlcjI=");

    let (port, told) =
        relay("220 relay\r\n", &[("AUTH", "334 u\r\n"), ("d29yZHM=", "334 p\r\n"), ("aHVu", "235 ok\r\n")]);
    with_login(Mechanism::Login, port).run().unwrap();
    assert_eq!(told.recv().unwrap()[1..4], ["AUTH LOGIN", "d29yZHM=", "aHVudGVyMg=="]);

    let script = &[("AUTH", "535 hunter2 and AHdvcmRzAGh1bnRlcjI= are wrong\r\n")];
    let (port, _told) = relay("220 relay\r\n", script);
    let said = with_login(Mechanism::Plain, port).run().unwrap_err().to_string();
    assert_eq!(said, "it answers AUTH with `535 (redacted) and (redacted) are wrong`");
}

#[test]
fn starttls_is_taken_and_its_certificate_looked_at_only_when_it_must_be_valid() {
    const SCRIPT: Script = &[("EHLO", "250-relay\r\n250 STARTTLS\r\n"), ("STARTTLS", "220 go\r\n")];
    let (port, told) = relay("220 relay\r\n", SCRIPT);
    dialogue(port).run().unwrap();
    let told = told.recv().unwrap();
    assert_eq!(
        told[1..4],
        ["STARTTLS", "encrypted EHLO v6don.example.net", "encrypted MAIL FROM:<words@example.net>"]
    );

    let strict = |relay: &str, ca: &str| {
        let (port, _told) = self::relay("220 relay\r\n", SCRIPT);
        let (relay, ca) = (relay.to_owned(), Some(ca.to_owned()));
        Dialogue { relay, verify: true, ca, ..dialogue(port) }.run()
    };
    strict("localhost", &PAIR.0).unwrap();
    let (other, _) = crate::tls::selfsigned::make("localhost", 0, 4_000_000_000).unwrap();
    for (relay, ca) in [("localhost", &other), ("127.0.0.1", &PAIR.0)] {
        let error = strict(relay, ca).unwrap_err();
        assert!(matches!(&error, Refusal::Tls(why) if why.contains("certificate")), "{error}");
    }
}

/// Without the guard the encryption would come about, and the dialogue would end well.
#[test]
fn bytes_that_a_third_party_puts_before_the_encryption_end_the_dialogue() {
    let script = &[("EHLO", "250-relay\r\n250 STARTTLS\r\n"), ("STARTTLS", "220 go\r\n250 injected\r\n")];
    assert_eq!(refused(script), Refusal::Foreign("bytes before the encryption".to_owned()));
}

/// Each read has its byte in time; only the whole has not.
#[test]
fn a_handshake_that_comes_byte_by_byte_ends_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let relay = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // A record of the handshake with 16 KiB, that many times 20 ms.
        let _ = stream.write_all(&[22, 3, 3, 0x40, 0]);
        while stream.write_all(&[0]).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let patience = Duration::from_millis(100);
    let hurried = Dialogue { encryption: Encryption::Implicit, patience, ..dialogue(port) };
    let start = Instant::now();
    assert_eq!(hurried.run().unwrap_err().to_string(), "it does not answer in time");
    assert!((patience * 8..Duration::from_secs(20)).contains(&start.elapsed()));
    relay.join().unwrap();
}

#[test]
fn what_is_no_relay_costs_neither_time_nor_memory() {
    let (port, _told) = relay("HTTP/1.1 400 Bad Request\r\n\r\n", &[]);
    assert_eq!(
        dialogue(port).run().unwrap_err().to_string(),
        "it does not speak SMTP: it says `HTTP/1.1 400 Bad Request`"
    );

    let (port, _told) = relay("", &[]);
    let start = Instant::now();
    let hurried = Dialogue { patience: Duration::from_millis(200), ..dialogue(port) };
    assert_eq!(hurried.run().unwrap_err().to_string(), "it does not answer in time");
    assert!(start.elapsed() < Duration::from_secs(4));

    let huge: &'static str = Box::leak("2".repeat(1 << 20).into_boxed_str());
    let (port, _told) = relay(huge, &[]);
    assert_eq!(dialogue(port).run().unwrap_err(), Refusal::Foreign("more than any reply has".to_owned()));
    let endless: &'static str = Box::leak("220-on\r\n".repeat(100).into_boxed_str());
    let (port, _told) = relay(endless, &[]);
    assert_eq!(dialogue(port).run().unwrap_err(), Refusal::Foreign("more than any reply has".to_owned()));

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(
        dialogue(port).run().unwrap_err(),
        Refusal::Unreachable(format!("nobody listens on 127.0.0.1:{port}"))
    );
}
