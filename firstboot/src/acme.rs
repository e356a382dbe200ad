//! One order of a certificate over ACME (RFC 8555), proven by http-01, tls-alpn-01 or dns-01.
//!
//! The account's key is on the disk before its first use, so a cut never makes a second account. Before the authority is asked
//! to look, the answer to its challenge has been fetched from our own web server: a mistake of ours costs nothing of the
//! authority's limits. Order and key are on the disk before a signature is asked for, so that a cut or a full disk after it does
//! not cost another certificate: the next call fetches the one that was signed. The only asynchronous code of the appliance lives
//! here: an order on one thread, the socket of tls-alpn-01 on another.

mod answer;
mod client;
mod directory;
mod proof;
mod record;
mod tls_alpn;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fs_err as fs;
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, Identifier, Key, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::client::{Client, Pause};
use self::proof::Held;
use crate::durable;
use crate::tls::certificate::Certificate;

pub use answer::{Answer, CHALLENGES};
pub use directory::{Directory, Window, look, renewal};
pub use proof::Proof;
pub use tls_alpn::{Divert, Gate, Standing};

/// How long a whole order may take.
const LIMIT: Duration = Duration::from_secs(300);
/// The same where a zone's servers have to take a record first.
const LIMIT_WITH_DNS: Duration = Duration::from_secs(900);

/// How long the authority may take to look at a challenge, and to sign.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));

/// How often an order is begun when the authority wants fresher nonces.
const ATTEMPTS: u32 = 4;

/// The order that is being signed, in the folder of account keys.
const PENDING: &str = "order.json";

/// An order whose signature has been, or is about to be, asked for.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Pending {
    schema: u32,
    directory: String,
    domain: String,
    /// The order's URL.
    order: String,
    /// The private key (PEM) that the certificate will belong to.
    key: String,
}

/// What to order, and from whom.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// URL of the directory.
    pub directory: &'a str,
    /// Trust anchors (PEM) of the directory's own HTTPS; the machine's own without.
    pub ca: Option<&'a str>,
    /// Where the authority writes to.
    pub email: Option<&'a str>,
    /// The one name of the certificate.
    pub domain: &'a str,
    /// Folder of account keys, 0700.
    pub accounts: &'a Path,
    /// How the name is proven.
    pub proof: &'a Proof,
    /// The certificate that this one takes the place of, by its [`renewal_id`](Certificate::renewal_id); only for an authority that
    /// gives renewal information.
    pub replaces: Option<&'a str>,
}

/// A signed certificate.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The chain, leaf first, as PEM.
    pub chain: String,
    /// The leaf's private key, as PEM.
    pub key: String,
}

/// Why an order came to nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failure {
    /// The cause, in the authority's own words when it has spoken.
    pub text: String,
    /// The authority refused or has been asked to look, which counts against its limits; else it was never asked.
    pub is_refusal: bool,
    /// The last word of the authority's type of refusal, such as `rateLimited`.
    pub kind: Option<String>,
    /// How long the authority wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Our own clock is in the way.
    pub is_clock: bool,
}

impl Failure {
    /// An error that the authority has not counted.
    fn of(error: &anyhow::Error) -> Failure {
        Failure { text: format!("{error:#}"), ..Failure::default() }
    }
}

/// What is learnt on the way, for the case that it ends early.
#[derive(Debug, Default)]
struct Progress {
    pause: Pause,
    was_looked_at: AtomicBool,
}

impl Progress {
    /// From here on the authority works for us, so whatever fails counts against its limits.
    fn costs(&self) {
        self.was_looked_at.store(true, Ordering::SeqCst);
    }
}

/// Orders a certificate, or fetches the one of an order that a cut has left behind. Agreement to the authority's terms is the
/// caller's to have. The order is remembered until [`forget`].
pub fn order(request: &Request<'_>) -> Result<Issued, Failure> {
    let progress = Progress::default();
    run(request, &progress).map_err(|error| {
        let refusal = problem(&error);
        Failure {
            text: refusal.map_or_else(|| format!("{error:#}"), said),
            is_refusal: refusal.is_some() || progress.was_looked_at.load(Ordering::SeqCst),
            kind: refusal.and_then(kind).map(str::to_owned),
            retry_after: progress.pause.get(),
            is_clock: false,
        }
    })
}

/// Whether an order for this name from this directory was about to be signed and is remembered.
pub fn is_pending(accounts: &Path, directory: &str, domain: &str) -> bool {
    remembered(accounts).is_some_and(|pending| pending.directory == directory && pending.domain == domain)
}

/// Whether an order is remembered at all; what it says is another question.
pub fn is_remembered(accounts: &Path) -> bool {
    accounts.join(PENDING).is_file()
}

fn remembered(accounts: &Path) -> Option<Pending> {
    let text = fs::read(accounts.join(PENDING)).ok()?;
    serde_json::from_slice(&text).ok().filter(|pending: &Pending| pending.schema == 1)
}

