//! The way to a certificate from an authority, with everything looked at beforehand that can be looked at.
//!
//! DNS, then the authority's directory (and with it our clock), CAA, the port that it will look at, what was already asked for; only then an order, and
//! before the first one in these circumstances a rehearsal where the authority has a place for it. Whatever stands in the way
//! before the order costs nothing and is looked at again within a minute.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use fs_err as fs;

use super::attempts::Attempts;
use super::ledger::{Ledger, What};
use super::preflight::{self, Question, look};
use crate::acme::{self, Failure, Gate, Issued, Proof};
use crate::context::Context;
use crate::settings::{Challenge, Directory, Listen, Preflight, Settings};
use crate::steps::firewall::Diversion;
use crate::steps::{network, nginx};
use crate::tls::moment::Moment;
use crate::{dns, durable};

/// The port of name servers.
const DNS: u16 = 53;

/// Where the fingerprint of the last successful rehearsal is.
const REHEARSED: &str = "rehearsed";

/// What to order, and how this machine is reached. In the machine it follows from the settings; a test has other ports.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Folder of accounts and of what is remembered, 0700.
    pub folder: PathBuf,
    /// How the name is proven.
    pub proof: Proof,
    /// The one name of the certificate.
    pub domain: String,
    /// URL of the directory.
    pub directory: String,
    /// URL of the directory of the rehearsal.
    pub rehearsal: Option<String>,
    /// Trust anchors (PEM) of both directories; the machine's own without.
    pub ca: Option<String>,
    /// Where the authority writes to.
    pub email: Option<String>,
    /// How strict to be.
    pub preflight: Preflight,
    /// The families that the web server answers on.
    pub listen: Listen,
    /// This machine's addresses, those that it shall be known by first.
    pub own: Vec<IpAddr>,
    /// Its resolvers.
    pub resolvers: Vec<SocketAddr>,
    /// The port of a zone's servers.
    pub zone_port: u16,
    /// The certificate that is renewed, by its [`renewal_id`](crate::tls::certificate::Certificate::renewal_id), when the authority wants
    /// that.
    pub replaces: Option<String>,
}

impl Plan {
    /// The plan of a machine.
    pub fn of(context: &Context) -> Result<Plan> {
        let settings = context.settings()?;
        let own = network::global_addresses();
        let stated: Vec<IpAddr> = {
            let ipv6 = settings.network.ipv6.addresses.iter().map(|wanted| IpAddr::from(wanted.address));
            let ipv4 = settings.network.ipv4.addresses.iter().map(|wanted| IpAddr::from(wanted.address));
            ipv6.chain(ipv4).filter(|ip| own.contains(ip)).collect()
        };
        let others = own.into_iter().filter(|ip| !stated.contains(ip));
        let own = stated.iter().copied().chain(others).collect();
        let resolv_conf = fs::read_to_string(context.path("/etc/resolv.conf")).unwrap_or_default();
        let index = |interface: &str| {
            if interface.contains('/') {
                return None;
            }
            let path = context.path(&format!("/sys/class/net/{interface}/ifindex"));
            fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        let resolvers = dns::resolvers(&resolv_conf, index);
        Ok(Plan {
            folder: folder(context),
            proof: proof(context, settings, &resolvers)?,
            domain: settings.site().to_string(),
            directory: settings.acme.directory.url().to_owned(),
            rehearsal: settings.acme.directory.rehearsal().map(str::to_owned),
            ca: settings.acme.ca.clone(),
            email: settings.acme.email.clone(),
            preflight: settings.tls.preflight,
            listen: settings.web.listen,
            own,
            resolvers,
            zone_port: DNS,
            replaces: None,
        })
    }

    fn wish(&self) -> String {
        wish(&self.domain, &self.directory)
    }

    fn question(&self) -> Question<'_> {
        Question { domain: &self.domain, listen: self.listen, own: &self.own }
    }

    /// What DNS says; nothing when nobody wants to know.
    fn look(&self) -> Option<look::Seen> {
        (self.preflight != Preflight::Off).then(|| look::look(&self.domain, &self.resolvers, self.zone_port))
    }

    /// What an authority would meet, in a few bytes: when this changes, a refusal means nothing any more. `None` when nobody answers.
    fn view(&self, seen: Option<&look::Seen>) -> Option<String> {
        let method = self.proof.method();
        match seen {
            None => Some(method.to_owned()),
            Some(seen) => {
                preflight::fingerprint(&self.question(), seen).map(|view| format!("{method} {view}"))
            }
        }
    }

    fn request<'a>(&'a self, directory: &'a str) -> acme::Request<'a> {
        acme::Request {
            directory,
            ca: self.ca.as_deref(),
            email: self.email.as_deref(),
            domain: &self.domain,
            accounts: &self.folder,
            proof: &self.proof,
            replaces: None,
        }
    }

