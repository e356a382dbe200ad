//! The stored configuration: what a channel gave, and what the operator edits from then on.

use std::path::Path;

use anyhow::Result;

use super::{Offer, read_offered};
use crate::{durable, stamp};

/// Where it lies in the guest; on the data disk, when there is one.
pub const PATH: &str = "/etc/appliance/config.toml";

pub(super) fn look(root: &Path) -> Result<Option<Offer>> {
    let text = read_offered(&root.join(&PATH[1..]), &format!("`{PATH}`"))?;
    Ok(text.map(|text| Offer { source: PATH.to_owned(), text }))
}

/// The hash of what a channel gave last, so that its next words can be told from its old ones.
const GIVEN: &str = "/etc/appliance/given.sha256";

/// Stores a configuration, readable by root alone: it may hold a relay's password.
pub(super) fn store(root: &Path, text: &str) -> Result<()> {
    durable::write(&root.join(&PATH[1..]), text.as_bytes(), 0o600, None)?;
    let given = format!("{}\n", stamp::hash(text.as_bytes()));
    durable::write(&root.join(&GIVEN[1..]), given.as_bytes(), 0o600, None)?;
    Ok(())
}

/// Whether a channel says something else than what it gave last. A configuration that no channel gave is the operator's own; one
/// that equals the offer lost its hash to a cut, and is stored again.
pub(super) fn is_news(root: &Path, stored: &Offer, offer: &Offer) -> bool {
    match fs_err::read_to_string(root.join(&GIVEN[1..])) {
        Ok(given) => given.trim() != stamp::hash(offer.text.as_bytes()),
        Err(_) => stored.text == offer.text,
    }
}
