//! Orders from a real authority: Pebble, with DNS answers from pebble-challtestsrv, all on loopback.
//!
//! The name has an AAAA record alone, so Pebble looks over IPv6, as an authority does at an instance that has no IPv4.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(clippy::disallowed_methods, reason = "tests set their own scene, in folders that nobody keeps")]

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use firstboot::acme::{Request, forget, order};
use firstboot::tls::certificate::{Certificate, now};

const DOMAIN: &str = "v6don.example.net";

/// Pebble, its name server, and a web server on the webroot; all gone with the value.
struct Authority {
    folder: tempfile::TempDir,
    children: Vec<Child>,
    directory: String,
    ca: String,
    web: SocketAddr,
}

impl Authority {
    /// `rejected` is the share of good nonces in per cent that Pebble refuses, to exercise the client's retries.
    fn start(rejected: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [api, management, dns, control] = free_ports();
        let web = serve(folder.path().join("webroot"));
        let (ca, certificate, key) = authority_tls();
        let write = |name: &str, content: &str| {
            let path = folder.path().join(name);
            fs_err::write(&path, content).unwrap();
            path.display().to_string()
        };
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{api}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": write("pebble.pem", &certificate),
            "privateKey": write("pebble.key", &key),
            "httpPort": web.port(),
            "tlsPort": web.port(),
            "domainBlocklist": ["blocked.example.net"],
        }});
        let config = write("pebble.json", &config.to_string());
        let names = format!("127.0.0.1:{dns}");
        let children = vec![
            spawn(
                "pebble-challtestsrv",
                &[
                    "-defaultIPv4",
                    "",
                    "-defaultIPv6",
                    "::1",
                    "-dns01",
                    &names,
                    "-http01",
                    "",
                    "-https01",
                    "",
                    "-tlsalpn01",
                    "",
                    "-management",
                    &format!("127.0.0.1:{control}"),
                ],
                &[],
            ),
            spawn(
                "pebble",
                &["-config", &config, "-dnsserver", &names],
                &[("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", &rejected.to_string())],
            ),
        ];
        for port in [api, control] {
            wait_for(SocketAddr::from(([127, 0, 0, 1], port)));
        }
        Authority { folder, children, directory: format!("https://localhost:{api}/dir"), ca, web }
    }

    fn accounts(&self) -> PathBuf {
        self.folder.path().join("acme")
    }

    fn webroot(&self) -> PathBuf {
        self.folder.path().join("webroot")
    }

    fn account_keys(&self) -> Vec<Vec<u8>> {
        let files = fs_err::read_dir(self.accounts()).unwrap().map(|entry| entry.unwrap().path());
        files
            .filter(|path| path.extension().is_some_and(|end| end == "der"))
            .map(|path| fs_err::read(path).unwrap())
            .collect()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn an_order_ends_with_a_chain_and_its_key() {
    // So many that the client's own three attempts are sometimes not enough, and ours practically always.
    let authority = Authority::start(20);
    let (accounts, webroot) = (authority.accounts(), authority.webroot());
    let request = Request {
        directory: &authority.directory,
        ca: Some(&authority.ca),
        email: Some("admin@example.net"),
        domain: DOMAIN,
        accounts: &accounts,
        webroot: &webroot,
        server: authority.web,
    };
    let issued = order(&request).unwrap();
    let leaf = Certificate::from_chain(&issued.chain).unwrap();
    assert_eq!(leaf.names, [DOMAIN]);
    assert!(leaf.issuer.contains("Pebble") && !leaf.is_self_signed, "{}", leaf.issuer);
    assert!(leaf.belongs_to(&issued.key) && leaf.is_valid_at(now().unwrap()));
    assert!(issued.chain.matches("BEGIN CERTIFICATE").count() > 1, "the intermediate belongs to the chain");

    // Cut before the certificate was installed: the one that was signed is fetched again.
    let resumed = order(&request).unwrap();
    assert_eq!((&resumed.key, &resumed.chain), (&issued.key, &issued.chain));
    forget(&accounts).unwrap();

    // A second order, as for a renewal: same account, new key.
    let keys = authority.account_keys();
    let renewed = order(&request).unwrap();
    assert_ne!(renewed.key, issued.key);
    assert_eq!(authority.account_keys(), keys);
    let left = fs_err::read_dir(webroot.join(".well-known/acme-challenge")).unwrap().count();
    assert_eq!(left, 0, "answers to challenges stay behind");
}

#[test]
fn failures_say_who_failed() {
    let authority = Authority::start(0);
    let (accounts, webroot) = (authority.accounts(), authority.webroot());
    let request = Request {
        directory: &authority.directory,
        ca: Some(&authority.ca),
        email: None,
        domain: DOMAIN,
        accounts: &accounts,
        webroot: &webroot,
        server: authority.web,
    };

    // The authority's own sentence, and that it counts against its limits.
    let refused = order(&Request { domain: "blocked.example.net", ..request.clone() }).unwrap_err();
    assert!(refused.is_refusal, "{refused:?}");
    assert!(
        refused.text.starts_with("the certificate authority says: ")
            && refused.text.contains("rejectedIdentifier"),
        "{refused:?}"
    );

    // Our own web server does not serve the webroot: the authority is not asked to look.
    let empty = authority.folder.path().join("elsewhere");
    let ours = order(&Request { webroot: &empty, ..request.clone() }).unwrap_err();
    assert!(!ours.is_refusal && ours.text.contains("our own web server answers"), "{ours:?}");

    // A directory whose HTTPS nobody vouches for, and one that is not there.
    let untrusted = order(&Request { ca: None, ..request.clone() }).unwrap_err();
    assert!(!untrusted.is_refusal && untrusted.text.contains("certificate"), "{untrusted:?}");
    let [port] = free_ports();
    let absent = order(&Request { directory: &format!("https://localhost:{port}/dir"), ..request.clone() })
        .unwrap_err();
    assert!(!absent.is_refusal && absent.text.contains("refused"), "{absent:?}");

    // The authority looks elsewhere than we do: port 80 of the name leads to another machine.
    let other = serve(empty.clone());
    let seen = order(&Request { webroot: &empty, server: other, ..request }).unwrap_err();
    assert!(seen.is_refusal && seen.text.contains("unauthorized"), "{seen:?}");
}

/// An authority of our own for Pebble's HTTPS: its certificate, and a leaf for `localhost` with its key.
fn authority_tls() -> (String, String, String) {
    let mut parameters = rcgen::CertificateParams::new([]).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = parameters.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, key);
    let leaf_key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(["localhost".to_owned()])
        .unwrap()
        .signed_by(&leaf_key, &issuer)
        .unwrap();
    (ca.pem(), leaf.pem(), leaf_key.serialize_pem())
}

fn spawn(program: &str, args: &[&str], env: &[(&str, &str)]) -> Child {
    #[expect(clippy::disallowed_methods, reason = "the test's own servers, killed when it ends")]
    let mut command = std::process::Command::new(program);
    command.args(args).envs(env.iter().copied()).stdout(Stdio::null()).stderr(Stdio::null());
    command
        .spawn()
        .unwrap_or_else(|error| panic!("starting `{program}`: {error}; `apt-get install pebble` brings it"))
}

/// Ports that nobody listens on; all are held until the last is known, so that they differ.
fn free_ports<const N: usize>() -> [u16; N] {
    let held: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

fn wait_for(address: SocketAddr) {
    let start = Instant::now();
    while let Err(error) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
        assert!(start.elapsed() < Duration::from_secs(20), "nothing listens on {address}: {error}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A web server on `::1` that serves the files of a folder, until the test's process ends.
fn serve(folder: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away early is its own affair.
            let _ = answer(stream, &folder);
        }
    });
    address
}

fn answer(mut stream: TcpStream, folder: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The whole head, or closing would reset the connection.
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let (status, body) = match fs_err::read_to_string(folder.join(path)) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", String::new()),
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
