//! `imgbuild inspect FILE`: what is in an image.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::{context_without_project, say};
use crate::cli::{File, Global};
use crate::recipe::human;
use crate::view::{Kind, View};

/// Everything that is shown.
#[derive(Debug, Serialize)]
struct Inspection {
    kind: Kind,
    title: String,
    system: String,
    partitions: Vec<(String, u64)>,
    kernel: String,
    packages: BTreeMap<String, String>,
    enabled: Vec<String>,
    sizes: BTreeMap<String, u64>,
}

/// Prints the inspection.
pub fn run(options: &File, global: &Global) -> Result<()> {
    let context = context_without_project(global)?;
    let view = View::open(&options.file, &context)?;
    let inspection = inspect(&view)?;
    if global.json {
        return say(&serde_json::to_string_pretty(&inspection)?);
    }
    say(&format!(
        "{:?} image: {} ({}), kernel {}",
        inspection.kind, inspection.title, inspection.system, inspection.kernel
    ))?;
    say("\npartitions")?;
    for (name, bytes) in &inspection.partitions {
        say(&format!("  {name:<12} {}", human(*bytes)))?;
    }
    say("\nsize by folder")?;
    let mut sizes: Vec<_> = inspection.sizes.iter().collect();
    sizes.sort_by_key(|(_, bytes)| std::cmp::Reverse(**bytes));
    for (folder, bytes) in sizes.iter().take(20) {
        say(&format!("  {folder:<28} {}", human(**bytes)))?;
    }
    say(&format!("\nunits enabled\n  {}", inspection.enabled.join("\n  ")))?;
    say(&format!("\n{} packages", inspection.packages.len()))?;
    for (name, version) in &inspection.packages {
        say(&format!("  {name} {version}"))?;
    }
    Ok(())
}

fn inspect(view: &View) -> Result<Inspection> {
    let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
    let mut enabled = Vec::new();
    view.walk("/", &mut |node| {
        if node.metadata.file_type().is_regular_file() {
            *sizes.entry(two_levels(&node.path)).or_default() += node.metadata.len();
        }
        if node.metadata.is_symlink()
            && node.path.starts_with("/etc/systemd/system/")
            && node.path.contains(".wants/")
        {
            enabled.extend(node.path.rsplit('/').next().map(str::to_owned));
        }
        Ok(())
    })?;
    enabled.sort();
    enabled.dedup();
    let field = |text: &str, key: &str| -> String {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or("unknown").trim_matches('"').to_owned()
    };
    let facts = view
        .text(firstboot::facts::PATH)?
        .and_then(|text| toml::from_str::<firstboot::facts::ImageFacts>(&text).ok());
    let kernel = view
        .root
        .read_dir("/lib/modules")?
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().display().to_string());
    Ok(Inspection {
        kind: view.kind,
        title: facts.map_or_else(|| "not made by imgbuild".to_owned(), |facts| facts.title),
        system: field(&view.text("/etc/os-release")?.unwrap_or_default(), "PRETTY_NAME"),
        partitions: view
            .partitions
            .iter()
            .map(|partition| (partition.name.clone(), partition.extent.bytes()))
            .collect(),
        kernel: kernel.filter(|name| !name.starts_with('.')).collect::<Vec<_>>().join(" "),
        packages: match view.text(crate::overlay::PACKAGES)? {
            Some(list) => listed(&list),
            None => dpkg(&view.text("/var/lib/dpkg/status")?.unwrap_or_default()),
        },
        enabled,
        sizes,
    })
}

/// `/usr/lib/x/y` counts for `/usr/lib`.
fn two_levels(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    parts.truncate(3);
    if parts.len() < 2 { "/".to_owned() } else { parts.join("/") }
}

/// Names and versions of an RPM image's packages.
fn listed(text: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        words.next().zip(words.next())
    };
    text.lines().filter_map(line).collect()
}

/// Names and versions of installed packages.
fn dpkg(status: &str) -> BTreeMap<String, String> {
    let stanza = |stanza: &str| {
        let field = |key: &str| stanza.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
        field("Status: ")
            .filter(|status| status.ends_with(" installed"))
            .and(field("Package: ").zip(field("Version: ")))
    };
    status.split("\n\n").filter_map(stanza).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_two_levels() {
        for (path, folder) in
            [("/usr/lib/x/y", "/usr/lib"), ("/etc/passwd", "/etc"), ("/vmlinuz", "/"), ("/usr/x", "/usr")]
        {
            assert_eq!(two_levels(path), folder, "{path}");
        }
    }

    #[test]
    fn only_installed_packages() {
        let status = "Package: a\nStatus: install ok installed\nVersion: 1\n\nPackage: b\nStatus: deinstall ok config-files\nVersion: 2\n";
        assert_eq!(dpkg(status), BTreeMap::from([("a".to_owned(), "1".to_owned())]));
    }
}
