//! What the operator and the tests are told: one object, on the console, in `/run/appliance/status.json`, in a table.
//!
//! No secret can be in it: it is made of the domain, names of steps, and the texts of observations.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::durable;
use crate::engine::{Needs, Observation};

/// Where the object lies in the guest.
pub const PATH: &str = "/run/appliance/status.json";
/// What the line on the console begins with.
pub const PREFIX: &str = "APPLIANCE-VERDICT ";

/// All in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All is done.
    Green,
    /// The instance serves; something outside is waited for.
    Amber,
    /// It does not serve, or not fully.
    Red,
}

impl Verdict {
    /// The word with what it means.
    pub fn sentence(self) -> &'static str {
        match self {
            Verdict::Green => "green: all is well",
            Verdict::Amber => "amber: the instance serves, and waits for something outside",
            Verdict::Red => "red: the instance is not ready",
        }
    }
}

/// What is known of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The step's name.
    pub step: &'static str,
    /// What it needs.
    pub needs: Needs,
    /// How it was seen last; `None` before it was looked at.
    pub observation: Option<Observation>,
    /// Held back by another step, which has the cause.
    pub held: bool,
    /// Its work is going on.
    pub working: bool,
    /// How long its work has taken, in milliseconds; `None` when it had none.
    pub millis: Option<u64>,
}

/// The object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// All in one word.
    pub verdict: Verdict,
    /// The instance's name, once it is known.
    pub domain: Option<String>,
    /// Where it answers.
    pub url: Option<String>,
    /// `done`, `working`, `waiting`, `broken` or `todo`, in the order of the steps.
    #[serde(serialize_with = "in_order")]
    pub steps: Vec<(String, String)>,
    /// What is waited for, or broken, and why; without those that only wait for one of these.
    pub waiting: Vec<Why>,
    /// How long the work of each step took.
    #[serde(serialize_with = "in_order")]
    pub seconds: Vec<(String, f64)>,
}

/// Why one step is not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// The step's name.
    pub step: String,
    /// The cause, and what the operator can do.
    pub why: String,
}

impl Status {
    /// The object for what is known.
    pub fn of(domain: Option<&str>, known: &[Known]) -> Status {
        let is_done = |known: &Known| known.observation == Some(Observation::Done);
        let verdict = if known.iter().all(is_done) {
            Verdict::Green
        } else if known.iter().filter(|known| known.needs == Needs::Local).all(is_done) {
            Verdict::Amber
        } else {
            Verdict::Red
        };
        let why = |known: &Known| match &known.observation {
            Some(Observation::Waiting(why) | Observation::Broken(why)) if !known.held => {
                Some(Why { step: known.step.to_owned(), why: why.clone() })
            }
            Some(Observation::Todo(why)) if known.working => {
                Some(Why { step: known.step.to_owned(), why: format!("is being worked on: {why}") })
            }
            // Only what was applied and then looked at again is seen like this.
            Some(Observation::Todo(why)) if !known.held => Some(Why {
                step: known.step.to_owned(),
                why: format!("not done yet, although it was tried: {why}"),
            }),
            _ => None,
        };
        // OK: a duration in milliseconds is far below the 2^52 that a float holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "durations are small")]
        let seconds =
            |known: &Known| known.millis.map(|millis| (known.step.to_owned(), millis as f64 / 1000.0));
        Status {
            verdict,
            domain: domain.map(str::to_owned),
            url: domain.map(|domain| format!("https://{domain}/")),
            steps: known.iter().map(|known| (known.step.to_owned(), word(known).to_owned())).collect(),
            waiting: known.iter().filter_map(why).collect(),
            seconds: known.iter().filter_map(seconds).collect(),
        }
    }

    /// The object as one line of JSON.
    pub fn json(&self) -> Result<String> {
        serde_json::to_string(self).context("writing the status as JSON")
    }

    /// Puts the object where other programs read it.
    pub fn publish(&self, root: &Path) -> Result<()> {
        durable::write(&root.join(&PATH[1..]), format!("{}\n", self.json()?).as_bytes(), 0o644, None)?;
        Ok(())
    }
}

fn word(known: &Known) -> &'static str {
    match known.observation {
        _ if known.working => "working",
        None | Some(Observation::Todo(_)) => "todo",
        Some(Observation::Done) => "done",
        Some(Observation::Waiting(_)) => "waiting",
        Some(Observation::Broken(_)) => "broken",
    }
}

fn in_order<S: Serializer, V: Serialize>(pairs: &[(String, V)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(pairs.len()))?;
    for (key, value) in pairs {
        map.serialize_entry(key, value)?;
    }
    map.end()
}

