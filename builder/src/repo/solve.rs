//! Which packages a list of names needs: the newest builds, and of several providers the one that yum would take.
//!
//! A closure that is returned is closed and without conflict. Requirements that only one package can satisfy go first, choices
//! last, so that a choice falls on what is there anyway; all goes in a fixed order, so equal input gives an equal closure.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;

use crate::error::Fault;
use crate::rpm::evr::Evr;

use super::candidate::{Candidate, Comparison, Relation};
use super::index::{Id, Index};
pub use super::index::{Repository, Universe};

/// How often a newest build that stands in the way may be passed over for an older one.
const RETRIES: usize = 64;

/// A package that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// `name`, `name-version` or `name-version-release`; the version may begin with an epoch and a colon.
    pub name: String,
    /// The repositories that may serve it; any, when there are none.
    pub repositories: Vec<String>,
}

/// Why there is no closure.
#[derive(Debug)]
pub enum Unresolved {
    /// All that is wrong with the list or the repositories, one sentence each.
    Problems(Vec<String>),
    /// The owners of files could not be found out.
    FileLists(anyhow::Error),
}

impl fmt::Display for Unresolved {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unresolved::Problems(problems) => out.write_str(&problems.join("\n")),
            Unresolved::FileLists(error) => write!(out, "{error:#}"),
        }
    }
}

impl Unresolved {
    /// The error for the user, who wrote the list.
    pub fn into_error(self) -> anyhow::Error {
        match self {
            Unresolved::FileLists(error) => error,
            problems @ Unresolved::Problems(_) => Fault::user(problems.to_string())
                .hint("change the recipe's packages, or its repositories and what `only` lets through")
                .into(),
        }
    }
}

/// Says which packages, by `Candidate::sha256`, own the files.
pub type FileOwners<'f> = dyn FnMut(&BTreeSet<String>) -> anyhow::Result<BTreeMap<String, Vec<String>>> + 'f;

/// The wanted packages and all that they need, by name. `file_owners` is asked for files that no `primary` lists, never twice for one.
pub fn solve<'u>(
    universe: &'u Universe,
    wanted: &[Wanted],
    file_owners: &mut FileOwners<'_>,
) -> Result<Vec<&'u Candidate>, Unresolved> {
    let index = Index::new(universe);
    let mut owned = HashMap::new();
    let mut passed_over = BTreeSet::new();
    let mut first_problems = None;
    loop {
        let mut run = Run::new(&index, &passed_over);
        run.want(wanted);
        run.close(&mut owned, file_owners).map_err(Unresolved::FileLists)?;
        run.check();
        if run.problems.is_empty() {
            let mut closure: Vec<_> = run.selected.values().map(|id| index.candidate(*id)).collect();
            closure.sort_by(|one, two| one.nevra.name.cmp(&two.nevra.name));
            return Ok(closure);
        }
        let Run { problems, in_the_way, .. } = run;
        // What passing over led to explains nothing: the problems of the newest builds do.
        let problems = first_problems.unwrap_or(problems);
        match in_the_way {
            Some(id) if passed_over.len() < RETRIES && passed_over.insert(id) => {
                first_problems = Some(problems);
            }
            _ => return Err(Unresolved::Problems(problems)),
        }
    }
}

/// A requirement and who has it.
type Need<'u> = (Id, &'u Relation);

/// One attempt.
struct Run<'i, 'u> {
    index: &'i Index<'u>,
    /// Builds that an earlier attempt found in the way.
    passed_over: &'i BTreeSet<Id>,
    /// What is chosen, by name.
    selected: BTreeMap<&'u str, Id>,
    wanted: BTreeSet<Id>,
    /// Needs of one exact version: they may rule builds out.
    exact: VecDeque<Need<'u>>,
    others: VecDeque<Need<'u>>,
    /// Needs that several packages can satisfy, in the order of their text.
    choices: BTreeMap<(String, Id), &'u Relation>,
    /// Needs of files that no `primary` lists.
    files: BTreeMap<(String, Id), &'u Relation>,
    problems: Vec<String>,
    /// A build that was chosen freely and keeps out the one that a requirement needs.
    in_the_way: Option<Id>,
}

/// What became of a need.
enum Outcome {
    Met,
    Choose(Vec<Id>),
    AskFileLists,
    Impossible,
}

impl<'i, 'u> Run<'i, 'u> {
    fn new(index: &'i Index<'u>, passed_over: &'i BTreeSet<Id>) -> Self {
        Run {
            index,
            passed_over,
            selected: BTreeMap::new(),
            wanted: BTreeSet::new(),
            exact: VecDeque::new(),
            others: VecDeque::new(),
            choices: BTreeMap::new(),
            files: BTreeMap::new(),
            problems: Vec::new(),
            in_the_way: None,
        }
    }

