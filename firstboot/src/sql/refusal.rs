//! Why a server does not let us in: its own words, and what the operator can do.
//!
//! Recognised are the words of libpq 9.2 to 17 and of servers that speak English; others' words are shown as they are, with the keys that
//! they may be about.

use std::fmt;

use crate::exec::Output;
use crate::settings::{Database, SslMode};

/// The longest words of a server that are shown, in characters.
const LONGEST: usize = 300;

/// No connection came about. The text never has the password in it: no program here is given it but by a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// The refusal in what `psql` said; `None` when there was a connection. It ends with 2 where there was none, and where one was lost.
    pub(super) fn of(output: &Output, server: Option<&Database>) -> Option<Refusal> {
        if output.code != 2 {
            return None;
        }
        let words = words(&output.stderr);
        Some(Refusal(match server {
            None => format!("this machine's own database server does not let us in: it says `{words}`"),
            Some(server) => sentence(&words, server),
        }))
    }
}

/// A program's error output as one line, without the program's own name.
pub(super) fn words(stderr: &str) -> String {
    let mut lines = Vec::new();
    for line in stderr.lines() {
        let mut line = line.trim();
        for prefix in ["psql:", "pg_dump:", "<stdin>:", "error:", "FATAL:", "ERROR:"] {
            line = line.strip_prefix(prefix).unwrap_or(line).trim_start();
            // The number of the line that failed.
            let after = line.trim_start_matches(|character: char| character.is_ascii_digit());
            line = after.strip_prefix(": ").unwrap_or(line);
        }
        // Advice that is about another situation as often as not.
        if !line.is_empty()
            && !line.starts_with("Is the server running")
            && !line.starts_with("TCP/IP connections on port")
        {
            lines.push(line);
        }
    }
    let text: String = lines.join("; ").chars().filter(|character| !character.is_control()).collect();
    if text.is_empty() { "no reason given".to_owned() } else { text.chars().take(LONGEST).collect() }
}

/// What an operator does about it. The order counts: the first words that are found decide.
fn sentence(words: &str, server: &Database) -> String {
    let host = server.host.as_deref().unwrap_or_default();
    let (user, name) = (&server.user, &server.name);
    let place = if host.contains(':') {
        format!("[{host}]:{}", server.port)
    } else {
        format!("{host}:{}", server.port)
    };
    let lower = words.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
    let is_plain = matches!(server.sslmode, SslMode::Disable | SslMode::Prefer);
    let remedy = if has(&[
        "could not translate host name",
        "name or service not known",
        "no address associated",
    ]) {
        "correct `database.host`, or `network.dns` if the name is right".to_owned()
    } else if has(&["connection refused"]) {
        "nobody listens there: start the server, let it listen on that address (`listen_addresses`), or correct `database.host` and `database.port`".to_owned()
    } else if has(&[
        "timeout expired",
        "timed out",
        "no route to host",
        "network is unreachable",
        "host is unreachable",
    ]) {
        "nothing comes back: check the route and the firewalls between, or correct `database.host` and `database.port`".to_owned()
    } else if has(&["server does not support ssl"]) {
        "it has no encryption: switch `ssl` on there, or write `database.sslmode = \"disable\"`".to_owned()
    } else if has(&[
        "authentication method 10",
        "scram authentication requires",
        "unknown authentication request",
    ]) {
        format!(
            "this image knows no SCRAM: set `password_encryption = 'md5'` there, give role `{user}` its password again, and have `md5` in `pg_hba.conf`"
        )
    } else if has(&["certificate", "does not match host name"]) {
        "its certificate is not the one that is wanted: correct `database.ca` and `database.host`, or write `database.sslmode = \"require\"`".to_owned()
    } else if has(&["password authentication failed"]) {
        format!(
            "correct `database.user` and `database.password`, or give the role this password there (`ALTER ROLE \"{user}\" PASSWORD …`)"
        )
    } else if has(&["no password supplied"]) {
        "it wants a password: give `database.password`".to_owned()
    } else if has(&["is not permitted to log in"]) {
        format!("let it there (`ALTER ROLE \"{user}\" LOGIN`)")
    } else if has(&["no encryption", "ssl off"]) && is_plain && has(&["pg_hba.conf"]) {
        "it may take encrypted connections only: write `database.sslmode = \"require\"`, or add a line to `pg_hba.conf` there".to_owned()
    } else if has(&["pg_hba.conf"]) {
        format!(
            "add a line for database `{name}`, role `{user}` and this machine's address to `pg_hba.conf` there, and reload the server"
        )
    } else if lower.contains("role") && lower.contains("does not exist") {
        format!(
            "make it there (`CREATE ROLE \"{user}\" LOGIN CREATEDB PASSWORD …`), or correct `database.user`"
        )
    } else if lower.contains("database") && lower.contains("does not exist") {
        format!(
            "make it there (`CREATE DATABASE \"{name}\" OWNER \"{user}\" ENCODING 'UTF8'`), or correct `database.name`"
        )
    } else if has(&["permission denied for database"]) {
        format!("let it in there (`GRANT ALL ON DATABASE \"{name}\" TO \"{user}\"`)")
    } else if has(&["too many connections", "too many clients", "remaining connection slots"]) {
        "raise `max_connections` there, or stop what else uses it".to_owned()
    } else if has(&["starting up", "shutting down", "recovery"]) {
        "it is about to start or to end, and is asked again".to_owned()
    } else if has(&["invalid response", "server closed the connection"]) {
        "what listens there is not PostgreSQL, or it broke off: correct `database.host` and `database.port`, or look into the server's log".to_owned()
    } else {
        "look into the server's log, and compare the table `database` of the configuration with it".to_owned()
    };
    format!("the database server `{place}` does not let role `{user}` in: it says `{words}`; {remedy}")
}

