//! The network: one NetworkManager profile, active, with usable addresses, a route and a resolver.
//!
//! The profile is an ordinary one that `nmtui` can edit. Once the operator has edited it, it is theirs: we compare it with the hash
//! of what we wrote and leave an edited one alone.

mod ifcfg;
pub(crate) mod interface;
mod keyfile;
mod seen;

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use fs_err as fs;

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::exec::Run;
use crate::facts::NetworkBackend;
use crate::settings::{Network, Settings};
use crate::{durable, stamp};

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

/// The profile as a file.
struct Profile {
    /// Path in the guest.
    guest: String,
    content: String,
    mode: u32,
}

/// Whose file is at the profile's path.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    /// What we want is there.
    Current,
    /// It is missing, or an older one of ours.
    Ours,
    /// Edited since we wrote it.
    Operator,
}

fn profile(context: &Context, interface: &str) -> Result<Profile> {
    let network = &context.settings()?.network;
    Ok(match context.facts.system.network {
        NetworkBackend::Keyfile => Profile {
            guest: format!("/etc/NetworkManager/system-connections/{NAME}.nmconnection"),
            content: keyfile::render(network, interface),
            mode: 0o600,
        },
        NetworkBackend::Ifcfg => Profile {
            // Not named after the interface: one with another name would leave a second file with our UUID behind.
            guest: format!("/etc/sysconfig/network-scripts/ifcfg-{NAME}"),
            content: ifcfg::render(network, interface),
            mode: 0o644,
        },
    })
}

fn hash_path(context: &Context) -> PathBuf {
    context.state().join("network.sha256")
}

fn owner(context: &Context, profile: &Profile) -> Owner {
    let Ok(found) = fs::read(context.path(&profile.guest)) else { return Owner::Ours };
    if found == profile.content.as_bytes() {
        return Owner::Current;
    }
    let remembered = fs::read_to_string(hash_path(context)).unwrap_or_default();
    if remembered.trim() == stamp::hash(&found) { Owner::Ours } else { Owner::Operator }
}

fn observe(context: &Context) -> Result<Observation> {
    let settings = context.settings()?;
    let interface =
        match interface::choose(&context.path("/sys/class/net"), settings.network.interface.as_ref())? {
            Ok(interface) => interface,
            Err(waiting) => return Ok(Observation::Waiting(waiting)),
        };
    let profile = profile(context, &interface)?;
    let owner = owner(context, &profile);
    if owner == Owner::Ours {
        return Ok(Observation::Todo(format!("write the profile `{}`", profile.guest)));
    }
    let carrier = fs::read_to_string(context.path(&format!("/sys/class/net/{interface}/carrier")));
    if carrier.is_ok_and(|carrier| carrier.trim() == "0") {
        return Ok(Observation::Waiting(format!(
            "no link on `{interface}`: connect the virtual machine's network adapter"
        )));
    }
    // Active is not enough: NetworkManager may still have an older content of the profile.
    let is_taken = || stamp::holds(context, STAMP, profile.content.as_bytes());
    if owner == Owner::Current && !(is_taken() && is_up()?) {
        return Ok(Observation::Todo(format!("activate the profile `{NAME}`")));
    }
    let wanted = wanted(settings, &owner);
    Ok(seen::judge(&wanted, settings.web.listen, &interface, &look(context, &interface)?))
}

/// What must be seen: the settings, or for an edited profile just a working network.
fn wanted(settings: &Settings, owner: &Owner) -> Network {
    let mut network = settings.network.clone();
    if *owner == Owner::Operator {
        network.ipv6.addresses.clear();
        network.ipv4.addresses.clear();
    }
    network
}

fn is_up() -> Result<bool> {
    let active =
        Run::new("nmcli", &["--terse", "--fields", "UUID", "connection", "show", "--active"]).text()?;
    Ok(active.lines().any(|line| line == UUID))
}

/// Looks at the interface through `ip` and the resolver's file; old `ip` has no JSON worth the name.
fn look(context: &Context, interface: &str) -> Result<seen::Seen> {
    let show = |arguments: &[&str]| Run::new("ip", arguments).text();
    Ok(seen::Seen {
        addresses: seen::addresses(&show(&["-o", "address", "show", "dev", interface])?),
        ipv6_route: !show(&["-6", "route", "show", "default"])?.trim().is_empty(),
        ipv4_route: !show(&["-4", "route", "show", "default"])?.trim().is_empty(),
        resolver: seen::has_resolver(
            &fs::read_to_string(context.path("/etc/resolv.conf")).unwrap_or_default(),
        ),
    })
}

/// The machine's addresses that reach beyond the link; none when they cannot be read.
pub fn global_addresses() -> Vec<IpAddr> {
    let shown = Run::new("ip", &["-o", "address", "show"]).text().unwrap_or_default();
    let usable = |seen: &seen::Address| seen.global && !seen.tentative && !seen.duplicate;
    seen::addresses(&shown).into_iter().filter(usable).map(|seen| seen.ip).collect()
}

fn apply(context: &Context) -> Result<()> {
    let choice =
        interface::choose(&context.path("/sys/class/net"), context.settings()?.network.interface.as_ref())?;
    let interface = choice.map_err(anyhow::Error::msg)?;
    let profile = profile(context, &interface)?;
    write(context, &profile)?;
    let path = context.path(&profile.guest);
    Run::new("nmcli", &["connection", "load", &path.to_string_lossy()])
        .text()
        .context("loading the profile")?;
    // Without waiting: addresses that take their time must not hold up the steps behind this one.
    Run::new("nmcli", &["--wait", "0", "connection", "up", "uuid", UUID])
        .text()
        .context("activating the profile; is the network adapter connected?")?;
    stamp::put(context, STAMP, profile.content.as_bytes())
}

/// The profile first, its hash second: after a cut between them the profile still equals what we want, so it is still ours.
fn write(context: &Context, profile: &Profile) -> Result<()> {
    if owner(context, profile) == Owner::Operator {
        return Ok(());
    }
    durable::write(&context.path(&profile.guest), profile.content.as_bytes(), profile.mode, Some((0, 0)))?;
    durable::write(
        &hash_path(context),
        format!("{}\n", stamp::hash(profile.content.as_bytes())).as_bytes(),
        0o600,
        None,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Owner, owner, profile, write};
    use crate::context::tests::scratch_context;
    use crate::settings::Settings;

    #[test]
    fn an_edited_profile_is_left_alone() {
        let (_guard, mut context) = scratch_context();
        context.settings = Some(Settings::parse("example", Settings::example()).unwrap());
        let first = profile(&context, "ens160").unwrap();
        assert_eq!(owner(&context, &first), Owner::Ours);
        write(&context, &first).unwrap();
        assert_eq!(owner(&context, &first), Owner::Current);
        let second = profile(&context, "ens192").unwrap();
        assert_eq!(owner(&context, &second), Owner::Ours, "new settings replace what we wrote");
        write(&context, &second).unwrap();
        let edited = second.content.replace("192.168.100.154", "192.168.100.155");
        fs_err::write(context.path(&second.guest), &edited).unwrap();
        assert_eq!(owner(&context, &second), Owner::Operator);
        write(&context, &second).unwrap();
        assert_eq!(fs_err::read_to_string(context.path(&second.guest)).unwrap(), edited);
    }
}
