//! All packages that may be chosen, and who provides what. Lookups only: nothing here depends on the order of a hash map.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use super::candidate::{Candidate, Relation};

/// A repository as the solver sees it.
#[derive(Debug, Clone)]
pub struct Repository {
    /// Its name in messages and in `Wanted::repositories`.
    pub name: String,
    /// What it offers.
    pub candidates: Vec<Candidate>,
    /// The names that may be taken from it; all, when there is no list.
    pub only: Option<Vec<String>>,
}

/// The packages of several repositories; of equal versions the earlier repository's wins.
#[derive(Debug)]
pub struct Universe {
    pub(super) repositories: Vec<String>,
    pub(super) items: Vec<Item>,
}

/// A candidate and its standing.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) candidate: Candidate,
    /// Place of its repository.
    pub(super) repository: usize,
    /// False when its repository's `only` leaves it out.
    pub(super) visible: bool,
}

impl Universe {
    /// Puts repositories together; packages for other machines than `x86_64` are dropped.
    pub fn new(repositories: Vec<Repository>) -> Self {
        let mut universe = Universe { repositories: Vec::new(), items: Vec::new() };
        for (place, repository) in repositories.into_iter().enumerate() {
            let only: Option<BTreeSet<String>> = repository.only.map(|names| names.into_iter().collect());
            universe.repositories.push(repository.name);
            for candidate in repository.candidates {
                if matches!(candidate.nevra.arch.as_str(), "x86_64" | "noarch") {
                    let visible = only.as_ref().is_none_or(|only| only.contains(&candidate.nevra.name));
                    universe.items.push(Item { candidate, repository: place, visible });
                }
            }
        }
        universe
    }
}

/// One of a universe's candidates.
pub(super) type Id = usize;

/// Who is called what, who provides what, who obsoletes whom: of the visible candidates.
pub(super) struct Index<'u> {
    pub(super) universe: &'u Universe,
    names: HashMap<&'u str, Vec<Id>>,
    /// By the name of a relation: the candidate, and the relation unless it is a file.
    provides: HashMap<&'u str, Vec<(Id, Option<&'u Relation>)>>,
    /// By the name of what is obsoleted: by the newest build of each name.
    obsoletes: HashMap<&'u str, Vec<(Id, &'u Relation)>>,
}

impl<'u> Index<'u> {
    pub(super) fn new(universe: &'u Universe) -> Self {
        let mut index =
            Index { universe, names: HashMap::new(), provides: HashMap::new(), obsoletes: HashMap::new() };
        for (id, item) in universe.items.iter().enumerate().filter(|(_, item)| item.visible) {
            let candidate = &item.candidate;
            index.names.entry(&candidate.nevra.name).or_default().push(id);
            // Its own name is found among the names.
            for relation in candidate.provides.iter().filter(|relation| !own(candidate, relation)) {
                index.provides.entry(&relation.name).or_default().push((id, Some(relation)));
            }
            for file in &candidate.files {
                index.provides.entry(file).or_default().push((id, None));
            }
        }
        for (id, item) in universe.items.iter().enumerate().filter(|(_, item)| item.visible) {
            if !item.candidate.obsoletes.is_empty() && index.newest(&item.candidate.nevra.name) == Some(id) {
                for relation in &item.candidate.obsoletes {
                    index.obsoletes.entry(&relation.name).or_default().push((id, relation));
                }
            }
        }
        index
    }

    pub(super) fn candidate(&self, id: Id) -> &'u Candidate {
        &self.universe.items[id].candidate
    }

    /// All builds of a name.
    pub(super) fn builds(&self, name: &str) -> &[Id] {
        self.names.get(name).map_or(&[], Vec::as_slice)
    }

    fn newest(&self, name: &str) -> Option<Id> {
        self.builds(name).iter().copied().min_by(|one, two| self.order(*one, *two))
    }

    /// Newer first; then the earlier repository, the exact architecture, the earlier line.
    pub(super) fn order(&self, one: Id, two: Id) -> std::cmp::Ordering {
        let key = |id: Id| {
            let item = &self.universe.items[id];
            (Reverse(&item.candidate.nevra.evr), item.repository, item.candidate.nevra.arch == "noarch", id)
        };
        key(one).cmp(&key(two))
    }

    /// The candidates that satisfy a relation by name, provides or the files of `primary`; ascending, each once.
    pub(super) fn providers(&self, relation: &Relation) -> Vec<Id> {
        let named =
            self.builds(&relation.name).iter().filter(|id| self.candidate(**id).is_within(relation)).copied();
        let others = self.claims(&relation.name).iter().filter(|(_, provided)| match provided {
            Some(provided) => provided.overlaps(relation),
            None => true,
        });
        let ids: BTreeSet<Id> = named.chain(others.map(|(id, _)| *id)).collect();
        ids.into_iter().collect()
    }

    /// What candidates say of a name, in whatever version.
    pub(super) fn claims(&self, name: &str) -> &[(Id, Option<&'u Relation>)] {
        self.provides.get(name).map_or(&[], Vec::as_slice)
    }

    /// The newest build of another name that replaces this candidate.
    pub(super) fn obsoleter(&self, id: Id) -> Option<Id> {
        let candidate = self.candidate(id);
        let obsoletes = self.obsoletes.get(candidate.nevra.name.as_str())?;
        let replaces = |(by, relation): &&(Id, &Relation)| {
            self.candidate(*by).nevra.name != candidate.nevra.name && candidate.is_within(relation)
        };
        obsoletes.iter().find(replaces).map(|(by, _)| *by)
    }

    /// Names of repositories whose `only` leaves out a package that satisfies the relation: for messages.
    pub(super) fn hidden(&self, relation: &Relation) -> Vec<String> {
        let hidden =
            self.universe.items.iter().filter(|item| !item.visible && item.candidate.provides(relation));
        let found: BTreeSet<(usize, &str)> =
            hidden.map(|item| (item.repository, item.candidate.nevra.name.as_str())).collect();
        found
            .into_iter()
            .take(3)
            .map(|(place, name)| format!("`{name}` of {}", self.universe.repositories[place]))
            .collect()
    }
}

/// Whether a provide says no more than the package's own name and version.
fn own(candidate: &Candidate, relation: &Relation) -> bool {
    relation.name == candidate.nevra.name
        && relation.condition.as_ref().is_some_and(|(comparison, evr)| {
            *comparison == super::Comparison::Equal && *evr == candidate.nevra.evr
        })
}
