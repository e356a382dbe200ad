//! Which certificate a server on this machine serves: a TLS handshake that trusts anything and keeps the leaf.
//!
//! Used to see whether nginx has taken a new pair; nothing is ever sent over such a connection.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

const PATIENCE: Duration = Duration::from_secs(10);

/// The leaf that is served to those who ask for this name.
pub fn served(address: SocketAddr, domain: &str) -> Result<Vec<u8>> {
    handshake(address, domain, config_for_anything()?, "")
        .with_context(|| format!("asking `https://{domain}` at `{address}` for its certificate"))
}

/// The same where the PROXY protocol is spoken, by a visitor whose address is unknown.
pub(crate) fn served_behind(address: SocketAddr, domain: &str) -> Result<Vec<u8>> {
    handshake(address, domain, config_for_anything()?, "PROXY UNKNOWN\r\n").with_context(|| {
        format!("asking `{address}`, where visitors are handed on, for the certificate of `{domain}`")
    })
}

/// The leaf that is served to those who ask for this name by one protocol (ALPN) alone; an error where nobody speaks it. It is only
/// looked at, and may have extensions that nobody knows.
pub(crate) fn answer(address: SocketAddr, domain: &str, protocol: &[u8]) -> Result<Vec<u8>> {
    let mut config = config(false)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    handshake(address, domain, config, "")
}

fn handshake(address: SocketAddr, domain: &str, config: ClientConfig, before: &str) -> Result<Vec<u8>> {
    let wanted = config.alpn_protocols.first().cloned().unwrap_or_default();
    let mut connection = ClientConnection::new(Arc::new(config), ServerName::try_from(domain.to_owned())?)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(before.as_bytes())?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    if !wanted.is_empty() && connection.alpn_protocol() != Some(wanted.as_slice()) {
        bail!("the server there does not speak `{}`", String::from_utf8_lossy(&wanted));
    }
    let leaf =
        connection.peer_certificates().and_then(|chain| chain.first()).context("there was no certificate")?;
    Ok(leaf.to_vec())
}

/// For who looks at no certificate: one that any server passes which holds its certificate's key.
pub(crate) fn config_for_anything() -> Result<ClientConfig> {
    config(true)
}

fn config(proves_key: bool) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything { provider, proves_key }))
        .with_no_client_auth())
}

/// Accepts every certificate.
#[derive(Debug)]
struct Anything {
    provider: Arc<CryptoProvider>,
    /// Checks that the server holds the certificate's key; that needs a certificate which rustls understands.
    proves_key: bool,
}

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !self.proves_key {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, leaf, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !self.proves_key {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
