//! Whose a database is, and who is filling it.
//!
//! On the machine's own server that is the settled domain, which lies on the same disk. On a server elsewhere it is one row of one table
//! in the database itself: a dump carries it, and two machines see the same one. Its making is the claim, and the server lets only one win.

use anyhow::Result;
use fs_err as fs;

use crate::context::Context;
use crate::steps::postgresql;
use crate::{channels, durable, sql};

/// The table.
pub(super) const TABLE: &str = "appliance_instance";

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
    /// It is the database of the instance with this domain.
    Instance(String),
}

/// The marker of a database.
pub(super) fn of(context: &Context, database: &str, has_table: bool) -> Result<Marker> {
    if sql::elsewhere(context).is_none() {
        return Ok(channels::settled_domain(&context.root).map_or(Marker::None, Marker::Instance));
    }
    if !has_table {
        return Ok(Marker::None);
    }
    let rows =
        sql::rows(context, database, "SELECT domain, machine, is_ready FROM public.appliance_instance;")?;
    Ok(match rows.first().map(Vec::as_slice) {
        Some([domain, _, ready]) if ready == "t" => Marker::Instance(domain.clone()),
        Some([_, machine, _]) => Marker::Unfinished(machine.clone()),
        _ => Marker::None,
    })
}

/// This machine's name in the marker.
pub(super) fn machine(context: &Context) -> String {
    fs::read_to_string(context.state().join("instance-id")).unwrap_or_default().trim().to_owned()
}

/// Claims a database that nobody has claimed.
pub(super) fn begin(context: &Context) -> Result<()> {
    let statements = format!(
        "BEGIN;\n\
        CREATE TABLE public.appliance_instance (domain text NOT NULL, machine text NOT NULL, is_ready boolean NOT NULL);\n\
        INSERT INTO public.appliance_instance VALUES ({}, {}, false);\n\
        COMMIT;",
        sql::literal(context.settings()?.domain.as_str()),
        sql::literal(&machine(context)),
    );
    sql::run(context, sql::instance(context), &statements)
}

/// The database is complete, and this instance's.
pub(super) fn finish(context: &Context) -> Result<()> {
    // First, so that no database is ever without it.
    settle(context)?;
    if sql::elsewhere(context).is_none() {
        return Ok(());
    }
    // Before the row: until it says so, what is empty is still being filled.
    durable::write(&context.path(HOME), format!("{}\n", place(context)).as_bytes(), 0o644, None)?;
    let statements = format!(
        "SET client_min_messages = warning;\n\
        BEGIN;\n\
        CREATE TABLE IF NOT EXISTS public.appliance_instance (domain text NOT NULL, machine text NOT NULL, is_ready boolean NOT NULL);\n\
        DELETE FROM public.appliance_instance;\n\
        INSERT INTO public.appliance_instance VALUES ({}, {}, true);\n\
        COMMIT;",
        sql::literal(context.settings()?.domain.as_str()),
        sql::literal(&machine(context)),
    );
    sql::run(context, sql::instance(context), &statements)
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
fn place(context: &Context) -> String {
    let Some(server) = sql::elsewhere(context) else { return String::new() };
    format!("database `{}` at `{}`", server.name, server.host.as_deref().unwrap_or_default())
}

/// From here on no other configuration may give the instance another name.
pub(super) fn settle(context: &Context) -> Result<()> {
    let settings = context.settings()?;
    channels::settle_site(&context.root, settings.site().as_str())?;
    channels::settle_domain(&context.root, settings.domain.as_str())
}
