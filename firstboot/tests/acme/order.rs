//! One order at Pebble.

use firstboot::acme::{Proof, Request, forget, order};
use firstboot::tls::certificate::{Certificate, now};

use crate::DOMAIN;
use crate::pebble::{Authority, free_ports, serve};

#[test]
fn an_order_ends_with_a_chain_and_its_key() {
    // So many that the client's own three attempts are sometimes not enough, and ours practically always.
    let authority = Authority::start(20, true);
    let (accounts, webroot) = (authority.accounts(), authority.webroot());
    let proof = Proof::Http { webroot: webroot.clone(), server: authority.web };
    let request = Request {
        directory: &authority.directory,
        ca: Some(&authority.ca),
        email: Some("admin@example.net"),
        domain: DOMAIN,
        accounts: &accounts,
        proof: &proof,
        replaces: None,
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
    let authority = Authority::start(0, true);
    let (accounts, webroot) = (authority.accounts(), authority.webroot());
    let proof = Proof::Http { webroot: webroot.clone(), server: authority.web };
    let request = Request {
        directory: &authority.directory,
        ca: Some(&authority.ca),
        email: None,
        domain: DOMAIN,
        accounts: &accounts,
        proof: &proof,
        replaces: None,
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
    let ours = Proof::Http { webroot: empty.clone(), server: authority.web };
    let ours = order(&Request { proof: &ours, ..request.clone() }).unwrap_err();
    assert!(!ours.is_refusal && ours.text.contains("our own web server answers"), "{ours:?}");

    // A directory whose HTTPS nobody vouches for, and one that is not there.
    let untrusted = order(&Request { ca: None, ..request.clone() }).unwrap_err();
    assert!(!untrusted.is_refusal && untrusted.text.contains("certificate"), "{untrusted:?}");
    let [port] = free_ports();
    let absent = order(&Request { directory: &format!("https://localhost:{port}/dir"), ..request.clone() })
        .unwrap_err();
    assert!(!absent.is_refusal && absent.text.contains("refused"), "{absent:?}");

    // The authority looks elsewhere than we do: port 80 of the name leads to another machine.
    let other = Proof::Http { webroot: empty.clone(), server: serve(empty) };
    let seen = order(&Request { proof: &other, ..request }).unwrap_err();
    assert!(seen.is_refusal && seen.text.contains("unauthorized"), "{seen:?}");
}
