//! What is new in the appliance's verdict since the last look, for people who wait: a line for each step that has come to its end
//! and for each reason to wait.

use std::collections::BTreeSet;

use serde_json::Value;

/// What has been told already.
#[derive(Debug, Default)]
pub struct Progress {
    told: BTreeSet<String>,
}

impl Progress {
    /// Lines for what a verdict says and the ones before did not.
    pub fn news(&mut self, status: &Value) -> Vec<String> {
        let lines = done(status).into_iter().chain(waiting(status));
        lines.filter(|line| self.told.insert(line.clone())).collect()
    }
}

fn done(status: &Value) -> Vec<String> {
    let steps = status["steps"].as_object().into_iter().flatten();
    steps
        .filter(|(_, state)| *state == "done")
        .map(|(name, _)| match status["seconds"][name].as_f64() {
            Some(seconds) => format!("{name} done in {seconds:.1} s"),
            None => format!("{name} done"),
        })
        .collect()
}

fn waiting(status: &Value) -> Vec<String> {
    let waiting = status["waiting"].as_array().into_iter().flatten();
    waiting
        .filter_map(|entry| Some(format!("{} waits: {}", entry["step"].as_str()?, entry["why"].as_str()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_change_is_told_once() {
        let mut progress = Progress::default();
        let seconds = json!({ "network": 2.04 });
        let first = json!({ "steps": { "network": "done", "redis": "todo" }, "seconds": seconds });
        assert_eq!(progress.news(&first), ["network done in 2.0 s"]);
        let waiting = json!([{ "step": "certificate", "why": "no AAAA record" }]);
        let second = json!({ "steps": { "network": "done", "redis": "done" }, "seconds": seconds, "waiting": waiting });
        assert_eq!(progress.news(&second), ["redis done", "certificate waits: no AAAA record"]);
        assert!(progress.news(&second).is_empty());
    }
}
