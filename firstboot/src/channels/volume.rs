//! A configuration volume: a disk or CD-ROM with the label `CIDATA` or `MASTODON` that holds `config.toml`, or `user-data` in our
//! own format. Layout and label are those of cloud-init's NoCloud, so that every tool that makes such volumes can make ours.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::{Offer, medium, read_offered};

const LABELS: [&str; 4] = ["CIDATA", "cidata", "MASTODON", "mastodon"];
/// First line of a `user-data` that is a configuration; a comment in TOML.
const MARK: &str = "#mastodon-appliance";

pub(super) fn look(root: &Path) -> Result<Option<Offer>> {
    if root != Path::new("/") {
        return Ok(None);
    }
    for label in LABELS {
        for device in medium::labelled(label) {
            let offer = medium::visit(&device, |folder| read_folder(folder, label))
                .with_context(|| format!("reading the volume `{label}` on `{}`", device.display()))?;
            if offer.is_some() {
                return Ok(offer);
            }
        }
    }
    Ok(None)
}

/// What the mounted volume offers.
fn read_folder(folder: &Path, label: &str) -> Result<Option<Offer>> {
    let source = format!("config.toml on the volume {label}");
    if let Some(text) = read_offered(&folder.join("config.toml"), &source)? {
        return Ok(Some(Offer { source, text }));
    }
    let source = format!("user-data on the volume {label}");
    let Some(text) = read_offered(&folder.join("user-data"), &source)? else { return Ok(None) };
    match text.lines().next().map(str::trim_end) {
        Some(MARK) => Ok(Some(Offer { source, text })),
        Some(first) => {
            let kind =
                if first.starts_with("#cloud-config") { "a cloud-config" } else { "in an unknown format" };
            bail!(
                "{source} is {kind}, which this appliance does not read: put `config.toml` on the volume (see \
                 `appliance config example`), or the same text as `user-data` with `{MARK}` as its first line"
            );
        }
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::read_folder;

    fn check(files: &[(&str, &str)]) -> String {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs_err::write(folder.path().join(name), text).unwrap();
        }
        match read_folder(folder.path(), "CIDATA") {
            Ok(Some(offer)) => format!("{}: {}", offer.source, offer.text),
            Ok(None) => "nothing".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn config_toml_goes_before_user_data() {
        assert_eq!(check(&[]), "nothing");
        assert_eq!(check(&[("config.toml", "a"), ("user-data", "b")]), "config.toml on the volume CIDATA: a");
        let ours = "#mastodon-appliance\nschema = 1";
        assert_eq!(check(&[("user-data", ours)]), format!("user-data on the volume CIDATA: {ours}"));
        assert_eq!(check(&[("meta-data", "instance-id: a"), ("user-data", "\n")]), "nothing");
    }

    #[test]
    fn foreign_user_data_is_refused_with_the_remedy() {
        insta::assert_snapshot!(check(&[("user-data", "#cloud-config\npackages: []\n")]), @"user-data on the volume CIDATA is a cloud-config, which this appliance does not read: put `config.toml` on the volume (see `appliance config example`), or the same text as `user-data` with `#mastodon-appliance` as its first line");
        assert!(check(&[("user-data", "#!/bin/sh\n")]).contains("in an unknown format"));
    }
}
