//! Step `units`: the services of the instance run, start at every boot, and answer.
//!
//! The marker `/var/lib/appliance/ready`, a condition in each unit, says that their data is there; with it and the links of
//! `systemctl enable` they come back at every boot without first boot. Done is what was seen to answer, not what systemd calls
//! active. The background jobs are one process or, with `sidekiq.split`, one a queue; the units of the way that is not wanted are
//! stopped and start no more, since two processes would load one schedule.

mod sidekiq;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use fs_err as fs;

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::settings::Settings;
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

/// All services that an instance may have, in the order in which they are started.
pub const ALL: [&str; 7] = [
    "mastodon-sidekiq.service",
    "mastodon-sidekiq@default.service",
    "mastodon-sidekiq@mailers.service",
    "mastodon-sidekiq@pull.service",
    "mastodon-sidekiq@push.service",
    "mastodon-web.service",
    "mastodon-streaming.service",
];

/// The services that these settings want, in the order in which they are started.
pub fn wanted(settings: &Settings) -> Vec<&'static str> {
    ALL.into_iter().filter(|unit| is_wanted(settings, unit)).collect()
}

fn is_wanted(settings: &Settings, unit: &str) -> bool {
    jobs(settings, unit).is_none_or(|wish| wish.queue.is_some() == settings.sidekiq.split)
}

/// What must be seen of a unit, if it is one of the background jobs.
fn jobs(settings: &Settings, unit: &str) -> Option<sidekiq::Wish> {
    let name = unit.strip_prefix("mastodon-sidekiq")?.strip_suffix(".service")?;
    let queue = name.strip_prefix('@');
    Some(sidekiq::Wish {
        queue: sidekiq::QUEUES.into_iter().find(|known| Some(*known) == queue),
        concurrency: settings.sidekiq.concurrency,
    })
}

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

