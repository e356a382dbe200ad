//! New connections to port 443 led to another port of this machine, for as long as a name is proven by tls-alpn-01.
//!
//! In the kernel's memory alone: a power cut ends it, and what a killed process left is ended by the step before anything else.

use std::any::Any;

use anyhow::{Context as _, Result};

use super::{iptables, nftables};
use crate::acme::Divert;
use crate::console;
use crate::facts::FirewallBackend;
use crate::settings::Listen;

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

/// The way of this machine's kernel to do it.
#[derive(Debug, Clone, Copy)]
pub struct Diversion {
    backend: FirewallBackend,
    families: &'static [Family],
}

impl Diversion {
    /// Of the families that the web server answers on.
    pub fn new(backend: FirewallBackend, listen: Listen) -> Diversion {
        let families: &[Family] = match listen {
            Listen::Ipv6 => &[Family::Ipv6],
            Listen::Dual => &[Family::Ipv4, Family::Ipv6],
            Listen::Ipv4 => &[Family::Ipv4],
        };
        Diversion { backend, families }
    }
}

impl Divert for Diversion {
    fn to(&self, port: u16) -> Result<Box<dyn Any>> {
        let led = Led(self.backend);
        match self.backend {
            FirewallBackend::Nftables => nftables::divert(self.families, port),
            FirewallBackend::Iptables => iptables::divert(self.families, port),
        }
        .context("leading port 443 to the answer for the authority")?;
        Ok(Box::new(led))
    }
}

/// Ends it when dropped, also one that was begun by half.
struct Led(FirewallBackend);

impl Drop for Led {
    fn drop(&mut self) {
        // The step `firewall` finds what could not be ended here.
        if let Err(error) = end(self.0) {
            console::journal(&format!("leading port 443 back to the web server: {error:#}"));
        }
    }
}

pub(super) fn is_there(backend: FirewallBackend) -> Result<bool> {
    match backend {
        FirewallBackend::Nftables => nftables::is_diverted(),
        FirewallBackend::Iptables => iptables::is_diverted(),
    }
}

pub(super) fn end(backend: FirewallBackend) -> Result<()> {
    match backend {
        FirewallBackend::Nftables => nftables::end_diversion(),
        FirewallBackend::Iptables => iptables::end_diversion(),
    }
}
