//! What every Pebble of the tests needs: a certificate for its own HTTPS, from an authority that is thrown away with it.

use std::path::Path;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// The files that Pebble's `certificate` and `privateKey` name.
pub const FILES: [&str; 2] = ["directory.pem", "directory.key"];

/// Makes both for a host, and says whom its clients have to trust (PEM).
pub fn directory_tls(folder: &Path, host: &str) -> Result<String> {
    let root_key = KeyPair::generate()?;
    let mut root = CertificateParams::default();
    root.distinguished_name.push(DnType::CommonName, "lab directory");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let anchor = root.self_signed(&root_key)?.pem();
    let key = KeyPair::generate()?;
    let certificate =
        CertificateParams::new(vec![host.to_owned()])?.signed_by(&key, &Issuer::new(root, root_key))?;
    let [certificate_file, key_file] = FILES;
    fs_err::write(folder.join(certificate_file), certificate.pem())?;
    fs_err::write(folder.join(key_file), key.serialize_pem())?;
    Ok(anchor)
}
