//! A certificate authority that does as it is told: refuses by script, gives renewal information, says another time of day.
//!
//! Pebble checks what a client sends; this one believes everything and looks at nothing. It is for the answers that Pebble cannot
//! be brought to give: limits, broken nonces, trouble of its own, RFC 9773. Its certificates are real ones of a throw-away
//! authority.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SignatureAlgorithm,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

/// An answer in place of the usual one.
#[derive(Debug, Clone)]
pub struct Fault {
    /// HTTP status.
    pub status: u16,
    /// The last word of the problem's type, such as `rateLimited`; a body of HTML without.
    pub kind: Option<&'static str>,
    /// The problem's sentence.
    pub detail: String,
    /// `Retry-After`.
    pub retry_after: Option<String>,
}

/// What the authority does besides signing.
#[derive(Debug, Default)]
struct State {
    url: String,
    domain: String,
    chain: Option<String>,
    faults: BTreeMap<String, Vec<Fault>>,
    requests: Vec<(String, Value)>,
    replaces: Option<String>,
    date: Option<String>,
    renewal: Option<(String, String)>,
    identities: Vec<String>,
}

/// A running authority; its thread ends with the test's process.
pub struct AcmeStub {
    state: Arc<Mutex<State>>,
    /// The anchor (PEM) of its HTTPS.
    pub ca: String,
}

/// The authority's own key, and that of its HTTPS.
struct Keys {
    issuer: Issuer<'static, KeyPair>,
    tls: Arc<ServerConfig>,
}

impl AcmeStub {
    /// Starts one on a free port of `127.0.0.1`, under the name `localhost`. `validity` is that of its own HTTPS, as years.
    pub fn start(validity: (i32, i32)) -> Result<AcmeStub> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("https://localhost:{}", listener.local_addr()?.port());
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "stub");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let ca = parameters.self_signed(&key)?.pem();
        let issuer = Issuer::new(parameters, key);

        let host_key = KeyPair::generate()?;
        let mut host = CertificateParams::new(["localhost".to_owned()])?;
        host.not_before = rcgen::date_time_ymd(validity.0, 1, 1);
        host.not_after = rcgen::date_time_ymd(validity.1, 1, 1);
        let host = host.signed_by(&host_key, &issuer)?;
        let private = PrivateKeyDer::try_from(host_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(host.der().to_vec())], private)?;
        let keys = Keys { issuer, tls: Arc::new(tls) };
        let state = Arc::new(Mutex::new(State { url, ..State::default() }));
        let stub = AcmeStub { state: state.clone(), ca };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away, or that trusts nobody, is its own affair.
                let _ = serve(stream, &keys, &state);
            }
        });
        Ok(stub)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// URL of the directory.
    pub fn directory(&self) -> String {
        format!("{}/directory", self.state().url)
    }

    /// Answers the next requests for a path, such as `/order`, with these, one after the other.
    pub fn fail(&self, path: &str, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.entry(path.to_owned()).or_default().extend(faults);
    }

    /// Says another time of day, as in a `Date` header.
    pub fn set_date(&self, date: &str) {
        self.state().date = Some(date.to_owned());
    }

    /// Names itself so in CAA records.
    pub fn set_identities(&self, names: &[&str]) {
        self.state().identities = names.iter().map(|name| (*name).to_owned()).collect();
    }

    /// Suggests this time for every renewal, as RFC 3339 has it.
    pub fn suggest(&self, start: &str, end: &str) {
        self.state().renewal = Some((start.to_owned(), end.to_owned()));
    }

    /// The payloads that came for a path.
    pub fn requests(&self, path: &str) -> Vec<Value> {
        let state = self.state();
        let ours = state.requests.iter().filter(|(asked, _)| asked == path);
        ours.map(|(_, payload)| payload.clone()).collect()
    }

    /// How often a path that begins so was asked for.
    pub fn count(&self, start: &str) -> usize {
        self.state().requests.iter().filter(|(asked, _)| asked.starts_with(start)).count()
    }
}

/// An answer as it goes over the wire.
struct Reply {
    status: u16,
    kind: &'static str,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Reply {
    fn json(status: u16, body: &Value) -> Reply {
        Reply { status, kind: "application/json", headers: Vec::new(), body: body.to_string() }
    }

    fn at(mut self, location: String) -> Reply {
        self.headers.push(("Location", location));
        self
    }
}

