//! Step `space`: the disks that hold state have room left.
//!
//! A full disk makes every service fail in a way of its own: this names the cause. It holds nothing back, because the instance can
//! still be read, and nothing is deleted by itself.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::steps::storage;

/// The step.
pub const STEP: Step = Step {
    name: "space",
    why: "room on the disks",
    needs: Needs::World,
    watch: engine::OFTEN,
    observe,
    apply: |_| Ok(()),
};

/// Below this share of its size a disk counts as full: 1 in …
const SHARE: u64 = 20;
/// But never with so many bytes free.
const ENOUGH: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// How full one file system is.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// In bytes.
    size: u64,
    /// What an ordinary user may still write, in bytes.
    free: u64,
    /// How many files there can be; 0 where that is no number.
    files: u64,
    free_files: u64,
}

fn observe(context: &Context) -> Result<Observation> {
    let state = context.state();
    let mut disks: Vec<(&str, PathBuf)> = vec![("system disk", context.root.clone())];
    if context.is_machine() && !storage::is_on_system_disk(context) {
        disks.push(("data disk", state));
    }
    let mut full = Vec::new();
    for (name, path) in disks {
        full.extend(judge(name, room(&path)?));
    }
    Ok(if full.is_empty() { Observation::Done } else { Observation::Waiting(full.join("; ")) })
}

fn room(path: &std::path::Path) -> Result<Room> {
    let seen =
        rustix::fs::statvfs(path).with_context(|| format!("asking how full `{}` is", path.display()))?;
    Ok(Room {
        size: seen.f_blocks.saturating_mul(seen.f_frsize),
        free: seen.f_bavail.saturating_mul(seen.f_frsize),
        files: seen.f_files,
        free_files: seen.f_favail,
    })
}

/// What is wrong with a disk, and what to do.
fn judge(name: &str, room: Room) -> Option<String> {
    let lacks = if room.free < (room.size / SHARE).min(ENOUGH) {
        format!("{} of {} MiB are free", room.free / MIB, room.size / MIB)
    } else if room.files > 0 && room.free_files < room.files / 100 {
        format!("{} of {} files are left", room.free_files, room.files)
    } else {
        return None;
    };
    Some(format!(
        "the {name} is full: {lacks}; make the virtual disk larger and reboot, it grows by itself, or remove files (`du -xhd3 / | sort \
         -h` shows where they are)"
    ))
}

#[cfg(test)]
mod tests {
    use super::{Room, judge};

    #[test]
    fn a_disk_is_full_by_its_bytes_or_its_files() {
        const GIB: u64 = 1 << 30;
        let room = |size, free, files, free_files| Room { size, free, files, free_files };
        for (room, lacks) in [
            (room(32 * GIB, GIB, 2_000_000, 100_000), None),
            (room(32 * GIB, GIB - 1, 2_000_000, 100_000), Some("1023 of 32768 MiB are free")),
            (room(2 * GIB, GIB / 11, 100, 100), Some("93 of 2048 MiB are free")),
            (room(2 * GIB, GIB / 5, 100, 100), None),
            (room(32 * GIB, 9 * GIB, 2_000_000, 19_999), Some("19999 of 2000000 files are left")),
            (room(32 * GIB, 9 * GIB, 0, 0), None),
        ] {
            let said = judge("data disk", room);
            assert_eq!(said.is_some(), lacks.is_some(), "{room:?}: {said:?}");
            assert!(said.as_deref().unwrap_or_default().contains(lacks.unwrap_or_default()), "{said:?}");
        }
    }
}
