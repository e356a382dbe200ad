//! The rules as nftables has them: one table for what comes in, one for the wall around the metadata, one that comes and goes.

use anyhow::{Context as _, Result};

use super::diversion::Family;
use crate::exec::Run;

/// The table of what may come in, in `/etc/nftables.conf`.
pub(super) const TABLE: &str = "table inet appliance";

/// The table of the wall. Separate, so that it outlives a firewall that is off.
const WALL: &str = "table inet appliance_metadata";

/// The wall's rules; the image's file has the same ones. DNS passes: some clouds have their resolver at that address.
pub(super) fn rules(uid: u32) -> [String; 2] {
    [
        format!(
            "meta skuid {uid} ip daddr 169.254.169.254 tcp dport != 53 reject with icmp admin-prohibited"
        ),
        format!(
            "meta skuid {uid} ip6 daddr fd00:ec2::254 tcp dport != 53 reject with icmpv6 admin-prohibited"
        ),
    ]
}

/// Whether the table of what may come in is in force.
pub(super) fn is_closed() -> Result<bool> {
    Ok(has_table(&ruleset()?, TABLE))
}

/// Takes that table away.
pub(super) fn clear() -> Result<()> {
    Run::new("nft", &["delete", "table", "inet", "appliance"]).text().map(drop)
}

/// Whether the wall stands.
pub(super) fn is_walled(uid: u32) -> Result<bool> {
    Ok(has_wall(&ruleset()?, uid))
}

/// Builds the wall, in one transaction and as often as one likes.
pub(super) fn wall(uid: u32) -> Result<()> {
    Run::new("nft", &["-f", "-"])
        .stdin(wall_text(uid))
        .text()
        .context("keeping the application from the cloud's metadata")
        .map(drop)
}

/// The wall as `nft` reads it.
pub(super) fn wall_text(uid: u32) -> String {
    let [ipv4, ipv6] = rules(uid);
    // Made first, so that deleting it is never an error.
    format!(
        "{WALL}\ndelete {WALL}\n{WALL} {{\n    chain output {{\n        type filter hook output priority filter; policy accept;\n        \
         {ipv4}\n        {ipv6}\n    }}\n}}\n"
    )
}

/// The table that leads port 443 elsewhere.
const DIVERSION: &str = "table inet appliance_challenge";

/// Whether what was led to another port may come in, by the table of what may come in, if it is in force.
pub(super) fn lets_diverted_in() -> Result<bool> {
    let ruleset = ruleset()?;
    Ok(!has_table(&ruleset, TABLE) || ruleset.lines().any(|line| line.trim() == "ct status dnat accept"))
}

/// Leads new connections to port 443 of this machine to another one, those of its own programs too.
pub(super) fn divert(families: &[Family], port: u16) -> Result<()> {
    Run::new("nft", &["-f", "-"]).stdin(diversion_text(families, port)).text().map(drop)
}

/// The diversion as `nft` reads it. The address stays what it was: `redirect` would change it to one of the interface, which may have
/// none, or another one. First packets alone: where the firewall is off, the kernel meets connections in the middle, and takes
/// them for new ones.
fn diversion_text(families: &[Family], port: u16) -> String {
    let rules: Vec<String> = families
        .iter()
        .map(|family| {
            let family = match family {
                Family::Ipv4 => "ipv4",
                Family::Ipv6 => "ipv6",
            };
            format!(
                "        meta nfproto {family} fib daddr type local tcp dport 443 tcp flags & (fin | syn | rst | ack) == syn dnat to \
                 :{port}\n"
            )
        })
        .collect();
    let rules = rules.concat();
    format!(
        "{DIVERSION}\nflush {DIVERSION}\n{DIVERSION} {{\n    chain prerouting {{\n        type nat hook prerouting priority -100; policy \
         accept;\n{rules}        ct status dnat return\n    }}\n    chain output {{\n        type nat hook output priority -100; policy accept;\n{rules}    }}\n}}\n"
    )
}

/// Leads new ones nowhere else, as often as one likes. The chains stay, with a rule that keeps track of connections: without both, the
/// kernel would no longer translate those that were led elsewhere before, and so cut them.
pub(super) fn end_diversion() -> Result<()> {
    Run::new("nft", &["-f", "-"]).stdin(diversion_text(&[], 0)).text().map(drop)
}

fn ruleset() -> Result<String> {
    Run::new("nft", &["list", "ruleset"]).text()
}

pub(super) fn has_table(ruleset: &str, table: &str) -> bool {
    ruleset.lines().any(|line| line.trim_end().trim_end_matches('{').trim_end() == table)
}

pub(super) fn has_wall(ruleset: &str, uid: u32) -> bool {
    has_table(ruleset, WALL) && rules(uid).iter().all(|rule| ruleset.lines().any(|line| line.trim() == rule))
}
