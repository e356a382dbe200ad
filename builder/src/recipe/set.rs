//! `--set key=value`: one key of the recipe replaced from the command line.

use anyhow::Result;

use crate::error::Fault;

/// Replaces `a.b.c=value` in the table. The value is read as TOML; a word that is not TOML is a string.
pub fn apply(table: &mut toml::Table, assignment: &str) -> Result<()> {
    let Some((key, text)) = assignment.split_once('=') else {
        let message = format!("--set `{assignment}` has no `=`");
        return Err(Fault::user(message).hint("write --set machine.cpus=4").into());
    };
    let value = value(text);
    let mut place = table;
    let (path, last) = key.rsplit_once('.').map_or(("", key), |(path, last)| (path, last));
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let entry = place.entry(part.to_owned()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let Some(inner) = entry.as_table_mut() else {
            return Err(Fault::user(format!("--set {key}: `{part}` is not a table")).into());
        };
        place = inner;
    }
    place.insert(last.to_owned(), value);
    Ok(())
}

fn value(text: &str) -> toml::Value {
    let line = format!("value = {text}");
    match toml::from_str::<toml::Table>(&line).ok().and_then(|mut table| table.remove("value")) {
        Some(value) => value,
        None => toml::Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(assignment: &str, expected: &str) {
        let mut table: toml::Table = toml::from_str("[machine]\ncpus = 2").unwrap();
        apply(&mut table, assignment).unwrap();
        assert_eq!(toml::to_string(&table).unwrap().trim(), expected);
    }

    #[test]
    fn numbers_strings_and_words() {
        check("machine.cpus=4", "[machine]\ncpus = 4");
        check("machine.memory=4 GiB", "[machine]\ncpus = 2\nmemory = \"4 GiB\"");
        check("name=\"x\"", "name = \"x\"\n\n[machine]\ncpus = 2");
    }

    #[test]
    fn an_assignment_without_equals_is_refused() {
        assert!(apply(&mut toml::Table::new(), "machine.cpus").is_err());
        let mut table: toml::Table = toml::from_str("name = 1").unwrap();
        assert!(apply(&mut table, "name.x=1").is_err());
    }
}
