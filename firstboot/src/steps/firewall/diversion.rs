//! New connections to port 443 led to another port of this machine, for as long as a name is proven by tls-alpn-01.
//!
//! In the kernel's memory alone, and remembered in `/run`: a power cut ends it. What a killed process left is ended by its unit, and by
//! the step if that could not.

use std::any::Any;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::{iptables, nftables};
use crate::acme::Divert;
use crate::facts::FirewallBackend;
use crate::settings::Listen;
use crate::{console, durable};

/// There as long as the kernel may lead anybody away.
const MARKER: &str = "/run/appliance/port-443-led-away";

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

/// The way of this machine's kernel to do it; the marker says it too, so that it can be ended without knowing anything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Way {
    backend: FirewallBackend,
    families: Vec<Family>,
}

impl Way {
    fn begin(&self, port: u16) -> Result<()> {
        match self.backend {
            FirewallBackend::Nftables => nftables::divert(&self.families, port),
            FirewallBackend::Iptables => iptables::divert(&self.families, port),
        }
    }

    fn lacks(&self) -> Result<Option<&'static str>> {
        let (is_let_in, rule) = match self.backend {
            FirewallBackend::Nftables => (nftables::lets_diverted_in()?, "ct status dnat accept"),
            FirewallBackend::Iptables => {
                (iptables::lets_diverted_in(&self.families)?, "-p tcp -m conntrack --ctstate DNAT -j ACCEPT")
            }
        };
        Ok((!is_let_in).then_some(rule))
    }

    /// Every family, whatever comes of one.
    fn end(&self) -> Result<()> {
        match self.backend {
            FirewallBackend::Nftables => nftables::end_diversion(),
            FirewallBackend::Iptables => {
                let ends: Vec<Result<()>> =
                    self.families.iter().map(|family| iptables::end_diversion(*family)).collect();
                ends.into_iter().collect()
            }
        }
    }
}

/// A diversion that may be begun.
#[derive(Debug, Clone)]
pub struct Diversion {
    way: Way,
    marker: PathBuf,
}

impl Diversion {
    /// Of the families that the web server answers on, remembered below a root.
    pub fn new(backend: FirewallBackend, listen: Listen, root: &Path) -> Diversion {
        let families = match listen {
            Listen::Ipv6 => vec![Family::Ipv6],
            Listen::Dual => vec![Family::Ipv4, Family::Ipv6],
            Listen::Ipv4 => vec![Family::Ipv4],
        };
        Diversion { way: Way { backend, families }, marker: marker(root) }
    }

    fn begin(&self, port: u16) -> Result<()> {
        if let Some(rule) = self.way.lacks()? {
            bail!(
                "the firewall's rules were changed and lack `{rule}`, which lets in what came for port 443: add it as the image has it"
            );
        }
        let way = serde_json::to_vec(&self.way).context("writing down how port 443 is led away")?;
        durable::write(&self.marker, &way, 0o600, None)?;
        self.way.begin(port)
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
        if let Err(error) = end_of(&self.0.marker) {
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
    end_of(&marker(root))
}

fn end_of(marker: &Path) -> Result<()> {
    if !marker.exists() {
        return Ok(());
    }
    let way: Way = serde_json::from_slice(&fs::read(marker)?)
        .with_context(|| format!("reading `{}`: a reboot ends what it speaks of", marker.display()))?;
    way.end()?;
    durable::remove(marker)
}
