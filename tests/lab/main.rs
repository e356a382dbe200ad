//! The lab proves itself before anything is proved with it: a namespace plays the VM, and everything the real VM will rely on is
//! tried from there and from outside.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testkit::client::{Client, Refusal, Request, Trust};
use testkit::lab::{INSTANCE_V4, INSTANCE_V6, Lab, ROUTER_V4, ROUTER_V6};
use testkit::namespace::{self, Namespace};
use testkit::wait;

const DOMAIN: &str = "v6don.lab.test";
const LIMIT: Duration = Duration::from_secs(20);

/// A namespace in the VM's place, with the addresses that first boot would give it.
fn stand_in(lab: &Lab) -> Result<Namespace> {
    let machine = lab.machine("guest")?;
    machine.ip(&format!("addr add {INSTANCE_V6}/128 dev eth0 nodad"))?;
    machine.ip(&format!("addr add {INSTANCE_V4}/24 dev eth0"))?;
    Ok(machine)
}

#[test]
fn router_advertisements_give_an_address_and_a_default_route() {
    let lab = Lab::start(DOMAIN).unwrap();
    let machine = lab.machine("guest").unwrap();
    wait::until("an address by SLAAC", LIMIT, || {
        let said = machine.ip("-6 -o addr show dev eth0 scope global")?;
        let ready = said.contains("2001:db8:fc89:100:") && !said.contains("tentative");
        Ok(if ready { Ok(()) } else { Err(said) })
    })
    .unwrap();
    let routes = machine.ip("-6 route show default").unwrap();
    assert!(routes.contains("proto ra"), "{routes}");
}

#[test]
fn dns_knows_the_instance_by_ipv6_alone() {
    let lab = Lab::start(DOMAIN).unwrap();
    let ask = |kind: &str| dns_answer(lab.outside_namespace(), DOMAIN, kind).unwrap();
    assert_eq!(ask("AAAA"), [INSTANCE_V6.octets().to_vec()]);
    assert_eq!(ask("A"), Vec::<Vec<u8>>::new());
}

#[test]
fn requests_from_outside_reach_the_machine_over_ipv6_and_are_refused_over_ipv4() {
    let lab = Lab::start(DOMAIN).unwrap();
    let machine = stand_in(&lab).unwrap();
    let listener = namespace::enter(machine.name(), || Ok(TcpListener::bind((INSTANCE_V6, 80))?)).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        let head = BufReader::new(stream.try_clone().unwrap()).lines();
        let head: Vec<String> = head.map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
        write!(stream, "HTTP/1.1 200 OK\r\n\r\n{} from {}", head[1], peer.ip()).unwrap();
    });
    let client = lab.client().unwrap();
    let response = client.http(&Request::get("/")).unwrap();
    server.join().unwrap();
    assert_eq!(
        (response.status, &*response.text()),
        (200, "Host: v6don.lab.test from 2001:db8:fc89:100::50")
    );

    let over_ipv4 = lab.client_to(IpAddr::V4(INSTANCE_V4)).unwrap();
    assert!(matches!(over_ipv4.connect(80), Err(Refusal::Refused)));
}

#[test]
fn authority_serves_its_directory_to_who_trusts_its_anchor() {
    let lab = Lab::start(DOMAIN).unwrap();
    let ask = |pem: &str| {
        Client::new("acme.lab.test", IpAddr::V6(ROUTER_V6), Trust::anchors(pem).unwrap())
            .in_namespace(lab.outside_namespace())
            .with_ports(80, 14000)
            .https(&Request::get("/dir"))
    };
    let directory = ask(lab.directory_root()).unwrap().expect(200).unwrap().json().unwrap();
    assert_eq!(directory["newOrder"], "https://acme.lab.test:14000/order-plz");
    let error = format!("{:#}", ask(lab.issued_root()).unwrap_err());
    assert!(error.contains("invalid peer certificate"), "{error}");
}

#[test]
fn relay_takes_mail_over_ipv4_alone() {
    let lab = Lab::start(DOMAIN).unwrap();
    let machine = stand_in(&lab).unwrap();
    let stream =
        Client::new("relay", IpAddr::V4(ROUTER_V4), Trust::Nothing).in_namespace(machine.name()).connect(25);
    send_mail(stream.unwrap()).unwrap();
    let mail = lab.mailbox().wait_for("alice@example.net", LIMIT).unwrap();
    assert_eq!(mail.link("token=").unwrap(), "https://v6don.lab.test/x?token=1");
    assert!(mail.peer.contains("192.168.100.154"), "{}", mail.peer);

    let over_ipv6 =
        Client::new("relay", IpAddr::V6(ROUTER_V6), Trust::Nothing).in_namespace(lab.outside_namespace());
    assert!(matches!(over_ipv6.connect(25), Err(Refusal::Refused)));
}

