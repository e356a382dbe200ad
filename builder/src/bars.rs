//! The `Reporter` for a terminal: one indicatif bar for the running stage, one finished line for each before it.

use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::report::{Reporter, Unit};

/// Draws on standard error.
pub struct Bars {
    bar: Mutex<ProgressBar>,
}

impl Bars {
    /// No bar is drawn until the first stage begins.
    pub fn new() -> Self {
        Bars { bar: Mutex::new(ProgressBar::hidden()) }
    }

    fn bar(&self) -> std::sync::MutexGuard<'_, ProgressBar> {
        self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Default for Bars {
    fn default() -> Self {
        Self::new()
    }
}

fn style(template: &str) -> ProgressStyle {
    // A template that indicatif refuses would be our bug; the default style still shows progress.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

const SPINNER: &str = "{prefix} {spinner} {elapsed} {wide_msg}";
const COUNT: &str = "{prefix} [{bar:24}] {pos}/{len} {elapsed} {wide_msg}";
const BYTES: &str = "{prefix} [{bar:24}] {bytes}/{total_bytes} {bytes_per_sec} {elapsed} {wide_msg}";

impl Reporter for Bars {
    fn stage(&self, number: usize, total: usize, name: &str) {
        let bar = ProgressBar::new_spinner()
            .with_style(style(SPINNER))
            .with_prefix(format!("[{number}/{total}] {name}"));
        bar.enable_steady_tick(Duration::from_millis(200));
        *self.bar() = bar;
    }

    fn stage_done(&self, _: &str, elapsed: Duration, cached: bool) {
        let bar = self.bar();
        let how = if cached { ", from the store" } else { "" };
        bar.println(format!("{} {:.1} s{how}", bar.prefix(), elapsed.as_secs_f64()));
        bar.finish_and_clear();
    }

    fn stage_failed(&self, _: &str) {
        self.bar().finish_and_clear();
    }

    fn progress(&self, done: u64, total: u64, unit: Unit) {
        let bar = self.bar();
        if bar.length() != Some(total) && total > 0 {
            bar.set_length(total);
            bar.set_style(style(if unit == Unit::Bytes { BYTES } else { COUNT }));
        }
        bar.set_position(done);
    }

    fn doing(&self, what: &str) {
        self.bar().set_message(what.to_owned());
    }

    fn note(&self, text: &str) {
        self.bar().suspend(|| {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "      {text}");
        });
    }
}
