//! A database server elsewhere: what has to be true of it before the application may depend on it, each looked at by `psql`.

use anyhow::{Context as _, Result, bail};

use super::greeting;
use crate::context::Context;
use crate::engine::Observation;
use crate::settings::{Database, SslMode};
use crate::{sql, systemd};

/// The oldest server that v1.6.1 works with, as `server_version_num`.
const OLDEST: u32 = 90_200;

pub(super) fn observe(context: &Context, server: &Database) -> Result<Observation> {
    // Not when it only runs: the operator may have started it, to dump what it holds.
    if systemd::is_enabled(&context.facts.postgresql.unit) {
        return Ok(Observation::Todo(
            "this machine's own server is not used any more, but starts at every boot".to_owned(),
        ));
    }
    if !sql::is_prepared(context)? {
        return Ok(Observation::Todo(
            "the login of the database server is not laid down in this boot yet".to_owned(),
        ));
    }
    Ok(match look(context, server) {
        Ok(()) => Observation::Done,
        Err(error) => Observation::Waiting(format!("{error:#}")),
    })
}

pub(super) fn apply(context: &Context) -> Result<()> {
    let unit = &context.facts.postgresql.unit;
    if systemd::is_enabled(unit) {
        systemd::disable(unit)?;
    }
    sql::prepare(context)
}

fn look(context: &Context, server: &Database) -> Result<()> {
    let Database { name, user, .. } = server;
    let host = server.host.as_deref().unwrap_or_default();
    let exists = sql::exists(context, name)?;
    let ask = |query: &str| {
        if exists { sql::rows(context, name, query) } else { sql::maintain(context, query) }
    };

    let version = first(ask("SHOW server_version_num;")?)?;
    if version.parse::<u32>().with_context(|| format!("reading the server's version `{version}`"))? < OLDEST {
        let version = first(ask("SHOW server_version;")?)?;
        bail!(
            "the database server `{host}` is PostgreSQL {version}, and Mastodon needs 9.2 or later: upgrade it, or use another one"
        );
    }
    let rows = ask("SELECT rolcreatedb OR rolsuper, pg_is_in_recovery(), getdatabaseencoding(), \
        coalesce((SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = 'public'), false) \
        FROM pg_roles WHERE rolname = current_user;")?;
    let Some([may_make, is_standby, encoding, may_fill]) = rows.first().map(Vec::as_slice) else {
        bail!("the database server `{host}` did not say what role `{user}` may do");
    };
    if is_standby == "t" {
        bail!(
            "the database server `{host}` is a standby, which takes no changes: write the primary's name to `database.host`, or promote it"
        );
    }
    if !exists && may_make != "t" {
        bail!(
            "the database server `{host}` has no database `{name}`, and role `{user}` may not make it: make it there (`CREATE DATABASE \"{name}\" OWNER \"{user}\" ENCODING 'UTF8'`), or let the role (`ALTER ROLE \"{user}\" CREATEDB`)"
        );
    }
    if exists && encoding != "UTF8" {
        bail!(
            "database `{name}` at `{host}` has the encoding {encoding}, and Mastodon needs UTF8: make it anew (`CREATE DATABASE \"{name}\" OWNER \"{user}\" ENCODING 'UTF8' TEMPLATE template0`)"
        );
    }
    if exists && may_fill != "t" {
        bail!(
            "role `{user}` may not make tables in database `{name}` at `{host}`: let it there (`ALTER DATABASE \"{name}\" OWNER TO \"{user}\"`; before PostgreSQL 15 `GRANT CREATE ON SCHEMA public TO \"{user}\"`)"
        );
    }
    streaming(context, server, exists)
}

/// What the streaming service cannot do although libpq can.
fn streaming(context: &Context, server: &Database, exists: bool) -> Result<()> {
    if server.sslmode == SslMode::Prefer && exists {
        sql::knock(context, &server.name, SslMode::Disable)?.context(
            "the streaming service cannot reach the database, because it uses no encryption with `prefer`",
        )?;
    }
    let library = context.path(&context.facts.application.root).join("node_modules/pg/lib");
    let knows_scram = ["sasl.js", "crypto/sasl.js"].iter().any(|file| library.join(file).exists());
    if library.is_dir() && !knows_scram && greeting::asks_for_scram(server) {
        bail!(
            "the database server `{}` wants role `{}`'s password by SCRAM, which this version's streaming service does not know: set `password_encryption = 'md5'` there, give the role its password again, and have `md5` in `pg_hba.conf`",
            server.host.as_deref().unwrap_or_default(),
            server.user
        );
    }
    Ok(())
}

fn first(rows: Vec<Vec<String>>) -> Result<String> {
    rows.into_iter().flatten().next().context("the database server gave no answer")
}
