//! What the checks share: the image, the lab, the machine in it, and what earlier checks left for later ones.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use imgbuild::qemu::{Machine, MachineOptions};
use testkit::client::Cookies;
use testkit::image::Disks;
use testkit::lab::Lab;

use crate::power_cut::History;
use crate::stand_in::StandIn;

/// The instance's name.
pub const DOMAIN: &str = "v6don.lab.test";
/// The program under test.
pub const IMGBUILD: &str = env!("CARGO_BIN_EXE_imgbuild");

/// The shared state. The machine ends before the lab does.
#[derive(Default)]
pub struct Site {
    /// Made by the first check.
    pub disks: Option<Disks>,
    /// The OVA of it, in a folder that goes with it.
    pub package: Option<(tempfile::TempDir, PathBuf)>,
    /// The second image, made after the first machine is off.
    pub stand_in: Option<StandIn>,
    /// Running between first boot and power off.
    pub machine: Option<Machine>,
    /// How it was started.
    pub options: Option<MachineOptions>,
    /// Its `/etc/machine-id`, once it was looked at.
    pub first_id: Option<String>,
    /// What the machine went through on its way to green.
    pub history: Option<History>,
    /// There as long as the machine.
    pub lab: Option<Lab>,
    /// The visitor who signed up.
    pub visitor: Option<Visitor>,
}

/// Somebody with an account.
#[derive(Debug, Default)]
pub struct Visitor {
    /// The session of the browser.
    pub cookies: Cookies,
    /// For the API, once the account is active.
    pub token: Option<String>,
    /// The picture, once it is uploaded.
    pub media: Option<String>,
    /// The text of the status, once it is posted.
    pub status: Option<String>,
}

impl Site {
    pub fn disks(&self) -> Result<&Disks> {
        self.disks.as_ref().context("there is no image: its build did not succeed")
    }

    pub fn ova(&self) -> Result<&Path> {
        let (_, ova) = self.package.as_ref().context("there is no OVA: its build did not succeed")?;
        Ok(ova)
    }

    pub fn stand_in(&mut self) -> Result<&mut StandIn> {
        self.stand_in.as_mut().context("there is no stand-in for CentOS 7: its build did not succeed")
    }

    pub fn lab(&self) -> Result<&Lab> {
        self.lab.as_ref().context("there is no lab: first boot was not reached")
    }

    pub fn machine(&mut self) -> Result<&mut Machine> {
        self.machine.as_mut().context("there is no machine: it did not boot")
    }

    pub fn visitor(&mut self) -> Result<&mut Visitor> {
        self.visitor.as_mut().context("there is no account: sign-up did not succeed")
    }
}

impl Visitor {
    pub fn token(&self) -> Result<&str> {
        self.token.as_deref().context("there is no token: the account was not activated")
    }
}

/// The project's folder.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where `cargo ci` builds the image too, so that it is built once.
pub fn images() -> PathBuf {
    project().join("target/images")
}

/// Disks and logs of the machine; kept after a run, for whoever looks into a failure.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm")
}
