//! Step `certificate`: a certificate that browsers trust, renewed when a third of its life is left.
//!
//! Never blocks service: nginx serves what is in force all the while. A failed order is remembered on the disk with the time of
//! the next, so that neither a reboot nor a loop burns an authority's limits; other settings start afresh.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use fs_err as fs;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::acme::{self, Failure};
use crate::context::Context;
use crate::durable;
use crate::engine::{Needs, Observation, Step};
use crate::settings::{Settings, TlsMode};
use crate::steps::nginx;
use crate::tls::certificate::now;
use crate::tls::store;

/// The step.
pub const STEP: Step = Step {
    name: "certificate",
    why: "a certificate that browsers trust",
    needs: Needs::World,
    observe,
    apply,
};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Pauses after the first, second, … refusal. Let's Encrypt allows 5 failures an hour.
const AFTER_REFUSAL: [i64; 4] = [15 * MINUTE, HOUR, 6 * HOUR, DAY];

/// Pauses when the authority could not be reached or was not asked to look: that costs nobody anything.
const AFTER_SILENCE: [i64; 5] = [30, MINUTE, 2 * MINUTE, 5 * MINUTE, 15 * MINUTE];

/// No authority asks for a longer pause; a time beyond it comes from a clock that was wrong.
const LONGEST: i64 = 8 * DAY;

/// What failed last, and when to try again: `acme/attempts.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Attempts {
    schema: u32,
    /// Name and directory: another wish starts afresh.
    wish: String,
    failures: u32,
    /// Seconds since 1970.
    next: i64,
    text: String,
}

fn observe(context: &Context) -> Result<Observation> {
    let settings = context.settings()?;
    let pair = store::load(context, settings.domain.as_str());
    if settings.tls.mode == TlsMode::Selfsigned {
        return Ok(match pair {
            Ok(pair) if pair.source == store::SELF_SIGNED => Observation::Done,
            _ => Observation::Todo("the settings want a certificate of our own".to_owned()),
        });
    }
    let now = now()?;
    let directory = settings.acme.directory.url();
    let reason = match pair {
        Ok(pair) if pair.source != directory => format!("no certificate from `{directory}` yet"),
        Ok(pair) if !pair.certificate.is_valid_at(now) => "the certificate has run out".to_owned(),
        Ok(pair) if pair.certificate.is_due_at(now) => "the certificate runs out soon".to_owned(),
        Ok(_) => return Ok(Observation::Done),
        Err(error) => format!("{error:#}"),
    };
    Ok(match attempts(context).filter(|attempts| attempts.holds(settings, now)) {
        Some(attempts) => Observation::Waiting(attempts.sentence()),
        None => Observation::Todo(reason),
    })
}

fn apply(context: &Context) -> Result<()> {
    let settings = context.settings()?;
    if settings.tls.mode == TlsMode::Selfsigned {
        nginx::install_self_signed(context)?;
        return nginx::take(context);
    }
    let accounts = folder(context);
    durable::private_folder(&accounts)?;
    let request = acme::Request {
        directory: settings.acme.directory.url(),
        ca: settings.acme.ca.as_deref(),
        email: settings.acme.email.as_deref(),
        domain: settings.domain.as_str(),
        accounts: &accounts,
        webroot: &context.path(nginx::WEBROOT),
        server: nginx::loopback(settings.web.listen, 80),
    };
    match acme::order(&request) {
        Ok(issued) => {
            store::install(context, request.domain, &issued.chain, &issued.key, request.directory)?;
            nginx::take(context)?;
            forget_failures(context)
        }
        Err(failure) => {
            let previous = attempts(context).filter(|attempts| attempts.wish == wish(settings));
            let attempts = Attempts::after(previous, wish(settings), &failure, now()?);
            let text = serde_json::to_vec_pretty(&attempts).context("writing down the failure")?;
            durable::write(&attempts_path(context), &text, 0o600, None)?;
            bail!(attempts.sentence())
        }
    }
}

/// Lets the next pass try at once: the operator says that the cause is gone.
pub fn forget_failures(context: &Context) -> Result<()> {
    let path = attempts_path(context);
    if path.symlink_metadata().is_ok() {
        fs::remove_file(&path)?;
        durable::sync_folder(&folder(context))?;
    }
    Ok(())
}

impl Attempts {
    fn after(previous: Option<Attempts>, wish: String, failure: &Failure, now: i64) -> Self {
        let failures = previous.map_or(0, |previous| previous.failures).saturating_add(1);
        let pauses: &[i64] = if failure.is_refusal { &AFTER_REFUSAL } else { &AFTER_SILENCE };
        let index = usize::try_from(failures - 1).unwrap_or(usize::MAX).min(pauses.len() - 1);
        let asked = failure
            .retry_after
            .map(|wait| i64::try_from(wait.as_secs()).unwrap_or(LONGEST))
            .unwrap_or_default();
        let pause = pauses[index].max(asked).min(LONGEST);
        Attempts { schema: 1, wish, failures, next: now + pause, text: failure.text.clone() }
    }

    /// Whether these failures still stand in the way.
    fn holds(&self, settings: &Settings, now: i64) -> bool {
        self.wish == wish(settings) && (now..=now + LONGEST).contains(&self.next)
    }

    fn sentence(&self) -> String {
        let next = OffsetDateTime::from_unix_timestamp(self.next).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        format!(
            "{}; next try at {} {:02}:{:02} UTC, or at once with `appliance retry`",
            self.text,
            next.date(),
            next.hour(),
            next.minute()
        )
    }
}

