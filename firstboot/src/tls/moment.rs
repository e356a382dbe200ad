//! Points in time that are compared later, by another process or after another boot, on a machine whose clock may jump.
//!
//! Within one boot the time since that boot counts, which nobody can set. Across boots only the time of day is left; whoever
//! relies on it has it confirmed by the authority before anything is asked for that counts against a limit.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::certificate;

/// A point in time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Moment {
    /// Time of day, in seconds since 1970.
    pub wall: i64,
    /// The kernel's name for this boot.
    pub boot: String,
    /// Seconds since that boot, suspended ones included.
    pub uptime: i64,
}

impl Moment {
    /// Now, on the machine whose file system has this root.
    pub fn now(root: &Path) -> anyhow::Result<Moment> {
        Ok(Moment {
            wall: certificate::now()?,
            boot: boot(root),
            uptime: rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec,
        })
    }

    /// So much later in the same boot.
    #[must_use]
    pub fn plus(&self, elapsed: Duration) -> Moment {
        let seconds = i64::try_from(elapsed.as_secs()).unwrap_or_default();
        Moment { wall: self.wall + seconds, boot: self.boot.clone(), uptime: self.uptime + seconds }
    }

    /// How many seconds have gone by since an earlier moment. Negative when that cannot be: the clock was set back between two
    /// boots, or was wrong in the earlier one.
    pub fn since(&self, earlier: &Moment) -> i64 {
        if self.boot == earlier.boot { self.uptime - earlier.uptime } else { self.wall - earlier.wall }
    }
}

/// The kernel's name for this boot.
pub fn boot(root: &Path) -> String {
    let text = fs_err::read_to_string(root.join("proc/sys/kernel/random/boot_id")).unwrap_or_default();
    text.trim().to_owned()
}

/// A time of day as the operator reads it.
pub fn minute(seconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!("{} {:02}:{:02} UTC", time.date(), time.hour(), time.minute())
}

#[cfg(test)]
mod tests {
    use super::{Moment, minute};

    #[test]
    fn only_another_boot_believes_the_clock() {
        let moment = |wall, boot: &str, uptime| Moment { wall, boot: boot.to_owned(), uptime };
        let earlier = moment(1000, "one", 50);
        for (later, expected) in [
            (moment(1060, "one", 110), 60),
            (moment(999_999_999, "one", 110), 60),
            (moment(1, "one", 110), 60),
            (moment(1060, "two", 3), 60),
            (moment(1, "two", 3), -999),
        ] {
            assert_eq!(later.since(&earlier), expected, "{later:?}");
        }
        assert_eq!(minute(0), "1970-01-01 00:00 UTC");
    }
}
