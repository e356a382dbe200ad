//! How library code talks: through a `Reporter`, never by printing.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

/// Receives what happens during a build. All methods have short, finished sentences as texts.
pub trait Reporter: Send + Sync {
    /// Stage `number` of `total` begins.
    fn stage(&self, number: usize, total: usize, name: &str);
    /// The stage ended; `cached` when its result came from the store.
    fn stage_done(&self, name: &str, elapsed: Duration, cached: bool);
    /// The stage ended by an error; its bar goes away.
    fn stage_failed(&self, name: &str);
    /// `done` of `total` units (bytes or items); a total of 0 is unknown.
    fn progress(&self, done: u64, total: u64, unit: Unit);
    /// What the stage is doing now, replaced by the next.
    fn doing(&self, what: &str);
    /// A line that stays.
    fn note(&self, text: &str);
}

/// What `progress` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Packages, files, seconds: anything that is counted.
    Items,
}

/// Says nothing.
pub struct Silent;

impl Reporter for Silent {
    fn stage(&self, _: usize, _: usize, _: &str) {}
    fn stage_done(&self, _: &str, _: Duration, _: bool) {}
    fn stage_failed(&self, _: &str) {}
    fn progress(&self, _: u64, _: u64, _: Unit) {}
    fn doing(&self, _: &str) {}
    fn note(&self, _: &str) {}
}

/// One line an event on standard error, for logs and pipes.
#[derive(Default)]
pub struct Plain {
    tenth: Mutex<u64>,
}

impl Plain {
    fn line(text: &str) {
        // A closed standard error is no reason to stop a build.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

impl Reporter for Plain {
    fn stage(&self, number: usize, total: usize, name: &str) {
        *self.tenth.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = 0;
        Self::line(&format!("[{number}/{total}] {name}"));
    }

    fn stage_done(&self, name: &str, elapsed: Duration, cached: bool) {
        let how = if cached { ", from the store" } else { "" };
        Self::line(&format!("      {name}: {:.1} s{how}", elapsed.as_secs_f64()));
    }

    fn stage_failed(&self, name: &str) {
        Self::line(&format!("      {name}: failed"));
    }

    fn progress(&self, done: u64, total: u64, _: Unit) {
        if total == 0 {
            return;
        }
        let tenth = done.saturating_mul(10) / total;
        let mut last = self.tenth.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // One line a quarter is enough for a log.
        if tenth / 3 > *last / 3 && tenth < 10 {
            Self::line(&format!("      {tenth}0 %"));
        }
        *last = tenth;
    }

    fn doing(&self, _: &str) {}

    fn note(&self, text: &str) {
        Self::line(&format!("      {text}"));
    }
}

/// Bars on a terminal, plain lines elsewhere, nothing when `quiet`.
pub fn choose(quiet: bool, no_progress: bool) -> Box<dyn Reporter> {
    if quiet {
        Box::new(Silent)
    } else if !no_progress && std::io::stderr().is_terminal() && std::env::var_os("NO_PROGRESS").is_none() {
        Box::new(crate::bars::Bars::new())
    } else {
        Box::new(Plain::default())
    }
}
