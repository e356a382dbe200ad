//! What lies in a database.

use anyhow::{Context as _, Result};

use super::marker::{self, Marker};
use crate::context::Context;
use crate::sql;

/// Every table, view and sequence in a database that is neither PostgreSQL's own, nor an extension's, nor our marker. All schemas: what counts as empty may be
/// dropped.
const RELATIONS: &str = "\
SELECT count(*) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = pg_class.relnamespace \
WHERE relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pg_(toast|temp_|toast_temp_)' \
AND relname <> 'appliance_instance' AND NOT EXISTS (SELECT 1 FROM pg_depend \
WHERE pg_depend.classid = 'pg_class'::regclass AND pg_depend.objid = pg_class.oid AND pg_depend.deptype = 'e');";

/// The tables of the schema `public`, and whether we may read each.
const TABLES: &str = "\
SELECT tablename, has_table_privilege(quote_ident(schemaname) || '.' || quote_ident(tablename), 'SELECT') \
FROM pg_tables WHERE schemaname = 'public';";

/// The tables that are read here.
const READ: [&str; 5] = [marker::TABLE, "schema_migrations", "oauth_applications", "users", "accounts"];

/// Takes every table, view and sequence of the schema `public` away but our marker and what extensions have; all or nothing. Not the schema
/// itself: before PostgreSQL 15 it belongs to the server's superuser.
pub(super) const DROP_ALL: &str = "\
DO $$ DECLARE one record; BEGIN
FOR one IN SELECT CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, relname
  FROM pg_class JOIN pg_namespace ON pg_namespace.oid = pg_class.relnamespace
  WHERE nspname = 'public' AND relkind IN ('r', 'p', 'v', 'm', 'S') AND relname <> 'appliance_instance' AND NOT EXISTS (SELECT 1 FROM pg_depend
    WHERE pg_depend.classid = 'pg_class'::regclass AND pg_depend.objid = pg_class.oid AND pg_depend.deptype IN ('e', 'a', 'i'))
LOOP EXECUTE 'DROP ' || one.kind || ' IF EXISTS public.' || quote_ident(one.relname) || ' CASCADE'; END LOOP;
END $$;";

/// A database, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its tables.
    pub content: Content,
    /// Whose it says that it is.
    pub marker: Marker,
    /// Users and accounts of a load that was never finished; what Mastodon makes for itself has numbers below 1.
    pub people: u64,
}

/// Its tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// No such database.
    Absent,
    /// A database without tables, views and sequences, in whatever schema.
    Empty,
    /// A table of this name belongs to somebody who does not let us read it.
    Shut(&'static str),
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

/// Looks into a database.
pub(super) fn look(context: &Context, database: &str) -> Result<Found> {
    let nothing = |content, marker| Found { content, marker, people: 0 };
    if !sql::exists(context, database)? {
        return Ok(nothing(Content::Absent, marker::of(context, database, false)?));
    }
    let tables = sql::rows(context, database, TABLES)?;
    let find = |table: &str| tables.iter().find(|row| row.first().is_some_and(|name| name == table));
    let has = |table: &str| find(table).is_some();
    let is_shut =
        |table: &str| find(table).is_some_and(|row| row.get(1).is_some_and(|may_read| may_read == "f"));
    if let Some(table) = READ.iter().find(|table| is_shut(table)) {
        return Ok(nothing(Content::Shut(table), Marker::None));
    }
    let marker = marker::of(context, database, has(marker::TABLE))?;
    if count(context, database, RELATIONS)? == 0 {
        return Ok(nothing(Content::Empty, marker));
    }
    let rows_of = |table: &str, query: &str| has(table).then(|| count(context, database, query)).transpose();
    // Only ours have columns that are known before there is a version.
    let people = if matches!(marker, Marker::Unfinished(_)) {
        let users = rows_of("users", "SELECT count(*) FROM users;")?.unwrap_or(0);
        users + rows_of("accounts", "SELECT count(*) FROM accounts WHERE id > 0;")?.unwrap_or(0)
    } else {
        0
    };
    if !has("schema_migrations") {
        return Ok(Found { content: Content::Unknown, marker, people });
    }
    let version = "SELECT coalesce(max(version::bigint), 0) FROM schema_migrations;";
    let tables = Content::Rails {
        version: count(context, database, version)?,
        superapps: rows_of("oauth_applications", "SELECT count(*) FROM oauth_applications WHERE superapp;")?,
        users: rows_of("users", "SELECT count(*) FROM users;")?,
    };
    Ok(Found { content: tables, marker, people })
}

/// The one number that a query answers with.
pub(super) fn count(context: &Context, database: &str, query: &str) -> Result<u64> {
    let rows = sql::rows(context, database, query)?;
    let value = rows.first().and_then(|row| row.first()).map(String::as_str).unwrap_or_default();
    value.parse().with_context(|| format!("reading the answer `{value}` to `{query}`"))
}
