//! The network: one NetworkManager profile, active, with usable addresses, a route and a resolver.
//!
//! The profile is an ordinary one that `nmtui` can edit. Once the operator has edited it, it is theirs and is left alone.
//!
//! New settings are on trial: if within a minute of their activation they lack a wanted address, a default route that the last good
//! ones had, or an answer of the gateway that they name, the last good ones come back and the operator is told why. The first
//! settings of a machine have nothing to go back to, and stay.

mod gateway;
mod ifcfg;
pub(crate) mod interface;
mod keyfile;
mod look;
mod nm;
mod profile;
mod seen;
mod trial;

use std::path::Path;

use anyhow::Result;

pub use look::global_addresses;
pub use nm::raise;
pub use trial::forgive;

use self::look::{has_carrier, look};
use self::profile::{Owner, Profile};
use self::trial::{Good, Record, Refused, Trial};
use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::settings::Network;
use crate::stamp;
use crate::tls::moment::Moment;

/// A working network.
pub const STEP: Step = Step {
    name: "network",
    why: "writes the NetworkManager profile and waits for addresses, a route and a resolver",
    needs: Needs::Link,
    watch: engine::OFTEN,
    observe,
    apply,
};

/// The profile's identity, the same in every format and on every machine: profiles are local.
const UUID: &str = "8f0a7c2e-3b5d-4d1e-9a64-5c2b7e10d4aa";
/// The stamp of the profile that was activated last.
const STAMP: &str = "network";
/// The name that `nmtui` shows.
const NAME: &str = "appliance";
/// How long an address may be missing from an active profile before it is activated again, in seconds. Each time interrupts the
/// connections by all the other addresses for a moment.
const AGAIN: i64 = 100;

/// Settings and the interface that they are for.
#[derive(Debug, Clone)]
struct Wish {
    network: Network,
    interface: String,
}

/// What the machine is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    /// Nothing, but wait or be content.
    Observe(Observation),
    /// Write the profile and activate it; the text says what.
    Activate(String),
    /// Remember these settings as the last good ones.
    Remember,
    /// Put the last good ones back, because this is missing.
    RollBack(String),
}

/// All that the next action depends on.
struct Situation {
    record: Record,
    /// What the settings ask for.
    wanted: Wish,
    wanted_profile: Profile,
    /// The last good settings, when they are others.
    former: Option<(Good, Profile)>,
    /// The settings were refused, so the former ones are to be in force.
    is_refused: bool,
}

impl Situation {
    /// `Err` says what is missing to make a profile at all.
    fn of(context: &Context) -> Result<Result<Situation, String>> {
        let network = context.settings()?.network.clone();
        let interface = match interface::choose(&context.path("/sys/class/net"), network.interface.as_ref())?
        {
            Ok(interface) => interface,
            Err(waiting) => return Ok(Err(waiting)),
        };
        let wanted_profile = Profile::new(context, &network, &interface);
        let record = Record::read(&context.root);
        let former = record.good.clone().map(|good| {
            let profile = Profile::new(context, &good.network, &good.interface);
            (good, profile)
        });
        // There is no way back to an interface that is gone.
        let former = former.filter(|(good, profile)| {
            profile.content != wanted_profile.content
                && context.path(&format!("/sys/class/net/{}", good.interface)).exists()
        });
        let is_refused = former.is_some() && record.refusal(&wanted_profile.hash()).is_some();
        let wanted = Wish { network, interface };
        Ok(Ok(Situation { record, wanted, wanted_profile, former, is_refused }))
    }

    /// The settings that are to be in force, and their profile.
    fn target(&self) -> (Wish, &Profile) {
        match &self.former {
            Some((good, profile)) if self.is_refused => {
                (Wish { network: good.network.clone(), interface: good.interface.clone() }, profile)
            }
            _ => (self.wanted.clone(), &self.wanted_profile),
        }
    }

    /// The settings to go back to, while the wanted ones are on trial.
    fn fallback(&self) -> Option<&Good> {
        self.former.as_ref().filter(|_| !self.is_refused).map(|(good, _)| good)
    }
}

