//! The readers of foreign bytes by themselves, without a machine: what the property tests here and the fuzz targets in `fuzz/` call.
//!
//! Each promises the same: it never panics, what it offers is at most as large as a configuration may be, and a refusal is one text
//! that names the channel.

use anyhow::Result;

use super::{
    Asked, LIMIT, Merged, Offer, accept, cmdline, guestinfo, imds, merge, ovf, smbios, userdata, volume,
};

/// A reader of foreign bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A configuration as a file.
    Settings,
    /// `guestinfo.mastodon.config` with its encoding; the first line of the bytes is the encoding.
    Guestinfo,
    /// The OVF environment.
    Ovf,
    /// `user-data` of a config volume or of EC2.
    UserData,
    /// `meta-data` of a config volume.
    MetaData,
    /// An SMBIOS structure of type 11.
    Smbios,
    /// The kernel's command line.
    CommandLine,
    /// An HTTP answer of EC2's metadata service.
    Metadata,
}

impl Reader {
    /// Every reader.
    pub const ALL: [Reader; 8] = [
        Reader::Settings,
        Reader::Guestinfo,
        Reader::Ovf,
        Reader::UserData,
        Reader::MetaData,
        Reader::Smbios,
        Reader::CommandLine,
        Reader::Metadata,
    ];

    /// What every refusal names.
    fn name(self) -> &'static str {
        match self {
            Reader::Settings => "config.toml",
            Reader::Guestinfo => "guestinfo.mastodon.config",
            Reader::Ovf => "ovf-env.xml",
            Reader::UserData => "user-data",
            Reader::MetaData => "meta-data",
            Reader::Smbios => smbios::SOURCE,
            Reader::CommandLine => cmdline::SOURCE,
            Reader::Metadata => "EC2",
        }
    }

    /// What the bytes offer.
    fn read(self, bytes: &[u8]) -> Result<Vec<Offer>> {
        let source = self.name();
        let text = || accept(bytes.to_vec(), source).map(Option::unwrap_or_default);
        let one = |offer: Option<Offer>| offer.into_iter().collect();
        match self {
            Reader::Settings => Ok(vec![Offer { source: source.to_owned(), text: text()? }]),
            Reader::Guestinfo => {
                let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
                let (encoding, value) = bytes.split_at(end);
                let mut ask =
                    |key: &str| Ok(Some(if key.ends_with("encoding") { encoding } else { value }.to_vec()));
                guestinfo::read_configuration(&mut ask).map(one)
            }
            Reader::Ovf => ovf::offer(source, &text()?).map(one),
            Reader::UserData => userdata::read(source, bytes.to_vec()).map(one),
            Reader::MetaData => Ok(volume::read_metadata(source, &text()?).offers),
            Reader::Smbios => smbios::offers(&smbios::read(bytes)?),
            Reader::CommandLine => cmdline::offers(&text()?),
            Reader::Metadata => {
                let said = imds::judge(bytes)?;
                Ok(if let Asked::Offer(offer) = said { vec![offer] } else { Vec::new() })
            }
        }
    }
}

/// Reads bytes as first boot would, and checks the promises of all readers.
///
/// # Panics
///
/// When a promise is broken: that is a finding.
pub fn check(reader: Reader, bytes: &[u8]) {
    let offers = match reader.read(bytes) {
        Ok(offers) => offers,
        Err(error) => {
            let message = format!("{error:#}");
            assert!(message.contains(reader.name()), "does not name {}: {message}", reader.name());
            return;
        }
    };
    let mut layers = Vec::new();
    for offer in offers {
        assert!(offer.text.len() as u64 <= LIMIT * 7, "{} bytes", offer.text.len());
        match merge::layer(offer) {
            Ok(layer) => {
                assert!(layer.offer.text.len() as u64 <= LIMIT);
                layers.push(layer);
            }
            Err(message) => assert!(message.contains(reader.name()), "{message}"),
        }
    }
    let merged = Merged::of(&layers);
    if let Ok(settings) = merged.settle() {
        let table = toml::from_str(&merged.render().0).unwrap_or_default();
        assert_eq!(merge::leaves(&table), merged.values, "what is stored is what was offered");
        assert!(layers.iter().any(|layer| layer.leaves.contains_key("domain")), "{}", settings.domain);
    }
}

#[cfg(test)]
pub(super) mod tests;