    fn want(&mut self, wanted: &[Wanted]) {
        for wanted in wanted {
            let repositories = &self.index.universe.repositories;
            let unknown = wanted.repositories.iter().find(|name| !repositories.contains(name));
            if let Some(unknown) = unknown {
                self.problems.push(format!(
                    "there is no repository `{unknown}`, from which `{}` shall come: there are {}",
                    wanted.name,
                    repositories.join(", ")
                ));
                continue;
            }
            match self.find(wanted) {
                Ok(id) => {
                    let name = self.index.candidate(id).nevra.name.as_str();
                    match self.selected.get(name) {
                        Some(other) if *other != id => self.problems.push(format!(
                            "{} and {} are both asked for: only one build of a package can be installed",
                            self.index.candidate(*other),
                            self.index.candidate(id)
                        )),
                        Some(_) => {}
                        None => {
                            self.wanted.insert(id);
                            self.select(id);
                        }
                    }
                }
                Err(problem) => self.problems.push(problem),
            }
        }
    }

    /// The newest build that a wanted package means.
    fn find(&self, wanted: &Wanted) -> Result<Id, String> {
        let text = wanted.name.as_str();
        let allowed: Vec<&str> = self
            .index
            .universe
            .repositories
            .iter()
            .map(String::as_str)
            .filter(|name| {
                wanted.repositories.is_empty() || wanted.repositories.iter().any(|one| one == name)
            })
            .collect();
        let serves = |id: &Id| allowed.contains(&self.index.candidate(*id).repository.as_str());
        // From the right: a name may have dashes itself. First all of it, then without a version, then without a release too.
        let cuts = text.rmatch_indices('-').map(|(at, _)| (&text[..at], Some(Evr::parse(&text[at + 1..]))));
        let mut builds = Vec::new();
        for (name, evr) in std::iter::once((text, None)).chain(cuts.take(2)) {
            builds = self.index.builds(name).iter().copied().filter(serves).collect();
            if let Some(evr) = &evr {
                builds.retain(|id| is_build(self.index.candidate(*id), evr, text.contains(':')));
            }
            if !builds.is_empty() {
                break;
            }
        }
        builds.into_iter().min_by(|one, two| self.index.order(*one, *two)).ok_or_else(|| {
            let mut problem = format!("no package `{text}` in {}: the recipe names it", allowed.join(", "));
            let name = Relation { name: text.to_owned(), condition: None };
            self.add_hidden(&mut problem, &name);
            problem
        })
    }

    fn select(&mut self, id: Id) {
        let candidate = self.index.candidate(id);
        self.selected.insert(&candidate.nevra.name, id);
        for relation in &candidate.requires {
            if relation.name.starts_with("rpmlib(") {
                continue;
            }
            if relation.name.starts_with('(') {
                self.problems.push(format!(
                    "{candidate} needs `{relation}`: rpm of CentOS 7 knows no such rich dependencies, so it is no package for it"
                ));
            } else if matches!(relation.condition, Some((Comparison::Equal, _))) {
                self.exact.push_back((id, relation));
            } else {
                self.others.push_back((id, relation));
            }
        }
    }

    /// Satisfies every need, and those that arise.
    fn close(
        &mut self,
        owned: &mut HashMap<String, Vec<Id>>,
        file_owners: &mut FileOwners<'_>,
    ) -> anyhow::Result<()> {
        loop {
            if let Some(need) = self.exact.pop_front().or_else(|| self.others.pop_front()) {
                self.meet(need, false, owned);
            } else if !self.files.is_empty() {
                let needs = std::mem::take(&mut self.files);
                let files: BTreeSet<String> = needs.values().map(|relation| relation.name.clone()).collect();
                let mut answers = file_owners(&files)?;
                for file in files {
                    let packages = answers.remove(&file).unwrap_or_default();
                    owned.insert(file, self.by_digest(&packages));
                }
                self.others.extend(needs.into_iter().map(|((_, id), relation)| (id, relation)));
            } else if let Some(((_, id), relation)) = self.choices.pop_first() {
                self.meet((id, relation), true, owned);
            } else {
                return Ok(());
            }
        }
    }

    fn by_digest(&self, packages: &[String]) -> Vec<Id> {
        let packages: BTreeSet<&str> = packages.iter().map(String::as_str).collect();
        let items = self.index.universe.items.iter().enumerate();
        items
            .filter(|(_, item)| item.visible && packages.contains(item.candidate.sha256.as_str()))
            .map(|(id, _)| id)
            .collect()
    }

    fn meet(&mut self, (id, relation): Need<'u>, decide: bool, owned: &HashMap<String, Vec<Id>>) {
        match self.look((id, relation), owned) {
            Outcome::Met | Outcome::Impossible => {}
            Outcome::AskFileLists => {
                self.files.insert((relation.to_string(), id), relation);
            }
            Outcome::Choose(names) if names.len() > 1 && !decide => {
                self.choices.insert((relation.to_string(), id), relation);
            }
            Outcome::Choose(builds) => {
                let source = self.index.candidate(id).source.as_str();
                let rank = |build: &&Id| {
                    let candidate = self.index.candidate(**build);
                    let name = candidate.nevra.name.as_str();
                    let kin = !source.is_empty() && candidate.source == source;
                    (name != relation.name, !kin, name.len(), name)
                };
                if let Some(best) = builds.iter().min_by_key(rank) {
                    self.select(*best);
                }
            }
        }
    }

