//! What dpkg knows of a root: its packages, what they depend on, which files are theirs.
//!
//! Guarantees: a requirement that comes out of here is met by the packages it was resolved against, also by rpm's order of
//! versions; versions that the two order differently are left out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};

use super::tree::{Tree, canonical};

/// A Debian package.
#[derive(Debug, Clone)]
pub(super) struct Package {
    pub name: String,
    pub version: Version,
    pub all: bool,
    pub essential: bool,
    pub summary: String,
    /// Groups of alternatives.
    pub depends: Vec<Vec<Relation>>,
    pub provides: Vec<String>,
    /// Paths, as in a merged `/usr`.
    pub files: BTreeSet<String>,
}

/// One alternative of a dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relation {
    name: String,
    /// The operator and what it compares with.
    version: Option<(String, String)>,
}

/// A version in the three parts that rpm knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub epoch: u32,
    pub upstream: String,
    pub release: String,
}

impl Version {
    /// The parts of a Debian version.
    pub fn parse(text: &str) -> Result<Version> {
        let (epoch, rest) = text.split_once(':').unwrap_or(("0", text));
        let epoch = epoch.parse().with_context(|| format!("`{text}` is no version"))?;
        // rpm has no hyphen inside a version.
        let (version, release) = rest.rsplit_once('-').unwrap_or((rest, "0"));
        Ok(Version { epoch, upstream: version.replace('-', "_"), release: release.to_owned() })
    }

    /// As rpm writes it in a dependency.
    pub fn full(&self) -> String {
        format!("{}:{}-{}", self.epoch, self.upstream, self.release)
    }
}

/// The packages that are installed in a root.
pub(super) fn installed(tree: &Tree) -> Result<Vec<Package>> {
    let mut packages = Vec::new();
    for paragraph in tree.text("/var/lib/dpkg/status")?.split("\n\n") {
        let fields = fields(paragraph);
        if fields.get("Status").is_none_or(|status| !status.ends_with(" installed")) {
            continue;
        }
        let mut package = parse(&fields)?;
        let list = ["", ":amd64"].iter().find_map(|suffix| {
            tree.text_if_any(&format!("/var/lib/dpkg/info/{}{suffix}.list", package.name))
        });
        let list = list.with_context(|| format!("dpkg has no list of the files of `{}`", package.name))?;
        package.files = list.lines().map(|line| canonical(Path::new(line))).collect::<Result<_>>()?;
        packages.push(package);
    }
    Ok(packages)
}

/// A package out of its control paragraph; its files are not in there.
pub(super) fn from_control(text: &str) -> Result<Package> {
    parse(&fields(text))
}

fn fields(paragraph: &str) -> BTreeMap<&str, &str> {
    let lines = paragraph.lines().filter(|line| !line.starts_with([' ', '\t']));
    lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim())).collect()
}

