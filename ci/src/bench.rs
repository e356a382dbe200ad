//! `cargo ci bench export`: our writers beside qemu-img's, on one raw disk, in one run.
//!
//! Every contender is a process of its own, so that its time, its processor time and its memory are what the kernel counted. Ours
//! includes the name of the disk's content, and for the OVA the archive and the manifest's hash. Rounds are interleaved; a line
//! shows ratios of medians.

use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::{Subcommand, ValueEnum};
use fs_err as fs;
use imgbuild::context::Context;
use imgbuild::export::{self, Content};
use imgbuild::formats::{qcow2, vmdk};
use imgbuild::project::Project;
use imgbuild::recipe::Recipe;
use imgbuild::store::Store;
use xshell::{Shell, cmd};

use crate::{image, say, setup};

/// Memory that an export may take, in bytes, whatever the size of the disk.
const MEMORY_LIMIT: u64 = 200_000_000;
/// Level of deflate that gives qemu-img's size.
const QEMU_LEVEL: u8 = 3;

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Our writers of disk formats beside qemu-img's
    Export {
        /// Raw disk to export [default: the demo image's]
        #[arg(long)]
        disk: Option<PathBuf>,
        /// How often each is run
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// One of ours, in this process
        #[arg(long, hide = true, requires_all = ["disk", "target"])]
        only: Option<Ours>,
        /// Level of deflate
        #[arg(long, hide = true, default_value_t = 6)]
        level: u8,
        /// File to write
        #[arg(long, hide = true)]
        target: Option<PathBuf>,
    },
}

/// A writer of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ours {
    /// The whole OVA.
    Ova,
    /// A qcow2 by deflate.
    Zlib,
    /// A qcow2 by zstd.
    Zstd,
    /// Reading and deflate alone, into nothing.
    Bound,
}

/// One run of one program.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    wall: f64,
    cpu: f64,
    bytes: u64,
}

/// A line of the table.
struct Line {
    name: String,
    ours: Ours,
    level: u8,
    theirs: &'static [&'static str],
}

/// Runs it.
pub fn run(shell: &Shell, bench: Bench) -> Result<()> {
    let Bench::Export { disk, rounds, only, level, target } = bench;
    if let (Some(only), Some(disk), Some(target)) = (only, &disk, &target) {
        return one(shell, only, level, disk, target);
    }
    if cfg!(debug_assertions) {
        setup::host(shell)?;
        say::title("building with optimisation");
        let disk = disk.map(|disk| ["--disk".into(), disk.into_os_string()]).into_iter().flatten();
        let rounds = rounds.to_string();
        cmd!(shell, "cargo run --quiet --release --package ci -- bench export --rounds {rounds} {disk...}")
            .quiet()
            .run()?;
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(shell.current_dir().join("target"))?;
    let disk = if let Some(disk) = disk {
        disk
    } else {
        let demo = image::build(shell)?.system;
        let raw = folder.path().join("system.raw");
        cmd!(shell, "qemu-img convert -O raw {demo} {raw}").quiet().run()?;
        raw
    };
    table(shell, &disk, rounds.max(1), folder.path())
}

fn table(shell: &Shell, disk: &Path, rounds: usize, folder: &Path) -> Result<()> {
    const VMDK: &[&str] = &["-O", "vmdk", "-o", "subformat=streamOptimized,adapter_type=lsilogic"];
    let default = imgbuild::recipe::Export::default().level;
    let line = |name: &str, ours, level, theirs| Line { name: name.to_owned(), ours, level, theirs };
    let lines = [
        line(&format!("streamOptimized, level {default}"), Ours::Ova, default, VMDK),
        line(&format!("streamOptimized, level {QEMU_LEVEL}"), Ours::Ova, QEMU_LEVEL, VMDK),
        line(
            "qcow2 -c zlib",
            Ours::Zlib,
            6,
            &["-O", "qcow2", "-c", "-W", "-m", "16", "-o", "compression_type=zlib"],
        ),
        line(
            "qcow2 -c zstd",
            Ours::Zstd,
            export::ZSTD_LEVEL,
            &["-O", "qcow2", "-c", "-W", "-m", "16", "-o", "compression_type=zstd"],
        ),
    ];
    let cores = std::thread::available_parallelism()?;
    let data = {
        use std::os::unix::fs::MetadataExt as _;
        let meta = fs::metadata(disk)?;
        format!("{:.1} GiB with {:.0} MB of data", gib(meta.len()), mb(meta.blocks() * 512))
    };
    say::title(&format!("exporting a disk of {data}, {cores} cores, median of {rounds}"));
    // Everything that follows finds the disk in memory.
    std::io::copy(&mut Content::of(disk).and_then(|_| Ok(fs::File::open(disk)?))?, &mut std::io::sink())?;
    say::line(&format!(
        "{:<26}{:>6}{:>8}{:>12}{:>12}{:>10}{:>10}",
        "format", "wall", "CPU", "ours", "qemu-img", "ours", "qemu-img"
    ));
    let mut memory = 0;
    let mut first = Run::default();
    for (index, Line { name, ours, level, theirs }) in lines.into_iter().enumerate() {
        let (mut mine, mut other) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let target = folder.join("theirs");
            mine.push(ours_in_a_process(shell, ours, level, disk, folder, &mut memory)?);
            other.push(measure(&target, || {
                Ok(cmd!(shell, "qemu-img convert -f raw {theirs...} {disk} {target}").quiet().run()?)
            })?);
        }
        let (mine, other) = (median(&mine), median(&other));
        if index == 0 {
            first = mine;
        }
        say::line(&format!(
            "{name:<26}{:>6}{:>8}{:>9.1} MB{:>9.1} MB{:>8.1} s{:>8.1} s",
            format!("{:.1}x", other.wall / mine.wall),
            format!("{:.1}x", other.cpu / mine.cpu),
            mb(mine.bytes),
            mb(other.bytes),
            mine.wall,
            other.wall,
        ));
    }
    let mut bound = Vec::new();
    for _ in 0..rounds {
        bound.push(ours_in_a_process(shell, Ours::Bound, default, disk, folder, &mut memory)?);
    }
    let bound = median(&bound);
    say::line(&format!(
        "\nof the OVA's {:.1} s, reading and deflate alone take {:.1} s ({:.0} %); archive, hash and writing the rest",
        first.wall,
        bound.wall,
        bound.wall / first.wall * 100.0
    ));
    say::line(&format!("memory: {:.0} MB at most", mb(memory)));
    ensure!(memory < MEMORY_LIMIT, "an export took {:.0} MB of memory", mb(memory));
    Ok(())
}

