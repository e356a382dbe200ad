//! `tls.mode = "acme"`: a certificate from an authority, and the next one in time.
//!
//! What is in force stays in force until the next one is stored; a failed renewal says until when that is.

use anyhow::{Context as _, Result, anyhow};

use super::attempts::Attempts;
pub use super::plan::Plan;
use super::plan::{folder, settle, wish};
use super::renewal;
use crate::context::Context;
use crate::engine::Observation;
use crate::steps::nginx;
use crate::tls::moment::{Moment, minute};
use crate::tls::store;
use crate::{acme, durable};

/// What the certificate in force leaves to be done.
enum Need {
    Nothing,
    /// An order; why.
    Order(String),
    /// The right time; another order would bring a certificate that begins no earlier.
    Time(String),
}

fn need(context: &Context, now: &Moment) -> Result<Need> {
    let settings = context.settings()?;
    let directory = settings.acme.directory.url();
    Ok(match store::load(context, settings.site().as_str()) {
        Ok(pair) if pair.source != directory => Need::Order(format!("no certificate from `{directory}` yet")),
        Ok(pair) if now.wall < pair.certificate.not_before => Need::Time(format!(
            "for the time: the clock is behind, because it says {} and the certificate is valid from {}; set the hypervisor's \
             clock or let this machine reach a time server",
            minute(now.wall),
            minute(pair.certificate.not_before)
        )),
        Ok(pair) => match renewal::reason(&folder(context), &pair.certificate, now) {
            Some(reason) => Need::Order(reason),
            None => Need::Nothing,
        },
        Err(error) => Need::Order(format!("{error:#}")),
    })
}

/// See [`crate::engine::Step::observe`].
pub(super) fn observe(context: &Context) -> Result<Observation> {
    let now = Moment::now(&context.root)?;
    Ok(match need(context, &now)? {
        Need::Time(text) => Observation::Waiting(text),
        Need::Order(reason) => match plan(context)?.waits(&now) {
            Some(text) => Observation::Waiting(format!("{text}{}", meanwhile(context, &now))),
            None => Observation::Todo(reason),
        },
        Need::Nothing if acme::is_remembered(&folder(context)) => {
            Observation::Todo("forget the order, whose certificate is in force".to_owned())
        }
        Need::Nothing => {
            let pair = store::load(context, context.settings()?.site().as_str())?;
            if renewal::is_question_due(&folder(context), &pair.certificate, &now) {
                Observation::Todo("ask the authority when it wants the certificate renewed".to_owned())
            } else {
                Observation::Done
            }
        }
    })
}

/// See [`crate::engine::Step::apply`].
pub(super) fn apply(context: &Context) -> Result<()> {
    let settings = context.settings()?;
    let now = Moment::now(&context.root)?;
    let (folder, domain) = (folder(context), settings.site().as_str());
    durable::private_folder(&folder)?;
    let directory = settings.acme.directory.url();
    let in_force = store::load(context, domain).ok().filter(|pair| pair.source == directory);
    match (need(context, &now)?, &in_force) {
        (Need::Nothing, Some(pair)) => {
            // A cut may have come between the certificate's installation and this.
            settle(&folder)?;
            return renewal::ask(&folder, &pair.certificate, directory, settings.acme.ca.as_deref(), &now);
        }
        // A change of the settings and back, or a lost link, must not cost another one.
        (_, None) if store::reuse(context, domain, directory, now.wall)? => return nginx::take(context),
        _ => {}
    }
    let plan = plan(context)?;
    let issued = plan.obtain(&now).map_err(|error| {
        let meanwhile = meanwhile(context, &now);
        if meanwhile.is_empty() { error } else { anyhow!("{error:#}{meanwhile}") }
    })?;
    store::install(context, domain, &issued.chain, &issued.key, directory)?;
    acme::forget(&folder)?;
    nginx::take(context).context("the new certificate is stored")?;
    // One that does not satisfy us is not ordered again at once: the ledger knows it.
    if matches!(need(context, &now)?, Need::Nothing) { plan.settle() } else { Ok(()) }
}

fn plan(context: &Context) -> Result<Plan> {
    let plan = Plan::of(context)?;
    let pair = store::load(context, &plan.domain).ok().filter(|pair| pair.source == plan.directory);
    // Only an authority that says when to renew knows what a renewal is.
    let pair = pair.filter(|pair| renewal::is_suggested(&plan.folder, &pair.certificate));
    let replaces = pair.and_then(|pair| pair.certificate.renewal_id);
    Ok(Plan { replaces, ..plan })
}

/// What serves while something else is waited for, when that is a certificate of the authority.
fn meanwhile(context: &Context, now: &Moment) -> String {
    let Ok(settings) = context.settings() else { return String::new() };
    match store::load(context, settings.site().as_str()) {
        Ok(pair) if pair.certificate.is_self_signed => String::new(),
        Ok(pair) if pair.certificate.is_valid_at(now.wall) => {
            format!("; the certificate in force serves until {}", minute(pair.certificate.not_after))
        }
        Ok(pair) => {
            format!("; the certificate in force has run out at {}", minute(pair.certificate.not_after))
        }
        Err(_) => String::new(),
    }
}

/// Lets the next pass try at once, as the operator says that the cause is gone; not before the time that the authority itself
/// asked for, and not beyond its limits.
pub(crate) fn forget_failures(context: &Context) -> Result<()> {
    let settings = context.settings()?;
    let folder = folder(context);
    let now = Moment::now(&context.root)?;
    let attempts = Attempts::read(&folder, &wish(settings.site().as_str(), settings.acme.directory.url()));
    match attempts.and_then(|attempts| attempts.forgiven(&now)) {
        Some(attempts) => attempts.write(&folder),
        None => Attempts::remove(&folder),
    }
}
