//! `imgbuild verify FILE`: the rules of its format, then every check on the disk's content.

use anyhow::Result;
use serde_json::json;

use super::{context_without_project, say};
use crate::cli::{File, Global};
use crate::error::Fault;
use crate::verify::package::Outcome;
use crate::verify::{self, Answer, Content};

/// Prints a line for each rule and check, with what is wrong below it; fails when something is.
pub fn run(options: &File, global: &Global) -> Result<()> {
    let context = context_without_project(global)?;
    let answer = verify::file(&options.file, &context)?;
    let broken = broken(&answer);
    if global.json {
        say(&serde_json::to_string_pretty(&document(&answer))?)?;
    } else {
        print(&answer, !broken.is_empty())?;
        if broken.is_empty() {
            sum(&answer)?;
        }
    }
    match answer.content {
        Content::Failed(error) if broken.is_empty() => Err(error),
        _ if broken.is_empty() => Ok(()),
        // One of them may well be why the content cannot be read.
        _ => Err(Fault::user(format!("`{}` is wrong: {}", options.file.display(), broken.join(", "))).into()),
    }
}

fn document(answer: &Answer) -> serde_json::Value {
    let (checks, unchecked) = match &answer.content {
        Content::Checked(findings) => (json!(findings), None),
        Content::Unchecked(reason) => (json!([]), Some(reason.clone())),
        Content::Failed(error) => (json!([]), Some(format!("{error:#}"))),
    };
    json!({ "rules": answer.rules, "checks": checks, "unchecked": unchecked })
}

/// `broken`: the error at the end will list rules, and say nothing of the content.
fn print(answer: &Answer, broken: bool) -> Result<()> {
    for verdict in &answer.rules {
        let outcome = match verdict.outcome {
            Outcome::Ok => "ok",
            Outcome::Wrong => "wrong",
            Outcome::Note => "note",
            Outcome::Unchecked => "not checked",
        };
        say(&format!("{:<20} {outcome}", verdict.rule.name))?;
        if !verdict.found.is_empty() {
            explain(&verdict.found, &[("rule", verdict.rule.demands), ("else", verdict.rule.why)])?;
        }
    }
    match &answer.content {
        Content::Checked(findings) => {
            for finding in findings {
                let outcome = if finding.wrong.is_empty() { "ok" } else { "wrong" };
                say(&format!("{:<20} {outcome}", finding.check))?;
                if !finding.wrong.is_empty() {
                    explain(&finding.wrong, &[("else", finding.why)])?;
                }
            }
        }
        Content::Unchecked(reason) => say(&format!("{:<20} not checked: {reason}", "content"))?,
        Content::Failed(error) if broken => say(&format!("{:<20} not checked: {error:#}", "content"))?,
        Content::Failed(_) => say(&format!("{:<20} not checked: see the error", "content"))?,
    }
    Ok(())
}

/// The verdict in one line, when nothing is wrong.
fn sum(answer: &Answer) -> Result<()> {
    let rules = answer.rules.iter().filter(|verdict| verdict.outcome != Outcome::Unchecked).count();
    match &answer.content {
        Content::Checked(findings) => say(&format!(
            "nothing wrong: {rules} rules of its format and {} checks of its content",
            findings.len()
        )),
        Content::Unchecked(_) => say(&format!("nothing wrong in {rules} rules of its format")),
        Content::Failed(_) => Ok(()),
    }
}

/// Where a rule is broken, what it asks for, what breaking it does.
fn explain(found: &[String], about: &[(&str, &str)]) -> Result<()> {
    for line in found {
        say(&format!("    {line}"))?;
    }
    about.iter().try_for_each(|(what, text)| say(&format!("    {what}: {text}")))
}

/// The names of what is wrong.
fn broken(answer: &Answer) -> Vec<&'static str> {
    let rules = answer.rules.iter().filter(|verdict| verdict.outcome == Outcome::Wrong);
    let mut names: Vec<&str> = rules.map(|verdict| verdict.rule.name).collect();
    if let Content::Checked(findings) = &answer.content {
        names
            .extend(findings.iter().filter(|finding| !finding.wrong.is_empty()).map(|finding| finding.check));
    }
    names
}
