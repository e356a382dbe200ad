//! Where the configuration comes from: a fixed order of channels, of which the first full configuration wins.
//!
//! What a channel gives is hostile until [`Settings::parse`] has accepted it: at most 1 MiB, UTF-8, regular files only, volumes
//! mounted read-only. What won is stored once, in `/etc/appliance/config.toml`, and never overwritten by a channel again.

mod fw_cfg;
mod stored;
mod volume;

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::settings::Settings;

pub use stored::PATH as STORED;

/// No configuration is larger; certificates and keys included.
const LIMIT: u64 = 1024 * 1024;

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

/// All channels, in order of precedence.
const CHANNELS: &[Channel] =
    &[Channel { look: stored::look }, Channel { look: volume::look }, Channel { look: fw_cfg::look }];

/// What the search through all channels found.
#[derive(Debug, Default)]
pub struct Search {
    /// The settings and their source.
    pub found: Option<(Settings, Offer)>,
    /// What was offered before them and refused, one message each.
    pub refused: Vec<String>,
}

/// Looks through the channels until one gives valid settings. A stored configuration that is not valid ends the search: another
/// channel must not silently replace what the operator edited.
pub fn search(root: &Path) -> Search {
    let mut search = Search::default();
    for channel in CHANNELS {
        match (channel.look)(root) {
            Ok(None) => {}
            Ok(Some(offer)) => match Settings::parse(&offer.source, &offer.text) {
                Ok(settings) => {
                    search.found = Some((settings, offer));
                    return search;
                }
                Err(error) => {
                    search.refused.push(error.to_string());
                    if offer.source == STORED {
                        return search;
                    }
                }
            },
            Err(error) => search.refused.push(format!("{error:#}")),
        }
    }
    search
}

/// Searches, and stores what a channel gave for the first time: the commit point of the configuration.
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
    use super::{STORED, adopt, read_offered, search};

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
    fn the_first_full_configuration_is_stored_and_never_clobbered() {
        let root = machine(&[(super::fw_cfg::RAW, GOOD.as_bytes())]);
        assert!(adopt(root.path()).unwrap().found.is_some());
        let stored = root.path().join(STORED.trim_start_matches('/'));
        assert_eq!(fs_err::read_to_string(&stored).unwrap(), GOOD);
        fs_err::write(root.path().join(super::fw_cfg::RAW.trim_start_matches('/')), GOOD.replace("v6", "v4"))
            .unwrap();
        let (settings, _) = adopt(root.path()).unwrap().found.unwrap();
        assert_eq!(settings.domain.as_str(), "v6don.example.net");
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
