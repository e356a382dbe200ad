//! Ways to spoil one package of a repository. The metadata stay as they are: what they say of the package is then wrong, until
//! [`Repository::index`] makes them true and only the package itself can tell.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;

use super::Repository;
use super::signer::Signer;
use crate::exec;

/// Bytes of an RPM before its signature header: the lead.
const LEAD: usize = 96;
/// First bytes of a header.
const HEADER: [u8; 3] = [0x8e, 0xad, 0xe8];

impl Repository {
    /// Changes one bit in the middle of a package's payload.
    pub fn flip_byte(&self, package: &Path) -> Result<()> {
        let mut bytes = fs::read(package)?;
        let (_, payload) = main_header(&bytes).context("this is no RPM package")?;
        let place = usize::midpoint(payload, bytes.len());
        bytes[place] ^= 0x10;
        Ok(fs::write(package, bytes)?)
    }

    /// Cuts a package in half.
    pub fn truncate(&self, package: &Path) -> Result<()> {
        let length = fs::metadata(package)?.len();
        Ok(fs::OpenOptions::new().write(true).open(package)?.set_len(length / 2)?)
    }

    /// Signs a package with a key that nobody trusts, as valid as the right one in all else.
    pub fn resign_with_other_key(&self, package: &Path) -> Result<()> {
        Signer::new("Somebody else")?.sign(&[package.to_owned()])
    }

    /// Takes a package's signature away.
    pub fn unsign(&self, package: &Path) -> Result<()> {
        exec::text("rpmsign", &["--delsign".as_ref(), package.as_os_str()])?;
        Ok(())
    }

    /// Makes the files of the folder `/usr/share/centos7-stand-in` those of a folder outside the root, by what the header says;
    /// the signature is right.
    pub fn with_escaping_path(&self, package: &Path) -> Result<()> {
        const FOLDER: &[u8] = b"/usr/share/centos7-stand-in/\0";
        const ESCAPE: &[u8; FOLDER.len()] = b"/../../../../../../../etc/x/\0";
        // rpmsign leaves a signature of the same key alone, whatever it is of.
        self.unsign(package)?;
        let mut bytes = fs::read(package)?;
        let (start, end) = main_header(&bytes).context("this is no RPM package")?;
        let old = digests(&bytes[start..], end - start)?;
        let place = find(&bytes[start..end], FOLDER).context("the package has no such folder")?;
        bytes[start + place..start + place + FOLDER.len()].copy_from_slice(ESCAPE);
        // rpmsign signs nothing whose digests are wrong.
        for (old, new) in old.iter().zip(digests(&bytes[start..], end - start)?) {
            let place = find(&bytes[..start], old).context("the package lacks a digest")?;
            bytes[place..place + old.len()].copy_from_slice(&new);
        }
        fs::write(package, bytes)?;
        self.signer.sign(&[package.to_owned()])
    }
}

/// Where the main header of a package begins and ends.
fn main_header(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = |start: usize| {
        let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
        (bytes.get(start..start + 3)? == HEADER).then_some(())?;
        Some(start + 16 + 16 * word(start + 8)? + word(start + 12)?)
    };
    let start = end(LEAD)?.next_multiple_of(8);
    Some((start, end(start)?))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// The digests that a signature header holds, as it holds them, of a package from its main header on.
fn digests(bytes: &[u8], header: usize) -> Result<[Vec<u8>; 3]> {
    let md5 = digest("md5sum", bytes)?;
    let pairs = md5.as_bytes().chunks(2).map(|pair| u8::from_str_radix(&String::from_utf8_lossy(pair), 16));
    Ok([
        digest("sha256sum", &bytes[..header])?.into_bytes(),
        digest("sha1sum", &bytes[..header])?.into_bytes(),
        pairs.collect::<Result<_, _>>()?,
    ])
}

/// What one of the programs of coreutils says of some bytes.
fn digest(program: &str, bytes: &[u8]) -> Result<String> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), bytes)?;
    let said = exec::text(program, &[file.path()])?;
    let digest = said.split_whitespace().next().unwrap_or_default().to_owned();
    ensure!(!digest.is_empty(), "{program} said nothing");
    Ok(digest)
}
