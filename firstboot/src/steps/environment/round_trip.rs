//! What is written is what the genuine parsers read; what they would read otherwise is refused with the configuration already.
//!
//! Each case is a full configuration in which one text is hard, and a few variables of the operator's own. All files of the run are
//! read by one Ruby and one Node.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use testkit::dotenv::Variables;
use toml::{Table, Value};

use super::tests::secrets;
use super::{render, sections};
use crate::context::tests::scratch_context;
use crate::dotenv;
use crate::settings::Settings;

const CASES: usize = 600;

const START: &str = "schema = 1\ndomain = \"v6don.example.net\"\n\
    [instance]\nlocale = \"ja\"\ncdn-host = \"https://cdn.example.net\"\n[streaming]\nbase-url = \"wss://s.example.net\"\n\
    [mail]\nrelay = \"relay\"\nfrom = \"words@example.net\"\nlogin = \"words\"\npassword = \"p\"\nca-file = \"/etc/ca.pem\"\n";
const S3: &str = "[media.s3]\nbucket = \"don\"\nregion = \"a\"\naccess-key-id = \"b\"\nsecret-access-key = \"c\"\n\
    endpoint = \"https://d.example\"\nhostname = \"e.example:9000\"\ncloudfront-host = \"f.example\"\n";
const SWIFT: &str = "[media.swift]\nusername = \"a\"\npassword = \"b\"\ntenant = \"c\"\ncontainer = \"d\"\n\
    auth-url = \"https://a.example\"\nobject-url = \"https://b.example\"\nregion = \"e\"\ndomain-name = \"f\"\n";
const FOLDER: &str = "[media]\npath = \"/srv/media\"\nurl = \"/files\"\n";

/// Texts that may be anything: only what the file cannot hold is refused.
const FREE: [&str; 9] = [
    "mail.login",
    "mail.password",
    "media.s3.access-key-id",
    "media.s3.secret-access-key",
    "media.swift.username",
    "media.swift.password",
    "media.swift.tenant",
    "media.swift.container",
    "media.swift.domain-name",
];
/// Texts that have a form of their own as well.
const FORMED: [&str; 17] = [
    "domain",
    "instance.locale",
    "instance.cdn-host",
    "streaming.base-url",
    "mail.relay",
    "mail.from",
    "mail.ca-file",
    "media.path",
    "media.url",
    "media.s3.bucket",
    "media.s3.region",
    "media.s3.endpoint",
    "media.s3.hostname",
    "media.s3.cloudfront-host",
    "media.swift.auth-url",
    "media.swift.object-url",
    "media.swift.region",
];

/// Characters that mean something to one of the parsers, and texts of any.
fn hard() -> impl Strategy<Value = String> {
    let known = [
        "",
        " ",
        "'",
        "\"",
        "\\",
        "#",
        "$",
        "a",
        "it's",
        "\"quoted\"",
        "'quoted'",
        "a # b",
        "#a",
        "$HOME",
        "${HOME}",
        "$(id)",
        "`id`",
        "a\\nb",
        "a\nb",
        "a\tb",
        " a",
        "a ",
        "a\u{a0}",
        "\u{feff}a",
        "a\u{2028}b",
        "\u{85}",
        "A=b",
        "export A=b",
        "日本語",
        "a\0b",
        "!#$%&()*+,-./:;<=>?@[]^_{|}~",
        "\"",
        "\"a",
        "a\"",
        "%{a}",
        "https://a.example/$b",
        "/srv/$a",
        "a\rb",
        "é\u{301}",
        "🐘",
    ];
    prop_oneof![
        3 => prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        2 => "[ -~]{0,24}",
        1 => "\\PC{0,16}",
        2 => prop::collection::vec(prop::sample::select(known.to_vec()), 1..4).prop_map(|parts| parts.concat()),
    ]
}

fn put(table: &mut Table, path: &str, value: &str) {
    match path.split_once('.') {
        None => drop(table.insert(path.to_owned(), Value::String(value.to_owned()))),
        Some((first, rest)) => put(table.get_mut(first).unwrap().as_table_mut().unwrap(), rest, value),
    }
}

