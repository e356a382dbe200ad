//! The rules as iptables has them: a chain of our own for what comes in, and a rule in OUTPUT for the wall around the metadata.
//!
//! Both families, each by its own program. Where the kernel has no IPv6 there is nothing to filter.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::diversion;
use crate::context::Context;
use crate::exec::Run;

/// The chain of what may come in.
pub(super) const CHAIN: &str = "APPLIANCE";

/// The chain that leads port 443 elsewhere, in the table `nat`, and the chains that lead to it.
const DIVERSION: &str = "APPLIANCE_CHALLENGE";
const DIVERTED: [&str; 2] = ["PREROUTING", "OUTPUT"];

/// One family.
struct Family {
    program: &'static str,
    metadata: &'static str,
    reject: &'static str,
}

const IPV4: Family =
    Family { program: "iptables", metadata: "169.254.169.254/32", reject: "icmp-admin-prohibited" };
const IPV6: Family =
    Family { program: "ip6tables", metadata: "fd00:ec2::254/128", reject: "icmp6-adm-prohibited" };

impl Family {
    fn run(&self, args: &[&str]) -> Run {
        // Whoever else changes rules at this moment is waited for.
        Run::new(self.program, &[&["-w"], args].concat())
    }

    /// Whether what comes in goes through our chain.
    fn is_closed(&self) -> Result<bool> {
        Ok(leads_to_chain(&self.run(&["-S", "INPUT"]).text()?))
    }
}

/// Leads new connections to port 443 of this machine to another one, those of its own programs too.
pub(super) fn divert(families: &[diversion::Family], port: u16) -> Result<()> {
    families.iter().copied().map(Family::of).try_for_each(|family| family.divert(port))
}

/// Whether what was led to another port may come in, by the chain of what may come in, where it is in force.
pub(super) fn lets_diverted_in(families: &[diversion::Family]) -> Result<bool> {
    for family in families.iter().copied().map(Family::of) {
        if family.is_closed()? {
            let rules = family.run(&["-S", CHAIN]).text()?;
            if !rules.lines().any(|rule| rule.contains("--ctstate DNAT -j ACCEPT")) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Leads new ones of a family nowhere else, as often as one likes. The kernel goes on translating those that were led elsewhere before.
pub(super) fn end_diversion(family: diversion::Family) -> Result<()> {
    Family::of(family).end_diversion()
}

impl Family {
    fn of(family: diversion::Family) -> Family {
        match family {
            diversion::Family::Ipv4 => IPV4,
            diversion::Family::Ipv6 => IPV6,
        }
    }

    fn in_nat(&self, rule: &str) -> Result<String> {
        self.run(&[&["-t", "nat"], &rule.split(' ').collect::<Vec<_>>()[..]].concat()).text()
    }

    fn divert(&self, port: u16) -> Result<()> {
        self.end_diversion()?;
        let rules = self.in_nat("-S")?;
        let has = |rule: &str| rules.lines().any(|line| line == rule);
        if !has(&format!("-N {DIVERSION}")) {
            self.in_nat(&format!("-N {DIVERSION}"))?;
        }
        // It stays: a kernel that keeps track of connections for nobody would cut those that were led elsewhere.
        let keep = format!("-A {DIVERSION} -m conntrack --ctstate DNAT -j RETURN");
        if !has(&keep) {
            self.in_nat(&keep)?;
        }
        for chain in DIVERTED {
            if !has(&format!("-A {chain} -j {DIVERSION}")) {
                self.in_nat(&format!("-I {chain} 1 -j {DIVERSION}"))?;
            }
        }
        // First packets alone: where the firewall is off, the kernel meets connections in the middle, and takes them for new ones. Not
        // REDIRECT, which changes the address to one of the interface.
        self.in_nat(&format!(
            "-A {DIVERSION} -p tcp -m tcp --dport 443 --syn -m addrtype --dst-type LOCAL -j DNAT --to-destination :{port}"
        ))?;
        Ok(())
    }

    fn end_diversion(&self) -> Result<()> {
        let begin = format!("-A {DIVERSION} ");
        let rules = self.in_nat("-S")?;
        for rule in rules.lines().filter(|rule| rule.contains("-j DNAT")) {
            if let Some(rule) = rule.strip_prefix(&begin) {
                self.in_nat(&format!("-D {DIVERSION} {rule}"))?;
            }
        }
        Ok(())
    }
}

/// The families that this kernel has.
fn families(root: &Path) -> Vec<Family> {
    if root.join("proc/net/if_inet6").exists() { vec![IPV4, IPV6] } else { vec![IPV4] }
}

/// Whether the chain is in force in every family, and whether in any.
pub(super) fn closed(context: &Context) -> Result<(bool, bool)> {
    let found: Vec<bool> = families(&context.root).iter().map(Family::is_closed).collect::<Result<_>>()?;
    Ok((found.iter().all(|closed| *closed), found.contains(&true)))
}

/// Takes the chain out of the way of what comes in.
pub(super) fn clear(context: &Context) -> Result<()> {
    for family in families(&context.root) {
        if family.is_closed()? {
            family.run(&["-D", "INPUT", "-j", CHAIN]).text()?;
        }
    }
    Ok(())
}

/// The rule of the wall; the image's files have the same ones. DNS passes: some clouds have their resolver at that address.
fn rule(family: &Family, uid: &str) -> Vec<String> {
    let whom = ["-d", family.metadata, "-p", "tcp", "-m", "owner", "--uid-owner", uid];
    let but = ["-m", "tcp", "!", "--dport", "53", "-j", "REJECT", "--reject-with", family.reject];
    whom.into_iter().chain(but).map(str::to_owned).collect()
}

/// The rules as they stand in the image's files: for IPv4 and for IPv6.
#[cfg(test)]
pub(super) fn rules(uid: u32) -> [String; 2] {
    [IPV4, IPV6].map(|family| format!("-A OUTPUT {}", rule(&family, &uid.to_string()).join(" ")))
}

/// Whether the wall stands in every family.
pub(super) fn is_walled(context: &Context, uid: u32) -> Result<bool> {
    for family in families(&context.root) {
        if !family.has_wall(&uid.to_string())? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Builds the wall where it is missing, before every other rule.
pub(super) fn wall(context: &Context, uid: u32) -> Result<()> {
    let uid = uid.to_string();
    for family in families(&context.root) {
        if !family.has_wall(&uid)? {
            let rule = rule(&family, &uid);
            let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
            family
                .run(&[&["-I", "OUTPUT", "1"], &rule[..]].concat())
                .text()
                .context("keeping the application from the cloud's metadata")?;
        }
    }
    Ok(())
}

impl Family {
    /// Asks the kernel by the rule itself; how it is printed differs between versions.
    fn has_wall(&self, uid: &str) -> Result<bool> {
        let rule = rule(self, uid);
        let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
        let output = self.run(&[&["-C", "OUTPUT"], &rule[..]].concat()).output()?;
        Ok(output.code == 0)
    }
}

pub(super) fn leads_to_chain(rules: &str) -> bool {
    rules.lines().any(|line| line.trim() == format!("-A INPUT -j {CHAIN}"))
}
