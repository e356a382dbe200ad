//! What stands in the way of a certificate, what is said about it, and what it costs.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use firstboot::acme::{Gate, Proof};
use firstboot::settings::{Listen, Preflight};
use firstboot::steps::certificate::authority::Plan;
use firstboot::tls::certificate::Certificate;
use firstboot::tls::moment::Moment;
use testkit::acme_stub::{AcmeStub, Fault};

use crate::DOMAIN;
use crate::pebble::{Authority, Names, free_ports, serve};

/// A plan for a folder; the web server serves the folder's webroot.
fn plan(folder: &Path, directory: &str, ca: &str, resolver: SocketAddr, server: SocketAddr) -> Plan {
    Plan {
        folder: folder.join("acme"),
        proof: Proof::Http { webroot: folder.join("webroot"), server },
        domain: DOMAIN.to_owned(),
        directory: directory.to_owned(),
        rehearsal: None,
        ca: Some(ca.to_owned()),
        email: None,
        preflight: Preflight::Strict,
        listen: Listen::Ipv6,
        own: vec!["2001:db8::101".parse().unwrap(), "::1".parse().unwrap()],
        resolvers: vec![resolver],
        zone_port: 53,
        replaces: None,
    }
}

/// A stub, the names and a folder with its web server.
struct Stage {
    folder: tempfile::TempDir,
    stub: AcmeStub,
    names: Names,
    web: SocketAddr,
}

impl Stage {
    fn new() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let web = serve(folder.path().join("webroot"));
        Stage { folder, stub: AcmeStub::start((2000, 2999)).unwrap(), names: Names::start(true), web }
    }

    fn plan(&self) -> Plan {
        plan(self.folder.path(), &self.stub.directory(), &self.stub.ca, self.names.resolver, self.web)
    }
}

fn now() -> Moment {
    Moment::now(Path::new("/")).unwrap()
}

fn later(seconds: u64) -> Moment {
    now().plus(Duration::from_secs(seconds))
}

fn refused(plan: &Plan) -> String {
    plan.obtain(&now()).map(|_| "a certificate").unwrap_err().to_string()
}

fn fault(status: u16, kind: Option<&'static str>, retry_after: Option<&str>) -> Fault {
    let detail = "the stub says no".to_owned();
    Fault { status, kind, detail, retry_after: retry_after.map(str::to_owned) }
}

#[test]
fn dns_is_waited_for_without_asking_the_authority_and_heals() {
    let authority = Authority::start(0, false);
    let plan = plan(
        authority.folder.path(),
        &authority.directory,
        &authority.ca,
        authority.names.resolver,
        authority.web,
    );
    let resolver = authority.names.resolver;

    let none = refused(&plan);
    assert_eq!(
        none,
        format!(
            "`{DOMAIN}` has no AAAA record, as `{resolver}` says: add `{DOMAIN}. AAAA 2001:db8::101`; it is \
             looked at again within a minute"
        )
    );
    authority.names.lead(DOMAIN, "2001:db8::bad");
    let wrong = refused(&plan);
    let expected = format!(
        "the AAAA record of `{DOMAIN}` leads to `2001:db8::bad`, as `{resolver}` says, and this machine has `2001:db8::101`, `::1`: change"
    );
    assert!(wrong.starts_with(&expected), "{wrong}");
    assert!(authority.account_keys().is_empty(), "the authority was asked");
    assert_eq!(plan.waits(&now()), None, "nothing was counted");

    authority.names.tell("set-servfail", &serde_json::json!({ "host": DOMAIN }));
    let dead = refused(&plan);
    assert!(
        dead.starts_with(&format!("no DNS answer for `{DOMAIN}`: `{resolver}` answers SERVFAIL; check")),
        "{dead}"
    );
    authority.names.tell("clear-servfail", &serde_json::json!({ "host": DOMAIN }));

    authority.names.lead(DOMAIN, "::1");
    let issued = plan.obtain(&now()).unwrap();
    assert!(Certificate::from_chain(&issued.chain).unwrap().belongs_to(&issued.key));
    plan.settle().unwrap();
    assert_eq!(plan.waits(&now()), None);
}

