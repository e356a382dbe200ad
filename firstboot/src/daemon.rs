//! The loop: passes until all is done, then looks as often as the steps wish, and at once when the operator asks.
//!
//! One process at a time holds the lock. A pass that fails never ends the process; SIGTERM ends it between two steps.

mod schedule;

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use self::schedule::Schedule;
use crate::context::Context;
use crate::engine::{self, Next, Observation, Outcome, Step, Watcher};
use crate::settings::Settings;
use crate::status::{Known, PREFIX, Status};
use crate::steps::{network, storage};
use crate::{channels, console, durable, notify, status, steps};

/// The lock that one process at a time holds.
const LOCK: &str = "/run/appliance/lock";
/// The pause after a pass that could not even begin.
const PAUSE: Duration = Duration::from_secs(60);

/// Runs the early steps once; for the unit that everything with state is ordered behind.
pub fn early(root: &Path) -> Result<()> {
    let _lock = lock(root)?;
    let facts = Context::load_facts(root)?;
    // The stored configuration may lie on the data disk, which is not mounted yet; the early steps need none.
    let context = Context { root: root.to_owned(), facts, settings: None };
    let outcomes = engine::pass(steps::EARLY, &context, &mut Once);
    let mut known = recall(root);
    for outcome in &outcomes {
        note(&mut known, outcome);
    }
    Status::of(None, &known).publish(root)?;
    match outcomes.iter().find(|outcome| outcome.observation != Observation::Done) {
        None => Ok(()),
        Some(outcome) => bail!("step `{}` is not done", outcome.step),
    }
}

/// Every step, unseen; with the time that its work took as an earlier process of this boot has published it.
fn recall(root: &Path) -> Vec<Known> {
    let seconds = status::published_seconds(root);
    let unseen = |step: &Step| Known {
        step: step.name,
        needs: step.needs,
        observation: None,
        held: false,
        working: false,
        millis: seconds.get(step.name).copied(),
    };
    steps::STEPS.iter().map(unseen).collect()
}

/// Takes note of how a step ended; whether that is news.
fn note(known: &mut [Known], outcome: &Outcome) -> bool {
    let Some(known) = known.iter_mut().find(|known| known.step == outcome.step) else { return false };
    let is_news = known.observation.as_ref() != Some(&outcome.observation);
    known.observation = Some(outcome.observation.clone());
    known.held = outcome.held_by.is_some();
    known.working = false;
    if outcome.applied {
        known.millis = Some(known.millis.unwrap_or(0) + outcome.millis);
    }
    is_news
}

/// Runs every step once, in order.
struct Once;

impl Watcher for Once {
    fn before(&mut self, _: &Step) -> Next {
        Next::Run
    }

    fn working(&mut self, step: &Step, todo: &str) -> bool {
        console::announce(&working(step, todo));
        true
    }

    fn after(&mut self, step: &Step, outcome: &Outcome) {
        console::announce(&line(step, outcome));
    }
}

/// Converges for ever; returns when it is told to end.
pub fn run(root: &Path) -> Result<()> {
    let _lock = lock(root)?;
    let wishes = wishes()?;
    console::journal("the plan:");
    for step in steps::STEPS {
        console::journal(&format!("  {:<14} {}", step.name, step.why));
    }
    let mut keeper = Keeper::new(root, wishes);
    loop {
        let pause = match keeper.pass() {
            Ok(()) => keeper.schedule.pause(Instant::now()),
            Err(error) => {
                console::announce(&format!("appliance: {error:#}"));
                PAUSE
            }
        };
        notify::ready();
        if keeper.ends_after(pause) {
            return Ok(());
        }
    }
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Retry,
    End,
}

/// Signals, turned into messages by a thread of their own.
fn wishes() -> Result<Receiver<Wish>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1]).context("listening for signals")?;
    let (sender, receiver): (Sender<Wish>, Receiver<Wish>) = channel();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let wish = if signal == SIGUSR1 { Wish::Retry } else { Wish::End };
            if sender.send(wish).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Holds everything between two passes. None of it is needed after a crash: the next process looks at the world.
struct Keeper<'a> {
    root: &'a Path,
    wishes: Receiver<Wish>,
    ends: bool,
    schedule: Schedule,
    known: Vec<Known>,
    settings: Option<Settings>,
    /// What the channels were last told about, so that it is said once.
    noted: Vec<String>,
    title: String,
    shown: Option<Status>,
}

impl<'a> Keeper<'a> {
    fn new(root: &'a Path, wishes: Receiver<Wish>) -> Self {
        Keeper {
            root,
            wishes,
            ends: false,
            schedule: Schedule::default(),
            known: recall(root),
            settings: None,
            noted: Vec::new(),
            title: String::new(),
            shown: None,
        }
    }

    /// One pass; another configuration makes every step due. The stored configuration may lie on the data disk, so no channel is
    /// looked at before storage is done: one that differs could be stored where the disk is about to be mounted.
    fn pass(&mut self) -> Result<()> {
        let facts = Context::load_facts(self.root)?;
        self.title.clone_from(&facts.title);
        let mut context = Context { root: self.root.to_owned(), facts, settings: self.settings.clone() };
        self.schedule.begin();
        let outcomes = engine::pass(&[storage::STEP], &context, self);
        if outcomes.iter().any(|outcome| outcome.observation == Observation::Done) {
            let search = channels::adopt(self.root)?;
            for note in search.notes.iter().filter(|note| !self.noted.contains(note)) {
                console::announce(&format!("appliance: note    configuration: {}", note.replace('\n', " ")));
            }
            self.noted = search.notes;
            context.settings = search.found.map(|(settings, _)| settings);
            if context.settings != self.settings {
                self.schedule.reset();
            }
            self.settings.clone_from(&context.settings);
        }
        engine::pass(steps::STEPS, &context, self);
        Ok(())
    }

