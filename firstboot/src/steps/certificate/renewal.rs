//! When the certificate in force is renewed: `acme/renewal.json`.
//!
//! Where the authority gives renewal information (RFC 9773), a random moment of the time that it suggests, asked for again as
//! often as it wants; else when a third of the certificate's life is left.

use std::path::Path;

use anyhow::{Context as _, Result};
use fs_err as fs;
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::attempts::{DAY, HOUR};
use crate::acme::{self, Window};
use crate::durable;
use crate::tls::certificate::Certificate;
use crate::tls::moment::{Moment, minute};

const FILE: &str = "renewal.json";
const SCHEMA: u32 = 1;

/// How often to ask when the authority does not say, and between what limits when it does.
const USUAL: i64 = 6 * HOUR;
const SHORTEST: i64 = 60;
/// When the authority could not be asked.
const AGAIN: i64 = HOUR;
/// A suggestion that could not be confirmed for so long no longer counts.
const STALE: i64 = 8 * DAY;

/// What the authority has suggested for one certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Renewal {
    schema: u32,
    /// Its [`renewal_id`](Certificate::renewal_id).
    certificate: String,
    /// What was suggested; `None` when the authority gives no such information.
    suggestion: Option<Suggestion>,
    /// When it was last asked.
    asked: Moment,
    /// After how many seconds to ask again.
    pause: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Suggestion {
    /// Seconds since 1970.
    start: i64,
    end: i64,
    /// The moment between them that was drawn.
    chosen: i64,
    explanation: Option<String>,
    /// When this was last confirmed.
    confirmed: Moment,
}

impl Renewal {
    /// What is known about a certificate.
    pub fn read(folder: &Path, certificate: &Certificate) -> Option<Renewal> {
        let text = fs::read(folder.join(FILE)).ok()?;
        let renewal: Renewal = serde_json::from_slice(&text).ok()?;
        let is_meant = Some(&renewal.certificate) == certificate.renewal_id.as_ref();
        (renewal.schema == SCHEMA && is_meant).then_some(renewal)
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).context("writing down when to renew")?;
        durable::write(&folder.join(FILE), &text, 0o600, None).map(drop)
    }
}

/// Whether the authority may be asked (again) when to renew.
pub(super) fn is_question_due(folder: &Path, certificate: &Certificate, now: &Moment) -> bool {
    certificate.renewal_id.is_some()
        && Renewal::read(folder, certificate)
            .is_none_or(|renewal| !(0..renewal.pause).contains(&now.since(&renewal.asked)))
}

/// Whether the authority has said when it wants this certificate renewed.
pub(super) fn is_suggested(folder: &Path, certificate: &Certificate) -> bool {
    Renewal::read(folder, certificate).is_some_and(|renewal| renewal.suggestion.is_some())
}

/// Why to renew now; `None` when it is not yet time.
pub(super) fn reason(folder: &Path, certificate: &Certificate, now: &Moment) -> Option<String> {
    if !certificate.is_valid_at(now.wall) {
        return Some("the certificate has run out".to_owned());
    }
    let suggestion = Renewal::read(folder, certificate).and_then(|renewal| renewal.suggestion);
    match suggestion.filter(|suggestion| (0..STALE).contains(&now.since(&suggestion.confirmed))) {
        Some(suggestion) if suggestion.chosen <= now.wall => {
            let why = suggestion.explanation.map(|url| format!(", see {url}")).unwrap_or_default();
            Some(format!(
                "the authority wants the certificate renewed from {}{why}",
                minute(suggestion.start)
            ))
        }
        Some(_) => None,
        None => certificate.is_due_at(now.wall).then(|| "the certificate runs out soon".to_owned()),
    }
}

/// Asks the authority. Without an answer, what it said earlier stays for a while: this is no failure of anything.
pub(super) fn ask(
    folder: &Path,
    certificate: &Certificate,
    directory: &str,
    ca: Option<&str>,
    now: &Moment,
) -> Result<()> {
    let Some(id) = &certificate.renewal_id else { return Ok(()) };
    let earlier = Renewal::read(folder, certificate).and_then(|renewal| renewal.suggestion);
    let answer = match acme::look(directory, ca) {
        Ok(directory) => match directory.renewal_info {
            Some(base) => acme::renewal(&base, id, ca).map(Some).ok(),
            None => Some(None),
        },
        Err(_) => None,
    };
    let (suggestion, pause) = match answer {
        Some(Some(window)) => {
            let pause = window.retry_after.and_then(|pause| i64::try_from(pause.as_secs()).ok());
            (Some(suggestion(window, earlier.as_ref(), now)), pause.unwrap_or(USUAL).clamp(SHORTEST, DAY))
        }
        Some(None) => (None, DAY),
        None => (earlier, AGAIN),
    };
    Renewal { schema: SCHEMA, certificate: id.clone(), suggestion, asked: now.clone(), pause }.write(folder)
}

