//! KVM or TCG: KVM is believed only after a guest kernel has come up in it.
//!
//! `/dev/kvm` may open and create machines whose kernels hang (nested or filtered virtualisation). So the first machine on a host
//! is a trial: the image itself, its disks untouched, for at most half a minute. The answer is kept until the host reboots.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use fs_err as fs;

use super::medium::Medium;
use super::{Devices, Firmware, Machine, MachineOptions, Net};

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The host's processor.
    Kvm,
    /// QEMU's translator, 10 to 20 times slower.
    Tcg,
}

/// The kernel says this when it starts the initramfs.
const ALIVE: &str = "Run /init as init process";
const TRIAL_LIMIT: Duration = Duration::from_secs(30);

impl Accelerator {
    /// QEMU's arguments.
    pub fn arguments(self) -> Vec<&'static str> {
        match self {
            Accelerator::Kvm => vec!["-accel", "kvm", "-cpu", "host"],
            // A processor without AVX: translated code that uses it is slower than code that does not.
            Accelerator::Tcg => vec!["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "Nehalem"],
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Accelerator::Kvm => "KVM",
            Accelerator::Tcg => "TCG (software emulation)",
        }
    }

    /// KVM when a trial of this system disk comes up in it, else TCG. `store` keeps the answer.
    pub fn prove(system: &Medium, store: &Path) -> Result<Self> {
        if fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
            return Ok(Accelerator::Tcg);
        }
        let answer = answer_path(store)?;
        if let Ok(text) = fs::read_to_string(&answer) {
            return Ok(if text.trim() == "kvm" { Accelerator::Kvm } else { Accelerator::Tcg });
        }
        let folder = tempfile::tempdir()?;
        let works = trial(system, folder.path()).is_ok();
        crate::atomic::write(&answer, if works { b"kvm\n" } else { b"tcg\n" })?;
        Ok(if works { Accelerator::Kvm } else { Accelerator::Tcg })
    }
}

fn answer_path(store: &Path) -> Result<PathBuf> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(store.join("kvm").join(boot.trim()))
}

fn trial(system: &Medium, folder: &Path) -> Result<()> {
    let options = MachineOptions {
        name: "kvm-trial".to_owned(),
        system: system.clone(),
        data: None,
        devices: Devices::Virtio,
        overlay: true,
        firmware: Firmware::Bios,
        cpus: 2,
        memory_mib: 1024,
        net: Net::None,
        mac: String::new(),
        fw_cfg: Vec::new(),
        volume: None,
        cdrom: None,
        resume: None,
        accelerator: Accelerator::Kvm,
    };
    Machine::start(&options, folder)?.wait_serial(ALIVE, TRIAL_LIMIT)
}
