//! An image running in QEMU: started, watched by its serial line, driven by QMP and the guest agent, stopped.
//!
//! A `Machine` owns its QEMU process and kills it when dropped. The files of an image are never changed unless the caller says so.

pub mod accel;

mod agent;
mod arguments;
pub mod medium;
mod qmp;
pub mod record;
mod serial;

use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use fs_err as fs;

pub use agent::GuestOutput;
pub use serial::{Verdict, VerdictReport};

use crate::error::Fault;
use crate::exec::{Log, Run};
use accel::Accelerator;
use medium::Medium;
use qmp::Qmp;

/// How long QEMU may take to open its sockets.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a machine may say nothing at all: firmware and boot loader write within seconds, even under emulation.
const SILENCE: Duration = Duration::from_secs(180);
/// Lines of the serial console that an error shows.
const TAIL: usize = 50;

/// What starts the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
}

/// What the guest's network card is plugged into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Net {
    /// No card.
    None,
    /// QEMU's own network; pairs of a port of 127.0.0.1 and a port of the guest.
    User {
        /// Forwarded ports: host, guest.
        forwards: Vec<(u16, u16)>,
    },
    /// A tap interface that exists, perhaps in a network namespace under `/run/netns`.
    Tap {
        /// The interface.
        interface: String,
        /// The namespace in which QEMU runs.
        namespace: Option<String>,
    },
}

/// What to run.
#[derive(Debug, Clone)]
pub struct MachineOptions {
    /// Name in QEMU's window and logs.
    pub name: String,
    /// System disk.
    pub system: Medium,
    /// Data disk.
    pub data: Option<Medium>,
    /// A new file that gets every write and flush of the data disk, in the format of Linux' dm-log-writes.
    pub write_log: Option<PathBuf>,
    /// What disks and network card are to the guest.
    pub devices: Devices,
    /// Write into overlays in the work folder instead of the disks.
    pub overlay: bool,
    /// What starts the guest.
    pub firmware: Firmware,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Network.
    pub net: Net,
    /// MAC address of the card.
    pub mac: String,
    /// Files handed to the guest: name and content.
    pub fw_cfg: Vec<(String, Vec<u8>)>,
    /// A disk with a file system, attached read-only: a config volume.
    pub volume: Option<PathBuf>,
    /// A disc in the CD drive: what a hypervisor hands over an OVF environment on.
    pub cdrom: Option<PathBuf>,
    /// A snapshot to resume instead of booting.
    pub resume: Option<String>,
    /// The mark by which the firmware tells this machine from others; none when `None`.
    pub uuid: Option<String>,
    /// KVM or TCG.
    pub accelerator: Accelerator,
}

/// What disks and network card are to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// KVM's own.
    Virtio,
    /// What an OVA asks vSphere for: PVSCSI and VMXNET3.
    Vmware,
}

/// A running guest.
pub struct Machine {
    folder: PathBuf,
    child: Child,
    /// When QEMU was started.
    powered: Instant,
    qmp: Qmp,
    /// Where in the serial log the current boot begins.
    boot_offset: u64,
    /// Folder of the sockets; removed with the machine.
    sockets: tempfile::TempDir,
}

