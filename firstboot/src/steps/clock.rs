//! The time of day is never before the image was built: certificates made in 1970 would be valid for nobody. The network's time
//! service does the rest.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};

/// A plausible time.
pub const STEP: Step = Step {
    name: "clock",
    why: "sets a clock that is older than this image forward",
    needs: Needs::Local,
    watch: engine::MINUTELY,
    observe,
    apply,
};

fn observe(context: &Context) -> Result<Observation> {
    Ok(judge(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(), context.facts.epoch))
}

fn judge(now: u64, epoch: u64) -> Observation {
    if now < epoch { Observation::Todo("set the clock forward".to_owned()) } else { Observation::Done }
}

fn apply(context: &Context) -> Result<()> {
    let time = rustix::time::Timespec { tv_sec: i64::try_from(context.facts.epoch)?, tv_nsec: 0 };
    rustix::time::clock_settime(rustix::time::ClockId::Realtime, time).context("setting the clock")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::judge;
    use crate::engine::Observation;

    #[test]
    fn only_an_impossible_clock_is_set() {
        assert_eq!(judge(1_700_000_000, 1_700_000_000), Observation::Done);
        assert!(matches!(judge(0, 1_700_000_000), Observation::Todo(_)));
    }
}