#[cfg(test)]
mod tests {
    use super::{sentence, words};
    use crate::settings::{Database, SslMode};

    fn check(words: &str, expected: &str) {
        let server = Database { host: Some("db.example.net".to_owned()), ..Database::default() };
        let text = sentence(words, &server);
        assert!(text.contains(expected), "{text}");
    }

    /// Words of libpq 9.2 and of today's, of servers old and new.
    #[test]
    fn each_fault_has_its_remedy() {
        check("could not connect to server: Connection refused", "nobody listens there");
        check("could not connect to server: Connection timed out", "nothing comes back");
        check(
            "connection to server at \"10.0.0.5\", port 5432 failed: timeout expired",
            "nothing comes back",
        );
        check("could not translate host name \"db\" to address: Name or service not known", "`network.dns`");
        check("authentication method 10 not supported", "knows no SCRAM");
        check("SCRAM authentication requires libpq version 10 or above", "knows no SCRAM");
        check(
            "no pg_hba.conf entry for host \"10.0.0.7\", user \"mastodon\", database \"mastodon\", SSL off",
            "sslmode = \"require\"",
        );
        check(
            "pg_hba.conf rejects connection for host \"10.0.0.7\", user \"mastodon\", no encryption",
            "sslmode = \"require\"",
        );
        check("no pg_hba.conf entry for host \"10.0.0.7\", SSL on", "add a line for database `mastodon`");
        check("server does not support SSL, but SSL was required", "sslmode = \"disable\"");
        check("SSL error: certificate verify failed", "`database.ca`");
        check("server certificate for \"a\" does not match host name \"b\"", "`database.ca`");
        check("password authentication failed for user \"mastodon\"", "ALTER ROLE \"mastodon\" PASSWORD");
        check("fe_sendauth: no password supplied", "give `database.password`");
        check("role \"mastodon\" is not permitted to log in", "ALTER ROLE \"mastodon\" LOGIN");
        check("role \"mastodon\" does not exist", "CREATE ROLE \"mastodon\"");
        check("sorry, too many clients already", "max_connections");
        check("the database system is starting up", "is asked again");
        check("ユーザー\"mastodon\"のパスワード認証に失敗しました", "look into the server's log");
        let server =
            Database { host: Some("::1".to_owned()), sslmode: SslMode::Require, ..Database::default() };
        assert!(
            sentence("no pg_hba.conf entry, SSL off", &server)
                .starts_with("the database server `[::1]:5432` ")
        );
    }

    #[test]
    fn words_are_one_line() {
        let said = "psql: error: connection to server at \"127.0.0.1\", port 1 failed: Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?\n";
        assert_eq!(words(said), "connection to server at \"127.0.0.1\", port 1 failed: Connection refused");
        let old = "psql: FATAL:  password authentication failed for user \"mastodon\"\nFATAL:  \x1b[1mno\n";
        assert_eq!(words(old), "password authentication failed for user \"mastodon\"; [1mno");
        assert_eq!(words("psql:<stdin>:2: ERROR:  no"), "no");
        assert_eq!(words("\n"), "no reason given");
    }
}
