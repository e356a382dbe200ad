//! The runs: for each step and each operation of it three cuts, and a sample over the whole of first boot.
//!
//! `the process`: first boot alone is killed, everything else goes on. `the power, all`: the machine is off, and with it everything
//! that was not synced. `the power, some`: a part of that.
//!
//! Of cuts between which nothing can have changed the first is made: a program's start leaves what the operation before it left, so
//! does the end of a program that only looks, a sync is nothing to a process, and what is not synced is nothing to a cut that takes
//! all of it. `CRASH_MATRIX=step,step` takes these steps alone. What a cut takes in part is by chance, so that one in [`SOME`] of these
//! is enough for every day; `CRASH_MATRIX_WHOLE=1` (`cargo ci crash`) makes them all.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::machine::{Machine, Memory, Said, programs};
use crate::world::World;
use crate::{engine, scene, state};

/// What is lost, as the engine reads it, and as a person does.
const LOSSES: [(&str, &str); 3] =
    [("nothing", "the process"), ("all", "the power, all"), (PART, "the power, some")];

/// The seed of what is lost in part.
const PART: &str = "1";

/// Cuts over the whole of first boot, for each loss.
const SAMPLE: usize = 5;

/// Of the cuts that take a part, one in so many.
const SOME: usize = 4;

/// Memory for one machine, in KiB: its tree, with a database, and its servers. An estimate, not measured.
const MACHINE_KIB: usize = 512 * 1024;

/// Steps that run a program until a server answers.
const WAIT: [&str; 2] = ["postgresql", "units"];

/// Programs that change nothing, as their lines begin.
const LOOKS: [&str; 13] = [
    "ip -o address show",
    "ip -6 route show",
    "ip -4 route show",
    "nmcli --terse --fields",
    "nft list",
    "systemctl --quiet is-",
    "systemctl show",
    "nginx -V",
    "nginx -t",
    "ssh-keygen -y",
    "locale -a",
    "blkid",
    "/usr/lib/postgresql",
];

/// One group of cuts.
struct Row {
    name: String,
    /// The steps that are run under the plan: first and last.
    first: usize,
    last: usize,
    /// The tree to begin with.
    before: PathBuf,
    /// What an undisturbed run leaves.
    after: Vec<String>,
    database: String,
    operations: Vec<String>,
    undisturbed: Duration,
    /// How many certificates it cost.
    signed: usize,
}

impl Row {
    /// Whether something is asked until a server answers: the number of its operations is by chance.
    fn waits(&self) -> bool {
        self.first != self.last || WAIT.contains(&self.name.as_str())
    }
}

/// What came of a cut.
enum Outcome {
    /// First boot was cut there.
    Cut,
    /// First boot was done before: a loop that waits for a server had fewer turns this time.
    NotReached,
}

/// One cut.
struct Item {
    row: usize,
    loss: usize,
    at: u64,
}

