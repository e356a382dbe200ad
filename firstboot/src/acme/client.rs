//! HTTPS to an authority: one thread, a limit on every answer, and the last `Retry-After` kept.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::Limited;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// The largest answer in bytes; a chain has a few thousand.
const LARGEST: usize = 1 << 20;

type HyperClient = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>;
type Response = Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>>;

/// The last `Retry-After` that came with a refusal.
#[derive(Debug, Clone, Default)]
pub(super) struct Pause(Arc<Mutex<Option<Duration>>>);

impl Pause {
    pub fn get(&self) -> Option<Duration> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, pause: Option<Duration>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pause;
    }
}

/// The HTTP client of one order or question.
pub(super) struct Client {
    inner: HyperClient,
    pause: Pause,
}

impl Client {
    /// `ca` are the only trust anchors (PEM) when given, else the machine's own count.
    pub fn new(ca: Option<&str>, pause: &Pause) -> Result<Client> {
        // Only the first call in a process decides, and every call decides the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = match ca {
            None => HttpsConnectorBuilder::new()
                .try_with_platform_verifier()
                .context("reading this machine's trusted authorities")?,
            Some(pem) => {
                let mut roots = rustls::RootCertStore::empty();
                for anchor in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    roots.add(anchor.context("reading `acme.ca`")?).context("taking `acme.ca`")?;
                }
                let config =
                    rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
                HttpsConnectorBuilder::new().with_tls_config(config)
            }
        };
        let connector = builder.https_only().enable_http1().build();
        let inner = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
        Ok(Client { inner, pause: pause.clone() })
    }

    /// Fetches a document.
    pub async fn get(&self, url: &str) -> Result<(http::response::Parts, Bytes)> {
        let asking = || format!("asking `{url}`");
        let request = http::Request::get(url)
            .header(http::header::USER_AGENT, "appliance")
            .body(BodyWrapper::default())
            .with_context(asking)?;
        let mut response = self.request(request).await.with_context(asking)?;
        let body =
            response.body.into_bytes().await.map_err(anyhow::Error::from_boxed).with_context(asking)?;
        if !response.parts.status.is_success() {
            bail!("`{url}` answers with {}", response.parts.status);
        }
        Ok((response.parts, body))
    }
}

impl HttpClient for Client {
    fn request(&self, request: http::Request<BodyWrapper<Bytes>>) -> Response {
        let response = self.inner.request(request);
        let pause = self.pause.clone();
        Box::pin(async move {
            let response = response.await.map_err(|error| instant_acme::Error::Other(Box::new(error)))?;
            if !response.status().is_success() {
                pause.set(wait(response.headers(), SystemTime::now()));
            }
            Ok(BytesResponse::from(response.map(|body| Limited::new(body, LARGEST))))
        })
    }
}

/// Runs one exchange on this thread; it ends after the limit.
pub(super) fn block<T>(limit: Duration, server: &str, future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the client")?;
    runtime.block_on(async {
        match tokio::time::timeout(limit, future).await {
            Ok(result) => result,
            Err(_) => bail!("`{server}` did not finish within {} s", limit.as_secs()),
        }
    })
}

/// `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
pub(super) fn wait(headers: &http::HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::wait;

    #[test]
    fn both_forms_of_retry_after_are_read() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 60);
        for (value, expected) in [
            ("120", Some(120)),
            (" 5 ", Some(5)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(60)),
            ("Sun, 06 Nov 1993 08:49:37 GMT", None),
            ("soon", None),
        ] {
            let mut headers = http::HeaderMap::new();
            headers.insert(http::header::RETRY_AFTER, value.parse().unwrap());
            assert_eq!(wait(&headers, now), expected.map(Duration::from_secs), "{value}");
        }
    }
}
