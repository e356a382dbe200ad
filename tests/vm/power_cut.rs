//! Power cuts: a machine that dies again and again while it comes up, and what may have been left of its data disk at any moment.
//!
//! The first boot of the scenario is cut three times on its way to green. All that its data disk was told is recorded, so that
//! afterwards the disk is made anew as it may have been at many other moments, with writes lost and torn that were not durable.
//! `cargo ci powercut` does the same with as many cuts as asked for, each first boot with twelve.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use imgbuild::qemu::{Machine, MachineOptions, Verdict, VerdictReport};
use serde_json::Value;
use testkit::oracle;
use testkit::power::Dice;
use testkit::power::remains::{Database, Remains};
use testkit::power::write_log::WriteLog;
use testkit::scenario::say;

use crate::first_boot;
use crate::site::{DOMAIN, Site, folder, project};

/// Where the cuts of a first boot fall: behind one of these of each group, and some seconds more. A name is a step's that is done.
const GROUPS: [&[&str]; 3] = [
    &[KERNEL, "storage", "identity", "clock"],
    &["secrets", "postgresql", "redis", "environment"],
    &["environment", "database", "nginx", CERTIFICATE],
];
/// The step that needs the world.
const CERTIFICATE: &str = "certificate";
/// The kernel's first word.
const KERNEL: &str = "Linux version";
/// A cut falls so many milliseconds at most behind that.
const SPREAD: u64 = 30_000;
/// No machine needs longer to the step that it is to be cut in.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// Disks that are made anew and looked at after a first boot, beside those that the cuts left.
const MOMENTS: usize = 20;

/// Cuts of each group in a first boot of a campaign: later ones meet what earlier ones have left.
const AGAIN: usize = 4;

/// How many cuts a campaign has, in the environment.
pub const COUNT: &str = "IMGBUILD_POWER_CUTS";

/// The seed of a run before, in the environment.
const SEED: &str = "IMGBUILD_POWER_SEED";

/// What must never be made a second time, by its name, with its content.
type Identity = BTreeMap<String, Vec<u8>>;

/// One boot of a machine: from power-on to its cut, or to green.
#[derive(Debug)]
struct Boot {
    /// The data disk as it was before.
    before: PathBuf,
    /// What it was told.
    writes: PathBuf,
    /// When a report said that steps were done: how long the log was then, in bytes, and the steps.
    said: Vec<(u64, Value)>,
    /// How many requests there were when it turned green. What happens later is not first boot.
    green: Option<usize>,
}

/// The boots of a machine until it turned green, and what was seen of its identity on the way.
#[derive(Debug)]
pub struct History {
    folder: PathBuf,
    dice: Dice,
    boots: Vec<Boot>,
    /// The identity that was durable at the cuts.
    seen: Identity,
    /// What the image says about itself, once the machine was asked.
    facts: String,
    /// What each cut met, for the one who reads the test's output.
    pub cuts: Vec<String>,
}

impl History {
    /// For a machine whose files are in a folder. The moments are those of the seed in the environment, if there is one; how far the
    /// guest is by then is its own affair.
    pub fn new(folder: &Path) -> Result<History> {
        let seed = match std::env::var(SEED) {
            Ok(seed) => seed.parse().with_context(|| format!("reading `{SEED}`"))?,
            Err(_) => Dice::seed(),
        };
        say(&format!("moments of the power cuts: {SEED}={seed}"));
        let (folder, dice) = (folder.to_owned(), Dice::new(seed));
        Ok(History {
            folder,
            dice,
            boots: Vec::new(),
            seen: Identity::new(),
            facts: String::new(),
            cuts: Vec::new(),
        })
    }

