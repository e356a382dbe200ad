//! Step `clone`: whether this machine is the one that it was set up as.
//!
//! A hypervisor gives every machine a mark of its own, and a copy another one. The mark of the first boot is remembered with the state;
//! when it differs, either a machine was copied while the original lives on, or it was moved, or restored from a backup. Nothing tells
//! these apart, and the answers differ: two machines with one machine-id and the same SSH host keys are a danger, two instances that
//! deliver the same mail and the same posts are worse, and new keys for a machine that was only moved alarm everybody who logs in. So
//! the operator is asked, and until then the instance's services stay where they are. Network and SSH come up, to answer over.
//!
//! Secrets, domain and database are never made anew: what is copied may be all that is left of them.
//!
//! A machine without a mark is never asked, nor is one whose system disk was replaced while its mark stayed, nor a copy of a machine
//! that was no instance yet: that one simply gets an identity of its own.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::settings::OnClone;
use crate::steps::identity;
use crate::{console, durable};

/// The step.
pub const STEP: Step = Step {
    name: "clone",
    why: "asks what this machine is when its disks were copied from another one",
    needs: Needs::Local,
    watch: engine::HOURLY,
    observe,
    apply,
};

/// Where the mark of the first boot lies, with the state.
const RECORD: &str = "var/lib/appliance/hardware.json";
/// Where the operator's answer lies.
const ANSWER: &str = "var/lib/appliance/identity-answer.json";
/// Without it the instance's services do not start.
const READY: &str = "var/lib/appliance/ready";
/// With it the machine is an instance.
const SECRETS: &str = "var/lib/appliance/secrets";

/// Where the kernel shows the mark: by the firmware's tables, by Xen.
const MARKS: [&str; 2] = ["sys/class/dmi/id/product_uuid", "sys/hypervisor/uuid"];

/// Marks that makers of boards and hypervisors have left in all their machines. Those of equal digits need no list.
const NO_MARKS: [&str; 5] = [
    "03000200-0400-0500-0006-000700080009",
    "00020003-0004-0005-0006-000700080009",
    "03020100-0504-0706-0809-0a0b0c0d0e0f",
    "12345678-1234-5678-90ab-cddeefaabbcc",
    "00112233-4455-6677-8899-aabbccddeeff",
];

/// The machine that the state was made on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Record {
    /// The hypervisor's mark.
    mark: String,
    /// The machine-id, which tells a copied system disk from a new one.
    machine_id: String,
}

/// What the operator answered, for the hardware that it was asked on: a later copy asks again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Answered {
    mark: String,
    answer: Answer,
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It takes the place of the former machine, which is no more: moved, or restored
    Keep,
    /// Both machines stay: this one gets a machine-id and SSH host keys of its own
    New,
}

/// What the marks say.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// Nothing: there is no mark, or it is the remembered one.
    Same,
    /// This is the first boot.
    First(Record),
    /// Another machine.
    Other {
        /// The one that is remembered.
        before: Record,
        /// This one.
        now: Record,
    },
}

fn observe(context: &Context) -> Result<Observation> {
    Ok(match look(&context.root)? {
        Seen::Same => Observation::Done,
        Seen::First(_) => Observation::Todo("remember the hypervisor's mark of this machine".to_owned()),
        Seen::Other { before, now } => match answer(context, &now.mark) {
            Some(Answer::Keep) => Observation::Todo("take the place of the former machine".to_owned()),
            Some(Answer::New) => Observation::Todo("give this copy an identity of its own".to_owned()),
            None => Observation::Waiting(question(&before, &now)),
        },
    })
}

fn apply(context: &Context) -> Result<()> {
    let now = match look(&context.root)? {
        Seen::Same => return Ok(()),
        Seen::First(now) => now,
        Seen::Other { now, .. } => match answer(context, &now.mark) {
            None => return Ok(()),
            Some(Answer::Keep) => {
                console::announce("appliance: note    clone: this machine takes the place of the former one");
                now
            }
            Some(Answer::New) => {
                identity::renew(context)?;
                console::announce(
                    "appliance: note    clone: this machine has a machine-id and SSH host keys of its own; restart it once, so that every \
                     program has read them",
                );
                Record { machine_id: machine_id(&context.root), ..now }
            }
        },
    };
    // The commit point: a cut before it asks, or begins, again.
    write(&context.root.join(RECORD), &now)?;
    durable::remove(&context.root.join(ANSWER))
}

/// Whether the services must stay down in this boot because a question is open. A record that cannot be read is one; which it is says
/// the step itself.
pub(super) fn is_open(context: &Context) -> bool {
    match look(&context.root) {
        Ok(Seen::Other { now, .. }) => answer(context, &now.mark).is_none(),
        Ok(_) => false,
        Err(_) => true,
    }
}

