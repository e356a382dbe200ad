//! Whether a gateway is there: not whether it leads anywhere, but whether somebody on the link answers for its address.
//!
//! A default route by a wrong gateway looks like a right one; only the neighbour table tells them apart. Nobody has to answer a
//! ping, but on Ethernet every router has to answer for its address.

use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::path::Path;
use std::time::Duration;

use fs_err as fs;

use crate::exec::Run;
use crate::settings::Network;

/// The service that throws everything away; the packet only has to make the kernel ask for the neighbour.
const DISCARD: u16 = 9;
/// How often the table is looked at, and the pause between: the kernel asks three times, a second apart.
const LOOKS: u32 = 12;
const PAUSE: Duration = Duration::from_millis(250);

/// The gateways of the settings that do not answer.
pub(super) fn silent(root: &Path, network: &Network, interface: &str) -> Vec<String> {
    let ipv6 = network.ipv6.gateway.map(IpAddr::from);
    let ipv4 = network.ipv4.gateway.map(IpAddr::from);
    let scope = fs::read_to_string(root.join("sys/class/net").join(interface).join("ifindex"));
    let scope = scope.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    [ipv6, ipv4]
        .into_iter()
        .flatten()
        .filter(|gateway| !answers(*gateway, interface, scope))
        .map(|gateway| gateway.to_string())
        .collect()
}

fn answers(gateway: IpAddr, interface: &str, scope: u32) -> bool {
    let to = gateway.to_string();
    for look in 0..LOOKS {
        // What a kernel that cannot even send it answers is no news: then nothing is in the table.
        if look % 4 == 0 {
            let _ = knock(gateway, scope);
        }
        std::thread::sleep(PAUSE);
        let shown = Run::new("ip", &["neigh", "show", "to", &to, "dev", interface]).text();
        if shown.is_ok_and(|shown| is_known(&shown)) {
            return true;
        }
    }
    false
}

fn knock(gateway: IpAddr, scope: u32) -> std::io::Result<usize> {
    let (own, to): (&str, SocketAddr) = match gateway {
        IpAddr::V4(address) => ("0.0.0.0:0", (address, DISCARD).into()),
        IpAddr::V6(address) => ("[::]:0", SocketAddrV6::new(address, DISCARD, 0, scope).into()),
    };
    UdpSocket::bind(own)?.send_to(b"", to)
}

/// Reads a line of `ip neigh`: the state is its last word.
fn is_known(shown: &str) -> bool {
    const KNOWN: [&str; 6] = ["REACHABLE", "STALE", "DELAY", "PROBE", "PERMANENT", "NOARP"];
    shown.lines().any(|line| line.split_whitespace().last().is_some_and(|state| KNOWN.contains(&state)))
}

#[cfg(test)]
mod tests {
    use super::is_known;

    #[test]
    fn the_neighbour_table_is_read() {
        for (shown, expected) in [
            ("192.168.100.1 lladdr 52:54:00:00:00:01 REACHABLE\n", true),
            ("fe80::1 lladdr 52:54:00:00:00:01 router STALE\n", true),
            ("192.168.100.99  FAILED\n", false),
            ("192.168.100.99 INCOMPLETE\n", false),
            ("", false),
        ] {
            assert_eq!(is_known(shown), expected, "{shown}");
        }
    }
}
