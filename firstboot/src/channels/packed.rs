//! Base64 and gzip, in which configurations travel where plain text does not fit.
//!
//! What comes out is never larger than the limit of a configuration and one byte, whatever went in. Nothing here words a message:
//! each channel knows what its operator has to change, and no decoder's own message may show a byte of a password.

use std::io::Read;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::read::MultiGzDecoder;

use super::LIMIT;

/// Padded or not: both are in use.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The first two bytes of every gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Base64 with or without line breaks; `None` when it is none.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let text: String = text.chars().filter(|character| !character.is_ascii_whitespace()).collect();
    BASE64.decode(text).ok()
}

/// Whether the bytes begin as gzip does. No text in UTF-8 does.
pub(super) fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&GZIP)
}

/// The content of a gzip file, cut one byte behind the limit; `None` when it cannot be unpacked.
pub(super) fn gunzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    MultiGzDecoder::new(bytes).take(LIMIT + 1).read_to_end(&mut content).ok()?;
    Some(content)
}

/// Base64 of a text, or of a gzip file of one; `None` when it is neither.
pub(super) fn unpack(text: &str) -> Option<Vec<u8>> {
    let bytes = decode(text)?;
    if is_gzip(&bytes) { gunzip(&bytes) } else { Some(bytes) }
}
