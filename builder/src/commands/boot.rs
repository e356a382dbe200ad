//! `imgbuild boot`: an image in QEMU, left running for the user until he ends it.

use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use firstboot::settings::{Listen, Settings};
use fs_err as fs;

use super::{context_without_project, say};
use crate::cli::{Boot, Global};
use crate::context::Context;
use crate::error::Fault;
use crate::qemu::accel::Accelerator;
use crate::qemu::medium::{self, Medium};
use crate::qemu::{Devices, Machine, MachineOptions, Net};
use crate::store::Scratch;
use crate::tools;
use crate::view::Kind;

/// fw_cfg file that first boot reads its configuration from.
const CONFIG_FILE: &str = "opt/org.mastodon/config";

/// Starts the image, shows how to reach it and its console, and waits.
pub fn run(options: &Boot, global: &Global) -> Result<()> {
    let context = context_without_project(global)?;
    let config = options.config.as_deref().map(read_config).transpose()?;
    let running = start(options, config.as_ref().map(|(text, _)| text.as_str()), &context)?;
    let mut machine = running.machine;
    if let Some((_, settings)) = &config {
        let domain = settings.domain.to_string();
        if settings.web.listen == Listen::Ipv6 {
            say(
                "web        on IPv6 alone, and QEMU's own network forwards IPv4: set listen = \"dual\" to reach it here",
            )?;
        }
        say(&format!(
            "https      curl -k --resolve {domain}:{}:127.0.0.1 https://{domain}:{}/about",
            running.https, running.https
        ))?;
    }
    say(&format!("http       http://127.0.0.1:{}/", running.http))?;
    say(&format!("ssh        ssh -p {} root@127.0.0.1", running.ssh))?;
    say(&format!("accel      {}", running.accelerator.name()))?;
    say("console    below; Ctrl-C ends the machine")?;
    let mut console = UnixStream::connect(machine.console()).context("connecting to the guest's console")?;
    console.set_read_timeout(Some(Duration::from_millis(500)))?;
    if std::io::stdin().is_terminal() {
        let mut keys = console.try_clone()?;
        std::thread::spawn(move || {
            // Ends with the process.
            let _ = std::io::copy(&mut std::io::stdin(), &mut keys);
        });
    }
    let mut buffer = [0; 4096];
    while !running.ended.load(Ordering::Relaxed) && machine.is_running()? {
        match console.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => std::io::stdout()
                .write_all(&buffer[..count])
                .and_then(|()| std::io::stdout().flush())
                .context("showing the console")?,
            // The last is Ctrl-C itself.
            Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A machine on QEMU's own network, and the ports of 127.0.0.1 that lead to it.
pub(super) struct Running {
    pub machine: Machine,
    pub accelerator: Accelerator,
    pub http: u16,
    pub https: u16,
    pub ssh: u16,
    /// Ctrl-C has come: whoever waits gives up.
    pub ended: Arc<AtomicBool>,
    _scratch: Scratch,
}

/// The error of a command that Ctrl-C has ended.
pub(super) fn interrupted() -> anyhow::Error {
    Fault::environment("interrupted").into()
}

pub(super) fn start(options: &Boot, config: Option<&str>, context: &Context) -> Result<Running> {
    tools::require(&["qemu-system-x86_64", "qemu-img", "setpriv"])?;
    // Ctrl-C must not end us before the machine and its folder, which holds the configuration, are gone.
    let ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ended);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).context("listening for Ctrl-C")?;
    let (system, data, devices) = media(options)?;
    let log = |why: &str| context.log.line(why);
    let accelerator = Accelerator::prove(&system, context.store.root(), log)?;
    if ended.load(Ordering::Relaxed) {
        return Err(interrupted());
    }
    // Swept by the next run, should this one be killed; others may look into a scratch folder, and not into this one.
    let scratch = context.store.scratch()?;
    let folder = scratch.path().join("machine");
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700))?;
    let (http, https, ssh) = (free_port()?, free_port()?, free_port()?);
    let machine = Machine::start(
        &MachineOptions {
            name: "appliance".to_owned(),
            system,
            data,
            write_log: None,
            devices,
            overlay: !options.write,
            firmware: options.firmware,
            cpus: options.cpus,
            memory_mib: options.memory,
            net: Net::User { forwards: vec![(http, 80), (https, 443), (ssh, 22)] },
            mac: "52:54:00:12:34:56".to_owned(),
            fw_cfg: config
                .map(|text| (CONFIG_FILE.to_owned(), text.as_bytes().to_vec()))
                .into_iter()
                .collect(),
            volume: None,
            cdrom: None,
            resume: None,
            uuid: None,
            accelerator,
        },
        &folder,
    )?;
    Ok(Running { machine, accelerator, http, https, ssh, ended, _scratch: scratch })
}

/// The disks that the file stands for, and how they hang in the machine: an OVA brings both, and asks for VMware's devices.
fn media(options: &Boot) -> Result<(Medium, Option<Medium>, Devices)> {
    let path = &options.disk;
    if crate::view::kind(path)? != Kind::Ova {
        let data = options.data.clone().or_else(|| data_disk_beside(path));
        let data = data.map(|data| Medium::of_user(&data)).transpose()?;
        return Ok((Medium::of_user(path)?, data, Devices::Virtio));
    }
    let given = options.data.as_deref().map(Medium::of_user).transpose()?;
    if options.write {
        let message = format!("--write: `{}` is a package, whose disks cannot be written to", path.display());
        return Err(Fault::user(message)
            .hint("boot the qcow2 of the same build, or leave --write out")
            .into());
    }
    let mut disks = medium::of_ova(path)?.into_iter();
    let system = disks.next().ok_or_else(|| Fault::user(format!("`{}` holds no disk", path.display())))?;
    Ok((system, given.or_else(|| disks.next()), Devices::Vmware))
}

/// `x-data.qcow2` beside `x.qcow2`.
fn data_disk_beside(disk: &Path) -> Option<PathBuf> {
    let stem = disk.file_stem()?.to_str()?;
    let extension = disk.extension()?.to_str()?;
    let path = disk.with_file_name(format!("{stem}-data.{extension}"));
    path.is_file().then_some(path)
}

/// A first-boot configuration, checked before the guest gets it.
pub(super) fn read_config(path: &Path) -> Result<(String, Settings)> {
    let text = fs::read_to_string(path).map_err(|error| Fault::user(error.to_string()))?;
    let settings = Settings::parse(&path.display().to_string(), &text)
        .map_err(|error| Fault::user(error.to_string()))?;
    Ok((text, settings))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
