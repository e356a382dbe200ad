//! `[database]`: a PostgreSQL server elsewhere; without `host` the machine has its own.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};

use super::Secret;
use super::network::host_or_address;
use super::services::pem_option;
use super::values::checked;
use crate::dotenv;

/// The longest password in bytes: the program `psql` of CentOS 7 reads lines of 320 bytes from its password file.
const LONGEST_PASSWORD: usize = 255;

/// The database server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Database {
    /// Name or address of a server elsewhere.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "host")]
    pub host: Option<String>,
    /// Its port.
    pub port: u16,
    /// The database's name there.
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// The role that owns the tables.
    #[serde(deserialize_with = "name")]
    pub user: String,
    /// The role's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Whether the connection is encrypted.
    pub sslmode: SslMode,
    /// Trust anchors (PEM) of the server's certificate.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "pem_option")]
    pub ca: Option<String>,
    /// Agreement to take over a database with users that this appliance has not made.
    pub adopt: bool,
}

impl Default for Database {
    fn default() -> Self {
        Database {
            host: None,
            port: 5432,
            name: "mastodon".to_owned(),
            user: "mastodon".to_owned(),
            password: None,
            sslmode: SslMode::default(),
            ca: None,
            adopt: false,
        }
    }
}

/// Whether the connection to the server is encrypted, in libpq's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Never.
    Disable,
    /// Where the server and the program can; the streaming service cannot.
    #[default]
    Prefer,
    /// Always, with whatever certificate.
    Require,
    /// Always, with a certificate that is valid for the server's name.
    VerifyFull,
}

impl SslMode {
    /// libpq's word.
    pub fn word(self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyFull => "verify-full",
        }
    }
}

/// What contradicts itself, or cannot be told to the application: the key, and what is wrong with it.
pub(super) fn contradiction(database: &Database) -> Option<(&'static str, String)> {
    if database.host.is_none() {
        let without_adopt = Database { adopt: false, ..database.clone() };
        let message = "`host` is missing, without which the machine's own database is used: add it, or remove the other keys but `adopt`";
        return (without_adopt != Database::default()).then(|| ("database.host", message.to_owned()));
    }
    if database.sslmode == SslMode::VerifyFull && database.ca.is_none() {
        let message =
            "`sslmode = \"verify-full\"` needs the authority's certificate in `ca`: paste its PEM text";
        return Some(("database.ca", message.to_owned()));
    }
    if database.sslmode != SslMode::VerifyFull && database.ca.is_some() {
        let message = "`ca` goes with `sslmode = \"verify-full\"` only: change one of them";
        return Some(("database.ca", message.to_owned()));
    }
    let password = database.password.as_ref().map_or("", Secret::expose);
    if password.len() > LONGEST_PASSWORD {
        let message = format!(
            "the password is longer than the {LONGEST_PASSWORD} bytes that every program here can read: choose a shorter one"
        );
        return Some(("database.password", message));
    }
    [
        ("database.host", "DB_HOST", database.host.as_deref().unwrap_or_default()),
        ("database.user", "DB_USER", &database.user),
        ("database.name", "DB_NAME", &database.name),
        ("database.password", "DB_PASS", password),
    ]
    .into_iter()
    .find_map(|(key, variable, value)| {
        if let Err(error) = dotenv::line(variable, value) {
            return Some((key, error.to_string()));
        }
        yaml_obstacle(value).map(|reason| {
            let message = format!("Rails would not read the same value in its `config/database.yml`, because {reason}: choose another value");
            (key, message)
        })
    })
}

/// Why Rails would read a value as something else: Mastodon puts it into YAML without quotes.
fn yaml_obstacle(value: &str) -> Option<&'static str> {
    const WORDS: [&str; 11] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", ".inf", ".nan"];
    let numeric = |character: char| character.is_ascii_digit() || "_,.:+-eETZtz ".contains(character);
    let unsigned = value.trim_start_matches(['+', '-']);
    let based = ["0x", "0b", "0o", "0X"].iter().any(|start| unsigned.starts_with(start));
    if value.is_empty() {
        None
    } else if value.contains(": ") || value.ends_with(':') || value.contains(" #") {
        Some("a colon before a blank or at the end, or `#` behind a blank, has a meaning there")
    } else if value.starts_with(|first: char| "-?:,[]{}#&*!|>'\"%@`~=<".contains(first)) {
        Some("the first character has a meaning there")
    } else if WORDS.contains(&value.trim_start_matches(['+', '-']).to_lowercase().as_str()) {
        Some("the word has a meaning there")
    } else if based
        || value.starts_with(|first: char| first.is_ascii_digit() || "+.".contains(first))
            && value.chars().all(numeric)
            && !is_address(value)
    {
        Some("it looks like a number or a date")
    } else if value.contains("<%") {
        Some("`<%` has a meaning there")
    } else {
        None
    }
}