fn observe(context: &Context) -> Result<Observation> {
    let situation = match Situation::of(context)? {
        Ok(situation) => situation,
        Err(waiting) => return Ok(Observation::Waiting(waiting)),
    };
    Ok(match next(context, &situation)? {
        Next::Observe(observation) => told(&situation, observation),
        Next::Activate(what) => Observation::Todo(what),
        Next::Remember => Observation::Todo("remember these settings as ones that work".to_owned()),
        Next::RollBack(lack) => Observation::Todo(format!("put the former settings back: {lack}")),
    })
}

fn apply(context: &Context) -> Result<()> {
    let situation = Situation::of(context)?.map_err(anyhow::Error::msg)?;
    match next(context, &situation)? {
        Next::Observe(_) => Ok(()),
        Next::Activate(_) => {
            let hash = situation.wanted_profile.hash();
            let now = Moment::now(&context.root)?;
            let begins = situation.fallback().is_some() && situation.record.age(&hash, &now).is_none();
            let trial = if begins {
                Some(Trial { hash, begun: now.clone() })
            } else {
                situation.record.trial.clone()
            };
            Record { trial, activated: Some(now), ..situation.record.clone() }.write(&context.root)?;
            put(context, situation.target().1)
        }
        Next::Remember => {
            situation.wanted_profile.record(context)?;
            let seen = look(context, &situation.wanted)?;
            let Wish { network, interface } = situation.wanted;
            let (ipv6_route, ipv4_route) = (seen.ipv6_route, seen.ipv4_route);
            let good = Some(Good { interface, network, ipv6_route, ipv4_route });
            Record { good, trial: None, refused: None, ..situation.record }.write(&context.root)
        }
        Next::RollBack(lack) => {
            let Some((good, profile)) = &situation.former else { return Ok(()) };
            let changes = trial::changes(good, &situation.wanted.network, &situation.wanted.interface);
            let now = Moment::now(&context.root)?;
            let (hash, boot) = (situation.wanted_profile.hash(), now.boot.clone());
            let refused = Some(Refused { hash, boot, changes, lack });
            // First, so that a cut from here on ends with the former settings too.
            let activated = Some(now);
            Record { refused, trial: None, activated, ..situation.record.clone() }.write(&context.root)?;
            put(context, profile)
        }
    }
}

/// Looks as far as it has to. What a program is needed for comes last.
fn next(context: &Context, situation: &Situation) -> Result<Next> {
    let (wish, profile) = situation.target();
    let listen = context.settings()?.web.listen;
    let owner = profile.owner(context);
    if owner == Owner::Ours {
        return Ok(Next::Activate(format!("write the profile `{}`", profile.guest)));
    }
    let unplugged = has_carrier(context, &wish.interface).err();
    if owner == Owner::Operator {
        if let Some(why) = unplugged {
            return Ok(Next::Observe(Observation::Waiting(why)));
        }
        // Of an edited profile just a working network is wanted.
        let mut wish = wish;
        wish.network.ipv6.addresses.clear();
        wish.network.ipv4.addresses.clear();
        let seen = look(context, &wish)?;
        return Ok(Next::Observe(seen::judge(&wish.network, listen, &wish.interface, &seen)));
    }
    let fallback = situation.fallback();
    // A cable that is out is not the fault of settings, unless they are for another interface.
    let is_blameless = fallback.is_none_or(|good| good.interface == wish.interface);
    if let Some(why) = unplugged.clone().filter(|_| is_blameless) {
        return Ok(Next::Observe(Observation::Waiting(why)));
    }
    // Active is not enough: NetworkManager may still have an older content of the profile.
    let is_in_force = stamp::holds(context, STAMP, profile.content.as_bytes()) && nm::is_up()?;
    let trial = match fallback {
        None => None,
        Some(good) => {
            let age = situation.record.age(&profile.hash(), &Moment::now(&context.root)?);
            Some((age, lack(context, good, &wish, unplugged, is_in_force)?))
        }
    };
    // What lacks nothing of what there was is kept, even if more is wished for: a trial must come to its end.
    let has_passed = matches!(trial, Some((Some(age), None)) if age >= trial::PATIENCE);
    let Some(decision) = decide(trial, is_in_force) else {
        let seen = look(context, &wish)?;
        // NetworkManager gives an address up that another machine had, and never asks again whether it still does.
        let age = situation.record.activated_for(&Moment::now(&context.root)?);
        if seen::is_unset(&wish.network, &seen) && age >= AGAIN {
            return Ok(Next::Activate(format!(
                "activate the profile `{NAME}` again, for an address that is missing"
            )));
        }
        let judged = seen::judge(&wish.network, listen, &wish.interface, &seen);
        let is_news = (judged == Observation::Done || has_passed)
            && !situation.is_refused
            && !(is_remembered(&situation.record, &wish, &seen) && profile.is_recorded(context));
        return Ok(if is_news { Next::Remember } else { Next::Observe(judged) });
    };
    Ok(decision)
}

