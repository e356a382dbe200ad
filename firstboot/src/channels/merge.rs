//! One configuration out of several: each channel fills what those above it leave open, key by key.
//!
//! A key is a leaf, `network.ipv6.method`; a list is one value, never put together of two channels. Every key remembers its channel,
//! so that a refusal of the whole can say which of them to correct. Here is no order and no file: [`super::search`] decides both.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{LIMIT, Offer};
use crate::settings::Settings;

/// Leaves by their paths, as TOML writes them with dots.
pub(super) type Leaves = BTreeMap<String, Value>;

/// What one channel offers, read.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) offer: Offer,
    pub(super) leaves: Leaves,
    /// Whether it is a configuration by itself.
    pub(super) is_full: bool,
}

impl Layer {
    /// The instance that it says it is for.
    pub(super) fn domain(&self) -> Option<&str> {
        self.leaves.get("domain").and_then(Value::as_str)
    }

    /// Whether it says nothing else than a domain.
    pub(super) fn is_for(&self, domain: Option<&str>) -> bool {
        self.domain().is_none() || self.domain() == domain
    }
}

/// Reads an offer; `Err` when it is wrong by itself, whatever others may add.
pub(super) fn layer(offer: Offer) -> Result<Layer, String> {
    if offer.text.len() as u64 > LIMIT {
        return Err(format!("{} is larger than 1 MiB: this cannot be a configuration", offer.source));
    }
    let is_full = match Settings::parse(&offer.source, &offer.text) {
        Ok(_) => true,
        Err(error) if error.is_gap() => false,
        Err(error) => return Err(error.to_string()),
    };
    // OK: the text has just been read as TOML.
    let table: Table = toml::from_str(&offer.text).unwrap_or_default();
    Ok(Layer { leaves: leaves(&table), offer, is_full })
}

/// The leaves of a table, without `schema`.
pub(super) fn leaves(table: &Table) -> Leaves {
    fn walk(prefix: &str, table: &Table, found: &mut Leaves) {
        for (key, value) in table {
            let path = format!("{prefix}{}", bare(key));
            match value {
                Value::Table(inner) => walk(&format!("{path}."), inner, found),
                leaf => {
                    found.insert(path, leaf.clone());
                }
            }
        }
    }
    let mut found = Leaves::new();
    walk("", table, &mut found);
    found.remove("schema");
    found
}

/// A key as TOML wants it; quoted where it has to be.
fn bare(key: &str) -> String {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if !key.is_empty() && key.bytes().all(known) {
        key.to_owned()
    } else {
        Value::String(key.to_owned()).to_string()
    }
}

/// Settings with the channel of each.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Merged {
    pub(super) values: Leaves,
    pub(super) sources: BTreeMap<String, String>,
}

impl Merged {
    /// Puts layers together, the first one on top.
    pub(super) fn of(layers: &[Layer]) -> Merged {
        let mut merged = Merged::default();
        for layer in layers {
            for (path, value) in &layer.leaves {
                merged.fill(path, value, &layer.offer.source);
            }
        }
        merged
    }

    /// Takes a value unless there is one.
    pub(super) fn fill(&mut self, path: &str, value: &Value, source: &str) {
        if !self.values.contains_key(path) {
            self.values.insert(path.to_owned(), value.clone());
            self.sources.insert(path.to_owned(), source.to_owned());
        }
    }

    /// The channels that gave something, in the order of their names.
    pub(super) fn givers(&self) -> Vec<&str> {
        let mut givers: Vec<&str> = self.sources.values().map(String::as_str).collect();
        givers.sort_unstable();
        givers.dedup();
        givers
    }

    /// The text that is stored: one key a line, with its channel as a comment; and each key's first line, from 1.
    pub(super) fn render(&self) -> (String, BTreeMap<usize, String>) {
        let mut text =
            "# Put together by first boot; what follows a value is the channel that gave it.\nschema = 1\n"
                .to_owned();
        let mut lines = BTreeMap::new();
        for (path, value) in &self.values {
            lines.insert(text.matches('\n').count() + 1, path.clone());
            let source = self.sources.get(path).map_or("", String::as_str);
            text.push_str(&format!("{path} = {value}  # {}\n", source.escape_debug()));
        }
        (text, lines)
    }

