//! Who made a package: OpenPGP signatures against pinned keys.
//!
//! A package is `Verified` when a pinned key has signed its header, or its header and payload, with SHA-256 or better, and its payload
//! is vouched for by that signature, by the payload's digest in the signed header, or by the digest of every single file in it. A
//! signature with SHA-1 counts only for a key whose recipe says `sha1`, one with MD5 never: colliding packages can be made. One that
//! claims a pinned key and does not hold damns the package, whatever else it carries. Dates do not count: the distribution is out of support, and clocks lie.

use std::io::{BufReader, Read};
use std::ops::Deref;
use std::path::Path;

use anyhow::{Context as _, Result};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Packet, PacketParser, Signature, SignatureType};

use super::files::Kind;
use super::header::Package;
use super::keys::{self, Signer};
use super::{TrustedKey, payload};
use crate::error::Fault;
use crate::store::hex;

/// Tags of the signature header, as in `rpmSigTag`.
mod tag {
    pub(super) const DSA_HEADER: u32 = 267;
    pub(super) const RSA_HEADER: u32 = 268;
    pub(super) const SHA1_HEADER: u32 = 269;
    pub(super) const SHA256_HEADER: u32 = 273;
    pub(super) const RSA_ALL: u32 = 1002;
    pub(super) const DSA_ALL: u32 = 1005;
    /// Of the header: a source package.
    pub(super) const IS_SOURCE: u32 = 1106;
}

/// Keys that are believed.
#[derive(Debug)]
pub struct Keyring {
    signers: Vec<Signer>,
}

/// A package that a pinned key vouches for, whole. Only `Keyring::verify` makes one.
#[derive(Debug)]
pub struct Verified {
    package: Package,
    signed_by: String,
}

impl Verified {
    /// Fingerprint of the pinned primary key, upper-case hexadecimal.
    pub fn signed_by(&self) -> &str {
        &self.signed_by
    }
}

impl Deref for Verified {
    type Target = Package;

    fn deref(&self) -> &Package {
        &self.package
    }
}

/// The fingerprint of the (first) primary key in a file, upper-case hexadecimal.
pub fn fingerprint(file: &Path) -> Result<String> {
    keys::fingerprint(file)
}

/// Whether nobody can make two contents with one digest.
pub(super) fn is_strong(algorithm: HashAlgorithm) -> bool {
    use HashAlgorithm::{Sha3_256, Sha3_512, Sha224, Sha256, Sha384, Sha512};
    matches!(algorithm, Sha224 | Sha256 | Sha384 | Sha512 | Sha3_256 | Sha3_512)
}

/// What has been found so far.
#[derive(Default)]
struct Evidence {
    header_signed_by: Option<String>,
    all_signed_by: Option<String>,
    strangers: Vec<String>,
    weak: Vec<String>,
}

impl Keyring {
    /// Reads the keys; each file must hold the key that is pinned for it.
    pub fn load(keys: &[TrustedKey]) -> Result<Self> {
        let mut signers = Vec::new();
        for key in keys {
            signers.extend(keys::load(key)?);
        }
        Ok(Keyring { signers })
    }

    /// Checks who signed a package, that all of it was signed, and that its paths stay within a tree.
    pub fn verify(&self, package: Package) -> Result<Verified> {
        if package.header.has(tag::IS_SOURCE) {
            return Err(package.refuse("it is a source package, there is nothing to install").into());
        }
        check_header_digests(&package)?;
        let mut evidence = Evidence::default();
        for tag in [tag::RSA_HEADER, tag::DSA_HEADER] {
            if let Some(signature) = signature(&package, tag)? {
                self.weigh(&package, &signature, false, &mut evidence)?;
            }
        }
        for tag in [tag::RSA_ALL, tag::DSA_ALL] {
            if let Some(signature) = signature(&package, tag)? {
                self.weigh(&package, &signature, true, &mut evidence)?;
            }
        }
        let signed_by = match (evidence.all_signed_by.take(), evidence.header_signed_by.take()) {
            (Some(signer), _) => signer,
            (None, Some(signer)) => {
                check_payload(&package)?;
                signer
            }
            (None, None) => return Err(self.refuse(&package, &evidence).into()),
        };
        if let Some(file) = package.files().iter().find(|file| !file.is_safe()) {
            let what = format!("path `{}` leads out of the tree", file.path.escape_debug());
            return Err(package
                .refuse(what)
                .hint("do not use this package: no builder makes such a path")
                .into());
        }
        Ok(Verified { package, signed_by })
    }

    /// One signature: by a stranger, too weak to count, good, or the end.
    fn weigh(
        &self,
        package: &Package,
        signature: &Signature,
        all: bool,
        evidence: &mut Evidence,
    ) -> Result<()> {
        let signers: Vec<_> = self.signers.iter().filter(|signer| signer.is_issuer_of(signature)).collect();
        let Some(first) = signers.first() else {
            evidence.strangers.push(issuer(signature));
            return Ok(());
        };
        let algorithm = signature.hash_alg().unwrap_or(HashAlgorithm::None);
        let is_tolerated = first.sha1 && algorithm == HashAlgorithm::Sha1;
        if !is_strong(algorithm) && !is_tolerated {
            evidence.weak.push(format!("{algorithm} signature by {}", first.pinned));
            return Ok(());
        }
        let is_over_data = signature.typ() == Some(SignatureType::Binary);
        for signer in &signers {
            if is_over_data && holds(package, signature, all, signer)? {
                let found = if all { &mut evidence.all_signed_by } else { &mut evidence.header_signed_by };
                *found = Some(signer.pinned.clone());
                return Ok(());
            }
        }
        let what = if all { "header and payload" } else { "the header" };
        let what = format!("the signature over {what} is not one of {}: damaged or forged", first.pinned);
        Err(package.damaged(what).into())
    }