#[test]
fn caa_that_forbids_and_a_shut_port_stop_before_the_order() {
    let stage = Stage::new();
    stage.stub.set_identities(&["stub.example", "no host\u{1b}"]);
    let caa = |value: &str| {
        let policies = serde_json::json!([{ "tag": "issue", "value": value }]);
        stage.names.tell("clear-caa", &serde_json::json!({ "host": "example.net" }));
        stage.names.tell("add-caa", &serde_json::json!({ "host": "example.net", "policies": policies }));
    };
    caa("other.example");
    let said = refused(&stage.plan());
    let expected = format!(
        "the CAA records of `example.net` (`issue \"other.example\"`) forbid this authority to sign for `{DOMAIN}`: add `example.net. CAA 0 \
         issue \"stub.example\"`"
    );
    assert!(said.starts_with(&expected), "{said}");
    caa("stub.example");

    let [port] = free_ports();
    let server = SocketAddr::new(stage.web.ip(), port);
    let shut =
        Plan { proof: Proof::Http { webroot: stage.folder.path().join("webroot"), server }, ..stage.plan() };
    let said = refused(&shut);
    assert!(said.contains("at `::1` could not be fetched: Connection refused"), "{said}");
    assert_eq!(stage.stub.count("/order"), 0);

    stage.plan().obtain(&now()).unwrap();
}

#[test]
fn a_wrong_clock_is_named_and_nothing_is_ordered() {
    let stage = Stage::new();
    stage.stub.set_date("Sun, 06 Nov 1994 08:49:37 GMT");
    let said = refused(&stage.plan());
    assert!(
        said.starts_with("the clock is wrong: it says 2")
            && said.contains("says 1994-11-06 08:49 UTC; no certificate"),
        "{said}"
    );

    // What a clock that is far ahead makes of everybody's certificate.
    let expired = AcmeStub::start((2000, 2010)).unwrap();
    let plan = Plan { directory: expired.directory(), ca: Some(expired.ca.clone()), ..stage.plan() };
    let said = refused(&plan);
    assert!(
        said.starts_with("the clock is wrong: it says 2") && said.contains("ended at 2010-01-01 00:00 UTC"),
        "{said}"
    );
    assert_eq!(stage.stub.count("/order") + expired.count("/order") + stage.stub.count("/account"), 0);
    assert_eq!(plan.waits(&now()), None, "it heals within a minute");
}

#[test]
fn the_authority_is_left_alone_as_long_as_it_wants() {
    let stage = Stage::new();
    let plan = stage.plan();
    stage.stub.fail("/order", [fault(429, Some("rateLimited"), Some("7200"))]);
    let said = refused(&plan);
    assert!(
        said.starts_with("the certificate authority says: the stub says no (rateLimited); its limits end with time alone; next try at 2")
            && said.ends_with(", as the authority asks for"),
        "{said}"
    );
    assert_eq!(plan.waits(&now()), Some(said.clone()));
    stage.names.tell("add-a", &serde_json::json!({ "host": DOMAIN, "addresses": ["192.0.2.1"] }));
    assert_eq!(plan.waits(&now()), Some(said), "another answer of DNS does not end it");
    assert_eq!(plan.waits(&later(7300)), None);

    // Its own trouble is no refusal: the pause is short.
    stage.stub.fail("/directory", [fault(503, None, Some("600"))]);
    let said = refused(&plan);
    assert!(
        said.contains("/directory` answers with 503") && said.ends_with(", as the authority asks for"),
        "{said}"
    );
    assert_eq!(plan.waits(&later(601)), None);
    stage.stub.fail("/order", (0..20).map(|_| fault(400, Some("badNonce"), None)));
    let said = refused(&plan);
    assert!(said.contains("(badNonce); the trouble is the authority's own"), "{said}");
    assert!(plan.waits(&now()).is_some());
    stage.stub.fail("/order", [fault(500, Some("serverInternal"), None)]);
    let said = refused(&plan);
    assert!(said.contains("(serverInternal); the trouble is the authority's own"), "{said}");
    assert!(plan.waits(&now()).is_some() && plan.waits(&later(86_400)).is_none());
}

