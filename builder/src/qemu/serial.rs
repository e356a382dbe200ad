//! What the guest says on its serial line: verdicts of first boot, and the ways in which a guest dies.

use std::fmt;

use serde_json::Value;

/// First boot's word about the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All done.
    Green,
    /// It serves; something outside is waited for.
    Amber,
    /// It does not serve.
    Red,
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Verdict::Green => "green",
            Verdict::Amber => "amber",
            Verdict::Red => "red",
        })
    }
}

/// One verdict line.
#[derive(Debug, Clone, PartialEq)]
pub struct VerdictReport {
    /// The verdict.
    pub verdict: Verdict,
    /// The whole object.
    pub json: Value,
}

const MARK: &str = "APPLIANCE-VERDICT ";

/// The last complete verdict in a text.
pub fn last_report(text: &str) -> Option<VerdictReport> {
    // A line that is still being written has no end yet.
    let complete = &text[..=text.rfind('\n')?];
    complete.rmatch_indices(MARK).find_map(|(at, _)| {
        let line = complete[at + MARK.len()..].lines().next()?;
        let json: Value = serde_json::from_str(line.trim()).ok()?;
        let verdict = match json["verdict"].as_str()? {
            "green" => Verdict::Green,
            "amber" => Verdict::Amber,
            "red" => Verdict::Red,
            _ => return None,
        };
        Some(VerdictReport { verdict, json })
    })
}

/// A sign that no verdict will come.
pub fn fatal(text: &str) -> Option<&str> {
    const SIGNS: [&str; 5] = [
        "Kernel panic - not syncing",
        "Entering emergency mode",
        "You are in emergency mode",
        "ALERT!  UUID=",
        "error: no such device",
    ];
    SIGNS.into_iter().find_map(|sign| {
        let at = text.find(sign)?;
        text[at..].lines().next().map(str::trim)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_complete_line_counts() {
        let text = "x\r\nAPPLIANCE-VERDICT {\"verdict\":\"red\"}\r\n[  OK  ] APPLIANCE-VERDICT {\"verdict\":\"amber\",\"n\":1}\r\nAPPLIANCE-VERDICT {\"verdict\":\"gre";
        let report = last_report(text).unwrap();
        assert_eq!((report.verdict, report.json["n"].as_i64()), (Verdict::Amber, Some(1)));
        assert!(last_report("APPLIANCE-VERDICT nonsense\n").is_none() && last_report("").is_none());
    }

    #[test]
    fn panics_are_named() {
        assert_eq!(
            fatal("a\n[ 1.0] Kernel panic - not syncing: IO-APIC\r\n"),
            Some("Kernel panic - not syncing: IO-APIC")
        );
        assert_eq!(fatal("fine"), None);
    }
}
