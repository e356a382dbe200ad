//! `primary`: the packages of a repository, read as a stream. Those of other architectures than `x86_64` and `noarch` are left out.

use std::io::Read;

use crate::rpm::Nevra;
use crate::rpm::evr::Evr;

use super::candidate::{Candidate, Comparison, Relation};
use super::text::{location, number, sha256, shown, word};
use super::xml::{Attributes, Visitor, walk};

/// Largest `primary` that is believed, in bytes of XML: that of CentOS' updates has 170 MB.
const LIMIT: u64 = 1 << 30;
/// Largest package that is believed, in bytes.
const MOST_BYTES: u64 = 1 << 44;
/// Most packages of a repository; CentOS' updates has 30 000.
const PACKAGES: usize = 500_000;
/// Most relations and files of all packages together: they are what takes memory, some 150 bytes each.
const RELATIONS: usize = 8_000_000;

/// Reads the XML of a `primary`; `repository` is the name that the candidates get.
pub fn read(reader: impl Read, repository: &str) -> Result<Vec<Candidate>, String> {
    let mut reading = Reading {
        repository,
        candidates: Vec::new(),
        seen: 0,
        relations: 0,
        package: None,
        checksum: String::new(),
    };
    walk(reader, "metadata", LIMIT, &mut reading)?;
    Ok(reading.candidates)
}

/// A package while it is read. Its elements come in any order, and any may be missing.
struct Package {
    candidate: Candidate,
    /// Whether it is for another architecture, or a source: the rest of it is skipped.
    foreign: bool,
}

struct Reading<'r> {
    repository: &'r str,
    candidates: Vec<Candidate>,
    /// Packages seen, those for other machines too.
    seen: usize,
    relations: usize,
    package: Option<Package>,
    /// Kind of the checksum that is being read.
    checksum: String,
}