    /// Why nobody is asked now; `None` when an order may be placed.
    pub fn waits(&self, now: &Moment) -> Option<String> {
        let wish = self.wish();
        if let Some(attempts) = Attempts::read(&self.folder, &wish)
            && attempts.left(now).is_some()
        {
            let is_free = attempts.asked_left(now).is_none();
            if !(is_free && self.view(self.look().as_ref()).is_some_and(|view| attempts.is_news(&view))) {
                return Some(attempts.sentence(now));
            }
        }
        self.limit(&Ledger::read(&self.folder), now)
    }

    fn limit(&self, ledger: &Ledger, now: &Moment) -> Option<String> {
        let has_limits = self.directory != Directory::Staging.url();
        // What a cut has left behind is signed already, or as good as signed.
        let is_new = !acme::is_pending(&self.folder, &self.directory, &self.domain);
        ledger.refusal(&self.wish(), self.replaces.is_some(), now).filter(|_| has_limits && is_new)
    }

    /// Brings a certificate, or says what stands in the way and when that is looked at again.
    pub fn obtain(&self, now: &Moment) -> Result<Issued> {
        durable::private_folder(&self.folder)?;
        self.proof.sweep()?;
        let start = Instant::now();
        let mut notes = Vec::new();
        let seen = self.look();
        // Where DNS is the proof, nobody has to find this machine.
        let targets = match &seen {
            Some(seen) if self.proof.port().is_some() => {
                self.checked(preflight::targets(&self.question(), seen), &mut notes)?
            }
            _ => Vec::new(),
        };
        let view = self.view(seen.as_ref());
        let directory = match acme::look(&self.directory, self.ca.as_deref()) {
            Ok(directory) => directory,
            Err(failure) if failure.is_clock => bail!("{}; {SOON}", failure.text),
            Err(failure) => return Err(self.fail(&failure, view.as_deref(), &notes, now)),
        };
        if let Some(seen) = &seen {
            let caa = preflight::caa(&self.domain, &directory.identities, self.proof.method(), seen);
            self.checked(caa, &mut notes)?;
            let reached = preflight::reach(&self.domain, &targets, &self.proof);
            let warning = self.checked(reached, &mut notes)?;
            notes.extend(warning);
        }
        // The authority has confirmed the clock, so what lies in the future was written down by one that was wrong.
        let wish = self.wish();
        if let Some(attempts) =
            Attempts::read(&self.folder, &wish).filter(|attempts| attempts.is_of_the_future(now))
        {
            let attempts = attempts.moved(now);
            attempts.write(&self.folder)?;
            bail!(attempts.sentence(now));
        }
        let ledger = Ledger::read(&self.folder).moved(&self.folder, now)?;
        if let Some(text) = self.limit(&ledger, now) {
            bail!(text);
        }
        // Overwritten or removed below, unless something comes between.
        let unfinished =
            Failure { text: "the last order did not come to its end".to_owned(), ..Failure::default() };
        let previous = Attempts::read(&self.folder, &wish);
        Attempts::after(previous.as_ref(), &wish, &unfinished, view.as_deref(), now).write(&self.folder)?;
        let result = self.rehearse(view.as_deref(), &mut notes).and_then(|()| {
            let ledger = ledger.begin(&self.folder, &wish, now).map_err(|error| local(&error))?;
            let replaces = self.replaces.as_deref().filter(|_| directory.renewal_info.is_some());
            let result = acme::order(&acme::Request { replaces, ..self.request(&self.directory) });
            let what = match &result {
                Ok(_) if replaces.is_some() => Some(What::Renewal),
                Ok(_) => Some(What::Certificate),
                Err(failure) => failure.is_refusal.then_some(What::Failure),
            };
            ledger.end(&self.folder, what).map_err(|error| local(&error))?;
            result
        });
        // What was written down beforehand is not a failure of its own.
        match previous {
            Some(previous) => previous.write(&self.folder)?,
            None => Attempts::remove(&self.folder)?,
        }
        let now = now.plus(start.elapsed());
        result.map_err(|failure| self.fail(&failure, view.as_deref(), &notes, &now))
    }

    /// See [`settle`].
    pub fn settle(&self) -> Result<()> {
        settle(&self.folder)
    }

    /// With `strict`, what is wrong ends the attempt before it costs anything; with `warn` it is kept for the case that the authority
    /// finds it too.
    fn checked<T: Default>(&self, result: Result<T, String>, notes: &mut Vec<String>) -> Result<T> {
        match result {
            Ok(value) => Ok(value),
            Err(problem) if self.preflight == Preflight::Strict => bail!("{problem}; {SOON}"),
            Err(problem) => {
                notes.push(problem);
                Ok(T::default())
            }
        }
    }

