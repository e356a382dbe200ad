//! systemd 219 of CentOS 7 as a judge of units, without systemd: the directives that it knows, and the values that came after it.
//!
//! It only warns about what it does not know, and a hardening that is ignored looks like one that holds.

use std::collections::BTreeSet;

/// `[Section]`, then one name a line.
const KNOWN: &str = include_str!("../data/systemd-219-directives.txt");

/// What systemd 219 would ignore or refuse in a unit or drop-in; empty when all is well.
pub fn faults(unit: &str) -> Vec<String> {
    let known = known();
    let mut faults = Vec::new();
    let mut section = "";
    for line in unit.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
            continue;
        }
        match line.split_once('=') {
            Some((key, _)) if !known.contains(&(section, key.trim())) => {
                faults.push(format!("[{section}] has no `{}`", key.trim()));
            }
            Some((key, value)) => faults.extend(newer_value(key.trim(), value.trim())),
            None => faults.push(format!("`{line}` is no assignment")),
        }
    }
    faults
}

/// Keys of old whose values have grown since.
fn newer_value(key: &str, value: &str) -> Option<String> {
    let types = ["simple", "forking", "oneshot", "dbus", "notify", "idle"];
    let is_newer = match key {
        "Type" => !types.contains(&value),
        "ProtectSystem" => value == "strict",
        "ProtectHome" => value == "tmpfs",
        "StandardOutput" | "StandardError" => value.contains(':'),
        // Of the prefixes only `-` and `@` are that old.
        _ if key.starts_with("Exec") => value.trim_start_matches(['-', '@']).starts_with(['+', '!', ':']),
        // Sets of system calls came with 231.
        "SystemCallFilter" => value.contains('@'),
        _ => false,
    };
    is_newer.then(|| format!("`{key}` cannot be `{value}` yet"))
}

fn known() -> BTreeSet<(&'static str, &'static str)> {
    let mut section = "";
    let mut known = BTreeSet::new();
    for line in KNOWN.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(name) => section = name,
            None => {
                known.insert((section, line));
            }
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::faults;

    #[test]
    fn what_came_later_is_found() {
        let unit = "[Unit]\n# StartLimitAction=none\nDescription=x\nStartLimitIntervalSec=5\n\
                    [Service]\nType=exec\nExecStart=-/bin/true\nExecStartPre=+/bin/true\nDynamicUser=yes\n\
                    ProtectSystem=strict\nAmbientCapabilities=CAP_CHOWN\nStandardOutput=append:/x\n";
        assert_eq!(
            faults(unit),
            [
                "[Unit] has no `StartLimitIntervalSec`",
                "`Type` cannot be `exec` yet",
                "`ExecStartPre` cannot be `+/bin/true` yet",
                "[Service] has no `DynamicUser`",
                "`ProtectSystem` cannot be `strict` yet",
                "`StandardOutput` cannot be `append:/x` yet",
            ]
        );
    }
}
