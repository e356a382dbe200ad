//! Keeps services with state from starting before their state is there.
//!
//! They are enabled, so systemd starts them at every boot, also when the data disk is missing: on the system disk's empty folders
//! they would begin anew and then hold the folders open. A drop-in makes each of them wait for a marker that the step `storage`
//! writes in every boot; later, first boot starts what was skipped.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use crate::context::Context;
use crate::{durable, systemd};

/// Says that state is where it belongs in this boot.
const READY: &str = "/run/appliance/storage-ready";

const DROP_IN: &str = "\
# Written by the appliance; a change here is undone.
[Unit]
# Without its state the service must not begin anew.
ConditionPathExists=/run/appliance/storage-ready
";

/// Whether services may start in this boot.
pub(super) fn is_open(context: &Context) -> bool {
    context.path(READY).exists()
}

/// Lets services start in this boot.
pub(super) fn open(context: &Context) -> Result<()> {
    let why = b"state is where it belongs in this boot\n";
    durable::write(&context.path(READY), why, 0o644, None).map(drop)
}

/// Whether a unit starts at every boot, once its state is there.
pub fn is_enabled(context: &Context, unit: &str) -> bool {
    fs::read(path(context, unit)).is_ok_and(|found| found == DROP_IN.as_bytes()) && systemd::is_enabled(unit)
}

/// Makes a unit start at every boot, once its state is there.
pub fn enable(context: &Context, unit: &str) -> Result<()> {
    let changed = durable::write(&path(context, unit), DROP_IN.as_bytes(), 0o644, None)?;
    // Enabling lets systemd read all units, the drop-in among them.
    if changed && systemd::is_enabled(unit) {
        return systemd::daemon_reload();
    }
    systemd::enable(unit)
}

fn path(context: &Context, unit: &str) -> PathBuf {
    context.path(&format!("/etc/systemd/system/{unit}.d")).join(Path::new("appliance-storage.conf"))
}

#[cfg(test)]
mod tests {
    use super::{DROP_IN, READY, is_open, open};
    use crate::context::tests::scratch_context;

    #[test]
    fn the_condition_is_what_storage_writes() {
        let (_guard, context) = scratch_context();
        assert!(!is_open(&context));
        open(&context).unwrap();
        assert!(is_open(&context));
        assert!(DROP_IN.contains(&format!("\nConditionPathExists={READY}\n")));
        assert_eq!(testkit::systemd219::faults(DROP_IN), [""; 0]);
    }
}
