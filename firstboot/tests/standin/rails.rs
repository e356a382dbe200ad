//! Stand-in for `bundle exec rails`: the tasks that make and change the tables, as little idempotent as v1.6.1's. A second load of the
//! schema drops every table, a second run of the seeds adds a second row, and nothing is one transaction.
//!
//! Reads `.env.production` in its folder as dotenv does: what the environment has already goes before it. Two files in that folder make it
//! fail, `stop-after-tables` in the middle of the schema and `fail-migration` in a migration.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Newest migration that the stand-in's schema has.
pub const VERSION: &str = "20170913000752";

const SCHEMA: &str = "\
DROP TABLE IF EXISTS oauth_applications CASCADE;
CREATE TABLE oauth_applications (id bigserial PRIMARY KEY, name text NOT NULL, secret text NOT NULL, superapp boolean DEFAULT false NOT NULL);
DROP TABLE IF EXISTS accounts CASCADE;
CREATE TABLE accounts (id bigserial PRIMARY KEY, username text NOT NULL, domain text);
CREATE UNIQUE INDEX ON accounts (lower(username), lower(domain));
DROP TABLE IF EXISTS users CASCADE;
CREATE TABLE users (id bigserial PRIMARY KEY, email text UNIQUE NOT NULL, account_id bigint REFERENCES accounts, admin boolean DEFAULT false NOT NULL, confirmed boolean DEFAULT false NOT NULL, password text);
DROP TABLE IF EXISTS schema_migrations;
";

const SEED: &str =
    "INSERT INTO oauth_applications (name, secret, superapp) VALUES ('Web', md5(random()::text), true);";

/// The newest PostgreSQL of this host: the folder of its programs, and its version.
pub fn postgresql() -> Result<(String, String)> {
    let folders =
        fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is missing: run `cargo ci setup`")?;
    let versions = folders.flatten().filter(|entry| entry.path().join("bin/initdb").exists());
    let newest = versions
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .max()
        .context("PostgreSQL is missing: run `cargo ci setup`")?;
    Ok((format!("/usr/lib/postgresql/{newest}/bin"), newest.to_string()))
}

/// Runs one task.
pub fn run(task: &str) -> Result<()> {
    let server = Server::read()?;
    let database = server.value("DB_NAME").to_owned();
    match task {
        "db:schema:load" => load(&server, &database),
        "db:seed" => server.psql(&database, SEED),
        "db:setup" => {
            // An existing one is no error to Rails.
            server.psql("postgres", &format!("CREATE DATABASE {database};")).ok();
            load(&server, &database)?;
            server.psql(&database, SEED)
        }
        "db:migrate" => {
            if Path::new("fail-migration").exists() {
                bail!("a migration fails");
            }
            server.psql(&database, &format!("INSERT INTO schema_migrations VALUES ('{VERSION}');"))
        }
        _ => bail!("no task `{task}`"),
    }
}

/// Runs statements on the instance's database.
#[allow(dead_code, reason = "one of the two programs that have this stand-in")]
pub fn psql(statements: &str) -> Result<()> {
    let server = Server::read()?;
    server.psql(server.value("DB_NAME"), statements)
}

fn load(server: &Server, database: &str) -> Result<()> {
    server.psql(database, SCHEMA)?;
    if Path::new("stop-after-tables").exists() {
        bail!("the machine stops in the middle of the schema");
    }
    server.psql(database, "CREATE TABLE schema_migrations (version text PRIMARY KEY);")?;
    server.psql(database, &format!("INSERT INTO schema_migrations VALUES ('20170827125100'), ('{VERSION}');"))
}

/// What `.env.production` and the environment say.
struct Server(BTreeMap<String, String>);

impl Server {
    fn read() -> Result<Server> {
        let text = fs::read_to_string(".env.production").context("reading `.env.production`")?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.split_once('='));
        let mut values: BTreeMap<String, String> =
            pairs.map(|(key, value)| (key.to_owned(), value.trim_matches('\'').to_owned())).collect();
        values.extend(std::env::vars());
        Ok(Server(values))
    }

    fn value(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    fn psql(&self, database: &str, statements: &str) -> Result<()> {
        let (bin, _) = postgresql()?;
        let mut command = Command::new(format!("{bin}/psql"));
        command.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", "-"]);
        for (option, key) in [("-h", "DB_HOST"), ("-p", "DB_PORT"), ("-U", "DB_USER")] {
            command.args([option, self.value(key)]);
        }
        for (name, key) in
            [("PGPASSWORD", "DB_PASS"), ("PGSSLMODE", "PGSSLMODE"), ("PGSSLROOTCERT", "PGSSLROOTCERT")]
        {
            // A machine in a folder has its files there.
            let inside = format!("../..{}", self.value(key));
            if name == "PGSSLROOTCERT" && Path::new(&inside).is_file() {
                command.env(name, inside);
            } else if !self.value(key).is_empty() {
                command.env(name, self.value(key));
            }
        }
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        child.stdin.take().context("no pipe")?.write_all(statements.as_bytes())?;
        let status = child.wait()?;
        if status.success() { Ok(()) } else { bail!("`psql`: {status}") }
    }
}
