//! Where state lives: on the data disk when there is one, reached through the usual paths, else on the system disk.
//!
//! Guarantees: a disk is formatted only when it is blank (see [`content`]); a system that has kept its state on a data disk never
//! starts without it, as a new and empty instance would; nothing is mounted over the files of a running database; services with
//! state start only in a boot in which this step has ended well (see [`guard`]).

mod content;
mod disks;
mod filesystem;
pub mod guard;
mod mounts;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use self::content::Decision;
use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::{durable, systemd};

/// The data disk, mounted.
pub const STEP: Step = Step {
    name: "storage",
    why: "finds, formats when empty, checks and mounts the data disk",
    needs: Needs::Local,
    watch: engine::MINUTELY,
    observe,
    apply,
};

/// This boot's decision to keep state on the system disk. Below `/run`, so that a data disk attached later waits for a reboot.
const ON_SYSTEM_DISK: &str = "/run/appliance/state-on-system-disk";
/// On the system disk: its state is on a data disk.
const WAS_USED: &str = "/var/lib/appliance.data-disk";

/// Whether this boot keeps state on the system disk.
pub fn is_on_system_disk(context: &Context) -> bool {
    context.path(ON_SYSTEM_DISK).exists()
}

/// Every folder that holds state.
fn folders(context: &Context) -> Vec<String> {
    let facts = &context.facts;
    vec![
        "/var/lib/appliance".to_owned(),
        "/etc/appliance".to_owned(),
        facts.postgresql.state.clone(),
        facts.redis.state.clone(),
        "/etc/letsencrypt".to_owned(),
        "/var/lib/letsencrypt".to_owned(),
        format!("{}/public/system", facts.application.root),
    ]
}

fn observe(context: &Context) -> Result<Observation> {
    if !context.is_machine() {
        return Ok(Observation::Done);
    }
    let ready = if guard::is_open(context) {
        Observation::Done
    } else {
        Observation::Todo("let services with state start".to_owned())
    };
    if is_on_system_disk(context) {
        return Ok(ready);
    }
    let mounts = mounts::read()?;
    if mounts::is_mounted(&mounts) {
        let missing = folders(context).into_iter().find(|folder| !mounts::is_bound(&mounts, folder));
        return Ok(match missing {
            None if !Path::new(WAS_USED).exists() => {
                Observation::Todo("remember that state is on the data disk".to_owned())
            }
            None => ready,
            Some(folder) => Observation::Todo(format!("put `{folder}` on the data disk")),
        });
    }
    Ok(match decision(&mounts)? {
        Decision::SystemDisk => Observation::Todo("keep state on the system disk".to_owned()),
        Decision::Use(disk) => Observation::Todo(format!("mount the data disk `{}`", disk.device.display())),
        Decision::Format(disk) => {
            Observation::Todo(format!("format the empty disk `{}` as data disk", disk.device.display()))
        }
        Decision::Ask(question) => Observation::Broken(question),
    })
}

fn decision(mounts: &[mounts::Mount]) -> Result<Decision> {
    let mounted: Vec<PathBuf> = mounts.iter().map(|mount| PathBuf::from(&mount.source)).collect();
    let disks = content::survey(disks::candidates()?, &mounted)?;
    Ok(content::decide(&disks, Path::new(WAS_USED).exists()))
}

fn apply(context: &Context) -> Result<()> {
    if !is_on_system_disk(context) {
        place(context)?;
    }
    guard::open(context)
}

/// Puts state where it belongs in this boot.
fn place(context: &Context) -> Result<()> {
    let mounted = mounts::read()?;
    let is_placed = mounts::is_mounted(&mounted)
        && folders(context).iter().all(|folder| mounts::is_bound(&mounted, folder));
    if is_placed {
        return remember();
    }
    if let Some(unit) = [&context.facts.postgresql.unit, &context.facts.redis.unit]
        .into_iter()
        .find(|unit| systemd::is_active(unit))
    {
        bail!("`{unit}` runs on files of the system disk, so the data disk cannot be mounted now: reboot");
    }
    if !mounts::is_mounted(&mounted) {
        match decision(&mounted)? {
            Decision::SystemDisk => {
                let why = b"no data disk was attached when this machine booted\n";
                durable::write(Path::new(ON_SYSTEM_DISK), why, 0o644, None)?;
                return Ok(());
            }
            Decision::Use(disk) => open(&disk)?,
            Decision::Format(disk) => {
                filesystem::format(&disk)?;
                open(&disk)?;
            }
            Decision::Ask(question) => bail!("{question}"),
        }
    }
    if !mounts::is_bound(&mounted, "/var/lib/appliance") && mounts::conflict() {
        bail!(
            "which instance is this machine? system disk and data disk hold different ones: attach the data disk to a new system \
             disk, or detach it and reboot"
        );
    }
    // Before the first folder shows the disk: from then on state is on it.
    remember()?;
    for folder in folders(context) {
        if !mounts::is_bound(&mounted, &folder) {
            mounts::bind(&folder)?;
        }
    }
    Ok(())
}

/// Remembers on the system disk that the data disk is needed from now on.
fn remember() -> Result<()> {
    let why = b"the state of this system is on the disk with the label mastodon-data\n";
    durable::write(Path::new(WAS_USED), why, 0o644, None).map(drop)
}

/// Checks, mounts and grows the data disk.
fn open(disk: &disks::Disk) -> Result<()> {
    filesystem::check(&disk.device)?;
    mounts::mount(&disk.device)?;
    filesystem::grow(disk)
}
