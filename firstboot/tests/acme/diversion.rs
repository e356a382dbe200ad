//! Port 443 led away by the real nftables and the real iptables, and back.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use firstboot::acme::{Gate, Standing};
use firstboot::facts::FirewallBackend;
use firstboot::settings::Listen;
use firstboot::steps::firewall::Diversion;
use testkit::namespace::{Namespace, enter};

use crate::DOMAIN;

/// A listener that says where it stands to whoever comes.
fn serve(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut line = String::new();
                let _ = BufReader::new(&stream).read_line(&mut line);
                let _ = write!(stream, "{} {line}", address.port());
                // To its end, or what was not read would reset the connection.
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            });
        }
    });
    Ok(())
}

/// What a visitor who says something hears at an address.
fn heard(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    writeln!(stream, "hello")?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    Ok(line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

fn exercise(backend: FirewallBackend) -> Result<()> {
    let ipv6 = |port| SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port);
    let ipv4 = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let inner = ipv4(8443);
    serve(ipv6(443))?;
    serve(ipv4(443))?;
    serve(inner)?;
    for (listen, families) in
        [(Listen::Ipv6, [true, false]), (Listen::Dual, [true, true]), (Listen::Ipv4, [false, true])]
    {
        let is_ipv4 = listen == Listen::Ipv4;
        let gate = Gate {
            listen: if is_ipv4 {
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)
            } else {
                SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)
            },
            front: if is_ipv4 { ipv4(443) } else { ipv6(443) },
            web: inner,
            diversion: Some(Arc::new(Diversion::new(backend, listen))),
        };
        let before = TcpStream::connect(gate.front)?;
        let standing = Standing::put(&gate, DOMAIN, &[7; 32])?;
        standing.look(gate.front).context("looking at the answer")?;
        for (address, is_led) in [ipv6(443), ipv4(443)].into_iter().zip(families) {
            let expected = if is_led { "8443 PROXY" } else { "443 hello" };
            let said = heard(address)?;
            ensure!(said == expected, "{listen:?}, {address}: `{said}` and not `{expected}`");
        }
        drop(standing);
        writeln!(&before, "hello")?;
        let mut line = String::new();
        BufReader::new(&before).read_line(&mut line)?;
        ensure!(line == "443 hello\n", "a connection from before was led away: {line}");
        for address in [ipv6(443), ipv4(443)] {
            let said = heard(address)?;
            ensure!(said == "443 hello", "{listen:?}, {address}, afterwards: {said}");
        }
    }
    Ok(())
}

/// In a network of its own; nothing where this machine lets nobody make one, or lacks the program.
#[expect(clippy::print_stderr, reason = "a test that was skipped says so")]
fn alone(program: &str, backend: FirewallBackend) {
    if !rustix::process::geteuid().is_root() || testkit::run("which".as_ref(), &[program.as_ref()]).is_err() {
        eprintln!("skipped: there is no `{program}` here, or no network of one's own");
        return;
    }
    let namespace = Namespace::create(program).unwrap();
    enter(namespace.name(), || exercise(backend)).unwrap();
}

#[test]
fn nftables_leads_new_connections_alone_and_back() {
    alone("nft", FirewallBackend::Nftables);
}

#[test]
fn iptables_leads_new_connections_alone_and_back() {
    alone("iptables", FirewallBackend::Iptables);
}
