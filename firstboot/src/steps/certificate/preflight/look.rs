//! What DNS says about a name, asked of every server that we know by itself, all at once.

use std::net::SocketAddr;

use crate::dns::{self, Answer, Caa, Data, Kind, Reply};

/// What DNS says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Resolvers of this machine and the zone's own servers.
    pub sources: Vec<Source>,
    /// Which authorities may sign.
    pub caa: CaaSeen,
}

/// What one server says.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// How the operator knows it.
    pub name: String,
    /// Its address.
    pub server: SocketAddr,
    /// It is one of the zone's own, whose answer is nobody's memory.
    pub is_of_zone: bool,
    /// The name's IPv6 addresses, or what was wrong with the server.
    pub aaaa: Result<Reply, String>,
    /// The name's IPv4 addresses, or what was wrong with the server.
    pub a: Result<Reply, String>,
}

impl Source {
    /// Whether it has said something about both families.
    pub fn answers(&self) -> bool {
        self.aaaa.is_ok() && self.a.is_ok()
    }
}

/// The CAA records that are in force for the name (RFC 8659, section 3).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum CaaSeen {
    /// Neither the name nor any above it has one, or DNS was not asked.
    #[default]
    None,
    /// The nearest ones.
    Records {
        /// Whose they are: the name, or one above it.
        owner: String,
        /// How long resolvers may remember them, in seconds.
        ttl: u32,
        /// The records.
        records: Vec<Caa>,
    },
    /// Nobody answers; an authority must not sign then.
    Unknown(String),
}

/// Asks everybody. `zone_port` is 53 but in tests.
pub(crate) fn look(domain: &str, resolvers: &[SocketAddr], zone_port: u16) -> Seen {
    let mut sources =
        ask_all(domain, resolvers.iter().map(|server| (format!("`{}`", shown(*server)), *server)), true);
    let Some(resolver) = sources.iter().find(|source| source.answers()).map(|source| source.server) else {
        return Seen { sources, caa: CaaSeen::None };
    };
    let (apex, servers) = dns::zone(domain, resolver, zone_port);
    sources.extend(ask_all(domain, servers.into_iter(), false).into_iter().filter(Source::answers));
    let caa = caa(domain, &apex, &sources);
    Seen { sources, caa }
}

/// An address without the port that every DNS server has.
fn shown(server: SocketAddr) -> String {
    if server.port() == 53 { server.ip().to_string() } else { server.to_string() }
}

fn ask_all(
    domain: &str,
    servers: impl Iterator<Item = (String, SocketAddr)>,
    is_recursive: bool,
) -> Vec<Source> {
    let ask = |name: String, server: SocketAddr| {
        let ask = |kind| {
            dns::ask(server, domain, kind, is_recursive).and_then(|answer| usable(answer, is_recursive))
        };
        let aaaa = ask(Kind::Aaaa);
        // Who did not answer once is not waited for again.
        let a = aaaa.clone().and_then(|_| ask(Kind::A));
        Source { name, server, is_of_zone: !is_recursive, aaaa, a }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = servers.map(|(name, server)| scope.spawn(move || ask(name, server))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}

/// A server that is asked for its own zone must know it; an alias into another one is for resolvers to follow.
fn usable(answer: Answer, is_recursive: bool) -> Result<Reply, String> {
    match answer.reply {
        Reply::Alias(target) if is_recursive => {
            Err(format!("says that it is an alias of `{target}`, and not what that is"))
        }
        Reply::Alias(_) => Err("does not follow the alias".to_owned()),
        _ if !is_recursive && !answer.is_authoritative => Err("does not know the zone".to_owned()),
        reply => Ok(reply),
    }
}

/// Climbs to the nearest name that has such records.
fn caa(domain: &str, apex: &str, sources: &[Source]) -> CaaSeen {
    for name in dns::upwards(domain) {
        let is_in_zone = name == apex || name.strip_suffix(apex).is_some_and(|rest| rest.ends_with('.'));
        let of_zone = sources.iter().filter(|source| source.is_of_zone && is_in_zone && !apex.is_empty());
        let resolvers = sources.iter().filter(|source| !source.is_of_zone && source.answers());
        let mut silence = None;
        let reply = of_zone.chain(resolvers).find_map(|source| {
            let answer = dns::ask(source.server, name, Kind::Caa, !source.is_of_zone);
            match answer.and_then(|answer| match answer.reply {
                // An alias that leads to no such record has none; climbing goes on from the name itself.
                Reply::Alias(_) if !source.is_of_zone => Ok(Reply::Nothing),
                _ => usable(answer, !source.is_of_zone),
            }) {
                Ok(reply) => Some(reply),
                Err(error) => {
                    silence.get_or_insert(format!(
                        "{} {error} when it is asked for the CAA record of `{name}`",
                        source.name
                    ));
                    None
                }
            }
        });
        match reply {
            Some(Reply::Records(records)) => {
                let ttl = records.iter().map(|record| record.ttl).min().unwrap_or_default();
                let records = records.into_iter().filter_map(|record| match record.data {
                    Data::Caa(caa) => Some(caa),
                    _ => None,
                });
                return CaaSeen::Records { owner: name.to_owned(), ttl, records: records.collect() };
            }
            Some(_) => {}
            None => return CaaSeen::Unknown(silence.unwrap_or_default()),
        }
    }
    CaaSeen::None
}
