//! TLS with given trust anchors and nothing of the host's own certificate store.

use std::net::TcpStream;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use x509_parser::prelude::{FromDer as _, X509Certificate};

pub(super) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Whose certificates are believed.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Nobody's: for plain connections.
    Nothing,
    /// Those that lead to one of these anchors.
    Anchors(Arc<RootCertStore>),
}

/// What a test wants to know of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Distinguished name of who signed it.
    pub issuer: String,
    /// Serial number, in hexadecimal.
    pub serial: String,
}

impl Trust {
    /// The certificates in a PEM text as anchors.
    pub fn anchors(pem: &str) -> Result<Trust> {
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            store.add(certificate.context("reading a trust anchor")?)?;
        }
        if store.is_empty() {
            bail!("the PEM text has no certificate: `{}`", pem.trim());
        }
        Ok(Trust::Anchors(Arc::new(store)))
    }
}

/// Shakes hands, so that a refused certificate is an error here and not at the first byte.
pub(super) fn connect(host: &str, tcp: TcpStream, trust: &Trust) -> Result<Stream> {
    let Trust::Anchors(anchors) = trust else { bail!("this client has no trust anchor for TLS") };
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(anchors.clone())
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())?;
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name)?, tcp);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).context("shaking hands for TLS")?;
    }
    Ok(stream)
}

/// The chain that the server sent.
pub(super) fn chain(stream: &Stream) -> Result<Vec<Certificate>> {
    stream.conn.peer_certificates().unwrap_or_default().iter().map(read).collect()
}

fn read(der: &CertificateDer<'_>) -> Result<Certificate> {
    let (_, certificate) = X509Certificate::from_der(der).context("reading a certificate of the server")?;
    Ok(Certificate {
        issuer: certificate.issuer().to_string(),
        serial: format!("{:x}", certificate.tbs_certificate.serial),
    })
}
