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

fn hash(text: &str) -> String {
    stamp::hash(text.as_bytes())
}

/// Where a key came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Taken {
    source: String,
    /// The hash of its value: an edited one is the operator's. Empty for a key that was seen and not taken.
    value: String,
}

/// What is on the disk: it is written before the text that it belongs to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    given: Given,
    /// What counts for the former text.
    former: Option<Former>,
}

/// What was in force before a text was replaced.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Former {
    /// The hash of the text; `None` when there was none.
    text: Option<String>,
    given: Option<Given>,
}

impl Given {
    /// For the text that is stored. `None` when nothing was ever taken of a channel, or nothing is known of it.
    pub(super) fn read(root: &Path, text: Option<&str>) -> Option<Given> {
        let record: Record = serde_json::from_slice(&fs_err::read(root.join(&GIVEN[1..])).ok()?).ok()?;
        match record.former {
            Some(former) if former.text == text.map(hash) => former.given,
            _ => Some(record.given),
        }
    }

    /// For a stored file that no channel gave.
    pub(super) fn of_operator() -> Given {
        Given { operator: true, ..Given::default() }
    }

    /// Takes note of texts and of what came out of them.
    pub(super) fn note(&mut self, layers: &[Layer], merged: &Merged) {
        self.texts.extend(layers.iter().map(|layer| hash(&layer.offer.text)));
        for (path, value) in &merged.values {
            if let Some(source) = merged.sources.get(path) {
                let value = hash(&value.to_string());
                self.keys.insert(path.clone(), Taken { source: source.clone(), value });
            }
        }
    }

    /// Takes note of keys that are not to be taken: whoever removes them has seen them.
    pub(super) fn pass<'a>(&mut self, paths: impl Iterator<Item = (&'a str, &'a str)>) {
        for (path, source) in paths {
            let taken = Taken { source: source.to_owned(), value: String::new() };
            self.keys.entry(path.to_owned()).or_insert(taken);
        }
    }

    /// Remembers of keys what another record says of them.
    pub(super) fn keep(&mut self, former: &Given, is_kept: impl Fn(&str) -> bool) {
        let kept = former.keys.iter().filter(|(path, _)| is_kept(path));
        self.keys.extend(kept.map(|(path, taken)| (path.clone(), taken.clone())));
    }

    /// The keys that a channel stated and that are not stored.
    pub(super) fn removed(&self, stored: &Leaves) -> BTreeSet<String> {
        self.keys.keys().filter(|path| !stored.contains_key(*path)).cloned().collect()
    }

    /// Whether any channel says something else than what was taken of it. One that has fallen silent says nothing new, and nothing is
    /// news to a file of the operator's own.
    pub(super) fn is_news(&self, layers: &[Layer]) -> bool {
        !self.operator && layers.iter().any(|layer| !self.texts.contains(&hash(&layer.offer.text)))
    }

    /// Whether a key was stated before, so that the operator has seen it: where it is gone, he has removed it.
    pub(super) fn knows(&self, path: &str) -> bool {
        self.keys.contains_key(path)
    }

    /// The channel of every stored key; the stored file itself for what is written or edited there.
    pub(super) fn sources(&self, stored: &Leaves) -> BTreeMap<String, String> {
        let source = |(path, value): (&String, &toml::Value)| {
            let taken = self.keys.get(path).filter(|taken| taken.value == hash(&value.to_string()));
            (path.clone(), taken.map_or(PATH, |taken| &taken.source).to_owned())
        };
        stored.iter().map(source).collect()
    }
}

/// Stores a configuration, readable by root alone: it may hold a relay's password.
///
/// What is remembered is written first, and holds what counted before as well, for the text that it belonged to: a cut before the
/// text leaves the former pair, one after it the new one.
pub(super) fn store(root: &Path, text: &str, given: &Given) -> Result<()> {
    remember(root, text, given)?;
    durable::write(&root.join(&PATH[1..]), text.as_bytes(), 0o600, None).map(drop)
}

fn remember(root: &Path, text: &str, given: &Given) -> Result<()> {
    let before = look(root).ok().flatten().map(|offer| offer.text);
    let before = before.as_deref();
    let former =
        (before != Some(text)).then(|| Former { text: before.map(hash), given: Given::read(root, before) });
    let record = serde_json::to_vec(&Record { given: given.clone(), former })?;
    durable::write(&root.join(&GIVEN[1..]), &record, 0o600, None).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_belongs_to_the_text_at_every_cut() {
        let root = tempfile::tempdir().unwrap();
        let given = |key: &str| {
            let mut given = Given::default();
            given.pass([(key, "a channel")].into_iter());
            given
        };
        let (one, two) = (given("one"), given("two"));
        let read = |text| Given::read(root.path(), text);
        // Cut before the first text, which a folder in its place stops, and after it.
        let path = root.path().join(&PATH[1..]);
        fs_err::create_dir_all(path.join("folder")).unwrap();
        assert!(store(root.path(), "first", &one).is_err());
        fs_err::remove_dir_all(path).unwrap();
        assert_eq!(read(None), None);
        assert_eq!(read(Some("first")), Some(one.clone()));
        store(root.path(), "first", &one).unwrap();
        // Cut before the next one: the former pair, also for whoever begins anew; after it: the new one, also when it was edited.
        for _ in 0..2 {
            remember(root.path(), "second", &two).unwrap();
            assert_eq!(read(Some("first")), Some(one.clone()));
        }
        assert_eq!(read(Some("second")), Some(two.clone()));
        assert_eq!(read(Some("edited")), Some(two.clone()));
        store(root.path(), "second", &two).unwrap();
        // Whoever puts the former text back puts back what belonged to it.
        assert_eq!(read(Some("first")), Some(one));
        assert_eq!(look(root.path()).unwrap().unwrap().text, "second");
    }
}