#[test]
fn configuration_is_one_that_first_boot_takes() {
    let lab = Lab::start(DOMAIN).unwrap();
    firstboot::settings::Settings::parse("lab", &lab.config_toml()).unwrap();
}

#[test]
fn nothing_is_left_after_the_end_not_even_after_a_panic() {
    let seen = std::thread::spawn(|| {
        let lab = Lab::start(DOMAIN).unwrap();
        let seen = (lab.namespace().to_owned(), lab.outside_namespace().to_owned(), lab.folder().to_owned());
        std::panic::panic_any(seen);
    })
    .join()
    .unwrap_err()
    .downcast::<(String, String, std::path::PathBuf)>()
    .unwrap();
    let (router, outside, folder) = *seen;
    let names = namespace::names().unwrap();
    assert!(!names.contains(&router) && !names.contains(&outside), "{names:?}");
    assert!(!folder.exists());
    // Every server of the lab has the lab's folder or its address among its arguments.
    for entry in fs_err::read_dir("/proc").unwrap() {
        let arguments = fs_err::read(entry.unwrap().path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        assert!(!arguments.contains(&*folder.to_string_lossy()), "still running: {arguments}");
    }
}

#[test]
fn namespaces_of_a_dead_process_are_swept() {
    // No process has an id above the kernel's limit of 2^22.
    let orphan = "lab-4194399-0";
    let lab = Lab::start(DOMAIN).unwrap();
    fs_err::write(Path::new("/run/netns").join(orphan), "").unwrap();
    namespace::sweep().unwrap();
    let names = namespace::names().unwrap();
    assert!(!names.iter().any(|name| name == orphan), "{names:?}");
    assert!(names.iter().any(|name| name == lab.namespace()), "a living lab was swept: {names:?}");
}

fn send_mail(mut stream: TcpStream) -> Result<()> {
    let mut replies = BufReader::new(stream.try_clone()?).lines();
    let mut reply = move || replies.next().context("the relay hung up")?.context("reading a reply");
    ensure!(reply()?.starts_with("220"));
    let body = "To: alice@example.net\r\n\r\nhttps://v6don.lab.test/x?token=1\r\n.";
    for (line, code) in [
        ("HELO guest", "250"),
        ("MAIL FROM:<words@example.net>", "250"),
        ("RCPT TO:<alice@example.net>", "250"),
        ("DATA", "354"),
        (body, "250"),
        ("QUIT", "221"),
    ] {
        write!(stream, "{line}\r\n")?;
        let reply = reply()?;
        ensure!(reply.starts_with(code), "`{line}` was answered by `{reply}`");
    }
    Ok(())
}

/// Addresses in the answer of the lab's resolver, asked over UDP (RFC 1035, section 4).
fn dns_answer(namespace: &str, name: &str, kind: &str) -> Result<Vec<Vec<u8>>> {
    let code: u16 = if kind == "AAAA" { 28 } else { 1 };
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len())?);
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend_from_slice(&code.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    let answer = namespace::enter(namespace, || {
        let socket = UdpSocket::bind("[::]:0")?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.send_to(&query, (ROUTER_V6, 53))?;
        let mut answer = vec![0; 512];
        let count = socket.recv(&mut answer)?;
        answer.truncate(count);
        Ok(answer)
    })?;
    let code = answer[3] % 16;
    ensure!(code == 0, "asking for {kind} of `{name}`: response code {code}");
    let word = |at: usize| usize::from(u16::from_be_bytes([answer[at], answer[at + 1]]));
    let after_name = |mut at: usize| {
        while answer[at] != 0 && answer[at] < 0xc0 {
            at += 1 + usize::from(answer[at]);
        }
        // A pointer to an earlier name takes two bytes, the empty label one.
        at + if answer[at] == 0 { 1 } else { 2 }
    };
    let mut at = after_name(12) + 4;
    let mut addresses = Vec::new();
    for _ in 0..word(6) {
        at = after_name(at) + 10;
        addresses.push(answer[at..at + word(at - 2)].to_vec());
        at += word(at - 2);
    }
    Ok(addresses)
}
