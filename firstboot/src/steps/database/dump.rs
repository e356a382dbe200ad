//! A dump of the database before it is migrated, kept until the migration has succeeded.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::content::count;
use crate::context::Context;
use crate::{durable, passwd, sql};

/// How long making one may take.
const LIMIT: Duration = Duration::from_secs(12 * 3600);

/// How long `pg_dump` waits for a table that somebody else has locked, in milliseconds.
const LOCK: &str = "--lock-wait-timeout=300000";

/// What must stay free on the disk beside the dump, in bytes.
const SPARE: u64 = 256 << 20;

fn path(context: &Context) -> PathBuf {
    context.state().join("database-before-migration.dump")
}

/// Keeps one. Once there is one it stays: after a migration that was cut, only it is of the time before. Without room there is none, and
/// the log says so; neither is there one of a server elsewhere that is newer than this image's `pg_dump`.
pub(super) fn keep(context: &Context, log: &Path) -> Result<()> {
    let path = path(context);
    if path.exists() {
        return Ok(());
    }
    let name = sql::instance(context);
    let size = count(context, name, "SELECT pg_database_size(current_database());")?;
    let room = rustix::fs::statvfs(context.state()).context("asking for the room on the disk")?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    if free < size.saturating_add(SPARE) {
        return note(
            log,
            &format!("no dump before the migration: the database has {size} bytes, {free} are free"),
        );
    }
    let is_elsewhere = sql::elsewhere(context).is_some();
    let user = if is_elsewhere { &context.facts.application.user } else { sql::SUPERUSER };
    let user = passwd::user(context, user)?;
    let scratch = durable::scratch(&path);
    durable::write(&scratch, b"", 0o600, Some((user.uid, user.gid)))?;
    let target = scratch.display().to_string();
    let output =
        sql::client(context, "pg_dump", &["-Fc", LOCK, "-f", &target, name]).limit(LIMIT).output()?;
    if output.code != 0 {
        durable::erase(&scratch)?;
        let said = format!("`pg_dump` ended with {}: {}", output.code, output.stderr.trim());
        // A lock goes away, and the next try comes by itself.
        if is_elsewhere && !said.contains("statement timeout") {
            return note(log, &format!("no dump before the migration: {said}"));
        }
        bail!("dumping the database before the migration: {said}");
    }
    durable::sync_file(&scratch)?;
    durable::rename(&scratch, &path)
}

/// Whether there is one.
pub(super) fn is_kept(context: &Context) -> bool {
    path(context).exists()
}

/// The migration has succeeded.
pub(super) fn forget(context: &Context) -> Result<()> {
    durable::remove(&path(context))
}

fn note(log: &Path, text: &str) -> Result<()> {
    writeln!(durable::log(log)?, "{text}").with_context(|| format!("writing to `{}`", log.display()))
}
