//! What an authority has counted against its limits: `acme/ledger.json`.
//!
//! Let's Encrypt allows five failures an hour and five certificates in seven days, for each name and account, and others are
//! held to the same. An order is entered before it is placed, so that one that a cut has ended counts too. The rehearsal's own
//! directory has limits that nobody reaches.

use std::path::Path;

use anyhow::{Context as _, Result};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::attempts::{DAY, HOUR};
use crate::durable;
use crate::tls::moment::{Moment, minute};

const FILE: &str = "ledger.json";
const SCHEMA: u32 = 1;

/// One less than Let's Encrypt's five: the last one of an hour is the operator's.
const MOST_FAILURES: usize = 4;
const MOST_CERTIFICATES: usize = 5;
/// With renewals, which the authority does not count: one that wants everything renewed at once must not be obeyed for ever.
const MOST_SIGNED: usize = 10;
const WEEK: i64 = 7 * DAY;
/// Nobody gets near it; a file that was made by another hand does.
const MOST_ENTRIES: usize = 500;

/// The ledger of all wishes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Ledger {
    schema: u32,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    wish: String,
    what: What,
    at: Moment,
}

/// What came of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum What {
    /// Nobody knows: it has not come to its end.
    Order,
    /// The authority refused.
    Failure,
    /// It signed.
    Certificate,
    /// It signed in place of another certificate, which it has asked for and does not count.
    Renewal,
}

impl Ledger {
    /// An unreadable ledger is an empty one: it guards limits that the authority guards too.
    pub fn read(folder: &Path) -> Ledger {
        let text = fs::read(folder.join(FILE)).unwrap_or_default();
        let ledger = serde_json::from_slice(&text).ok();
        ledger.filter(|ledger: &Ledger| ledger.schema == SCHEMA).unwrap_or_default()
    }

    /// Enters an order.
    pub fn begin(mut self, folder: &Path, wish: &str, now: &Moment) -> Result<Ledger> {
        self.entries.retain(|entry| now.since(&entry.at) <= WEEK);
        self.entries.push(Entry { wish: wish.to_owned(), what: What::Order, at: now.clone() });
        let surplus = self.entries.len().saturating_sub(MOST_ENTRIES);
        self.entries.drain(..surplus);
        self.write(folder)?;
        Ok(self)
    }

    /// Says what came of the order that was entered last; `None` when the authority was never asked to look.
    pub fn end(mut self, folder: &Path, what: Option<What>) -> Result<()> {
        if let (Some(entry), Some(what)) = (self.entries.pop(), what) {
            self.entries.push(Entry { what, ..entry });
        }
        self.write(folder)
    }

    /// Entries that a clock ahead of ours has written happened now: the only time that surely is not too early.
    pub fn moved(mut self, folder: &Path, now: &Moment) -> Result<Ledger> {
        let mut has_moved = false;
        for entry in self.entries.iter_mut().filter(|entry| now.since(&entry.at) < 0) {
            entry.at = now.clone();
            has_moved = true;
        }
        if has_moved {
            self.write(folder)?;
        }
        Ok(self)
    }

