//! Port 443 led away and back, by the real nftables and the real iptables behind the images' own rules, for a visitor on another computer.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use firstboot::acme::{Divert as _, Gate, Standing};
use firstboot::facts::FirewallBackend;
use firstboot::settings::Listen;
use firstboot::steps::firewall::{Diversion, end_diversion};
use testkit::namespace::{Namespace, enter};

use crate::DOMAIN;

const OVERLAYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../overlays");
const IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const IPV4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// As long as a connection that nobody answers is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// The machine, and a visitor's computer on the same link.
struct Link {
    machine: Namespace,
    visitor: Namespace,
}

impl Link {
    fn new(name: &str) -> Result<Link> {
        let machine = Namespace::create(&format!("{name}-machine"))?;
        let visitor = Namespace::create(&format!("{name}-visitor"))?;
        machine.ip(&format!("link add eth0 type veth peer name eth0 netns {}", visitor.name()))?;
        for (end, last) in [(&machine, 1), (&visitor, 2)] {
            end.ip("link set eth0 up")?;
            end.ip(&format!("addr add 2001:db8:1::{last}/64 dev eth0 nodad"))?;
            end.ip(&format!("addr add 198.51.100.{last}/24 dev eth0"))?;
        }
        // The addresses that visitors know are not the interface's first ones, as with those that a router leads to a machine.
        machine.ip("addr add 2001:db8::1/128 dev lo nodad")?;
        machine.ip("addr add 192.0.2.1/32 dev lo")?;
        visitor.ip("route add 2001:db8::1 via 2001:db8:1::1")?;
        visitor.ip("route add 192.0.2.1 via 198.51.100.1")?;
        Ok(Link { machine, visitor })
    }
}

/// A listener that says its port and the first word to whoever comes, line by line.
fn serve(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
                    let word = line.split(' ').next().unwrap_or_default();
                    let _ = writeln!(stream, "{} {word}", address.port());
                }
            });
        }
    });
    Ok(())
}

/// Somebody who talks to port 443.
struct Visitor(BufReader<TcpStream>);

impl Visitor {
    fn new(ip: IpAddr) -> Result<Visitor> {
        let stream = TcpStream::connect_timeout(&SocketAddr::new(ip, 443), PATIENCE)
            .with_context(|| format!("connecting to {ip}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Visitor(BufReader::new(stream)))
    }

    fn hears(&mut self, expected: &[&str]) -> Result<()> {
        writeln!(self.0.get_mut(), "hello")?;
        for expected in expected {
            let mut line = String::new();
            self.0.read_line(&mut line).with_context(|| format!("waiting for `{expected}`"))?;
            ensure!(line.trim_end() == *expected, "`{line}` and not `{expected}`");
        }
        Ok(())
    }
}

const DIRECT: &[&str] = &["443 hello"];
const HANDED_ON: &[&str] = &["488 PROXY", "488 hello"];

fn exercise(link: &Link, backend: FirewallBackend) -> Result<()> {
    let inner = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 488);
    let serving = || {
        serve(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 443))?;
        serve(inner)
    };
    enter(link.machine.name(), serving)?;
    let visits = |ip| enter(link.visitor.name(), move || Visitor::new(ip));
    let root = tempfile::tempdir()?;
    // They live on over the rounds, as visitors do over orders.
    let mut handed_on = Vec::new();
    for (listen, families) in
        [(Listen::Ipv6, [true, false]), (Listen::Dual, [true, true]), (Listen::Ipv4, [false, true])]
    {
        let (any, own) = match listen {
            Listen::Ipv4 => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into()),
            _ => (IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::LOCALHOST)),
        };
        let gate = Gate {
            listen: SocketAddr::new(any, 0),
            front: SocketAddr::new(own, 443),
            web: inner,
            diversion: Some(Arc::new(Diversion::new(backend, listen, root.path()))),
        };
        let mut before = visits(IPV6)?;
        before.hears(DIRECT)?;
        // Made and dropped inside, as programs are started for both; what happens between is told from outside.
        let during = enter(link.machine.name(), || {
            let standing = Standing::put(&gate, DOMAIN, &[7; 32])?;
            standing.look(gate.front).context("looking at the answer from inside")?;
            let mut during = Vec::new();
            for (ip, is_led) in [IPV6, IPV4].into_iter().zip(families) {
                let port_443 = SocketAddr::new(ip, 443);
                if is_led {
                    enter(link.visitor.name(), || standing.look(port_443)).context("as an authority")?;
                }
                let mut visitor = visits(ip)?;
                visitor.hears(if is_led { HANDED_ON } else { DIRECT }).context("while it is led away")?;
                if is_led {
                    during.push(visitor);
                }
            }
            Ok(during)
        })?;
        before.hears(DIRECT).context("a connection from before")?;
        handed_on.extend(during);
        for visitor in &mut handed_on {
            visitor.hears(&["488 hello"]).context("a connection that was handed on, afterwards")?;
        }
        for ip in [IPV6, IPV4] {
            visits(ip)?.hears(DIRECT).context("a connection from afterwards")?;
        }
    }
    // Killed while it was led away: the process is gone with its socket, and nothing was dropped.
    let left = Diversion::new(backend, Listen::Dual, root.path());
    enter(link.machine.name(), || {
        std::mem::forget(left.to(9)?);
        Ok(())
    })?;
    ensure!(visits(IPV6).is_err(), "port 443 was to be dead");
    enter(link.machine.name(), || end_diversion(root.path()))?;
    for ip in [IPV6, IPV4] {
        visits(ip)?.hears(DIRECT).context("a connection after a kill")?;
    }
    enter(link.machine.name(), || end_diversion(root.path())).context("ending what is ended")
}

