//! `imgbuild doctor`: the table of host tools, and the one command that installs what is missing.

use anyhow::Result;

use super::say;
use crate::cli::Global;
use crate::error::Fault;
use crate::tools;

/// Lists every tool; fails when one is missing.
pub fn run(global: &Global) -> Result<()> {
    let survey = tools::survey();
    if global.json {
        let rows: Vec<_> = survey
            .iter()
            .map(|finding| serde_json::json!({ "name": finding.name, "package": finding.package, "path": finding.path }))
            .collect();
        say(&serde_json::to_string_pretty(&rows)?)?;
    } else {
        for finding in &survey {
            let place =
                finding.path.as_ref().map_or_else(|| "missing".to_owned(), |path| path.display().to_string());
            say(&format!("{:<48} {:<24} {place}", finding.name, finding.package))?;
        }
    }
    let context = super::context_without_project(global)?;
    let mut wrong = Vec::new();
    if crate::exec::find("mke2fs").is_some() {
        wrong.extend(crate::disk::require_tools(&context).err().map(|error| format!("{error:#}")));
    }
    wrong.extend(crate::appliance::require_tools(&context).err().map(|error| format!("{error:#}")));
    let mut absent: Vec<&str> =
        survey.iter().filter(|finding| finding.path.is_none()).map(|finding| finding.package).collect();
    absent.sort_unstable();
    absent.dedup();
    if absent.is_empty() && wrong.is_empty() {
        return if global.json { Ok(()) } else { say("all there") };
    }
    if !absent.is_empty() {
        wrong.push(format!("packages are missing: {}", absent.join(" ")));
    }
    let fault = Fault::environment(wrong.join("; "))
        .hint("`cargo ci setup` installs everything, in the versions that are needed");
    Err(if absent.is_empty() { fault } else { fault.hint(tools::install_command(&absent)) }.into())
}
