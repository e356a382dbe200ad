//! Step `postgresql`: a running server whose only users are known by the Unix socket, and the application's role.
//!
//! A new cluster is made beside its place, synced and renamed: a cut leaves no cluster or a whole one, never the half that makes
//! `initdb` refuse for ever. Nothing is ever made over a folder that holds something.
//!
//! With `database.host` the server is another machine's, see `postgresql/external.rs`; ours is then left as it is, stopped.

mod external;
mod greeting;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use fs_err as fs;

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::exec::{self, Run};
use crate::steps::storage::guard;
use crate::{durable, passwd, sql, stamp, systemd};

/// The step.
pub const STEP: Step = Step {
    name: "postgresql",
    why: "the database server: this machine's own, without passwords, or the one that the configuration names",
    needs: Needs::Local,
    watch: engine::MINUTELY,
    observe,
    apply,
};

/// Peer authentication for everyone on this machine. TCP stays shut: no line, no entry.
const HBA: &str = "\
# Written by the appliance; a change here is undone.
# Everyone is known by the user of the process, over the Unix socket; there are no passwords and nothing over TCP.
local   all   all   peer
";

/// For 2 GB of memory shared with the application. Every key exists from 9.2 on.
const CONF: &str = "\
# Written by the appliance; a change here is undone. Sized for 2 GB of memory shared with the application.
shared_buffers = 256MB
effective_cache_size = 768MB
maintenance_work_mem = 64MB
work_mem = 4MB
max_connections = 100
checkpoint_completion_target = 0.9
random_page_cost = 1.1
";

/// The stamp of the configuration that the running server has.
const STAMP: &str = "postgresql";

/// How long a start may take: after a power cut the server first replays its log.
const START: Duration = Duration::from_secs(300);

fn observe(context: &Context) -> Result<Observation> {
    if let Some(server) = sql::elsewhere(context) {
        return external::observe(context, server);
    }
    let facts = &context.facts.postgresql;
    let todo = |text: String| Ok(Observation::Todo(text));
    let Some(version) = cluster_version(context)? else {
        return Ok(if is_empty(&context.path(&facts.data))? {
            Observation::Todo("there is no cluster yet".to_owned())
        } else {
            Observation::Broken(format!(
                "`{}` holds files, but no PostgreSQL cluster: move them away, and a new cluster is made",
                facts.data
            ))
        });
    };
    let server = server_version(context)?;
    if version != server {
        return Ok(Observation::Broken(format!(
            "the data in `{}` is of PostgreSQL {version}, this image has {server}: boot an image with PostgreSQL {version}",
            facts.data
        )));
    }
    if !holds(context, &facts.hba, HBA) || !holds(context, &facts.conf, CONF) {
        return todo("the server's configuration is not the appliance's".to_owned());
    }
    if !guard::is_enabled(context, &facts.unit) || !systemd::is_active(&facts.unit) {
        return todo(format!("unit `{}` is not enabled and running", facts.unit));
    }
    if !stamp::holds(context, STAMP, &configuration()) {
        return todo("the running server has not taken its configuration yet".to_owned());
    }
    match role(context)? {
        Some(Role { login: true, createdb: true, superuser: false }) => Ok(Observation::Done),
        Some(role) => todo(format!("the application's role has wrong rights: {role:?}")),
        None => todo("the application's role does not exist".to_owned()),
    }
}

fn apply(context: &Context) -> Result<()> {
    if sql::elsewhere(context).is_some() {
        return external::apply(context);
    }
    sql::prepare(context)?;
    let facts = &context.facts.postgresql;
    if cluster_version(context)?.is_none() {
        create_cluster(context)?;
    }
    let group = passwd::user(context, sql::SUPERUSER)?.gid;
    // The tools of Debian read the second as any user, and the server's group must read both.
    let mut changed = durable::write(&context.path(&facts.hba), HBA.as_bytes(), 0o640, Some((0, group)))?;
    changed |= durable::write(&context.path(&facts.conf), CONF.as_bytes(), 0o644, Some((0, group)))?;
    guard::enable(context, &facts.unit)?;
    if !systemd::is_active(&facts.unit) {
        systemd::start(&facts.unit)?;
    } else if changed || !stamp::holds(context, STAMP, &configuration()) {
        systemd::restart(&facts.unit)?;
    }
    wait_until_it_answers(context)?;
    stamp::put(context, STAMP, &configuration())?;

    let verb = if role(context)?.is_some() { "ALTER" } else { "CREATE" };
    let name = sql::identifier(&context.facts.application.user);
    sql::run(context, "postgres", &format!("{verb} ROLE {name} LOGIN CREATEDB NOSUPERUSER;"))
}

/// All that the running server reads from us at its start.
fn configuration() -> Vec<u8> {
    format!("{HBA}{CONF}").into_bytes()
}

