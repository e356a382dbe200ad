//! The demo image, built by `imgbuild` as a user would, where every command of `cargo ci` finds it; and what is made of it while
//! there is a network.

use anyhow::{Context as _, Result};
use testkit::image::Disks;
use testkit::standin::Kept;
use xshell::{Shell, cmd};

/// Below the workspace; the VM scenario reads the same folder.
const FOLDER: &str = "target/images";
/// The same for the stand-in of CentOS 7's repositories.
const STAND_IN: &str = "target/stand-in";

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

/// Makes the repository that stands in for CentOS 7's out of the image's base tree, if it is not there from an earlier run.
pub fn stand_in(shell: &Shell) -> Result<Kept> {
    let base = imgbuild::pipeline::base_tree(&shell.current_dir(), "demo")?;
    Kept::find_or_make(base.tar(), base.key().as_str(), &shell.current_dir().join(STAND_IN))
}

/// The disks of the last build.
pub fn find(shell: &Shell) -> Result<Disks> {
    Disks::find(&shell.current_dir().join(FOLDER))
}
