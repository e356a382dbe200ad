//! KVM or TCG: KVM is believed only after a guest kernel has come up in it.
//!
//! `/dev/kvm` may open and create machines whose kernels hang (nested or filtered virtualisation). So the first machine on a host
//! is a trial: the image itself, its disks untouched, for at most half a minute. The answer is kept until the host reboots, unless
//! the image gave none.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use fs_err as fs;

use super::medium::Medium;
use super::{Devices, Firmware, Machine, MachineOptions, Net};
use crate::exec::Log;

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

/// What costs the translator more than it gives the guest is off: AVX, page tables of five levels, the kernel's guards against
/// executing and reading user memory, virtualisation in the guest. Linux knows that this vendor's processors have no Meltdown: else it
/// changes page tables at every system call, and all that the translator knows of addresses is lost with them. That is worth more than
/// the processor's clock, which Linux believes of this vendor's machines only where it is told to, and takes the HPET instead.
const TCG_PROCESSOR: &str = "max,vendor=AuthenticAMD,la57=off,avx=off,avx2=off,smap=off,smep=off,svm=off";

impl Accelerator {
    /// QEMU's arguments.
    pub fn arguments(self) -> Vec<&'static str> {
        match self {
            Accelerator::Kvm => vec!["-accel", "kvm", "-cpu", "host"],
            Accelerator::Tcg => vec!["-accel", "tcg,thread=multi,tb-size=512", "-cpu", TCG_PROCESSOR],
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Accelerator::Kvm => "KVM",
            Accelerator::Tcg => "TCG (software emulation)",
        }
    }

    /// KVM when a trial of this system disk comes up in it, else TCG. `store` keeps the answer, `log` hears why it is not KVM.
    pub fn prove(system: &Medium, store: &Path, log: impl FnOnce(&str)) -> Result<Self> {
        if fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
            return Ok(Accelerator::Tcg);
        }
        let answer = answer_path(store)?;
        if let Ok(text) = fs::read_to_string(&answer) {
            return Ok(if text.lines().next() == Some("kvm") { Accelerator::Kvm } else { Accelerator::Tcg });
        }
        let folder = tempfile::tempdir()?;
        match trial(system, folder.path())? {
            Trial::Works => {
                crate::atomic::write(&answer, b"kvm\n")?;
                Ok(Accelerator::Kvm)
            }
            Trial::Fails(reason) => {
                log(&format!("KVM does not work here: {reason}"));
                crate::atomic::write(&answer, format!("tcg\n{reason}\n").as_bytes())?;
                Ok(Accelerator::Tcg)
            }
            Trial::Silent(reason) => {
                log(&format!("KVM could not be tried by this image: {reason}"));
                Ok(Accelerator::Tcg)
            }
        }
    }
}

fn answer_path(store: &Path) -> Result<PathBuf> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(store.join("kvm").join(boot.trim()))
}

/// What a trial has shown.
enum Trial {
    /// A kernel came up.
    Works,
    /// QEMU did not live, or what the boot loader started did not.
    Fails(String),
    /// Nothing was ever heard: it may as well be the disk, which no BIOS boots.
    Silent(String),
}

fn trial(system: &Medium, folder: &Path) -> Result<Trial> {
    let options = MachineOptions {
        name: "kvm-trial".to_owned(),
        system: system.clone(),
        data: None,
        write_log: None,
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
        uuid: None,
        accelerator: Accelerator::Kvm,
    };
    // A disk that cannot be opened says nothing of KVM.
    super::arguments::disks(&options, folder, &Log::create(&folder.join("trial.log"))?)?;
    let mut machine = match Machine::start(&options, folder) {
        Ok(machine) => machine,
        Err(error) => return Ok(Trial::Fails(format!("{error:#}"))),
    };
    let Err(error) = machine.wait_serial(ALIVE, TRIAL_LIMIT) else { return Ok(Trial::Works) };
    let reason = format!("{error:#}");
    Ok(match machine.child.try_wait()? {
        // By a signal or an error of its own; Ctrl-C ends it well.
        Some(status) if !status.success() => Trial::Fails(reason),
        None if !machine.serial()?.trim().is_empty() => Trial::Fails(reason),
        _ => Trial::Silent(reason),
    })
}