    /// Why no order may be placed now; `None` when one may. `is_renewal`: the authority has asked for this one.
    pub fn refusal(&self, wish: &str, is_renewal: bool, now: &Moment) -> Option<String> {
        let ages = |what: &[What]| -> Vec<i64> {
            let ours = self.entries.iter().filter(|entry| entry.wish == wish && what.contains(&entry.what));
            let mut ages: Vec<i64> = ours.map(|entry| now.since(&entry.at)).filter(|age| *age >= 0).collect();
            ages.sort_unstable();
            ages
        };
        // The youngest of them that has to be out of the window before there is room for one more.
        let wait = |ages: &[i64], most: usize, window: i64| {
            ages.get(most - 1).map(|age| window - age).filter(|wait| *wait > 0)
        };
        let failures = wait(&ages(&[What::Order, What::Failure]), MOST_FAILURES, HOUR);
        let signed = wait(&ages(&[What::Certificate, What::Renewal]), MOST_SIGNED, WEEK);
        let certificates = wait(&ages(&[What::Certificate]), MOST_CERTIFICATES, WEEK).filter(|_| !is_renewal);
        let certificates = certificates.max(signed);
        let (seconds, text) = match (failures, certificates) {
            (_, Some(seconds)) => (
                seconds,
                format!(
                    "{} certificates were signed within 7 days, and authorities allow no more: keep this machine's state",
                    if signed.is_some() { MOST_SIGNED } else { MOST_CERTIFICATES }
                ),
            ),
            (Some(seconds), None) => (
                seconds,
                format!(
                    "{MOST_FAILURES} orders failed within an hour, and authorities allow few more: mend the cause meanwhile"
                ),
            ),
            (None, None) => return None,
        };
        Some(format!("{text}; next try at {}", minute(now.wall + seconds)))
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let ledger = Ledger { schema: SCHEMA, ..self.clone() };
        let text = serde_json::to_vec_pretty(&ledger).context("writing down the order")?;
        durable::write(&folder.join(FILE), &text, 0o600, None).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::{HOUR, Ledger, WEEK, What};
    use crate::tls::moment::Moment;

    const WISH: &str = "a.example from https://ca.example/";

    fn moment(wall: i64, boot: &str, uptime: i64) -> Moment {
        Moment { wall, boot: boot.to_owned(), uptime }
    }

    fn with(what: What, times: &[i64]) -> (tempfile::TempDir, Ledger) {
        let folder = tempfile::tempdir().unwrap();
        for time in times {
            let ledger =
                Ledger::read(folder.path()).begin(folder.path(), WISH, &moment(*time, "one", *time)).unwrap();
            ledger.end(folder.path(), Some(what)).unwrap();
        }
        let ledger = Ledger::read(folder.path());
        (folder, ledger)
    }

    #[test]
    fn limits_are_those_of_the_authority() {
        let (_folder, failures) = with(What::Failure, &[0, 10, 20, 30]);
        let (_folder, orders) = with(What::Order, &[0, 10, 20, 30]);
        let (_folder, certificates) = with(What::Certificate, &[0, 10, 20, 30, 40]);
        let (_folder, renewals) = with(What::Renewal, &[0, 10, 20, 30, 40]);
        let (_folder, many) = with(What::Renewal, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        for (ledger, now, is_renewal, expected) in [
            (&many, 50, true, Some("10 certificates were signed within 7 days")),
            (
                &failures,
                40,
                false,
                Some(
                    "4 orders failed within an hour, and authorities allow few more: mend the cause meanwhile; next try at 1970-01-01 01:00 UTC",
                ),
            ),
            (&failures, HOUR, false, None),
            (&orders, 40, false, Some("4 orders failed")),
            (
                &certificates,
                50,
                false,
                Some(
                    "5 certificates were signed within 7 days, and authorities allow no more: keep this machine's state; next try at 1970-01-08 00:00 UTC",
                ),
            ),
            (&certificates, 50, true, None),
            (&certificates, WEEK, false, None),
            (&renewals, 50, false, None),
        ] {
            let refusal = ledger.refusal(WISH, is_renewal, &moment(now, "one", now));
            match expected {
                None => assert_eq!(refusal, None),
                Some(expected) => {
                    assert!(refusal.as_ref().is_some_and(|text| text.starts_with(expected)), "{refusal:?}");
                }
            }
        }
        assert_eq!(
            failures.refusal("b.example from https://ca.example/", false, &moment(40, "one", 40)),
            None
        );
    }

    #[test]
    fn a_clock_that_jumps_neither_clears_the_ledger_nor_fills_it_for_ever() {
        let (folder, ledger) = with(What::Certificate, &[0, 10, 20, 30, 40]);
        let (ahead, back) = (moment(999_999_999, "one", 50), moment(25, "two", 5));
        assert!(ledger.refusal(WISH, false, &ahead).is_some());
        // Which of the two clocks was wrong is for the authority to say; then what lies in the future has happened just now.
        assert_eq!(ledger.refusal(WISH, false, &back), None);
        let moved = ledger.moved(folder.path(), &back).unwrap();
        assert!(moved.refusal(WISH, false, &back).is_some());
        assert_eq!(Ledger::read(folder.path()), moved);
        assert_eq!(moved.refusal(WISH, false, &moment(25 + WEEK, "three", 5)), None);
    }

    #[test]
    fn what_never_reached_the_authority_does_not_count() {
        let (folder, ledger) = with(What::Failure, &[0, 10, 20]);
        let ledger = ledger.begin(folder.path(), WISH, &moment(30, "one", 30)).unwrap();
        assert!(
            ledger.refusal(WISH, false, &moment(31, "one", 31)).is_some(),
            "a cut now would have cost one"
        );
        ledger.end(folder.path(), None).unwrap();
        assert_eq!(Ledger::read(folder.path()).refusal(WISH, false, &moment(31, "one", 31)), None);
        fs_err::write(folder.path().join("ledger.json"), "{").unwrap();
        assert_eq!(Ledger::read(folder.path()), Ledger::default());
    }
}
