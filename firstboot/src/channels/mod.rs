//! Where the configuration comes from: a fixed order of channels, of which the first full configuration wins.
//!
//! What a channel gives is hostile until [`Settings::parse`] has accepted it: at most 1 MiB, UTF-8, regular files only, volumes
//! mounted read-only, properties of OVF as the same TOML that everybody else writes. What won is stored in
//! `/etc/appliance/config.toml`. Until there is a database, another configuration on a channel replaces it: a first one with a wrong
//! address would otherwise shut the machine for ever. What the operator has edited stays while the channel says the same as before.
//! With the database the domain is settled, and no channel is looked at again.

mod disc;
mod fw_cfg;
mod guestinfo;
mod medium;
mod ovf;
mod stored;
mod volume;

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::durable;
use crate::settings::Settings;

pub use guestinfo::answer as answer_guestinfo;
pub use stored::PATH as STORED;

/// No configuration is larger; certificates and keys included.
const LIMIT: u64 = 1024 * 1024;

/// The domain that the database was made for; beside the database, on the data disk when there is one.
const SETTLED: &str = "/var/lib/appliance/domain";

/// A text that a channel gave, not yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// What the operator knows it as, such as `config.toml on the volume CIDATA`.
    pub source: String,
    /// The text, TOML if all is well.
    pub text: String,
}

/// One way to hand a configuration to the machine.
struct Channel {
    /// Reads the channel below the root; `None` when it holds nothing.
    look: fn(&Path) -> Result<Option<Offer>>,
}

/// The channels from outside, in order of precedence.
const CHANNELS: &[Channel] = &[
    Channel { look: guestinfo::configuration },
    Channel { look: guestinfo::environment },
    Channel { look: disc::look },
    Channel { look: volume::look },
    Channel { look: fw_cfg::look },
];

/// What the search through all channels found.
#[derive(Debug, Default)]
pub struct Search {
    /// The settings and their source.
    pub found: Option<(Settings, Offer)>,
    /// What was offered before them and refused, one message each.
    pub refused: Vec<String>,
}

/// The stored configuration, unless a channel has a newer one that may replace it. A stored configuration that is not valid is not
/// replaced by what the channel said before: nothing must silently undo what the operator edited.
pub fn search(root: &Path) -> Search {
    let stored = match stored::look(root) {
        Ok(stored) => stored,
        Err(error) => return Search { found: None, refused: vec![format!("{error:#}")] },
    };
    let settled = settled_domain(root);
    let Some(stored) = stored else { return offered(root, settled.as_deref()) };
    if settled.is_none() {
        let newer = offered(root, None);
        if newer.found.as_ref().is_some_and(|(_, offer)| stored::is_news(root, &stored, offer)) {
            return newer;
        }
    }
    let mut search = Search::default();
    search.take(stored, settled.as_deref());
    search
}

/// What every channel from outside offers, one line each, without any value.
pub fn survey(root: &Path) -> String {
    let mut text = String::new();
    for channel in CHANNELS {
        let line = match (channel.look)(root) {
            Ok(None) => continue,
            Ok(Some(offer)) => match Settings::parse(&offer.source, &offer.text) {
                Ok(settings) => format!("{}: valid, for the instance `{}`", offer.source, settings.domain),
                Err(error) => error.to_string(),
            },
            Err(error) => format!("{error:#}"),
        };
        text.push_str(&line);
        text.push('\n');
    }
    if text.is_empty() { "nothing\n".to_owned() } else { text }
}

/// The first valid configuration of the channels from outside.
fn offered(root: &Path, settled: Option<&str>) -> Search {
    let mut search = Search::default();
    for channel in CHANNELS {
        match (channel.look)(root) {
            Ok(None) => {}
            Ok(Some(offer)) => search.take(offer, settled),
            Err(error) => {
                let message = format!("{error:#}");
                // Two channels go through guestinfo, and what is wrong with it is wrong for both.
                if !search.refused.contains(&message) {
                    search.refused.push(message);
                }
            }
        }
        if search.found.is_some() {
            break;
        }
    }
    search
}

impl Search {
    /// Takes an offer that is valid and keeps to the domain, if that is settled.
    fn take(&mut self, offer: Offer, settled: Option<&str>) {
        match Settings::parse(&offer.source, &offer.text) {
            Ok(settings) => match settled.filter(|settled| *settled != settings.domain.as_str()) {
                None => self.found = Some((settings, offer)),
                Some(settled) => self.refused.push(format!(
                    "{}: key `domain`: this instance is `{settled}` for ever, because every account carries that name; write \
                     `{settled}` again",
                    offer.source
                )),
            },
            Err(error) => self.refused.push(error.to_string()),
        }
    }
}

/// The domain of the database; `None` until there is one.
pub fn settled_domain(root: &Path) -> Option<String> {
    let domain = fs_err::read_to_string(root.join(&SETTLED[1..])).ok()?;
    Some(domain.trim().to_owned())
}

/// Settles the domain, at the latest when the database gets its name.
pub fn settle_domain(root: &Path, domain: &str) -> Result<()> {
    durable::write(&root.join(&SETTLED[1..]), format!("{domain}\n").as_bytes(), 0o644, None).map(drop)
}

