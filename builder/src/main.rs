//! `imgbuild`: parse, run, exit code.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    // The modes of an image's files must not depend on who builds it; what is secret has modes of its own.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let arguments = imgbuild::cli::parse(std::env::args_os());
    match imgbuild::commands::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed standard error changes nothing about the exit code.
            let text = imgbuild::error::render(&error);
            if !text.is_empty() {
                let _ = writeln!(std::io::stderr(), "{text}");
            }
            ExitCode::from(imgbuild::error::exit_code(&error))
        }
    }
}
