//! Step `database`: the application's tables, made by its own tasks.
//!
//! On the machine's own server the setup runs in a scratch database, is verified there, and becomes the instance's database by a rename:
//! one atomic statement, and itself the marker. v1.6.1's schema drops every table when it is loaded a second time and its seeds make a
//! second superapp, so nothing is loaded over a database that holds something; what is there decides, never a file.
//!
//! On a server elsewhere the tables are loaded in place, because databases are given there, and because another machine may be at the same
//! work: a row in the database itself (`database/marker.rs`) says who has begun, and afterwards whose the database is.

mod content;
mod dump;
mod marker;
mod verdict;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::exec::Run;
use crate::{passwd, sql};
use content::{Content, Found, look};
use marker::Marker;
use verdict::{Circumstances, Verdict, judge};

/// The step.
pub const STEP: Step = Step {
    name: "database",
    why: "the instance's tables, with the rows that it cannot live without",
    needs: Needs::Local,
    watch: engine::MINUTELY,
    observe,
    apply,
};

/// Where the setup runs until it is complete, on the machine's own server.
const SCRATCH: &str = "mastodon_firstboot";

/// How long one rake task may take: two starts of Rails on an emulated processor.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// How long a migration may take: its time grows with the tables, and one that is cut begins again.
const LIMIT_OF_MIGRATION: Duration = Duration::from_secs(24 * 3600);

fn observe(context: &Context) -> Result<Observation> {
    let verdict = match decide(context) {
        Ok((verdict, _)) => verdict,
        // A server elsewhere is not ours to mend.
        Err(error) if sql::elsewhere(context).is_some() && error.is::<sql::Refusal>() => {
            return Ok(Observation::Waiting(format!("{error:#}")));
        }
        Err(error) => return Err(error),
    };
    let todo = |text: &str| Observation::Todo(text.to_owned());
    Ok(match verdict {
        // A cut after the migration has left it; the next migration would keep none then.
        Verdict::Ready if dump::is_kept(context) => {
            todo("the dump of before the migration is not needed any more")
        }
        Verdict::Ready => Observation::Done,
        Verdict::Mark => {
            todo("the database does not say yet whose it is, or this machine does not know it as its own")
        }
        Verdict::Setup => todo("the database does not exist yet"),
        Verdict::Load => todo("the database has no tables yet, or only some"),
        Verdict::Seed => todo("the database has tables, but not the rows that they start with"),
        Verdict::Migrate => {
            Observation::Todo(format!("the database is older than version {}", expected_version(context)?))
        }
        Verdict::Wait(why) => Observation::Waiting(why),
        Verdict::Refuse(why) => Observation::Broken(why),
    })
}

fn apply(context: &Context) -> Result<()> {
    let (verdict, found) = decide(context)?;
    match verdict {
        Verdict::Ready => dump::forget(context),
        Verdict::Mark => {
            marker::finish(context)?;
            dump::forget(context)
        }
        Verdict::Setup if sql::elsewhere(context).is_some() => {
            let name = sql::identifier(sql::instance(context));
            sql::maintain(context, &format!("CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0;"))?;
            load(context, &Marker::None)
        }
        Verdict::Setup => {
            if found.content == Content::Empty {
                // Without CASCADE or FORCE: if it got tables or users since we looked, this fails.
                let name = sql::identifier(sql::instance(context));
                sql::maintain(context, &format!("DROP DATABASE {name};"))?;
            }
            set_up(context)
        }
        Verdict::Load => load(context, &found.marker),
        Verdict::Seed => {
            rails(context, sql::instance(context), "db:seed")?;
            marker::finish(context)
        }
        Verdict::Migrate => {
            dump::keep(context, &log(context))?;
            // Rails itself takes an advisory lock, so of two machines at one database one fails, and finds it done later.
            rails(context, sql::instance(context), "db:migrate")?;
            let (verdict, _) = decide(context)?;
            if verdict == Verdict::Migrate {
                bail!(
                    "`rails db:migrate` ended well, but the database is still older than this version; its log is `{}`",
                    log(context).display()
                );
            }
            marker::finish(context)?;
            dump::forget(context)
        }
        Verdict::Wait(why) | Verdict::Refuse(why) => bail!(why),
    }
}

fn decide(context: &Context) -> Result<(Verdict, Found)> {
    let settings = context.settings()?;
    let found = look(context, sql::instance(context))?;
    let home = marker::home(context);
    let circumstances = Circumstances {
        name: sql::instance(context),
        domain: settings.domain.as_str(),
        machine: &marker::machine(context),
        expected: expected_version(context)?,
        adopt: settings.database.adopt,
        is_elsewhere: sql::elsewhere(context).is_some(),
        is_noted: marker::is_noted(context)?,
        home: home.as_ref().map(|(place, anew)| (place.as_str(), anew.as_str())),
    };
    Ok((judge(&found, &circumstances), found))
}

/// In a scratch database of the machine's own server.
fn set_up(context: &Context) -> Result<()> {
    // A setup whose parent was killed may still hold a session.
    sql::maintain(
        context,
        &format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{SCRATCH}';\n\
            DROP DATABASE IF EXISTS {SCRATCH};"
        ),
    )?;
    rails(context, SCRATCH, "db:setup")?;
    verify(context, SCRATCH, "db:setup")?;
    // First, so that no database is ever without it.
    marker::settle(context)?;
    let name = sql::identifier(sql::instance(context));
    sql::maintain(context, &format!("ALTER DATABASE {SCRATCH} RENAME TO {name};")).map(drop)
}

/// In place. What a cut has left of an earlier try is taken away first: without users it is worth nothing, and a table that is half made
/// is worse than none.
fn load(context: &Context, marker: &Marker) -> Result<()> {
    let name = sql::instance(context);
    match marker {
        Marker::Unfinished(_) => sql::run(context, name, content::DROP_ALL)?,
        _ => marker::begin(context, marker)?,
    }
    rails(context, name, "db:schema:load")?;
    rails(context, name, "db:seed")?;
    verify(context, name, "db:schema:load db:seed")?;
    marker::finish(context)
}

fn verify(context: &Context, database: &str, tasks: &str) -> Result<()> {
    let (found, expected) = (look(context, database)?.content, expected_version(context)?);
    if !matches!(found, Content::Rails { version, superapps: Some(1), users: Some(0) } if version == expected)
    {
        bail!(
            "`rails {tasks}` ended well, but left {found:?} instead of version {expected} and one superapp; its log is `{}`",
            log(context).display()
        );
    }
    Ok(())
}

/// Runs one of the application's tasks on a database. `DB_NAME` wins over `.env.production`: dotenv never overwrites.
fn rails(context: &Context, database: &str, task: &str) -> Result<()> {
    let facts = &context.facts.application;
    let home = passwd::user(context, &facts.user)?.home;
    Run::as_user(&facts.user, &facts.bundle, &["exec", "rails", task])
        .env("HOME", &home)
        .env("RAILS_ENV", "production")
        .env("DB_NAME", database)
        .folder(&context.path(&facts.root).display().to_string())
        .limit(if task == "db:migrate" { LIMIT_OF_MIGRATION } else { LIMIT })
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
