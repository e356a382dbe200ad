//! New settings are on trial until they have been seen to work; if they do not, the last ones that did come back.
//!
//! What is remembered is one file, so every change of it is one commit point, and it is on the disk before the profile that it speaks
//! of. Settings that were refused are not tried again in this boot until they change or the operator asks: without that, the machine
//! would come and go by turns.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::seen::Seen;
use crate::durable;
use crate::settings::Network;
use crate::tls::moment::{self, Moment};

/// How long new settings have from their activation, in seconds.
pub(super) const PATIENCE: i64 = 60;

/// Where it lies below the root; gone, the next settings that work are remembered anew.
const PATH: &str = "var/lib/appliance/network.json";

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Record {
    /// The last settings that were seen to work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) good: Option<Good>,
    /// The profile that is on trial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trial: Option<Trial>,
    /// The profile that did not work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refused: Option<Refused>,
    /// When we activated a profile last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) activated: Option<Moment>,
}

/// Settings that were seen to work, and what they gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Good {
    /// The interface.
    pub(super) interface: String,
    /// The settings; the profile is rendered from them, in the format of whatever distribution this is by then.
    pub(super) network: Network,
    /// Whether there was a default route for IPv6.
    pub(super) ipv6_route: bool,
    /// Whether there was one for IPv4.
    pub(super) ipv4_route: bool,
}

/// A profile on trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Trial {
    /// Its hash.
    pub(super) hash: String,
    /// When it began.
    pub(super) begun: Moment,
}

/// A profile that did not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Refused {
    /// Its hash.
    pub(super) hash: String,
    /// The boot in which it was tried: in another one the machine may be elsewhere.
    #[serde(default)]
    pub(super) boot: String,
    /// The settings in which it differed from those that worked.
    pub(super) changes: Vec<String>,
    /// What was missing.
    pub(super) lack: String,
}

impl Record {
    /// What is remembered; nothing when the file is missing or not of this version.
    pub(super) fn read(root: &Path) -> Record {
        let text = fs::read_to_string(path(root)).unwrap_or_default();
        let mut record: Record = serde_json::from_str(&text).unwrap_or_default();
        let boot = moment::boot(root);
        record.refused = record.refused.filter(|refused| refused.boot == boot);
        record
    }

    /// Remembers it.
    pub(super) fn write(&self, root: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("writing what is known of the network")?;
        durable::write(&path(root), format!("{text}\n").as_bytes(), 0o600, None).map(drop)
    }

    /// How long this profile has been on trial in this boot, in seconds; `None` when it is not. Before a reboot it may have had no
    /// link at all, so a trial begins anew with each.
    pub(super) fn age(&self, hash: &str, now: &Moment) -> Option<i64> {
        let trial = self.trial.as_ref()?;
        (trial.hash == hash && trial.begun.boot == now.boot).then(|| now.since(&trial.begun))
    }

    /// How long a profile has been active at least, in seconds: since we activated it in this boot, or since NetworkManager may have done
    /// so by itself.
    pub(super) fn activated_for(&self, now: &Moment) -> i64 {
        let ours = self.activated.as_ref().filter(|activated| activated.boot == now.boot);
        ours.map_or(now.uptime, |activated| now.since(activated))
    }

    /// How this profile was refused, if it was.
    pub(super) fn refusal(&self, hash: &str) -> Option<&Refused> {
        self.refused.as_ref().filter(|refused| refused.hash == hash)
    }
}

/// Lets settings that were refused have another try: the operator asks for it.
pub fn forgive(root: &Path) -> Result<()> {
    let record = Record::read(root);
    if record.refused.is_none() && record.trial.is_none() {
        return Ok(());
    }
    Record { trial: None, refused: None, ..record }.write(root)
}

fn path(root: &Path) -> PathBuf {
    root.join(PATH)
}

/// What new settings lack in comparison with the last ones that worked: a wanted address, a default route where there was one, an
/// answer of a gateway that they name. `silent` are the gateways that do not answer.
pub(super) fn lack(
    good: &Good,
    wanted: &Network,
    interface: &str,
    seen: &Seen,
    silent: &[String],
) -> Option<String> {
    use crate::settings::{Ipv4Method, Ipv6Method};
    let family = |name: &str, is_on: bool, had: bool, has: bool| {
        (is_on && had && !has).then(|| {
            format!("`{interface}` has no {name} default route, and had one with the former settings")
        })
    };
    let usable = seen.addresses.iter().any(|address| address.global && !address.tentative);
    super::seen::missing(wanted, interface, seen)
        .or_else(|| {
            let is_on = wanted.ipv6.method != Ipv6Method::Off;
            family("IPv6", is_on, good.ipv6_route, seen.ipv6_route)
        })
        .or_else(|| {
            let is_on = wanted.ipv4.method != Ipv4Method::Off;
            family("IPv4", is_on, good.ipv4_route, seen.ipv4_route)
        })
        .or_else(|| (!usable).then(|| format!("`{interface}` has no address that reaches beyond the link")))
        .or_else(|| {
            silent.first().map(|gateway| format!("no answer on `{interface}` from the gateway `{gateway}`"))
        })
}

/// The settings that differ, as they stand in the configuration; those that were removed as such.
pub(super) fn changes(good: &Good, wanted: &Network, interface: &str) -> Vec<String> {
    let flat = |network: &Network| {
        let mut found = Vec::new();
        if let Ok(toml::Value::Table(table)) = toml::Value::try_from(network) {
            flatten("network", &table, &mut found);
        }
        found
    };
    let (before, after) = (flat(&good.network), flat(wanted));
    let mut changes: Vec<String> = after
        .iter()
        .filter(|pair| !before.contains(pair))
        .map(|(path, value)| format!("{path} = {value}"))
        .collect();
    let is_gone = |path: &String| !after.iter().any(|(other, _)| other == path);
    changes.extend(before.iter().filter(|(path, _)| is_gone(path)).map(|(path, _)| format!("no {path}")));
    if good.interface != interface && !changes.iter().any(|change| change.contains("network.interface")) {
        changes.push(format!("`{interface}` instead of `{}`", good.interface));
    }
    changes
}

fn flatten(prefix: &str, table: &toml::Table, found: &mut Vec<(String, String)>) {
    for (key, value) in table {
        let path = format!("{prefix}.{key}");
        match value {
            toml::Value::Table(inner) => flatten(&path, inner, found),
            other => found.push((path, other.to_string())),
        }
    }
}

#[cfg(test)]
mod tests;
