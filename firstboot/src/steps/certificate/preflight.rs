//! Whether an authority will find this machine under its name, looked at before it is asked: that costs nothing of its limits.
//!
//! The zone's own servers decide where any of them answers, because an authority asks them too and resolvers remember; what a
//! resolver of this house alone says is then no obstacle. The machine's own addresses are the measure. One that is not among
//! them leads elsewhere, unless this machine has private addresses alone and something in front translates: then nothing can be
//! said from here, and the authority's word is waited for.

pub(crate) mod look;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use rand::Rng;
use rand::distr::Alphanumeric;

use self::look::{CaaSeen, Seen, Source};
use crate::acme::{Answer, CHALLENGES, Proof, Standing};
use crate::dns::{Caa, Reply, addresses};
use crate::settings::Listen;
use crate::{http, stamp};

/// The CAA parameter (RFC 8657) that restricts how a name may be proven.
const METHODS: &str = "validationmethods";
/// How long the answer to ourselves may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Addresses of a name that are tried.
const MOST_TARGETS: usize = 4;

/// Whose name it is, and what it should lead to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    pub domain: &'a str,
    pub listen: Listen,
    /// This machine's addresses; those that it shall be known by first.
    pub own: &'a [IpAddr],
}

/// An address that the name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub ip: IpAddr,
    /// It is this machine's own.
    pub is_own: bool,
}

/// The sources whose answers count.
fn deciding(seen: &Seen) -> Vec<&Source> {
    let of_zone: Vec<&Source> =
        seen.sources.iter().filter(|source| source.is_of_zone && source.answers()).collect();
    if of_zone.is_empty() { seen.sources.iter().filter(|source| source.answers()).collect() } else { of_zone }
}

fn found(reply: &Result<Reply, String>) -> Vec<IpAddr> {
    match reply {
        Ok(Reply::Records(records)) => addresses(records).collect(),
        _ => Vec::new(),
    }
}

