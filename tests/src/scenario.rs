//! Ordered checks on one machine, reported in the form of Rust's own tests.
//!
//! A guest under emulation takes minutes to boot, so many checks share one, in the order in which they are written: the state is
//! made before the first check and dropped, with the machine and the lab in it, after the last. A check that fails does not stop
//! the ones after it; a filter on the command line picks checks by name.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};

/// A check: a name as its test name, and what it does with the shared state.
pub type Check<S> = (&'static str, fn(&mut S) -> Result<()>);

/// A line for whoever reads what a check said, whether it passes or not.
pub fn say(line: &str) {
    use std::io::Write as _;
    // A closed standard output changes nothing about the check.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Runs the checks one after another on a state that the first one finds as `start` made it, and says how long each took. One that
/// would begin after `limit` fails untried: checks that fail slowly must not keep anybody from hearing which.
pub fn run<S: Send + 'static>(start: impl FnOnce() -> S, limit: Duration, checks: &[Check<S>]) -> ExitCode {
    let beginning = Instant::now();
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let state = Arc::new(Mutex::new(start()));
    let trials = checks.iter().map(|&(name, check)| {
        let state = Arc::clone(&state);
        Trial::test(name, move || {
            // A poisoned lock only says that an earlier check panicked, which has been reported.
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let begun = Instant::now();
            let result = in_time(beginning, limit).and_then(|()| check(&mut state));
            say(&format!("{:.1} s", begun.elapsed().as_secs_f64()));
            result.map_err(|error| Failed::from(format!("{error:#}")))
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // The trials are gone, so this is the last reference: the machine and the lab end here, before the exit code is out.
    drop(state);
    conclusion.exit_code()
}

fn in_time(beginning: Instant, limit: Duration) -> Result<()> {
    ensure!(
        beginning.elapsed() < limit,
        "not tried: the checks before it took more than {} s",
        limit.as_secs()
    );
    Ok(())
}
