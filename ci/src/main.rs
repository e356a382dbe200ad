//! `cargo ci`: the project's own commands. `.ci/run` calls `cargo ci test` and nothing else.
//!
//! Each command starts with [`setup`], so that a fresh Debian machine with Rust needs no preparation.

mod bench;
mod demo;
mod image;
mod privileges;
mod progress;
mod say;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use xshell::Shell;

/// The project's own commands
#[derive(Parser)]
#[command(name = "cargo ci", bin_name = "cargo ci")]
enum Command {
    /// Install what the other commands need; does nothing when all is there
    Setup,
    /// Build the demo image, boot it in a home network of its own, and show that it serves HTTPS
    Demo {
        /// Leave the machine running until Ctrl-C
        #[arg(long)]
        keep: bool,
        /// The part that needs rights over networks; `demo` starts it by itself
        #[arg(long, hide = true)]
        boot_only: bool,
    },
    /// Cut the steps of first boot after every operation, without a machine
    Crash,
    /// Cut the power of first boots again and again
    Powercut {
        /// How many cuts at least; each first boot has twelve
        #[arg(long, default_value_t = 12)]
        count: u32,
    },
    /// Run every check and every test, VM tests included
    Test,
    /// Check the house rules
    Tidy,
    /// Measure, as ratios side by side
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let shell = Shell::new()?;
    let root =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("ci/ has no parent folder")?;
    shell.change_dir(root);
    match command {
        Command::Setup => setup::run(&shell),
        Command::Demo { keep, boot_only: true } => demo::boot(&shell, keep),
        Command::Demo { keep, boot_only: false } => demo::run(&shell, keep),
        Command::Crash => test::crash_matrix(&shell),
        Command::Powercut { count } => test::power_cuts(&shell, count),
        Command::Test => test::run(&shell),
        Command::Bench(bench) => bench::run(&shell, bench),
        Command::Tidy => {
            let broken = tidy::run(root)?;
            for rule in &broken {
                say::line(rule);
            }
            ensure!(broken.is_empty(), "house rules are broken: {}", broken.len());
            Ok(())
        }
    }
}
