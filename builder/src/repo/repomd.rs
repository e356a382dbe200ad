//! `repomd.xml`: where the metadata of a repository lies and by what digest it is known.

use std::cmp::max;

use super::text::{location, number, sha256};
use super::xml::{Attributes, Visitor, walk};

/// Largest `repomd.xml` that is believed, in bytes: real ones have 3 KiB.
const LIMIT: u64 = 1 << 20;

/// What a repository consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repomd {
    /// The packages.
    pub primary: Part,
    /// All their files.
    pub filelists: Option<Part>,
    /// When the repository was made: its revision where that is a number, else the newest part's time, in seconds since 1970.
    pub revision: Option<u64>,
}

/// One file of metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// Relative, normal path below the repository; its suffix names the compression.
    pub location: String,
    /// SHA-256 of the file: 64 lower-case digits.
    pub sha256: String,
    /// Size of the file, in bytes.
    pub size: Option<u64>,
    /// SHA-256 of its content.
    pub open_sha256: Option<String>,
    /// Size of its content, in bytes.
    pub open_size: Option<u64>,
}

impl Repomd {
    /// Reads `repomd.xml`.
    pub fn parse(bytes: &[u8]) -> Result<Repomd, String> {
        let mut reading = Reading::default();
        walk(bytes, "repomd", LIMIT, &mut reading)?;
        Ok(Repomd {
            primary: reading.primary.ok_or("it names no `primary`: it is no repository of RPM packages")?,
            filelists: reading.filelists,
            revision: reading.revision.or(reading.newest),
        })
    }
}

#[derive(Default)]
struct Reading {
    primary: Option<Part>,
    filelists: Option<Part>,
    revision: Option<u64>,
    newest: Option<u64>,
    /// The part that is being read: its type decides whether it is kept.
    kind: String,
    part: Part,
    /// Kind of the checksum that is being read.
    checksum: String,
}

impl Reading {
    fn is_kept(&self) -> bool {
        matches!(self.kind.as_str(), "primary" | "filelists")
    }

    fn keep(&mut self) -> Result<(), String> {
        let part = std::mem::take(&mut self.part);
        for (field, value) in [("location", &part.location), ("checksum", &part.sha256)] {
            if value.is_empty() {
                return Err(format!("its `{}` has no {field}", self.kind));
            }
        }
        let place = if self.kind == "primary" { &mut self.primary } else { &mut self.filelists };
        if place.replace(part).is_some() {
            return Err(format!("it has two `{}`", self.kind));
        }
        Ok(())
    }
}

impl Visitor for Reading {
    fn open(&mut self, path: &str, attributes: &Attributes<'_>) -> Result<bool, String> {
        match path {
            "repomd/data" => {
                self.kind = attributes.get("type")?.unwrap_or_default();
                self.part = Part::default();
                Ok(false)
            }
            "repomd/data/location" if self.is_kept() => {
                if attributes.get("base")?.is_some() {
                    return Err(format!("its `{}` lies outside the repository (xml:base)", self.kind));
                }
                self.part.location = location(&attributes.get("href")?.unwrap_or_default())?;
                Ok(false)
            }
            "repomd/data/checksum" | "repomd/data/open-checksum" => {
                self.checksum = attributes.get("type")?.unwrap_or_default();
                Ok(self.is_kept())
            }
            "repomd/data/size" | "repomd/data/open-size" => Ok(self.is_kept()),
            "repomd/revision" | "repomd/data/timestamp" => Ok(true),
            _ => Ok(false),
        }
    }

    fn close(&mut self, path: &str, text: &str) -> Result<(), String> {
        match path {
            // A revision may be any word; only a number says when.
            "repomd/revision" => self.revision = text.trim().parse().ok(),
            // Some writers add a fraction.
            "repomd/data/timestamp" => {
                let seconds = text.trim().split('.').next().unwrap_or_default();
                self.newest = max(self.newest, Some(number("a timestamp", seconds)?));
            }
            "repomd/data" if self.is_kept() => self.keep()?,
            _ if !self.is_kept() => {}
            "repomd/data/checksum" => self.part.sha256 = sha256(&self.checksum, text)?,
            "repomd/data/open-checksum" => self.part.open_sha256 = Some(sha256(&self.checksum, text)?),
            "repomd/data/size" => self.part.size = Some(number("a size", text)?),
            "repomd/data/open-size" => self.part.open_size = Some(number("a size", text)?),
            _ => {}
        }
        Ok(())
    }
}