    /// Starts the machine and cuts it, so many times for each group.
    pub fn suffer(&mut self, options: &MachineOptions, times: usize) -> Result<()> {
        for group in GROUPS.iter().flat_map(|group| std::iter::repeat_n(*group, times)) {
            let behind = *self.dice.pick(group);
            let more = Duration::from_millis(self.dice.below(SPREAD));
            let mut machine = self.start(options)?;
            // What needs no network does not wait for one.
            machine.set_link(group.contains(&CERTIFICATE))?;
            if behind == KERNEL {
                machine.wait_serial(KERNEL, LIMIT)?;
            } else {
                self.watch(&mut machine, |report| report.json["steps"][behind] == "done")?;
            }
            std::thread::sleep(more);
            let cut = format!(
                "power cut {:.1} s after power-on, {:.1} s behind `{behind}`",
                machine.age().as_secs_f64(),
                more.as_secs_f64()
            );
            machine.kill()?;
            let met = self.look().with_context(|| format!("after a {cut}"))?;
            self.cuts.push(format!("{cut}: {met}"));
        }
        Ok(())
    }

    /// Starts the machine on what the boot before left, and records what its data disk is told.
    pub fn start(&mut self, options: &MachineOptions) -> Result<Machine> {
        let number = self.boots.len();
        let before = self.folder.join(format!("data-{number}.raw"));
        let overlay = self.folder.join("data.qcow2");
        let disk = match &options.data {
            _ if overlay.exists() => overlay,
            Some(medium) => PathBuf::from(medium.name()?),
            None => bail!("the machine has no data disk"),
        };
        oracle::to_raw(&disk, &before)?;
        let writes = self.folder.join(format!("data-{number}.writes"));
        let options = MachineOptions { write_log: Some(writes.clone()), ..options.clone() };
        let machine = Machine::start(&options, &self.folder)?;
        self.boots.push(Boot { before, writes, said: Vec::new(), green: None });
        Ok(machine)
    }

    /// Waits for a report, and keeps what all of them say on the way.
    fn watch(
        &mut self,
        machine: &mut Machine,
        mut is_wanted: impl FnMut(&VerdictReport) -> bool,
    ) -> Result<VerdictReport> {
        let boot = self.boots.last_mut().context("no machine was started")?;
        machine.wait_report(LIMIT, &AtomicBool::new(false), |report| {
            // What is written after a report may stand in the log before we ask: this is too long, never too short.
            let length = fs_err::metadata(&boot.writes).map_or(0, |meta| meta.len());
            boot.said.push((length, report.json["steps"].clone()));
            is_wanted(report)
        })
    }

    /// Waits until all is done that can be done without a link, on a machine that has none.
    pub fn wait_without_link(&mut self, machine: &mut Machine) -> Result<()> {
        machine.set_link(false)?;
        let is_named = |why: &Value| {
            why["step"] == "network" && why["why"].as_str().is_some_and(|why| why.contains("no link"))
        };
        self.watch(machine, |report| {
            report.verdict == Verdict::Amber
                && report.json["waiting"].as_array().is_some_and(|all| all.iter().any(is_named))
        })
        .map(drop)
    }

    /// Waits until the instance is well.
    pub fn wait_green(&mut self, machine: &mut Machine) -> Result<VerdictReport> {
        let report = self.watch(machine, |report| report.verdict == Verdict::Green)?;
        if let Some(boot) = self.boots.last_mut() {
            boot.green = Some(WriteLog::read(&boot.writes)?.len());
        }
        Ok(report)
    }

    /// What a cut has left: an identity that was seen before must still be there.
    fn look(&mut self) -> Result<String> {
        let disk = self.folder.join("look.raw");
        oracle::to_raw(&self.folder.join("data.qcow2"), &disk)?;
        let tree = tempfile::tempdir_in(&self.folder)?;
        let remains = Remains::of(&disk, &tree.path().join("tree"))?;
        fs_err::remove_file(&disk)?;
        let Some(remains) = remains else { return Ok("the data disk is blank".to_owned()) };
        let identity = remains.identity()?;
        is_kept(&self.seen, &identity)?;
        if let Some(name) = self.seen.keys().find(|name| !identity.contains_key(*name)) {
            bail!("`{name}` was on the disk after the power cut before, and is gone");
        }
        let database = remains.database()?;
        let met = format!("{} secrets, keys and ids on disk, database {database:?}", identity.len());
        self.seen.extend(identity);
        Ok(met)
    }

