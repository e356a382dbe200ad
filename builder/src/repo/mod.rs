//! RPM repositories: their metadata, and which packages a list of names needs. No network: it is given bytes.
//!
//! `repomd` says where the rest lies, `primary` gives the packages, `filelists` who owns a file; `solve` closes a list of names.
//! Everything here was written by a stranger: each reader has limits, and each message is one sentence for the user.

pub mod candidate;
pub mod filelists;
mod index;
mod open;
pub mod primary;
pub mod repomd;
pub mod solve;
#[cfg(test)]
mod tests;
mod text;
mod xml;

pub use candidate::{Candidate, Comparison, Relation};
pub use open::open;
