//! What failed last, and how long nobody may try again: `acme/attempts.json`.
//!
//! On the disk before an authority hears of an attempt, forgotten when the certificate is in force: neither a reboot nor a loop
//! nor a full disk burns an authority's limits. Other settings start afresh.

use std::path::Path;

use anyhow::{Context as _, Result};
use fs_err as fs;
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::acme::Failure;
use crate::durable;
use crate::tls::moment::{Moment, minute};

pub(super) const MINUTE: i64 = 60;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;

const FILE: &str = "attempts.json";
const SCHEMA: u32 = 3;

/// Pauses after the first, second, … refusal. Let's Encrypt allows 5 failures an hour.
const AFTER_REFUSAL: [i64; 4] = [15 * MINUTE, HOUR, 6 * HOUR, DAY];

/// Pauses when the authority could not be reached or was not asked to look: that costs nobody anything.
const AFTER_SILENCE: [i64; 5] = [30, MINUTE, 2 * MINUTE, 5 * MINUTE, 15 * MINUTE];

/// No authority asks for a longer pause, and failures of so long ago make the next pause no longer.
pub(super) const LONGEST: i64 = 8 * DAY;

/// Views of the world in which the authority has refused already; more than ever come about by mending.
const MOST_VIEWS: usize = 8;

/// What failed last, and for how long to wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Attempts {
    schema: u32,
    /// Name and directory: another wish starts afresh.
    wish: String,
    /// How often the authority refused; counted apart from silences, whose pauses are shorter.
    pub refusals: u32,
    /// How often it could not be reached.
    pub silences: u32,
    /// When the last one ended.
    at: Moment,
    /// How many seconds after it the next one may begin.
    pub pause: i64,
    /// How many seconds after it the authority wants to be left alone; 0 when it has not said.
    pub asked: i64,
    /// What DNS said at each of the last failures, as [`fingerprint`](super::preflight::fingerprint): another answer ends our pause.
    views: Vec<String>,
    text: String,
}

impl Attempts {
    /// What is written down for a wish; a file that cannot be read is no reason to wait.
    pub fn read(folder: &Path, wish: &str) -> Option<Attempts> {
        let text = fs::read(folder.join(FILE)).ok()?;
        let attempts: Attempts = serde_json::from_slice(&text).ok()?;
        (attempts.schema == SCHEMA && attempts.wish == wish).then_some(attempts)
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).context("writing down the attempt")?;
        durable::write(&folder.join(FILE), &text, 0o600, None).map(drop)
    }

    pub fn remove(folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        if path.is_file() { durable::remove(&path) } else { Ok(()) }
    }

    /// One failure more.
    pub fn after(
        previous: Option<&Attempts>,
        wish: &str,
        failure: &Failure,
        view: Option<&str>,
        now: &Moment,
    ) -> Attempts {
        let previous = previous.filter(|previous| (0..LONGEST).contains(&now.since(&previous.at)));
        let mut attempts =
            Attempts { schema: SCHEMA, wish: wish.to_owned(), ..previous.cloned().unwrap_or_default() };
        let (count, pauses): (&mut u32, &[i64]) = if failure.is_refusal {
            (&mut attempts.refusals, &AFTER_REFUSAL)
        } else {
            (&mut attempts.silences, &AFTER_SILENCE)
        };
        let index = usize::try_from(*count).unwrap_or(usize::MAX).min(pauses.len() - 1);
        *count = count.saturating_add(1);
        // So that a thousand machines that an outage stopped together do not come back together.
        let pause = pauses[index] + rand::rng().random_range(0..=pauses[index] / 10);
        let asked = failure
            .retry_after
            .map_or(0, |wait| i64::try_from(wait.as_secs()).unwrap_or(LONGEST).min(LONGEST));
        attempts.pause = pause.max(asked);
        attempts.asked = asked;
        attempts.at = now.clone();
        attempts.text.clone_from(&failure.text);
        if let Some(view) = view.filter(|view| !attempts.views.iter().any(|known| known == view)) {
            attempts.views.push(view.to_owned());
            let surplus = attempts.views.len().saturating_sub(MOST_VIEWS);
            attempts.views.drain(..surplus);
        }
        attempts
    }

    /// How many seconds are left to wait; `None` when there is no reason to wait, or when the clock makes no sense of it: then
    /// [`Attempts::is_of_the_future`] says so, and the clock is looked at first.
    pub fn left(&self, now: &Moment) -> Option<i64> {
        left(self.pause, now.since(&self.at))
    }

    /// The same for what the authority has asked for.
    pub fn asked_left(&self, now: &Moment) -> Option<i64> {
        left(self.asked, now.since(&self.at))
    }

    /// Whether it was written down by a clock that was ahead of ours.
    pub fn is_of_the_future(&self, now: &Moment) -> bool {
        now.since(&self.at) < 0
    }

    /// The same, as if it had happened now: the only pause that surely is not too short.
    pub fn moved(self, now: &Moment) -> Attempts {
        Attempts { at: now.clone(), ..self }
    }

    /// The same with our own pause ended; `None` when the authority has asked for none.
    pub fn forgiven(self, now: &Moment) -> Option<Attempts> {
        self.asked_left(now)?;
        Some(Attempts { pause: self.asked, ..self })
    }

    /// Whether the authority has not yet been asked in this view of the world.
    pub fn is_news(&self, view: &str) -> bool {
        !self.views.iter().any(|known| known == view)
    }

    /// What failed, and when it is tried again.
    pub fn sentence(&self, now: &Moment) -> String {
        let next = minute(now.wall + self.left(now).unwrap_or_default());
        if self.asked > 0 && self.asked == self.pause {
            format!("{}; next try at {next}, as the authority asks for", self.text)
        } else {
            format!("{}; next try at {next}, or sooner with `appliance renew`", self.text)
        }
    }
}

