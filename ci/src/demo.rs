//! `cargo ci demo`: from nothing to an instance that answers HTTPS over IPv6 with a certificate that it ordered itself.
//!
//! The machine runs in the lab of the test kit: router advertisements, DNS with an AAAA record only, an ACME authority, a mail
//! relay on IPv4. Everything is gone when the command ends.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use imgbuild::qemu::accel::Accelerator;
use imgbuild::qemu::{Devices, Firmware, Machine, MachineOptions, Net, Verdict};
use imgbuild::store::Store;
use testkit::client::Request;
use testkit::lab::{self, INSTANCE_V6, Lab, OUTSIDE_V6};
use xshell::{Shell, cmd};

use crate::progress::Progress;
use crate::{image, privileges, say, setup};

const DOMAIN: &str = "v6don.lab.test";
/// Emulated without KVM on two slow cores, the first boot takes six to eight minutes.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// How often is looked whether somebody wants to stop.
const LOOK: Duration = Duration::from_secs(5);

/// The whole of it.
pub fn run(shell: &Shell, keep: bool) -> Result<()> {
    setup::host(shell)?;
    say::title("building the demo image");
    let start = Instant::now();
    image::build(shell)?;
    say::line(&format!("built in {}", say::duration(start.elapsed())));
    let prefix = privileges::prefix()?;
    let Some((program, args)) = prefix.split_first() else { return boot(shell, keep) };
    let this = std::env::current_exe()?;
    let keep = keep.then_some("--keep");
    cmd!(shell, "{program} {args...} {this} demo --boot-only {keep...}").quiet().run()?;
    Ok(())
}

/// The part with the lab and the machine.
pub fn boot(shell: &Shell, keep: bool) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    // Ended by a signal, this process would leave the lab behind.
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))?;

    say::title("booting it in a home network of its own");
    let folder = tempfile::Builder::new().prefix("demo-").tempdir()?;
    let lab = Lab::start(DOMAIN)?;
    let mut config = lab.config_toml();
    let key = folder.path().join("key");
    if keep {
        cmd!(shell, "ssh-keygen -q -t ed25519 -N '' -C demo -f {key}").quiet().run()?;
        let public = shell.read_file(key.with_extension("pub"))?;
        config.extend(["\n[ssh]\nauthorized-keys = [\"", public.trim(), "\"]\n"]);
    }
    let disks = image::find(shell)?;
    let system = disks.system.into();
    let accelerator = Accelerator::prove(&system, &Store::default_root(), |_| ())?;
    say::line(&format!("processor: {}", accelerator.name()));
    let options = MachineOptions {
        name: "demo".to_owned(),
        accelerator,
        system,
        data: Some(disks.data.into()),
        write_log: None,
        devices: Devices::Virtio,
        overlay: true,
        firmware: Firmware::Bios,
        cpus: 2,
        memory_mib: 2048,
        net: Net::Tap { interface: lab::TAP.to_owned(), namespace: Some(lab.namespace().to_owned()) },
        mac: "52:54:00:6d:61:73".to_owned(),
        fw_cfg: vec![("opt/org.mastodon/config".to_owned(), config.into_bytes())],
        volume: None,
        cdrom: None,
        resume: None,
        uuid: None,
    };
    let power_on = Instant::now();
    let mut machine = Machine::start(&options, folder.path())?;
    wait_for_green(&mut machine, &stop)?;
    let green = power_on.elapsed();

    say::title("asking from outside");
    show(&lab, green)?;
    if keep {
        explain(&lab, folder.path(), &key)?;
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    say::line("\nstopping");
    machine.stop()
}

fn wait_for_green(machine: &mut Machine, stop: &AtomicBool) -> Result<()> {
    let start = Instant::now();
    let mut progress = Progress::default();
    loop {
        let look = Instant::now();
        let waited = machine.watch_verdict(Verdict::Green, LOOK, stop, |report| {
            for line in progress.news(&report.json) {
                say::line(&format!("{:>12}  {line}", say::duration(start.elapsed())));
            }
        });
        match waited {
            Ok(_) => return Ok(()),
            Err(_) if stop.load(Ordering::Relaxed) => bail!("interrupted"),
            // An error before the time is up is the machine's end, not the end of our patience.
            Err(error) if start.elapsed() >= LIMIT || look.elapsed() < LOOK => return Err(error),
            Err(_) => {}
        }
    }
}

fn show(lab: &Lab, green: Duration) -> Result<()> {
    let client = lab.client()?;
    let response = client.https(&Request::get("/about"))?;
    ensure!(response.status == 200, "https://{DOMAIN}/about answers with status {}", response.status);
    let issuer = &response.chain.first().context("the server sent no certificate")?.issuer;
    for (name, value) in [
        ("URL", format!("https://{DOMAIN}/about -> {}", response.status)),
        ("certificate issuer", issuer.clone()),
        ("address family", format!("IPv6, {INSTANCE_V6} asked from {OUTSIDE_V6}")),
        ("power on to green", say::duration(green)),
    ] {
        say::line(&format!("{name:<20}{value}"));
    }
    Ok(())
}

fn explain(lab: &Lab, folder: &Path, key: &Path) -> Result<()> {
    let anchor = folder.join("issued.pem");
    fs_err::write(&anchor, lab.issued_root())?;
    let inside = format!("ip netns exec {}", lab.outside_namespace());
    say::title("it runs until Ctrl-C");
    say::line(&format!(
        "{inside} curl --cacert {} --resolve '{DOMAIN}:443:[{INSTANCE_V6}]' https://{DOMAIN}/about",
        anchor.display()
    ));
    let options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null";
    say::line(&format!("{inside} ssh {options} -i {} root@{INSTANCE_V6}", key.display()));
    say::line(&format!("mail:    {}", lab.folder().join("mail/new").display()));
    say::line(&format!("console: {}", folder.join("serial.log").display()));
    Ok(())
}
