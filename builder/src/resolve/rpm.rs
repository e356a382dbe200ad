//! The metadata of RPM repositories -> the packages of a `Lock`.
//!
//! `repomd.xml` is believed as far as the connection is (HTTPS); what it names is checked by digest, and every package again by its
//! signature. A repository that does not answer stops the resolution, unless a mirror was named on the command line: then that
//! mirror is taken to hold what is needed, and what it lacks is named. A named mirror that has no repository at all stops it too.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use fs_err as fs;

use super::{Lock, LockedPackage, Tree};
use crate::context::Context;
use crate::error::Fault;
use crate::fetch::{self, Fetcher, Tried, Wanted};
use crate::recipe::{Repository, Rpm};
use crate::repo::repomd::{Part, Repomd};
use crate::repo::solve::{self, Universe, Unresolved};
use crate::repo::{Candidate, filelists, primary};

/// Largest `repomd.xml` that is believed, in bytes.
const REPOMD_LIMIT: u64 = 1 << 20;

/// One repository that answered.
struct Answer<'a> {
    repository: &'a Repository,
    root: String,
    repomd: Repomd,
}

/// Where a repository may lie. A mirror given on the command line holds the archive's folders as the publisher does, or is one flat
/// repository for all of them.
pub fn roots(base: &Rpm, repository: &Repository, context: &Context) -> Vec<String> {
    let path = &repository.path;
    let below = |url: &str| format!("{}/{path}", url.trim_end_matches('/'));
    if let Some(url) = context.mirror(&repository.archive) {
        return vec![below(url), url.trim_end_matches('/').to_owned()];
    }
    base.archives
        .get(&repository.archive)
        .map_or(Vec::new(), |archive| archive.mirrors.iter().map(|url| below(url)).collect())
}

/// What the mirrors offer now.
pub fn resolve(base: &Rpm, recipe: &str, context: &Context) -> Result<Lock> {
    let fetcher = Fetcher::new(context);
    let (answers, silent) = ask(base, &fetcher, context)?;
    let mut repositories = Vec::new();
    for answer in &answers {
        repositories.push(solve::Repository {
            name: answer.repository.name.clone(),
            candidates: candidates(answer, &fetcher, context)?,
            only: answer.repository.only.clone(),
        });
    }
    let universe = Universe::new(repositories);
    let solver = Solver { base, answers: &answers, silent: &silent, fetcher: &fetcher, universe: &universe };
    let mut trees: BTreeMap<String, (&Candidate, BTreeSet<Tree>)> = BTreeMap::new();
    let bootstrap: Vec<solve::Wanted> = base
        .bootstrap
        .iter()
        .map(|name| solve::Wanted { name: name.clone(), repositories: Vec::new() })
        .collect();
    let image = solver.wanted(&base.packages);
    let build = [image.clone(), solver.wanted(&base.build_packages)].concat();
    context.reporter.doing("resolving dependencies");
    for (tree, wanted) in [(Tree::Bootstrap, bootstrap), (Tree::Image, image), (Tree::Build, build)] {
        for candidate in solver.solve(&wanted)? {
            trees.entry(candidate.sha256.clone()).or_insert((candidate, BTreeSet::new())).1.insert(tree);
        }
    }
    let newest = trees
        .values()
        .filter(|(_, trees)| trees.contains(&Tree::Image))
        .map(|(candidate, _)| candidate.build_time);
    let epoch = newest.max().unwrap_or_default();
    let mut packages: Vec<LockedPackage> =
        trees.into_values().map(|(candidate, trees)| locked(candidate, trees)).collect();
    packages.sort_by(|a, b| (&a.name, &a.evr).cmp(&(&b.name, &b.evr)));
    let merged = answers.iter().any(|answer| is_flat(answer, context));
    Ok(Lock {
        schema: super::SCHEMA,
        recipe: recipe.to_owned(),
        epoch,
        merged,
        sizes: None,
        suites: Vec::new(),
        packages,
    })
}

fn locked(candidate: &Candidate, trees: BTreeSet<Tree>) -> LockedPackage {
    LockedPackage {
        name: candidate.nevra.name.clone(),
        evr: candidate.nevra.evr.to_string(),
        arch: candidate.nevra.arch.clone(),
        repository: candidate.repository.clone(),
        location: candidate.location.clone(),
        size: candidate.size,
        installed_size: candidate.installed_size,
        sha256: candidate.sha256.clone(),
        trees: trees.into_iter().collect(),
    }
}

