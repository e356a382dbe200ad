//! Every fault is told apart, with what was seen, by whom, and what to do.

use std::net::{IpAddr, SocketAddr};

use super::look::{CaaSeen, Seen, Source};
use super::{Question, caa, fingerprint, reach, targets};
use crate::acme::Proof;
use crate::dns::{Caa, Data, Record, Reply};
use crate::settings::Listen;

const DOMAIN: &str = "v6don.example.net";
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 53)), 53);

fn reply(addresses: &str) -> Result<Reply, String> {
    let record = |ip: &str| Record {
        name: DOMAIN.to_owned(),
        kind: 0,
        ttl: 60,
        data: Data::Address(ip.parse().unwrap()),
    };
    match addresses {
        "" => Ok(Reply::Nothing),
        "none" => Ok(Reply::NoName),
        "dead" => Err("does not answer within 4 s".to_owned()),
        _ => Ok(Reply::Records(addresses.split(' ').map(record).collect())),
    }
}

fn source(name: &str, is_of_zone: bool, aaaa: &str, a: &str) -> Source {
    Source { name: format!("`{name}`"), server: SERVER, is_of_zone, aaaa: reply(aaaa), a: reply(a) }
}

fn seen(sources: Vec<Source>) -> Seen {
    Seen { sources, caa: CaaSeen::None }
}

fn ips(text: &str) -> Vec<IpAddr> {
    text.split_whitespace().map(|ip| ip.parse().unwrap()).collect()
}

#[test]
fn every_fault_of_the_addresses_is_named_with_its_remedy() {
    use Listen::{Dual, Ipv4, Ipv6};
    let home = "2001:db8::101 192.168.100.154";
    let public = "2001:db8::101 198.51.100.7";
    for (listen, own, aaaa, a, expected) in [
        (Ipv6, home, "2001:db8::101", "", ""),
        (Ipv6, home, "2001:db8::101", "203.0.113.9", ""),
        (Dual, home, "2001:db8::101", "203.0.113.9", ""),
        (Dual, home, "", "203.0.113.9", ""),
        (Dual, public, "2001:db8::101", "198.51.100.7", ""),
        (Ipv4, home, "", "203.0.113.9", ""),
        (
            Ipv6,
            home,
            "",
            "",
            "`v6don.example.net` has no AAAA record, as `r` says: add `v6don.example.net. AAAA 2001:db8::101`",
        ),
        (Ipv6, home, "", "203.0.113.9", "`v6don.example.net` has no AAAA record"),
        (
            Ipv4,
            public,
            "",
            "",
            "`v6don.example.net` has no A record, as `r` says: add `v6don.example.net. A 198.51.100.7`",
        ),
        (
            Dual,
            home,
            "",
            "",
            "`v6don.example.net` has no address, as `r` says: add `v6don.example.net. AAAA 2001:db8::101` or `v6don.example.net. A (the public IPv4 address that leads here)`",
        ),
        (
            Ipv6,
            home,
            "none",
            "none",
            "`v6don.example.net` does not exist, as `r` says: add `v6don.example.net. AAAA 2001:db8::101`",
        ),
        (
            Dual,
            public,
            "2001:db8::bad",
            "198.51.100.7",
            "the AAAA record of `v6don.example.net` leads to `2001:db8::bad`, as `r` says, and this machine has `2001:db8::101`: change the record to `2001:db8::101` (a right A record beside it does not help: an authority prefers IPv6)",
        ),
        (
            Ipv6,
            home,
            "2001:db8::101 2001:db8::bad",
            "",
            "the AAAA record of `v6don.example.net` leads to `2001:db8::bad`",
        ),
        (
            Dual,
            public,
            "2001:db8::101",
            "198.51.100.8",
            "the A record of `v6don.example.net` leads to `198.51.100.8`, as `r` says, and this machine has `198.51.100.7`",
        ),
        (Dual, home, "2001:db8::101", "10.0.0.1", "the A record of `v6don.example.net` leads to `10.0.0.1`"),
        (
            Dual,
            "198.51.100.7",
            "2001:db8::bad",
            "198.51.100.7",
            "the AAAA record of `v6don.example.net` leads to `2001:db8::bad`, as `r` says, and this machine has no IPv6 address: remove the record",
        ),
        (
            Ipv4,
            public,
            "2001:db8::101",
            "198.51.100.7",
            "`v6don.example.net` has the AAAA record `2001:db8::101`, as `r` says, and an authority prefers IPv6",
        ),
        (
            Ipv6,
            home,
            "dead",
            "dead",
            "no DNS answer for `v6don.example.net`: `r` does not answer within 4 s; check the network",
        ),
    ] {
        let own = ips(own);
        let question = Question { domain: DOMAIN, listen, own: &own };
        let said = targets(&question, &seen(vec![source("r", false, aaaa, a)])).err().unwrap_or_default();
        let is_right = if expected.is_empty() { said.is_empty() } else { said.starts_with(expected) };
        assert!(is_right, "{listen:?} {aaaa} {a}\n{said}\n{expected}");
    }
}

#[test]
fn the_zones_own_servers_decide_and_each_of_them_must_be_right() {
    let own = ips("2001:db8::101");
    let question = Question { domain: DOMAIN, listen: Listen::Ipv6, own: &own };
    let right = "2001:db8::101";
    for (sources, expected) in [
        // What the house remembers or hides is no obstacle.
        (vec![source("r", false, "fd00::1", ""), source("n", true, right, "")], ""),
        (vec![source("r", false, right, ""), source("n", true, "", "")], "as `n` says"),
        (vec![source("n", true, right, ""), source("m", true, "2001:db8::bad", "")], "as `m` says"),
        (vec![source("r", false, right, ""), source("n", true, "dead", "")], ""),
        (vec![source("r", false, "dead", "dead"), source("s", false, right, "")], ""),
        (vec![source("r", false, "", ""), source("s", false, right, "")], "as `r` says"),
        (vec![], "no DNS server is known"),
    ] {
        let said = targets(&question, &seen(sources)).err().unwrap_or_default();
        assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{expected}: {said}");
    }
}