    /// The settings that all of it is; an error names the channel and the key to correct.
    pub(super) fn settle(&self) -> Result<Settings, String> {
        let (text, lines) = self.render();
        let givers = self.givers().join("`, `");
        Settings::parse(&givers, &text).map_err(|error| {
            let line = error.line().and_then(|line| lines.range(..=line).next_back());
            let path = line.map(|(_, path)| path.as_str()).or(error.key());
            let Some((path, source)) = path.and_then(|path| self.sources.get_key_value(path)) else {
                return error.to_string();
            };
            // What is missing is beside what is there.
            let beside =
                error.message().strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
            let path = match (beside, path.rsplit_once('.')) {
                (Some(missing), Some((table, _))) => format!("{table}.{missing}"),
                _ => path.clone(),
            };
            let all = if self.givers().len() > 1 {
                format!(" (the configuration is put together of `{givers}`)")
            } else {
                String::new()
            };
            format!("`{source}` key `{path}`: {}{all}", error.message())
        })
    }
}

/// The text with further settings in it, everything else as it was: comments and order are the operator's. Falls back to a text of
/// our own where the settings cannot be put into his, as with a table in one line.
pub(super) fn add(text: &str, own: &Leaves, holes: &Merged) -> String {
    let mut all = holes.clone();
    for (path, value) in own {
        all.values.insert(path.clone(), value.clone());
        all.sources.insert(path.clone(), "the stored configuration".to_owned());
    }
    let mut added = text.to_owned();
    for (path, value) in &holes.values {
        let source = holes.sources.get(path).map_or("", String::as_str).escape_debug().to_string();
        added = insert(&added, path, value, &source);
    }
    let is_right = toml::from_str::<Table>(&added).is_ok_and(|table| leaves(&table) == all.values);
    if is_right { added } else { all.render().0 }
}

