//! Java's keystore (JKS version 2): every certificate gets the time of the build instead of the time it was added at.
//!
//! The format: magic, version, count; per certificate a tag, an alias, milliseconds since 1970, a type, the certificate; at the end
//! a SHA-1 over the default password, a phrase, and all of that.

use anyhow::{Context as _, Result, ensure};
use sha1::{Digest as _, Sha1};

const MAGIC: [u8; 8] = [0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2];
/// A certificate alone, without a private key.
const CERTIFICATE: usize = 2;
const DIGEST: usize = 20;

/// The keystore with that time, in seconds since 1970.
pub fn with_time(keystore: &[u8], seconds: u64) -> Result<Vec<u8>> {
    ensure!(keystore.starts_with(&MAGIC) && keystore.len() > 12 + DIGEST, "it is no keystore of version 2");
    let (content, stated) = keystore.split_at(keystore.len() - DIGEST);
    ensure!(digest(content) == stated, "its digest is wrong");
    let mut bytes = content.to_vec();
    let count = number(&bytes, 8, 4)?;
    let mut at = 12;
    for _ in 0..count {
        ensure!(number(&bytes, at, 4)? == CERTIFICATE, "it holds more than certificates");
        at += 4;
        at += 2 + number(&bytes, at, 2)?;
        let time = bytes.get_mut(at..at + 8).context("it is cut off")?;
        time.copy_from_slice(&(seconds * 1000).to_be_bytes());
        at += 8;
        at += 2 + number(&bytes, at, 2)?;
        at += 4 + number(&bytes, at, 4)?;
    }
    ensure!(at == bytes.len(), "it is longer than it says");
    let digest = digest(&bytes);
    bytes.extend(digest);
    Ok(bytes)
}

fn number(bytes: &[u8], at: usize, length: usize) -> Result<usize> {
    let bytes = bytes.get(at..at + length).context("it is cut off")?;
    Ok(bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

fn digest(content: &[u8]) -> [u8; DIGEST] {
    let mut hash = Sha1::new();
    for letter in "changeit".encode_utf16() {
        hash.update(letter.to_be_bytes());
    }
    hash.update(b"Mighty Aphrodite");
    hash.update(content);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keystore(time: u64) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(2_u32.to_be_bytes());
        for alias in ["one", "another"] {
            bytes.extend([0, 0, 0, 2]);
            bytes.extend(u16::try_from(alias.len()).unwrap().to_be_bytes());
            bytes.extend(alias.as_bytes());
            bytes.extend(time.to_be_bytes());
            bytes.extend([0, 5]);
            bytes.extend(b"X.509");
            bytes.extend([0, 0, 0, 3, 1, 2, 3]);
        }
        let digest = digest(&bytes);
        bytes.extend(digest);
        bytes
    }

    #[test]
    fn only_the_time_changes() {
        assert_eq!(with_time(&keystore(1_795_318_977_123), 42).unwrap(), keystore(42_000));
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let whole = keystore(5);
        let mut changed = whole.clone();
        changed[20] ^= 1;
        for wrong in [&whole[..whole.len() - 1], &changed, b"", &MAGIC] {
            assert!(with_time(wrong, 42).is_err());
        }
    }
}
