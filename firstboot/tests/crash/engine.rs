//! First boot's steps, in the order of the program, under a plan of the fault layer.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use firstboot::context::Context;
use firstboot::durable::faults::{self, Loss, Plan};
use firstboot::engine::{Needs, Observation, Step, converge};
use firstboot::{channels, steps};

use crate::scene;

/// The step that asks an authority.
pub const CERTIFICATE: &str = "certificate";
/// The step that takes new settings on trial.
pub const NETWORK: &str = "network";

/// What needs more than the machine, and finds it in [`crate::world`] and among the stand-ins.
const BEYOND: [&str; 4] = [NETWORK, CERTIFICATE, "owner", "mail"];

/// How often a step is tried: what failed once because a server was just starting is not a fault.
const TRIES: usize = 4;

/// The steps that are run, in their order.
pub fn steps() -> Vec<&'static Step> {
    let is_run = |step: &&Step| step.needs == Needs::Local || BEYOND.contains(&step.name);
    steps::STEPS.iter().filter(is_run).collect()
}

/// The number of a step among them.
pub fn number(name: &str) -> Result<usize> {
    steps().iter().position(|step| step.name == name).with_context(|| format!("no step is called {name}"))
}

/// Arguments: the numbers of the first step under the plan and of the last step to run, the operation to end after (0 for none),
/// and what is lost. Prints the operations.
pub fn run(args: &[String]) -> Result<u8> {
    let [first, last, at, loss] = args else { bail!("four arguments, not {}", args.len()) };
    let (first, last, at): (usize, usize, u64) = (first.parse()?, last.parse()?, at.parse()?);
    let loss = match loss.as_str() {
        "nothing" => Loss::Nothing,
        "all" => Loss::All,
        seed => Loss::Some(seed.parse()?),
    };
    let mut context = Context { root: "/".into(), facts: scene::facts()?, settings: None };
    let mut is_booted = false;
    for (number, step) in steps().into_iter().enumerate().take(last + 1) {
        if number == first && at > 0 {
            faults::arm(Plan { at, loss });
        }
        // As the unit `appliance-early` is ordered: storage and identity, then the services, then everything else. Of the other early
        // steps one changes nothing that outlives a boot, and the other is early for the sake of what is served.
        if !is_booted && step.name != "storage" && step.name != "identity" {
            let booted = Command::new("/usr/local/sbin/systemctl").arg("boot").status()?;
            is_booted = booted.success();
        }
        if step.name == "configuration" {
            context.settings = channels::adopt(Path::new("/"))?.found.map(|(settings, _)| settings);
        }
        let mut outcome = converge(step, &context, |_| true);
        for _ in 1..TRIES {
            if outcome.observation != Observation::Done {
                // After an order that a cut has ended it pauses for half a minute, unless the operator types `appliance renew`.
                if step.name == CERTIFICATE {
                    steps::certificate::forget_failures(&context)?;
                }
                outcome = converge(step, &context, |_| true);
            }
        }
        if outcome.observation != Observation::Done {
            bail!("step `{}` does not converge: {:?}", step.name, outcome.observation);
        }
    }
    for operation in faults::operations() {
        println!("OPERATION {operation}");
    }
    println!("DONE");
    Ok(0)
}
