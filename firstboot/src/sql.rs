//! SQL to the local PostgreSQL, through `psql` as the server's own superuser over the Unix socket.
//!
//! Statements go through stdin, so that no value is ever an argument; a failing statement is an error with the server's words.

use anyhow::Result;

use crate::context::Context;
use crate::exec::Run;

/// No statement of ours takes longer; one that does waits for a lock. PostgreSQL 9.2 has no limit for locks alone.
const LIMIT: &str = "SET statement_timeout = '5min';\n";

/// The user that PostgreSQL runs as, on every distribution.
pub const SUPERUSER: &str = "postgres";

/// Runs statements and returns the rows of the queries among them, each as its columns.
pub fn rows(context: &Context, database: &str, statements: &str) -> Result<Vec<Vec<String>>> {
    let facts = &context.facts.postgresql;
    let psql = format!("{}/psql", facts.bin);
    let args = ["-XAtq", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-h", &facts.socket, "-d", database, "-f", "-"];
    let text = Run::as_user(SUPERUSER, &psql, &args).stdin(format!("{LIMIT}{statements}")).text()?;
    Ok(text.lines().map(|line| line.split('\t').map(ToOwned::to_owned).collect()).collect())
}

/// Runs statements whose rows do not matter.
pub fn run(context: &Context, database: &str, statements: &str) -> Result<()> {
    rows(context, database, statements).map(drop)
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
    use super::{identifier, literal};

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
    }
}
