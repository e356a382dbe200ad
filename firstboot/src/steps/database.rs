//! Step `database`: the application's tables, made by its own `rails db:setup`.
//!
//! The setup runs in a scratch database, is verified there, and becomes the instance's database by a rename: one atomic
//! statement, and itself the marker. v1.6.1's schema drops every table when it is loaded a second time and its seeds make a
//! second superapp, so nothing is loaded over a database that holds something; what is there decides, never a file.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::exec::Run;
use crate::{channels, passwd, sql};

/// The step.
pub const STEP: Step = Step {
    name: "database",
    why: "the instance's tables, with the rows that it cannot live without",
    needs: Needs::Local,
    watch: engine::MINUTELY,
    observe,
    apply,
};

/// The database's name, `DB_NAME`.
pub const NAME: &str = "mastodon";

/// Where the setup runs until it is complete.
const SCRATCH: &str = "mastodon_firstboot";

/// How long one rake task may take: two starts of Rails on an emulated processor.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Everything in a database that is not PostgreSQL's own. All schemas: what counts as empty is dropped.
const RELATIONS: &str = "\
SELECT count(*) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = pg_class.relnamespace \
WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pg_(toast|temp_|toast_temp_)';";

/// What lies in a database.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    /// No such database.
    Absent,
    /// A database without tables, views and sequences, in whatever schema.
    Empty,
    /// Tables that Rails does not know.
    Unknown,
    /// A Rails application's tables.
    Rails {
        /// Newest migration.
        version: u64,
        /// Rows that mark the web client; `None` without such a table.
        superapps: Option<u64>,
        /// Users; `None` without such a table.
        users: Option<u64>,
    },
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Ready,
    /// Make it in the scratch database and rename.
    Setup,
    /// The setup was cut between schema and seeds; only an older appliance or a hand can have left that.
    Seed,
    /// Data of an older version.
    Migrate,
    /// Hands off, and why.
    Refuse(String),
}

fn observe(context: &Context) -> Result<Observation> {
    let expected = expected_version(context)?;
    let found = look(context, NAME)?;
    Ok(match judge(&found, expected) {
        Verdict::Ready if channels::settled_domain(&context.root).is_some() => Observation::Done,
        Verdict::Ready => Observation::Todo("the domain is not settled yet".to_owned()),
        Verdict::Setup => Observation::Todo("the database does not exist yet".to_owned()),
        Verdict::Seed => {
            Observation::Todo("the database has tables, but not the rows that they start with".to_owned())
        }
        Verdict::Migrate => Observation::Todo(format!("the database is older than version {expected}")),
        Verdict::Refuse(why) => Observation::Broken(why),
    })
}

fn apply(context: &Context) -> Result<()> {
    let expected = expected_version(context)?;
    let found = look(context, NAME)?;
    match judge(&found, expected) {
        Verdict::Ready => settle_domain(context),
        Verdict::Setup => {
            if found == Content::Empty {
                // Without CASCADE or FORCE: if it got tables or users since we looked, this fails.
                sql::run(context, "postgres", &format!("DROP DATABASE {NAME};"))?;
            }
            set_up(context, expected)
        }
        Verdict::Seed => rails(context, NAME, "db:seed"),
        Verdict::Migrate => rails(context, NAME, "db:migrate"),
        Verdict::Refuse(why) => bail!(why),
    }
}

fn set_up(context: &Context, expected: u64) -> Result<()> {
    // A setup whose parent was killed may still hold a session.
    sql::run(
        context,
        "postgres",
        &format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{SCRATCH}';\n\
            DROP DATABASE IF EXISTS {SCRATCH};"
        ),
    )?;
    rails(context, SCRATCH, "db:setup")?;
    let found = look(context, SCRATCH)?;
    if !matches!(found, Content::Rails { version, superapps: Some(1), users: Some(0) } if version == expected)
    {
        bail!(
            "`rails db:setup` ended well, but left {found:?} instead of version {expected} and one superapp; its log is `{}`",
            log(context).display()
        );
    }
    // First, so that no database is ever without it.
    settle_domain(context)?;
    sql::run(context, "postgres", &format!("ALTER DATABASE {SCRATCH} RENAME TO {NAME};"))
}

/// From here on no other configuration may give the instance another name.
fn settle_domain(context: &Context) -> Result<()> {
    channels::settle_domain(&context.root, context.settings()?.domain.as_str())
}

/// Runs one of the application's tasks on a database. `DB_NAME` wins over `.env.production`: dotenv never overwrites.
fn rails(context: &Context, database: &str, task: &str) -> Result<()> {
    let facts = &context.facts.application;
    let home = passwd::user(context, &facts.user)?.home;
    Run::as_user(&facts.user, &facts.bundle, &["exec", "rails", task])
        .env("HOME", &home)
        .env("RAILS_ENV", "production")
        .env("DB_NAME", database)
        .folder(&facts.root)
        .limit(LIMIT)
        .log(&log(context))
        .text()
        .with_context(|| {
            format!("`rails {task}` did not work; the whole log is `{}`", log(context).display())
        })
        .map(drop)
}

