//! When each step is due again.
//!
//! A step that is done is looked at as often as it wishes, and at once when a step before it changed something. One that is not done
//! is tried again after 2, 4, 8 … 60 seconds, by itself: a certificate that waits does not make the database work. One that is done no
//! longer is doubted until everything before it was looked at once more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::engine::{HOURLY, Next, Observation, Outcome};

const LONGEST_PAUSE: u64 = 60;

/// What is planned for every step that was looked at.
#[derive(Debug, Default)]
pub struct Schedule {
    entries: BTreeMap<&'static str, Entry>,
    changed: bool,
    /// Some step of this pass was not due.
    kept: bool,
    /// The next pass comes at once.
    again: bool,
}

#[derive(Debug)]
struct Entry {
    observation: Observation,
    due: Instant,
    attempts: u32,
}

impl Schedule {
    /// Makes every step due, also those that this pass has passed already.
    pub fn reset(&mut self) {
        self.entries.clear();
        self.again = true;
    }

    /// Begins a pass.
    pub fn begin(&mut self) {
        self.changed = false;
        self.kept = false;
        self.again = false;
    }

    /// Whether a step that is found to be done no longer may have its cause in one before it: one that this pass has not looked at, or has
    /// looked at a moment too early. A pass that looks at everything once more tells; what that one finds is not doubted.
    pub fn doubts(&self, step: &str) -> bool {
        // What was changed in this pass is cause enough.
        (self.kept || !self.changed)
            && self.entries.get(step).is_some_and(|entry| entry.observation == Observation::Done)
    }

    /// Whether the next pass comes at once and looks at everything, so that what this one holds back is no news.
    pub fn comes_again(&self) -> bool {
        self.again
    }

    /// Whether a step is due.
    pub fn next(&mut self, step: &str, now: Instant) -> Next {
        match self.entries.get(step) {
            Some(entry) if now < entry.due && !(self.changed && entry.observation == Observation::Done) => {
                self.kept = true;
                Next::Keep(entry.observation.clone())
            }
            _ => Next::Run,
        }
    }

    /// Takes note of how a step ended that wishes to be looked at every `watch` while it is done. One that was held back was not
    /// looked at: it is due when it is released. Until then nothing is planned for it, because a time of its own would pass and leave
    /// no pause at all.
    pub fn record(&mut self, outcome: &Outcome, watch: Duration, now: Instant) {
        if outcome.held_by.is_some() {
            self.entries.remove(outcome.step);
            return;
        }
        self.changed |= outcome.applied;
        let attempts = match self.entries.get(outcome.step) {
            Some(entry) if entry.observation != Observation::Done => entry.attempts.saturating_add(1),
            _ => 0,
        };
        let pause = match &outcome.observation {
            Observation::Done => watch,
            _ => Duration::from_secs(2_u64.saturating_pow(attempts.saturating_add(1)).min(LONGEST_PAUSE)),
        };
        let entry = Entry { observation: outcome.observation.clone(), due: now + pause, attempts };
        self.entries.insert(outcome.step, entry);
    }

    /// How long nothing is due.
    pub fn pause(&self, now: Instant) -> Duration {
        if self.again {
            return Duration::ZERO;
        }
        let due = self.entries.values().map(|entry| entry.due).min();
        due.map_or(Duration::from_secs(2), |due| due.saturating_duration_since(now)).min(HOURLY)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Schedule;
    use crate::engine::{HOURLY, Needs, Next, Observation, Outcome};

    fn outcome(step: &'static str, observation: Observation, applied: bool) -> Outcome {
        Outcome { step, needs: Needs::Local, observation, applied, millis: 0, held_by: None }
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_start_again_after_success() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        let waits = || Observation::Waiting("it".to_owned());
        let mut pause = |observation| {
            schedule.record(&outcome("network", observation, false), Duration::from_secs(10), now);
            schedule.pause(now).as_secs()
        };
        let pauses: Vec<u64> = (0..7).map(|_| pause(waits())).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause(Observation::Done), 10);
        assert_eq!(pause(waits()), 2);
    }

    #[test]
    fn a_step_that_is_held_back_does_not_end_the_pause() {
        let now = Instant::now();
        let later = now + Duration::from_secs(3601);
        let mut schedule = Schedule::default();
        schedule.record(&outcome("redis", Observation::Done, false), HOURLY, now);
        schedule.record(&outcome("units", Observation::Done, false), HOURLY, now);
        let waits = Observation::Waiting("it".to_owned());
        schedule.record(&outcome("redis", waits.clone(), false), HOURLY, later);
        schedule.record(&Outcome { held_by: Some("redis"), ..outcome("units", waits, false) }, HOURLY, later);
        assert_eq!(schedule.pause(later).as_secs(), 2);
        assert_eq!(schedule.next("units", later), Next::Run);
    }

    #[test]
    fn a_change_makes_the_done_steps_behind_it_due() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut schedule = Schedule::default();
        let waits = Observation::Waiting("it".to_owned());
        assert_eq!(schedule.next("database", now), Next::Run);
        schedule.record(&outcome("database", Observation::Done, true), HOURLY, now);
        schedule.record(&outcome("certificate", waits.clone(), false), HOURLY, now);
        schedule.begin();
        assert_eq!(schedule.next("database", later), Next::Keep(Observation::Done));
        assert_eq!(schedule.next("certificate", later), Next::Keep(waits.clone()));
        schedule.record(&outcome("secrets", Observation::Done, true), HOURLY, later);
        assert_eq!(schedule.next("database", later), Next::Run);
        assert_eq!(schedule.next("certificate", later), Next::Keep(waits));
        assert_eq!(schedule.next("certificate", now + Duration::from_secs(2)), Next::Run);
        schedule.reset();
        assert_eq!(schedule.next("certificate", later), Next::Run);
    }

    #[test]
    fn the_effect_is_doubted_while_the_cause_was_not_looked_at() {
        let now = Instant::now();
        let later = now + Duration::from_secs(11);
        let mut schedule = Schedule::default();
        schedule.record(&outcome("postgresql", Observation::Done, false), HOURLY, now);
        schedule.record(&outcome("units", Observation::Done, false), Duration::from_secs(10), now);
        schedule.begin();
        assert!(schedule.doubts("units"), "the cause may have come since it was looked at");
        schedule.record(&outcome("secrets", Observation::Done, true), HOURLY, now);
        assert!(!schedule.doubts("units"), "the change is the cause");
        schedule.begin();
        assert_eq!(schedule.next("postgresql", later), Next::Keep(Observation::Done));
        assert_eq!(schedule.next("units", later), Next::Run);
        assert!(schedule.doubts("units"));
        schedule.reset();
        schedule.record(&outcome("certificate", Observation::Done, false), HOURLY, later);
        assert_eq!(schedule.pause(later), Duration::ZERO);
        schedule.begin();
        assert_eq!(schedule.next("postgresql", later), Next::Run);
        assert!(!schedule.doubts("units"), "everything is looked at");
    }
}