/// The draw of an unchanged window stays, or it would move before it can come.
fn suggestion(window: Window, earlier: Option<&Suggestion>, now: &Moment) -> Suggestion {
    let Window { start, end, explanation, .. } = window;
    let chosen = match earlier {
        Some(earlier) if (earlier.start, earlier.end) == (start, end) => earlier.chosen,
        _ => rand::rng().random_range(start..end),
    };
    Suggestion { start, end, chosen, explanation, confirmed: now.clone() }
}

#[cfg(test)]
mod tests {
    use testkit::acme_stub::AcmeStub;

    use super::{DAY, HOUR, Renewal, SCHEMA, Suggestion, ask, is_question_due, reason, suggestion};
    use crate::acme::Window;
    use crate::tls::certificate::Certificate;
    use crate::tls::moment::Moment;
    use crate::tls::selfsigned;

    fn at(wall: i64) -> Moment {
        Moment { wall, boot: "one".to_owned(), uptime: wall }
    }

    fn certificate() -> Certificate {
        let (chain, _) = selfsigned::make("a.example", 0, 90 * DAY).unwrap();
        let mut certificate = Certificate::from_chain(&chain).unwrap();
        certificate.renewal_id = Some("aki.serial".to_owned());
        certificate
    }

    #[test]
    fn the_authoritys_wish_comes_before_the_rule_until_it_is_stale() {
        let folder = tempfile::tempdir().unwrap();
        let certificate = certificate();
        let reason = |day: i64| reason(folder.path(), &certificate, &at(day * DAY));
        assert_eq!(reason(59), None);
        assert_eq!(reason(60).unwrap(), "the certificate runs out soon");
        assert!(is_question_due(folder.path(), &certificate, &at(0)));

        let write = |chosen: i64, confirmed: i64| {
            let suggestion = Suggestion {
                start: chosen - 1,
                end: chosen + 1,
                chosen,
                explanation: Some("https://ca.example/why".to_owned()),
                confirmed: at(confirmed),
            };
            let renewal = Renewal {
                schema: SCHEMA,
                certificate: "aki.serial".to_owned(),
                suggestion: Some(suggestion),
                asked: at(confirmed),
                pause: HOUR,
            };
            renewal.write(folder.path()).unwrap();
        };
        write(10 * DAY, 9 * DAY);
        assert_eq!(reason(9), None);
        assert!(
            reason(10).unwrap().ends_with(", see https://ca.example/why"),
            "revoked, say: long before the rule"
        );
        write(70 * DAY, 60 * DAY);
        assert_eq!(reason(61), None, "later than the rule");
        assert_eq!(reason(68).unwrap(), "the certificate runs out soon", "not confirmed for 8 days");
        assert_eq!(reason(91).unwrap(), "the certificate has run out");

        assert!(!is_question_due(folder.path(), &certificate, &at(60 * DAY + 1)));
        assert!(is_question_due(folder.path(), &certificate, &at(60 * DAY + HOUR)));
        let mut other = certificate.clone();
        other.renewal_id = Some("aki.other".to_owned());
        assert!(is_question_due(folder.path(), &other, &at(60 * DAY + 1)), "another certificate");
    }

    #[test]
    fn an_authority_is_asked_and_its_silence_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let stub = AcmeStub::start((2000, 2999)).unwrap();
        let certificate = certificate();
        let now = Moment::now(folder.path()).unwrap();
        let ask =
            |directory: &str| ask(folder.path(), &certificate, directory, Some(&stub.ca), &now).unwrap();
        let known = || Renewal::read(folder.path(), &certificate).unwrap();
        ask(&stub.directory());
        assert_eq!((known().suggestion, known().pause), (None, DAY), "no such information");
        stub.suggest("2020-01-01T00:00:00Z", "2020-01-02T00:00:00.5+09:00");
        ask(&stub.directory());
        let told = known();
        assert_eq!(told.pause, HOUR);
        let suggestion = told.suggestion.clone().unwrap();
        assert_eq!((suggestion.start, suggestion.end), (1_577_836_800, 1_577_890_800));
        assert_eq!(stub.count("/renewal/aki.serial"), 1);
        for (start, end) in [("2020-01-02T00:00:00Z", "2020-01-01T00:00:00Z"), ("soon", "later")] {
            stub.suggest(start, end);
            ask(&stub.directory());
            assert_eq!(known().suggestion, told.suggestion, "{start}");
        }
        ask("https://localhost:1/directory");
        assert_eq!(known().suggestion, told.suggestion);
    }

    #[test]
    fn the_draw_stays_while_the_window_does() {
        let window = |start: i64| Window { start, end: start + DAY, explanation: None, retry_after: None };
        let first = suggestion(window(1000), None, &at(0));
        assert!((1000..1000 + DAY).contains(&first.chosen));
        for _ in 0..20 {
            assert_eq!(suggestion(window(1000), Some(&first), &at(5)).chosen, first.chosen);
        }
        assert!((9 * DAY..10 * DAY).contains(&suggestion(window(9 * DAY), Some(&first), &at(5)).chosen));
    }
}
