//! What settings lack, and what a record keeps.

use super::super::seen::{Address, Seen};
use super::{Good, Record, changes, lack};
use crate::settings::{Network, Settings};

fn network(text: &str) -> Network {
    Settings::parse("test", &format!("schema = 1\ndomain = \"a.example\"\n{text}")).unwrap().network
}

fn good() -> Good {
    let network = Settings::parse("example", Settings::example()).unwrap().network;
    Good { interface: "ens160".to_owned(), network, ipv6_route: true, ipv4_route: true }
}

fn seen(addresses: &[&str], ipv6_route: bool, ipv4_route: bool) -> Seen {
    let address =
        |text: &&str| Address { ip: text.parse().unwrap(), global: true, tentative: false, duplicate: false };
    Seen { addresses: addresses.iter().map(address).collect(), ipv6_route, ipv4_route, ..Seen::default() }
}

#[test]
fn a_record_survives_its_file() {
    let root = tempfile::tempdir().unwrap();
    let record = Record { good: Some(good()), ..Record::default() };
    record.write(root.path()).unwrap();
    assert_eq!(Record::read(root.path()), record);
    fs_err::write(super::path(root.path()), "{\"good\": 1}").unwrap();
    assert_eq!(Record::read(root.path()), Record::default());
}

#[test]
fn every_lack_that_sends_settings_back_is_named() {
    let fixed =
        "[network.ipv4]\nmethod = \"static\"\naddresses = [\"192.0.2.5/24\"]\ngateway = \"192.0.2.1\"";
    let off = "[network.ipv4]\nmethod = \"off\"";
    let silent = ["192.0.2.1".to_owned()];
    for (wanted, seen, silent, expected) in [
        ("", seen(&["2001:db8::5", "192.0.2.5"], true, true), &[][..], "nothing"),
        (fixed, seen(&["2001:db8::5"], true, true), &[], "for the address `192.0.2.5` on `ens160`"),
        (fixed, seen(&["2001:db8::5", "192.0.2.5"], true, false), &[], "`ens160` has no IPv4 default route"),
        (fixed, seen(&["2001:db8::5", "192.0.2.5"], true, true), &silent, "no answer on `ens160` from"),
        ("", seen(&["192.0.2.5"], false, true), &[], "`ens160` has no IPv6 default route"),
        (off, seen(&["2001:db8::5"], true, false), &[], "nothing"),
        (off, seen(&[], true, false), &[], "`ens160` has no address that reaches"),
    ] {
        let found = lack(&good(), &network(wanted), "ens160", &seen, silent);
        let found = found.unwrap_or_else(|| "nothing".to_owned());
        assert!(found.starts_with(expected), "{wanted}: {found}");
    }
}

#[test]
fn what_was_changed_is_named_as_in_the_configuration() {
    let wanted = "[network]\ninterface = \"ens192\"\n[network.ipv4]\nmethod = \"off\"";
    let found = changes(&good(), &network(wanted), "ens192");
    for expected in
        ["network.ipv4.method = \"off\"", "no network.ipv4.gateway", "network.interface = \"ens192\""]
    {
        assert!(found.iter().any(|change| change == expected), "{expected}: {found:?}");
    }
    assert_eq!(changes(&good(), &good().network, "ens192"), ["`ens192` instead of `ens160`"]);
    assert!(changes(&good(), &good().network, "ens160").is_empty());
}