/// What follows for settings on trial from their age in this boot and from what they lack; `None` when they stand, and the network is
/// judged as always.
fn decide(trial: Option<(Option<i64>, Option<String>)>, is_in_force: bool) -> Option<Next> {
    let activate = || Next::Activate(format!("activate the profile `{NAME}`"));
    match trial {
        // On trial from now on.
        Some((None, _)) => Some(activate()),
        Some((Some(age), Some(lack))) if age >= trial::PATIENCE => Some(Next::RollBack(lack)),
        _ if !is_in_force => Some(activate()),
        Some((Some(age), Some(lack))) => Some(Next::Observe(Observation::Waiting(format!(
            "{lack}; if that stays so, the former settings come back in {} s",
            trial::PATIENCE - age
        )))),
        Some((Some(_), None)) | None => None,
    }
}

/// What settings on trial lack.
fn lack(
    context: &Context,
    good: &Good,
    wish: &Wish,
    unplugged: Option<String>,
    is_in_force: bool,
) -> Result<Option<String>> {
    if unplugged.is_some() {
        return Ok(unplugged);
    }
    if !is_in_force {
        return Ok(Some("NetworkManager cannot activate the profile".to_owned()));
    }
    let seen = look(context, wish)?;
    let silent = gateway::silent(&context.root, &wish.network, &wish.interface);
    Ok(trial::lack(good, &wish.network, &wish.interface, &seen, &silent))
}

/// Whether these settings are remembered as good, with all the routes that they give now.
fn is_remembered(record: &Record, wish: &Wish, seen: &seen::Seen) -> bool {
    record.trial.is_none()
        && record.refused.is_none()
        && record.good.as_ref().is_some_and(|good| {
            good.network == wish.network
                && good.interface == wish.interface
                && good.ipv6_route >= seen.ipv6_route
                && good.ipv4_route >= seen.ipv4_route
        })
}

/// What the operator is told: while the settings are refused, that comes first.
fn told(situation: &Situation, observation: Observation) -> Observation {
    let refused = situation.record.refusal(&situation.wanted_profile.hash());
    let Some(refused) = refused.filter(|_| situation.is_refused) else { return observation };
    let now = match &observation {
        Observation::Done => {
            let addresses: Vec<String> =
                global_addresses().iter().map(|address| format!("`{address}`")).collect();
            format!("the former ones are in force, and the machine is reachable at {}", addresses.join(", "))
        }
        Observation::Todo(why) | Observation::Waiting(why) | Observation::Broken(why) => {
            format!("the former ones are in force, and now: {why}")
        }
    };
    Observation::Waiting(format!(
        "new settings were refused ({}): what was wrong {} s after their activation: {}; {now}; correct `[network]` in the configuration, or let \
         `appliance retry` try the same ones again",
        refused.changes.join(", "),
        trial::PATIENCE,
        refused.lack
    ))
}

/// Writes a profile and activates it. While that goes on none counts as activated: NetworkManager may have read either.
fn put(context: &Context, profile: &Profile) -> Result<()> {
    if profile.owner(context) != Owner::Current {
        stamp::remove(context, STAMP)?;
    }
    profile.write(context)?;
    nm::activate(Path::new(&context.path(&profile.guest)))?;
    stamp::put(context, STAMP, profile.content.as_bytes())
}

#[cfg(test)]
mod tests;