/// Four numbers with three dots are a text to YAML, and so is what has two colons side by side; numbers between single colons are one
/// number in base 60.
fn is_address(value: &str) -> bool {
    value.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4() || value.contains("::"))
}

fn host<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, |text| match text.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) if text.starts_with('/') => {
            Err(format!("`{text}` is a path: leave `host` out for the machine's own database"))
        }
        Err(_) => {
            host_or_address(text).map_err(|cause| format!("{cause}; the port has a key of its own, `port`"))
        }
    })
    .map(Some)
}

/// Names that need no quotes anywhere, with the `@` that some providers' roles have.
fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, |text| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.@".contains(&byte);
        let is_name = (1..=63).contains(&text.len())
            && text.bytes().all(known)
            && text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        is_name.then_some(()).ok_or_else(|| {
            format!("`{text}` cannot be used here: a name has up to 63 letters, digits, `_`, `-`, `.`, `@`, and begins with a letter")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::yaml_obstacle;
    use crate::settings::Settings;

    fn refused(lines: &str) -> String {
        let text = format!("schema = 1\ndomain = \"v6don.example.net\"\n[database]\n{lines}\n");
        Settings::parse("config.toml", &text).unwrap_err().to_string()
    }

    #[test]
    fn what_rails_would_read_differently_is_known() {
        for value in [
            "hunter2",
            "a1b2",
            "12ab34",
            "10.0.0.5",
            "db.example.net",
            "p#w",
            "a:b",
            "2001:db8::1",
            "2001:10::5",
            "x=y",
            "",
        ] {
            assert_eq!(yaml_obstacle(value), None, "{value}");
        }
        for value in [
            "0123",
            "12_34",
            "1:30",
            "1e5",
            "2024-01-02",
            "0x1f",
            "yes",
            "NULL",
            "~",
            "@a",
            "a: b",
            "a #b",
            "::1",
            "-",
            "[a",
            "2001:1:2:3:4:5:6:7",
            "a:",
            "-1",
        ] {
            assert!(yaml_obstacle(value).is_some(), "{value}");
        }
    }

    #[test]
    fn mistakes_are_named_and_the_password_is_not_shown() {
        insta::assert_snapshot!(refused("user = \"app\""), @"`config.toml` key `database.host`: `host` is missing, without which the machine's own database is used: add it, or remove the other keys but `adopt`");
        insta::assert_snapshot!(refused("host = \"db.example.net\"\npassword = \"it's\""), @"`config.toml` key `database.password`: `DB_PASS` cannot be written to `.env.production`: its value has a single quote; Ruby and Node would read it differently, so choose another value");
        insta::assert_snapshot!(refused("host = \"db.example.net\"\npassword = \"0123456\""), @"`config.toml` key `database.password`: Rails would not read the same value in its `config/database.yml`, because it looks like a number or a date: choose another value");
        insta::assert_snapshot!(refused("host = \"db.example.net:5433\""), @"`config.toml` line 4, column 8: `db.example.net:5433` contains `:`: a name has letters, digits, hyphens and dots only; the port has a key of its own, `port`");
        insta::assert_snapshot!(refused("host = \"/run/postgresql\""), @"`config.toml` line 4, column 8: `/run/postgresql` is a path: leave `host` out for the machine's own database");
        insta::assert_snapshot!(refused("host = \"db.example.net\"\nsslmode = \"verify-full\""), @r#"`config.toml` key `database.ca`: `sslmode = "verify-full"` needs the authority's certificate in `ca`: paste its PEM text"#);
        insta::assert_snapshot!(refused("host = \"db.example.net\"\nname = \"a b\""), @"`config.toml` line 5, column 8: `a b` cannot be used here: a name has up to 63 letters, digits, `_`, `-`, `.`, `@`, and begins with a letter");
    }
}