/// Where the name leads to, if that is here; else what is wrong and what to do, as one sentence.
pub(crate) fn targets(question: &Question<'_>, seen: &Seen) -> Result<Vec<Target>, String> {
    let Question { domain, listen, .. } = question;
    if seen.sources.is_empty() {
        return Err("no DNS server is known: give one as `dns` under `[network]`".to_owned());
    }
    let sources = deciding(seen);
    if sources.is_empty() {
        let said: Vec<String> = seen
            .sources
            .iter()
            .filter_map(|source| {
                let error = source.aaaa.as_ref().err().or(source.a.as_ref().err())?;
                Some(format!("{} {error}", source.name))
            })
            .collect();
        return Err(format!(
            "no DNS answer for `{domain}`: {}; check the network, and `dns` under `[network]`",
            said.join("; ")
        ));
    }
    let mut targets: Vec<Target> = Vec::new();
    for source in sources {
        let says = format!("as {} says", source.name);
        let (aaaa, a) = (found(&source.aaaa), found(&source.a));
        if source.aaaa == Ok(Reply::NoName) {
            return Err(format!("`{domain}` does not exist, {says}: add {}", wanted(question)));
        }
        let lacks = match listen {
            Listen::Ipv6 => aaaa.is_empty().then_some("AAAA record"),
            Listen::Ipv4 => a.is_empty().then_some("A record"),
            Listen::Dual => (aaaa.is_empty() && a.is_empty()).then_some("address"),
        };
        if let Some(lacks) = lacks {
            return Err(format!("`{domain}` has no {lacks}, {says}: add {}", wanted(question)));
        }
        if *listen == Listen::Ipv4
            && let Some(ip) = aaaa.first()
        {
            return Err(format!(
                "`{domain}` has the AAAA record `{ip}`, {says}, and an authority prefers IPv6, but the web server listens on IPv4 \
                 alone: remove the record, or write `listen = \"dual\"` under `[web]`"
            ));
        }
        // Where the web server does not listen on IPv4, an A record misleads people, but no authority that finds an AAAA.
        let counted = if *listen == Listen::Ipv6 { aaaa } else { [aaaa, a].concat() };
        for ip in counted {
            if leads_elsewhere(ip, question.own) {
                return Err(elsewhere(question, ip, &says));
            }
            let target = Target { ip, is_own: question.own.contains(&ip) };
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
    }
    Ok(targets)
}

/// The records to add, as a zone file has them.
fn wanted(question: &Question<'_>) -> String {
    let Question { domain, listen, own } = question;
    let of = |is_wanted: bool, kind: &str, family: fn(&IpAddr) -> bool, unknown: &str| {
        is_wanted.then(|| {
            let known = own.iter().find(|ip| family(ip) && is_public(**ip)).map(ToString::to_string);
            format!("`{domain}. {kind} {}`", known.as_deref().unwrap_or(unknown))
        })
    };
    let ipv6 =
        of(*listen != Listen::Ipv4, "AAAA", IpAddr::is_ipv6, "(the public IPv6 address that leads here)");
    let ipv4 = of(*listen != Listen::Ipv6, "A", IpAddr::is_ipv4, "(the public IPv4 address that leads here)");
    ipv6.into_iter().chain(ipv4).collect::<Vec<_>>().join(" or ")
}

/// Whether an address cannot be this machine's.
fn leads_elsewhere(ip: IpAddr, own: &[IpAddr]) -> bool {
    let mut family = own.iter().filter(|own| own.is_ipv4() == ip.is_ipv4()).peekable();
    let has_none = family.peek().is_none();
    !own.contains(&ip) && (has_none && ip.is_ipv6() || family.any(|own| is_public(*own)) || !is_public(ip))
}

fn elsewhere(question: &Question<'_>, ip: IpAddr, says: &str) -> String {
    let domain = question.domain;
    let kind = if ip.is_ipv6() { "AAAA" } else { "A" };
    let mut own: Vec<&IpAddr> = question.own.iter().filter(|own| own.is_ipv6() == ip.is_ipv6()).collect();
    own.truncate(MOST_TARGETS);
    let own: Vec<String> = own.iter().map(|ip| format!("`{ip}`")).collect();
    let remedy = match own.first() {
        Some(first) => format!("this machine has {}: change the record to {first}", own.join(", ")),
        None => format!(
            "this machine has no {} address: remove the record",
            if ip.is_ipv6() { "IPv6" } else { "IPv4" }
        ),
    };
    let prefers = if ip.is_ipv6() {
        " (a right A record beside it does not help: an authority prefers IPv6)"
    } else {
        ""
    };
    format!(
        "the {kind} record of `{domain}` leads to `{ip}`, {says}, and {remedy}{prefers}; with a proxy in front write `preflight = \"warn\"` \
         under `[tls]`"
    )
}

/// Whether an address means the same machine everywhere.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let is_shared = first == 100 && (64..128).contains(&second);
            !(ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || is_shared
                || first == 0)
        }
        IpAddr::V6(ip) => {
            let first = ip.segments()[0];
            first & 0xfe00 != 0xfc00 && first & 0xffc0 != 0xfe80 && first & 0xff00 != 0xff00 && first != 0
        }
    }
}

/// Whether CAA lets an authority of these names sign what is proven by this method; else the record, and what to allow.
pub(crate) fn caa(domain: &str, identities: &[String], method: &str, seen: &Seen) -> Result<(), String> {
    let (owner, ttl, records) = match &seen.caa {
        CaaSeen::None => return Ok(()),
        CaaSeen::Unknown(why) => {
            return Err(format!(
                "{why}, and an authority does not sign while it cannot be known whether CAA forbids it for `{domain}`: check the zone's name servers"
            ));
        }
        CaaSeen::Records { owner, ttl, records } => (owner, ttl, records),
    };
    let name = identities.first().map_or("(the authority's name in CAA records)", String::as_str);
    let remedy =
        format!("add `{owner}. CAA 0 issue \"{name}\"`; resolvers remember the old records for {ttl} s");
    if let Some(unknown) = records.iter().find(|caa| caa.is_critical && !is_known(&caa.tag)) {
        let tag = &unknown.tag;
        return Err(format!(
            "the CAA record `{tag}` of `{owner}` is critical, and authorities that do not know it must not sign: remove it"
        ));
    }
    let issue: Vec<&Caa> = records.iter().filter(|caa| caa.tag == "issue").collect();
    // Who has not said by what name it goes may be any of those that are allowed.
    let is_meant = |value: &str| {
        let name = value.split(';').next().unwrap_or_default().trim();
        !name.is_empty()
            && (identities.is_empty() || identities.iter().any(|known| known.eq_ignore_ascii_case(name)))
    };
    let meant: Vec<&Caa> = issue.iter().copied().filter(|caa| is_meant(&caa.value)).collect();
    if issue.is_empty() || meant.iter().any(|caa| allows_method(&caa.value, method)) {
        return Ok(());
    }
    let shown: Vec<String> =
        issue.iter().take(MOST_TARGETS).map(|caa| format!("`issue {:?}`", caa.value)).collect();
    let shown = shown.join(", ");
    Err(match meant.first() {
        Some(caa) => format!(
            "the CAA record `issue {:?}` of `{owner}` does not allow {method}, which this machine proves its name by: add it to {METHODS}",
            caa.value
        ),
        None => format!(
            "the CAA records of `{owner}` ({shown}) forbid this authority to sign for `{domain}`: {remedy}"
        ),
    })
}