/// Whether the services would start, question or not.
pub(super) fn is_released(context: &Context) -> bool {
    context.root.join(READY).exists()
}

/// Keeps the services down until first boot starts them.
pub(super) fn hold(context: &Context) -> Result<()> {
    durable::remove(&context.root.join(READY))
}

/// Takes the operator's answer. The step carries it out.
pub fn reply(root: &Path, answer: Answer) -> Result<()> {
    let Seen::Other { now, .. } = look(root)? else {
        bail!("there is nothing to answer: this machine is the one that it was set up as");
    };
    write(&root.join(ANSWER), &Answered { mark: now.mark, answer })
}

/// The answer for this machine: what was replied, else what the settings say for every copy.
fn answer(context: &Context, mark: &str) -> Option<Answer> {
    if !context.root.join(SECRETS).exists() {
        return Some(Answer::New);
    }
    let replied = fs::read_to_string(context.root.join(ANSWER)).ok();
    let replied = replied.and_then(|text| serde_json::from_str::<Answered>(&text).ok());
    if let Some(replied) = replied.filter(|replied| replied.mark == mark) {
        return Some(replied.answer);
    }
    match context.settings.as_ref().map(|settings| settings.on_clone) {
        Some(OnClone::Keep) => Some(Answer::Keep),
        Some(OnClone::New) => Some(Answer::New),
        Some(OnClone::Ask) | None => None,
    }
}

fn question(before: &Record, now: &Record) -> String {
    let guess = if before.machine_id == now.machine_id {
        "all its disks came from another machine: it is a copy, or was restored as a whole"
    } else {
        "its data disk came from another machine, with a system disk of its own: it was moved or restored, or the disk was copied"
    };
    format!(
        "this is not the machine that the instance was set up on (hardware `{}`, now `{}`): {guess}. The instance is not started before you \
         answer: `appliance identity keep` if this machine takes the place of the former one, which must never run again; `appliance \
         identity new` if both stay, for a machine-id and SSH host keys of its own. Either way it keeps secrets, domain and database, so two of \
         one domain must not both reach the internet. Without a login, give `on-clone = \"keep\"` or `\"new\"` by any channel of the \
         configuration",
        before.mark, now.mark
    )
}

fn look(root: &Path) -> Result<Seen> {
    let Some(mark) = mark(root) else { return Ok(Seen::Same) };
    let now = Record { mark, machine_id: machine_id(root) };
    let path = root.join(RECORD);
    if !path.exists() {
        return Ok(Seen::First(now));
    }
    let text = fs::read_to_string(&path)?;
    let before: Record = serde_json::from_str(&text).with_context(|| {
        format!(
            "reading `{}`: remove it, if these disks were not copied from another machine",
            path.display()
        )
    })?;
    let is_same = before.mark == now.mark || swapped(&before.mark) == now.mark;
    Ok(if is_same { Seen::Same } else { Seen::Other { before, now } })
}

/// The hypervisor's mark; `None` when it gives none that tells machines apart.
fn mark(root: &Path) -> Option<String> {
    MARKS.iter().find_map(|path| usable(&fs::read_to_string(root.join(path)).ok()?))
}

/// A UUID in small letters, if it is one and not a placeholder.
fn usable(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let parts: Vec<&str> = text.split('-').collect();
    let has_shape = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let digits = text.replace('-', "");
    // Also `fefefe…`, which is one byte again and again.
    let is_one_byte = digits.as_bytes().chunks(2).all(|byte| byte == &digits.as_bytes()[..2]);
    (has_shape && !is_one_byte && !NO_MARKS.contains(&text.as_str())).then_some(text)
}

/// The same mark with the first three fields read from the other end: that changes with the version of the firmware's tables, for
/// instance when VMware's hardware version is raised.
fn swapped(mark: &str) -> String {
    let mut parts: Vec<String> = mark.split('-').map(str::to_owned).collect();
    for part in parts.iter_mut().take(3) {
        let bytes: Vec<&str> = (0..part.len() / 2).map(|byte| &part[2 * byte..2 * byte + 2]).collect();
        *part = bytes.into_iter().rev().collect();
    }
    parts.join("-")
}

fn machine_id(root: &Path) -> String {
    fs::read_to_string(root.join("etc/machine-id")).unwrap_or_default().trim().to_owned()
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_string(value).context("writing what is known of this machine")?;
    durable::write(path, format!("{text}\n").as_bytes(), 0o600, None).map(drop)
}

#[cfg(test)]
mod tests;