fn observe(context: &Context) -> Result<Observation> {
    if !context.state().join("ready").is_file() {
        return Ok(Observation::Todo("the services were never started".to_owned()));
    }
    let settings = context.settings()?;
    for unit in ALL.into_iter().filter(|unit| !is_wanted(settings, unit)) {
        if systemd::is_enabled(unit) || systemd::is_active(unit) {
            return Ok(Observation::Todo(format!("unit `{unit}` is not wanted by the settings")));
        }
    }
    for unit in wanted(settings) {
        if !has_drop_in(context, settings, unit) {
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
    let settings = context.settings()?;
    for unit in wanted(settings) {
        let text = drop_in(context, settings, unit);
        durable::write(&drop_in_path(context, unit), text.as_bytes(), 0o644, None)?;
    }
    // Always: an earlier try may have written them and come no further.
    systemd::daemon_reload()?;
    durable::write(&context.state().join("ready"), b"", 0o644, None)?;
    // First, so that no two of them work with the same schedule.
    for unit in ALL.into_iter().filter(|unit| !is_wanted(settings, unit)) {
        systemd::disable(unit)?;
    }
    for unit in wanted(settings) {
        systemd::enable(unit)?;
    }
    // What runs since before the settings changed has the number of threads of then.
    let processes = sidekiq::processes(redis::ADDRESSES[0]).unwrap_or_default();
    for unit in wanted(settings) {
        let is_outdated = jobs(settings, unit).is_some_and(|wish| wish.is_outdated(&processes));
        if is_outdated && systemd::is_active(unit) {
            systemd::restart(unit)?;
        } else {
            systemd::start(unit)?;
        }
    }
    wait_until_they_answer(context)
}

/// A server of this machine that the services need and that has gone: waiting for them would take minutes and name the effect.
fn gone(context: &Context) -> Option<&str> {
    let facts = &context.facts;
    let database = sql::elsewhere(context).is_none().then_some(&*facts.postgresql.unit);
    database.into_iter().chain([&*facts.redis.unit]).find(|unit| !systemd::is_active(unit))
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
        if let Some(gone) = gone(context) {
            bail!("unit `{gone}`, which unit `{unit}` needs, does not run");
        }
        std::thread::sleep(Duration::from_secs(2));
    }
    Ok(())
}

/// The first service that does not answer as it should, and what it did.
fn unhealthy(context: &Context) -> Result<Option<(&'static str, anyhow::Error)>> {
    let settings = context.settings()?;
    let wanted = wanted(settings);
    if let Some(unit) = wanted.iter().find(|unit| !systemd::is_active(unit)) {
        return Ok(Some((unit, anyhow::anyhow!("unit `{unit}` is not running"))));
    }
    let processes = sidekiq::processes(redis::ADDRESSES[0]);
    let site = settings.site().as_str();
    Ok(wanted.into_iter().find_map(|unit| {
        let result = match (jobs(settings, unit), unit, &processes) {
            (Some(wish), _, Ok(processes)) => wish.check(processes),
            (Some(_), _, Err(error)) => Err(anyhow::anyhow!("{error:#}")),
            (None, "mastodon-web.service", _) => status(WEB, site, "/api/v1/instance", 200),
            // Without a token the streaming service refuses; only it itself can do so.
            (None, ..) => status(STREAMING, site, "/api/v1/streaming/public", 401),
        };
        result.err().map(|error| (unit, error))
    }))
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

fn drop_in_path(context: &Context, unit: &str) -> std::path::PathBuf {
    context.path(&format!("/etc/systemd/system/{unit}.d/appliance.conf"))
}

fn has_drop_in(context: &Context, settings: &Settings, unit: &str) -> bool {
    fs::read(drop_in_path(context, unit))
        .is_ok_and(|found| found == drop_in(context, settings, unit).as_bytes())
}

fn drop_in(context: &Context, settings: &Settings, unit: &str) -> String {
    // A database server elsewhere is no unit, and ours must not start for nothing then.
    let units: Vec<&str> =
        sql::unit(context).into_iter().chain([context.facts.redis.unit.as_str()]).collect();
    let needs = units.join(" ");
    // The unit starts as many threads as there are connections for them.
    let pool = jobs(settings, unit)
        .map_or(String::new(), |wish| format!("[Service]\nEnvironment=\"DB_POOL={}\"\n", wish.concurrency));
    format!(
        "# Written by the appliance; a change here is undone.\n\
        [Unit]\n\
        # Storage and identity first, then the services of this image.\n\
        After=appliance-early.service {needs}\n\
        Wants={needs}\n\
        {pool}"
    )
}

#[cfg(test)]
mod tests {
    use super::{ALL, drop_in, observe, wanted};
    use crate::context::tests::scratch_context;
    use crate::engine::Observation;
    use crate::settings::Settings;

    fn settings(rest: &str) -> Settings {
        Settings::parse("test", &format!("schema = 1\ndomain = \"a.example\"\n{rest}")).unwrap()
    }

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
        let settings = settings("[sidekiq]\nconcurrency = 7\n");
        for unit in ALL {
            let text = drop_in(&context, &settings, unit);
            assert!(text.contains("\nWants=postgresql@15-main.service redis-server.service\n"), "{text}");
            assert_eq!(text.contains("\nEnvironment=\"DB_POOL=7\"\n"), unit.contains("sidekiq"), "{text}");
            assert_eq!(testkit::systemd219::faults(&text), [""; 0]);
        }
    }

    #[test]
    fn the_background_jobs_are_one_unit_or_one_a_queue() {
        let rest = ["mastodon-web.service", "mastodon-streaming.service"];
        assert_eq!(wanted(&settings("")), [&["mastodon-sidekiq.service"], &rest[..]].concat());
        let split = wanted(&settings("[sidekiq]\nsplit = true\n"));
        assert_eq!(split, ALL[1..]);
    }

    /// The units of the image: as many connections as threads, every queue once, the schedule in one process alone.
    #[test]
    fn the_images_units_are_what_the_settings_mean() {
        let folder = "../../../overlays/mastodon/root/etc/systemd/system";
        let read = |name: &str| {
            let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/steps").join(folder);
            fs_err::read_to_string(root.join(name)).unwrap()
        };
        let line = |text: &str| text.lines().rfind(|line| line.starts_with("ExecStart=")).unwrap().to_owned();
        let one = line(&read("mastodon-sidekiq.service"));
        let template = read("mastodon-sidekiq@.service");
        let default = line(&read("mastodon-sidekiq@default.service.d/schedule.conf"));
        assert!(one.ends_with(" -c ${DB_POOL} -q default -q mailers -q pull -q push -q scheduler"), "{one}");
        assert!(
            line(&template).ends_with(" -c ${DB_POOL} -q %i -C /usr/lib/appliance/sidekiq.yml"),
            "{template}"
        );
        assert!(default.contains(" -c ${DB_POOL} -q default") && !default.contains(" -C "), "{default}");
        for text in [&read("mastodon-sidekiq.service"), &template] {
            assert!(text.contains("\nEnvironment=\"DB_POOL=10\"\n"), "{text}");
        }
    }
}
