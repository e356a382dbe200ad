//! First boot and PostgreSQL servers elsewhere: what is said about each fault, and that it heals when the cause goes.
//!
//! The servers are real ones on loopback, each in a folder of its own and as a user without rights; Rails is the stand-in that the crash
//! matrix has, too. Users are changed, so this runs as root or in a user namespace.

#![expect(clippy::print_stderr, reason = "a test program of several roles talks through its outputs")]
#![allow(clippy::disallowed_methods, reason = "a test sets its own scene and starts its own programs")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod cluster;
mod faults;
mod machine;
#[path = "../standin/rails.rs"]
mod rails;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};

/// Set in the process that is root, at least in its own namespace.
const INSIDE: &str = "DATABASE_TESTS_INSIDE";

fn main() -> ExitCode {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let args: Vec<String> = words.collect();
    if program.ends_with("/bundle") {
        return match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["exec", "rails", task] => match rails::run(task) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{error:#}");
                    ExitCode::FAILURE
                }
            },
            _ => ExitCode::FAILURE,
        };
    }
    if !rustix::process::geteuid().is_root() && std::env::var_os(INSIDE).is_none() {
        let own = std::env::current_exe().unwrap_or_default();
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-auto", "--map-root-user", "--"]).arg(own).args(args).env(INSIDE, "1");
        let error = command.exec();
        eprintln!("starting `unshare`: {error}");
        return ExitCode::FAILURE;
    }
    let trials = faults::ALL.iter().map(|(name, test)| {
        Trial::test(*name, || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