/// Runs this program once more for one export.
fn ours_in_a_process(
    shell: &Shell,
    ours: Ours,
    level: u8,
    disk: &Path,
    folder: &Path,
    memory: &mut u64,
) -> Result<Run> {
    let this = std::env::current_exe()?;
    let target = folder.join("ours");
    let level = level.to_string();
    let only = ours.to_possible_value().context("a writer without a name")?;
    let only = only.get_name();
    measure(&target, || {
        let said =
            cmd!(shell, "{this} bench export --only {only} --level {level} --disk {disk} --target {target}");
        let peak: u64 = said.quiet().read()?.trim().parse()?;
        *memory = peak.max(*memory);
        Ok(())
    })
}

/// Runs a child to its end and looks at what it wrote.
fn measure(target: &Path, child: impl FnOnce() -> Result<()>) -> Result<Run> {
    let before = children_cpu()?;
    let start = Instant::now();
    child()?;
    let wall = start.elapsed().as_secs_f64();
    let cpu = children_cpu()? - before;
    let bytes = fs::metadata(target).map_or(0, |meta| meta.len());
    let _ = fs::remove_file(target);
    Ok(Run { wall, cpu, bytes })
}

/// Seconds of processor time of all children that have ended.
fn children_cpu() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // Behind the name, which may hold anything: `cutime` and `cstime` are the 14th and 15th.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| -> Result<f64> { Ok(fields.get(index).context("/proc/self/stat")?.parse()?) };
    #[expect(clippy::cast_precision_loss, reason = "a hundred")]
    Ok((ticks(13)? + ticks(14)?) / rustix::param::clock_ticks_per_second() as f64)
}

fn median(runs: &[Run]) -> Run {
    let middle = |get: fn(&Run) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(get).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Run { wall: middle(|run| run.wall), cpu: middle(|run| run.cpu), bytes: runs[0].bytes }
}

/// One export by us; prints the memory that it took at most, in bytes.
fn one(shell: &Shell, ours: Ours, level: u8, disk: &Path, target: &Path) -> Result<()> {
    let file = fs::File::open(disk)?;
    let size = file.metadata()?.len();
    match ours {
        Ours::Ova => {
            let root = shell.current_dir();
            let context =
                Context::of_store(Project::find(Some(&root))?, Store::open(&Store::default_root())?)?;
            let set = [format!("export.level={level}")];
            let recipe = Recipe::load(&context.project.image("demo")?, None, &set)?;
            export::ova::write(&recipe, "bench", &[Content::of(disk)?], 0, target, &context)?;
        }
        Ours::Zlib | Ours::Zstd => {
            let method = match ours {
                Ours::Zlib => qcow2::write::Method::Deflate(level),
                _ => qcow2::write::Method::Zstd(level.into()),
            };
            let output = BufWriter::with_capacity(1 << 20, fs::File::create(target)?);
            qcow2::write::write(&file, size, method, output, |_| ())?;
        }
        Ours::Bound => {
            // Any name will do: ours comes with the disk, and is no part of an export.
            let identity = "0".repeat(32).parse()?;
            let options = vmdk::write::Options { name: "x", level, identity };
            vmdk::write::write(&file, size, options, std::io::sink(), |_| ())?;
        }
    }
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    let kib: u64 = peak.context("/proc/self/status has no VmHWM")?.trim().parse()?;
    say::line(&(kib * 1024).to_string());
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