/// The repositories that answer, and the words about those that do not.
fn ask<'a>(
    base: &'a Rpm,
    fetcher: &Fetcher<'_>,
    context: &Context,
) -> Result<(Vec<Answer<'a>>, Vec<String>)> {
    let own_mirror = base.archives.keys().any(|archive| context.mirror(archive).is_some());
    let (mut answers, mut silent): (Vec<Answer<'_>>, Vec<(&Repository, Vec<Tried>)>) = Default::default();
    for repository in &base.repositories {
        context.reporter.doing(&format!("asking for repository {}", repository.name));
        let urls: Vec<String> = roots(base, repository, context)
            .iter()
            .map(|root| format!("{root}/repodata/repomd.xml"))
            .collect();
        let (bytes, url) = match fetcher.text(&urls, REPOMD_LIMIT) {
            Ok(found) => found,
            Err(tried) => {
                silent.push((repository, tried));
                if own_mirror {
                    continue;
                }
                return Err(unanswered(&silent).into());
            }
        };
        let root = url.trim_end_matches("/repodata/repomd.xml").to_owned();
        // A flat mirror answers for every repository of its archive; once is enough.
        if answers.iter().any(|answer| answer.root == root && repository.only.is_none()) {
            continue;
        }
        let repomd = Repomd::parse(&bytes).map_err(|why| index_fault(&url, &why))?;
        answers.push(Answer { repository, root, repomd });
    }
    // Of an archive whose mirror was named, something must be there: a mistyped URL is no mirror.
    silent.sort_by_key(|(repository, _)| context.mirror(&repository.archive).is_none());
    let is_useless = |(repository, _): &(&Repository, _)| {
        let same = |other: &&Repository| other.archive == repository.archive;
        context.mirror(&repository.archive).is_some()
            && base
                .repositories
                .iter()
                .filter(same)
                .all(|other| silent.iter().any(|(one, _)| one.name == other.name))
    };
    // What nobody has named a mirror for may be missing only where a flat mirror stands for everything: an image without the updates of
    // a vault that was slow to answer is no image.
    let flat = answers.iter().any(|answer| is_flat(answer, context));
    let is_needed =
        |(repository, _): &(&Repository, _)| context.mirror(&repository.archive).is_none() && !flat;
    if answers.is_empty() || silent.iter().any(is_useless) || silent.iter().any(is_needed) {
        return Err(unanswered(&silent).into());
    }
    let silent: Vec<String> = silent
        .iter()
        .map(|(repository, tried)| {
            format!("repository `{}` cannot be had: {}", repository.name, fetch::words(tried).join("; "))
        })
        .collect();
    for text in &silent {
        context.reporter.note(text);
    }
    Ok((answers, silent))
}

/// Whether one repository stands for all of its archive, and perhaps of others.
fn is_flat(answer: &Answer<'_>, context: &Context) -> bool {
    context.mirror(&answer.repository.archive).is_some_and(|url| url.trim_end_matches('/') == answer.root)
}

/// Names the repositories, and every host or file that was tried, once.
fn unanswered(silent: &[(&Repository, Vec<Tried>)]) -> Fault {
    let names: Vec<String> = silent.iter().map(|(repository, _)| format!("`{}`", repository.name)).collect();
    let mut lines = fetch::words(silent.iter().flat_map(|(_, tried)| tried));
    if silent.iter().any(|(_, tried)| tried.is_empty()) {
        lines.push("the recipe names no mirror of it, and the command line neither".to_owned());
    }
    let what = if names.len() == 1 { "repository" } else { "repositories" };
    fetch::ways_on(Fault::environment(format!(
        "{what} {} cannot be had:\n       {}",
        names.join(", "),
        fetch::listed(&lines)
    )))
}

fn index_fault(what: &str, why: &str) -> Fault {
    Fault::environment(format!("`{what}` is no index of an RPM repository: {why}"))
        .hint("use another mirror: --mirror NAME=URL")
}

/// A part of the metadata, as the index promised it.
fn part(answer: &Answer<'_>, part: &Part, fetcher: &Fetcher<'_>) -> Result<Box<dyn std::io::Read>> {
    let wanted = Wanted {
        name: part.location.clone(),
        origin: format!("named by repodata/repomd.xml of repository `{}`", answer.repository.name),
        urls: vec![format!("{}/{}", answer.root, part.location)],
        size: part.size,
        sha256: part.sha256.clone(),
    };
    let file = fs::File::open(fetcher.file(&wanted)?)?;
    crate::repo::open(file, &part.location).map_err(|why| index_fault(&part.location, &why).into())
}

fn candidates(answer: &Answer<'_>, fetcher: &Fetcher<'_>, context: &Context) -> Result<Vec<Candidate>> {
    let name = &answer.repository.name;
    context.reporter.doing(&format!("reading repository {name}"));
    let reader = part(answer, &answer.repomd.primary, fetcher)?;
    primary::read(reader, name).map_err(|why| {
        index_fault(&format!("{}/{}", answer.root, answer.repomd.primary.location), &why).into()
    })
}

struct Solver<'a, 'u> {
    base: &'a Rpm,
    answers: &'a [Answer<'a>],
    silent: &'a [String],
    fetcher: &'a Fetcher<'a>,
    universe: &'u Universe,
}

