//! What `faults` is in the shipped program: nothing.

use std::fs::Metadata;
use std::path::Path;

pub(crate) struct Kept;

pub(crate) fn created(_: &Path) {}
pub(crate) fn filled(_: &Path) {}
pub(crate) fn changed(_: &Path, _: &Metadata) {}
pub(crate) fn keep(_: &Path) -> Kept {
    Kept
}
pub(crate) fn renamed(_: &Path, _: &Path, _: Kept) {}
pub(crate) fn takes_away(_: &Path) -> bool {
    false
}
pub(crate) fn removed(_: &Path) {}
pub(crate) fn happened(_: &str) {}
pub(crate) fn synced(_: &Path) {}
pub(crate) fn synced_quietly(_: &Path) {}
pub(crate) fn program(_: &str, _: &str) {}