fn parse(fields: &BTreeMap<&str, &str>) -> Result<Package> {
    let field = |name: &str| fields.get(name).copied().unwrap_or_default();
    let name = fields.get("Package").context("a paragraph of dpkg names no package")?;
    let relations = |text: &str| {
        let groups = text.split(',').map(str::trim).filter(|group| !group.is_empty());
        groups.map(|group| group.split('|').map(relation).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let mut depends = relations(field("Pre-Depends"));
    depends.extend(relations(field("Depends")));
    let provides = relations(field("Provides")).into_iter().flatten().map(|relation| relation.name);
    Ok(Package {
        name: (*name).to_owned(),
        version: Version::parse(field("Version")).with_context(|| format!("reading what `{name}` is"))?,
        all: field("Architecture") == "all",
        essential: field("Essential") == "yes",
        summary: field("Description").to_owned(),
        depends,
        provides: provides.collect(),
        files: BTreeSet::new(),
    })
}

fn relation(text: &str) -> Relation {
    let (name, version) = text.split_once('(').map_or((text, None), |(name, version)| {
        let version = version.trim_end().trim_end_matches(')').trim();
        let digits = version.find(|letter: char| !"<>=".contains(letter)).unwrap_or(version.len());
        (name, Some((version[..digits].to_owned(), version[digits..].trim().to_owned())))
    });
    let name = name.trim().split(':').next().unwrap_or_default();
    Relation { name: name.to_owned(), version }
}

/// Packages by name, and by what they provide.
pub(super) struct Index<'a> {
    real: BTreeMap<&'a str, &'a Package>,
    provided: BTreeMap<&'a str, &'a Package>,
}

impl<'a> Index<'a> {
    /// Of some packages.
    pub fn new(packages: &'a [Package]) -> Index<'a> {
        let mut provided = BTreeMap::new();
        for package in packages {
            for name in &package.provides {
                provided.entry(name.as_str()).or_insert(package);
            }
        }
        Index { real: packages.iter().map(|package| (package.name.as_str(), package)).collect(), provided }
    }

    /// The first alternative of each dependency that is there: what rpm is to be told, and the package behind it.
    pub fn requirements(&self, package: &Package) -> Result<Vec<(String, &'a Package)>> {
        let one = |group: &Vec<Relation>| {
            let met = group.iter().find_map(|relation| self.requirement(relation));
            met.with_context(|| format!("the Debian root has nothing for `{}`: {group:?}", package.name))
        };
        package.depends.iter().map(one).collect()
    }

    fn requirement(&self, relation: &Relation) -> Option<(String, &'a Package)> {
        let name = relation.name.as_str();
        let Some(package) = self.real.get(name) else {
            return self.provided.get(name).map(|package| (name.to_owned(), *package));
        };
        let rpm = rpm_name(name);
        // dpkg has seen to it that the version is right; rpm is told of it where it sorts digits and dots alike.
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || b".:".contains(&byte));
        let text = match &relation.version {
            Some((operator, wanted)) if operator == ">=" && plain(wanted) => format!("{rpm} >= {wanted}"),
            Some((operator, wanted)) if operator == "=" && Version::parse(wanted).is_ok() => {
                format!("{rpm} = {}", package.version.full())
            }
            _ => rpm,
        };
        Some((text, package))
    }

    /// Everything that some packages need, with themselves.
    pub fn closure(&self, roots: impl Iterator<Item = &'a Package>) -> Result<BTreeSet<&'a str>> {
        let mut known = BTreeSet::new();
        let mut open: Vec<&Package> = roots.collect();
        while let Some(package) = open.pop() {
            if known.insert(package.name.as_str()) {
                open.extend(self.requirements(package)?.into_iter().map(|(_, package)| package));
            }
        }
        Ok(known)
    }

    /// Packages that no other one names: what somebody asked for.
    pub fn leaves(&self) -> Result<Vec<&'a Package>> {
        let mut named = BTreeSet::new();
        for package in self.real.values() {
            let others = self.requirements(package)?.into_iter().map(|(_, other)| other.name.as_str());
            named.extend(others.filter(|other| *other != package.name));
        }
        Ok(self.real.values().filter(|package| !named.contains(package.name.as_str())).copied().collect())
    }
}

/// The name of a Debian package as an RPM: the kernel is called as on CentOS.
pub(super) fn rpm_name(name: &str) -> String {
    let kernel =
        name.strip_prefix("linux-image-").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if kernel { "kernel".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTROL: &str = "Package: a\nVersion: 1:2.0-rc-3+b1\nArchitecture: amd64\nProvides: v (= 2), w\n\
        Pre-Depends: b (>= 3.1)\nDepends: b (<< 9), gone | v:any (>= 1.0~), c (= 5:1-1)\nDescription: A\n more\n";

    #[test]
    fn dependencies_become_what_rpm_can_meet() {
        let other = |text: &str| from_control(text).unwrap();
        let packages =
            [other(CONTROL), other("Package: b\nVersion: 3.2"), other("Package: c\nVersion: 5:1-1")];
        let index = Index::new(&packages);
        let met = index.requirements(&packages[0]).unwrap();
        let met: Vec<_> = met.iter().map(|(text, package)| (text.as_str(), package.name.as_str())).collect();
        assert_eq!(met, [("b >= 3.1", "b"), ("b", "b"), ("v", "a"), ("c = 5:1-1", "c")]);
        assert_eq!(packages[0].version.full(), "1:2.0_rc-3+b1");
        let leaves: Vec<_> = index.leaves().unwrap().iter().map(|package| package.name.as_str()).collect();
        assert_eq!(leaves, ["a"]);
        assert!(index.requirements(&other("Package: d\nVersion: 1\nDepends: gone")).is_err());
    }

    #[test]
    fn the_kernel_is_called_kernel() {
        assert_eq!(rpm_name("linux-image-6.1.0-1-amd64"), "kernel");
        assert_eq!(rpm_name("linux-image-amd64"), "linux-image-amd64");
    }
}
