//! What a certificate says: names, time of validity, issuer, and whether a key belongs to it.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::{GeneralName, ParsedExtension};

/// More than any chain has.
const MOST_CERTIFICATES: usize = 16;

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its bytes.
    pub der: Vec<u8>,
    /// DNS names that it is for.
    pub names: Vec<String>,
    /// Name of its issuer.
    pub issuer: String,
    /// Issuer and subject are one.
    pub is_self_signed: bool,
    /// First second of validity, since 1970.
    pub not_before: i64,
    /// Last second of validity.
    pub not_after: i64,
    /// Its name in requests for renewal information (RFC 9773, section 4.1): its issuer's key and its serial number, each in
    /// base64url, with a dot between. `None` when it does not name its issuer's key.
    pub renewal_id: Option<String>,
    key: Vec<u8>,
    subject: Vec<u8>,
    signer: Vec<u8>,
}

impl Certificate {
    /// Reads the first certificate of a PEM chain.
    pub fn from_chain(pem: &str) -> Result<Self> {
        let (_, block) =
            x509_parser::pem::parse_x509_pem(pem.as_bytes()).context("reading the chain as PEM")?;
        Certificate::from_der(block.contents)
    }

    /// Reads every certificate of a PEM chain, in its order.
    pub fn all_of_chain(pem: &str) -> Result<Vec<Self>> {
        let blocks = x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes());
        let mut certificates = Vec::new();
        for block in blocks.take(MOST_CERTIFICATES) {
            let block = block.context("reading the chain as PEM")?;
            if block.label == "CERTIFICATE" {
                certificates.push(Certificate::from_der(block.contents)?);
            }
        }
        Ok(certificates)
    }

    fn from_der(der: Vec<u8>) -> Result<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).context("reading the certificate")?;
        let issuers_key = parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(found) => found.key_identifier.as_ref(),
            _ => None,
        });
        let base64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let renewal_id = issuers_key.map(|key| format!("{}.{}", base64(key.0), base64(parsed.raw_serial())));
        let names = parsed.subject_alternative_name().context("reading the certificate's names")?;
        let names = names.map(|extension| extension.value.general_names.clone()).unwrap_or_default();
        Ok(Certificate {
            names: names
                .iter()
                .filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some((*name).to_owned()),
                    _ => None,
                })
                .collect(),
            issuer: parsed.issuer().to_string(),
            is_self_signed: parsed.issuer().as_raw() == parsed.subject().as_raw(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            renewal_id,
            key: parsed.public_key().raw.to_vec(),
            subject: parsed.subject().as_raw().to_vec(),
            signer: parsed.issuer().as_raw().to_vec(),
            der,
        })
    }

    /// Whether the other one is named as its issuer.
    pub fn is_issued_by(&self, other: &Certificate) -> bool {
        self.signer == other.subject
    }

    /// Whether it is for this name. A wildcard stands for one part; nobody here orders one, but an operator may bring it.
    pub fn is_for(&self, domain: &str) -> bool {
        let parent = domain.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|name| {
            name.eq_ignore_ascii_case(domain)
                || name
                    .strip_prefix("*.")
                    .zip(parent)
                    .is_some_and(|(name, parent)| name.eq_ignore_ascii_case(parent))
        })
    }

    /// Whether a private key (PEM; PKCS #8, PKCS #1 or SEC 1) belongs to it.
    pub fn belongs_to(&self, key: &str) -> bool {
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).ok();
        let key = key.and_then(|key| rustls::crypto::ring::sign::any_supported_type(&key).ok());
        key.is_some_and(|key| key.public_key().is_some_and(|public| public.as_ref() == self.key))
    }

    /// Whether it is valid at a time.
    pub fn is_valid_at(&self, seconds: i64) -> bool {
        (self.not_before..=self.not_after).contains(&seconds)
    }

    /// Whether at most a third of its life is left: time for the next one.
    pub fn is_due_at(&self, seconds: i64) -> bool {
        (self.not_after - seconds).saturating_mul(3) <= self.not_after - self.not_before
    }
}

/// Now, in seconds since 1970.
pub fn now() -> Result<i64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    i64::try_from(now.as_secs()).context("the clock is beyond all time")
}

#[cfg(test)]
mod tests {
    use super::Certificate;
    use crate::tls::selfsigned;

    #[test]
    fn what_was_made_is_what_is_read() {
        let (chain, key) = selfsigned::make("v6don.example.net", 1_000_000_000, 1_000_000_300).unwrap();
        let certificate = Certificate::from_chain(&chain).unwrap();
        assert_eq!(certificate.names, ["v6don.example.net"]);
        assert!(certificate.is_self_signed);
        assert!(certificate.is_for("v6don.example.net") && !certificate.is_for("example.net"));
        assert!(certificate.belongs_to(&key));
        let (_, other) = selfsigned::make("v6don.example.net", 0, 300).unwrap();
        assert!(!certificate.belongs_to(&other) && !certificate.belongs_to("no key"));

        for (seconds, valid, due) in [
            (999_999_999, false, false),
            (1_000_000_000, true, false),
            (1_000_000_199, true, false),
            (1_000_000_200, true, true),
            (1_000_000_300, true, true),
            (1_000_000_301, false, true),
        ] {
            assert_eq!(certificate.is_valid_at(seconds), valid, "valid at {seconds}");
            assert_eq!(certificate.is_due_at(seconds), due, "due at {seconds}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_an_error() {
        for chain in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(Certificate::from_chain(chain).is_err(), "{chain:?}");
        }
    }
}
