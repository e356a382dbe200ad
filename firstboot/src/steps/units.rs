//! Step `units`: the three services of the instance run, start at every boot, and answer.
//!
//! The marker `/var/lib/appliance/ready`, a condition in each unit, says that their data is there; with it and the links of
//! `systemctl enable` they come back at every boot without first boot. Done is what was seen to answer, not what systemd calls
//! active.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use fs_err as fs;

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::resp::Connection;
use crate::steps::redis;
use crate::{durable, http, sql, systemd};

/// The step.
pub const STEP: Step = Step {
    name: "units",
    why: "the services that are the instance: background jobs, web and streaming",
    needs: Needs::Local,
    watch: engine::MINUTELY,
    observe,
    apply,
};

/// The services, in the order in which they are started.
pub const NAMES: [&str; 3] =
    ["mastodon-sidekiq.service", "mastodon-web.service", "mastodon-streaming.service"];

/// Where the web service and the streaming service answer. Literal IPv4: that is what they bind.
const WEB: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3000);
const STREAMING: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4000);

/// How long all three may take to answer: Rails under emulation is slow.
const START: Duration = Duration::from_secs(300);

/// How long a service may run without an answer before it counts as hung. Longer than [`START`]: one that is only slow must not be
/// thrown back to its beginning for ever.
const HUNG: Duration = Duration::from_secs(900);

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sidekiq writes its heartbeat every 5 (later versions: 10) seconds and forgets it after 60.
const OLDEST_BEAT: f64 = 60.0;

fn observe(context: &Context) -> Result<Observation> {
    if !context.state().join("ready").is_file() {
        return Ok(Observation::Todo("the services were never started".to_owned()));
    }
    for unit in NAMES {
        if !has_drop_in(context, unit) {
            return Ok(Observation::Todo(format!("unit `{unit}` does not know what it needs")));
        }
        if !systemd::is_enabled(unit) {
            return Ok(Observation::Todo(format!("unit `{unit}` is not enabled")));
        }
    }
    Ok(match unhealthy(context)? {
        None => Observation::Done,
        Some((_, error)) => Observation::Todo(format!("{error:#}")),
    })
}

fn apply(context: &Context) -> Result<()> {
    let mut changed = false;
    for unit in NAMES {
        let text = drop_in(context);
        changed |= durable::write(&drop_in_path(context, unit), text.as_bytes(), 0o644, None)?;
    }
    if changed {
        systemd::daemon_reload()?;
    }
    durable::write(&context.state().join("ready"), b"", 0o644, None)?;
    for unit in NAMES {
        systemd::enable(unit)?;
    }
    for unit in NAMES {
        systemd::start(unit)?;
    }
    wait_until_they_answer(context)
}

fn wait_until_they_answer(context: &Context) -> Result<()> {
    let start = Instant::now();
    while let Some((unit, error)) = unhealthy(context)? {
        if systemd::is_failed(unit) || start.elapsed() > START {
            if systemd::active_for(unit).is_some_and(|time| time > HUNG) {
                systemd::restart(unit)?;
            }
            return Err(error.context(format!(
                "unit `{unit}` does not answer; `journalctl --unit {unit}` shows its last lines"
            )));
        }
        std::thread::sleep(Duration::from_secs(2));
    }
    Ok(())
}

/// The first service that does not answer as it should, and what it did.
fn unhealthy(context: &Context) -> Result<Option<(&'static str, anyhow::Error)>> {
    let domain = context.settings()?.domain.as_str();
    for unit in NAMES {
        if !systemd::is_active(unit) {
            return Ok(Some((unit, anyhow::anyhow!("unit `{unit}` is not running"))));
        }
    }
    let results = [
        heartbeat(),
        status(WEB, domain, "/api/v1/instance", 200),
        // Without a token the streaming service refuses; only it itself can do so.
        status(STREAMING, domain, "/api/v1/streaming/public", 401),
    ];
    Ok(NAMES.into_iter().zip(results).find_map(|(unit, result)| result.err().map(|error| (unit, error))))
}

fn status(address: SocketAddr, domain: &str, path: &str, expected: u16) -> Result<()> {
    let answer = http::get(address, domain, path, PATIENCE)?;
    if answer.status != expected {
        bail!("`http://{address}{path}` answered {} instead of {expected}", answer.status);
    }
    if !answer.body.trim_start().starts_with('{') {
        bail!("`http://{address}{path}` did not answer with JSON");
    }
    Ok(())
}

/// Sidekiq has no port; it tells Redis that it lives.
fn heartbeat() -> Result<()> {
    let mut connection = Connection::open(redis::ADDRESSES[0])?;
    let processes = connection.command(&["SMEMBERS", "processes"])?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("reading the clock")?.as_secs_f64();
    for process in processes.texts() {
        let beat = connection.command(&["HGET", process, "beat"])?;
        let beat = beat.texts().first().and_then(|text| text.parse::<f64>().ok());
        if beat.is_some_and(|beat| (now - beat).abs() < OLDEST_BEAT) {
            return Ok(());
        }
    }
    bail!("Sidekiq has not reported to Redis in the last {OLDEST_BEAT} s")
}

fn drop_in_path(context: &Context, unit: &str) -> std::path::PathBuf {
    context.path(&format!("/etc/systemd/system/{unit}.d/appliance.conf"))
}

fn has_drop_in(context: &Context, unit: &str) -> bool {
    fs::read(drop_in_path(context, unit)).is_ok_and(|found| found == drop_in(context).as_bytes())
}

fn drop_in(context: &Context) -> String {
    // A database server elsewhere is no unit, and ours must not start for nothing then.
    let units: Vec<&str> =
        sql::unit(context).into_iter().chain([context.facts.redis.unit.as_str()]).collect();
    let needs = units.join(" ");
    format!(
        "# Written by the appliance; a change here is undone.\n\
        [Unit]\n\
        # Storage and identity first, then the services of this image.\n\
        After=appliance-early.service {needs}\n\
        Wants={needs}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::{NAMES, drop_in, observe};
    use crate::context::tests::scratch_context;
    use crate::engine::Observation;

    #[test]
    fn a_fresh_machine_has_everything_to_do() {
        let (_guard, context) = scratch_context();
        assert_eq!(
            observe(&context).unwrap(),
            Observation::Todo("the services were never started".to_owned())
        );
    }

    #[test]
    fn the_drop_in_names_the_images_units() {
        let (_guard, context) = scratch_context();
        let text = drop_in(&context);
        assert!(text.contains("\nWants=postgresql@15-main.service redis-server.service\n"), "{text}");
        assert_eq!(testkit::systemd219::faults(&text), [""; 0]);
        assert_eq!(NAMES[0], "mastodon-sidekiq.service");
    }
}