fn wish(settings: &Settings) -> String {
    format!("{} from {}", settings.domain, settings.acme.directory.url())
}

/// What is written down; a file that cannot be read is no reason to wait.
fn attempts(context: &Context) -> Option<Attempts> {
    let text = fs::read(attempts_path(context)).ok()?;
    serde_json::from_slice(&text).ok().filter(|attempts: &Attempts| attempts.schema == 1)
}

fn attempts_path(context: &Context) -> PathBuf {
    folder(context).join("attempts.json")
}

fn folder(context: &Context) -> PathBuf {
    context.state().join("acme")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Attempts, DAY, HOUR, LONGEST, MINUTE, STEP, attempts_path, forget_failures, wish};
    use crate::acme::Failure;
    use crate::context::Context;
    use crate::context::tests::scratch_context;
    use crate::engine::Observation;
    use crate::settings::Settings;
    use crate::tls::certificate::now;
    use crate::tls::{selfsigned, store};

    fn failure(is_refusal: bool, retry_after: Option<i64>) -> Failure {
        let retry_after = retry_after.map(|seconds| Duration::from_secs(seconds.unsigned_abs()));
        Failure { text: "no".to_owned(), is_refusal, retry_after }
    }

    #[test]
    fn pauses_grow_and_the_authority_has_the_last_word() {
        for (before, is_refusal, retry_after, pause) in [
            (0, true, None, 15 * MINUTE),
            (1, true, None, HOUR),
            (9, true, None, DAY),
            (0, true, Some(10 * HOUR), 10 * HOUR),
            (0, true, Some(60), 15 * MINUTE),
            (0, true, Some(90 * DAY), LONGEST),
            (0, false, None, 30),
            (9, false, None, 15 * MINUTE),
        ] {
            let previous = (before > 0).then(|| Attempts {
                schema: 1,
                wish: String::new(),
                failures: before,
                next: 0,
                text: String::new(),
            });
            let attempts = Attempts::after(previous, String::new(), &failure(is_refusal, retry_after), 1000);
            assert_eq!(attempts.next - 1000, pause, "{before} {is_refusal} {retry_after:?}");
            assert_eq!(attempts.failures, before + 1);
        }
    }

    fn context_with(tls: &str) -> (tempfile::TempDir, Context) {
        let (guard, mut context) = scratch_context();
        let text = format!("schema = 1\ndomain = \"v6don.example.net\"\n{tls}");
        context.settings = Some(Settings::parse("test", &text).unwrap());
        (guard, context)
    }

    fn install(context: &Context, source: &str, life: i64) {
        let start = now().unwrap() - 100;
        let (chain, key) = selfsigned::make("v6don.example.net", start, start + life).unwrap();
        store::install(context, "v6don.example.net", &chain, &key, source).unwrap();
    }

    #[test]
    fn what_is_in_force_decides() {
        let production = "https://acme-v02.api.letsencrypt.org/directory";
        for (tls, source, life, expected) in [
            ("", production, 1000, "Done"),
            ("", production, 140, "Todo(\"the certificate runs out soon\")"),
            ("", production, 50, "Todo(\"the certificate has run out\")"),
            (
                "",
                store::SELF_SIGNED,
                1000,
                "Todo(\"no certificate from `https://acme-v02.api.letsencrypt.org/directory` yet\")",
            ),
            (
                "[acme]\ndirectory = \"staging\"",
                production,
                1000,
                "Todo(\"no certificate from `https://acme-staging-v02.api.letsencrypt.org/directory` yet\")",
            ),
            ("[tls]\nmode = \"selfsigned\"", store::SELF_SIGNED, 1000, "Done"),
            (
                "[tls]\nmode = \"selfsigned\"",
                production,
                1000,
                "Todo(\"the settings want a certificate of our own\")",
            ),
        ] {
            let (_guard, context) = context_with(tls);
            install(&context, source, life);
            assert_eq!(format!("{:?}", (STEP.observe)(&context).unwrap()), expected, "{tls} {source} {life}");
        }
    }

    #[test]
    fn a_failure_outlives_a_reboot_until_its_time_or_other_settings() {
        let (_guard, mut context) = context_with("");
        install(&context, store::SELF_SIGNED, 1000);
        let settings = context.settings.clone().unwrap();
        let write = |next: i64| {
            let attempts = Attempts {
                schema: 1,
                wish: wish(&settings),
                failures: 1,
                next,
                text: "it says no".to_owned(),
            };
            fs_err::create_dir_all(context.state().join("acme")).unwrap();
            fs_err::write(attempts_path(&context), serde_json::to_vec(&attempts).unwrap()).unwrap();
        };
        let waits = |context: &Context| match (STEP.observe)(context).unwrap() {
            Observation::Waiting(text) => {
                assert!(text.starts_with("it says no; next try at 2"), "{text}");
                true
            }
            _ => false,
        };
        write(now().unwrap() + HOUR);
        assert!(waits(&context));
        write(now().unwrap() - 1);
        assert!(!waits(&context), "its time has come");
        write(now().unwrap() + 300 * DAY);
        assert!(!waits(&context), "the clock was wrong");
        write(now().unwrap() + HOUR);
        context.settings = context_with("[acme]\ndirectory = \"staging\"").1.settings;
        assert!(!waits(&context), "another directory");
        context.settings = context_with("").1.settings;
        assert!(waits(&context));
        forget_failures(&context).unwrap();
        assert!(!waits(&context), "the operator says so");
    }
}
