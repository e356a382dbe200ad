//! Step `certificate`: the certificate that the settings want, and the next one before it runs out.
//!
//! Never blocks service: nginx serves what is in force all the while, and what is in force stays there until another one would
//! really serve. Where it comes from is one file each: [`authority`], `manual`, or a certificate of our own.

mod attempts;
pub mod authority;
mod ledger;
mod manual;
mod plan;
mod preflight;
mod renewal;

use anyhow::Result;

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::settings::TlsMode;
use crate::steps::nginx;
use crate::tls::store;

/// The step.
pub const STEP: Step = Step {
    name: "certificate",
    why: "a certificate that browsers trust",
    needs: Needs::World,
    watch: engine::HOURLY,
    observe,
    apply,
};

fn observe(context: &Context) -> Result<Observation> {
    let settings = context.settings()?;
    match settings.tls.mode {
        TlsMode::Acme => authority::observe(context),
        TlsMode::Manual => manual::observe(context),
        TlsMode::Selfsigned => Ok(match store::load(context, settings.site().as_str()) {
            Ok(pair) if pair.source == store::SELF_SIGNED => Observation::Done,
            _ => Observation::Todo("the settings want a certificate of our own".to_owned()),
        }),
        // Visitors see the load balancer's.
        TlsMode::Offload => Ok(Observation::Done),
    }
}

fn apply(context: &Context) -> Result<()> {
    match context.settings()?.tls.mode {
        TlsMode::Acme => authority::apply(context),
        TlsMode::Manual => manual::apply(context),
        TlsMode::Selfsigned => {
            nginx::install_self_signed(context)?;
            nginx::take(context)
        }
        TlsMode::Offload => Ok(()),
    }
}

/// Lets the next pass try at once, as the operator says that the cause is gone; not before the time that the authority itself
/// asked for, and not beyond its limits.
pub fn forget_failures(context: &Context) -> Result<()> {
    authority::forget_failures(context)
}

#[cfg(test)]
mod tests;
