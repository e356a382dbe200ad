//! A certificate of our own: what nginx serves before an authority has answered, or for good.

use anyhow::{Context as _, Result};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;

/// Makes a certificate for one name, and its P-256 key, both as PEM. The times are seconds since 1970.
pub fn make(domain: &str, not_before: i64, not_after: i64) -> Result<(String, String)> {
    let mut parameters = CertificateParams::new([domain.to_owned()]).context("naming the certificate")?;
    parameters.not_before = OffsetDateTime::from_unix_timestamp(not_before)?;
    parameters.not_after = OffsetDateTime::from_unix_timestamp(not_after)?;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // No common name: it holds 64 characters at most, a domain up to 253.
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::OrganizationName, "Mastodon appliance, self-signed");
    let key = KeyPair::generate().context("making a key")?;
    let certificate = parameters.self_signed(&key).context("signing the certificate")?;
    Ok((certificate.pem(), key.serialize_pem()))
}