/// Puts rules in force, those that are wanted.
fn load(link: &Link, rules: &[(&str, &str)], is_wanted: fn(&str) -> bool) {
    for (program, file) in rules {
        let text = fs_err::read_to_string(format!("{OVERLAYS}/{file}")).unwrap();
        let text: String = text.split_inclusive('\n').filter(|rule| is_wanted(rule)).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), text).unwrap();
        let file = file.path().to_str().unwrap();
        let args: &[&str] = if *program == "nft" { &["-f", file] } else { &[file] };
        link.machine.run(program, args).unwrap();
    }
}

/// In networks of their own; nothing where this machine lets nobody make one, or lacks the program.
#[expect(clippy::print_stderr, reason = "a test that was skipped says so")]
fn alone(name: &str, backend: FirewallBackend, program: &str, rules: &[(&str, &str)]) {
    if !rustix::process::geteuid().is_root() || testkit::run(Path::new("which"), &[program.as_ref()]).is_err()
    {
        eprintln!("skipped: there is no `{program}` here, or no network of one's own");
        return;
    }
    let link = Link::new(name).unwrap();
    exercise(&link, backend).context("without a firewall").unwrap();
    let link = Link::new(&format!("{name}-walled")).unwrap();
    load(&link, rules, |_| true);
    exercise(&link, backend).context("behind the image's rules").unwrap();
    // As an operator may have them who keeps rules of his own.
    let link = Link::new(&format!("{name}-edited")).unwrap();
    load(&link, rules, |rule| !rule.to_lowercase().contains("dnat "));
    let said = format!("{:#}", exercise(&link, backend).unwrap_err());
    assert!(said.contains("the firewall's rules were changed and lack `"), "{said}");
}

#[test]
fn nftables_leads_new_connections_alone_and_back() {
    let rules = [("nft", "debian/root/etc/nftables.conf")];
    alone("nft", FirewallBackend::Nftables, "nft", &rules);
}

#[test]
fn iptables_leads_new_connections_alone_and_back() {
    let folder = "centos7/root/etc/sysconfig";
    let rules = [
        ("iptables-restore", format!("{folder}/iptables")),
        ("ip6tables-restore", format!("{folder}/ip6tables")),
    ];
    let rules: Vec<(&str, &str)> = rules.iter().map(|(program, file)| (*program, file.as_str())).collect();
    alone("ipt", FirewallBackend::Iptables, "iptables", &rules);
}