/// The text with one line more: below its table's header, at the top without a table or where its table has no header, else at the
/// end with a header.
fn insert(text: &str, path: &str, value: &Value, source: &str) -> String {
    let line = |key: &str| format!("{key} = {value}  # {source}");
    let Some((table, key)) = path.rsplit_once('.').filter(|_| !path.ends_with('"')) else {
        return format!("{}\n{text}", line(path));
    };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let header = format!("[{table}]");
    if let Some(place) =
        lines.iter().position(|line| line.split('#').next().unwrap_or_default().trim() == header)
    {
        lines.insert(place + 1, line(key));
    } else if lines.iter().any(|line| line.trim_start().starts_with(&format!("{table}."))) {
        return format!("{}\n{text}", line(path));
    } else {
        lines.extend([String::new(), header, line(key)]);
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str, text: &str) -> Layer {
        layer(Offer { source: source.to_owned(), text: text.to_owned() }).unwrap()
    }

    const FULL: &str = "schema = 1\ndomain = \"a.example\"\n[network]\ndns = [\"2001:db8::53\"]\n[network.ipv4]\nmethod = \"off\"\n";

    #[test]
    fn each_layer_fills_what_those_above_leave_open() {
        let layers = [
            read("first", FULL),
            read(
                "second",
                "schema = 1\ndomain = \"b.example\"\nnetwork = { dns = [\"2001:db8::54\"], search = [\"example\"] }\n",
            ),
            read(
                "third",
                "schema = 1\nhostname = \"third\"\n[network]\nsearch = [\"net\"]\n[extra-env]\nA = \"1\"\n",
            ),
        ];
        assert_eq!(layers.each_ref().map(|layer| layer.is_full), [true, true, false]);
        let merged = Merged::of(&layers);
        insta::assert_snapshot!(merged.render().0, @r#"
        # Put together by first boot; what follows a value is the channel that gave it.
        schema = 1
        domain = "a.example"  # first
        extra-env.A = "1"  # third
        hostname = "third"  # third
        network.dns = ["2001:db8::53"]  # first
        network.ipv4.method = "off"  # first
        network.search = ["example"]  # second
        "#);
        let settings = merged.settle().unwrap();
        assert_eq!(settings.hostname(), "third");
        assert_eq!(settings.domain.as_str(), "a.example");
        let again: Table = toml::from_str(&merged.render().0).unwrap();
        assert_eq!(leaves(&again), merged.values);
    }

    #[test]
    fn an_error_of_the_whole_names_channel_and_key() {
        let refused = |layers: &[Layer]| Merged::of(layers).settle().unwrap_err();
        let other = read("second", "schema = 1\n[network.ipv4]\naddresses = [\"192.0.2.1/24\"]\n");
        insta::assert_snapshot!(refused(&[read("first", FULL), other]), @r#"`first` key `network.ipv4.method`: addresses and gateway go with `method = "static"`: write that, or remove them (the configuration is put together of `first`, `second`)"#);
        // The reader of one text stops at the table that is incomplete: what comes behind it is seen here.
        let text = "schema = 1\n[mail]\nlogin = \"a\"\n[web]\nlisten = \"hunter2\"\n";
        let late = Layer { leaves: leaves(&toml::from_str(text).unwrap()), ..read("second", "schema = 1\n") };
        insta::assert_snapshot!(refused(&[read("first", FULL), late]), @"`second` key `mail.relay`: missing field `relay`; add it, or leave out the whole table (the configuration is put together of `first`, `second`)");
        insta::assert_snapshot!(refused(&[read("first", "schema = 1\nhostname = \"a\"\n")]), @r#"`first`: missing field `domain`; add the instance's name, such as `domain = "social.example.net"`"#);
        insta::assert_snapshot!(refused(&[read("first", "schema = 1\n[mail]\nlogin = \"a\"\n")]), @"`first` key `mail.relay`: missing field `relay`; add it, or leave out the whole table");
    }

    #[test]
    fn a_layer_that_is_wrong_by_itself_is_refused() {
        for (text, part) in [
            ("domain = \"a.example\"\n", "missing field `schema`"),
            ("schema = 1\ndomian = \"a.example\"\n", "unknown field `domian`"),
            ("schema = 1\n[web]\nlisten = 1\n", "wanted string or table"),
            ("schema = 1\ndomain = \"A.example\"\n", "capital letters"),
            ("domain", "line 1"),
        ] {
            let message = layer(Offer { source: "first".to_owned(), text: text.to_owned() }).unwrap_err();
            assert!(message.starts_with("`first`") && message.contains(part), "{message}");
        }
    }

    #[test]
    fn holes_are_filled_without_touching_the_rest() {
        let holes = "schema = 1\nhostname = \"b\"\n[network.ipv4]\ngateway = \"192.0.2.1\"\n[mail]\nrelay = \"192.0.2.25\"\nfrom = \"a@example.net\"\n\
                     [extra-env]\n\"a.b\" = \"1\"\n";
        let holes = Merged::of(&[read("later", holes)]);
        let stored = "# mine\n[network.ipv4] # there\nmethod = \"off\"\n";
        let own = leaves(&toml::from_str(stored).unwrap());
        let mut simple = holes.clone();
        simple.values.remove("extra-env.\"a.b\"");
        insta::assert_snapshot!(add(stored, &own, &simple), @r#"
        hostname = "b"  # later
        # mine
        [network.ipv4] # there
        gateway = "192.0.2.1"  # later
        method = "off"

        [mail]
        relay = "192.0.2.25"  # later
        from = "a@example.net"  # later
        "#);
        for awkward in [
            "network = { ipv4 = { method = \"off\" } }\n",
            "network.ipv4.method = \"off\"\n",
            "a = \"\"\"\n[mail]\n\"\"\"\n",
        ] {
            let own = leaves(&toml::from_str(awkward).unwrap());
            let text = add(awkward, &own, &holes);
            let found = leaves(&toml::from_str(&text).unwrap());
            assert_eq!(found.len(), own.len() + holes.values.len(), "{text}");
            assert!(own.iter().all(|(path, value)| found.get(path) == Some(value)), "{text}");
        }
    }
}