fn left(pause: i64, elapsed: i64) -> Option<i64> {
    (0..pause).contains(&elapsed).then(|| pause - elapsed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Attempts, DAY, HOUR, LONGEST, MINUTE};
    use crate::acme::Failure;
    use crate::tls::moment::Moment;

    fn moment(wall: i64, boot: &str, uptime: i64) -> Moment {
        Moment { wall, boot: boot.to_owned(), uptime }
    }

    fn failure(is_refusal: bool, retry_after: Option<i64>) -> Failure {
        let retry_after = retry_after.map(|seconds| Duration::from_secs(seconds.unsigned_abs()));
        Failure { text: "no".to_owned(), is_refusal, retry_after, ..Failure::default() }
    }

    #[test]
    fn pauses_grow_and_the_authority_has_the_last_word() {
        let now = moment(1000, "one", 10);
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
            let previous = Attempts { refusals, silences, at: now.clone(), ..Attempts::default() };
            let attempts =
                Attempts::after(Some(&previous), "", &failure(is_refusal, retry_after), None, &now);
            let least = pause..=pause + pause / 10;
            assert!(
                least.contains(&attempts.pause),
                "{refusals} {silences} {is_refusal} {retry_after:?} {attempts:?}"
            );
            assert_eq!(attempts.refusals + attempts.silences, refusals + silences + 1);
        }
        let old = Attempts { refusals: 9, at: moment(1000 - LONGEST, "zero", 0), ..Attempts::default() };
        assert_eq!(Attempts::after(Some(&old), "", &failure(true, None), None, &now).refusals, 1, "long ago");
    }

    #[test]
    fn a_clock_that_jumps_neither_ends_a_pause_nor_lengthens_it() {
        let start = moment(1_000_000, "one", 100);
        let attempts = Attempts { pause: HOUR, at: start, ..Attempts::default() };
        for (now, left, is_of_the_future) in [
            (moment(1_000_060, "one", 160), Some(HOUR - 60), false),
            (moment(900_000_000, "one", 160), Some(HOUR - 60), false),
            (moment(0, "one", 160), Some(HOUR - 60), false),
            (moment(0, "one", 100 + HOUR), None, false),
            (moment(1_000_060, "two", 5), Some(HOUR - 60), false),
            (moment(1_000_000 + HOUR, "two", 5), None, false),
            (moment(0, "two", 5), None, true),
        ] {
            assert_eq!(
                (attempts.left(&now), attempts.is_of_the_future(&now)),
                (left, is_of_the_future),
                "{now:?}"
            );
            assert_eq!(attempts.clone().moved(&now).left(&now), Some(HOUR));
        }
    }

    #[test]
    fn another_view_is_news_once() {
        let now = moment(1000, "one", 10);
        let mut attempts = Attempts::after(None, "", &failure(true, None), Some("first"), &now);
        assert!(!attempts.is_news("first") && attempts.is_news("second"));
        for view in ["second", "first", "second"] {
            attempts = Attempts::after(Some(&attempts), "", &failure(true, None), Some(view), &now);
        }
        assert!(!attempts.is_news("first") && !attempts.is_news("second"), "back and forth is no news");
    }

    #[test]
    fn the_operator_ends_our_pauses_and_not_the_authoritys() {
        let start = moment(1000, "one", 10);
        let later = moment(1010, "one", 20);
        for (retry_after, expected) in
            [(None, None), (Some(5), None), (Some(60), Some(50)), (Some(DAY), Some(DAY - 10))]
        {
            let attempts = Attempts::after(None, "", &failure(true, retry_after), None, &start);
            let forgiven = attempts.forgiven(&later);
            assert_eq!(forgiven.and_then(|attempts| attempts.left(&later)), expected, "{retry_after:?}");
        }
    }
}
