//! The settings as a table: what a form has to know to ask for them, and how its answers become settings.
//!
//! The builder turns every [`Field`] into a property of the OVF descriptor; first boot turns the properties that a hypervisor hands
//! over back into TOML with [`to_toml`]. A test holds the table against [`Settings`](super::Settings) itself, so that no setting is
//! without its property and no property without its setting. Everything is optional: a hypervisor refuses to power on a machine
//! whose required property is empty, and an appliance without settings waits for them instead.

mod fields;

use std::collections::BTreeMap;

use toml::{Table, Value};

pub use fields::FIELDS;

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its key in the configuration, such as `network.ipv6.method`.
    pub path: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// Heading of the group that it is asked for in.
    pub category: &'static str,
    /// A few words for a form.
    pub label: &'static str,
    /// One or two sentences beside it.
    pub description: &'static str,
    /// What holds when nothing is said; saying it is saying nothing.
    pub default: Option<&'static str>,
    /// A value that would be accepted.
    pub example: &'static str,
}

/// What a value is, and how it is written in one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text of so many characters at most.
    Text(u16),
    /// The same, never shown.
    Password(u16),
    /// A PEM text, whose line breaks may have become spaces or `\n`.
    Pem(u16),
    /// The same, never shown.
    SecretPem(u16),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// 0 to 65535.
    Port,
    /// A number between these two, both included.
    Number(u16, u16),
    /// Texts between commas.
    List(u16),
    /// `NAME=value` between semicolons, never shown.
    Pairs(u16),
}

impl Field {
    /// Its name where dots are not allowed, as in OVF: hyphens take their place.
    pub fn key(&self) -> String {
        self.path.replace('.', "-")
    }

    /// Whether its value may not be shown.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Password(_) | Kind::SecretPem(_) | Kind::Pairs(_))
    }

    /// The value in a text; `None` when the text says nothing.
    fn said(&self, text: &str) -> Option<Result<Value, String>> {
        if ["", "null"].contains(&text.trim()) {
            return None;
        }
        let value = self.value(text);
        let is_empty = |value: &Value| {
            value.as_array().is_some_and(Vec::is_empty) || value.as_table().is_some_and(Table::is_empty)
        };
        if value.as_ref().is_ok_and(is_empty) { None } else { Some(value) }
    }

    fn value(&self, text: &str) -> Result<Value, String> {
        let wrong = |wanted: &str| Err(format!("it must be {wanted}"));
        Ok(match self.kind {
            Kind::Text(_) | Kind::Choice(_) => Value::String(text.trim().to_owned()),
            Kind::Password(_) => Value::String(text.to_owned()),
            Kind::Pem(_) | Kind::SecretPem(_) => Value::String(pem(text)),
            // vSphere writes `True` and `False`.
            Kind::Flag => match text.trim().to_ascii_lowercase().as_str() {
                "true" => Value::Boolean(true),
                "false" => Value::Boolean(false),
                _ => return wrong("true or false"),
            },
            Kind::Port => match text.trim().parse::<u16>() {
                Ok(port) => Value::Integer(port.into()),
                Err(_) => return wrong("a number from 0 to 65535"),
            },
            Kind::Number(least, most) => match text.trim().parse::<u16>() {
                Ok(number) if (least..=most).contains(&number) => Value::Integer(number.into()),
                _ => return wrong(&format!("a number from {least} to {most}")),
            },
            Kind::List(_) => Value::Array(parts(text, ',').map(|part| part.to_owned().into()).collect()),
            Kind::Pairs(_) => {
                let pairs = parts(text, ';').map(|part| {
                    let (name, value) = part.split_once('=')?;
                    Some((name.trim_end().to_owned(), Value::String(value.trim_start().to_owned())))
                });
                match pairs.collect::<Option<Table>>() {
                    Some(table) => Value::Table(table),
                    None => return wrong("NAME=value, several of them between semicolons"),
                }
            }
        })
    }
}

/// The TOML text of the settings that properties state by [`Field::key`]; `None` when they state none. An empty value, the word
/// `null` (some deployments write it for an empty one) and the default count as absent, names of others are passed over. The
/// text still has to be read by [`Settings::parse`](super::Settings::parse); an error is one sentence without any value.
pub fn to_toml(properties: &BTreeMap<String, String>) -> Result<Option<String>, String> {
    let mut settings = Table::new();
    for field in FIELDS {
        let said = properties.get(&field.key());
        let named = |reason| format!("property `{}`: {reason}", field.key());
        let Some(value) = said.and_then(|said| field.said(said)).transpose().map_err(named)? else {
            continue;
        };
        let default = field.default.map(|default| field.value(default)).transpose()?;
        if default.as_ref() != Some(&value) {
            put(&mut settings, field.path, value);
        }
    }
    written(settings)
}

/// The same for settings that somebody has stated one by one, by [`Field::path`]: there saying the default is saying something, and
/// goes before what another source says.
pub fn to_toml_as_said(settings: &BTreeMap<String, String>) -> Result<Option<String>, String> {
    let mut table = Table::new();
    for field in FIELDS {
        let value = settings.get(field.path).and_then(|said| field.said(said)).transpose();
        if let Some(value) = value.map_err(|reason| format!("key `{}`: {reason}", field.path))? {
            put(&mut table, field.path, value);
        }
    }
    written(table)
}

fn written(mut settings: Table) -> Result<Option<String>, String> {
    if settings.is_empty() {
        return Ok(None);
    }
    settings.insert("schema".to_owned(), Value::Integer(1));
    toml::to_string(&settings).map(Some).map_err(|error| format!("properties: {error}"))
}

/// The property that stands in a line (from 1) of a text that [`to_toml`] wrote, by [`Field::key`].
pub fn key_at(text: &str, line: usize) -> Option<String> {
    let mut table = String::new();
    let mut path = None;
    for line in text.lines().take(line) {
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = format!("{header}.");
            path = Some(header.to_owned());
        } else if let Some((key, _)) = line.split_once(" = ") {
            path = Some(format!("{table}{key}"));
        }
    }
    let path = path?;
    // A value may be a table itself, whose keys are no settings of their own.
    let field = FIELDS.iter().find(|field| {
        path.strip_prefix(field.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    field.map(Field::key)
}

fn put(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
            if let Some(inner) = inner.as_table_mut() {
                put(inner, rest, value);
            }
        }
    }
}

fn parts(text: &str, separator: char) -> impl Iterator<Item = &str> {
    text.split(separator).map(str::trim).filter(|part| !part.is_empty())
}

/// PEM blocks with their line breaks again; text that is none stays as it is, for the reader to refuse.
fn pem(text: &str) -> String {
    const DASHES: &str = "-----";
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let Some((label, after)) = after.split_once(DASHES) else { return text.to_owned() };
        let Some((body, after)) = after.split_once(&format!("-----END {label}-----")) else {
            return text.to_owned();
        };
        lines.push(format!("-----BEGIN {label}-----"));
        lines.extend(body.replace("\\n", " ").split_whitespace().map(str::to_owned));
        lines.push(format!("-----END {label}-----"));
        rest = after;
    }
    if lines.is_empty() { text.to_owned() } else { format!("{}\n", lines.join("\n")) }
}

#[cfg(test)]
mod tests;
