//! Step `redis`: a running Redis on both loopback addresses that keeps what it was told.
//!
//! The distribution's file stays as it is; our lines are a marked block at its end, where they win. Everything is written to
//! an append-only file that is synced every second, since queues of federation that were lost are deliveries that were lost.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use fs_err as fs;

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::resp::{Connection, Reply};
use crate::steps::storage::guard;
use crate::{durable, systemd};

/// The step.
pub const STEP: Step = Step {
    name: "redis",
    why: "queues, sessions and events, reachable on this machine alone",
    needs: Needs::Local,
    watch: engine::OFTEN,
    observe,
    apply,
};

const PORT: u16 = 6379;

/// Where Redis answers. Both, because Rails takes what `localhost` resolves to first, and the streaming server's client takes
/// IPv4 alone.
pub const ADDRESSES: [SocketAddr; 2] = [
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), PORT),
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), PORT),
];

const BEGIN: &str = "# --- written by the appliance; a change between these lines is undone ---";
const END: &str = "# --- end of the appliance's lines ---";

/// Keys and values that a running server can be asked for again.
const SETTINGS: [(&str, &str); 4] = [
    ("protected-mode", "yes"),
    ("appendonly", "yes"),
    ("appendfsync", "everysec"),
    // A full memory must be an error: with any other policy jobs vanish.
    ("maxmemory-policy", "noeviction"),
];

/// How long a start may take: Redis loads everything first.
const START: Duration = Duration::from_secs(120);

fn observe(context: &Context) -> Result<Observation> {
    let facts = &context.facts.redis;
    let path = context.path(&facts.conf);
    let text = fs::read_to_string(&path)?;
    if with_block(&text) != text {
        return Ok(Observation::Todo(format!("`{}` has not the appliance's lines", facts.conf)));
    }
    if !guard::is_enabled(context, &facts.unit) || !systemd::is_active(&facts.unit) {
        return Ok(Observation::Todo(format!("unit `{}` is not enabled and running", facts.unit)));
    }
    Ok(match answer() {
        Ok(()) => Observation::Done,
        // It runs, and waiting for it would only hide why it cannot write.
        Err(error) if cannot_write(&error) => Observation::Broken(format!(
            "Redis cannot write to its disk, which is full or damaged: {error:#}"
        )),
        Err(error) => Observation::Todo(format!("{error:#}")),
    })
}

/// Whether Redis answers that its last write to the disk failed. It forgets that by itself when a write works again.
fn cannot_write(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("MISCONF")
}

fn apply(context: &Context) -> Result<()> {
    let facts = &context.facts.redis;
    let path = context.path(&facts.conf);
    let meta = path.symlink_metadata()?;
    let text = with_block(&fs::read_to_string(&path)?);
    durable::write(&path, text.as_bytes(), meta.mode() & 0o7777, Some((meta.uid(), meta.gid())))?;
    guard::enable(context, &facts.unit)?;
    if systemd::is_active(&facts.unit) && is_out_of_date() {
        systemd::restart(&facts.unit)?;
    } else {
        systemd::start(&facts.unit)?;
    }
    let start = Instant::now();
    while let Err(error) = answer() {
        if start.elapsed() > START || cannot_write(&error) {
            let unit = &facts.unit;
            return Err(
                error.context(format!("waiting for Redis; `journalctl --unit {unit}` shows its last lines"))
            );
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}

/// Whether a server answers that was started with other settings; one that is still loading is let be.
fn is_out_of_date() -> bool {
    Connection::open(ADDRESSES[0]).is_ok_and(|mut connection| {
        SETTINGS.iter().any(|(key, value)| {
            connection
                .command(&["CONFIG", "GET", key])
                .is_ok_and(|reply| reply.texts().get(1).is_none_or(|found| found != value))
        })
    }) || (Connection::open(ADDRESSES[0]).is_ok() != Connection::open(ADDRESSES[1]).is_ok())
}

/// Both addresses answer, with our settings in force.
fn answer() -> Result<()> {
    for address in ADDRESSES {
        let mut connection = Connection::open(address)?;
        let reply = connection.command(&["PING"])?;
        if reply != Reply::Text("PONG".to_owned()) {
            bail!("Redis at `{address}` answered {reply:?} to PING");
        }
        for (key, value) in SETTINGS {
            let reply = connection.command(&["CONFIG", "GET", key])?;
            if reply.texts().get(1) != Some(&value) {
                bail!("Redis at `{address}` runs without `{key} {value}`");
            }
        }
    }
    Ok(())
}

/// The file with our block at its end, whatever it had before.
fn with_block(text: &str) -> String {
    let kept = match (text.find(BEGIN), text.find(END)) {
        (Some(begin), Some(end)) if begin < end => {
            let rest = text[end + END.len()..].trim_start_matches('\n');
            format!("{}{rest}", &text[..begin])
        }
        (Some(begin), _) => text[..begin].to_owned(),
        _ => text.to_owned(),
    };
    let settings: Vec<String> = SETTINGS.iter().map(|(key, value)| format!("{key} {value}")).collect();
    format!(
        "{}\n\n{BEGIN}\nbind 127.0.0.1 ::1\nport {PORT}\n{}\n{END}\n",
        kept.trim_end(),
        settings.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, END, with_block};

    #[test]
    fn the_block_is_added_once_and_heals() {
        let first = with_block("bind 127.0.0.1 -::1\nport 6379\n");
        insta::assert_snapshot!(first, @r"
        bind 127.0.0.1 -::1
        port 6379

        # --- written by the appliance; a change between these lines is undone ---
        bind 127.0.0.1 ::1
        port 6379
        protected-mode yes
        appendonly yes
        appendfsync everysec
        maxmemory-policy noeviction
        # --- end of the appliance's lines ---
        ");
        let cut_short = &first[..first.find(END).unwrap()];
        for damaged in [&first, &first.replace("noeviction", "allkeys-lru"), cut_short] {
            assert_eq!(with_block(damaged), first);
        }
        // What somebody added behind the block would win over it.
        let added = with_block(&format!("{first}bind 0.0.0.0\n"));
        assert!(added.find("bind 0.0.0.0") < added.find(BEGIN), "{added}");
        assert_eq!(with_block(&added), added);
    }
}