    /// What can satisfy a need: the newest build of each name that may be chosen.
    fn look(&mut self, (id, relation): Need<'u>, owned: &HashMap<String, Vec<Id>>) -> Outcome {
        let mut providers = self.index.providers(relation);
        if relation.is_file() && providers.is_empty() {
            match owned.get(&relation.name) {
                Some(owners) => providers.clone_from(owners),
                None => return Outcome::AskFileLists,
            }
        }
        let mut newest: BTreeMap<&str, Id> = BTreeMap::new();
        let (mut rival, mut obsolete) = (None, None);
        for provider in providers {
            let name = self.index.candidate(provider).nevra.name.as_str();
            match self.selected.get(name) {
                Some(chosen) if *chosen == provider => return Outcome::Met,
                Some(chosen) => {
                    rival.get_or_insert((provider, *chosen));
                    continue;
                }
                None if self.passed_over.contains(&provider) => continue,
                None => {}
            }
            if let Some(by) = self.index.obsoleter(provider) {
                obsolete.get_or_insert((provider, by));
                continue;
            }
            let best = newest.entry(name).or_insert(provider);
            if self.index.order(provider, *best).is_lt() {
                *best = provider;
            }
        }
        if !newest.is_empty() {
            return Outcome::Choose(newest.into_values().collect());
        }
        let mut problem = format!("{} needs `{relation}`, which ", self.index.candidate(id));
        if let Some((provider, chosen)) = rival {
            let [provider, other] = [provider, chosen].map(|id| self.index.candidate(id));
            problem.push_str(&format!("{provider} provides, but {other} is to be installed"));
            if !self.wanted.contains(&chosen) {
                self.in_the_way.get_or_insert(chosen);
            }
        } else if let Some((provider, by)) = obsolete {
            let [provider, by] = [provider, by].map(|id| self.index.candidate(id));
            problem.push_str(&format!("only {provider} provides, and {by} obsoletes that"));
        } else {
            let repositories = self.index.universe.repositories.join(", ");
            problem.push_str(&format!("no package of {repositories} provides"));
            self.add_others(&mut problem, relation);
            self.add_hidden(&mut problem, relation);
        }
        self.problems.push(problem);
        Outcome::Impossible
    }

    /// Adds which versions there are, when it is only the version that is wrong.
    fn add_others(&self, problem: &mut String, relation: &Relation) {
        let named = self.index.builds(&relation.name).iter().map(|id| self.index.candidate(*id).to_string());
        let claimed = self.index.claims(&relation.name).iter().filter_map(|(id, provided)| {
            Some(format!("`{}` of {}", (*provided)?, self.index.candidate(*id)))
        });
        let others: Vec<String> = named.chain(claimed).take(3).collect();
        if !others.is_empty() {
            problem.push_str(&format!("; they have {}", others.join(", ")));
        }
    }

    fn add_hidden(&self, problem: &mut String, relation: &Relation) {
        let hidden = self.index.hidden(relation);
        if !hidden.is_empty() {
            problem.push_str(&format!("; `only` hides {}", hidden.join(", ")));
        }
    }

    /// Finds what does not bear each other.
    fn check(&mut self) {
        let chosen: BTreeSet<Id> = self.selected.values().copied().collect();
        for id in &chosen {
            let candidate = self.index.candidate(*id);
            for relation in &candidate.conflicts {
                if relation.name.starts_with('(') {
                    self.problems.push(format!(
                        "{candidate} has the rich conflict `{relation}`: it is no package for CentOS 7"
                    ));
                }
                let providers = self.index.providers(relation);
                for other in providers.iter().filter(|other| *other != id && chosen.contains(other)) {
                    let other = self.index.candidate(*other);
                    self.problems.push(format!(
                        "{candidate} conflicts with {other} (`{relation}`): both are to be installed"
                    ));
                }
            }
            for relation in &candidate.obsoletes {
                let other =
                    self.selected.get(relation.name.as_str()).map(|other| self.index.candidate(*other));
                if let Some(other) = other
                    .filter(|other| other.nevra.name != candidate.nevra.name && other.is_within(relation))
                {
                    self.problems.push(format!(
                        "{candidate} obsoletes {other} (`{relation}`): both are to be installed"
                    ));
                }
            }
        }
    }
}

/// Whether a candidate is the build that a text names; what the text does not say may be anything.
fn is_build(candidate: &Candidate, evr: &Evr, has_epoch: bool) -> bool {
    let own = &candidate.nevra.evr;
    own.version == evr.version
        && (evr.release.is_empty() || own.release == evr.release)
        && (!has_epoch || own.epoch == evr.epoch)
}
