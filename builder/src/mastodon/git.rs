//! One commit of a repository, kept in the store as a bare repository. The commit's id is its digest: what has it is right.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::download::host;
use super::tags::is_hexadecimal;
use crate::context::Context;
use crate::error::Fault;
use crate::exec::Run;
use crate::store::Key;

/// Raise when the layout of an entry changes.
const VERSION: u32 = 1;
/// The branch that an entry has; clones of it check the commit out.
const BRANCH: &str = "refs/heads/master";
/// Submodules of one commit that are believed.
const SUBMODULES: usize = 32;

/// How much of the history is brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// The commit alone.
    None,
    /// All of it: el7's git cannot clone from a repository that lacks some.
    Full,
}

/// A submodule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submodule {
    /// Its repository.
    pub url: String,
    /// Its commit.
    pub commit: String,
}

fn git(context: &Context) -> Run<'_> {
    // No questions on a terminal that is not there, and no transport that starts programs.
    Run::new(&context.log, "git").env("GIT_TERMINAL_PROMPT", "0").args([
        "-c",
        "protocol.ext.allow=never",
        "-c",
        "advice.detachedHead=false",
    ])
}

/// The commit that a tag of a repository names now; `None` when it has no such tag.
pub fn remote_tag(url: &str, tag: &str, context: &Context) -> Result<Option<String>> {
    let name = format!("refs/tags/{tag}");
    let peeled = format!("{name}^{{}}");
    let output = git(context).args(["ls-remote", "--", url, &name, &peeled]).capture();
    let output = output.map_err(|error| unreachable(url, &error))?;
    let find = |wanted: &str| {
        let mut lines = output.lines().filter_map(|line| line.split_once('\t'));
        lines.find(|(_, name)| *name == wanted).map(|(commit, _)| commit.to_owned())
    };
    Ok(find(&peeled).or_else(|| find(&name)).filter(|commit| is_hexadecimal(commit, 40)))
}

/// The bare repository with a commit, brought when it is not there yet.
pub fn commit(url: &str, commit: &str, history: History, context: &Context) -> Result<PathBuf> {
    let kind = if history == History::Full { "full" } else { "one" };
    let key = Key::of("git", VERSION, &[commit, kind]);
    let path = context.store.path("git-v1", &key).join("repository.git");
    if path.is_dir() {
        return Ok(path);
    }
    let local = !url.contains("://") && Path::new(url).is_absolute();
    if context.offline && !local {
        let message = format!("--offline, and the store does not have commit {commit} of `{url}`");
        return Err(Fault::environment(message).hint("build it once with a network").into());
    }
    context.store.get_or_make("git-v1", &key, |folder| {
        let repository = folder.join("repository.git");
        git(context).args(["init", "--quiet", "--bare", "--"]).arg(&repository).run()?;
        let mut fetch = git(context).arg("-C").arg(&repository).args(["fetch", "--quiet", "--no-tags"]);
        if history == History::None {
            fetch = fetch.arg("--depth=1");
        }
        fetch
            .args(["--", url, &format!("{commit}:{BRANCH}")])
            .run()
            .map_err(|error| unreachable(url, &error))?;
        // `HEAD` of a new repository names the branch of the host's taste.
        git(context).arg("-C").arg(&repository).args(["symbolic-ref", "HEAD", BRANCH]).run()?;
        // What a clone never reads, and hooks least of all.
        for name in ["hooks", "FETCH_HEAD", "description"] {
            let path = repository.join(name);
            if path.is_dir() {
                fs::remove_dir_all(&path)?;
            } else if path.exists() {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    })?;
    Ok(path)
}

/// Writes the commit's files as a tar below a folder name.
pub fn archive(
    repository: &Path,
    commit: &str,
    prefix: &str,
    target: &Path,
    context: &Context,
) -> Result<()> {
    git(context)
        .arg("-C")
        .arg(repository)
        .args(["archive", "--format=tar", &format!("--prefix={prefix}"), "-o"])
        .arg(target)
        .arg(commit)
        .run()
}

/// One file of the commit; `None` when it has no such file.
pub fn file(repository: &Path, commit: &str, path: &str, context: &Context) -> Option<String> {
    git(context).arg("-C").arg(repository).args(["show", &format!("{commit}:{path}")]).capture().ok()
}

/// The commit's submodules.
pub fn submodules(repository: &Path, commit: &str, context: &Context) -> Result<Vec<Submodule>> {
    let tree = git(context).arg("-C").arg(repository).args(["ls-tree", "-r", commit]).capture()?;
    let pinned = tree.lines().filter_map(|line| line.strip_prefix("160000 commit ")?.split_once('\t'));
    let pinned: Vec<(&str, &str)> = pinned.collect();
    if pinned.is_empty() {
        return Ok(Vec::new());
    }
    let modules = file(repository, commit, ".gitmodules", context).unwrap_or_default();
    let modules = parse_gitmodules(&modules);
    if pinned.len() > SUBMODULES {
        return Err(Fault::user(format!(
            "commit {commit} has {} submodules, at most {SUBMODULES} are brought",
            pinned.len()
        ))
        .into());
    }
    let mut found = Vec::new();
    for (commit, path) in pinned {
        let url = modules.iter().find(|(module, _)| module == path).map(|(_, url)| url.clone());
        let url = url.filter(|url| url.contains("://")).ok_or_else(|| {
            Fault::user(format!("submodule `{path}` of commit {commit} names no URL in `.gitmodules`"))
        })?;
        found.push(Submodule { url, commit: commit.to_owned() });
    }
    Ok(found)
}

/// Paths and URLs of a `.gitmodules`.
fn parse_gitmodules(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("[submodule") {
            found.push((String::new(), String::new()));
        } else if let (Some(last), Some((key, value))) = (found.last_mut(), line.split_once('=')) {
            match key.trim() {
                "path" => value.trim().clone_into(&mut last.0),
                "url" => value.trim().clone_into(&mut last.1),
                _ => {}
            }
        }
    }
    found
}

/// The one message for a repository that does not answer.
fn unreachable(url: &str, error: &anyhow::Error) -> anyhow::Error {
    // The log has all that git said; its last word is the reason.
    let text = error.to_string();
    let reason =
        text.lines().rev().find_map(|line| line.trim().strip_prefix("| ")).unwrap_or(&text).to_owned();
    if !url.contains("://") {
        return Fault::user(format!("`{url}` is not a Git repository that can be read: {reason}")).into();
    }
    let message = format!("`{}` cannot be reached for Git: {reason}", host(url));
    Fault::environment(message)
        .hint("have the repository here already? --source FOLDER takes a clone, --source FILE a tar of its files")
        .hint("another place that has it: --mirror git=URL")
        .hint("what another machine's store has: imgbuild fetch --import")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_by_path() {
        let text = "[submodule \"p\"]\n\tpath = ext/p\n\turl = git://h/p.git\n[submodule \"q\"]\n\turl=https://h/q\n\tpath=q\n";
        let found = parse_gitmodules(text);
        assert_eq!(found[0], ("ext/p".to_owned(), "git://h/p.git".to_owned()));
        assert_eq!(found[1], ("q".to_owned(), "https://h/q".to_owned()));
    }
}
