//! Step `firewall`: the host's own firewall, on or off, and the wall between the application and the cloud's metadata.
//!
//! The rules are the image's: a file that its own service loads at every boot, for IPv4 and IPv6. What counts is what the kernel has,
//! not what systemd says of a service that has long ended.
//!
//! Clouds hand out a machine's credentials at two addresses to whoever asks from within. Mastodon fetches any URL that a stranger
//! names, so its user never reaches them: the image's rules say so, and where the firewall is off this step does. It is an early one
//! too, because the application is started before first boot has read its settings.

mod diversion;
mod iptables;
mod nftables;

use anyhow::{Result, bail};

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::facts::FirewallBackend;
use crate::{passwd, systemd};

pub use diversion::{Diversion, end as end_diversion};

/// The step.
pub const STEP: Step = Step {
    name: "firewall",
    why: "lets SSH and the web in alone, and keeps the application from the cloud's metadata",
    needs: Needs::Local,
    watch: engine::MINUTELY,
    observe,
    apply,
};

/// How much of something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    All,
    Some,
    None,
}

impl Extent {
    fn of(is_all: bool, is_some: bool) -> Extent {
        match (is_all, is_some) {
            (true, _) => Extent::All,
            (false, true) => Extent::Some,
            (false, false) => Extent::None,
        }
    }
}

/// What the kernel and systemd have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// Of the image's rules, over the families.
    rules: Extent,
    /// Of its services: all when all start at every boot, none when none does and none runs.
    services: Extent,
}

fn observe(context: &Context) -> Result<Observation> {
    // The kernel's rules are this machine's, wherever the root is.
    if !context.is_machine() {
        return Ok(Observation::Done);
    }
    if !is_walled(context)? {
        return Ok(Observation::Todo("keep the application from the cloud's metadata".to_owned()));
    }
    // The process that wanted it was killed: no other step is at work while this one looks.
    if diversion::is_left(&context.root) {
        return Ok(Observation::Todo("lead port 443 back to the web server".to_owned()));
    }
    let Some(settings) = &context.settings else { return Ok(Observation::Done) };
    Ok(judge(settings.firewall, look(context)?))
}

fn judge(wanted: bool, seen: Seen) -> Observation {
    if wanted && (seen.rules, seen.services) != (Extent::All, Extent::All) {
        return Observation::Todo("switch the firewall on".to_owned());
    }
    // A service that loads other rules than the image's is the operator's.
    if !wanted && seen.rules != Extent::None {
        return Observation::Todo("switch the firewall off".to_owned());
    }
    Observation::Done
}

fn apply(context: &Context) -> Result<()> {
    let led_back = diversion::end(&context.root);
    let switched = match &context.settings {
        None => Ok(()),
        Some(settings) => look(context).and_then(|seen| {
            if settings.firewall { switch_on(context, seen) } else { switch_off(context, seen) }
        }),
    };
    // Last, and whatever came of that: a service that stops takes every rule with it.
    if !is_walled(context)? {
        wall(context)?;
    }
    switched.and(led_back)
}

fn switch_on(context: &Context, seen: Seen) -> Result<()> {
    for unit in units(context) {
        systemd::enable(unit)?;
        // It counts as running also when its rules are gone.
        if seen.rules == Extent::All { systemd::start(unit)? } else { systemd::restart(unit)? }
    }
    if look(context)?.rules != Extent::All {
        bail!(
            "the firewall's service was started, but the kernel does not have its rules: see `journalctl --unit {}`; the file with the \
             rules must keep the name `{}` that this step looks for, or set `firewall = false`",
            units(context)[0],
            mark(context)
        );
    }
    Ok(())
}

fn switch_off(context: &Context, seen: Seen) -> Result<()> {
    if seen.rules == Extent::None {
        return Ok(());
    }
    for unit in units(context) {
        systemd::disable(unit)?;
    }
    if look(context)?.rules != Extent::None {
        match context.facts.system.firewall {
            FirewallBackend::Nftables => nftables::clear()?,
            FirewallBackend::Iptables => iptables::clear(context)?,
        }
    }
    Ok(())
}

/// The services that load the image's rules.
fn units(context: &Context) -> &'static [&'static str] {
    match context.facts.system.firewall {
        FirewallBackend::Nftables => &["nftables.service"],
        FirewallBackend::Iptables => &["iptables.service", "ip6tables.service"],
    }
}

/// By what the image's rules are known.
fn mark(context: &Context) -> &'static str {
    match context.facts.system.firewall {
        FirewallBackend::Nftables => nftables::TABLE,
        FirewallBackend::Iptables => iptables::CHAIN,
    }
}

fn look(context: &Context) -> Result<Seen> {
    let (is_all, is_some) = match context.facts.system.firewall {
        FirewallBackend::Nftables => {
            let is_there = nftables::is_closed()?;
            (is_there, is_there)
        }
        FirewallBackend::Iptables => iptables::closed(context)?,
    };
    let units = units(context);
    let is_enabled = units.iter().all(|unit| systemd::is_enabled(unit));
    let is_alive = units.iter().any(|unit| systemd::is_enabled(unit) || systemd::is_active(unit));
    Ok(Seen { rules: Extent::of(is_all, is_some), services: Extent::of(is_enabled, is_alive) })
}

fn is_walled(context: &Context) -> Result<bool> {
    let uid = passwd::user(context, &context.facts.application.user)?.uid;
    match context.facts.system.firewall {
        FirewallBackend::Nftables => nftables::is_walled(uid),
        FirewallBackend::Iptables => iptables::is_walled(context, uid),
    }
}

fn wall(context: &Context) -> Result<()> {
    let uid = passwd::user(context, &context.facts.application.user)?.uid;
    match context.facts.system.firewall {
        FirewallBackend::Nftables => nftables::wall(uid),
        FirewallBackend::Iptables => iptables::wall(context, uid),
    }
}

#[cfg(test)]
mod tests;
