//! The crash matrix: the steps of first boot are ended after each operation on the disk that the fault layer counts, then run to
//! their end. What they leave must be what an undisturbed run leaves. An authority outlives each cut: one certificate is all that it may
//! be asked for. `space` is not among them, which changes nothing, and neither is `swap`, which needs the kernel's own memory.
//!
//! | Module | What it gives |
//! | --- | --- |
//! | `scene` | the tree of a blank machine |
//! | `machine` | namespaces and a root of its own around such a tree: what starts in it dies with it |
//! | `world` | the network around it, with a certificate authority and a mail relay |
//! | `engine` | the steps of first boot, run in that machine under a plan of the fault layer |
//! | `standins` | the programs that Debian has no package for, or that need a real machine: systemd, NetworkManager, Mastodon |
//! | `state` | all that a run left on the disk and in the database, as text, random values masked |
//! | `matrix` | which runs there are, and the comparison |
//!
//! PostgreSQL, Redis, nginx, OpenSSH and the system's own tools are the real ones; `cargo ci setup` installs them.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test program of several roles talks through its outputs"
)]
#![allow(clippy::disallowed_methods, reason = "a test sets its own scene and starts its own programs")]

mod engine;
mod machine;
mod matrix;
#[path = "../standin/rails.rs"]
mod rails;
mod scene;
mod standins;
mod state;
mod world;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default().to_owned();
    let args: Vec<String> = words.collect();
    let role = match args.first().map(String::as_str) {
        _ if standins::NAMES.contains(&name.as_str()) => Some(standins::run(&name, &args)),
        Some("machine") => Some(machine::run(&args[1..])),
        Some("world") => Some(world::run(&args[1..])),
        Some("engine") => Some(engine::run(&args[1..])),
        Some("service") => Some(standins::serve(&args[1..])),
        _ => None,
    };
    match role {
        Some(Ok(code)) => ExitCode::from(code),
        Some(Err(error)) => {
            eprintln!("{name}: {error:#}");
            ExitCode::from(101)
        }
        None if std::env::var_os(machine::INSIDE).is_none() => machine::enter(&args),
        None => {
            let test = || matrix::run().map_err(|error| Failed::from(format!("{error:#}")));
            let trials = vec![Trial::test("first_boot_survives_a_cut_at_every_operation", test)];
            libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
        }
    }
}
