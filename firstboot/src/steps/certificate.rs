//! Step `certificate`: a certificate that browsers trust, renewed when a third of its life is left.
//!
//! Never blocks service: nginx serves what is in force all the while. An attempt is written to the disk, with the time of the
//! next, before the authority hears of it, and forgotten when the certificate is in force: neither a reboot nor a loop nor a full
//! disk burns an authority's limits. Other settings start afresh.

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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Attempts {
    schema: u32,
    /// Name and directory: another wish starts afresh.
    wish: String,
    /// How often the authority refused; counted apart from silences, whose pauses are shorter.
    refusals: u32,
    /// How often it could not be reached.
    silences: u32,
    /// Seconds since 1970.
    next: i64,
    /// Until when the authority wants to be left alone, in seconds since 1970; 0 when it has not said.
    asked: i64,
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
        // Another order would bring one that begins no earlier.
        Ok(pair) if now < pair.certificate.not_before => {
            return Ok(Observation::Waiting(format!(
                "for the time: the clock is behind, because it says {} and the certificate is valid from {}; set the hypervisor's \
                 clock or let this machine reach a time server",
                minute(now),
                minute(pair.certificate.not_before)
            )));
        }
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
    let now = now()?;
    let accounts = folder(context);
    durable::private_folder(&accounts)?;
    let previous = attempts(context).filter(|attempts| attempts.counts(settings, now));
    // Overwritten or removed below, unless something comes between.
    let unfinished = Failure {
        text: "the last order did not come to its end".to_owned(),
        is_refusal: false,
        retry_after: None,
    };
    write(context, &Attempts::after(previous.clone(), wish(settings), &unfinished, now))?;
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
            acme::forget(&accounts)?;
            nginx::take(context)?;
            // A certificate that does not satisfy us must not be ordered again at once.
            if observe(context)? == Observation::Done { remove(context) } else { Ok(()) }
        }
        Err(failure) => {
            let attempts =
                Attempts::after(previous, wish(settings), &failure, crate::tls::certificate::now()?);
            write(context, &attempts)?;
            bail!(attempts.sentence())
        }
    }
}

/// Lets the next pass try at once, as the operator says that the cause is gone; not before the time that the authority itself
/// asked for.
pub fn forget_failures(context: &Context) -> Result<()> {
    let now = now()?;
    match attempts(context) {
        Some(attempts) if is_ahead(attempts.asked, now) => {
            write(context, &Attempts { next: attempts.asked, ..attempts })
        }
        _ => remove(context),
    }
}

fn write(context: &Context, attempts: &Attempts) -> Result<()> {
    let text = serde_json::to_vec_pretty(attempts).context("writing down the attempt")?;
    durable::write(&attempts_path(context), &text, 0o600, None)?;
    Ok(())
}

fn remove(context: &Context) -> Result<()> {
    let path = attempts_path(context);
    if path.symlink_metadata().is_ok() {
        fs::remove_file(&path)?;
        durable::sync_folder(&folder(context))?;
    }
    Ok(())
}

/// Whether a time is still to come, and near enough not to have been written by a clock that was wrong.
fn is_ahead(time: i64, now: i64) -> bool {
    (now..=now + LONGEST).contains(&time)
}

/// A time as the operator reads it.
fn minute(seconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!("{} {:02}:{:02} UTC", time.date(), time.hour(), time.minute())
}

impl Attempts {
    fn after(previous: Option<Attempts>, wish: String, failure: &Failure, now: i64) -> Self {
        let mut attempts = Attempts { schema: 2, wish, ..previous.unwrap_or_default() };
        let (count, pauses): (&mut u32, &[i64]) = if failure.is_refusal {
            (&mut attempts.refusals, &AFTER_REFUSAL)
        } else {
            (&mut attempts.silences, &AFTER_SILENCE)
        };
        let index = usize::try_from(*count).unwrap_or(usize::MAX).min(pauses.len() - 1);
        *count = count.saturating_add(1);
        let asked =
            failure.retry_after.map(|wait| i64::try_from(wait.as_secs()).unwrap_or(LONGEST).min(LONGEST));
        attempts.next = now + pauses[index].max(asked.unwrap_or_default());
        attempts.asked = asked.map_or(0, |wait| now + wait);
        attempts.text.clone_from(&failure.text);
        attempts
    }

