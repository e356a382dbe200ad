//! RPM packages: read, verified against pinned keys, unpacked. No network, no recipe, no program of the host.

mod cpio;
pub mod database;
pub mod evr;
pub mod files;
pub mod header;
mod index;
mod keys;
pub mod payload;
mod place;
pub mod signature;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

use evr::Evr;

/// What a package calls itself: name, epoch, version, release, architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nevra {
    /// Name.
    pub name: String,
    /// Which build.
    pub evr: Evr,
    /// `x86_64` or `noarch`.
    pub arch: String,
}

impl fmt::Display for Nevra {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}.{}", self.name, self.evr, self.arch)
    }
}

/// A key that packages may be signed with: the fingerprint is what is trusted, the file only brings the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TrustedKey {
    /// Armoured public key; in a recipe relative to its folder.
    pub file: std::path::PathBuf,
    /// Fingerprint of the primary key, hexadecimal.
    pub fingerprint: String,
    /// SHA-1 signatures of this key count too. Nobody can find other bytes for a digest that was signed; who makes both files can,
    /// so this is for publishers that used nothing better, such as nginx.org for CentOS 7.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sha1: bool,
}
