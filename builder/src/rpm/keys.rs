//! Keys that packages may be signed with, read from OpenPGP files.
//!
//! What is trusted is the pinned fingerprint of the primary key, and nothing that the key says of itself: user ids, expiry and the
//! hash of its self-signatures (SHA-1, for CentOS 7 and EPEL 7) do not matter. A subkey is trusted when the primary key says that it
//! may sign and the subkey agrees (RFC 9580, 5.2.1.8 and 5.2.1.9). A key revoked for more than its age is refused.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use fs_err as fs;
use pgp::composed::{Deserializable as _, SignedPublicKey, SignedPublicSubKey};
use pgp::packet::{self, RevocationCode, Signature, SignatureType};
use pgp::types::{Fingerprint, KeyDetails as _, KeyId};

use super::TrustedKey;
use crate::error::Fault;

/// The greatest file of keys in use has 40 KiB.
const LIMIT: u64 = 1 << 20;

/// A key that may have signed: the pinned one or a subkey of it.
#[derive(Debug)]
pub(super) struct Signer {
    /// Fingerprint of the pinned primary key, upper-case hexadecimal.
    pub(super) pinned: String,
    /// Whether its SHA-1 signatures count.
    pub(super) sha1: bool,
    id: KeyId,
    fingerprint: Fingerprint,
    key: Key,
}

#[derive(Debug)]
enum Key {
    Primary(packet::PublicKey),
    Sub(packet::PublicSubkey),
}

impl Signer {
    /// Whether the signature says that this key made it.
    pub(super) fn is_issuer_of(&self, signature: &Signature) -> bool {
        signature.issuer_key_id().contains(&&self.id)
            || signature.issuer_fingerprint().contains(&&self.fingerprint)
    }

    /// Checks a signature over data.
    pub(super) fn verify(&self, signature: &Signature, data: impl std::io::Read) -> pgp::errors::Result<()> {
        match &self.key {
            Key::Primary(key) => signature.verify(key, data),
            Key::Sub(key) => signature.verify(key, data),
        }
    }
}

/// The fingerprint of the first primary key in a file, upper-case hexadecimal.
pub(super) fn fingerprint(file: &Path) -> Result<String> {
    Ok(print(&read(file)?[0].fingerprint()))
}

/// The pinned key and those of its subkeys that may sign.
pub(super) fn load(trusted: &TrustedKey) -> Result<Vec<Signer>> {
    let file = trusted.file.display();
    let pinned: String = trusted
        .fingerprint
        .split_whitespace()
        .collect::<String>()
        .trim_start_matches("0x")
        .to_ascii_uppercase();
    if !matches!(pinned.len(), 40 | 64) || !pinned.bytes().all(|c| c.is_ascii_hexdigit()) {
        let what =
            format!("`{}` is not the fingerprint of a key: `{file}`", trusted.fingerprint.escape_debug());
        return Err(Fault::user(what).hint("a fingerprint has 40 hexadecimal digits").into());
    }
    let keys = read(&trusted.file)?;
    let Some(key) = keys.iter().find(|key| print(&key.fingerprint()) == pinned) else {
        let found: Vec<_> = keys.iter().map(|key| print(&key.fingerprint())).collect();
        let what = format!("`{file}` holds the key {}, and {pinned} is pinned", found.join(", "));
        let hint = "ask the maker of the packages which is theirs, by another way than the file came";
        return Err(Fault::user(what).hint(hint).into());
    };
    let primary = &key.primary_key;
    let revoked = |signature: &Signature| {
        is_compromise(signature, SignatureType::KeyRevocation) && signature.verify_key(primary).is_ok()
    };
    if key.details.revocation_signatures.iter().any(revoked) {
        let what = format!("the key {pinned} in `{file}` has been revoked by its owner");
        return Err(Fault::user(what).hint("remove it from the recipe's keys").into());
    }
    let signer = |key: Key, id, fingerprint| Signer {
        pinned: pinned.clone(),
        sha1: trusted.sha1,
        id,
        fingerprint,
        key,
    };
    let mut signers =
        vec![signer(Key::Primary(primary.clone()), primary.legacy_key_id(), primary.fingerprint())];
    for sub in key.public_subkeys.iter().filter(|sub| may_sign(sub, primary)) {
        signers.push(signer(Key::Sub(sub.key.clone()), sub.legacy_key_id(), sub.fingerprint()));
    }
    Ok(signers)
}

/// Bound by the primary key for signing, agreed to by the subkey, and not revoked.
fn may_sign(sub: &SignedPublicSubKey, primary: &packet::PublicKey) -> bool {
    let by_primary = |signature: &Signature| signature.verify_subkey_binding(primary, &sub.key).is_ok();
    let revoked = sub
        .signatures
        .iter()
        .any(|signature| is_compromise(signature, SignatureType::SubkeyRevocation) && by_primary(signature));
    let bound = sub.signatures.iter().any(|signature| {
        signature.typ() == Some(SignatureType::SubkeyBinding)
            && signature.key_flags().sign()
            && by_primary(signature)
            && signature
                .embedded_signature()
                .is_some_and(|back| back.verify_primary_key_binding(&sub.key, primary).is_ok())
    });
    bound && !revoked
}

/// A revocation that casts doubt on what the key has signed before: a key retired or replaced in good order stays good for its packages.
fn is_compromise(signature: &Signature, kind: SignatureType) -> bool {
    let in_good_order = matches!(
        signature.revocation_reason_code(),
        Some(RevocationCode::KeySuperseded | RevocationCode::KeyRetired)
    );
    signature.typ() == Some(kind) && !in_good_order
}

/// All keys of a file, armoured (one block or several) or binary; at least one.
fn read(file: &Path) -> Result<Vec<SignedPublicKey>> {
    let mut bytes = Vec::new();
    fs::File::open(file)
        .and_then(|opened| opened.take(LIMIT + 1).read_to_end(&mut bytes))
        .map_err(|error| Fault::user(format!("reading a key: {error}")))?;
    parse(&bytes)
        .map_err(|error| {
            let hint =
                "it must be the public key as its owner publishes it, exported with `gpg --armor --export`";
            let why = error.root_cause();
            Fault::user(format!("`{}` is not an OpenPGP public key: {why}", file.display())).hint(hint)
        })
        .context("reading the keys of packages")
}

fn parse(bytes: &[u8]) -> Result<Vec<SignedPublicKey>> {
    const BEGIN: &[u8] = b"-----BEGIN PGP PUBLIC KEY BLOCK-----";
    anyhow::ensure!(bytes.len() as u64 <= LIMIT, "it has more than {LIMIT} bytes");
    let mut starts: Vec<usize> =
        bytes.windows(BEGIN.len()).enumerate().filter(|(_, at)| *at == BEGIN).map(|(at, _)| at).collect();
    let mut keys = Vec::new();
    if starts.is_empty() {
        // The first bit of every packet is set.
        anyhow::ensure!(bytes.first().is_some_and(|byte| byte & 0x80 != 0), "it has no armoured block");
        keys = SignedPublicKey::from_bytes_many(bytes)?.collect::<Result<_, _>>()?;
    }
    starts.push(bytes.len());
    for block in starts.windows(2) {
        let (found, _) = SignedPublicKey::from_armor_many(&bytes[block[0]..block[1]])?;
        keys.extend(found.collect::<Result<Vec<_>, _>>()?);
    }
    anyhow::ensure!(!keys.is_empty(), "it holds no key");
    Ok(keys)
}

fn print(fingerprint: &Fingerprint) -> String {
    format!("{fingerprint:X}")
}