impl Machine {
    /// Starts QEMU. The folder gets `serial.log`, `qemu.log` and the overlays, or has them from a machine before. QEMU ends with the thread that calls this, even if
    /// that is killed.
    pub fn start(options: &MachineOptions, folder: &Path) -> Result<Machine> {
        fs::create_dir_all(folder)?;
        let log = Log::create(&folder.join("commands.log"))?;
        // A machine that was cut off and starts again continues the log of its console.
        let boot_offset = fs::metadata(folder.join("serial.log")).map_or(0, |meta| meta.len());
        // Socket paths are limited to 108 bytes; a folder deep in a build tree is longer.
        let sockets = tempfile::Builder::new().prefix("qemu-").tempdir()?;
        let disks = arguments::disks(options, folder, &log)?;
        let arguments = arguments::arguments(options, &disks, folder, sockets.path())?;
        let output = fs::File::create(folder.join("qemu.log"))?;
        let run = Run::new(&log, "setpriv").args(["--pdeathsig", "KILL", "--"]);
        let run = match &options.net {
            Net::Tap { namespace: Some(namespace), .. } => run.args(["ip", "netns", "exec", namespace]),
            _ => run,
        };
        let run = run.arg("qemu-system-x86_64");
        let powered = Instant::now();
        let mut child = run.args(arguments).start(&output)?;
        let qmp = match wait_for_qmp(&sockets.path().join("qmp"), &mut child) {
            Ok(qmp) => qmp,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let said = fs::read_to_string(folder.join("qemu.log")).unwrap_or_default();
                return Err(
                    Fault::environment(format!("QEMU did not start: {error:#}: {}", said.trim())).into()
                );
            }
        };
        Ok(Machine { folder: folder.to_owned(), child, powered, qmp, boot_offset, sockets })
    }

    /// The serial console as a Unix socket, for a person.
    pub fn console(&self) -> PathBuf {
        self.sockets.path().join("serial")
    }

    /// A witness of this boot, from power-on.
    pub fn record(&self) -> record::Recorder {
        record::Recorder::start(self.serial_path(), self.powered)
    }

    /// How long ago QEMU was started.
    pub fn age(&self) -> Duration {
        self.powered.elapsed()
    }

    /// Waits until the guest gives the wanted verdict.
    pub fn wait_verdict(&mut self, wanted: Verdict, limit: Duration) -> Result<VerdictReport> {
        self.watch_verdict(wanted, limit, &AtomicBool::new(false), |_| {})
    }

    /// The same; every new report is shown to `watch`, and `ended` ends the wait with an error.
    pub fn watch_verdict(
        &mut self,
        wanted: Verdict,
        limit: Duration,
        ended: &AtomicBool,
        mut watch: impl FnMut(&VerdictReport),
    ) -> Result<VerdictReport> {
        self.wait_report(limit, ended, |report| {
            watch(report);
            report.verdict == wanted
        })
        .with_context(|| format!("waiting for a {wanted} verdict"))
    }

    /// Waits until the guest gives a report that `is_wanted`; it is asked once for every new one. `ended` ends the wait with an
    /// error.
    pub fn wait_report(
        &mut self,
        limit: Duration,
        ended: &AtomicBool,
        mut is_wanted: impl FnMut(&VerdictReport) -> bool,
    ) -> Result<VerdictReport> {
        let start = Instant::now();
        let mut seen = None;
        loop {
            if ended.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            let text = self.serial()?;
            if let Some(report) = serial::last_report(&text)
                && seen.as_ref() != Some(&report)
            {
                if is_wanted(&report) {
                    return Ok(report);
                }
                seen = Some(report);
            }
            if let Some(fault) = serial::fatal(&text) {
                bail!("the guest died: {fault}{}", self.evidence());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("QEMU ended with {status} before that{}", self.evidence());
            }
            if text.is_empty() && start.elapsed() > SILENCE {
                bail!(
                    "nothing on the serial console within {} s: the firmware finds no disk to boot from",
                    SILENCE.as_secs()
                );
            }
            if start.elapsed() > limit {
                let last = seen.map_or_else(
                    || "there was no verdict at all".to_owned(),
                    |report| format!("the last was {}", report.json),
                );
                bail!("not within {} s, {last}{}", limit.as_secs(), self.evidence());
            }
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    /// Waits until the serial console of this boot shows a text.
    pub fn wait_serial(&mut self, wanted: &str, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while !self.serial()?.contains(wanted) {
            if start.elapsed() > limit || self.child.try_wait()?.is_some() {
                bail!("no `{wanted}` on the serial console within {} s{}", limit.as_secs(), self.evidence());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Runs a shell command in the guest, by its agent.
    pub fn exec(&mut self, command: &str) -> Result<GuestOutput> {
        let socket = self.sockets.path().join("agent");
        agent::exec(&socket, command, Duration::from_secs(300))
            .with_context(|| format!("running `{command}` in the guest{}", self.evidence()))
    }

    /// Runs a shell command in the guest and wants exit code 0; returns its standard output.
    pub fn shell(&mut self, command: &str) -> Result<String> {
        let output = self.exec(command)?;
        if output.code != 0 {
            bail!("`{command}` in the guest: exit code {}: {}{}", output.code, output.stdout, output.stderr);
        }
        Ok(output.stdout)
    }

    /// Saves the whole machine under a name in its qcow2 disks.
    pub fn save(&mut self, snapshot: &str) -> Result<()> {
        let said = self.qmp.monitor(&format!("savevm {snapshot}"))?;
        if said.trim().is_empty() { Ok(()) } else { bail!("saving the machine: {}", said.trim()) }
    }

    /// Restores a saved state in place: a booted guest in about two seconds.
    pub fn restore(&mut self, snapshot: &str) -> Result<()> {
        let said = self.qmp.monitor(&format!("loadvm {snapshot}"))?;
        if said.trim().is_empty() { Ok(()) } else { bail!("restoring the machine: {}", said.trim()) }
    }

    /// Plugs the cable of the guest's network adapter in, or pulls it out.
    pub fn set_link(&mut self, is_up: bool) -> Result<()> {
        self.qmp.execute("set_link", &serde_json::json!({ "name": "net", "up": is_up }))?;
        Ok(())
    }

    /// Asks the guest to reboot; verdicts of the boot before no longer count.
    pub fn reboot(&mut self) -> Result<()> {
        self.boot_offset = fs::metadata(self.serial_path())?.len();
        // The agent's answer is lost when the guest goes down at once.
        let _ = agent::exec(&self.sockets.path().join("agent"), "systemctl reboot", Duration::from_secs(20));
        self.wait_serial("Linux version", Duration::from_secs(180))
            .context("waiting for the guest to boot again")?;
        // Until it went down, the guest may have said once more how it was.
        self.boot_offset = fs::metadata(self.serial_path())?.len();
        Ok(())
    }

    /// The guest's screen as a PNG.
    pub fn screenshot(&mut self, png: &Path) -> Result<()> {
        self.qmp.execute("screendump", &serde_json::json!({ "filename": png, "format": "png" }))?;
        Ok(())
    }

    /// Powers the guest down as its power button would, bounded in time.
    pub fn stop(mut self) -> Result<()> {
        self.qmp.execute("system_powerdown", &serde_json::json!({}))?;
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            if start.elapsed() > Duration::from_secs(180) {
                bail!("the guest did not power down within 180 s{}", self.evidence());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Ends QEMU at once, as a power cut would end the guest.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Whether QEMU still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// The last lines of the serial console.
    pub fn serial_tail(&self, lines: usize) -> String {
        let text = fs::read(self.serial_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// What the serial console has shown since this boot began.
    pub fn serial(&self) -> Result<String> {
        let bytes = fs::read(self.serial_path())?;
        let start = usize::try_from(self.boot_offset).unwrap_or(usize::MAX).min(bytes.len());
        Ok(String::from_utf8_lossy(&bytes[start..]).into_owned())
    }

    fn serial_path(&self) -> PathBuf {
        self.folder.join("serial.log")
    }

    fn evidence(&self) -> String {
        format!(
            "\n--- last lines of the serial console ({}) ---\n{}",
            self.serial_path().display(),
            self.serial_tail(TAIL)
        )
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for_qmp(socket: &Path, child: &mut Child) -> Result<Qmp> {
    let start = Instant::now();
    loop {
        match Qmp::connect(socket) {
            Ok(qmp) => return Ok(qmp),
            Err(error) if start.elapsed() > START_LIMIT => return Err(error),
            Err(_) => {}
        }
        if let Some(status) = child.try_wait()? {
            bail!("it ended with {status}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
