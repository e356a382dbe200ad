//! `imgbuild` as a user types it: exit codes, data and messages, as snapshots. Nothing here needs a network or a built image.

#![expect(clippy::unwrap_used, reason = "a test fails where its ground gives way")]

mod bad_input;
mod carrying;
mod environment;
mod ground;
mod help;
mod locks;
mod overlays;
mod packages;
mod plan;
mod recipes;
mod rules;

use std::path::Path;

use assert_cmd::Command;
use testkit::sandbox::Sandbox;

/// The repository.
fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("builder lies in the repository")
}

/// `imgbuild` in a sandbox, started in the repository.
fn imgbuild(sandbox: &Sandbox) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("imgbuild"));
    command.current_dir(project()).envs(sandbox.environment());
    command
}

/// Exit code, standard output and standard error in one text, with the sandbox's filters applied.
fn transcript(sandbox: &Sandbox, command: &mut Command) -> String {
    let output = command.output().expect("imgbuild starts");
    let text = format!(
        "exit code {}\n{}{}",
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let text = text.replace(&project().display().to_string(), "[PROJECT]");
    let folder = sandbox.home().parent().expect("the sandbox has a folder").display().to_string();
    text.replace(&folder, "[SANDBOX]").trim_end().to_owned()
}

/// Nothing but empty folders, logs and locks of indexes may be left behind by a command that failed.
fn assert_nothing_left(sandbox: &Sandbox) {
    let left = sandbox.leftovers().expect("the sandbox can be listed");
    let logs = sandbox.store().join("logs");
    let files: Vec<_> = left.iter().filter(|path| path.is_file() && !path.starts_with(&logs)).collect();
    assert!(files.is_empty(), "left behind: {files:?}");
}
