//! Whose a database is, and who is filling it.
//!
//! On the machine's own server that is the settled domain, which lies on the same disk. On a server elsewhere it is one row of one table
//! in the database itself: a dump carries it, and two machines see the same one. Its making is the claim, and the server lets only one win.
//! The row names the machine, too: another one has other secrets, without which the users' logins and second factors end.

use anyhow::{Result, bail};
use fs_err as fs;

use crate::context::Context;
use crate::steps::postgresql;
use crate::{channels, durable, sql};

/// The table.
pub(super) const TABLE: &str = "appliance_instance";

/// Its columns. There is one row, or none.
const COLUMNS: &str = "(domain text NOT NULL, machine text NOT NULL, is_ready boolean NOT NULL)";

/// On this machine: in which database elsewhere the instance has its data. One that is found empty there, or somewhere else, is not the
/// beginning then, but a wrong server, or a backup that somebody is about to play in.
const HOME: &str = "/var/lib/appliance/database-elsewhere";

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Marker {
    /// Nothing: nobody of ours was here.
    None,
    /// The machine of this name fills it.
    Unfinished(String),
    /// It is the database of an instance.
    Instance {
        /// The instance's domain.
        domain: String,
        /// The machine that serves it: another one has other secrets.
        machine: String,
    },
}

/// The marker of a database.
pub(super) fn of(context: &Context, database: &str, has_table: bool) -> Result<Marker> {
    if sql::elsewhere(context).is_none() {
        let settled = channels::settled_domain(&context.root);
        return Ok(
            settled.map_or(Marker::None, |domain| Marker::Instance { domain, machine: machine(context) })
        );
    }
    if !has_table {
        return Ok(Marker::None);
    }
    let rows =
        sql::rows(context, database, "SELECT domain, machine, is_ready FROM public.appliance_instance;")?;
    Ok(match rows.first().map(Vec::as_slice) {
        Some([domain, machine, ready]) if ready == "t" => {
            Marker::Instance { domain: domain.clone(), machine: machine.clone() }
        }
        Some([_, machine, _]) => Marker::Unfinished(machine.clone()),
        _ => Marker::None,
    })
}

/// This machine's name in the marker.
pub(super) fn machine(context: &Context) -> String {
    fs::read_to_string(context.state().join("instance-id")).unwrap_or_default().trim().to_owned()
}

/// Claims a database that nobody has claimed, or one that is empty and that its marker calls somebody's: of two machines at that the
/// server lets one win.
pub(super) fn begin(context: &Context, marker: &Marker) -> Result<()> {
    let (domain, me) = words(context)?;
    let name = sql::instance(context);
    let Marker::Instance { machine, .. } = marker else {
        let statements = format!(
            "BEGIN;\n\
            CREATE TABLE public.appliance_instance {COLUMNS};\n\
            INSERT INTO public.appliance_instance VALUES ({domain}, {me}, false);\n\
            COMMIT;"
        );
        return sql::run(context, name, &statements);
    };
    let statements = format!(
        "UPDATE public.appliance_instance SET domain = {domain}, machine = {me}, is_ready = false WHERE is_ready AND machine = {} RETURNING machine;",
        sql::literal(machine)
    );
    if sql::rows(context, name, &statements)?.is_empty() {
        bail!("another machine has begun to fill database `{name}`; what it leaves is looked at again");
    }
    Ok(())
}

/// The database is complete, and this instance's.
pub(super) fn finish(context: &Context) -> Result<()> {
    if sql::elsewhere(context).is_some() {
        let (domain, me) = words(context)?;
        let statements = format!(
            "SET client_min_messages = warning;\n\
            BEGIN;\n\
            CREATE TABLE IF NOT EXISTS public.appliance_instance {COLUMNS};\n\
            DELETE FROM public.appliance_instance;\n\
            INSERT INTO public.appliance_instance VALUES ({domain}, {me}, true);\n\
            COMMIT;"
        );
        sql::run(context, sql::instance(context), &statements)?;
    }
    // Behind the row: a machine that lacks these is given them when it sees that the row is its own, while the other way round a cut
    // would leave a database that seems to belong to nobody beside data of ours.
    settle(context)?;
    match place(context) {
        Some(place) => {
            durable::write(&context.path(HOME), format!("{place}\n").as_bytes(), 0o644, None).map(drop)
        }
        None => durable::remove(&context.path(HOME)),
    }
}

/// Whether this machine knows that it has its data in the database that the settings name, and under this domain.
pub(super) fn is_noted(context: &Context) -> Result<bool> {
    let is_settled =
        channels::settled_domain(&context.root).as_deref() == Some(context.settings()?.domain.as_str());
    let home = fs::read_to_string(context.path(HOME)).ok();
    Ok(is_settled && home.as_deref().map(str::trim) == place(context).as_deref())
}

/// Domain and machine as the marker has them, as SQL literals.
fn words(context: &Context) -> Result<(String, String)> {
    Ok((sql::literal(context.settings()?.domain.as_str()), sql::literal(&machine(context))))
}

/// Where the instance has its data, if the place that counts now must not be empty: its name for people, and what they do to begin
/// anew all the same.
pub(super) fn home(context: &Context) -> Option<(String, String)> {
    if let Ok(place) = fs::read_to_string(context.path(HOME)) {
        return Some((place.trim().to_owned(), format!("remove `{HOME}`")));
    }
    let is_left = sql::elsewhere(context).is_some()
        && channels::settled_domain(&context.root).is_some()
        && postgresql::has_cluster(context);
    let data = &context.facts.postgresql.data;
    is_left.then(|| ("this machine's own server".to_owned(), format!("move `{data}` away")))
}

/// The database elsewhere, for people.
fn place(context: &Context) -> Option<String> {
    let server = sql::elsewhere(context)?;
    Some(format!("database `{}` at `{}`", server.name, server.host.as_deref().unwrap_or_default()))
}

/// From here on no other configuration may give the instance another name.
pub(super) fn settle(context: &Context) -> Result<()> {
    let settings = context.settings()?;
    channels::settle_site(&context.root, settings.site().as_str())?;
    channels::settle_domain(&context.root, settings.domain.as_str())
}