#[test]
fn a_refusal_is_not_repeated_before_dns_says_something_else() {
    let stage = Stage::new();
    let plan = stage.plan();
    stage.stub.fail("/order", [fault(403, Some("connection"), None)]);
    let said = refused(&plan);
    let port = stage.web.port();
    assert!(
        said.contains(&format!("(connection); let the world reach port {port} of this machine")),
        "{said}"
    );
    assert_eq!(plan.waits(&now()), Some(said));
    // Another way to prove the name may do what the first one could not.
    let nobody = SocketAddr::from(([127, 0, 0, 1], 0));
    let gate = Gate { listen: nobody, front: nobody, web: nobody, diversion: None };
    assert_eq!(Plan { proof: Proof::TlsAlpn(gate), ..plan.clone() }.waits(&now()), None);
    stage.names.tell("add-a", &serde_json::json!({ "host": DOMAIN, "addresses": ["192.0.2.1"] }));
    assert_eq!(plan.waits(&now()), None);
    plan.obtain(&now()).unwrap();
}

#[test]
fn no_more_is_asked_for_than_authorities_allow() {
    let stage = Stage::new();
    let plan = Plan { preflight: Preflight::Off, ..stage.plan() };
    for _ in 0..5 {
        plan.obtain(&now()).unwrap();
        plan.settle().unwrap();
    }
    let said = refused(&plan);
    assert!(said.starts_with("5 certificates were signed within 7 days"), "{said}");
    assert_eq!(plan.waits(&now()), Some(said));
    assert_eq!(stage.stub.requests("/order").len(), 5);
    assert!(plan.waits(&later(6 * 86400)).is_some());
    assert_eq!(plan.waits(&later(7 * 86400 + 60)), None);
    // What the authority itself wants renewed, it does not count.
    let renewal = Plan { replaces: Some("a.b".to_owned()), ..plan };
    assert_eq!(renewal.waits(&now()), None);
}

#[test]
fn the_first_order_is_rehearsed_where_nobody_counts() {
    let stage = Stage::new();
    let authority = Authority::start(0, true);
    let ca = format!("{}{}", stage.stub.ca, authority.ca);
    let plan = Plan {
        rehearsal: Some(stage.stub.directory()),
        ..plan(stage.folder.path(), &authority.directory, &ca, authority.names.resolver, stage.web)
    };
    stage.stub.fail("/order", [fault(403, Some("unauthorized"), None)]);
    let said = refused(&plan);
    assert!(
        said.starts_with("in the rehearsal the certificate authority says: the stub says no (unauthorized)"),
        "{said}"
    );
    assert!(plan.waits(&now()).is_some());
    let accounts = || {
        fs_err::read_dir(stage.folder.path().join("acme"))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|end| end == "der"))
    };
    assert_eq!(accounts().count(), 1, "the real directory was asked");

    // Pebble looks at the web server of its own folder.
    let plan = Plan { proof: Proof::Http { webroot: authority.webroot(), server: authority.web }, ..plan };
    let pebbles = plan.obtain(&later(3600)).unwrap();
    assert!(Certificate::from_chain(&pebbles.chain).unwrap().issuer.contains("Pebble"));
    assert_eq!(stage.stub.count("/finalize"), 1);
    plan.settle().unwrap();
    plan.obtain(&later(3600)).unwrap();
    plan.settle().unwrap();
    assert_eq!(stage.stub.count("/finalize"), 1, "once in the same circumstances");

    // A rehearsal that is not there is no obstacle.
    let [port] = free_ports();
    let alone = Plan { rehearsal: Some(format!("https://localhost:{port}/directory")), ..plan };
    fs_err::remove_file(alone.folder.join("rehearsed")).unwrap();
    alone.obtain(&later(3600)).unwrap();
}

