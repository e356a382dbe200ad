//! What first boot needs of the image, and what must not start without it.

use anyhow::Result;
use firstboot::facts::{self, ImageFacts};

use crate::context::Context;
use crate::view::View;

/// Units of the application.
const APPLICATION: [&str; 3] =
    ["mastodon-web.service", "mastodon-sidekiq.service", "mastodon-streaming.service"];
const UNIT_FOLDERS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

fn facts(view: &View) -> Result<Result<ImageFacts, String>> {
    let Some(text) = view.text(facts::PATH)? else {
        return Ok(Err(format!("there is no `{}`", facts::PATH)));
    };
    Ok(toml::from_str(&text).map_err(|error| format!("`{}`: {error}", facts::PATH)))
}

/// The program, its facts, its units enabled, the paths that the facts name.
pub fn first_boot(view: &View, _: &Context) -> Result<Vec<String>> {
    let facts = match facts(view)? {
        Ok(facts) => facts,
        Err(message) => return Ok(vec![message]),
    };
    let mut wrong = Vec::new();
    let application = &facts.application;
    let programs = [application.bundle.as_str(), &application.node, "/usr/libexec/appliance"];
    for path in programs.into_iter().chain([application.root.as_str(), &facts.postgresql.bin]) {
        if !view.root.exists(path).unwrap_or(false) {
            wrong.push(format!("`{path}` does not exist"));
        }
    }
    for unit in ["appliance-early.service", "appliance.service"] {
        if !is_enabled(view, unit)? {
            wrong.push(format!("`{unit}` is not enabled"));
        }
    }
    Ok(wrong)
}

/// Services exist and wait for first boot.
pub fn units(view: &View, _: &Context) -> Result<Vec<String>> {
    let Ok(facts) = facts(view)? else { return Ok(Vec::new()) };
    let mut wrong = Vec::new();
    let state = [facts.postgresql.unit.as_str(), &facts.redis.unit, &facts.nginx.unit];
    for unit in state.into_iter().chain(APPLICATION) {
        // An instance of a template has its template's file.
        let file = unit.split_once('@').map_or(unit.to_owned(), |(name, _)| format!("{name}@.service"));
        if !UNIT_FOLDERS
            .iter()
            .any(|folder| view.root.exists(format!("{folder}/{file}").as_str()).unwrap_or(false))
        {
            wrong.push(format!("`{unit}` does not exist"));
        }
        if is_enabled(view, unit)? {
            wrong.push(format!(
                "`{unit}` is enabled in the image; first boot enables it when its data is there"
            ));
        }
    }
    Ok(wrong)
}

fn is_enabled(view: &View, unit: &str) -> Result<bool> {
    let mut enabled = false;
    view.walk("/etc/systemd/system", &mut |node| {
        let target = if node.metadata.is_symlink() {
            view.root.read_link(node.path.as_str())?.display().to_string()
        } else {
            String::new()
        };
        enabled |= node.metadata.is_symlink() && crate::tree::units::enables(&node.path, &target, unit);
        Ok(())
    })?;
    Ok(enabled)
}
