//! Sidekiq, which has no port: every process of it tells Redis every few seconds that it lives, what queues it works on and with how
//! many threads.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::resp::Connection;

/// The queues of the application.
pub(super) const QUEUES: [&str; 4] = ["default", "mailers", "pull", "push"];

/// Sidekiq writes its heartbeat every 5 (later versions: 10) seconds and forgets it after 60.
const OLDEST_BEAT: f64 = 60.0;

/// More processes than this are not looked at.
const MOST: usize = 100;

/// What one process has told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    queues: Vec<String>,
    concurrency: u64,
}

/// What must be seen of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    /// The one queue; all of them when `None`.
    pub(super) queue: Option<&'static str>,
    /// Threads.
    pub(super) concurrency: u16,
}

impl Wish {
    /// Whether a process is this unit's. Some versions of the application have further queues.
    fn is_of(self, process: &Process) -> bool {
        QUEUES.iter().all(|queue| {
            let is_wanted = self.queue.is_none_or(|wanted| wanted == *queue);
            process.queues.iter().any(|found| found == queue) == is_wanted
        })
    }

    /// What is wrong with a unit.
    pub(super) fn check(self, processes: &[Process]) -> Result<()> {
        let wanted = u64::from(self.concurrency);
        let own: Vec<&Process> = processes.iter().filter(|process| self.is_of(process)).collect();
        match (own.first(), own.iter().any(|process| process.concurrency == wanted)) {
            (_, true) => Ok(()),
            (Some(process), false) => {
                bail!("Sidekiq runs with {} threads instead of {wanted}", process.concurrency)
            }
            (None, _) => {
                let of = self.queue.map_or(String::new(), |queue| format!(" for the queue `{queue}`"));
                bail!("Sidekiq has not reported to Redis{of} in the last {OLDEST_BEAT} s")
            }
        }
    }

    /// Whether a unit runs, but as it was told earlier.
    pub(super) fn is_outdated(self, processes: &[Process]) -> bool {
        processes.iter().any(|process| self.is_of(process)) && self.check(processes).is_err()
    }
}

/// The processes that have reported lately.
pub(super) fn processes(redis: SocketAddr) -> Result<Vec<Process>> {
    let mut connection = Connection::open(redis)?;
    let names = connection.command(&["SMEMBERS", "processes"])?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("reading the clock")?.as_secs_f64();
    let mut found = Vec::new();
    for name in names.texts().into_iter().take(MOST) {
        let beat = connection.command(&["HGET", name, "beat"])?;
        let beat = beat.texts().first().and_then(|text| text.parse::<f64>().ok());
        if beat.is_some_and(|beat| (now - beat).abs() < OLDEST_BEAT) {
            let info = connection.command(&["HGET", name, "info"])?;
            found.extend(info.texts().first().and_then(|text| parse(text)));
        }
    }
    Ok(found)
}

fn parse(info: &str) -> Option<Process> {
    let info: Value = serde_json::from_str(info).ok()?;
    let queues = info.get("queues")?.as_array()?.iter();
    Some(Process {
        queues: queues.filter_map(Value::as_str).map(str::to_owned).collect(),
        concurrency: info.get("concurrency")?.as_u64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Wish, parse};

    #[test]
    fn a_process_is_known_by_its_queues() {
        let info = |queues: &str, threads: u32| {
            parse(&format!(r#"{{"hostname":"a","queues":[{queues}],"concurrency":{threads},"pid":7}}"#))
                .unwrap()
        };
        let all = info(r#""default","mailers","pull","push","scheduler""#, 10);
        let push = info(r#""push""#, 5);
        let wish = |queue, concurrency| Wish { queue, concurrency };
        for (wish, processes, expected) in [
            (wish(None, 10), vec![all.clone()], ""),
            (wish(None, 10), vec![push.clone()], "Sidekiq has not reported to Redis in the last 60 s"),
            (wish(None, 25), vec![all.clone()], "Sidekiq runs with 10 threads instead of 25"),
            (wish(Some("push"), 5), vec![all.clone(), push.clone()], ""),
            (
                wish(Some("pull"), 5),
                vec![all.clone(), push.clone()],
                "Sidekiq has not reported to Redis for the queue `pull` in the last 60 s",
            ),
        ] {
            let said = wish.check(&processes).err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(said, expected, "{wish:?}");
            assert_eq!(wish.is_outdated(&processes), expected.contains("threads"));
        }
        for broken in ["", "{}", r#"{"queues":1,"concurrency":1}"#, r#"{"queues":[]}"#] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }
}