    /// Whether these failures make the next pause longer: those of another wish, or of long ago, do not.
    fn counts(&self, settings: &Settings, now: i64) -> bool {
        self.wish == wish(settings) && (now - LONGEST..=now + LONGEST).contains(&self.next)
    }

    /// Whether these failures still stand in the way.
    fn holds(&self, settings: &Settings, now: i64) -> bool {
        self.wish == wish(settings) && is_ahead(self.next, now)
    }

    fn sentence(&self) -> String {
        let next = minute(self.next);
        if self.asked == self.next {
            format!("{}; next try at {next}, as the authority asks for", self.text)
        } else {
            format!("{}; next try at {next}, or sooner with `appliance renew`", self.text)
        }
    }
}

fn wish(settings: &Settings) -> String {
    format!("{} from {}", settings.domain, settings.acme.directory.url())
}

/// What is written down; a file that cannot be read is no reason to wait.
fn attempts(context: &Context) -> Option<Attempts> {
    let text = fs::read(attempts_path(context)).ok()?;
    serde_json::from_slice(&text).ok().filter(|attempts: &Attempts| attempts.schema == 2)
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

    use super::{Attempts, DAY, HOUR, LONGEST, MINUTE, STEP, attempts, forget_failures, wish, write};
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
        for (refusals, silences, is_refusal, retry_after, pause) in [
            (0, 0, true, None, 15 * MINUTE),
            (1, 0, true, None, HOUR),
            (9, 0, true, None, DAY),
            (0, 4, true, None, 15 * MINUTE),
            (0, 0, true, Some(10 * HOUR), 10 * HOUR),
            (0, 0, true, Some(60), 15 * MINUTE),
            (0, 0, true, Some(90 * DAY), LONGEST),
            (0, 0, false, None, 30),
            (9, 0, false, None, 30),
            (0, 9, false, None, 15 * MINUTE),
        ] {
            let previous = Attempts { refusals, silences, ..Attempts::default() };
            let failure = failure(is_refusal, retry_after);
            let attempts = Attempts::after(Some(previous), String::new(), &failure, 1000);
            assert_eq!(attempts.next - 1000, pause, "{refusals} {silences} {is_refusal} {retry_after:?}");
            assert_eq!(attempts.refusals + attempts.silences, refusals + silences + 1);
        }
    }

    #[test]
    fn the_operator_ends_our_pauses_and_not_the_authoritys() {
        let (_guard, context) = context_with("");
        let start = now().unwrap();
        for (retry_after, expected) in
            [(None, None), (Some(60), Some(start + 60)), (Some(2 * DAY), Some(start + 2 * DAY))]
        {
            let failure = failure(true, retry_after);
            let after = Attempts::after(None, wish(context.settings.as_ref().unwrap()), &failure, start);
            write(&context, &after).unwrap();
            forget_failures(&context).unwrap();
            assert_eq!(attempts(&context).map(|attempts| attempts.next), expected, "{retry_after:?}");
        }
    }

    #[test]
    fn a_certificate_of_the_future_is_waited_for_and_not_ordered_again() {
        let (_guard, context) = context_with("");
        let production = "https://acme-v02.api.letsencrypt.org/directory";
        let start = now().unwrap() + 2 * HOUR;
        let (chain, key) = selfsigned::make("v6don.example.net", start, start + 90 * DAY).unwrap();
        store::install(&context, "v6don.example.net", &chain, &key, production).unwrap();
        let seen = (STEP.observe)(&context).unwrap();
        assert!(
            matches!(&seen, Observation::Waiting(text) if text.contains("the clock is behind")),
            "{seen:?}"
        );
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
            let text = "it says no".to_owned();
            let attempts =
                Attempts { schema: 2, wish: wish(&settings), refusals: 1, next, text, ..Attempts::default() };
            super::write(&context, &attempts).unwrap();
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