fn with_caa(records: &[(bool, &str, &str)]) -> Seen {
    let record = |(is_critical, tag, value): &(bool, &str, &str)| Caa {
        is_critical: *is_critical,
        tag: (*tag).to_owned(),
        value: (*value).to_owned(),
    };
    let records = records.iter().map(record).collect();
    Seen { sources: Vec::new(), caa: CaaSeen::Records { owner: "example.net".to_owned(), ttl: 300, records } }
}

#[test]
fn caa_is_read_as_an_authority_reads_it() {
    let ours = ["ca.example".to_owned(), "also.example".to_owned()];
    let forbids = "the CAA records of `example.net` (`issue";
    for (records, identities, expected) in [
        (&[(false, "issue", "ca.example")][..], &ours[..], ""),
        (&[(false, "issue", " CA.example ; a=b")], &ours, ""),
        (&[(false, "issue", "other.example"), (false, "issue", "also.example")], &ours, ""),
        (&[(false, "iodef", "mailto:a@example.net"), (false, "issuewild", ";")], &ours, ""),
        (&[(false, "issue", "other.example")], &ours, forbids),
        (&[(false, "issue", ";")], &ours, forbids),
        (&[(false, "issue", "")], &[], forbids),
        (&[(false, "issue", "other.example")], &[], ""),
        (&[(true, "tbs", "x")], &ours, "the CAA record `tbs` of `example.net` is critical"),
        (&[(false, "tbs", "x")], &ours, ""),
        (
            &[(false, "issue", "ca.example; validationmethods=dns-01")],
            &ours,
            "the CAA record `issue \"ca.example; validationmethods=dns-01\"` of `example.net` does not allow http-01",
        ),
        (&[(false, "issue", "ca.example; validationmethods=dns-01,http-01")], &ours, ""),
    ] {
        let said = caa(DOMAIN, identities, "http-01", &with_caa(records)).err().unwrap_or_default();
        let is_right = if expected.is_empty() { said.is_empty() } else { said.starts_with(expected) };
        assert!(is_right, "{records:?}\n{said}");
    }
    assert_eq!(
        caa(DOMAIN, &ours, "http-01", &with_caa(&[(false, "issue", "other.example")])).unwrap_err(),
        "the CAA records of `example.net` (`issue \"other.example\"`) forbid this authority to sign for `v6don.example.net`: add \
         `example.net. CAA 0 issue \"ca.example\"`; resolvers remember the old records for 300 s"
    );
    let silent = Seen { sources: Vec::new(), caa: CaaSeen::Unknown("`r` answers SERVFAIL".to_owned()) };
    assert!(
        caa(DOMAIN, &ours, "http-01", &silent)
            .unwrap_err()
            .starts_with("`r` answers SERVFAIL, and an authority does not sign")
    );
    assert_eq!(caa(DOMAIN, &ours, "http-01", &Seen::default()), Ok(()));
}

#[test]
fn a_fingerprint_changes_with_what_an_authority_would_see() {
    let own = ips("2001:db8::101 2001:db8::f00d");
    let less = ips("2001:db8::101");
    let print = |own: &[IpAddr], sources| {
        fingerprint(&Question { domain: DOMAIN, listen: Listen::Dual, own }, &seen(sources))
    };
    let first = print(&own, vec![source("r", false, "2001:db8::101", "192.0.2.1 192.0.2.2")]);
    assert!(first.is_some());
    let same =
        vec![source("s", false, "2001:db8::101", "192.0.2.2 192.0.2.1"), source("t", false, "dead", "dead")];
    assert_eq!(print(&own, same), first, "whoever answers, in whatever order");
    assert_eq!(
        print(&less, vec![source("r", false, "2001:db8::101", "192.0.2.1 192.0.2.2")]),
        first,
        "an address of no name"
    );
    for (aaaa, a) in [
        ("2001:db8::102", "192.0.2.1 192.0.2.2"),
        ("", "192.0.2.1 192.0.2.2"),
        ("2001:db8::101", "192.0.2.1"),
    ] {
        assert_ne!(print(&own, vec![source("r", false, aaaa, a)]), first, "{aaaa} {a}");
    }
    assert_ne!(
        print(&ips("2001:db8::1"), vec![source("r", false, "2001:db8::101", "192.0.2.1 192.0.2.2")]),
        first,
        "no longer ours"
    );
    assert_eq!(print(&own, vec![source("r", false, "dead", "dead")]), None);
}

#[test]
fn a_shut_port_is_an_error_of_ours_and_a_router_that_does_not_turn_back_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    for is_own in [true, false] {
        let target = super::Target { ip: "127.0.0.1".parse().unwrap(), is_own };
        let server = SocketAddr::new(target.ip, port);
        let proof = Proof::Http { webroot: folder.path().to_owned(), server };
        let said = reach(DOMAIN, &[target], &proof);
        let text = if is_own { said.unwrap_err() } else { said.unwrap().unwrap() };
        assert!(
            text.starts_with("`http://v6don.example.net/.well-known/acme-challenge/appliance-"),
            "{text}"
        );
        assert!(text.contains("at `127.0.0.1` could not be fetched: "), "{text}");
    }
    let left = fs_err::read_dir(folder.path().join(crate::acme::CHALLENGES)).unwrap().count();
    assert_eq!(left, 0);
}
