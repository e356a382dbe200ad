//! The stored configuration: what won at first boot, and what the operator edits from then on.

use std::path::Path;

use anyhow::Result;

use super::{Offer, read_offered};
use crate::durable;

/// Where it lies in the guest; on the data disk, when there is one.
pub const PATH: &str = "/etc/appliance/config.toml";

pub(super) fn look(root: &Path) -> Result<Option<Offer>> {
    let text = read_offered(&root.join(&PATH[1..]), &format!("`{PATH}`"))?;
    Ok(text.map(|text| Offer { source: PATH.to_owned(), text }))
}

/// Stores a configuration for good, readable by root alone: it may hold a relay's password.
pub(super) fn store(root: &Path, text: &str) -> Result<()> {
    durable::write(&root.join(&PATH[1..]), text.as_bytes(), 0o600, None)?;
    Ok(())
}
