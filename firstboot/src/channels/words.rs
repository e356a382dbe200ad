//! Settings in single words, `KEY=value`, beside a whole file in words of its own: what SMBIOS strings and the kernel's command line
//! have in common.
//!
//! Keys are those of the configuration, with dots. Values are written as in a property of the OVA: lists between commas. No message
//! shows a value.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail};

use super::{Offer, Wrong, accept, packed};
use crate::settings::schema::{self, FIELDS};

/// A whole file.
const FILE: &str = "config";
/// A whole file in Base64, or gzip and Base64.
const PACKED: &str = "config.base64";

/// The words of one source.
pub(super) struct Words {
    source: &'static str,
    file: Option<String>,
    packed: String,
    settings: BTreeMap<String, String>,
}

impl Words {
    pub(super) fn new(source: &'static str) -> Self {
        Words { source, file: None, packed: String::new(), settings: BTreeMap::new() }
    }

    /// Takes one word without its prefix.
    pub(super) fn say(&mut self, key: &str, value: &str) -> Result<()> {
        let source = self.source;
        let twice = match key {
            FILE => self.file.replace(value.to_owned()).is_some(),
            PACKED => {
                self.packed.push_str(value);
                false
            }
            _ => {
                let Some(field) = FIELDS.iter().find(|field| field.path == key) else {
                    let shown: String = key.chars().take(80).collect();
                    bail!(Wrong(format!(
                        "{source}: unknown key `{}`: correct the spelling (see `appliance config example`), or remove it",
                        shown.escape_debug()
                    )));
                };
                self.settings
                    .insert(field.path.to_owned(), value.to_owned())
                    .is_some_and(|other| other != value)
            }
        };
        if twice {
            bail!(Wrong(format!("{source}: `mastodon.{key}` is there twice: remove one of them")));
        }
        Ok(())
    }

    /// What was said: the file first, because the single settings only add to it.
    pub(super) fn offers(self) -> Result<Vec<Offer>> {
        let source = self.source;
        let mut offers = Vec::new();
        let name = |key: &str| format!("{source} (mastodon.{key})");
        let file = match (self.file, self.packed.trim()) {
            (Some(_), packed) if !packed.is_empty() => {
                bail!(Wrong(format!(
                    "{source}: both `mastodon.{FILE}` and `mastodon.{PACKED}` are there: remove one"
                )))
            }
            (Some(text), _) => accept(text.into_bytes(), &name(FILE))?.map(|text| (FILE, text)),
            (None, "" | "null") => None,
            (None, packed) => {
                let bytes = packed::unpack(packed).ok_or_else(|| {
                    anyhow!(Wrong(format!(
                        "{source}: `mastodon.{PACKED}` is no base64 of a text or of a gzip file: encode the file again, as one line"
                    )))
                })?;
                accept(bytes, &name(PACKED))?.map(|text| (PACKED, text))
            }
        };
        if let Some((key, text)) = file {
            offers.push(Offer { source: name(key), text });
        }
        let text = schema::to_toml_as_said(&self.settings)
            .map_err(|reason| anyhow!(Wrong(format!("{source}: {reason}"))))?;
        offers.extend(text.map(|text| Offer { source: source.to_owned(), text }));
        Ok(offers)
    }
}