    /// Takes what the guest has in the end, and wants it to be what was seen after the cuts.
    pub fn compare(&mut self, machine: &mut Machine) -> Result<()> {
        self.facts = machine.shell("cat /usr/lib/appliance/image.toml")?;
        for (name, content) in &self.seen {
            let now = machine.shell(&format!("cat '/var/lib/appliance/{name}'"))?;
            ensure!(now.as_bytes() == content, "`{name}` is another one than after a power cut");
        }
        let rows = machine.shell(
            "cd / && runuser -u postgres -- psql -qAt -d mastodon -c 'SELECT count(*) FROM oauth_applications WHERE superapp' \
             -c \"SELECT count(*) FROM pg_database WHERE datname LIKE 'mastodon%'\"",
        )?;
        ensure!(rows == "1\n1\n", "rows of the web client, and databases: {rows:?}");
        let scratch = machine.shell(
            "find /etc /root /var/lib/appliance /var/lib/postgresql /home/mastodon/live -maxdepth 4 -name '*.new' -not -path '*/node_modules/*'",
        )?;
        ensure!(scratch.is_empty(), "scratch names are left: {scratch}");
        Ok(())
    }

    /// Makes the data disk anew as a cut at other moments may have left it, and looks at each.
    pub fn replay(&mut self) -> Result<Vec<String>> {
        let log = |boot: &Boot| Ok(WriteLog::read(&boot.writes)?.up_to(boot.green.unwrap_or(usize::MAX)));
        let logs: Vec<WriteLog> = self.boots.iter().map(log).collect::<Result<_>>()?;
        let all: usize = logs.iter().map(WriteLog::len).sum();
        let flushes: usize = logs.iter().map(WriteLog::flushes).sum();
        ensure!(flushes > 50, "too little was recorded: {all} requests, {flushes} flushes");
        let program = imgbuild::pipeline::guest_program(&project())?;
        let mut report =
            vec![format!("{} boots, {all} requests to the data disk, {flushes} flushes", logs.len())];
        let mut all_lost = 0;
        for _ in 0..MOMENTS {
            // Any request of any boot is as likely as any other.
            let mut at = usize::try_from(self.dice.below(all as u64))?;
            let number = logs.iter().position(|log| {
                let here = at < log.len();
                at -= if here { 0 } else { log.len() };
                here
            });
            let number = number.context("no log has the request")?;
            let seed = self.dice.below(u64::MAX);
            let (lost, found) = self
                .moment(program.path(), number, &logs[number], at, seed)
                .with_context(|| format!("boot {number}, behind request {at}, seed {seed}"))?;
            all_lost += lost;
            report.push(format!("boot {number}, request {at:>6}: {lost} writes lost, {found}"));
        }
        // Else nothing was shown that a plain kill does not show.
        ensure!(all_lost > 0, "none of the moments lost a write");
        Ok(report)
    }

    fn moment(
        &self,
        program: &Path,
        number: usize,
        log: &WriteLog,
        at: usize,
        seed: u64,
    ) -> Result<(usize, String)> {
        let boot = &self.boots[number];
        let tree = tempfile::tempdir_in(&self.folder)?;
        let disk = tree.path().join("disk.raw");
        oracle::copy_sparse(&boot.before, &disk)?;
        let lost = log.cut(&disk, at, &mut Dice::new(seed))?;
        let remains = Remains::of(&disk, &tree.path().join("tree"))?;
        fs_err::remove_file(&disk)?;
        let durable = log.durable(at);
        let done = boot.said.iter().rfind(|(length, _)| *length <= durable).map(|(_, steps)| steps);
        let is_done = |step: &str| done.is_some_and(|steps| steps[step] == "done");
        let Some(remains) = remains else {
            ensure!(!is_done("storage"), "the disk is blank, but storage was said to be done");
            return Ok((lost, "the disk is blank".to_owned()));
        };
        let identity = remains.identity()?;
        is_kept(&identity, &self.seen)?;
        let said = observe_secrets(program, &self.facts, &remains)?;
        ensure!(!is_done("secrets") || said == "done", "secrets were said to be done, now: {said}");
        let database = remains.database()?;
        let is_ready = database == Database::Ready { superapps: 1 };
        ensure!(
            is_ready || !matches!(database, Database::Ready { .. }),
            "the database is half made: {database:?}"
        );
        ensure!(is_ready || !is_done("database"), "the database was said to be done, now: {database:?}");
        let certificate = remains.certificate(DOMAIN)?;
        ensure!(
            certificate.is_some() || !is_done("nginx"),
            "nginx was said to serve, and has no certificate"
        );
        let source = certificate.as_deref().unwrap_or("none");
        ensure!(
            source.starts_with("https://") || !is_done(CERTIFICATE),
            "the certificate was said to be there, now: {source}"
        );
        Ok((lost, format!("secrets {said}, database {database:?}, certificate {source}")))
    }

