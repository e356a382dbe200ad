//! Questions and answers on the wire (RFC 1035, section 4; CAA: RFC 8659, section 4.1).
//!
//! What comes in was written by anybody: every length is checked, a compressed name may only point backwards, and nothing is
//! read beyond the section of answers. Names are lower case and without their last dot; bytes that no host's name has are
//! escaped as `\DDD`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest name, as text.
const LONGEST_NAME: usize = 253;
/// The longest part of a name.
const LONGEST_LABEL: usize = 63;
/// The class of the internet.
const INTERNET: u16 = 1;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// Name servers of a zone.
    Ns,
    /// Another name.
    Cname,
    /// Texts.
    Txt,
    /// IPv6 addresses.
    Aaaa,
    /// Which authorities may sign.
    Caa,
}

impl Kind {
    /// Its number in a message.
    pub fn number(self) -> u16 {
        match self {
            Kind::A => 1,
            Kind::Ns => 2,
            Kind::Cname => 5,
            Kind::Txt => 16,
            Kind::Aaaa => 28,
            Kind::Caa => 257,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Kind::A => "A",
            Kind::Ns => "NS",
            Kind::Cname => "CNAME",
            Kind::Txt => "TXT",
            Kind::Aaaa => "AAAA",
            Kind::Caa => "CAA",
        })
    }
}

/// One record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose it is.
    pub name: String,
    /// Its kind's number.
    pub kind: u16,
    /// How many seconds it may be remembered.
    pub ttl: u32,
    /// What it says.
    pub data: Data,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// A and AAAA.
    Address(IpAddr),
    /// NS and CNAME.
    Name(String),
    /// CAA.
    Caa(Caa),
    /// TXT, its strings joined, lossily as UTF-8.
    Text(String),
    /// A kind that nobody here asks for.
    Other,
}

/// One CAA record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caa {
    /// An authority that does not know the tag must not sign.
    pub is_critical: bool,
    /// Such as `issue`, in lower case.
    pub tag: String,
    /// Lossily as UTF-8.
    pub value: String,
}

/// An answer, as far as anybody here reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The question's number.
    pub id: u16,
    /// Whether it is an answer at all.
    pub is_answer: bool,
    /// It did not fit: ask again over TCP.
    pub is_truncated: bool,
    /// It comes from one of the zone's own servers.
    pub is_authoritative: bool,
    /// 0: as asked; 3: no such name; others: the server cannot or will not.
    pub code: u8,
    /// Name and number of the kind that were asked for.
    pub question: Option<(String, u16)>,
    /// The section of answers.
    pub answers: Vec<Record>,
}

/// A message that breaks the rules of its format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer is malformed at byte {0}")]
pub struct Malformed(pub usize);