/// Everything.
pub fn run() -> Result<()> {
    let memory = Memory::new()?;
    let folder = memory.path();
    let programs = programs(folder)?;
    let authority = folder.join("authority");
    fs::create_dir(&authority)?;
    let ca = testkit::pebble::directory_tls(&authority, "localhost")?;
    let workers = workers()?;
    let worlds: Vec<World> =
        (0..workers).map(|number| World::start(&authority, number)).collect::<Result<_>>()?;
    let rows = undisturbed(folder, &ca, &programs, &worlds[0])?;
    let wanted = std::env::var("CRASH_MATRIX").ok();
    let is_whole = std::env::var_os("CRASH_MATRIX_WHOLE").is_some();
    let is_wanted =
        |row: &Row| wanted.as_ref().is_none_or(|names| names.split(',').any(|name| name == row.name));

    let mut items = Vec::new();
    for (number, row) in rows.iter().enumerate().filter(|(_, row)| is_wanted(row)) {
        for (loss, (kind, _)) in LOSSES.iter().enumerate() {
            let changing = (1..).zip(&row.operations).filter(|(_, operation)| changes(operation, kind));
            let mut cuts: Vec<u64> = changing.map(|(at, _)| at).collect();
            let one_in = if row.first != row.last {
                // Of the whole, a few over its length: each of its operations is in a row of its own.
                (cuts.len() / SAMPLE).max(1)
            } else if *kind == PART && !is_whole {
                SOME
            } else {
                1
            };
            cuts = cuts.into_iter().step_by(one_in).collect();
            items.extend(cuts.into_iter().map(|at| Item { row: number, loss, at }));
        }
    }
    ensure!(!items.is_empty(), "no step is called that");
    let needed: BTreeSet<&Path> = items.iter().map(|item| rows[item.row].before.as_path()).collect();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path != programs && path != authority && !needed.contains(path.as_path()) {
            fs::remove_dir_all(path)?;
        }
    }
    let failures = Mutex::new(Vec::new());
    let times = Mutex::new(vec![Duration::ZERO; rows.len()]);
    let missed = Mutex::new(vec![0_usize; rows.len()]);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for (worker, world) in worlds.iter().enumerate() {
            let (rows, items, failures, times) = (&rows, &items, &failures, &times);
            let (next, missed) = (&next, &missed);
            let (programs, tree) = (&programs, folder.join(format!("tree-{worker}")));
            scope.spawn(move || {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let begun = Instant::now();
                    let row = &rows[item.row];
                    match cut(row, item, programs, world, &tree) {
                        Ok(Outcome::Cut) => {}
                        Ok(Outcome::NotReached) => {
                            missed.lock().expect("no worker panics")[item.row] += 1;
                        }
                        Err(error) => {
                            let (loss, at) = (LOSSES[item.loss].1, item.at);
                            let operation =
                                usize::try_from(at - 1).ok().and_then(|at| row.operations.get(at));
                            let operation = operation.map_or("", String::as_str);
                            let failure =
                                format!("step {}, cut {at} ({loss}), `{operation}`: {error:#}", row.name);
                            // At once, for whoever does not want to wait for the others.
                            eprintln!("{failure}");
                            failures.lock().expect("no worker panics").push(failure);
                        }
                    }
                    times.lock().expect("no worker panics")[item.row] += begun.elapsed();
                }
            });
        }
    });
    let (failures, times, missed) = (failures.into_inner()?, times.into_inner()?, missed.into_inner()?);
    println!(
        "\n{:<14} {:>10} {:>6} {:>8} {:>12} {:>10}",
        "step", "operations", "cuts", "too late", "undisturbed", "all cuts"
    );
    for (number, row) in rows.iter().enumerate() {
        let cuts = items.iter().filter(|item| item.row == number).count();
        let (undisturbed, all) = (row.undisturbed.as_secs_f64(), times[number].as_secs_f64());
        println!(
            "{:<14} {:>10} {cuts:>6} {:>8} {undisturbed:>10.2} s {all:>8.1} s",
            row.name,
            row.operations.len(),
            missed[number]
        );
    }
    let late: usize = missed.iter().sum();
    println!("{} cuts, {} failures; {late} came too late to cut anything\n", items.len(), failures.len());
    if !failures.is_empty() {
        bail!("{} of {} cuts:\n{}", failures.len(), items.len(), failures.join("\n"));
    }
    if let Some((row, _)) = rows.iter().zip(&missed).find(|(row, missed)| **missed > 0 && !row.waits()) {
        bail!("step {} waits for nothing, and has not as many operations each time", row.name);
    }
    ensure!(late * 20 <= items.len(), "{late} of {} cuts came too late to cut anything", items.len());
    Ok(())
}

/// Two for each core, because half of the time of a machine is waiting for servers, as far as the memory goes that the kept trees have left.
fn workers() -> Result<usize> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let text = fs::read_to_string("/proc/meminfo")?;
    let available =
        text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next());
    let kib: usize = available.context("`/proc/meminfo` says nothing of memory")?.parse()?;
    Ok((2 * cores).min(kib / MACHINE_KIB).max(1))
}

