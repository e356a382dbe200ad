//! Units, through `systemctl` as systemd 219 already had it.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::exec::Run;

/// Whether a unit starts at the next boot.
pub fn is_enabled(unit: &str) -> bool {
    systemctl("is-enabled", unit).succeeds()
}

/// Whether a unit runs now.
pub fn is_active(unit: &str) -> bool {
    systemctl("is-active", unit).succeeds()
}

/// How long a unit has been running; `None` when it does not run.
pub fn active_for(unit: &str) -> Option<Duration> {
    if !is_active(unit) {
        return None;
    }
    let shown =
        Run::new("systemctl", &["show", "--property=ActiveEnterTimestampMonotonic", unit]).text().ok()?;
    since(&shown, monotonic()?)
}

fn monotonic() -> Option<Duration> {
    Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::Monotonic)).ok()
}

/// The time since a property `…Monotonic`, which is in microseconds.
fn since(property: &str, now: Duration) -> Option<Duration> {
    let (_, value) = property.trim().split_once('=')?;
    now.checked_sub(Duration::from_micros(value.parse().ok()?))
}

/// Whether a unit has ended with a failure and will not be started again by itself.
pub fn is_failed(unit: &str) -> bool {
    systemctl("is-failed", unit).succeeds()
}

/// Makes a unit start at every boot. Asking first is cheap, enabling is not: systemd reads every unit anew.
pub fn enable(unit: &str) -> Result<()> {
    if is_enabled(unit) { Ok(()) } else { systemctl("enable", unit).text().map(drop) }
}

/// Ends a unit and waits for its end, and keeps it from starting at the next boot.
pub fn disable(unit: &str) -> Result<()> {
    // Stopped first: a cut between the two leaves it enabled, which is seen, and this begins again.
    if is_active(unit) {
        systemctl("stop", unit).text().with_context(|| format!("stopping unit `{unit}`"))?;
    }
    if is_enabled(unit) { systemctl("disable", unit).text().map(drop) } else { Ok(()) }
}

/// Starts a unit and waits until systemd calls it started. One that failed before is forgiven first: a unit that failed too
/// often refuses to start.
pub fn start(unit: &str) -> Result<()> {
    if is_failed(unit) {
        systemctl("reset-failed", unit).text()?;
    }
    with_place(unit, systemctl("start", unit).text())
}

/// Starts a unit, and leaves the waiting to systemd.
pub fn start_without_waiting(unit: &str) -> Result<()> {
    if is_failed(unit) {
        systemctl("reset-failed", unit).text()?;
    }
    Run::new("systemctl", &["--quiet", "--no-block", "start", unit]).text().map(drop)
}

/// Whether a unit's main process runs, which is so long before the unit is active when its process says itself that it is ready.
pub fn has_main_process(unit: &str) -> bool {
    let shown = Run::new("systemctl", &["show", "--property=MainPID", unit]).text();
    shown.is_ok_and(|text| text.trim().strip_prefix("MainPID=").is_some_and(|id| id != "0"))
}

/// Stops a unit and starts it again.
pub fn restart(unit: &str) -> Result<()> {
    with_place(unit, systemctl("restart", unit).text())
}

/// Restarts a unit if it runs.
pub fn try_restart(unit: &str) -> Result<()> {
    with_place(unit, systemctl("try-restart", unit).text())
}

/// Lets a unit read its configuration again.
pub fn reload(unit: &str) -> Result<()> {
    with_place(unit, systemctl("reload", unit).text())
}

/// Lets systemd read its units again.
pub fn daemon_reload() -> Result<()> {
    Run::new("systemctl", &["daemon-reload"]).text().map(drop)
}

/// The last lines that a unit wrote; empty when the journal has none.
pub fn last_lines(unit: &str, lines: usize) -> String {
    let count = lines.to_string();
    Run::new("journalctl", &["--unit", unit, "--lines", &count, "--no-pager", "--output", "cat"])
        .text()
        .map(|text| text.trim_end().to_owned())
        .unwrap_or_default()
}

fn systemctl(verb: &str, unit: &str) -> Run {
    Run::new("systemctl", &["--quiet", verb, unit])
}

/// What the unit itself wrote says more than systemd's "control process exited", but may hold a secret: it stays in the journal,
/// which only root reads, while our own texts go to the console and to everybody.
fn with_place(unit: &str, result: Result<String>) -> Result<()> {
    result.map(drop).with_context(|| {
        format!("unit `{unit}` does not start; `journalctl --unit {unit}` shows its last lines")
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::since;

    #[test]
    fn the_time_since_a_property_is_told() {
        let now = Duration::from_secs(1000);
        for (shown, expected) in [
            ("ActiveEnterTimestampMonotonic=400000000\n", Some(600)),
            ("ActiveEnterTimestampMonotonic=2000000000\n", None),
            ("ActiveEnterTimestampMonotonic=\n", None),
            ("", None),
        ] {
            assert_eq!(since(shown, now).map(|time| time.as_secs()), expected, "{shown}");
        }
    }
}