impl<'u> Solver<'_, 'u> {
    /// The names of a list, each to be taken from its own archive, where that answers.
    fn wanted(&self, lists: &BTreeMap<String, Vec<String>>) -> Vec<solve::Wanted> {
        let mut wanted = Vec::new();
        for (archive, names) in lists {
            let repositories: Vec<String> = self
                .answers
                .iter()
                .filter(|answer| answer.repository.archive == *archive)
                .map(|answer| answer.repository.name.clone())
                .collect();
            wanted.extend(
                names
                    .iter()
                    .filter(|name| !self.base.without.contains(name))
                    .map(|name| solve::Wanted { name: name.clone(), repositories: repositories.clone() }),
            );
        }
        wanted
    }

    fn solve(&self, wanted: &[solve::Wanted]) -> Result<Vec<&'u Candidate>> {
        let mut owners = |files: &BTreeSet<String>| {
            let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for answer in self.answers {
                let Some(list) = &answer.repomd.filelists else { continue };
                let reader = part(answer, list, self.fetcher)?;
                let found =
                    filelists::owners(reader, files).map_err(|why| index_fault(&list.location, &why))?;
                for (file, packages) in found {
                    all.entry(file).or_default().extend(packages);
                }
            }
            anyhow::Ok(all)
        };
        solve::solve(self.universe, wanted, &mut owners).map_err(|error| match error {
            Unresolved::FileLists(error) => error,
            Unresolved::Problems(problems) => self.unresolved(&problems).into(),
        })
    }

    /// Where every repository answered, the list is wrong; else what is missing may be where nobody answers.
    fn unresolved(&self, problems: &[String]) -> Fault {
        let text = format!("the packages cannot be resolved: {}", fetch::listed(problems));
        if self.silent.is_empty() {
            return Fault::user(text)
                .hint("change the recipe's packages (`rpm.packages`), or use a mirror that has them: --mirror NAME=URL");
        }
        let archives: Vec<&str> = self.base.archives.keys().map(String::as_str).collect();
        let fault = self.silent.iter().fold(Fault::environment(text), |fault, text| fault.hint(text.clone()));
        fault.hint(format!("a mirror that has them: --mirror NAME=URL ({})", archives.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"
        bootstrap = ["yum"]
        repositories = [
            { name = "base", archive = "centos", path = "7/os" },
            { name = "updates", archive = "centos", path = "7/updates" },
            { name = "epel", archive = "epel", path = "7/x86_64" },
        ]
        [archives.centos]
        mirrors = ["https://one.example.net/", "https://two.example.net/vault"]
        keys = []
        [archives.epel]
        mirrors = ["https://epel.example.net"]
        keys = []
        [packages]
    "#;

    #[test]
    fn a_mirror_of_the_command_line_is_nested_or_flat_and_stands_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut context = Context::for_tests(&folder.path().join("store"));
        let base: Rpm = toml::from_str(BASE).unwrap();
        let places = |index: usize, context: &Context| roots(&base, &base.repositories[index], context);
        assert_eq!(
            places(0, &context),
            ["https://one.example.net/7/os", "https://two.example.net/vault/7/os"]
        );
        context.mirrors = vec![("centos".to_owned(), "file:///srv/m/".to_owned())];
        assert_eq!(places(1, &context), ["file:///srv/m/7/updates", "file:///srv/m"]);
        assert_eq!(places(2, &context), ["https://epel.example.net/7/x86_64"]);
    }

    /// Which repositories answer, or the error.
    fn asked(context: &Context) -> Result<(Vec<String>, usize)> {
        let base: Rpm = toml::from_str(BASE).unwrap();
        let fetcher = Fetcher::new(context);
        let (answers, silent) = ask(&base, &fetcher, context)?;
        Ok((answers.iter().map(|answer| answer.repository.name.clone()).collect(), silent.len()))
    }

    #[test]
    fn a_named_mirror_may_lack_repositories_but_not_all_of_its_archive() {
        const REPOMD: &str = "<repomd><data type=\"primary\"><location href=\"repodata/p.xml.gz\"/>\
            <checksum type=\"sha256\">1111111111111111111111111111111111111111111111111111111111111111</checksum>\
            </data></repomd>";
        let folder = tempfile::tempdir().unwrap();
        let mut context = Context::for_tests(&folder.path().join("store"));
        let mirror = |name: &str| format!("file://{}/{name}", folder.path().display());
        let add = |root: &str| {
            let repodata = folder.path().join(root).join("repodata");
            fs::create_dir_all(&repodata).unwrap();
            fs::write(repodata.join("repomd.xml"), REPOMD).unwrap();
        };
        add("nested/7/os");
        add("flat");
        let named = |centos: &str, epel: &str| {
            vec![("centos".to_owned(), mirror(centos)), ("epel".to_owned(), mirror(epel))]
        };
        // One of the two of CentOS is enough, and a flat one is asked once.
        context.mirrors = named("nested", "flat");
        assert_eq!(asked(&context).unwrap(), (vec!["base".to_owned(), "epel".to_owned()], 1));
        context.mirrors = named("flat", "flat");
        assert_eq!(asked(&context).unwrap(), (vec!["base".to_owned()], 0));
        context.mirrors = named("flat", "mistyped");
        let error = asked(&context).unwrap_err();
        assert_eq!(crate::error::exit_code(&error), 2);
        let text = error.to_string();
        assert!(text.starts_with("repository `epel` cannot be had:") && !text.contains("updates"), "{text}");
    }
}