    fn refuse(&self, package: &Package, evidence: &Evidence) -> Fault {
        let mut accepted: Vec<_> = self.signers.iter().map(|signer| signer.pinned.as_str()).collect();
        accepted.dedup();
        let accepted = match accepted.as_slice() {
            [] => "no key is accepted".to_owned(),
            keys => format!("accepted are {}", keys.join(", ")),
        };
        if let Some(weak) = evidence.weak.first() {
            return package
                .refuse(format!("it has only a {weak}, and such signatures can be forged"))
                .hint("take a build that is signed with SHA-256 or better, or say `sha1 = true` beside the key in the recipe");
        }
        if let Some(stranger) = evidence.strangers.first() {
            return package
                .refuse(format!("it is signed by the key {stranger}; {accepted}"))
                .hint("pin that key in the recipe, or name its file with --key NAME=FILE, if you trust its owner with everything in the image");
        }
        package
            .refuse(format!("it is not signed; {accepted}"))
            .hint("take it from a repository that signs its packages")
    }
}

/// Whether the signature is the signer's. Errors are of reading alone.
fn holds(package: &Package, signature: &Signature, all: bool, signer: &Signer) -> Result<bool> {
    let header = package.header.raw();
    if !all {
        return Ok(signer.verify(signature, header).is_ok());
    }
    let payload = BufReader::with_capacity(1 << 20, package.payload()?);
    match signer.verify(signature, header.chain(payload)) {
        Ok(()) => Ok(true),
        Err(pgp::errors::Error::IO { source, .. }) => {
            Err(source).with_context(|| format!("reading `{}`", package.path().display()))
        }
        Err(_) => Ok(false),
    }
}

/// The one signature of a tag.
fn signature(package: &Package, tag: u32) -> Result<Option<Signature>> {
    let bytes =
        package.signatures.binary(tag).map_err(|error| package.damaged(format!("signature: {error:#}")))?;
    let Some(bytes) = bytes else { return Ok(None) };
    let mut packets = PacketParser::new(bytes);
    match (packets.next(), packets.next()) {
        (Some(Ok(Packet::Signature(signature))), None) if signature.config().is_some() => Ok(Some(signature)),
        _ => Err(package.damaged("its signature cannot be read").into()),
    }
}

/// Who says to have signed.
fn issuer(signature: &Signature) -> String {
    if let Some(fingerprint) = signature.issuer_fingerprint().first() {
        return format!("{fingerprint:X}");
    }
    match signature.issuer_key_id().first() {
        Some(id) => hex(id.as_ref()).to_ascii_uppercase(),
        None => "that it does not name".to_owned(),
    }
}

/// Digests of the header in the signature header: nobody vouches for them, but they tell damage from forgery.
fn check_header_digests(package: &Package) -> Result<()> {
    for (tag, algorithm) in
        [(tag::SHA256_HEADER, HashAlgorithm::Sha256), (tag::SHA1_HEADER, HashAlgorithm::Sha1)]
    {
        let named = package
            .signatures
            .string(tag)
            .map_err(|error| package.damaged(format!("signature: {error:#}")))?;
        if let Some(named) = named {
            let found = algorithm.digest(package.header.raw()).map(|digest| hex(&digest)).unwrap_or_default();
            if !found.eq_ignore_ascii_case(named) {
                return Err(package
                    .damaged(format!(
                        "its header is damaged: {algorithm} {found}, not {}",
                        named.escape_debug()
                    ))
                    .into());
            }
        }
    }
    Ok(())
}

/// The header is signed and the payload is not: its digest in the header must hold, or that of every file.
fn check_payload(package: &Package) -> Result<()> {
    if let Some((number, named)) = package.payload_digest() {
        let algorithm = u8::try_from(number).map_or(HashAlgorithm::None, HashAlgorithm::from);
        if is_strong(algorithm) {
            let found = payload_digest(package, algorithm)?;
            if found != named {
                return Err(package
                    .damaged(format!(
                        "its payload is damaged: {algorithm} {found}, not {}",
                        named.escape_debug()
                    ))
                    .into());
            }
            return Ok(());
        }
    }
    let bare = package.files().iter().find(|file| {
        let has_content = file.kind() == Kind::File && !file.is_ghost() && file.size > 0;
        has_content && !file.digest.as_ref().is_some_and(super::files::FileDigest::is_strong)
    });
    if let Some(bare) = bare {
        let what = format!("nothing signed vouches for the content of `{}`", bare.path.escape_debug());
        return Err(package.refuse(what).hint("take a build that is signed over header and payload").into());
    }
    payload::check(package)
}

fn payload_digest(package: &Package, algorithm: HashAlgorithm) -> Result<String> {
    let mut hash = algorithm.new_hasher()?;
    let mut payload = package.payload()?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = payload.read(&mut buffer)?;
        if count == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..count]);
    }
}