/// Makes a cluster at its place; the rename is the commit point.
fn create_cluster(context: &Context) -> Result<()> {
    let facts = &context.facts.postgresql;
    let owner = passwd::user(context, sql::SUPERUSER)?;
    let data = context.path(&facts.data);
    let scratch = durable::scratch(&data);
    let parent = data.parent().context("the cluster's folder is the root")?;
    let mode = parent.metadata().map_or(0o755, |meta| meta.permissions().mode() & 0o7777);
    let owner_ids = Some((owner.uid, owner.gid));
    durable::folder_with(parent, mode, owner_ids)?;
    durable::erase(&scratch)?;
    durable::folder_with(&scratch, 0o700, owner_ids)?;

    let initdb = format!("{}/initdb", facts.bin);
    let guest_scratch = format!("{}.new", facts.data);
    let locale = format!("--locale={}", exec::locale());
    let mut args = vec![
        "--pgdata",
        &guest_scratch,
        "--encoding=UTF8",
        &locale,
        "--auth-local=peer",
        "--auth-host=reject",
    ];
    // From 9.3 on; a page that the disk damaged is then an error and not a wrong answer.
    if Run::new(&initdb, &["--help"]).text()?.contains("--data-checksums") {
        args.push("--data-checksums");
    }
    Run::as_user(sql::SUPERUSER, &initdb, &args).env("HOME", &owner.home).folder(&owner.home).text()?;
    adopt_configuration(context, &scratch)?;
    durable::sync_tree(&scratch)?;
    durable::rename(&scratch, &data)
}

/// Where the distribution keeps the configuration beside the data, initdb's copies would only mislead; where it lies among
/// the data, initdb's file must name ours.
fn adopt_configuration(context: &Context, cluster: &Path) -> Result<()> {
    let facts = &context.facts.postgresql;
    match Path::new(&facts.conf).strip_prefix(&facts.data) {
        Ok(ours) => {
            let path = cluster.join("postgresql.conf");
            let meta = path.metadata()?;
            let text = format!("{}\ninclude '{}'\n", fs::read_to_string(&path)?, ours.display());
            let owner = Some((meta.uid(), meta.gid()));
            durable::write(&path, text.as_bytes(), meta.mode() & 0o7777, owner)?;
        }
        Err(_) => {
            for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
                durable::remove(&cluster.join(name))?;
            }
        }
    }
    Ok(())
}

fn wait_until_it_answers(context: &Context) -> Result<()> {
    let start = Instant::now();
    loop {
        match sql::rows(context, "postgres", "SELECT 1;") {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() > START => {
                let unit = &context.facts.postgresql.unit;
                return Err(error.context(format!(
                    "waiting for PostgreSQL; `journalctl --unit {unit}` shows its last lines"
                )));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}

#[derive(Debug)]
struct Role {
    login: bool,
    createdb: bool,
    superuser: bool,
}

fn role(context: &Context) -> Result<Option<Role>> {
    let name = sql::literal(&context.facts.application.user);
    let query = format!("SELECT rolcanlogin, rolcreatedb, rolsuper FROM pg_roles WHERE rolname = {name};");
    let rows = sql::rows(context, "postgres", &query)?;
    match rows.first().map(Vec::as_slice) {
        None => Ok(None),
        Some([login, createdb, superuser]) => {
            Ok(Some(Role { login: login == "t", createdb: createdb == "t", superuser: superuser == "t" }))
        }
        Some(row) => bail!("`pg_roles` answered with {} columns", row.len()),
    }
}

/// Whether this machine has a cluster of its own.
pub(super) fn has_cluster(context: &Context) -> bool {
    context.path(&context.facts.postgresql.data).join("PG_VERSION").symlink_metadata().is_ok()
}

fn cluster_version(context: &Context) -> Result<Option<String>> {
    let path = context.path(&context.facts.postgresql.data).join("PG_VERSION");
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    Ok(Some(fs::read_to_string(path)?.trim().to_owned()))
}

fn is_empty(folder: &Path) -> Result<bool> {
    Ok(folder.symlink_metadata().is_err() || fs::read_dir(folder)?.next().is_none())
}

fn server_version(context: &Context) -> Result<String> {
    let text = Run::new(&format!("{}/postgres", context.facts.postgresql.bin), &["--version"]).text()?;
    major(&text).with_context(|| format!("reading PostgreSQL's version from `{}`", text.trim()))
}

/// The version as `PG_VERSION` has it: one number from 10 on, two before.
fn major(text: &str) -> Option<String> {
    let version =
        text.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    let mut numbers = version.split('.');
    let first = numbers.next()?;
    let digits: String = first.chars().take_while(char::is_ascii_digit).collect();
    if digits.parse::<u32>().ok()? >= 10 {
        return Some(digits);
    }
    Some(format!("{first}.{}", numbers.next()?))
}

fn holds(context: &Context, guest: &str, wanted: &str) -> bool {
    fs::read(context.path(guest)).is_ok_and(|found| found == wanted.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::{CONF, major};
    use crate::settings::checks::application::CONNECTIONS;

    /// Validation counts on as many connections as there are.
    #[test]
    fn the_server_takes_the_connections_that_validation_hands_out() {
        assert!(CONF.contains(&format!("\nmax_connections = {CONNECTIONS}\n")), "{CONF}");
    }

    #[test]
    fn versions_are_as_in_the_data_folder() {
        for (text, expected) in [
            ("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)", Some("15")),
            ("postgres (PostgreSQL) 9.2.24", Some("9.2")),
            ("postgres (PostgreSQL) 17beta1", Some("17")),
            ("postgres", None),
        ] {
            assert_eq!(major(text).as_deref(), expected, "{text}");
        }
    }
}
