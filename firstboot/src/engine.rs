//! The engine: observe, apply, observe again.
//!
//! The world (files, rows, sockets) is the truth; nothing here remembers that a step ran. A pass walks the list in order; a
//! local step that is not `Done` after its apply holds back every step behind it, a step that needs the network never does. So a
//! step stands behind those local steps alone that it cannot do without.

use std::time::{Duration, Instant};

use crate::context::Context;

/// [`Step::watch`] of what may fail at any moment, and costs little to look at.
pub const OFTEN: Duration = Duration::from_secs(10);
/// [`Step::watch`] of what may fail, and starts programs to be looked at.
pub const MINUTELY: Duration = Duration::from_secs(60);
/// [`Step::watch`] of what only a hand changes.
pub const HOURLY: Duration = Duration::from_secs(3600);

/// What a step sees of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// Nothing to do.
    Done,
    /// `apply` has something to do; the text says what.
    Todo(String),
    /// Something outside must change first; the text says what, and what the operator can do.
    Waiting(String),
    /// Cannot be mended by trying again; the text says why and what to do.
    Broken(String),
}

/// What a step needs from outside the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// Nothing: completes offline.
    Local,
    /// An address and a route.
    Link,
    /// DNS, a CA, a relay; a larger disk.
    World,
}

/// One step of first boot.
pub struct Step {
    /// Stable name, shown on the console and in `status.json`.
    pub name: &'static str,
    /// What it is for, in one line for the operator.
    pub why: &'static str,
    /// What it needs.
    pub needs: Needs,
    /// How often it is looked at while it is done.
    pub watch: Duration,
    /// Looks at the world; changes nothing.
    pub observe: fn(&Context) -> anyhow::Result<Observation>,
    /// Brings the world one commit point nearer; may be cut at any instruction.
    pub apply: fn(&Context) -> anyhow::Result<()>,
}

/// How one step ended in a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The step's name.
    pub step: &'static str,
    /// What it needs.
    pub needs: Needs,
    /// The last observation.
    pub observation: Observation,
    /// Whether `apply` ran.
    pub applied: bool,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// The local step that held this one back, so that it was not even looked at.
    pub held_by: Option<&'static str>,
}

/// What to do with a step that nothing holds back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Observe it, and apply it when there is something to do.
    Run,
    /// It is not due: its last observation still counts.
    Keep(Observation),
    /// End the pass here.
    Stop,
}

/// Who watches a pass, and decides which steps are due.
pub trait Watcher {
    /// Before a step.
    fn before(&mut self, step: &Step) -> Next;
    /// Before the work of a step that has something to do, with what that is: its work may take minutes. Whether it may begin.
    fn working(&mut self, step: &Step, todo: &str) -> bool;
    /// After a step that ran or was held back.
    fn after(&mut self, step: &Step, outcome: &Outcome);
}

/// Observes one step, applies it when there is something to do, and observes again. An error of either becomes `Broken` for a
/// local step and `Waiting` for the others, with the whole chain of causes as its text. `working` is called before an apply, with
/// what there is to do, and says whether it may begin.
pub fn converge(step: &Step, context: &Context, working: impl FnOnce(&str) -> bool) -> Outcome {
    let start = Instant::now();
    let (observation, applied) = match observe(step, context) {
        Observation::Todo(todo) if working(&todo) => match (step.apply)(context) {
            Ok(()) => (observe(step, context), true),
            Err(error) => (failed(step, &error), true),
        },
        other => (other, false),
    };
    let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    Outcome { applied, millis, ..Outcome::of(step, observation) }
}

impl Outcome {
    fn of(step: &Step, observation: Observation) -> Outcome {
        Outcome { step: step.name, needs: step.needs, observation, applied: false, millis: 0, held_by: None }
    }
}

fn observe(step: &Step, context: &Context) -> Observation {
    (step.observe)(context).unwrap_or_else(|error| failed(step, &error))
}

fn failed(step: &Step, error: &anyhow::Error) -> Observation {
    match step.needs {
        Needs::Local => Observation::Broken(format!("{error:#}")),
        Needs::Link | Needs::World => Observation::Waiting(format!("{error:#}")),
    }
}

/// One pass over the steps. Shorter than the list only when the watcher stopped it.
pub fn pass(steps: &[Step], context: &Context, watcher: &mut dyn Watcher) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(steps.len());
    for step in steps {
        let held_by = outcomes
            .iter()
            .find(|outcome| outcome.needs == Needs::Local && outcome.observation != Observation::Done)
            .map(|outcome| outcome.step);
        let outcome = if let Some(name) = held_by {
            let observation = Observation::Waiting(format!("for step `{name}`"));
            let outcome = Outcome { held_by, ..Outcome::of(step, observation) };
            watcher.after(step, &outcome);
            outcome
        } else {
            match watcher.before(step) {
                Next::Stop => break,
                Next::Keep(observation) => Outcome::of(step, observation),
                Next::Run => {
                    let outcome = converge(step, context, |todo| watcher.working(step, todo));
                    watcher.after(step, &outcome);
                    outcome
                }
            }
        };
        outcomes.push(outcome);
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use anyhow::bail;

    use super::{HOURLY, Needs, Next, Observation, Outcome, Step, Watcher, pass};
    use crate::context::tests::scratch_context;

    struct Everything;

    impl Watcher for Everything {
        fn before(&mut self, _: &Step) -> Next {
            Next::Run
        }

        fn working(&mut self, _: &Step, _: &str) -> bool {
            true
        }

        fn after(&mut self, _: &Step, _: &Outcome) {}
    }

    const DONE: Step = Step {
        name: "done",
        why: "",
        needs: Needs::Local,
        watch: HOURLY,
        observe: |_| Ok(Observation::Done),
        apply: |_| Ok(()),
    };

    fn fails(name: &'static str, needs: Needs) -> Step {
        let observe: fn(&_) -> _ = |_| Ok(Observation::Todo("it".to_owned()));
        Step { name, why: "", needs, watch: HOURLY, observe, apply: |_| bail!("no") }
    }

    fn texts(steps: &[Step]) -> Vec<String> {
        let (_guard, context) = scratch_context();
        let outcomes = pass(steps, &context, &mut Everything);
        outcomes.iter().map(|outcome| format!("{} {:?}", outcome.step, outcome.observation)).collect()
    }

    #[test]
    fn a_local_step_holds_back_what_is_behind_it_and_a_step_of_the_network_does_not() {
        assert_eq!(
            texts(&[
                fails("link", Needs::Link),
                DONE,
                fails("local", Needs::Local),
                DONE,
                fails("world", Needs::World)
            ]),
            [
                "link Waiting(\"no\")",
                "done Done",
                "local Broken(\"no\")",
                "done Waiting(\"for step `local`\")",
                "world Waiting(\"for step `local`\")",
            ]
        );
    }

    #[test]
    fn what_is_done_is_not_applied_and_what_was_applied_is_observed_again() {
        static APPLIED: AtomicUsize = AtomicUsize::new(0);
        let once = Step {
            observe: |_| {
                Ok(if APPLIED.load(Ordering::SeqCst) == 0 {
                    Observation::Todo("it".to_owned())
                } else {
                    Observation::Done
                })
            },
            apply: |_| {
                APPLIED.fetch_add(1, Ordering::SeqCst);
                Ok(())
            },
            ..DONE
        };
        let steps = [once];
        assert_eq!(texts(&steps), ["done Done"]);
        assert_eq!(texts(&steps), ["done Done"]);
        assert_eq!(APPLIED.load(Ordering::SeqCst), 1);
    }
}