    /// An order where nobody counts, once in these circumstances. A rehearsal that cannot be reached rehearses nothing, but is no
    /// obstacle.
    fn rehearse(&self, view: Option<&str>, notes: &mut Vec<String>) -> Result<(), Failure> {
        let Some(directory) = &self.rehearsal else { return Ok(()) };
        let path = self.folder.join(REHEARSED);
        let circumstances = format!("{} {}\n", self.wish(), view.unwrap_or("unknown"));
        let is_known = fs::read_to_string(&path).is_ok_and(|known| known == circumstances);
        if is_known || acme::is_pending(&self.folder, &self.directory, &self.domain) {
            return Ok(());
        }
        match acme::order(&self.request(directory)) {
            Ok(_) => acme::forget(&self.folder)
                .and_then(|()| durable::write(&path, circumstances.as_bytes(), 0o600, None))
                .map(drop)
                .map_err(|error| local(&error)),
            Err(failure) if failure.is_refusal => {
                Err(Failure { text: format!("in the rehearsal {}", failure.text), ..failure })
            }
            Err(failure) => {
                notes.push(format!("there was no rehearsal: {}", failure.text));
                Ok(())
            }
        }
    }

    /// Writes a failure down; the error is the whole sentence.
    fn fail(&self, failure: &Failure, view: Option<&str>, notes: &[String], now: &Moment) -> anyhow::Error {
        let mut text = failure.text.clone();
        if let Some(remedy) = remedy(failure, &self.proof) {
            text.push_str(&format!("; {remedy}"));
        }
        for note in notes {
            text.push_str(&format!("; seen beforehand: {note}"));
        }
        let wish = self.wish();
        let previous = Attempts::read(&self.folder, &wish);
        let failure = Failure { text, ..failure.clone() };
        let attempts = Attempts::after(previous.as_ref(), &wish, &failure, view, now);
        match attempts.write(&self.folder) {
            Ok(()) => anyhow!(attempts.sentence(now)),
            Err(error) => error.context(failure.text),
        }
    }
}

/// When something is looked at again that stands in the way before an order.
const SOON: &str = "it is looked at again within a minute";

fn local(error: &anyhow::Error) -> Failure {
    Failure { text: format!("{error:#}"), ..Failure::default() }
}

/// What the operator can do about a refusal; nothing when the authority's own sentence says it.
fn remedy(failure: &Failure, proof: &Proof) -> Option<String> {
    // Let's Encrypt's word for a name with IPv6 alone that it cannot reach there.
    let is_unreachable = failure.text.contains("no IPv4 addresses to try");
    let kind = failure.kind.as_deref().map(|kind| if is_unreachable { "connection" } else { kind });
    let remedy = match (kind, proof.port()) {
        (Some("connection"), Some(port)) => {
            return Some(format!(
                "let the world reach port {port} of this machine: open it in every firewall and lead it here on the router"
            ));
        }
        (Some("unauthorized" | "tls"), Some(port)) => {
            return Some(format!(
                "port {port} of the name leads to another server: let its records, and the router's port {port}, lead to this machine"
            ));
        }
        (Some("connection" | "unauthorized" | "dns"), _) => {
            "mend the name's DNS: this machine and the authority do not see the same"
        }
        (Some("caa"), _) => "change the name's CAA record",
        (Some("rejectedIdentifier"), _) => {
            "the authority does not sign for this name: choose another `acme.directory`"
        }
        (Some("rateLimited"), _) => "its limits end with time alone",
        (Some("badNonce" | "serverInternal"), _) => {
            "the trouble is the authority's own, so nothing is to be done here"
        }
        (Some("externalAccountRequired"), _) => {
            "it wants an account that was made elsewhere, so choose another `acme.directory`"
        }
        (Some(_), _) => return None,
        (None, _) if failure.is_refusal => return None,
        (None, _) => "let this machine reach the authority over HTTPS, or check `acme.directory`",
    };
    Some(remedy.to_owned())
}

/// The certificate is in force: nothing of the way to it is needed any more.
pub(super) fn settle(folder: &Path) -> Result<()> {
    acme::forget(folder)?;
    Attempts::remove(folder)
}

/// How this machine proves its name.
fn proof(context: &Context, settings: &Settings, resolvers: &[SocketAddr]) -> Result<Proof> {
    let listen = settings.web.listen;
    Ok(match settings.tls.challenge {
        Challenge::Http01 => {
            Proof::Http { webroot: context.path(nginx::WEBROOT), server: nginx::loopback(listen, 80) }
        }
        Challenge::TlsAlpn01 => Proof::TlsAlpn(Gate {
            listen: nginx::anywhere(listen),
            front: nginx::loopback(listen, 443),
            web: nginx::INNER,
            diversion: Some(Arc::new(Diversion::new(context.facts.system.firewall, listen, &context.root))),
        }),
        Challenge::Dns01 => Proof::Dns {
            hook: settings.tls.dns_hook.as_ref().map(PathBuf::from).context("`dns-hook` is not set")?,
            resolvers: resolvers.to_vec(),
            zone_port: DNS,
        },
    })
}

/// What failures and limits are counted for.
pub(super) fn wish(domain: &str, directory: &str) -> String {
    format!("{domain} from {directory}")
}

/// Folder of accounts and of what is remembered.
pub(super) fn folder(context: &Context) -> PathBuf {
    context.state().join("acme")
}
