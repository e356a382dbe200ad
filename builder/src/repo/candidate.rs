//! A package that a repository offers, and the relations between packages, compared as rpm 4.11 does (`lib/rpmds.c`).

use std::cmp::Ordering;
use std::fmt;

use crate::rpm::Nevra;
use crate::rpm::evr::Evr;

/// A package that a repository offers: what its `primary` says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Name, epoch, version, release, architecture.
    pub nevra: Nevra,
    /// The repository's name.
    pub repository: String,
    /// Where the package lies: a relative, normal path below the repository.
    pub location: String,
    /// Size of the package, in bytes.
    pub size: u64,
    /// Size of its files, in bytes.
    pub installed_size: u64,
    /// SHA-256 of the package: 64 lower-case digits. `filelists` calls it `pkgid`.
    pub sha256: String,
    /// File name of the source package; empty when the repository names none.
    pub source: String,
    /// When it was built: seconds since 1970; 0 when the repository does not say.
    pub build_time: u64,
    /// What it provides beside its name and files.
    pub provides: Vec<Relation>,
    /// What it needs.
    pub requires: Vec<Relation>,
    /// What it does not bear beside it.
    pub conflicts: Vec<Relation>,
    /// Names of packages that it replaces.
    pub obsoletes: Vec<Relation>,
    /// Those of its files that `primary` lists: programs and what lies in `/etc`.
    pub files: Vec<String>,
}

impl Candidate {
    /// Whether it satisfies the relation, its files in `filelists` apart.
    pub fn provides(&self, relation: &Relation) -> bool {
        self.is_within(relation)
            || self.provides.iter().any(|provided| provided.overlaps(relation))
            || (relation.is_file() && self.files.contains(&relation.name))
    }

    /// Whether its own name and version fall under the relation: all that an `Obsoletes` looks at.
    pub fn is_within(&self, relation: &Relation) -> bool {
        self.nevra.name == relation.name
            && relation.condition.as_ref().is_none_or(|(comparison, evr)| {
                overlap((Comparison::Equal, &self.nevra.evr), (*comparison, evr))
            })
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "`{}` ({})", self.nevra, self.repository)
    }
}

/// `name`, or `name >= version`: of a provide, a requirement, a conflict, an obsolete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// A package, a file, a library, or whatever packagers agree on.
    pub name: String,
    /// Which versions; any, when there is none.
    pub condition: Option<(Comparison, Evr)>,
}

impl Relation {
    /// Whether a package that provides `self` satisfies `wanted`. One without a version satisfies every version, as in rpm.
    pub fn overlaps(&self, wanted: &Relation) -> bool {
        self.name == wanted.name
            && match (&self.condition, &wanted.condition) {
                (Some((one, evr_one)), Some((two, evr_two))) => overlap((*one, evr_one), (*two, evr_two)),
                _ => true,
            }
    }

    /// Whether it names a file.
    pub fn is_file(&self) -> bool {
        self.name.starts_with('/')
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)?;
        match &self.condition {
            Some((comparison, evr)) => write!(out, " {comparison} {evr}"),
            None => Ok(()),
        }
    }
}

/// How versions compare in a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `=`
    Equal,
    /// `>=`
    GreaterOrEqual,
    /// `>`
    Greater,
}

impl Comparison {
    /// Reads the `flags` of a relation in metadata.
    pub fn parse(flags: &str) -> Option<Self> {
        Some(match flags {
            "LT" => Comparison::Less,
            "LE" => Comparison::LessOrEqual,
            "EQ" => Comparison::Equal,
            "GE" => Comparison::GreaterOrEqual,
            "GT" => Comparison::Greater,
            _ => return None,
        })
    }

    fn less(self) -> bool {
        matches!(self, Comparison::Less | Comparison::LessOrEqual)
    }

    fn greater(self) -> bool {
        matches!(self, Comparison::Greater | Comparison::GreaterOrEqual)
    }

    fn equal(self) -> bool {
        matches!(self, Comparison::LessOrEqual | Comparison::Equal | Comparison::GreaterOrEqual)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
            Comparison::Equal => "=",
            Comparison::GreaterOrEqual => ">=",
            Comparison::Greater => ">",
        })
    }
}

/// Whether some version falls under both: `rpmdsCompare`.
fn overlap((one, evr_one): (Comparison, &Evr), (two, evr_two): (Comparison, &Evr)) -> bool {
    match evr_one.compare_as_dependency(evr_two) {
        Ordering::Less => one.greater() || two.less(),
        Ordering::Greater => one.less() || two.greater(),
        Ordering::Equal => {
            (one.equal() && two.equal()) || (one.less() && two.less()) || (one.greater() && two.greater())
        }
    }
}