/// Runs first boot step by step, keeps the tree before each, and notes what each leaves.
fn undisturbed(folder: &Path, ca: &str, programs: &Path, world: &World) -> Result<Vec<Row>> {
    let steps = engine::steps();
    let blank = folder.join("before-0");
    fs::create_dir(&blank)?;
    scene::make(&blank, ca)?;
    let mut rows = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let (before, after) =
            (folder.join(format!("before-{number}")), folder.join(format!("before-{}", number + 1)));
        rows.push(row(step.name, number..=number, &before, &after, programs, world)?);
    }
    // Other settings for a machine that works, which they are at once. That some do not, and are taken back, needs a minute, and is not
    // cut here.
    let changed = folder.join("changed-before");
    copy(&folder.join(format!("before-{}", steps.len())), &changed)?;
    scene::change_network(&changed)?;
    let network = engine::number(engine::NETWORK)?;
    let after = folder.join("changed-after");
    let change = row("network-change", network..=network, &changed, &after, programs, world)?;
    let is_written = |operation: &String| {
        operation.starts_with("renamed to ") && operation.ends_with("/appliance.nmconnection")
    };
    ensure!(change.operations.iter().any(is_written), "other settings have changed no profile");
    rows.push(change);
    // Once more with a data disk: where state lies differs, and the step that puts it there has much more to do.
    let with_disk = folder.join("disk-before-0");
    copy(&blank, &with_disk)?;
    scene::attach_disk(&with_disk)?;
    rows.push(row("storage-disk", 0..=0, &with_disk, &folder.join("disk-before-1"), programs, world)?);
    rows.push(row(
        "whole-disk",
        0..=steps.len() - 1,
        &with_disk,
        &folder.join("disk-whole"),
        programs,
        world,
    )?);

    let whole = row("whole", 0..=steps.len() - 1, &blank, &folder.join("whole"), programs, world)?;
    let last = &rows[steps.len() - 1];
    same(&last.after, &whole.after).context("all at once leaves something else than step by step")?;
    same(&lines(&last.database), &lines(&whole.database)).context("all at once leaves another database")?;
    let costly = ["certificate", "whole-disk"];
    let is_one = |row: &Row| row.signed == usize::from(costly.contains(&row.name.as_str()));
    ensure!(
        rows.iter().all(is_one) && whole.signed == 1,
        "without a cut more than one certificate was signed"
    );
    forgetful(&whole, &folder.join("whole"), programs, world)?;
    rows.push(whole);
    Ok(rows)
}

fn row(
    name: &str,
    steps: std::ops::RangeInclusive<usize>,
    before: &Path,
    after: &Path,
    programs: &Path,
    world: &World,
) -> Result<Row> {
    copy(before, after)?;
    let begun = Instant::now();
    let machine = Machine { root: after, programs, world };
    let arguments = engine_arguments(*steps.start(), *steps.end(), u64::MAX, "nothing");
    let signed = world.signed()?;
    let said = machine.boot(&arguments, false, true).with_context(|| format!("step {name}, undisturbed"))?;
    let row = Row {
        name: name.to_owned(),
        first: *steps.start(),
        last: *steps.end(),
        before: before.to_owned(),
        after: state::tree(after)?,
        database: said.database,
        operations: said.operations,
        undisturbed: begun.elapsed(),
        signed: world.signed()? - signed,
    };
    no_scratch(&row.after)?;
    Ok(row)
}

/// What first boot only remembers may be deleted at any time.
fn forgetful(whole: &Row, tree: &Path, programs: &Path, world: &World) -> Result<()> {
    let machine = Machine { root: tree, programs, world };
    for entry in fs::read_dir(tree.join("var/lib/appliance"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "in-force" || extension == "sha256") {
            fs::remove_file(path)?;
        }
    }
    let said = machine.boot(&engine_arguments(0, whole.last, 0, "nothing"), false, true)?;
    same(&whole.after, &state::tree(tree)?).context("after what first boot remembers was deleted")?;
    same(&lines(&whole.database), &lines(&said.database))
        .context("after what first boot remembers was deleted")
}

