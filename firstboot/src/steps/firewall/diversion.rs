//! New connections to port 443 led to another port of this machine, for as long as a name is proven by tls-alpn-01.
//!
//! In the kernel's memory alone, and remembered in `/run`: a power cut ends it. What a killed process left is ended by its unit, and by
//! the step if that could not.

use std::any::Any;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{iptables, nftables};
use crate::acme::Divert;
use crate::context::Context;
use crate::facts::FirewallBackend;
use crate::settings::Listen;
use crate::{console, durable};

/// There as long as the kernel may lead anybody away.
const MARKER: &str = "/run/appliance/port-443-led-away";

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

/// The way of this machine's kernel to do it.
#[derive(Debug, Clone)]
pub struct Diversion {
    backend: FirewallBackend,
    families: &'static [Family],
    root: PathBuf,
}

impl Diversion {
    /// Of the families that the web server answers on, remembered below a root.
    pub fn new(backend: FirewallBackend, listen: Listen, root: &Path) -> Diversion {
        let families: &[Family] = match listen {
            Listen::Ipv6 => &[Family::Ipv6],
            Listen::Dual => &[Family::Ipv4, Family::Ipv6],
            Listen::Ipv4 => &[Family::Ipv4],
        };
        Diversion { backend, families, root: root.to_owned() }
    }

    fn begin(&self, port: u16) -> Result<()> {
        let (is_let_in, rule) = match self.backend {
            FirewallBackend::Nftables => (nftables::lets_diverted_in()?, "ct status dnat accept"),
            FirewallBackend::Iptables => {
                (iptables::lets_diverted_in(self.families)?, "-p tcp -m conntrack --ctstate DNAT -j ACCEPT")
            }
        };
        if !is_let_in {
            bail!(
                "the firewall's rules were changed and lack `{rule}`, which lets in what came for port 443: add it as the image has it"
            );
        }
        durable::write(&marker(&self.root), b"", 0o600, None)?;
        match self.backend {
            FirewallBackend::Nftables => nftables::divert(self.families, port),
            FirewallBackend::Iptables => iptables::divert(self.families, port),
        }
    }

    fn end(&self) -> Result<()> {
        match self.backend {
            FirewallBackend::Nftables => nftables::end_diversion()?,
            FirewallBackend::Iptables => iptables::end_diversion(&self.root)?,
        }
        durable::remove(&marker(&self.root))
    }
}

impl Divert for Diversion {
    fn to(&self, port: u16) -> Result<Box<dyn Any + Send + Sync>> {
        let led = Led(self.clone());
        self.begin(port).context("leading port 443 to the answer for the authority")?;
        Ok(Box::new(led))
    }
}

/// Ends it when dropped, also one that was begun by half.
struct Led(Diversion);

impl Drop for Led {
    fn drop(&mut self) {
        // The step `firewall` finds what could not be ended here.
        if is_left(&self.0.root)
            && let Err(error) = self.0.end()
        {
            console::journal(&format!("leading port 443 back to the web server: {error:#}"));
        }
    }
}

fn marker(root: &Path) -> PathBuf {
    root.join(MARKER.trim_start_matches('/'))
}

/// Whether a process has left one behind.
pub(super) fn is_left(root: &Path) -> bool {
    marker(root).exists()
}

/// Ends what a process has left behind, if it has.
pub fn end(root: &Path) -> Result<()> {
    if !is_left(root) {
        return Ok(());
    }
    let backend = Context::load_facts(root)?.system.firewall;
    // Of either family: whatever was begun.
    Diversion::new(backend, Listen::Dual, root).end()
}
