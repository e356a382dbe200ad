//! `filelists`: every file of every package; asked for the few files that packages need and `primary` does not list.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use super::xml::{Attributes, Visitor, walk};

/// Largest list that is believed, in bytes of XML: every kernel's sources are in those of CentOS' updates.
const LIMIT: u64 = 8 << 30;
/// Owners of one file that are remembered: every build of a package that the repository keeps counts.
const OWNERS: usize = 100_000;

/// The packages, by `Candidate::sha256`, that own the wanted files, in the order of the list.
pub fn owners(reader: impl Read, wanted: &BTreeSet<String>) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut reading = Reading { wanted, package: String::new(), owners: BTreeMap::new() };
    walk(reader, "filelists", LIMIT, &mut reading)?;
    Ok(reading.owners)
}

struct Reading<'w> {
    wanted: &'w BTreeSet<String>,
    package: String,
    owners: BTreeMap<String, Vec<String>>,
}

impl Visitor for Reading<'_> {
    fn open(&mut self, path: &str, attributes: &Attributes<'_>) -> Result<bool, String> {
        match path {
            "filelists/package/file" => Ok(true),
            "filelists/package" => {
                self.package = attributes.get("pkgid")?.unwrap_or_default().to_ascii_lowercase();
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    fn close(&mut self, path: &str, text: &str) -> Result<(), String> {
        if path == "filelists/package/file" && self.wanted.contains(text) {
            let owners = self.owners.entry(text.to_owned()).or_default();
            if owners.len() == OWNERS {
                return Err(format!("more than {OWNERS} packages own `{text}`"));
            }
            if owners.last() != Some(&self.package) {
                owners.push(self.package.clone());
            }
        }
        Ok(())
    }
}
