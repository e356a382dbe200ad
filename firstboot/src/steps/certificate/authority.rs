//! `tls.mode = "acme"`: a certificate from an authority, with everything looked at beforehand that can be looked at.
//!
//! DNS, then the authority's directory (and with it our clock), CAA, port 80, what was already asked for; only then an order, and
//! before the first one in these circumstances a rehearsal where the authority has a place for it. Whatever stands in the way
//! before the order costs nothing and is looked at again within a minute.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use fs_err as fs;

use super::attempts::Attempts;
use super::ledger::{Ledger, What};
use super::preflight::{self, Question, look};
use super::renewal;
use crate::acme::{self, Failure, Issued};
use crate::context::Context;
use crate::engine::Observation;
use crate::settings::{Directory, Listen, Preflight};
use crate::steps::{network, nginx};
use crate::tls::moment::{Moment, minute};
use crate::tls::store;
use crate::{dns, durable};

/// Where the fingerprint of the last successful rehearsal is.
const REHEARSED: &str = "rehearsed";

/// What to order, and how this machine is reached. In the machine it follows from the settings; a test has other ports.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Folder of accounts and of what is remembered, 0700.
    pub folder: PathBuf,
    /// Folder that port 80 serves below `/.well-known/acme-challenge/`.
    pub webroot: PathBuf,
    /// Our own web server, and the port by which the name leads to it.
    pub server: SocketAddr,
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
        Ok(Plan {
            folder: folder(context),
            webroot: context.path(nginx::WEBROOT),
            server: nginx::loopback(settings.web.listen, 80),
            domain: settings.domain.to_string(),
            directory: settings.acme.directory.url().to_owned(),
            rehearsal: settings.acme.directory.rehearsal().map(str::to_owned),
            ca: settings.acme.ca.clone(),
            email: settings.acme.email.clone(),
            preflight: settings.tls.preflight,
            listen: settings.web.listen,
            own,
            resolvers: dns::resolvers(&resolv_conf, index),
            zone_port: 53,
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

    fn request<'a>(&'a self, directory: &'a str) -> acme::Request<'a> {
        acme::Request {
            directory,
            ca: self.ca.as_deref(),
            email: self.email.as_deref(),
            domain: &self.domain,
            accounts: &self.folder,
            webroot: &self.webroot,
            server: self.server,
            replaces: None,
        }
    }

    /// Why nobody is asked now; `None` when an order may be placed.
    pub fn waits(&self, now: &Moment) -> Option<String> {
        let wish = self.wish();
        if let Some(attempts) = Attempts::read(&self.folder, &wish)
            && attempts.left(now).is_some()
        {
            let view = || preflight::fingerprint(&self.question(), &self.look()?);
            let is_free = attempts.asked_left(now).is_none();
            if !(is_free && view().is_some_and(|view| attempts.is_news(&view))) {
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
        let start = Instant::now();
        let mut notes = Vec::new();
        let seen = self.look();
        let targets = match &seen {
            Some(seen) => self.checked(preflight::targets(&self.question(), seen), &mut notes)?,
            None => Vec::new(),
        };
        let view = seen.as_ref().and_then(|seen| preflight::fingerprint(&self.question(), seen));
        let directory = match acme::look(&self.directory, self.ca.as_deref()) {
            Ok(directory) => directory,
            Err(failure) if failure.is_clock => bail!("{}; {SOON}", failure.text),
            Err(failure) => return Err(self.fail(&failure, view.as_deref(), &notes, now)),
        };
        if let Some(seen) = &seen {
            self.checked(preflight::caa(&self.domain, &directory.identities, seen), &mut notes)?;
            let fetched = preflight::fetch(&self.domain, &targets, &self.webroot, self.server.port());
            notes.extend(self.checked(fetched, &mut Vec::new())?);
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

    /// The certificate is in force: nothing of the way to it is needed any more.
    pub fn settle(&self) -> Result<()> {
        acme::forget(&self.folder)?;
        Attempts::remove(&self.folder)
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
        if let Some(remedy) = remedy(failure) {
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
fn remedy(failure: &Failure) -> Option<&'static str> {
    Some(match failure.kind.as_deref() {
        Some("connection") => {
            "let the world reach port 80 of this machine: open it in every firewall and lead it here on the router"
        }
        Some("unauthorized") => {
            "port 80 of the name leads to another web server: let its records, and the router's port 80, lead to this machine"
        }
        Some("dns") => "mend the name's DNS: this machine and the authority do not see the same",
        Some("caa") => "change the name's CAA record",
        Some("rejectedIdentifier") => {
            "the authority does not sign for this name: choose another `acme.directory`"
        }
        Some("rateLimited") => "its limits end with time alone",
        Some("badNonce" | "serverInternal") => {
            "the trouble is the authority's own, so nothing is to be done here"
        }
        Some("externalAccountRequired") => {
            "it wants an account that was made elsewhere, so choose another `acme.directory`"
        }
        Some(_) => return None,
        None if failure.is_refusal => return None,
        None => "let this machine reach the authority over HTTPS, or check `acme.directory`",
    })
}

fn wish(domain: &str, directory: &str) -> String {
    format!("{domain} from {directory}")
}

/// Folder of accounts and of what is remembered.
pub(super) fn folder(context: &Context) -> PathBuf {
    context.state().join("acme")
}

/// What the certificate in force leaves to be done.
enum Need {
    Nothing,
    /// An order; why.
    Order(String),
    /// The right time; another order would bring a certificate that begins no earlier.
    Time(String),
}

fn need(context: &Context, now: &Moment) -> Result<Need> {
    let settings = context.settings()?;
    let directory = settings.acme.directory.url();
    Ok(match store::load(context, settings.domain.as_str()) {
        Ok(pair) if pair.source != directory => Need::Order(format!("no certificate from `{directory}` yet")),
        Ok(pair) if now.wall < pair.certificate.not_before => Need::Time(format!(
            "for the time: the clock is behind, because it says {} and the certificate is valid from {}; set the hypervisor's \
             clock or let this machine reach a time server",
            minute(now.wall),
            minute(pair.certificate.not_before)
        )),
        Ok(pair) => match renewal::reason(&folder(context), &pair.certificate, now) {
            Some(reason) => Need::Order(reason),
            None => Need::Nothing,
        },
        Err(error) => Need::Order(format!("{error:#}")),
    })
}

/// See [`crate::engine::Step::observe`].
pub(super) fn observe(context: &Context) -> Result<Observation> {
    let now = Moment::now(&context.root)?;
    Ok(match need(context, &now)? {
        Need::Time(text) => Observation::Waiting(text),
        Need::Order(reason) => match plan(context)?.waits(&now) {
            Some(text) => Observation::Waiting(format!("{text}{}", meanwhile(context, &now))),
            None => Observation::Todo(reason),
        },
        Need::Nothing => {
            let pair = store::load(context, context.settings()?.domain.as_str())?;
            if renewal::is_question_due(&folder(context), &pair.certificate, &now) {
                Observation::Todo("ask the authority when it wants the certificate renewed".to_owned())
            } else {
                Observation::Done
            }
        }
    })
}

/// See [`crate::engine::Step::apply`].
pub(super) fn apply(context: &Context) -> Result<()> {
    let settings = context.settings()?;
    let now = Moment::now(&context.root)?;
    let (folder, domain) = (folder(context), settings.domain.as_str());
    durable::private_folder(&folder)?;
    let directory = settings.acme.directory.url();
    let in_force = store::load(context, domain).ok().filter(|pair| pair.source == directory);
    match (need(context, &now)?, &in_force) {
        (Need::Nothing, Some(pair)) => {
            return renewal::ask(&folder, &pair.certificate, directory, settings.acme.ca.as_deref(), &now);
        }
        // A change of the settings and back, or a lost link, must not cost another one.
        (_, None) if store::reuse(context, domain, directory, now.wall)? => return nginx::take(context),
        _ => {}
    }
    let plan = plan(context)?;
    let issued = plan.obtain(&now).map_err(|error| {
        let meanwhile = meanwhile(context, &now);
        if meanwhile.is_empty() { error } else { anyhow!("{error:#}{meanwhile}") }
    })?;
    store::install(context, domain, &issued.chain, &issued.key, directory)?;
    acme::forget(&folder)?;
    nginx::take(context).context("the new certificate is stored")?;
    // One that does not satisfy us is not ordered again at once: the ledger knows it.
    if matches!(need(context, &now)?, Need::Nothing) { plan.settle() } else { Ok(()) }
}

fn plan(context: &Context) -> Result<Plan> {
    let plan = Plan::of(context)?;
    let pair = store::load(context, &plan.domain).ok().filter(|pair| pair.source == plan.directory);
    let replaces = pair.and_then(|pair| pair.certificate.renewal_id);
    Ok(Plan { replaces, ..plan })
}

/// What serves while something else is waited for, when that is a certificate of the authority.
fn meanwhile(context: &Context, now: &Moment) -> String {
    let Ok(settings) = context.settings() else { return String::new() };
    match store::load(context, settings.domain.as_str()) {
        Ok(pair) if pair.certificate.is_self_signed => String::new(),
        Ok(pair) if pair.certificate.is_valid_at(now.wall) => {
            format!("; the certificate in force serves until {}", minute(pair.certificate.not_after))
        }
        Ok(pair) => {
            format!("; the certificate in force has run out at {}", minute(pair.certificate.not_after))
        }
        Err(_) => String::new(),
    }
}

/// Lets the next pass try at once, as the operator says that the cause is gone; not before the time that the authority itself
/// asked for, and not beyond its limits.
pub(crate) fn forget_failures(context: &Context) -> Result<()> {
    let settings = context.settings()?;
    let folder = folder(context);
    let now = Moment::now(&context.root)?;
    let attempts = Attempts::read(&folder, &wish(settings.domain.as_str(), settings.acme.directory.url()));
    match attempts.and_then(|attempts| attempts.forgiven(&now)) {
        Some(attempts) => attempts.write(&folder),
        None => Attempts::remove(&folder),
    }
}
