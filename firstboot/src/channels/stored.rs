//! The stored configuration: what the channels gave, and what the operator edits from then on; and what is remembered of the channels'
//! words, so that new ones can be told from old ones, and each key's channel can be named.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::merge::{Layer, Leaves, Merged};
use super::{Offer, read_offered};
use crate::{durable, stamp};

/// Where it lies in the guest; on the data disk, when there is one.
pub const PATH: &str = "/etc/appliance/config.toml";
/// What is remembered of the channels. It may be lost: then the stored configuration is the operator's own.
const GIVEN: &str = "/etc/appliance/given.json";

pub(super) fn look(root: &Path) -> Result<Option<Offer>> {
    let text = read_offered(&root.join(&PATH[1..]), &format!("`{PATH}`"))?;
    Ok(text.map(|text| Offer { source: PATH.to_owned(), text }))
}

/// What was taken of the channels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Given {
    /// The hash of each text that was taken.
    texts: BTreeSet<String>,
    /// Every key that any of them stated.
    keys: BTreeMap<String, Taken>,
    /// Whether the stored file is the operator's, so that channels have only filled holes in it.
    operator: bool,
}

/// Where a key came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Taken {
    source: String,
    /// The hash of its value: an edited one is the operator's.
    value: String,
}

impl Given {
    /// `None` when nothing was ever taken of a channel, or nothing is known of it.
    pub(super) fn read(root: &Path) -> Option<Given> {
        serde_json::from_slice(&fs_err::read(root.join(&GIVEN[1..])).ok()?).ok()
    }

    /// For a stored file that no channel gave.
    pub(super) fn of_operator() -> Given {
        Given { operator: true, ..Given::default() }
    }

    /// Takes note of texts and of what came out of them.
    pub(super) fn note(&mut self, layers: &[Layer], merged: &Merged) {
        self.texts.extend(layers.iter().map(|layer| stamp::hash(layer.offer.text.as_bytes())));
        for (path, value) in &merged.values {
            if let Some(source) = merged.sources.get(path) {
                let value = stamp::hash(value.to_string().as_bytes());
                self.keys.insert(path.clone(), Taken { source: source.clone(), value });
            }
        }
    }

    /// Whether any channel says something else than what was taken of it. One that has fallen silent says nothing new, and nothing is
    /// news to a file of the operator's own.
    pub(super) fn is_news(&self, layers: &[Layer]) -> bool {
        !self.operator
            && layers.iter().any(|layer| !self.texts.contains(&stamp::hash(layer.offer.text.as_bytes())))
    }

    /// Whether a key was stated before, so that the operator has seen it: where it is gone, he has removed it.
    pub(super) fn knows(&self, path: &str) -> bool {
        self.keys.contains_key(path)
    }

    /// The channel of every stored key; the stored file itself for what is written or edited there.
    pub(super) fn sources(&self, stored: &Leaves) -> BTreeMap<String, String> {
        let source = |(path, value): (&String, &toml::Value)| {
            let hash = stamp::hash(value.to_string().as_bytes());
            let taken = self.keys.get(path).filter(|taken| taken.value == hash);
            (path.clone(), taken.map_or(PATH, |taken| &taken.source).to_owned())
        };
        stored.iter().map(source).collect()
    }
}

/// Stores a configuration, readable by root alone: it may hold a relay's password. A cut between the two files leaves news, which is
/// taken once more.
pub(super) fn store(root: &Path, text: &str, given: &Given) -> Result<()> {
    durable::write(&root.join(&PATH[1..]), text.as_bytes(), 0o600, None)?;
    durable::write(&root.join(&GIVEN[1..]), &serde_json::to_vec(given)?, 0o600, None)?;
    Ok(())
}
