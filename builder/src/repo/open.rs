//! Compressed metadata as a stream of its content; the suffix of its location says how it is compressed.

use std::io::{BufReader, Read};

/// Memory that a decompressor may take: the largest window of `xz -9` is 64 MiB, of `zstd` 128 MiB.
const MEMORY: u64 = 192 << 20;

/// The content of a file of metadata. Reading it may fail; how much of it is read is the readers' concern.
pub fn open<'a>(reader: impl Read + 'a, location: &str) -> Result<Box<dyn Read + 'a>, String> {
    let suffix = location.rsplit_once('.').map_or("", |(_, suffix)| suffix);
    Ok(match suffix {
        "xml" => Box::new(reader),
        "gz" => Box::new(flate2::read::MultiGzDecoder::new(reader)),
        "xz" => {
            let stream = liblzma::stream::Stream::new_stream_decoder(MEMORY, liblzma::stream::CONCATENATED)
                .map_err(|error| format!("`{location}`: {error}"))?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(BufReader::new(reader), stream))
        }
        "zst" => Box::new(zstd::Decoder::new(reader).map_err(|error| format!("`{location}`: {error}"))?),
        _ => {
            return Err(format!(
                "`{location}` is compressed in a way that imgbuild does not read; it reads .gz, .xz and .zst: \
                 use a mirror whose repomd.xml offers one of them"
            ));
        }
    })
}
