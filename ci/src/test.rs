//! `cargo ci test`: format, lints, house rules, every test of the workspace, then the VM scenario. All phases run even after a
//! failure; the last line is the sum.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::{Cmd, Shell, cmd};

use crate::{image, privileges, say, setup, tidy};

/// Tests that passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    passed: u32,
    failed: u32,
}

struct Phase {
    name: &'static str,
    time: Duration,
    count: Count,
    /// Bytes free on the workspace's file system when it ended.
    free: u64,
}

/// Runs everything; an error when anything failed.
pub fn run(shell: &Shell) -> Result<()> {
    let mut phases = Vec::new();
    let mut phase = |name, work: &dyn Fn() -> Result<Count>| {
        say::title(name);
        let start = Instant::now();
        let count = work().unwrap_or_else(|error| {
            say::error(&error);
            Count { passed: 0, failed: 1 }
        });
        let free = imgbuild::store::room::free(&shell.current_dir()).unwrap_or(0);
        phases.push(Phase { name, time: start.elapsed(), count, free });
        count.failed == 0
    };
    let ready = phase("setup", &|| whole(setup::host(shell)));
    phase("setup of tests", &|| whole(setup::dotenv(shell)));
    phase("format", &|| whole(Ok(cmd!(shell, "cargo fmt --all --check").run()?)));
    phase("lints", &|| {
        cmd!(shell, "cargo clippy --workspace --all-targets --quiet -- -D warnings").run()?;
        // A workspace of its own: nothing else notices when it no longer fits the rooms that it takes in.
        let fuzz =
            cmd!(shell, "cargo check --quiet --manifest-path fuzz/Cargo.toml --target-dir target/fuzz");
        fuzz.env("RUSTFLAGS", "-D warnings").run()?;
        // A target that is no default one (`test = false`) is named.
        whole(Ok(cmd!(shell, "cargo clippy --package imgbuild --test vm --quiet -- -D warnings").run()?))
    });
    phase("house rules", &|| {
        let broken = tidy::run(&shell.current_dir())?;
        for rule in &broken {
            say::line(rule);
        }
        Ok(Count { passed: 0, failed: u32::try_from(broken.len())? })
    });
    phase("tests", &|| tests(cmd!(shell, "cargo test --workspace --no-fail-fast --quiet")));
    if ready && phase("image", &|| whole(image::build(shell).map(|_| ()))) {
        phase("stand-in", &|| whole(image::stand_in(shell).map(|_| ())));
        phase("virtual machines", &|| {
            let line = vm_line()?;
            let (program, args) = line.split_first().context("no command")?;
            // Image and repository have just been made, and a user's namespace has no network: they must be enough.
            tests(cmd!(shell, "{program} {args...}").env("IMGBUILD_TEST_OFFLINE", "1"))
        });
    }
    close(&phases)
}

/// The command that runs the VM scenario, with the rights that it needs.
fn vm_line() -> Result<Vec<&'static str>> {
    let mut line = privileges::prefix()?;
    line.extend(["cargo", "test", "--package", "imgbuild", "--test", "vm"]);
    Ok(line)
}

/// The crash matrix of first boot alone.
pub fn crash_matrix(shell: &Shell) -> Result<()> {
    setup::run(shell)?;
    cmd!(shell, "cargo test --package firstboot --test crash")
        .env("CRASH_MATRIX_WHOLE", "1")
        .run()
        .context("a cut left what it must not leave")
}

/// First boots alone, with as many power cuts as asked for; shows what each met.
pub fn power_cuts(shell: &Shell, count: u32) -> Result<()> {
    setup::host(shell)?;
    image::build(shell)?;
    let line = vm_line()?;
    let (program, args) = line.split_first().context("no command")?;
    let count = count.to_string();
    cmd!(shell, "{program} {args...} -- --nocapture")
        .env("IMGBUILD_TEST_OFFLINE", "1")
        .env("IMGBUILD_POWER_CUTS", count)
        .run()
        .context("a machine did not survive its power cuts")
}

/// A phase without tests of its own: nothing to count unless it fails.
fn whole(result: Result<()>) -> Result<Count> {
    result.map(|()| Count::default())
}

/// Runs a command, shows what it says, and counts the results in it.
fn tests(command: Cmd<'_>) -> Result<Count> {
    let shown = command.to_string();
    say::line(&format!("$ {shown}"));
    let mut child = Command::from(command)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting `{shown}`"))?;
    let mut count = Count::default();
    for line in BufReader::new(child.stdout.take().context("the pipe is gone")?).lines() {
        let line = line?;
        count = count.with(&line);
        say::line(&line);
    }
    let status = child.wait()?;
    if !status.success() && count.failed == 0 {
        bail!("running `{shown}`: {status}");
    }
    Ok(count)
}

impl Count {
    /// Adds a line of a test program, if it is one that sums up.
    fn with(self, line: &str) -> Count {
        let Some(rest) = line.trim().strip_prefix("test result: ") else { return self };
        let number = |word: &str| {
            let before = rest.split(word).next()?;
            before.split_whitespace().last()?.parse::<u32>().ok()
        };
        Count {
            passed: self.passed + number(" passed").unwrap_or(0),
            failed: self.failed + number(" failed").unwrap_or(0),
        }
    }
}

fn close(phases: &[Phase]) -> Result<()> {
    say::title("times");
    for Phase { name, time, count, free } in phases {
        let failed = if count.failed == 0 { String::new() } else { format!("  {} failed", count.failed) };
        let free = free / 1_000_000_000;
        say::line(&format!("{name:<18}{:>14}  {free:>4} GB free after it{failed}", say::duration(*time)));
    }
    let sum = |pick: fn(&Count) -> u32| phases.iter().map(|phase| pick(&phase.count)).sum::<u32>();
    let (passed, failed) = (sum(|count| count.passed), sum(|count| count.failed));
    say::line(&format!("\n{passed} passed, {failed} failed"));
    ensure!(failed == 0 && passed > 0, "not everything passed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up() {
        let count = Count::default()
            .with("running 9 tests")
            .with("test result: ok. 9 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.12s")
            .with("test result: FAILED. 5 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 6.41s");
        assert_eq!(count, Count { passed: 14, failed: 3 });
    }

    #[test]
    fn a_command_that_fails_before_its_tests_is_a_failure() {
        let shell = Shell::new().unwrap();
        assert!(tests(cmd!(shell, "sh -c 'exit 101'")).is_err());
        let one_failed = "echo 'test result: FAILED. 1 passed; 1 failed; 0 ignored'; exit 101";
        assert_eq!(tests(cmd!(shell, "sh -c {one_failed}")).unwrap(), Count { passed: 1, failed: 1 });
    }

    #[test]
    fn nothing_run_is_no_success() {
        assert!(close(&[]).is_err());
    }
}