/// Forgets the order that was signed last: its certificate is where it belongs.
pub fn forget(accounts: &Path) -> Result<()> {
    if is_remembered(accounts) { durable::remove(&accounts.join(PENDING)) } else { Ok(()) }
}

/// The authority's refusal in a chain of causes.
fn problem(error: &anyhow::Error) -> Option<&instant_acme::Problem> {
    error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(instant_acme::Error::Api(problem)) => Some(problem),
        _ => None,
    })
}

/// The last word of a refusal's type, such as `rateLimited`.
fn kind(problem: &instant_acme::Problem) -> Option<&str> {
    problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next())
}

/// The authority's own sentence and the last word of its type, such as `rateLimited`.
fn said(problem: &instant_acme::Problem) -> String {
    let kind = kind(problem).unwrap_or("no type given");
    let detail = problem.detail.as_deref().unwrap_or("no detail given");
    let parts = problem.subproblems.iter().filter_map(|part| part.detail.as_deref());
    let details = std::iter::once(detail).chain(parts).collect::<Vec<_>>().join("; ");
    format!("the certificate authority says: {details} ({kind})")
}

fn run(request: &Request<'_>, progress: &Progress) -> Result<Issued> {
    let attempts = async {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            match exchange(request, Client::new(request.ca, &progress.pause)?, progress).await {
                Err(error) if left > 0 && is_bad_nonce(&error) => {}
                result => return result,
            }
        }
    };
    let limit = if matches!(request.proof, Proof::Dns { .. }) { LIMIT_WITH_DNS } else { LIMIT };
    let issued = client::block(limit, request.directory, attempts)?;
    let certificate =
        Certificate::from_chain(&issued.chain).context("reading the certificate that was signed")?;
    if !certificate.is_for(request.domain) || !certificate.belongs_to(&issued.key) {
        forget(request.accounts)?;
        bail!("`{}` signed a certificate for another name or key", request.directory);
    }
    Ok(issued)
}

/// Whether the authority wanted a fresher nonce than the client found in its own few attempts: no refusal, so it is tried again. The
/// account is found again, and so is an order that was about to be signed; one that was not costs no certificate.
fn is_bad_nonce(error: &anyhow::Error) -> bool {
    problem(error).and_then(kind) == Some("badNonce")
}

async fn exchange(request: &Request<'_>, client: Client, progress: &Progress) -> Result<Issued> {
    let account = account(request, client).await?;
    let (mut order, key) = match resumed(request, &account).await? {
        Some(resumed) => resumed,
        None => placed(request, &account, progress).await?,
    };
    if order.state().status == OrderStatus::Ready {
        let mut parameters =
            CertificateParams::new([request.domain.to_owned()]).context("naming the certificate")?;
        parameters.distinguished_name = DistinguishedName::new();
        let signing_request = parameters.serialize_request(&key).context("writing the signing request")?;
        progress.costs();
        order.finalize_csr(signing_request.der()).await.context("asking for the signature")?;
    }
    let chain = order.poll_certificate(&PATIENCE).await.context("waiting for the signature")?;
    Ok(Issued { chain, key: key.serialize_pem() })
}

/// A new order, ready to be signed and remembered on the disk.
async fn placed(request: &Request<'_>, account: &Account, progress: &Progress) -> Result<(Order, KeyPair)> {
    let names = [Identifier::Dns(request.domain.to_owned())];
    let wanted = NewOrder::new(&names);
    let mut order = match replaces(request) {
        // It may have been renewed already, or by another account: then it is an order like any other.
        Some(id) => match account.new_order(&NewOrder::new(&names).replaces(id)).await {
            Err(instant_acme::Error::Api(problem)) if is_about_limits(&problem) => {
                Err(instant_acme::Error::Api(problem))
            }
            Err(_) => account.new_order(&wanted).await,
            Ok(order) => Ok(order),
        },
        None => account.new_order(&wanted).await,
    }
    .context("placing an order")?;
    // Held until the order is ready, so that the answers lie there as long as anybody may look.
    let _answers = answer(request, &mut order, progress).await?;
    match order.poll_ready(&PATIENCE).await {
        Ok(OrderStatus::Ready) => {}
        result => {
            // The order only says that it is invalid; why, stands in the challenge.
            refusal(&mut order).await?;
            let status = result.context("waiting for the authority to look")?;
            bail!("the order became {status:?}");
        }
    }
    let key = KeyPair::generate().context("making a key")?;
    let pending = Pending {
        schema: 1,
        directory: request.directory.to_owned(),
        domain: request.domain.to_owned(),
        order: order.url().to_owned(),
        key: key.serialize_pem(),
    };
    let text = serde_json::to_vec_pretty(&pending).context("writing down the order")?;
    durable::write(&request.accounts.join(PENDING), &text, 0o600, None)?;
    Ok((order, key))
}