#[test]
fn a_renewal_says_what_it_replaces() {
    let stage = Stage::new();
    stage.stub.suggest("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z");
    let first = stage.plan().obtain(&now()).unwrap();
    stage.plan().settle().unwrap();
    let id = Certificate::from_chain(&first.chain).unwrap().renewal_id.unwrap();
    let plan = Plan { replaces: Some(id.clone()), ..stage.plan() };
    let second = plan.obtain(&now()).unwrap();
    plan.settle().unwrap();
    assert_ne!(second.key, first.key);
    // An authority that does not accept that still signs.
    stage.stub.fail("/order", [fault(409, Some("alreadyReplaced"), None)]);
    plan.obtain(&now()).unwrap();
    let orders = stage.stub.requests("/order");
    let replaces: Vec<Option<&str>> = orders.iter().map(|order| order["replaces"].as_str()).collect();
    assert_eq!(replaces, [None, Some(id.as_str()), Some(id.as_str()), None]);
}

#[test]
fn a_house_without_port_80_proves_its_name_on_port_443() {
    let authority = Authority::start(5, true);
    let folder = authority.folder.path();
    let nobody = free_ports::<1>()[0];
    let nobody = SocketAddr::from(([127, 0, 0, 1], nobody));
    let gate = Gate { listen: authority.tls, front: authority.tls, web: nobody, diversion: None };
    let plan = plan(folder, &authority.directory, &authority.ca, authority.names.resolver, nobody);
    // Somebody else has the port that the name leads to: what is wrong here costs nothing.
    let other = std::net::TcpListener::bind("[::1]:0").unwrap();
    let front = other.local_addr().unwrap();
    std::thread::spawn(move || other.incoming().flatten().for_each(drop));
    let elsewhere =
        Proof::TlsAlpn(Gate { listen: SocketAddr::from(([127, 0, 0, 1], 0)), front, ..gate.clone() });
    let said = refused(&Plan { proof: elsewhere.clone(), ..plan.clone() });
    let expected = format!("the answer for `{DOMAIN}` (tls-alpn-01) at `::1` could not be fetched: ");
    assert!(said.starts_with(&expected), "{said}");
    assert!(said.contains(&format!("let port {} of this machine be open", front.port())), "{said}");
    // Our own look at it comes before the authority's in any case.
    let said = refused(&Plan { proof: elsewhere, preflight: Preflight::Off, ..plan.clone() });
    assert!(said.starts_with("looking at our own answer to the challenge"), "{said}");

    // Nothing is looked at beforehand, since without a diversion there is one socket after the other on the same port.
    let by_443 = Plan { proof: Proof::TlsAlpn(gate), preflight: Preflight::Off, ..plan };
    let issued = by_443.obtain(&now()).unwrap();
    assert!(Certificate::from_chain(&issued.chain).unwrap().is_for(DOMAIN));
    by_443.settle().unwrap();
}

#[test]
fn a_machine_that_nobody_can_reach_proves_its_name_by_dns() {
    let authority = Authority::start(0, false);
    let folder = authority.folder.path();
    let hook = folder.join("hook");
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = present ] && verb=set-txt || verb=clear-txt\necho \"$1\" >> {}\n\
         exec curl -sf -d \"{{\\\"host\\\":\\\"$2.\\\",\\\"value\\\":\\\"$3\\\"}}\" http://{}/$verb\n",
        folder.join("called").display(),
        authority.names.control
    );
    fs_err::write(&hook, text).unwrap();
    fs_err::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let plan = plan(folder, &authority.directory, &authority.ca, authority.names.resolver, authority.web);
    let plan = Plan {
        proof: Proof::Dns { hook, resolvers: plan.resolvers.clone(), zone_port: plan.zone_port },
        ..plan
    };
    let issued = plan.obtain(&now()).unwrap();
    assert!(Certificate::from_chain(&issued.chain).unwrap().is_for(DOMAIN));
    assert_eq!(fs_err::read_to_string(folder.join("called")).unwrap(), "present\ncleanup\n");
}
