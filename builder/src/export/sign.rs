//! The `.cert` member of a signed OVA (OVF 1.1, section 5.1): the manifest's RSA signature and the certificates that vouch for it.
//!
//! The key never leaves this process, and no message shows anything of it. The signature is PKCS #1 v1.5 with SHA-256, so one
//! key and one manifest give one signature, and all signatures of a key are of one length.

use std::fmt;
use std::path::Path;

use anyhow::Result;
use base64::Engine as _;
use fs_err as fs;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use x509_parser::pem::Pem;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::error::Fault;
use crate::store::hex;

/// Longest file with a key or a chain of certificates.
const LONGEST_FILE: u64 = 256 << 10;
const KEY_HINT: &str = "an RSA key of 2048 to 4096 bits without a passphrase is needed, in PEM; `openssl pkey -in OLD -out NEW` takes a passphrase off";
const CHAIN_HINT: &str = "it holds the certificate of the key, then those of its issuers, in PEM";

/// A key and its certificates, held against each other.
pub struct Signer {
    key: RsaKeyPair,
    chain: String,
}

impl Signer {
    /// Reads both files.
    pub fn load(key: &Path, chain: &Path) -> Result<Signer> {
        let pair = read_key(key)?;
        let certificates = read_chain(chain)?;
        let leaf = certificates.first().map_or(&[][..], Vec::as_slice);
        // What an RSA certificate holds is PKCS #1's form of the public key, and ring's too.
        let own = x509_parser::parse_x509_certificate(leaf)
            .is_ok_and(|(_, leaf)| public_key(leaf.public_key()) == pair.public().as_ref());
        if !own {
            let message = format!(
                "--sign-cert `{}`: its first certificate is not that of --sign-key `{}`",
                chain.display(),
                key.display()
            );
            return Err(Fault::user(message).hint(CHAIN_HINT).into());
        }
        Ok(Signer { key: pair, chain: certificates.iter().map(|der| to_pem(der)).collect() })
    }

    /// The content of `NAME.cert` for the manifest, whose own name in the package is `manifest_name`. Its length does
    /// not depend on what the manifest says.
    pub fn cert(&self, manifest_name: &str, manifest: &[u8]) -> Result<Vec<u8>> {
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), manifest, &mut signature)
            .map_err(|_| Fault::environment("signing the manifest: the system gave no random numbers"))?;
        Ok(format!("SHA256({manifest_name})= {}\n{}", hex(&signature), self.chain).into_bytes())
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Signer")
    }
}

fn public_key<'a>(info: &'a SubjectPublicKeyInfo<'_>) -> &'a [u8] {
    &info.subject_public_key.data
}

fn read_key(path: &Path) -> Result<RsaKeyPair> {
    let wrong = |cause: &str| Fault::user(format!("--sign-key `{}`: {cause}", path.display())).hint(KEY_HINT);
    let bytes = read(path).map_err(|cause| wrong(&cause))?;
    if bytes.windows(9).any(|window| window == b"ENCRYPTED") {
        return Err(wrong("it has a passphrase").into());
    }
    let blocks: Vec<Pem> = Pem::iter_from_buffer(&bytes).filter_map(Result::ok).collect();
    let pair = blocks.iter().find_map(|block| match block.label.as_str() {
        "PRIVATE KEY" => Some(RsaKeyPair::from_pkcs8(&block.contents)),
        "RSA PRIVATE KEY" => Some(RsaKeyPair::from_der(&block.contents)),
        _ => None,
    });
    match pair {
        Some(Ok(pair)) => Ok(pair),
        Some(Err(cause)) => Err(wrong(&format!("the key is not usable ({cause})")).into()),
        None => Err(wrong("there is no RSA key in it").into()),
    }
}

