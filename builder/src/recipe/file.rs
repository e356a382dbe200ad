//! `image.toml` as text: parsed, laid over the recipe that it extends, changed by `--set`.

use std::path::Path;

use anyhow::{Context as _, Result};
use fs_err as fs;

use super::{Image, set};
use crate::error::Fault;

/// Reads a recipe's file.
pub fn read(path: &Path, overrides: &[String]) -> Result<Image> {
    let text = fs::read_to_string(path)?;
    let mut table = table(path, &text)?;
    let extends = table.remove("extends");
    if extends.is_none() && overrides.is_empty() {
        // The text as it stands, so that an error points at its line and column.
        return Ok(toml::from_str(&text).map_err(|error| wrong(path, &error))?);
    }
    if let Some(extends) = extends {
        table = over(base(path, &extends)?, table);
        let image: Result<Image, _> = table.clone().try_into();
        image.map_err(|error| wrong(path, &error))?;
    }
    for assignment in overrides {
        set::apply(&mut table, assignment)?;
    }
    let image = table.try_into().map_err(|error: toml::de::Error| {
        Fault::user(format!("--set {}: {}", overrides.join(" --set "), error.to_string().trim_end()))
    });
    image.context("applying --set")
}

fn wrong(path: &Path, error: &toml::de::Error) -> Fault {
    Fault::user(format!("`{}`: {}", path.display(), error.to_string().trim_end()))
}

fn table(path: &Path, text: &str) -> Result<toml::Table> {
    Ok(toml::from_str(text).map_err(|error| wrong(path, &error))?)
}

/// The recipe that another extends: a folder beside it, by name. It extends nothing itself: two files are enough to read.
fn base(path: &Path, extends: &toml::Value) -> Result<toml::Table> {
    let name = extends.as_str().filter(|name| super::base::is_plain(name));
    let (Some(name), Some(images)) = (name, path.parent().and_then(Path::parent)) else {
        let message =
            format!("`{}`: key `extends`: write the name of another image's folder", path.display());
        return Err(Fault::user(message).into());
    };
    let other = images.join(name).join("image.toml");
    let text = fs::read_to_string(&other)
        .map_err(|error| Fault::user(format!("`{}`: key `extends`: {error}", path.display())))?;
    let table = table(&other, &text)?;
    if table.contains_key("extends") {
        let message = format!("`{}`: key `extends`: `{name}` extends an image itself", path.display());
        return Err(Fault::user(message).into());
    }
    Ok(table)
}

/// Tables are merged, everything else is replaced.
fn over(mut base: toml::Table, top: toml::Table) -> toml::Table {
    for (key, value) in top {
        let value = match (base.remove(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => {
                toml::Value::Table(over(below, above))
            }
            (_, value) => value,
        };
        base.insert(key, value);
    }
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_merged_and_lists_replaced() {
        let base = table(Path::new("a"), "x = 1\n[t]\na = [1, 2]\nb = 2").unwrap();
        let top = table(Path::new("b"), "[t]\na = [3]\nc = 4").unwrap();
        assert_eq!(toml::to_string(&over(base, top)).unwrap(), "x = 1\n\n[t]\na = [3]\nb = 2\nc = 4\n");
    }
}