/// How long the work of each step took, in milliseconds, by the object that is published; empty when there is none.
pub fn published_seconds(root: &Path) -> BTreeMap<String, u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float cast saturates")]
    let millis = |(step, seconds): (String, f64)| (step, (seconds * 1000.0).round() as u64);
    let published = fs_err::read_to_string(root.join(&PATH[1..])).ok();
    let published = published.and_then(|json| serde_json::from_str::<Published>(&json).ok());
    published.map(|published| published.seconds.into_iter().map(millis).collect()).unwrap_or_default()
}

/// The object as it is read back; its maps lose their order.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Published {
    verdict: Verdict,
    #[serde(rename = "domain")]
    _domain: Option<String>,
    url: Option<String>,
    steps: BTreeMap<String, String>,
    waiting: Vec<Why>,
    seconds: BTreeMap<String, f64>,
}

/// A published object, as a person reads it: the verdict, a line for each step, and the causes in full.
pub fn table(json: &str, steps: &[crate::engine::Step]) -> Result<String> {
    let published: Published = serde_json::from_str(json).context("reading the status")?;
    let mut text = format!("{}\n", published.verdict.sentence());
    // OK: writing to a string cannot fail.
    if let Some(url) = &published.url {
        let _ = writeln!(text, "{url}");
    }
    text.push('\n');
    for step in steps {
        let word = published.steps.get(step.name).map_or("todo", String::as_str);
        let seconds =
            published.seconds.get(step.name).map(|seconds| format!("{seconds:.1} s")).unwrap_or_default();
        let _ = writeln!(text, "{word:<8} {:<14} {seconds:>9}  {}", step.name, step.why);
    }
    for Why { step, why } in &published.waiting {
        let _ = write!(text, "\n{step}: {why}\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::{Known, Status, Verdict, published_seconds, table};
    use crate::engine::{HOURLY, Needs, Observation, Step};

    fn known(step: &'static str, needs: Needs, observation: Option<Observation>) -> Known {
        Known { step, needs, observation, held: false, working: false, millis: Some(12_345) }
    }

    #[test]
    fn the_verdict_follows_from_the_local_steps_first() {
        let (done, todo) = (Some(Observation::Done), Some(Observation::Todo(String::new())));
        let waits = Some(Observation::Waiting("for it".to_owned()));
        for (local, world, expected) in [
            (&done, &done, Verdict::Green),
            (&done, &waits, Verdict::Amber),
            (&done, &None, Verdict::Amber),
            (&waits, &done, Verdict::Red),
            (&todo, &done, Verdict::Red),
            (&None, &None, Verdict::Red),
        ] {
            let known = [known("a", Needs::Local, local.clone()), known("b", Needs::World, world.clone())];
            assert_eq!(Status::of(None, &known).verdict, expected, "{local:?} {world:?}");
        }
    }

    #[test]
    fn a_step_that_its_work_did_not_finish_shows_why() {
        let todo = Some(Observation::Todo("`file` differs".to_owned()));
        let status = Status::of(None, &[known("environment", Needs::Local, todo)]);
        assert_eq!(status.waiting[0].why, "not done yet, although it was tried: `file` differs");
    }

    #[test]
    fn the_object_keeps_the_order_of_the_steps() {
        let mut steps = vec![
            known("storage", Needs::Local, Some(Observation::Broken("damaged".to_owned()))),
            known("network", Needs::Link, None),
            known("database", Needs::Local, Some(Observation::Waiting("for step `storage`".to_owned()))),
        ];
        steps[2].held = true;
        steps[1].millis = None;
        let json = Status::of(Some("a.example"), &steps).json().unwrap();
        let root = tempfile::tempdir().unwrap();
        assert!(published_seconds(root.path()).is_empty());
        Status::of(None, &steps).publish(root.path()).unwrap();
        assert_eq!(published_seconds(root.path())["storage"], 12_345);
        insta::assert_snapshot!(json, @r#"{"verdict":"red","domain":"a.example","url":"https://a.example/","steps":{"storage":"broken","network":"todo","database":"waiting"},"waiting":[{"step":"storage","why":"damaged"}],"seconds":{"storage":12.345,"database":12.345}}"#);
        let step = |name| Step {
            name,
            why: "does it",
            needs: Needs::Local,
            watch: HOURLY,
            observe: |_| Ok(Observation::Done),
            apply: |_| Ok(()),
        };
        insta::assert_snapshot!(table(&json, &[step("storage"), step("network"), step("database")]).unwrap(), @"
        red: the instance is not ready
        https://a.example/

        broken   storage           12.3 s  does it
        todo     network                   does it
        waiting  database          12.3 s  does it

        storage: damaged
        ");
    }
}