impl Visitor for Reading<'_> {
    fn open(&mut self, path: &str, attributes: &Attributes<'_>) -> Result<bool, String> {
        let Some(below) = path.strip_prefix("metadata/package") else { return Ok(false) };
        if below.is_empty() {
            self.seen += 1;
            if self.seen > PACKAGES {
                return Err(format!("it has more than {PACKAGES} packages"));
            }
            let foreign = attributes.get("type")?.is_some_and(|kind| kind != "rpm");
            self.package = Some(Package { candidate: empty(self.repository), foreign });
            return Ok(false);
        }
        let Some(package) = self.package.as_mut().filter(|package| !package.foreign) else {
            return Ok(false);
        };
        let candidate = &mut package.candidate;
        match below {
            "/name" | "/arch" | "/format/sourcerpm" | "/format/file" => return Ok(true),
            "/checksum" => {
                self.checksum = attributes.get("type")?.unwrap_or_default();
                return Ok(true);
            }
            "/version" => candidate.nevra.evr = evr(attributes).map_err(|reason| of(candidate, &reason))?,
            "/time" => {
                if let Some(build) = attributes.get("build")? {
                    candidate.build_time =
                        number("the time of the build", &build).map_err(|reason| of(candidate, &reason))?;
                }
            }
            "/size" => sizes(candidate, attributes)?,
            "/location" => {
                if attributes.get("base")?.is_some() {
                    return Err(of(candidate, "it lies outside the repository (xml:base)"));
                }
                let href = attributes.get("href")?.unwrap_or_default();
                candidate.location = location(&href).map_err(|reason| of(candidate, &reason))?;
            }
            _ => {
                let Some(kind) = below.strip_prefix("/format/").and_then(|rest| rest.strip_suffix("/entry"))
                else {
                    return Ok(false);
                };
                let list = match kind {
                    "provides" => &mut candidate.provides,
                    "requires" => &mut candidate.requires,
                    "conflicts" => &mut candidate.conflicts,
                    "obsoletes" => &mut candidate.obsoletes,
                    _ => return Ok(false),
                };
                match relation(attributes) {
                    // The same requirement comes once plain and once for the scriptlets.
                    Ok(relation) if list.last() == Some(&relation) => {}
                    Ok(relation) => {
                        list.push(relation);
                        self.count()?;
                    }
                    Err(reason) => return Err(of(candidate, &reason)),
                }
            }
        }
        Ok(false)
    }

    fn close(&mut self, path: &str, text: &str) -> Result<(), String> {
        let Some(below) = path.strip_prefix("metadata/package") else { return Ok(()) };
        let Some(package) = self.package.as_mut().filter(|package| !package.foreign) else { return Ok(()) };
        let candidate = &mut package.candidate;
        match below {
            "" => {
                let candidate = complete(self.package.take())?;
                self.candidates.extend(candidate);
            }
            "/name" => candidate.nevra.name = word("a package's name", text)?,
            "/arch" => {
                candidate.nevra.arch =
                    word("its architecture", text).map_err(|reason| of(candidate, &reason))?;
                package.foreign = !matches!(text, "x86_64" | "noarch");
            }
            "/checksum" => {
                candidate.sha256 = sha256(&self.checksum, text).map_err(|reason| of(candidate, &reason))?;
            }
            "/format/sourcerpm" if !text.is_empty() => {
                candidate.source = word("its source", text).map_err(|reason| of(candidate, &reason))?;
            }
            "/format/file" => {
                candidate.files.push(text.to_owned());
                self.count()?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Reading<'_> {
    fn count(&mut self) -> Result<(), String> {
        self.relations += 1;
        if self.relations > RELATIONS {
            return Err(format!("its packages have more than {RELATIONS} relations and files"));
        }
        Ok(())
    }
}

fn empty(repository: &str) -> Candidate {
    Candidate {
        nevra: Nevra {
            name: String::new(),
            evr: Evr { epoch: 0, version: String::new(), release: String::new() },
            arch: String::new(),
        },
        repository: repository.to_owned(),
        location: String::new(),
        size: 0,
        installed_size: 0,
        sha256: String::new(),
        source: String::new(),
        build_time: 0,
        provides: Vec::new(),
        requires: Vec::new(),
        conflicts: Vec::new(),
        obsoletes: Vec::new(),
        files: Vec::new(),
    }
}

fn of(candidate: &Candidate, reason: &str) -> String {
    format!("package `{}`: {reason}", candidate.nevra.name)
}

fn complete(package: Option<Package>) -> Result<Option<Candidate>, String> {
    let Some(Package { mut candidate, .. }) = package else { return Ok(None) };
    let nevra = &candidate.nevra;
    for (field, value) in [
        ("name", &nevra.name),
        ("architecture", &nevra.arch),
        ("version", &nevra.evr.version),
        ("checksum", &candidate.sha256),
        ("location", &candidate.location),
    ] {
        if value.is_empty() {
            return Err(of(&candidate, &format!("it has no {field}")));
        }
    }
    if candidate.size == 0 {
        return Err(of(&candidate, "it has no size"));
    }
    // Ten thousands of packages with thousands of relations stay in memory.
    for list in
        [&mut candidate.provides, &mut candidate.requires, &mut candidate.conflicts, &mut candidate.obsoletes]
    {
        list.shrink_to_fit();
    }
    candidate.files.shrink_to_fit();
    Ok(Some(candidate))
}

/// A size in bytes that may be added to a hundred thousand others.
fn bytes(what: &str, text: &str) -> Result<u64, String> {
    let size = number(what, text)?;
    if size > MOST_BYTES { Err(format!("{what} {size} is not to be believed")) } else { Ok(size) }
}

fn sizes(candidate: &mut Candidate, attributes: &Attributes<'_>) -> Result<(), String> {
    let (mut size, mut installed) = (0, 0);
    let outcome = attributes.each(|key, value| {
        match key {
            "package" => size = bytes("its size", &value)?,
            "installed" => installed = bytes("its installed size", &value)?,
            _ => {}
        }
        Ok(())
    });
    outcome.map_err(|reason| of(candidate, &reason))?;
    (candidate.size, candidate.installed_size) = (size, installed);
    Ok(())
}

/// `epoch`, `ver` and `rel` of an element; the version is empty when it has none.
fn evr(attributes: &Attributes<'_>) -> Result<Evr, String> {
    let mut evr = Evr { epoch: 0, version: String::new(), release: String::new() };
    attributes.each(|key, value| {
        match key {
            "epoch" => {
                let epoch = number("its epoch", &value)?;
                evr.epoch = u32::try_from(epoch).map_err(|_| format!("its epoch `{epoch}` is too large"))?;
            }
            "ver" if !value.is_empty() => evr.version = word("the version", &value)?,
            "rel" if !value.is_empty() => evr.release = word("the release", &value)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(evr)
}

fn relation(attributes: &Attributes<'_>) -> Result<Relation, String> {
    let (mut name, mut comparison) = (String::new(), None);
    attributes.each(|key, value| {
        match key {
            "name" => name = value.into_owned(),
            "flags" => {
                let read = Comparison::parse(&value);
                comparison =
                    Some(read.ok_or_else(|| format!("the comparison `{}` is unknown", shown(&value)))?);
            }
            _ => {}
        }
        Ok(())
    })?;
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(format!("the relation `{}` has no proper name", shown(&name)));
    }
    let Some(comparison) = comparison else { return Ok(Relation { name, condition: None }) };
    let evr = evr(attributes)?;
    // rpm compares with a version that is missing as if there were no comparison.
    Ok(Relation { name, condition: (!evr.version.is_empty()).then_some((comparison, evr)) })
}
