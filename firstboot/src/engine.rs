//! The engine: observe, apply, observe again.
//!
//! The world (files, rows, sockets) is the truth; nothing here remembers that a step ran. A pass walks the list in order; a
//! local step that is not `Done` after its apply holds back the local steps behind it, a step that needs the network never does.

use crate::context::Context;

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
    /// DNS, a CA, a relay.
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
}

/// Observes one step, applies it when there is something to do, and observes again. An error of either becomes `Broken` for a
/// local step and `Waiting` for the others, with the whole chain of causes as its text.
pub fn converge(step: &Step, context: &Context) -> Outcome {
    let start = std::time::Instant::now();
    let (observation, applied) = match observe(step, context) {
        Observation::Todo(_) => match (step.apply)(context) {
            Ok(()) => (observe(step, context), true),
            Err(error) => (failed(step, &error), true),
        },
        other => (other, false),
    };
    let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    Outcome { step: step.name, needs: step.needs, observation, applied, millis }
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

/// One pass over the steps. `report` is called before (`None`) and after each.
pub fn pass(
    steps: &[Step],
    context: &Context,
    mut report: impl FnMut(&Step, Option<&Outcome>),
) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(steps.len());
    for step in steps {
        let held_by = outcomes
            .iter()
            .find(|outcome| outcome.needs == Needs::Local && outcome.observation != Observation::Done)
            .map(|outcome| outcome.step);
        let outcome = if let Some(name) = held_by {
            let observation = Observation::Waiting(format!("for step `{name}`"));
            Outcome { step: step.name, needs: step.needs, observation, applied: false, millis: 0 }
        } else {
            report(step, None);
            converge(step, context)
        };
        report(step, Some(&outcome));
        outcomes.push(outcome);
    }
    outcomes
}
