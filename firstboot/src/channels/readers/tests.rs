//! Good bytes of every channel, and what chance makes of them.

use std::io::Write as _;

use base64::Engine as _;
use proptest::prelude::*;

use super::super::packed::BASE64;
use super::{Reader, check};

/// The bytes as a gzip file.
pub(in super::super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An SMBIOS structure of type 11 with these strings.
pub(in super::super) fn structure(strings: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![11, 5, 0, 0x0e, u8::try_from(strings.len()).unwrap()];
    for string in strings {
        bytes.extend_from_slice(string);
        bytes.push(0);
    }
    bytes.push(0);
    bytes
}

const TEXT: &str = "#mastodon-appliance\nschema = 1\ndomain = \"a.example\"\nextra-env = { \"A\" = \"\\u3042 $\" }\n\
                    [network]\ndns = [\"2001:db8::53\"]\n[mail]\nrelay = \"a\"\nfrom = \"a@b.example\"\npassword = \"p\"\nlogin = \"l\"\n";

/// Bytes that a reader takes, in each of its forms.
fn good(reader: Reader) -> Vec<Vec<u8>> {
    let packed = BASE64.encode(gzip(TEXT.as_bytes()));
    let texts: Vec<String> = match reader {
        Reader::Settings => vec![TEXT.to_owned()],
        Reader::Guestinfo => vec![format!("\n{TEXT}"), format!("gzip+base64\n{packed}"), format!("base64\n{}", BASE64.encode(TEXT))],
        Reader::Ovf => vec![
            "<Environment xmlns=\"http://schemas.dmtf.org/ovf/environment/1\" \
             xmlns:oe=\"http://schemas.dmtf.org/ovf/environment/1\"><PropertySection>\
             <Property oe:key=\"domain\" oe:value=\"a.example\"/><Property oe:key=\"extra-env\" oe:value=\"A=1; B=&#x3042;\"/>\
             </PropertySection></Environment>"
                .to_owned(),
        ],
        Reader::UserData => {
            return vec![TEXT.into(), packed.into(), gzip(TEXT.as_bytes()), b"#cloud-config\n".to_vec()];
        }
        Reader::MetaData => vec!["instance-id: a\nlocal-hostname: \"sns\"\n".to_owned()],
        Reader::Smbios => {
            let packed = format!("mastodon.config.base64={packed}");
            return vec![
                structure(&[b"other", packed.as_bytes()]),
                structure(&[b"mastodon.domain=a.example", b"mastodon.network.dns=2001:db8::53, 192.0.2.53", b""]),
                structure(&[b"mastodon.config=schema = 1\ndomain = \"a.example\""]),
            ];
        }
        Reader::CommandLine => vec![
            "ro quiet mastodon.domain=a.example \"mastodon.network.dns=2001:db8::53, 192.0.2.53\" mastodon.imds=on".to_owned(),
            format!("mastodon.config.base64={}", BASE64.encode("schema = 1\ndomain = \"a.example\"\n")),
        ],
        // Every process of the machine can read it, so what may be secret is refused there.
        Reader::Metadata => {
            let text = "schema = 1\ndomain = \"a.example\"\n[network]\ndns = [\"2001:db8::53\"]\n";
            vec![format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())]
        }
    };
    texts.into_iter().map(String::into_bytes).collect()
}

/// The name of a reader's fuzz target.
fn target(reader: Reader) -> &'static str {
    match reader {
        Reader::Settings => "settings",
        Reader::Guestinfo => "guestinfo",
        Reader::Ovf => "ovf",
        Reader::UserData => "user_data",
        Reader::MetaData => "meta_data",
        Reader::Smbios => "smbios",
        Reader::CommandLine => "command_line",
        Reader::Metadata => "metadata",
    }
}

#[test]
fn good_bytes_are_taken() {
    // The fuzz targets begin with these bytes; see fuzz/README.md.
    let corpus = std::env::var_os("FUZZ_CORPUS").map(std::path::PathBuf::from);
    for reader in Reader::ALL {
        for (index, bytes) in good(reader).into_iter().enumerate() {
            if let Some(corpus) = &corpus {
                let folder = corpus.join(target(reader));
                fs_err::create_dir_all(&folder).unwrap();
                fs_err::write(folder.join(format!("good-{index}")), &bytes).unwrap();
            }
            let is_foreign = bytes.starts_with(b"#cloud-config");
            let offers = reader.read(&bytes);
            assert_eq!(offers.is_ok_and(|offers| !offers.is_empty()), !is_foreign, "{reader:?}");
            check(reader, &bytes);
        }
    }
}

fn readers() -> impl Strategy<Value = Reader> {
    (0..Reader::ALL.len()).prop_map(|index| Reader::ALL[index])
}

proptest! {
    #[test]
    fn any_bytes_are_taken_or_refused_by_name(reader in readers(), bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        check(reader, &bytes);
    }

    #[test]
    fn changed_bytes_are_taken_or_refused_by_name(
        reader in readers(),
        form in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0..4_usize, proptest::collection::vec(any::<u8>(), 0..4)), 1..5),
        text in proptest::option::of("[a-z0-9.=\"\\[\\]{} \n#,:'-]{1,12}"),
    ) {
        let forms = good(reader);
        let mut bytes = forms[form.index(forms.len())].clone();
        for (place, length, piece) in changes {
            let start = place.index(bytes.len() + 1);
            let end = (start + length).min(bytes.len());
            // Pieces of text stay text: else nearly all of them end at the first check.
            let piece = text.as_ref().map_or(piece, |text| text.clone().into_bytes());
            bytes.splice(start..end, piece);
        }
        check(reader, &bytes);
    }
}
