//! `imgbuild`: parse, run, exit code.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = imgbuild::cli::parse(std::env::args_os());
    match imgbuild::commands::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed standard error changes nothing about the exit code.
            let _ = writeln!(std::io::stderr(), "{}", imgbuild::error::render(&error));
            ExitCode::from(imgbuild::error::exit_code(&error))
        }
    }
}
