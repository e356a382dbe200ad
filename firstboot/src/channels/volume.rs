//! A configuration volume: a disk or CD-ROM with the label `CIDATA` or `MASTODON`, laid out as for cloud-init's NoCloud, so that every
//! tool that makes such volumes can make ours.
//!
//! `config.toml`, or else `user-data` in our own format (see [`super::userdata`]); of `meta-data` the line `local-hostname`, which
//! fills `hostname`; `network-config` is passed over with a word. Damage is named with its file and hides nothing else: neither the
//! volume's other files, nor other volumes, nor other channels.

use std::path::Path;

use anyhow::Context as _;

use super::{Offer, Said, medium, read_bytes, read_offered, userdata};
use crate::settings::HostName;

const LABELS: [&str; 4] = ["CIDATA", "cidata", "MASTODON", "mastodon"];
/// The name of cloud-init for the machine's own name.
const HOSTNAME: &str = "local-hostname";

pub(super) fn look(root: &Path) -> Said {
    let mut said = Said::default();
    if root != Path::new("/") {
        return said;
    }
    for label in LABELS {
        for device in medium::labelled(label) {
            let found = medium::visit(&device, |folder| Ok(read_folder(folder, label)))
                .with_context(|| format!("reading the volume `{label}` on `{}`", device.display()));
            match found {
                Ok(found) => said.add(found),
                Err(error) => said.damaged.push(format!("{error:#}")),
            }
        }
    }
    said
}

/// What the mounted volume offers.
fn read_folder(folder: &Path, label: &str) -> Said {
    let mut said = Said::default();
    let name = |file: &str| format!("{file} on the volume {label}");
    let source = name("config.toml");
    let config = read_offered(&folder.join("config.toml"), &source);
    let is_ours = !matches!(config, Ok(None));
    said.take(config.map(|text| text.map(|text| Offer { source, text }).into_iter().collect()));
    // Beside a file of ours it may be for somebody else: hypervisors write one by themselves.
    if !is_ours {
        let source = name("user-data");
        let data = read_bytes(&folder.join("user-data"), &source);
        let offer = data.and_then(|bytes| bytes.map_or(Ok(None), |bytes| userdata::read(&source, bytes)));
        said.take(offer.map(|offer| offer.into_iter().collect()));
    }
    let source = name("meta-data");
    match read_offered(&folder.join("meta-data"), &source) {
        Ok(text) => said.add(read_metadata(&source, text.as_deref().unwrap_or_default())),
        Err(error) => said.damaged.push(format!("{error:#}")),
    }
    // What is damaged may look empty.
    let files = ["config.toml", "user-data", "meta-data", "network-config"];
    if files.iter().all(|file| folder.join(file).symlink_metadata().is_err()) {
        said.damaged.push(format!(
            "the volume {label} holds neither `config.toml` nor `user-data`: it is empty or damaged; make it anew"
        ));
    }
    if folder.join("network-config").symlink_metadata().is_ok() {
        said.notes.push(format!(
            "{} is not carried out: write the network as `[network]` in the configuration",
            name("network-config")
        ));
    }
    said
}

/// `meta-data`: lines `key: value` of YAML, of which one is ours. What is nested below others or quoted oddly is not understood, and
/// none of it is worth a refusal.
pub(super) fn read_metadata(source: &str, text: &str) -> Said {
    let mut said = Said::default();
    for line in text.lines().map(str::trim_end) {
        let Some(value) = line.strip_prefix(HOSTNAME).and_then(|rest| rest.trim_start().strip_prefix(':'))
        else {
            continue;
        };
        let value = value.trim().trim_matches(['"', '\'']);
        if ["", "null", "~"].contains(&value) {
            continue;
        }
        match value.parse::<HostName>() {
            Ok(name) => {
                let text = format!("schema = 1\nhostname = \"{name}\"\n");
                said.offers.push(Offer { source: source.to_owned(), text });
            }
            Err(reason) => {
                said.notes.push(format!("{source}: `{HOSTNAME}` is passed over: {}", reason.escape_debug()));
            }
        }
        break;
    }
    said
}

#[cfg(test)]
mod tests {
    use super::read_folder;

    fn check(files: &[(&str, &str)]) -> String {
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
        check_bytes(&files)
    }

    fn check_bytes(files: &[(&str, &[u8])]) -> String {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs_err::write(folder.path().join(name), text).unwrap();
        }
        let said = read_folder(folder.path(), "CIDATA");
        let offers = said.offers.iter().map(|offer| format!("{}: {}", offer.source, offer.text));
        let all: Vec<String> = offers.chain(said.damaged).chain(said.notes).collect();
        if all.is_empty() { "nothing".to_owned() } else { all.join(" | ") }
    }

    #[test]
    fn config_toml_goes_before_user_data() {
        let empty = "the volume CIDATA holds neither `config.toml` nor `user-data`: it is empty or damaged; make it anew";
        assert_eq!(check(&[("LOST.DIR", "")]), empty);
        assert_eq!(check(&[("config.toml", "a"), ("user-data", "b")]), "config.toml on the volume CIDATA: a");
        let ours = "#mastodon-appliance\nschema = 1";
        assert_eq!(check(&[("user-data", ours)]), format!("user-data on the volume CIDATA: {ours}"));
        assert_eq!(check(&[("meta-data", "instance-id: a"), ("user-data", "\n")]), "nothing");
    }

    #[test]
    fn foreign_user_data_is_refused_with_the_remedy() {
        insta::assert_snapshot!(check(&[("user-data", "#cloud-config\npackages: []\n")]), @"user-data on the volume CIDATA is a cloud-config, which this appliance does not carry out: write our `config.toml` there instead (see `appliance config example`): the file as it is, or gzip or base64 of it");
        let ours = "config.toml on the volume CIDATA: domain = 1";
        assert_eq!(check(&[("user-data", "#cloud-config\n"), ("config.toml", "domain = 1")]), ours);
    }

    #[test]
    fn the_name_of_the_machine_comes_from_the_metadata() {
        let hostname = |text: &str| check(&[("meta-data", text)]);
        let expected = "meta-data on the volume CIDATA: schema = 1\nhostname = \"sns\"\n";
        assert_eq!(hostname("instance-id: iid-1\nlocal-hostname: sns\n"), expected);
        assert_eq!(hostname("local-hostname : \"sns\"\r\npublic-keys:\n - a\n"), expected);
        assert_eq!(hostname("instance-id: iid-1\n  local-hostname: sns\nlocal-hostname:\n"), "nothing");
        assert!(hostname("local-hostname: Sns\n").contains("`local-hostname` is passed over"));
        let network = check(&[("network-config", "version: 2\n")]);
        assert_eq!(
            network,
            "network-config on the volume CIDATA is not carried out: write the network as `[network]` in the configuration"
        );
    }

    #[test]
    fn damage_is_named_and_hides_nothing_else() {
        let large = vec![b'#'; 1024 * 1024 + 1];
        let name = ("meta-data", &b"local-hostname: sns\n"[..]);
        for (content, part) in [
            (&b"domain = \"\0\0\""[..], "has NUL bytes"),
            (b"\xff", "not UTF-8"),
            (&large, "larger than 1 MiB"),
        ] {
            let said = check_bytes(&[("config.toml", content), name]);
            assert!(said.contains("config.toml on the volume CIDATA") && said.contains(part), "{said}");
            assert!(said.starts_with("meta-data on the volume CIDATA: schema = 1"), "{said}");
        }
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("user-data")).unwrap();
        assert_eq!(read_folder(folder.path(), "CIDATA").damaged.len(), 1, "a link out of the volume");
    }
}
