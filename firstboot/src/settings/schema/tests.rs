//! The table and [`Settings`] say the same, in both directions.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::super::Settings;
use super::{FIELDS, Field, Kind, to_toml};

fn field(path: &str) -> &'static Field {
    FIELDS.iter().find(|field| field.path == path).unwrap()
}

fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn leaf(table: &Table, path: &str) -> Option<Value> {
    match path.split_once('.') {
        None => table.get(path).cloned(),
        Some((first, rest)) => leaf(table.get(first)?.as_table()?, rest),
    }
}

/// The keys that the reader of a table knows: it lists them when it is given one that it does not know.
fn known(table: &str) -> Vec<String> {
    let header = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
    let text = format!("schema = 1\ndomain = \"a.example\"\n{header}no-such-key = 1\n");
    let message = Settings::parse("test", &text).unwrap_err().to_string();
    let (_, list) = message.split_once(", expected ").unwrap_or_else(|| panic!("`{table}`: {message}"));
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Every leaf below a table: a key is a table when the schema has something below it, else a leaf.
fn leaves(table: &str, found: &mut BTreeSet<String>) {
    for key in known(table) {
        let path = if table.is_empty() { key } else { format!("{table}.{key}") };
        if FIELDS.iter().any(|field| field.path.starts_with(&format!("{path}."))) {
            leaves(&path, found);
        } else {
            found.insert(path);
        }
    }
}

#[test]
fn every_setting_is_in_the_table_and_nothing_else_is() {
    let mut found = BTreeSet::new();
    leaves("", &mut found);
    assert!(found.remove("schema"));
    let stated: BTreeSet<String> = FIELDS.iter().map(|field| field.path.to_owned()).collect();
    assert_eq!(found, stated, "left: settings; right: `FIELDS` in settings/schema/fields.rs");
    assert_eq!(stated.len(), FIELDS.len(), "a path is there twice");
    let keys: BTreeSet<String> = FIELDS.iter().map(Field::key).collect();
    assert_eq!(keys.len(), FIELDS.len(), "two paths have one key");
}

/// Each example arrives as the setting that it is for, and none is the default or longer than its field.
#[test]
fn every_property_arrives_in_the_settings() {
    // Contradictory examples are told apart by what else is said with them.
    let base = [("domain", "a.example"), ("tls.mode", "selfsigned")];
    let beside = |path: &str| -> &[&str] {
        match path {
            "network.ipv6.gateway" | "network.ipv6.method" => {
                &["network.ipv6.method", "network.ipv6.addresses"]
            }
            "network.ipv4.gateway" | "network.ipv4.method" | "network.ipv4.addresses" => {
                &["network.ipv4.method", "network.ipv4.addresses"]
            }
            "mail.login" | "mail.password" | "mail.auth-method" => {
                &["mail.relay", "mail.from", "mail.login", "mail.password"]
            }
            "tls.certificate" | "tls.key" => &["tls.certificate", "tls.key"],
            "tls.challenge" | "tls.dns-hook" => &["tls.challenge", "tls.dns-hook"],
            "database.ca" => &["database.host", "database.ca"],
            _ if path.starts_with("database.") => &["database.host"],
            "media.url" => &["media.path", "media.url"],
            "media.s3.signature-version" | "media.s3.endpoint" => &[
                "media.s3.bucket",
                "media.s3.hostname",
                "media.s3.access-key-id",
                "media.s3.secret-access-key",
                "media.s3.endpoint",
            ],
            _ if path.starts_with("media.s3.") => &[
                "media.s3.bucket",
                "media.s3.region",
                "media.s3.access-key-id",
                "media.s3.secret-access-key",
            ],
            _ if path.starts_with("media.swift.") => &[
                "media.swift.username",
                "media.swift.password",
                "media.swift.tenant",
                "media.swift.auth-url",
                "media.swift.container",
                "media.swift.object-url",
            ],
            _ if path.starts_with("mail.") => &["mail.relay", "mail.from"],
            _ if path.starts_with("owner.") => &["owner.username", "owner.email"],
            _ => &[],
        }
    };
    for one in FIELDS {
        let mut said = properties(&[]);
        for (path, value) in base {
            said.insert(field(path).key(), value.to_owned());
        }
        for path in beside(one.path) {
            said.insert(field(path).key(), field(path).example.to_owned());
        }
        match one.path {
            "tls.certificate" | "tls.key" => said.insert("tls-mode".to_owned(), "manual".to_owned()),
            "tls.proxies" => said.insert("tls-mode".to_owned(), "offload".to_owned()),
            "tls.challenge" | "tls.dns-hook" => said.insert("tls-mode".to_owned(), "acme".to_owned()),
            "database.ca" => said.insert("database-sslmode".to_owned(), "verify-full".to_owned()),
            _ => None,
        };
        said.insert(one.key(), one.example.to_owned());
        let text = to_toml(&said).unwrap().unwrap();
        let settings =
            Settings::parse("properties", &text).unwrap_or_else(|error| panic!("{}: {error}", one.path));
        let shown = settings.redacted().parse().unwrap();
        let leaf = leaf(&shown, one.path).unwrap_or_else(|| panic!("`{}` did not arrive", one.path));
        match one.kind {
            Kind::Text(_) | Kind::Choice(_) => assert_eq!(leaf.as_str(), Some(one.example), "{}", one.path),
            Kind::Password(_) | Kind::SecretPem(_) => assert_eq!(leaf.as_str(), Some("(redacted)")),
            Kind::Pem(_) => {
                assert_eq!(
                    leaf.as_str(),
                    Some("-----BEGIN CERTIFICATE-----\nAAAA\nBBBB\n-----END CERTIFICATE-----\n")
                );
            }
            Kind::Flag => {
                assert_eq!(leaf.as_bool().map(|flag| flag.to_string()), Some(one.example.to_lowercase()));
            }
            Kind::Port | Kind::Number(..) => {
                assert_eq!(leaf.as_integer().map(|number| number.to_string()).as_deref(), Some(one.example));
            }
            Kind::List(_) => {
                let list: Vec<&str> =
                    leaf.as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
                assert_eq!(list.join(", "), one.example);
            }
            Kind::Pairs(_) => assert_eq!(leaf.as_table().unwrap().len(), 2),
        }
        assert_ne!(Some(one.example), one.default, "{}", one.path);
        if let Kind::Text(longest) | Kind::Password(longest) | Kind::List(longest) = one.kind {
            assert!(one.example.len() <= usize::from(longest), "{}", one.path);
        }
    }
}

/// What the table gives as defaults is what settings without them have.
#[test]
fn defaults_are_those_of_the_settings() {
    let start = "schema = 1\ndomain = \"a.example\"\n[mail]\nrelay = \"relay\"\nfrom = \"words@a.example\"\n";
    let s3 =
        "[media.s3]\nbucket = \"bucket\"\nregion = \"a\"\naccess-key-id = \"a\"\nsecret-access-key = \"b\"\n";
    let swift = "[media.swift]\nusername = \"a\"\npassword = \"b\"\ntenant = \"c\"\ncontainer = \"d\"\n\
        auth-url = \"https://a.example\"\nobject-url = \"https://b.example\"\n";
    let shown = |store: &str| -> Table {
        let settings = Settings::parse("test", &format!("{start}{store}")).unwrap();
        settings.redacted().parse().unwrap()
    };
    let (shown, written) = ([shown(s3), shown(swift)], [start, s3, swift].concat());
    for field in FIELDS {
        // What is written above is there because the rest needs it.
        let name = field.path.rsplit('.').next().unwrap();
        let is_written = written.lines().any(|line| line.starts_with(&format!("{name} = ")));
        let value = shown.iter().find_map(|shown| leaf(shown, field.path)).filter(|_| !is_written);
        let Some(value) = value else { continue };
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        assert_eq!(Some(text.as_str()), field.default, "{}", field.path);
    }
    let defaults = FIELDS.iter().filter(|field| field.default.is_some()).count();
    assert_eq!(defaults, 24, "each default of the table must be one of the settings above");
}

#[test]
fn saying_nothing_is_no_configuration() {
    let mut said: BTreeMap<String, String> =
        FIELDS.iter().map(|field| (field.key(), field.default.unwrap_or_default().to_owned())).collect();
    said.insert("vm.name".to_owned(), "mastodon".to_owned());
    said.insert("domain".to_owned(), " null ".to_owned());
    said.insert("network-dns".to_owned(), " , ".to_owned());
    said.insert("acme-agree-terms".to_owned(), "True".to_owned());
    assert_eq!(to_toml(&said).unwrap(), None);
    said.insert("domain".to_owned(), "a.example".to_owned());
    assert_eq!(to_toml(&said).unwrap().unwrap(), "domain = \"a.example\"\nschema = 1\n");
}

#[test]
fn properties_that_cannot_be_settings_are_refused_without_their_value() {
    let refused = |key: &str, value: &str| to_toml(&properties(&[(key, value)])).unwrap_err();
    insta::assert_snapshot!(refused("mail-port", "smtp"), @"property `mail-port`: it must be a number from 0 to 65535");
    insta::assert_snapshot!(refused("acme-agree-terms", "yes"), @"property `acme-agree-terms`: it must be true or false");
    insta::assert_snapshot!(refused("extra-env", "A=1; hunter2"), @"property `extra-env`: it must be NAME=value, several of them between semicolons");
}
