//! What an instance is made of, with versions: kernel, Ruby, Bundler, Node, PostgreSQL, Redis, nginx.

use anyhow::Result;

use super::catalogue::Catalogue;
use super::packages::Package;
use crate::view::View;

/// One program.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Software {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: String,
    /// Where that is said: a package or a path.
    pub source: String,
}

/// The record of an application layer.
const LAYER: &str = "/home/mastodon/.layer.toml";

/// All that was found, in a fixed order.
pub fn read(view: &View, catalogue: &Catalogue, packages: &[Package]) -> Result<Vec<Software>> {
    let layer: Option<toml::Table> = match catalogue.find(LAYER) {
        Some(_) => view.text(LAYER)?.and_then(|text| text.parse().ok()),
        None => None,
    };
    let layered = |name: &'static str, key: &str| {
        let version = super::shown(layer.as_ref()?.get(key)?.as_str()?.as_bytes());
        Some(Software { name, version, source: LAYER.to_owned() })
    };
    let from_package = |name: &'static str, fits: &dyn Fn(&str) -> bool| {
        let package = packages.iter().rfind(|package| fits(&package.name))?;
        Some(Software { name, version: package.version.clone(), source: package.name.clone() })
    };
    let numbered = |name: &str, head: &str, tail: &str| {
        let middle = name.strip_prefix(head).and_then(|rest| rest.strip_suffix(tail));
        middle.is_some_and(|middle| {
            middle.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        })
    };
    let found = [
        kernel(catalogue),
        layered("Ruby", "ruby")
            .or_else(|| from_package("Ruby", &|name| name != "ruby" && numbered(name, "ruby", ""))),
        bundler(catalogue),
        layered("Node", "node").or_else(|| from_package("Node", &|name| name == "nodejs")),
        from_package("PostgreSQL", &|name| {
            numbered(name, "postgresql", "-server")
                || name != "postgresql" && numbered(name, "postgresql-", "")
        }),
        from_package("Redis", &|name| ["redis", "redis-server"].contains(&name)),
        from_package("nginx", &|name| name == "nginx"),
        from_package("systemd", &|name| name == "systemd"),
    ];
    Ok(found.into_iter().flatten().collect())
}

/// The kernels whose modules are there.
fn kernel(catalogue: &Catalogue) -> Option<Software> {
    let source =
        ["/usr/lib/modules", "/lib/modules"].into_iter().find(|folder| catalogue.find(folder).is_some())?;
    let names: Vec<String> = catalogue.names_in(source).filter(|name| !name.starts_with('.')).collect();
    (!names.is_empty()).then(|| Software {
        name: "Linux",
        version: names.join(", "),
        source: source.to_owned(),
    })
}

/// The newest Bundler that RubyGems knows: `…/specifications/bundler-1.17.3.gemspec`.
fn bundler(catalogue: &Catalogue) -> Option<Software> {
    let version = |path: &str| -> Option<Vec<u32>> {
        let name = path.rsplit('/').next()?.strip_prefix("bundler-")?.strip_suffix(".gemspec")?;
        name.split('.').map(|part| part.parse().ok()).collect()
    };
    let paths = catalogue.entries.iter().filter_map(|entry| std::str::from_utf8(&entry.path).ok());
    let newest = paths
        .filter(|path| path.contains("/specifications/"))
        .filter_map(|path| Some((version(path)?, path)))
        .max()?;
    let text: Vec<String> = newest.0.iter().map(u32::to_string).collect();
    Some(Software { name: "Bundler", version: text.join("."), source: super::shown(newest.1.as_bytes()) })
}
