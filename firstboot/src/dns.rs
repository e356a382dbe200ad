//! Asking one DNS server one question, over UDP and, where the answer does not fit, TCP; IPv6 and IPv4 alike.
//!
//! The machine's own resolver library answers from one server, hides which, and knows no CAA. Whoever wants to tell an operator
//! what the world sees has to ask each server by itself.

mod message;
mod zone;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use rand::Rng;

pub use message::{Caa, Data, Kind, Malformed, Message, Record, parse, question};
pub use zone::{addresses, upwards, zone};

/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// A datagram may get lost.
const ATTEMPTS: u32 = 2;
/// Resolvers that are read from a file; the C library takes as many.
const MOST_RESOLVERS: usize = 3;
/// Aliases that are followed inside of one answer.
const MOST_ALIASES: usize = 16;

/// What a server says about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Records of the kind that was asked for, at least one.
    Records(Vec<Record>),
    /// The name exists, without such a record.
    Nothing,
    /// The name is another one's alias, and this server does not know that one.
    Alias(String),
    /// The name does not exist.
    NoName,
}

/// A reply, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What it says.
    pub reply: Reply,
    /// The server is one of the zone's own.
    pub is_authoritative: bool,
}

/// Asks a server; an error is the rest of a sentence that begins with the server's name.
pub fn ask(server: SocketAddr, name: &str, kind: Kind, is_recursive: bool) -> Result<Answer, String> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let id = rand::rng().random();
    let question = question(id, &name, kind, is_recursive)?;
    let fits = |message: &Message| {
        message.id == id
            && message.is_answer
            && message
                .question
                .as_ref()
                .is_none_or(|(asked, number)| *asked == name && *number == kind.number())
    };
    let mut message = by_udp(server, &question, fits)?;
    if message.is_truncated {
        message = by_tcp(server, &question, fits)
            .map_err(|error| format!("{} over TCP, which its long answer needs", said(&error)))?;
    }
    let reply = match message.code {
        0 => reply(message.answers, name, kind),
        3 => Reply::NoName,
        code => return Err(format!("answers {}", code_name(code))),
    };
    Ok(Answer { reply, is_authoritative: message.is_authoritative })
}

/// The records of a kind, at the end of the aliases that lead to them.
fn reply(answers: Vec<Record>, mut name: String, kind: Kind) -> Reply {
    let asked = name.clone();
    for _ in 0..MOST_ALIASES {
        let alias = answers.iter().find_map(|record| match &record.data {
            Data::Name(target) if record.kind == Kind::Cname.number() && record.name == name => Some(target),
            _ => None,
        });
        match alias {
            Some(target) if kind != Kind::Cname => name.clone_from(target),
            _ => break,
        }
    }
    let records: Vec<Record> = answers
        .into_iter()
        .filter(|record| record.kind == kind.number() && record.name == name && record.data != Data::Other)
        .collect();
    match records.is_empty() {
        false => Reply::Records(records),
        true if name == asked => Reply::Nothing,
        true => Reply::Alias(name),
    }
}

fn by_udp(server: SocketAddr, question: &[u8], fits: impl Fn(&Message) -> bool) -> Result<Message, String> {
    let any: IpAddr =
        if server.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let exchange = || -> std::io::Result<Message> {
        let socket = UdpSocket::bind((any, 0))?;
        // Only datagrams of this server arrive then, and its "port unreachable" as an error.
        socket.connect(server)?;
        socket.send(question)?;
        let start = Instant::now();
        let mut buffer = vec![0; 4096];
        loop {
            let left = PATIENCE.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            socket.set_read_timeout(Some(left))?;
            let length = socket.recv(&mut buffer)?;
            // A late answer to another question, or a forged one: the right one may still come.
            match parse(&buffer[..length]) {
                Ok(message) if fits(&message) => return Ok(message),
                _ => {}
            }
        }
    };
    let mut result = exchange();
    for _ in 1..ATTEMPTS {
        match &result {
            Err(error) if is_silence(error) => result = exchange(),
            _ => break,
        }
    }
    result.map_err(|error| said(&error))
}