fn is_known(tag: &str) -> bool {
    ["issue", "issuewild", "iodef", "contactemail", "contactphone", "issuemail", "issuevmc"].contains(&tag)
}

fn allows_method(value: &str, wanted: &str) -> bool {
    let mut parameters = value.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let methods = parameters.find(|(key, _)| key.trim().eq_ignore_ascii_case(METHODS));
    methods.is_none_or(|(_, methods)| methods.split(',').any(|method| method.trim() == wanted))
}

/// What DNS says and what of it is ours, in a few bytes: when this changes, an authority may see it otherwise too. `None` when
/// nobody answers.
pub(crate) fn fingerprint(question: &Question<'_>, seen: &Seen) -> Option<String> {
    let sources = deciding(seen);
    if sources.is_empty() {
        return None;
    }
    let ips: BTreeSet<IpAddr> =
        sources.iter().flat_map(|source| [found(&source.aaaa), found(&source.a)].concat()).collect();
    let ips: Vec<(IpAddr, bool)> = ips.into_iter().map(|ip| (ip, question.own.contains(&ip))).collect();
    let caa = match &seen.caa {
        CaaSeen::Records { owner, records, .. } => {
            let mut records: Vec<String> = records.iter().map(|caa| format!("{caa:?}")).collect();
            records.sort();
            format!("{owner} {records:?}")
        }
        other => format!("{}", matches!(other, CaaSeen::None)),
    };
    Some(stamp::hash(format!("{} {:?} {ips:?} {caa}", question.domain, question.listen).as_bytes()))
}

/// Looks at an answer to a challenge as an authority would, by every address of the name. What is wrong with our own addresses is
/// an error: nobody else can answer there. Beyond a router that translates, it is a warning: many routers do not lead their own
/// public address back in, and the authority, which comes from outside, may see what we cannot.
pub(crate) fn reach(domain: &str, targets: &[Target], proof: &Proof) -> Result<Option<String>, String> {
    let said = |error: anyhow::Error| format!("{error:#}");
    match proof {
        Proof::Http { webroot, server } => {
            let (token, content) = (format!("appliance-{}", random(24)), random(40));
            let _answer = Answer::put(webroot, &token, &content).map_err(said)?;
            let path = format!("/{CHALLENGES}/{token}");
            each(
                targets,
                &format!("`http://{domain}{path}`"),
                server.port(),
                NGINX,
                |address| match http::get(address, domain, &path, PATIENCE) {
                    Ok(own) if own.status == 200 && own.body.trim() == content => Ok(()),
                    Ok(own) => Err(format!("the answer is {} and not what lies here", own.status)),
                    Err(error) => Err(error.root_cause().to_string()),
                },
            )
        }
        Proof::TlsAlpn(gate) => {
            let digest: [u8; 32] = rand::rng().random();
            let answer = Standing::put(gate, domain, &digest).map_err(said)?;
            each(
                targets,
                &format!("the answer for `{domain}` (tls-alpn-01)"),
                gate.front.port(),
                "",
                |address| answer.look(address).map_err(|error| error.root_cause().to_string()),
            )
        }
        Proof::Dns { .. } => Ok(None),
    }
}

/// Who answers on port 80.
const NGINX: &str = "see `systemctl status nginx`, and ";

fn random(length: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).take(length).map(char::from).collect()
}

fn each(
    targets: &[Target],
    what: &str,
    port: u16,
    ours: &str,
    look: impl Fn(SocketAddr) -> Result<(), String>,
) -> Result<Option<String>, String> {
    let mut warning = None;
    for target in targets.iter().take(MOST_TARGETS) {
        let Err(cause) = look(SocketAddr::new(target.ip, port)) else { continue };
        let text = format!("{what} at `{}` could not be fetched: {cause}", target.ip);
        if target.is_own {
            return Err(format!("{text}; {ours}let port {port} of this machine be open"));
        }
        warning.get_or_insert(format!("{text} (which may be the router's way with its own address)"));
    }
    Ok(warning)
}

#[cfg(test)]
mod tests;