fn configuration(path: &str, value: &str, extra: &BTreeMap<String, String>) -> String {
    let store = match path {
        "media.path" | "media.url" => FOLDER,
        _ if path.starts_with("media.swift.") => SWIFT,
        _ => S3,
    };
    let mut table: Table = format!("{START}{store}").parse().unwrap();
    put(&mut table, path, value);
    let pairs = extra.iter().map(|(name, value)| (name.clone(), Value::String(value.clone())));
    table.insert("extra-env".to_owned(), Value::Table(pairs.collect()));
    toml::to_string(&table).unwrap()
}

/// Which key the refusal is about: the one that it names, or the one on the line that it names.
fn refused(text: &str) -> String {
    let error = Settings::parse("test", text).unwrap_err();
    let line = error.line().map(|line| crate::settings::schema::key_at(text, line).unwrap_or_default());
    line.or(error.key().map(|key| key.replace('.', "-"))).unwrap_or_default()
}

#[test]
fn what_is_accepted_is_read_by_both_and_what_is_not_is_refused_by_name() {
    let (guard, context) = scratch_context();
    let mut runner = TestRunner::deterministic();
    // Most hard texts have not the form of a host or path, and one variable that is refused suffices.
    let paths = prop_oneof![3 => prop::sample::select(&FREE[..]), 1 => prop::sample::select(&FORMED[..])];
    let extra = prop::collection::btree_map("X_[A-Z0-9_]{0,8}", hard(), 0..2);
    let strategy = (paths, hard(), extra);
    let (mut files, mut expected, mut refusals) = (Vec::new(), Vec::<Variables>::new(), 0);
    for case in 0..CASES {
        let (path, value, extra) = strategy.new_tree(&mut runner).unwrap().current();
        let cannot = |value: &str| dotenv::line("A", value).is_err();
        let extra_is_refused = extra.values().any(|value| cannot(value));
        let text = configuration(path, &value, &extra);
        let Ok(settings) = Settings::parse("test", &text) else {
            refusals += 1;
            let key = refused(&text);
            let is_named = key == path.replace('.', "-") || extra_is_refused && key == "extra-env";
            assert!(is_named, "{path} = {value:?}, {extra:?}: the refusal names `{key}`");
            let is_right = extra_is_refused || !FREE.contains(&path) || cannot(&value) || value.is_empty();
            assert!(is_right, "{path} = {value:?} is refused, but could be written");
            continue;
        };
        let mut wanted = Variables::new();
        for (_, pairs) in sections(&context.facts, &settings, &secrets()) {
            wanted.extend(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)));
        }
        assert!(wanted.values().any(|found| found.contains(&value)), "{path} = {value:?} is not in the file");
        wanted.extend(extra);
        let file = guard.path().join(format!("env-{case}"));
        fs_err::write(&file, render(&context.facts, &settings, &secrets()).unwrap()).unwrap();
        files.push(file);
        expected.push(wanted);
    }
    assert!(files.len() > CASES / 5 && refusals > CASES / 5, "{} accepted, {refusals} refused", files.len());
    for (program, read) in [("Ruby", testkit::dotenv::ruby(&files)), ("Node", testkit::dotenv::node(&files))]
    {
        for (found, expected) in read.unwrap().iter().zip(&expected) {
            assert_eq!(found, expected, "as {program} reads it");
        }
    }
}

/// At least one of the genuine parsers reads what is refused as something else, however it is quoted. Not so single quotes and
/// backslashes: whether Ruby's takes them between single quotes depends on its version, and an image may have any.
#[test]
fn what_is_refused_is_read_otherwise() {
    let guard = tempfile::tempdir().unwrap();
    let values = [" a ", "a\u{a0}", "\u{feff}a", "a\u{2028}b", "a\nb", "a\rb"];
    let mut files = Vec::new();
    for (number, value) in values.iter().enumerate() {
        assert!(dotenv::line("A", value).is_err(), "{value:?}");
        // As a person would write it; nothing between plain, single and double quotes serves both.
        for (quote, name) in [("", "plain"), ("'", "single"), ("\"", "double")] {
            let file = guard.path().join(format!("{number}-{name}"));
            fs_err::write(&file, format!("A={quote}{value}{quote}\n")).unwrap();
            files.push(file);
        }
    }
    let (ruby, node) = (testkit::dotenv::ruby(&files).unwrap(), testkit::dotenv::node(&files).unwrap());
    for (index, file) in files.iter().enumerate() {
        let value = values[index / 3];
        let is_right = |variables: &Variables| variables.get("A").is_some_and(|found| found == value);
        assert!(!(is_right(&ruby[index]) && is_right(&node[index])), "{}: {value:?}", file.display());
    }
}