fn by_tcp(server: SocketAddr, question: &[u8], fits: impl Fn(&Message) -> bool) -> std::io::Result<Message> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let length = u16::try_from(question.len()).map_err(|_| ErrorKind::InvalidInput)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(question)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes)?;
    let message =
        parse(&bytes).map_err(|malformed| std::io::Error::new(ErrorKind::InvalidData, malformed))?;
    if fits(&message) { Ok(message) } else { Err(ErrorKind::InvalidData.into()) }
}

fn is_silence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

fn said(error: &std::io::Error) -> String {
    if is_silence(error) {
        let seconds = PATIENCE.as_secs() * u64::from(ATTEMPTS);
        return format!("does not answer within {seconds} s");
    }
    format!("cannot be asked: {error}")
}

fn code_name(code: u8) -> String {
    match code {
        1 => "FORMERR".to_owned(),
        2 => "SERVFAIL".to_owned(),
        4 => "NOTIMP".to_owned(),
        5 => "REFUSED".to_owned(),
        _ => format!("with code {code}"),
    }
}

/// The resolvers of a `resolv.conf`, on port 53. `index` gives the number of an interface, which an address of the link needs
/// and router advertisements bring along.
pub fn resolvers(resolv_conf: &str, index: impl Fn(&str) -> Option<u32>) -> Vec<SocketAddr> {
    let server = |line: &str| -> Option<SocketAddr> {
        let mut words = line.split_whitespace();
        let text = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        match text.split_once('%') {
            Some((address, interface)) => {
                let scope = index(interface).or_else(|| interface.parse().ok())?;
                Some(SocketAddrV6::new(address.parse().ok()?, 53, 0, scope).into())
            }
            None => Some(SocketAddr::new(text.parse().ok()?, 53)),
        }
    };
    resolv_conf.lines().filter_map(server).take(MOST_RESOLVERS).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::time::Instant;

    use super::{Data, Kind, Record, Reply, ask, reply, resolvers};

    #[test]
    fn resolvers_are_read_with_their_link() {
        let text = "# nameserver ::9\nsearch a.example\nnameserver fe80::1%ens160\nnameserver 192.0.2.53\nnameserver x\n\
                    nameserver 2001:db8::53\nnameserver 192.0.2.54\n";
        let index = |name: &str| (name == "ens160").then_some(2);
        let found: Vec<String> = resolvers(text, index).iter().map(SocketAddr::to_string).collect();
        assert_eq!(found, ["[fe80::1%2]:53", "192.0.2.53:53", "[2001:db8::53]:53"]);
        assert_eq!(resolvers("nameserver fe80::1%gone\n", |_| None), []);
    }

    #[test]
    fn aliases_lead_to_records_and_never_in_a_circle() {
        let record = |name: &str, kind: Kind, data| Record {
            name: name.to_owned(),
            kind: kind.number(),
            ttl: 1,
            data,
        };
        let alias = |name: &str, to: &str| record(name, Kind::Cname, Data::Name(to.to_owned()));
        let address = record("c", Kind::Aaaa, Data::Address("::1".parse().unwrap()));
        let ask = |answers: &[Record]| reply(answers.to_vec(), "a".to_owned(), Kind::Aaaa);
        assert_eq!(ask(&[]), Reply::Nothing);
        assert_eq!(ask(std::slice::from_ref(&address)), Reply::Nothing, "another name's record");
        assert_eq!(ask(&[alias("a", "b"), alias("b", "c"), address.clone()]), Reply::Records(vec![address]));
        assert_eq!(ask(&[alias("a", "b")]), Reply::Alias("b".to_owned()));
        assert!(matches!(ask(&[alias("a", "b"), alias("b", "a")]), Reply::Nothing | Reply::Alias(_)));
    }

    #[test]
    fn answers_to_other_questions_do_not_count_and_silence_ends() {
        let server = UdpSocket::bind("[::1]:0").unwrap();
        let address = server.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = server.recv_from(&mut buffer) {
                let mut forged = buffer[..length].to_vec();
                forged[2] |= 0x80;
                forged[0] ^= 1;
                let _ = server.send_to(&forged, from);
                let _ = server.send_to(b"no message", from);
            }
        });
        let start = Instant::now();
        assert_eq!(ask(address, "a.example", Kind::Aaaa, true), Err("does not answer within 4 s".to_owned()));
        assert!(start.elapsed().as_secs() < 8);
    }
}