fn log(context: &Context) -> PathBuf {
    context.path("/var/log/appliance/database.log")
}

fn expected_version(context: &Context) -> Result<u64> {
    let version = &context.facts.application.schema_version;
    version.parse().with_context(|| format!("reading the image's schema version `{version}`"))
}

fn look(context: &Context, database: &str) -> Result<Content> {
    let exists = format!("SELECT count(*) FROM pg_database WHERE datname = {};", sql::literal(database));
    if count(context, "postgres", &exists)? == 0 {
        return Ok(Content::Absent);
    }
    if count(context, database, RELATIONS)? == 0 {
        return Ok(Content::Empty);
    }
    let names = sql::rows(context, database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public';")?;
    let has = |table: &str| names.iter().any(|row| row.first().is_some_and(|name| name == table));
    if !has("schema_migrations") {
        return Ok(Content::Unknown);
    }
    let version = "SELECT coalesce(max(version::bigint), 0) FROM schema_migrations;";
    let rows_of = |table: &str, query: &str| has(table).then(|| count(context, database, query)).transpose();
    Ok(Content::Rails {
        version: count(context, database, version)?,
        superapps: rows_of("oauth_applications", "SELECT count(*) FROM oauth_applications WHERE superapp;")?,
        users: rows_of("users", "SELECT count(*) FROM users;")?,
    })
}

fn count(context: &Context, database: &str, query: &str) -> Result<u64> {
    let rows = sql::rows(context, database, query)?;
    let value = rows.first().and_then(|row| row.first()).map(String::as_str).unwrap_or_default();
    value.parse().with_context(|| format!("reading the answer `{value}` to `{query}`"))
}

fn judge(content: &Content, expected: u64) -> Verdict {
    let refuse = |why: &str| Verdict::Refuse(format!("database `{NAME}` {why}"));
    match *content {
        Content::Absent | Content::Empty => Verdict::Setup,
        Content::Unknown => {
            refuse("holds another program's tables: rename that database, and the appliance makes its own")
        }
        Content::Rails { superapps: None, .. } | Content::Rails { users: None, .. } => refuse(
            "holds another Rails application's tables: rename that database, and the appliance makes its own",
        ),
        Content::Rails { version, .. } if version > expected => Verdict::Refuse(format!(
            "database `{NAME}` has version {version}, this image knows {expected}: the image is older than the data; boot the newer image again"
        )),
        Content::Rails { version, .. } if version < expected => Verdict::Migrate,
        Content::Rails { superapps: Some(0), users: Some(0), .. } => Verdict::Seed,
        Content::Rails { superapps: Some(0), .. } => refuse(
            "has users, but no row for the web client in `oauth_applications`: restore a backup, or run `rails db:seed` once by hand",
        ),
        // More than one row means that somebody seeded twice. The instance works with the first; taking one away is not ours to
        // decide.
        Content::Rails { .. } => Verdict::Ready,
    }
}

#[cfg(test)]
mod tests {
    use super::{Content, Verdict, judge};

    fn check(content: &Content, expected: Result<Verdict, &str>) {
        match (judge(content, 20), expected) {
            (Verdict::Refuse(why), Err(part)) => assert!(why.contains(part), "{content:?}: {why}"),
            (found, Ok(verdict)) => assert_eq!(found, verdict, "{content:?}"),
            (found, Err(part)) => panic!("{content:?}: {found:?}, expected a refusal with {part:?}"),
        }
    }

    #[test]
    fn what_is_there_decides() {
        let rails = |version, superapps, users| Content::Rails { version, superapps, users };
        check(&Content::Absent, Ok(Verdict::Setup));
        check(&Content::Empty, Ok(Verdict::Setup));
        check(&Content::Unknown, Err("another program's tables"));
        check(&rails(20, None, Some(3)), Err("another Rails application's"));
        check(&rails(20, Some(1), None), Err("another Rails application's"));
        check(&rails(20, Some(1), Some(0)), Ok(Verdict::Ready));
        check(&rails(20, Some(1), Some(7)), Ok(Verdict::Ready));
        check(&rails(20, Some(2), Some(7)), Ok(Verdict::Ready));
        check(&rails(20, Some(0), Some(0)), Ok(Verdict::Seed));
        check(&rails(20, Some(0), Some(7)), Err("has users, but no row"));
        check(&rails(19, Some(1), Some(7)), Ok(Verdict::Migrate));
        check(&rails(21, Some(1), Some(7)), Err("older than the data"));
    }
}