    /// Removes what only the checks need; for a look at a failure it stays.
    pub fn forget(self) -> Result<()> {
        for boot in &self.boots {
            fs_err::remove_file(&boot.before)?;
            fs_err::remove_file(&boot.writes)?;
        }
        Ok(())
    }
}

/// Whether all that one identity has is in the other, unchanged, as far as the other has it at all.
fn is_kept(one: &Identity, other: &Identity) -> Result<()> {
    for (name, content) in one {
        match other.get(name) {
            None => {}
            Some(now) => ensure!(now == content, "`{name}` was made twice"),
        }
    }
    Ok(())
}

/// The word of the guest's own program about the secrets that are left: it must know what to do.
fn observe_secrets(program: &Path, facts: &str, remains: &Remains) -> Result<&'static str> {
    let root = tempfile::tempdir()?;
    let facts_path = root.path().join("usr/lib/appliance/image.toml");
    for folder in ["usr/lib/appliance", "var/lib"] {
        fs_err::create_dir_all(root.path().join(folder))?;
    }
    fs_err::write(facts_path, facts)?;
    std::os::unix::fs::symlink(remains.state("var-lib-appliance"), root.path().join("var/lib/appliance"))?;
    let said = testkit::run(program, &["observe".as_ref(), root.path().as_os_str(), "secrets".as_ref()])?;
    match said.trim() {
        "Done" => Ok("done"),
        todo if todo.starts_with("Todo") => Ok("to do"),
        other => bail!("first boot would not go on: {other}"),
    }
}

/// The cuts left everything as it was shown first.
pub fn nothing_was_made_twice(site: &mut Site) -> Result<()> {
    let mut history = site.history.take().context("there is no machine: it did not boot")?;
    for cut in &history.cuts {
        say(cut);
    }
    ensure!(history.cuts.len() == GROUPS.len(), "only {} power cuts", history.cuts.len());
    let result = history.compare(site.machine()?);
    site.history = Some(history);
    result
}

/// The data disk is whole at any moment at which a cut may come.
pub fn disk_is_whole_at_any_moment(site: &mut Site) -> Result<()> {
    let mut history = site.history.take().context("there is no machine: it did not boot")?;
    for line in history.replay()? {
        say(&line);
    }
    history.forget()
}

/// As many cuts as the environment asks for, and more disks made anew after each first boot.
pub fn campaign(site: &mut Site) -> Result<()> {
    let wanted: usize = std::env::var(COUNT)?.parse().with_context(|| format!("reading `{COUNT}`"))?;
    let (mut cuts, mut moments) = (0, 0);
    for round in 1.. {
        let folder = folder().with_file_name("power-cuts");
        let (_lab, options) = first_boot::machine(site, &folder)?;
        let mut history = History::new(&folder)?;
        history.suffer(&options, AGAIN)?;
        let mut machine = history.start(&options)?;
        history.wait_green(&mut machine).with_context(|| history.cuts.join("\n"))?;
        let took = machine.age();
        history.compare(&mut machine)?;
        machine.stop()?;
        let moments_seen = history.replay()?;
        for line in history.cuts.iter().chain(&moments_seen) {
            say(line);
        }
        cuts += history.cuts.len();
        moments += MOMENTS;
        say(&format!(
            "round {round}: green {:.0} s after the last power-on; {cuts} power cuts and {moments} other moments so far",
            took.as_secs_f64()
        ));
        history.forget()?;
        if cuts >= wanted {
            break;
        }
    }
    Ok(())
}