/// One cut, and the run after it.
fn cut(row: &Row, item: &Item, programs: &Path, world: &World, tree: &Path) -> Result<Outcome> {
    copy(&row.before, tree)?;
    let signed = world.signed()?;
    let machine = Machine { root: tree, programs, world };
    let loss = LOSSES[item.loss].0;
    let is_power = loss != "nothing";
    let first = machine.boot(&engine_arguments(row.first, row.last, item.at, loss), !is_power, false)?;
    let Some(operation) = &first.cut else { return Ok(Outcome::NotReached) };
    let judge = || -> Result<()> {
        let healed: Said = if is_power {
            machine.boot(&engine_arguments(row.first, row.last, 0, loss), false, false)?
        } else {
            Said { database: first.database.clone(), ..Said::default() }
        };
        let found = state::tree(tree)?;
        no_scratch(&found)?;
        same(&row.after, &found)?;
        same(&lines(&row.database), &lines(&healed.database)).context("database and network")?;
        let signed = world.signed()? - signed;
        ensure!(signed == row.signed, "{signed} certificates were signed, and not {}", row.signed);
        let kept = state::secrets(tree)?;
        // The authority's takes the place of one of our own.
        let is_replaced = |seen: &str| {
            let (name, _) = seen.rsplit_once(' ').unwrap_or_default();
            name.starts_with(state::KEY) && !kept.iter().any(|kept| kept.starts_with(name))
        };
        match first.seen.iter().find(|seen| !kept.contains(seen) && !is_replaced(seen)) {
            None => Ok(()),
            Some(other) => bail!("a secret that could be seen before the cut is another one: {other}"),
        }
    };
    judge().with_context(|| format!("after operation {operation}"))?;
    Ok(Outcome::Cut)
}

/// Whether a cut after an operation can leave something else than a cut before it.
fn changes(operation: &str, loss: &str) -> bool {
    let begins = |words: &[&str]| words.iter().any(|word| operation.starts_with(word));
    let looks =
        operation.strip_prefix("ended ").is_some_and(|line| LOOKS.iter().any(|look| line.starts_with(look)));
    let is_same = match loss {
        // What the kernel knows, a sync does not change.
        "nothing" => begins(&["synced "]),
        // What no sync follows is taken back.
        "all" => begins(&["made ", "filled ", "changed ", "renamed ", "removed "]),
        _ => false,
    };
    !begins(&["starting "]) && !looks && !is_same
}

fn engine_arguments(first: usize, last: usize, at: u64, loss: &str) -> Vec<String> {
    vec![first.to_string(), last.to_string(), at.to_string(), loss.to_owned()]
}

/// A whole tree, as it is.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    let status = Command::new("cp").args(["--archive", "--reflink=auto", "--"]).args([from, to]).status()?;
    ensure!(status.success(), "`cp`: {status}");
    Ok(())
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// Names the first line in which they differ, which begins with the path.
fn same(expected: &[String], found: &[String]) -> Result<()> {
    let position = (0..expected.len().max(found.len())).find(|line| expected.get(*line) != found.get(*line));
    let Some(position) = position else { return Ok(()) };
    let show = |lines: &[String]| {
        lines.get(position).map_or("nothing more".to_owned(), |line| line.replace('\t', "  "))
    };
    bail!("found `{}` instead of `{}`", show(found), show(expected))
}

fn no_scratch(lines: &[String]) -> Result<()> {
    let name = |line: &String| line.split('\t').next().unwrap_or_default().to_owned();
    match lines
        .iter()
        .map(name)
        .find(|path| path.split('/').any(|part| part.contains(".new") || part.starts_with(".kept-")))
    {
        None => Ok(()),
        Some(path) => bail!("the scratch name `{path}` is left"),
    }
}
