//! `cargo ci tidy`: the house rules that a program can check.
//!
//! A rule is a function from files to complaints, one line each; [`run`] applies all of them to the files that git knows.

mod rules;

use std::path::Path;

use anyhow::Result;
use xshell::{Shell, cmd};

/// A file of the repository.
#[derive(Debug, Clone)]
pub struct File {
    /// Relative to the root.
    pub path: String,
    /// Lossily as UTF-8.
    pub text: String,
}

/// Everything that is wrong, one line each.
pub fn run(root: &Path) -> Result<Vec<String>> {
    let shell = Shell::new()?;
    shell.change_dir(root);
    // What is committed and what will be: new files count before they are added.
    let names = cmd!(shell, "git ls-files --cached --others --exclude-standard").quiet().read()?;
    let mut files = Vec::new();
    for path in names.lines().filter(|path| root.join(path).is_file()) {
        let text = String::from_utf8_lossy(&shell.read_binary_file(path)?).into_owned();
        files.push(File { path: path.to_owned(), text });
    }
    Ok(rules::RULES.iter().flat_map(|rule| rule(&files)).collect())
}
