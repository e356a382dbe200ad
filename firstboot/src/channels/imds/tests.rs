//! A metadata service on the loopback, good and bad, and machines that say whose they are.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

use super::*;

/// Long enough for a busy machine: nobody waits for it where an answer comes.
const PATIENT: Duration = Duration::from_secs(20);
/// For the answer that never comes.
const SHORT: Duration = Duration::from_millis(300);

/// A server that gives each connection its answer, and tells what it was asked.
fn server(address: &str, answers: Vec<Vec<u8>>) -> Option<(SocketAddr, Receiver<String>)> {
    let listener = TcpListener::bind(address).ok()?;
    let place = listener.local_addr().unwrap();
    let (sender, asked) = channel();
    std::thread::spawn(move || {
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut head = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|count| count > 0) {}
            let _ = sender.send(head);
            let _ = stream.write_all(&answer);
            if answer.is_empty() {
                // Says nothing, but holds the connection until the other side gives up.
                let _ = reader.read_line(&mut String::new());
            }
        }
    });
    Some((place, asked))
}

fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nServer: EC2ws\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn said(answers: Vec<Vec<u8>>) -> String {
    let (place, _) = server("127.0.0.1:0", answers).unwrap();
    told(place, PATIENT)
}

fn told(place: SocketAddr, patience: Duration) -> String {
    match ask(&[place], patience) {
        Ok(Asked::Offer(offer)) => format!("{}: {}", offer.source, offer.text),
        Ok(Asked::Nothing) => "nothing".to_owned(),
        Ok(Asked::Silent(text)) => format!("silent: {text}"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn user_data_is_fetched_with_a_token() {
    let ours = "schema = 1\ndomain = \"a.example\"\n";
    for address in ["127.0.0.1:0", "[::1]:0"] {
        // A machine without IPv6 has one address less to test with.
        let Some((place, asked)) =
            server(address, vec![answer("200 OK", b"dG9rZW4="), answer("200 OK", ours.as_bytes())])
        else {
            assert!(address.starts_with('['));
            continue;
        };
        // The first place refuses the connection, as where there is no route.
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let Ok(Asked::Offer(offer)) = ask(&[gone, place], PATIENT) else { panic!("no offer from {address}") };
        assert_eq!((offer.source.as_str(), offer.text.as_str()), (SOURCE, ours));
        let first = asked.recv().unwrap();
        assert!(first.starts_with("PUT /latest/api/token HTTP/1.1\r\n"), "{first}");
        assert!(first.contains("\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n"), "{first}");
        let second = asked.recv().unwrap();
        assert!(second.starts_with("GET /latest/user-data HTTP/1.1\r\n"), "{second}");
        assert!(second.contains("\r\nX-aws-ec2-metadata-token: dG9rZW4=\r\n"), "{second}");
    }
}

#[test]
fn every_other_answer_is_told() {
    let token = || answer("200 OK", b"token");
    assert_eq!(said(vec![token(), answer("404 Not Found", b"<html>")]), "nothing");
    assert_eq!(said(vec![token(), answer("200 OK", b"")]), "nothing");
    for (answers, part) in [
        (vec![answer("403 Forbidden", b"")], "switched off"),
        (vec![answer("405 Not Allowed", b"")], "status 405"),
        (vec![answer("200 OK", b"a\r\nHost: b")], "a token that is none"),
        (vec![answer("200 OK", b"")], "a token that is none"),
        (vec![answer("200 OK", &[b'a'; 2000])], "a token that is none"),
        (vec![token(), answer("401 Unauthorized", b"")], "status 401"),
        (vec![token(), answer("200 OK", b"#cloud-config\n")], "is a cloud-config"),
        (vec![token(), answer("200 OK", b"#!/bin/sh\n")], "is a script"),
        (
            vec![token(), answer("200 OK", b"schema = 1\n[mail]\npassword = \"hunter2\"\n")],
            "user-data of EC2: key `mail.password`: everybody on this machine can read EC2's user-data",
        ),
        (vec![token(), answer("200 OK", b"ab")[..40].to_vec()], "not HTTP, or is cut short"),
        (vec![token(), answer("200 OK", &vec![b'#'; 2 << 20])], "larger than 1 MiB"),
        (vec![b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()], "not HTTP"),
    ] {
        let message = said(answers);
        assert!(
            message.starts_with("asking EC2's metadata at `127.0.0.1:")
                && message.contains(part)
                && !message.contains("hunter2"),
            "{message}"
        );
    }
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let Ok(Asked::Silent(text)) = ask(&[gone], PATIENT) else { panic!("somebody answered") };
    assert!(text.contains("mastodon.imds=off"), "{text}");
}

#[test]
fn what_passes_is_asked_again() {
    let token = || answer("200 OK", b"token");
    for answers in [
        vec![answer("503 Service Unavailable", b"")],
        vec![answer("429 Too Many Requests", b"")],
        vec![token(), answer("500 Internal Server Error", b"")],
    ] {
        let message = said(answers);
        assert!(message.starts_with("silent: ") && message.contains("status "), "{message}");
    }
    // One that holds the connection and says nothing.
    let (place, _) = server("127.0.0.1:0", vec![Vec::new()]).unwrap();
    let message = told(place, SHORT);
    assert!(message.starts_with("silent: ") && !message.contains("refused"), "{message}");
}

#[test]
fn only_a_machine_of_ec2_asks() {
    for (files, expected) in [
        (&[][..], false),
        (&[("sys/class/dmi/id/sys_vendor", "QEMU\n")], false),
        (&[("sys/class/dmi/id/sys_vendor", "Amazon EC2\n")], true),
        (
            &[("sys/class/dmi/id/sys_vendor", "Amazon EC2\n"), ("proc/cmdline", "quiet mastodon.imds=off\n")],
            false,
        ),
        (&[("proc/cmdline", "quiet mastodon.imds=on\n")], true),
        (
            &[("sys/class/dmi/id/bios_version", "4.11.amazon\n"), ("sys/hypervisor/uuid", "ec2e1916-9099\n")],
            true,
        ),
        (
            &[
                ("sys/class/dmi/id/bios_version", "4.11.amazon\n"),
                ("sys/class/dmi/id/product_uuid", "45E12AEC-DCD1\n"),
            ],
            true,
        ),
        (&[("sys/class/dmi/id/product_uuid", "EC2E1916-9099\n")], false),
    ] {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        assert_eq!(is_wanted(root.path()), expected, "{files:?}");
        assert!(matches!(look(root.path()), Ok(Asked::Nothing)), "a machine below another root");
    }
}