fn replaces<'a>(request: &Request<'a>) -> Option<CertificateIdentifier<'a>> {
    let (authority, serial) = request.replaces?.split_once('.')?;
    Some(CertificateIdentifier { authority_key_identifier: authority.into(), serial: serial.into() })
}

/// Whether another try at once would only make it worse.
fn is_about_limits(problem: &instant_acme::Problem) -> bool {
    matches!(kind(problem), Some("rateLimited" | "badNonce"))
        || problem.status.is_some_and(|status| status >= 500)
}

/// The order that a cut has left behind; `None` when there is none, or none that still leads to a certificate.
async fn resumed(request: &Request<'_>, account: &Account) -> Result<Option<(Order, KeyPair)>> {
    let pending = remembered(request.accounts)
        .filter(|pending| pending.directory == request.directory && pending.domain == request.domain);
    let key = pending.as_ref().and_then(|pending| KeyPair::from_pem(&pending.key).ok());
    if let (Some(pending), Some(key)) = (pending, key) {
        match account.order(pending.order).await {
            Ok(mut order) => match order.state().status {
                OrderStatus::Ready | OrderStatus::Processing | OrderStatus::Valid => {
                    return Ok(Some((order, key)));
                }
                OrderStatus::Pending | OrderStatus::Invalid => {}
            },
            // The authority does not know it, or no longer.
            Err(instant_acme::Error::Api(problem)) if problem.status.is_some_and(is_final) => {}
            Err(error) => return Err(error).context("asking for the order that was not finished"),
        }
    }
    forget(request.accounts)?;
    Ok(None)
}

/// Whether the authority will say the same for ever: not a refused nonce (400), nor that it is busy or broken.
fn is_final(status: u16) -> bool {
    matches!(status, 401 | 403 | 404 | 410)
}

/// The account that belongs to our key; the authority makes it at the first time and finds it again after that.
async fn account(request: &Request<'_>, client: Client) -> Result<Account> {
    let digest = URL_SAFE_NO_PAD.encode(&Sha256::digest(request.directory.as_bytes())[..9]);
    let path = request.accounts.join(format!("account-{digest}.der"));
    if path.symlink_metadata().is_err() {
        let (_, pkcs8) = Key::generate_pkcs8().context("making the account's key")?;
        durable::write(&path, pkcs8.secret_pkcs8_der(), 0o600, None)?;
    }
    let pkcs8 = fs::read(&path)?;
    let key = Key::from_pkcs8_der(PrivatePkcs8KeyDer::from(pkcs8.as_slice())).with_context(|| {
        format!(
            "reading `{}`: the account's key is damaged; remove the file, and a new account is made",
            path.display()
        )
    })?;
    let pair = (key, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8)));
    let (account, _credentials) = Account::builder_with_http(Box::new(client))
        .create_from_key(pair, request.directory.to_owned())
        .await
        .with_context(|| format!("asking `{}` for our account", request.directory))?;

    let contact = path.with_extension("contact");
    let wanted = request.email.unwrap_or_default();
    let known = fs::read_to_string(&contact).unwrap_or_default();
    if known != wanted {
        let address = format!("mailto:{wanted}");
        let addresses: &[&str] = if wanted.is_empty() { &[] } else { &[&address] };
        account.update_contacts(addresses).await.context("telling the authority our mail address")?;
        durable::write(&contact, wanted.as_bytes(), 0o600, None)?;
    }
    Ok(account)
}

/// Puts the answer to every open challenge where it belongs, sees it there, and tells the authority to look.
async fn answer<'a>(request: &Request<'a>, order: &mut Order, progress: &Progress) -> Result<Vec<Held<'a>>> {
    let mut held = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.context("reading what the authority wants to see")?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            status => bail!("the authority's wish is {status:?} before we could answer"),
        }
        let mut challenge = authorization
            .challenge(request.proof.kind())
            .with_context(|| format!("the authority offers no {} challenge", request.proof.method()))?;
        held.push(request.proof.put(request.domain, &challenge)?);
        progress.costs();
        challenge.set_ready().await.context("telling the authority to look")?;
    }
    Ok(held)
}

/// The error of the first challenge that has one.
async fn refusal(order: &mut Order) -> Result<()> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let state = authorization.refresh().await?;
        if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.clone()) {
            return Err(instant_acme::Error::Api(problem).into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::said;

    #[test]
    fn the_authoritys_sentence_is_kept() {
        let problem = serde_json::from_str(
            r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many certificates", "status": 429}"#,
        );
        assert_eq!(
            said(&problem.unwrap()),
            "the certificate authority says: too many certificates (rateLimited)"
        );
        let empty = serde_json::from_str("{}").unwrap();
        assert_eq!(said(&empty), "the certificate authority says: no detail given (no type given)");
    }
}