    /// Waits until something is due or asked for; whether the process shall end.
    fn ends_after(&mut self, pause: Duration) -> bool {
        match self.wishes.recv_timeout(pause) {
            Ok(wish) => self.take(wish),
            // Without the signals' thread nobody could end us: better that systemd starts us afresh.
            Err(RecvTimeoutError::Disconnected) => self.ends = true,
            Err(RecvTimeoutError::Timeout) => {}
        }
        self.ends
    }

    fn take(&mut self, wish: Wish) {
        match wish {
            Wish::Retry => {
                steps::mail::ask_again();
                self.schedule.reset();
            }
            Wish::End => self.ends = true,
        }
    }

    /// Tells everybody, when there is something new to tell.
    fn publish(&mut self) {
        let domain = self.settings.as_ref().map(|settings| settings.domain.as_str());
        let mut status = Status::of(domain, &self.known);
        status.url = self.settings.as_ref().map(|settings| format!("https://{}/", settings.site()));
        // Times alone are no news.
        let is_news = self.shown.as_ref().is_none_or(|shown| {
            Status { seconds: Vec::new(), ..shown.clone() }
                != Status { seconds: Vec::new(), ..status.clone() }
        });
        if !is_news {
            return;
        }
        let told = status.publish(self.root).and_then(|()| {
            console::announce(&format!("{PREFIX}{}", status.json()?));
            console::issue(self.root, &self.title, &status, &network::global_addresses())
        });
        if let Err(error) = told {
            console::journal(&format!("the status cannot be shown: {error:#}"));
        }
        notify::status(status.verdict.sentence());
        self.shown = Some(status);
    }
}

impl Watcher for Keeper<'_> {
    fn before(&mut self, step: &Step) -> Next {
        while let Ok(wish) = self.wishes.try_recv() {
            self.take(wish);
        }
        if self.ends {
            return Next::Stop;
        }
        let next = self.schedule.next(step.name, Instant::now());
        if next == Next::Run {
            notify::status(&format!("step {}: {}", step.name, step.why));
        }
        next
    }

    fn working(&mut self, step: &Step, todo: &str) -> bool {
        // What stands before it was not looked at, and may be the cause: trying this one would take minutes, and blame it.
        if self.schedule.doubts(step.name) {
            return false;
        }
        console::announce(&working(step, todo));
        if let Some(known) = self.known.iter_mut().find(|known| known.step == step.name) {
            (known.observation, known.held, known.working) =
                (Some(Observation::Todo(todo.to_owned())), false, true);
        }
        self.publish();
        true
    }

    fn after(&mut self, step: &Step, outcome: &Outcome) {
        let is_doubted = self.schedule.doubts(step.name) && outcome.observation != Observation::Done;
        self.schedule.record(outcome, step.watch, Instant::now());
        if is_doubted {
            // Nothing is said of it before the next pass, which comes at once and looks at everything.
            self.schedule.reset();
            return;
        }
        if outcome.held_by.is_some() && self.schedule.comes_again() {
            return;
        }
        let is_news = note(&mut self.known, outcome);
        if is_news && outcome.held_by.is_none() {
            console::announce(&line(step, outcome));
        }
        self.publish();
    }
}

/// The beginning of a step's work as a person reads it.
fn working(step: &Step, todo: &str) -> String {
    format!("appliance: {:<7} {}: {}", "working", step.name, todo.replace('\n', " "))
}

/// One step's end as a person reads it.
fn line(step: &Step, outcome: &Outcome) -> String {
    let (word, why) = match &outcome.observation {
        Observation::Done => ("done", ""),
        Observation::Todo(why) => ("todo", why.as_str()),
        Observation::Waiting(why) => ("waiting", why.as_str()),
        Observation::Broken(why) => ("broken", why.as_str()),
    };
    let time = if outcome.applied {
        format!(" ({}.{} s)", outcome.millis / 1000, outcome.millis % 1000 / 100)
    } else {
        String::new()
    };
    let why = if why.is_empty() { String::new() } else { format!(": {}", why.replace('\n', " ")) };
    format!("appliance: {word:<7} {}{time}{why}", step.name)
}

/// Takes the lock; it ends with the process.
fn lock(root: &Path) -> Result<std::fs::File> {
    let file = durable::lock_file(&root.join(&LOCK[1..]))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .context("another `appliance` works on this machine: see `systemctl status appliance`")?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::{line, lock};
    use crate::engine::{Needs, Observation, Outcome};
    use crate::steps::STEPS;

    #[test]
    fn one_process_holds_the_lock() {
        let root = tempfile::tempdir().unwrap();
        let held = lock(root.path()).unwrap();
        assert!(lock(root.path()).is_err());
        drop(held);
        assert!(lock(root.path()).is_ok());
    }

    #[test]
    fn a_line_names_step_time_and_cause() {
        let step = &STEPS[0];
        let mut outcome = Outcome {
            step: step.name,
            needs: Needs::Local,
            observation: Observation::Done,
            applied: true,
            millis: 42_190,
            held_by: None,
        };
        assert_eq!(line(step, &outcome), "appliance: done    storage (42.1 s)");
        outcome.applied = false;
        outcome.observation = Observation::Broken("first\nsecond".to_owned());
        assert_eq!(line(step, &outcome), "appliance: broken  storage: first second");
    }

    #[test]
    fn steps_have_names_of_their_own() {
        let names: std::collections::BTreeSet<_> = STEPS.iter().map(|step| step.name).collect();
        assert_eq!(names.len(), STEPS.len());
    }
}
