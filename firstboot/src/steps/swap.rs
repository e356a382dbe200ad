//! Step `swap`: room for a machine whose memory is less than the application's own tasks need beside its services.
//!
//! A file on the system disk: no backup of the instance has to carry it, and its loss costs nothing. Like a full disk it holds nothing
//! back. A machine that has any swap already is left as it is.

use std::path::Path;

use anyhow::{Context as _, Result};
use fs_err as fs;

use crate::context::Context;
use crate::durable;
use crate::engine::{self, Needs, Observation, Step};
use crate::exec::Run;

/// The step.
pub const STEP: Step = Step {
    name: "swap",
    why: "swap, where memory is short",
    needs: Needs::World,
    watch: engine::HOURLY,
    observe,
    apply,
};

/// The file.
const FILE: &str = "/swapfile";

const MIB: u64 = 1 << 20;
/// With so many bytes of memory nothing is needed.
const ENOUGH: u64 = 2560 * MIB;
/// What the file has in bytes, the first that leaves the disk its reserve.
const SIZES: [u64; 2] = [2048 * MIB, 1024 * MIB];
/// In bytes.
const RESERVE: u64 = 2048 * MIB;

fn observe(context: &Context) -> Result<Observation> {
    // The kernel's memory is this machine's, wherever the root is.
    if !context.is_machine() || !is_short(&fs::read_to_string("/proc/meminfo")?) {
        return Ok(Observation::Done);
    }
    if has_swap(&fs::read_to_string("/proc/swaps")?) {
        return Ok(Observation::Done);
    }
    let is_there = context.path(FILE).exists();
    Ok(match size(free(&context.root)?) {
        Some(size) if !is_there => Observation::Todo(format!("add {} MiB of swap", size / MIB)),
        _ if is_there => Observation::Todo(format!("use the swap in `{FILE}`")),
        // Of a disk that is fuller than that, the step `space` speaks in time.
        _ => Observation::Done,
    })
}

fn apply(context: &Context) -> Result<()> {
    let file = context.path(FILE);
    if !file.exists()
        && let Some(size) = size(free(&context.root)?)
    {
        let scratch = durable::scratch(&file);
        durable::erase(&scratch)?;
        durable::allocate(&scratch, size, 0o600)?;
        Run::new("mkswap", &[&scratch.to_string_lossy()]).text()?;
        durable::sync_file(&scratch)?;
        durable::rename(&scratch, &file)?;
    }
    Run::new("swapon", &[&file.to_string_lossy()])
        .text()
        .map(drop)
        .with_context(|| format!("using `{FILE}`: if it is damaged, remove it, and another one is made"))
}

/// In bytes.
fn free(root: &Path) -> Result<u64> {
    let seen = rustix::fs::statvfs(root).context("asking how full the system disk is")?;
    Ok(seen.f_bavail.saturating_mul(seen.f_frsize))
}

fn size(free: u64) -> Option<u64> {
    SIZES.into_iter().find(|size| free >= size + RESERVE)
}

/// Whether `/proc/meminfo` tells of too little.
fn is_short(meminfo: &str) -> bool {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    total.and_then(|total| total.trim().parse::<u64>().ok()).is_some_and(|total| total * 1024 < ENOUGH)
}

/// Whether `/proc/swaps` tells of any, below its heading.
fn has_swap(swaps: &str) -> bool {
    swaps.lines().skip(1).any(|line| !line.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::{MIB, has_swap, is_short, size};

    #[test]
    fn the_file_leaves_room_on_the_disk() {
        for (free, expected) in [(40_000, Some(2048)), (4096, Some(2048)), (4095, Some(1024)), (3071, None)] {
            assert_eq!(size(free * MIB), expected.map(|size| size * MIB), "{free}");
        }
    }

    #[test]
    fn memory_and_swap_are_read_as_the_kernel_prints_them() {
        assert!(is_short("MemTotal:        2014516 kB\nMemFree:           88888 kB\n"));
        assert!(!is_short("MemTotal:        4028000 kB\n"));
        assert!(!is_short(""), "nothing is done to what cannot be read");
        let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert!(!has_swap(heading));
        assert!(has_swap(&format!(
            "{heading}/dev/dm-1                               partition\t1048572\t\t0\t\t-2\n"
        )));
    }
}
