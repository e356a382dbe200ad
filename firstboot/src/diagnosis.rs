//! What a person who helps needs to see, in one text: the status, failed units with their last lines, the network, the disks, the
//! settings without secrets, what other settings are offered from outside. Every part stands alone: one that cannot be read says so
//! and the others follow.

use std::fmt::Write;
use std::path::Path;

use crate::exec::Run;
use crate::{channels, status, steps, systemd};

/// Programs whose output is shown as it is. Old versions of all of them know these options.
const PROGRAMS: &[(&str, &str, &[&str])] = &[
    ("addresses", "ip", &["address", "show"]),
    ("IPv6 routes", "ip", &["-6", "route", "show"]),
    ("IPv4 routes", "ip", &["-4", "route", "show"]),
    ("listening sockets", "ss", &["-ltn"]),
    ("disks", "lsblk", &["-o", "NAME,SIZE,RO,TYPE,FSTYPE,LABEL,MOUNTPOINT"]),
    ("free space", "df", &["-h"]),
    ("memory", "free", &["-m"]),
    ("time", "date", &["-u"]),
];

/// The whole text.
pub fn report(root: &Path) -> String {
    let mut text = String::new();
    section(&mut text, "status", &status_table(root));
    section(&mut text, "failed units", &failed_units());
    for (title, program, arguments) in PROGRAMS {
        let output = Run::new(program, arguments).text().unwrap_or_else(|error| format!("{error:#}"));
        section(&mut text, title, &output);
    }
    section(&mut text, "settings", &settings(root));
    section(&mut text, "what is offered from outside", &channels::survey(root));
    text
}

fn section(text: &mut String, title: &str, content: &str) {
    // OK: writing to a string cannot fail.
    let _ = write!(text, "== {title}\n{}\n\n", content.trim_end());
}

fn status_table(root: &Path) -> String {
    fs_err::read_to_string(root.join(&status::PATH[1..]))
        .map_err(anyhow::Error::from)
        .and_then(|json| status::table(&json, steps::STEPS))
        .unwrap_or_else(|error| format!("{error:#}"))
}

fn failed_units() -> String {
    let list =
        Run::new("systemctl", &["list-units", "--failed", "--plain", "--no-legend", "--no-pager"]).text();
    let list = match list {
        Ok(list) => list,
        Err(error) => return format!("{error:#}"),
    };
    let units: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    if units.is_empty() {
        return "none".to_owned();
    }
    let texts: Vec<String> =
        units.iter().map(|unit| format!("{unit}\n{}\n", systemd::last_lines(unit, 20))).collect();
    texts.concat()
}

fn settings(root: &Path) -> String {
    let search = channels::search(root);
    match &search.found {
        Some((settings, _)) => format!("{}{}", search.origin(), settings.redacted()),
        None if search.refused.is_empty() => "none were given".to_owned(),
        None => search.refused.join("\n"),
    }
}
