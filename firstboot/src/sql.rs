//! SQL, through the image's own `psql`: its libpq is the one that Rails uses, so what it can do, Rails can.
//!
//! The one place that knows which server is asked, and as whom: the machine's own as the server's superuser over the Unix socket, or
//! the one that the settings name, as the application's role over TCP. Statements go through stdin and the password through a file that
//! only its reader can open, so that no value is ever an argument; a failing statement is an error with the server's words.

mod refusal;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow};
use fs_err as fs;

use crate::context::Context;
use crate::exec::{Output, Run};
use crate::settings::{Database, Secret, SslMode};
use crate::{durable, passwd};

pub use refusal::Refusal;

/// No statement of ours takes longer; one that does waits for a lock. PostgreSQL 9.2 has no limit for locks alone.
const LIMIT: &str = "SET statement_timeout = '5min';\n";

/// How long one run of `psql` may take, with the time for connecting.
const PATIENCE: Duration = Duration::from_secs(360);

/// How long connecting to one address may take, in seconds.
const CONNECT: &str = "10";

/// The user that PostgreSQL runs as, on every distribution.
pub const SUPERUSER: &str = "postgres";

/// Databases of every server, for statements about other databases. A role may be kept out of the first.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];

/// Where `psql` finds the password. In memory: it is made anew in every boot.
const PASSWORD_FILE: &str = "/run/appliance/database-password";

/// Where libpq finds whom to trust.
pub const CA_FILE: &str = "/etc/appliance/database-ca.pem";

/// The server that the settings name; `None` when the machine's own is used.
pub fn elsewhere(context: &Context) -> Option<&Database> {
    context.settings.as_ref().map(|settings| &settings.database).filter(|database| database.host.is_some())
}

/// The instance's database, `DB_NAME`.
pub fn instance(context: &Context) -> &str {
    elsewhere(context).map_or("mastodon", |database| &database.name)
}

/// The unit of the machine's own server, if that one is used.
pub fn unit(context: &Context) -> Option<&str> {
    elsewhere(context).is_none().then_some(context.facts.postgresql.unit.as_str())
}

/// Whether the files are there that `psql` needs for a server elsewhere.
pub fn is_prepared(context: &Context) -> Result<bool> {
    let Some(database) = elsewhere(context) else { return Ok(true) };
    let is_known = fs::read(context.path(PASSWORD_FILE))
        .is_ok_and(|found| found == password_line(database.password.as_ref()).as_bytes());
    let ca = fs::read_to_string(context.path(CA_FILE)).ok();
    Ok(is_known && (database.ca.is_none() || ca == database.ca))
}

/// Lays the password and the trust anchors down for `psql`; without a server elsewhere takes them away.
pub fn prepare(context: &Context) -> Result<()> {
    let (password, ca) = (context.path(PASSWORD_FILE), context.path(CA_FILE));
    let Some(database) = elsewhere(context) else {
        return [password, ca].iter().filter(|path| path.exists()).try_for_each(|path| durable::remove(path));
    };
    let user = passwd::user(context, &context.facts.application.user)?;
    let line = password_line(database.password.as_ref());
    durable::write(&password, line.as_bytes(), 0o600, Some((user.uid, user.gid)))?;
    match &database.ca {
        // No secret; Rails reads it too.
        Some(pem) => durable::write(&ca, pem.as_bytes(), 0o644, None).map(drop),
        None => durable::remove(&ca),
    }
}

/// A line of libpq's password file, for whatever it is asked.
fn password_line(password: Option<&Secret>) -> String {
    let password = password.map_or("", Secret::expose);
    if password.is_empty() {
        return String::new();
    }
    format!("*:*:*:*:{}\n", password.replace('\\', "\\\\").replace(':', "\\:"))
}

/// Runs statements and returns the rows of the queries among them, each as its columns.
pub fn rows(context: &Context, database: &str, statements: &str) -> Result<Vec<Vec<String>>> {
    let output = psql(context, database, statements, None)?;
    if output.code == 0 {
        return Ok(columns(&output.stdout));
    }
    if let Some(refusal) = Refusal::of(&output, elsewhere(context)) {
        return Err(refusal.into());
    }
    Err(anyhow!("asking database `{database}`: {}", refusal::words(&output.stderr)))
}