/// One request a connection.
fn serve(stream: TcpStream, keys: &Keys, state: &Mutex<State>) -> Result<()> {
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    let mut reader = BufReader::new(StreamOwned::new(ServerConnection::new(keys.tls.clone())?, stream));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header == "\r\n" {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let payload = payload(&body);
    let (reply, date) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests.push((path.clone(), payload.clone()));
        let fault =
            state.faults.get_mut(&path).filter(|faults| !faults.is_empty()).map(|faults| faults.remove(0));
        let reply = match fault {
            Some(fault) => refuse(fault),
            None => answer(&path, &payload, keys, &mut state)?,
        };
        (reply, state.date.clone())
    };
    let mut head = format!(
        "HTTP/1.1 {} x\r\nContent-Type: {}\r\nContent-Length: {}\r\nReplay-Nonce: {}\r\nConnection: close\r\n",
        reply.status,
        reply.kind,
        reply.body.len(),
        "bm9uY2U"
    );
    if let Some(date) = date {
        head.push_str(&format!("Date: {date}\r\n"));
    }
    for (name, value) in reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = if line.starts_with("HEAD") { "" } else { &reply.body };
    let stream = reader.get_mut();
    stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}

/// What a client has signed, unread.
fn payload(body: &[u8]) -> Value {
    let message: Value = serde_json::from_slice(body).unwrap_or_default();
    let bytes = message["payload"].as_str().and_then(base64url).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn refuse(fault: Fault) -> Reply {
    let mut reply = match fault.kind {
        Some(kind) => {
            let body = json!({
                "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": fault.detail, "status": fault.status,
            });
            Reply { kind: "application/problem+json", ..Reply::json(fault.status, &body) }
        }
        None => Reply { status: fault.status, kind: "text/html", headers: Vec::new(), body: fault.detail },
    };
    reply.headers.extend(fault.retry_after.map(|value| ("Retry-After", value)));
    reply
}

fn answer(path: &str, payload: &Value, keys: &Keys, state: &mut State) -> Result<Reply> {
    let url = state.url.clone();
    let order = |state: &State, status: &str| {
        let mut order = json!({
            "status": status,
            "identifiers": [{ "type": "dns", "value": state.domain }],
            "authorizations": [format!("{url}/authorization")],
            "finalize": format!("{url}/finalize"),
        });
        if status == "valid" {
            order["certificate"] = json!(format!("{url}/certificate"));
        }
        if let Some(replaces) = &state.replaces {
            order["replaces"] = json!(replaces);
        }
        order
    };
    Ok(match path {
        "/directory" => {
            let mut directory = json!({
                "newNonce": format!("{url}/nonce"),
                "newAccount": format!("{url}/account"),
                "newOrder": format!("{url}/order"),
                "meta": { "caaIdentities": state.identities },
            });
            if state.renewal.is_some() {
                directory["renewalInfo"] = json!(format!("{url}/renewal"));
            }
            Reply::json(200, &directory)
        }
        "/nonce" => Reply::json(200, &Value::Null),
        "/account" | "/account/1" => {
            Reply::json(201, &json!({ "status": "valid" })).at(format!("{url}/account/1"))
        }
        "/order" => {
            payload["identifiers"][0]["value"].as_str().unwrap_or_default().clone_into(&mut state.domain);
            state.replaces = payload["replaces"].as_str().map(str::to_owned);
            state.chain = None;
            Reply::json(201, &order(state, "ready")).at(format!("{url}/order/1"))
        }
        "/order/1" => {
            let status = if state.chain.is_some() { "valid" } else { "ready" };
            Reply::json(200, &order(state, status)).at(format!("{url}/order/1"))
        }
        "/authorization" => Reply::json(
            200,
            &json!({
                "status": "valid", "identifier": { "type": "dns", "value": state.domain }, "challenges": [],
            }),
        ),
        "/finalize" => {
            let request = payload["csr"].as_str().and_then(base64url).context("a request to sign")?;
            state.chain = Some(sign(&request, &state.domain, keys)?);
            Reply::json(200, &order(state, "valid")).at(format!("{url}/order/1"))
        }
        "/certificate" => {
            let body = state.chain.clone().unwrap_or_default();
            Reply { status: 200, kind: "application/pem-certificate-chain", headers: Vec::new(), body }
        }
        _ => match &state.renewal {
            Some((start, end)) if path.starts_with("/renewal/") => {
                let body = json!({
                    "suggestedWindow": { "start": start, "end": end }, "explanationURL": "https://stub.example/why",
                });
                let mut reply = Reply::json(200, &body);
                reply.headers.push(("Retry-After", "3600".to_owned()));
                reply
            }
            _ => Reply::json(404, &json!({ "type": "urn:ietf:params:acme:error:malformed", "detail": path })),
        },
    })
}

/// The public key of a request for a signature: a P-256 point.
struct PublicKey(Vec<u8>);

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

fn sign(request: &[u8], domain: &str, keys: &Keys) -> Result<String> {
    let (_, request) = X509CertificationRequest::from_der(request).context("reading the request to sign")?;
    let point = &request.certification_request_info.subject_pki.subject_public_key.data;
    let mut parameters = CertificateParams::new([domain.to_owned()])?;
    parameters.use_authority_key_identifier_extension = true;
    let certificate = parameters.signed_by(&PublicKey(point.to_vec()), &keys.issuer)?;
    Ok(certificate.pem())
}

/// Base64url without padding; `None` for anything else.
fn base64url(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == byte)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(bytes)
}