/// Searches, and stores what a channel gave: the commit point of the configuration.
pub fn adopt(root: &Path) -> Result<Search> {
    let search = search(root);
    if let Some((_, offer)) = &search.found
        && offer.source != STORED
    {
        stored::store(root, &offer.text)?;
    }
    Ok(search)
}

/// Reads a file that somebody else made: no links, regular, at most 1 MiB, UTF-8. `None` when it is absent, empty or the literal
/// `null` that some hypervisors write for an empty field.
fn read_offered(path: &Path, source: &str) -> Result<Option<String>> {
    let mut options = fs_err::OpenOptions::new();
    // Neither follows a link out of the volume nor waits for the writer of a named pipe.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    options.read(true).options_mut().custom_flags(flags.bits().cast_signed());
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {source}")),
    };
    if !file.metadata()?.is_file() {
        bail!("{source} is not a regular file: put the configuration itself there");
    }
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes).with_context(|| format!("reading {source}"))?;
    accept(bytes, source)
}

/// The text of what was offered: at most 1 MiB, UTF-8; `None` when it says nothing.
fn accept(bytes: Vec<u8>, source: &str) -> Result<Option<String>> {
    if bytes.len() as u64 > LIMIT {
        bail!("{source} is larger than 1 MiB: this cannot be a configuration");
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| anyhow::anyhow!("{source} is not UTF-8 text: save it as plain text"))?;
    let said = text.trim_matches(|character: char| character.is_whitespace() || character == '\0');
    if said.is_empty() || said == "null" { Ok(None) } else { Ok(Some(text)) }
}

#[cfg(test)]
mod tests {
    use super::{STORED, adopt, read_offered, search, settle_domain};

    const GOOD: &str = "schema = 1\ndomain = \"v6don.example.net\"\n";

    fn machine(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path.trim_start_matches('/'));
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn a_channel_replaces_the_stored_configuration_until_the_domain_is_settled() {
        let root = machine(&[(super::fw_cfg::RAW, GOOD.as_bytes())]);
        assert!(adopt(root.path()).unwrap().found.is_some());
        let stored = root.path().join(STORED.trim_start_matches('/'));
        assert_eq!(fs_err::read_to_string(&stored).unwrap(), GOOD);
        let domain = || adopt(root.path()).unwrap().found.map(|(settings, _)| settings.domain.to_string());
        let offer = |text: &str| {
            fs_err::write(root.path().join(super::fw_cfg::RAW.trim_start_matches('/')), text).unwrap();
        };
        // The operator's own edit stays while the channel says what it said.
        fs_err::write(&stored, GOOD.replace("v6", "edited")).unwrap();
        assert_eq!(domain().unwrap(), "editeddon.example.net");
        offer("schema = 1\n");
        assert_eq!(domain().unwrap(), "editeddon.example.net", "what is not valid replaces nothing");
        offer(&GOOD.replace("v6", "v4"));
        assert_eq!(domain().unwrap(), "v4don.example.net");
        settle_domain(root.path(), "v4don.example.net").unwrap();
        offer(GOOD);
        assert_eq!(domain().unwrap(), "v4don.example.net");
        fs_err::write(&stored, GOOD).unwrap();
        let search = search(root.path());
        assert!(search.found.is_none());
        assert!(search.refused[0].contains("`v4don.example.net` for ever"), "{:?}", search.refused);
    }

    #[test]
    fn every_offer_is_surveyed() {
        assert_eq!(super::survey(machine(&[]).path()), "nothing\n");
        let root = machine(&[(super::fw_cfg::RAW, GOOD.as_bytes())]);
        let expected =
            "QEMU's fw_cfg entry opt/org.mastodon/config: valid, for the instance `v6don.example.net`\n";
        assert_eq!(super::survey(root.path()), expected);
        let root = machine(&[(super::fw_cfg::RAW, b"schema = 1\n")]);
        assert!(super::survey(root.path()).contains("missing field `domain`"));
    }

    #[test]
    fn a_broken_stored_configuration_ends_the_search() {
        let root = machine(&[(STORED, b"schema = 1\n"), (super::fw_cfg::RAW, GOOD.as_bytes())]);
        let search = search(root.path());
        assert!(search.found.is_none());
        assert!(search.refused[0].contains("missing field `domain`"), "{:?}", search.refused);
    }

    #[test]
    fn hostile_files_are_refused() {
        let large = vec![b'#'; 1024 * 1024 + 1];
        for (content, expected) in [
            (&b"text"[..], Ok(true)),
            (b"", Ok(false)),
            (b" \n", Ok(false)),
            (b"null", Ok(false)),
            (b"\0\0", Ok(false)),
            (b"\xff\xfe", Err("not UTF-8")),
            (&large, Err("larger than 1 MiB")),
        ] {
            let root = machine(&[("file", content)]);
            match (read_offered(&root.path().join("file"), "the file"), expected) {
                (Ok(text), Ok(present)) => assert_eq!(text.is_some(), present, "{content:?}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (result, _) => panic!("{result:?} for {} bytes", content.len()),
            }
        }
        let root = machine(&[("secret", b"text")]);
        std::os::unix::fs::symlink("secret", root.path().join("link")).unwrap();
        assert!(read_offered(&root.path().join("link"), "the link").is_err());
        assert!(read_offered(root.path(), "the folder").is_err());
        assert!(read_offered(&root.path().join("absent"), "the absent").unwrap().is_none());
    }
}