/// Whether the server elsewhere lets us in, with another kind of encryption than the settings say; the outer error is that it cannot be
/// asked at all.
pub fn knock(context: &Context, database: &str, sslmode: SslMode) -> Result<Result<(), Refusal>> {
    let output = psql(context, database, "SELECT 1;", Some(sslmode))?;
    Ok(Refusal::of(&output, elsewhere(context)).map_or(Ok(()), Err))
}

/// Runs statements whose rows do not matter.
pub fn run(context: &Context, database: &str, statements: &str) -> Result<()> {
    rows(context, database, statements).map(drop)
}

/// Runs statements about databases, from one that every server has.
pub fn maintain(context: &Context, statements: &str) -> Result<Vec<Vec<String>>> {
    let [first, others @ ..] = MAINTENANCE;
    let mut result = rows(context, first, statements);
    for other in others {
        // What the server has refused to do it refuses again; only another door may be open.
        let is_shut = result.as_ref().err().is_some_and(anyhow::Error::is::<Refusal>);
        if !is_shut || elsewhere(context).is_none() {
            break;
        }
        let error = result;
        result = rows(context, other, statements);
        if result.is_err() {
            result = error;
        }
    }
    result
}

/// Whether there is a database of this name. An error is the server's refusal to let us into any.
pub fn exists(context: &Context, database: &str) -> Result<bool> {
    let query = format!("SELECT count(*) FROM pg_database WHERE datname = {};", literal(database));
    match maintain(context, &query) {
        Ok(rows) => Ok(rows.first().and_then(|row| row.first()).is_some_and(|count| count != "0")),
        // A role may be let into its own database alone.
        Err(_) => rows(context, database, "SELECT 1;").map(|_| true),
    }
}

/// A program of PostgreSQL's that connects as we do, to the instance's database: the arguments that say so come before `args`.
pub fn client(context: &Context, program: &str, args: &[&str]) -> Run {
    let facts = &context.facts.postgresql;
    let program = format!("{}/{program}", facts.bin);
    let Some(database) = elsewhere(context) else {
        let mut all = vec!["-h", &facts.socket];
        all.extend_from_slice(args);
        return Run::as_user(SUPERUSER, &program, &all).limit(PATIENCE);
    };
    let port = database.port.to_string();
    let host = database.host.as_deref().unwrap_or_default();
    let mut all = vec!["-h", host, "-p", &port, "-U", &database.user, "-w"];
    all.extend_from_slice(args);
    let mut run = Run::as_user(&context.facts.application.user, &program, &all)
        .env("PGPASSFILE", &shown(&context.path(PASSWORD_FILE)))
        .env("PGCONNECT_TIMEOUT", CONNECT)
        .env("PGSSLMODE", database.sslmode.word())
        .limit(PATIENCE);
    if database.ca.is_some() {
        run = run.env("PGSSLROOTCERT", &shown(&context.path(CA_FILE)));
    }
    run
}

fn psql(context: &Context, database: &str, statements: &str, sslmode: Option<SslMode>) -> Result<Output> {
    let args = ["-XAtq", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", "-"];
    let mut run = client(context, "psql", &args).stdin(format!("{LIMIT}{statements}"));
    if let Some(sslmode) = sslmode {
        run = run.env("PGSSLMODE", sslmode.word());
    }
    run.output()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn columns(text: &str) -> Vec<Vec<String>> {
    text.lines().map(|line| line.split('\t').map(ToOwned::to_owned).collect()).collect()
}

/// A text as an SQL literal, for servers with standard strings (the default since 9.1).
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name as an SQL identifier.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::{identifier, literal, password_line};
    use crate::settings::Secret;

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
    }

    #[test]
    fn the_password_file_has_no_line_without_a_password() {
        assert_eq!(password_line(None), "");
        assert_eq!(password_line(Some(&Secret::new("a:b"))), "*:*:*:*:a\\:b\n");
    }
}
