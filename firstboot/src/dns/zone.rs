//! Which zone a name is in, and its servers.

use std::net::{IpAddr, SocketAddr};

use super::{Answer, Data, Kind, Record, Reply, ask};

/// Name servers of a zone that are named, and their addresses altogether.
const MOST_SERVERS: usize = 4;
const MOST_ADDRESSES: usize = 6;

/// The names from one up to the last below the root.
pub fn upwards(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, parent)| parent))
}

/// The zone that a name is in, and its servers by name and address, as a resolver tells; none when it cannot.
pub fn zone(name: &str, resolver: SocketAddr, port: u16) -> (String, Vec<(String, SocketAddr)>) {
    for apex in upwards(name) {
        // Who does not answer at all is not asked about every name above.
        let records = match ask(resolver, apex, Kind::Ns, true) {
            Ok(Answer { reply: Reply::Records(records), .. }) => records,
            Ok(_) => continue,
            Err(_) => break,
        };
        let servers = records.iter().filter_map(|record| match &record.data {
            Data::Name(server) => Some(server),
            _ => None,
        });
        let mut found = Vec::new();
        for server in servers.take(MOST_SERVERS) {
            for kind in [Kind::Aaaa, Kind::A] {
                let Ok(Answer { reply: Reply::Records(records), .. }) = ask(resolver, server, kind, true)
                else {
                    continue;
                };
                let addresses = addresses(&records);
                found.extend(addresses.map(|ip| (format!("`{server}` ({ip})"), SocketAddr::new(ip, port))));
            }
        }
        found.truncate(MOST_ADDRESSES);
        return (apex.to_owned(), found);
    }
    (String::new(), Vec::new())
}

/// The addresses of records.
pub fn addresses(records: &[Record]) -> impl Iterator<Item = IpAddr> {
    records.iter().filter_map(|record| match record.data {
        Data::Address(ip) => Some(ip),
        _ => None,
    })
}