/// A question. `is_recursive` asks a resolver to find out what it does not know.
pub fn question(id: u16, name: &str, kind: Kind, is_recursive: bool) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(name.len() + 18);
    bytes.extend(id.to_be_bytes());
    bytes.extend([u8::from(is_recursive), 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    if name.len() > LONGEST_NAME {
        return Err(format!("`{name}` is too long for a name"));
    }
    for label in name.split('.').filter(|_| !name.is_empty()) {
        match u8::try_from(label.len()) {
            Ok(length) if (1..=LONGEST_LABEL).contains(&label.len()) => bytes.push(length),
            _ => return Err(format!("`{name}` is no name")),
        }
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.number().to_be_bytes());
    bytes.extend(INTERNET.to_be_bytes());
    Ok(bytes)
}

/// Reads an answer.
pub fn parse(bytes: &[u8]) -> Result<Message, Malformed> {
    let mut reader = Reader { bytes, at: 0 };
    let id = reader.u16()?;
    let flags = reader.u16()?;
    let (questions, answers) = (reader.u16()?, reader.u16()?);
    reader.take(4)?;
    let mut question = None;
    for _ in 0..questions {
        let name = reader.name()?;
        let kind = reader.u16()?;
        reader.u16()?;
        question.get_or_insert((name, kind));
    }
    let is_truncated = flags & 0x0200 != 0;
    let mut records = Vec::new();
    for _ in 0..answers {
        match reader.record() {
            Ok(record) => records.push(record),
            // It ends wherever the room did; the whole comes over TCP.
            Err(_) if is_truncated => break,
            Err(malformed) => return Err(malformed),
        }
    }
    Ok(Message {
        id,
        is_answer: flags & 0x8000 != 0,
        is_truncated,
        is_authoritative: flags & 0x0400 != 0,
        code: u8::try_from(flags & 0xf).unwrap_or_default(),
        question,
        answers: records,
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(Malformed(self.at))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let at = self.at;
        self.take(N)?.try_into().map_err(|_| Malformed(at))
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn record(&mut self) -> Result<Record, Malformed> {
        let name = self.name()?;
        let kind = self.u16()?;
        let class = self.u16()?;
        let ttl = u32::from_be_bytes(self.array()?);
        let length = usize::from(self.u16()?);
        let start = self.at;
        self.take(length)?;
        // Names inside may point before the record, so its part of the message is cut at its end alone.
        let mut inner = Reader { bytes: &self.bytes[..self.at], at: start };
        let data = if class == INTERNET { inner.data(kind)? } else { Data::Other };
        Ok(Record { name, kind, ttl, data })
    }

    fn data(&mut self, kind: u16) -> Result<Data, Malformed> {
        let start = self.at;
        let data = match kind {
            1 => Data::Address(Ipv4Addr::from(self.array::<4>()?).into()),
            28 => Data::Address(Ipv6Addr::from(self.array::<16>()?).into()),
            2 | 5 => Data::Name(self.name()?),
            16 => {
                let mut text = Vec::new();
                while self.at < self.bytes.len() {
                    let length = usize::from(self.u8()?);
                    text.extend(self.take(length)?);
                }
                Data::Text(String::from_utf8_lossy(&text).into_owned())
            }
            257 => {
                let flags = self.u8()?;
                let length = usize::from(self.u8()?);
                let tag = self.take(length)?;
                if tag.is_empty() || !tag.iter().all(u8::is_ascii_alphanumeric) {
                    return Err(Malformed(start));
                }
                let tag = String::from_utf8_lossy(tag).to_ascii_lowercase();
                let value = self.take(self.bytes.len() - self.at)?;
                let value = String::from_utf8_lossy(value).into_owned();
                Data::Caa(Caa { is_critical: flags & 0x80 != 0, tag, value })
            }
            _ => {
                self.at = self.bytes.len();
                Data::Other
            }
        };
        if self.at == self.bytes.len() { Ok(data) } else { Err(Malformed(self.at)) }
    }

    fn name(&mut self) -> Result<String, Malformed> {
        let mut name = String::new();
        let mut at = self.at;
        // Every pointer must lead before the place of the last one, so that there is an end.
        let mut limit = self.at;
        let mut end = None;
        loop {
            let length = *self.bytes.get(at).ok_or(Malformed(at))?;
            match length {
                0 => break,
                1..=63 => {
                    let start = at + 1;
                    let label = self.bytes.get(start..start + usize::from(length)).ok_or(Malformed(at))?;
                    if !name.is_empty() {
                        name.push('.');
                    }
                    for byte in label {
                        match byte.to_ascii_lowercase() {
                            byte if byte.is_ascii_alphanumeric() || b"-_*".contains(&byte) => {
                                name.push(char::from(byte));
                            }
                            byte => name.push_str(&format!("\\{byte:03}")),
                        }
                    }
                    at = start + label.len();
                }
                192.. => {
                    let low = *self.bytes.get(at + 1).ok_or(Malformed(at))?;
                    let target = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                    if target >= limit {
                        return Err(Malformed(at));
                    }
                    end.get_or_insert(at + 2);
                    limit = target;
                    at = target;
                }
                64..192 => return Err(Malformed(at)),
            }
            // Escapes make a text longer than its name: four characters a byte at most.
            if name.len() > 4 * LONGEST_NAME {
                return Err(Malformed(at));
            }
        }
        self.at = end.unwrap_or(at + 1);
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Caa, Data, Kind, Malformed, parse, question};

    /// An answer to a question for CAA, by hand: the owner's name is a pointer to the question.
    fn answer(data: &[u8], kind: Kind) -> Vec<u8> {
        let mut bytes = question(7, "a.example", kind, true).unwrap();
        bytes[2] |= 0x84;
        bytes[7] = 1;
        bytes.extend([0xc0, 12]);
        bytes.extend(kind.number().to_be_bytes());
        bytes.extend([0, 1, 0, 0, 14, 16]);
        bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn records_are_read() {
        let caa = Caa { is_critical: true, tag: "issue".to_owned(), value: "ca.example; a=b".to_owned() };
        for (kind, data, expected) in [
            (Kind::A, &[192, 0, 2, 1][..], Data::Address("192.0.2.1".parse().unwrap())),
            (
                Kind::Aaaa,
                b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01",
                Data::Address("2001:db8::1".parse().unwrap()),
            ),
            (Kind::Ns, b"\x03nS1\xc0\x0e", Data::Name("ns1.example".to_owned())),
            (Kind::Txt, b"\x02ab\x01c", Data::Text("abc".to_owned())),
            (Kind::Caa, b"\x80\x05ISSUEca.example; a=b", Data::Caa(caa)),
        ] {
            let message = parse(&answer(data, kind)).unwrap();
            assert!(message.is_answer && message.is_authoritative && message.code == 0);
            assert_eq!(message.question, Some(("a.example".to_owned(), kind.number())));
            let record = &message.answers[0];
            assert_eq!((record.name.as_str(), record.ttl, &record.data), ("a.example", 3600, &expected));
        }
    }

    #[test]
    fn hostile_answers_are_refused() {
        // A record that is longer or shorter than its data, and a name that points at itself, forwards, or at a reserved kind.
        for (kind, data) in [
            (Kind::A, &[192, 0, 2][..]),
            (Kind::A, &[192, 0, 2, 1, 9]),
            (Kind::Txt, b"\x09ab"),
            (Kind::Caa, b"\x00\x00value"),
            (Kind::Caa, b"\x00\x09issue"),
            (Kind::Ns, b"\xc0\x27"),
            (Kind::Ns, b"\xc0\xff"),
            (Kind::Ns, b"\x01a\xc0\x27"),
            (Kind::Ns, b"\x80\x01"),
            (Kind::Ns, b"\x05ab"),
        ] {
            assert!(parse(&answer(data, kind)).is_err(), "{kind} {data:?}");
        }
        let mut long = answer(&[], Kind::Txt);
        long.truncate(5);
        assert_eq!(parse(&long), Err(Malformed(4)));
    }

    #[test]
    fn names_that_are_none_are_not_asked_for() {
        for name in ["a..b", ".", &"a".repeat(64), &"a.".repeat(200)] {
            assert!(question(1, name, Kind::A, true).is_err(), "{name}");
        }
        assert_eq!(question(1, "", Kind::Ns, true).unwrap().len(), 17);
    }

    proptest! {
        /// Whatever arrives, reading ends, and what is read is no larger than what came.
        #[test]
        fn reading_always_ends(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(message) = parse(&bytes) {
                prop_assert!(message.answers.len() * 11 <= bytes.len());
            }
        }

        /// The same for answers that are nearly right.
        #[test]
        fn a_damaged_answer_never_breaks_the_reader(at in 0_usize..60, byte: u8, cut in 0_usize..60) {
            let mut bytes = answer(b"\x03ns1\xc0\x0e", Kind::Ns);
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(length - cut % length);
            let _ = parse(&bytes);
        }
    }
}