/// The certificates of a PEM file, each as DER.
fn read_chain(path: &Path) -> Result<Vec<Vec<u8>>> {
    let wrong =
        |cause: &str| Fault::user(format!("--sign-cert `{}`: {cause}", path.display())).hint(CHAIN_HINT);
    let bytes = read(path).map_err(|cause| wrong(&cause))?;
    let mut chain = Vec::new();
    for block in Pem::iter_from_buffer(&bytes) {
        let block = block.map_err(|_| wrong("it has a block that is no PEM"))?;
        if block.label.contains("PRIVATE KEY") {
            return Err(wrong("it holds a private key, which would be published").into());
        }
        match x509_parser::parse_x509_certificate(&block.contents) {
            Ok((rest, _)) if rest.is_empty() && block.label == "CERTIFICATE" => chain.push(block.contents),
            _ => return Err(wrong(&format!("its block {} is no certificate", chain.len() + 1)).into()),
        }
    }
    if chain.is_empty() {
        return Err(wrong("there is no certificate in it").into());
    }
    Ok(chain)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    // The path is in the message around it.
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > LONGEST_FILE {
        return Err(format!("{length} bytes are too many"));
    }
    fs::read(path).map_err(|error| error.to_string())
}

fn to_pem(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::oracle;

    const NAME: &str = "demo-v1.6.1.mf";

    #[test]
    fn openssl_verifies_the_signature() {
        let folder = tempfile::tempdir().unwrap();
        let (key, chain) = oracle::rsa_certificate(folder.path(), "one").unwrap();
        let signer = Signer::load(&key, &chain).unwrap();
        for manifest in ["SHA256(demo-v1.6.1.ovf)= 00\n", ""] {
            let text = String::from_utf8(signer.cert(NAME, manifest.as_bytes()).unwrap()).unwrap();
            // The archive keeps room for it before the manifest is known.
            assert_eq!(text.len(), signer.cert(NAME, b"longer than any").unwrap().len());
            let (line, certificates) = text.split_once('\n').unwrap();
            let signature = line.strip_prefix("SHA256(demo-v1.6.1.mf)= ").unwrap();
            assert_eq!(certificates, fs::read_to_string(&chain).unwrap());
            let good =
                |said: &str| oracle::signature_is_good(&chain, signature, said.as_bytes(), folder.path());
            good(manifest).unwrap();
            assert!(good("SHA256(demo-v1.6.1.ovf)= 01\n").is_err());
        }
    }

    #[test]
    fn what_cannot_sign_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let (key, chain) = oracle::rsa_certificate(folder.path(), "one").unwrap();
        let (other, _) = oracle::rsa_certificate(folder.path(), "other").unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let refused = |key: &Path, chain: &Path| {
            let error = Signer::load(key, chain).unwrap_err();
            assert_eq!(crate::error::exit_code(&error), 1);
            error.to_string().replace(&folder.path().display().to_string(), "")
        };
        let encrypted = file(
            "encrypted.pem",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        );
        let short = file("short.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
        let both =
            file("both.pem", &(fs::read_to_string(&chain).unwrap() + &fs::read_to_string(&key).unwrap()));
        let empty = file("empty.pem", "");
        let huge = file("huge.pem", &"x".repeat(300_000));
        let messages = [
            refused(&other, &chain),
            refused(&encrypted, &chain),
            refused(&short, &chain),
            refused(&chain, &chain),
            refused(&huge, &chain),
            refused(&key, &both),
            refused(&key, &empty),
            refused(&key, &key),
        ];
        insta::assert_snapshot!(messages.join("\n"), @r"
        --sign-cert `/one.pem`: its first certificate is not that of --sign-key `/other.key`
        --sign-key `/encrypted.pem`: it has a passphrase
        --sign-key `/short.pem`: the key is not usable (InvalidEncoding)
        --sign-key `/one.pem`: there is no RSA key in it
        --sign-key `/huge.pem`: 300000 bytes are too many
        --sign-cert `/both.pem`: it holds a private key, which would be published
        --sign-cert `/empty.pem`: there is no certificate in it
        --sign-cert `/one.key`: it holds a private key, which would be published
        ");
    }
}
