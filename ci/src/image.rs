//! The demo image, built by `imgbuild` as a user would, where every command of `cargo ci` finds it.

use anyhow::{Context as _, Result};
use testkit::image::Disks;
use xshell::{Shell, cmd};

/// Below the workspace; the VM scenario reads the same folder.
const FOLDER: &str = "target/images";

/// Builds the image, or lets the store answer, and returns its disks.
pub fn build(shell: &Shell) -> Result<Disks> {
    cmd!(shell, "cargo build --quiet --package imgbuild").run()?;
    let output = shell.current_dir().join(FOLDER);
    cmd!(
        shell,
        "cargo run --quiet --package imgbuild -- build --image demo --format qcow2 --output {output}"
    )
    .run()
    .context("building the demo image")?;
    find(shell)
}

/// The disks of the last build.
pub fn find(shell: &Shell) -> Result<Disks> {
    Disks::find(&shell.current_dir().join(FOLDER))
}
