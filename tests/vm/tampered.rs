//! `imgbuild verify` on an image that somebody spoilt: each fault is named, none hides another.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use assert_cmd::Command;
use imgbuild::disk::gpt::{self, ROOT_X86_64};

use crate::site::{IMGBUILD, Site};

/// What is done to the root file system, in debugfs' words; `@` stands for the folder with the files.
const FAULTS: &str = "write @/key /etc/ssh/ssh_host_rsa_key\n\
                      write @/key /etc/stray.pem\n\
                      rm /etc/machine-id\nwrite @/id /etc/machine-id\n\
                      rm /etc/fstab\nwrite @/fstab /etc/fstab\n\
                      rm /etc/shadow\nwrite @/shadow /etc/shadow\n\
                      rm /vmlinuz\n\
                      rm /etc/systemd/system/multi-user.target.wants/appliance.service\n\
                      symlink /etc/systemd/system/multi-user.target.wants/nginx.service /lib/systemd/system/nginx.service\n";

/// What must be said of them, check by check.
const FINDINGS: &[&str] = &[
    "SSH host key: `/etc/ssh/ssh_host_rsa_key`",
    "machine id: `/etc/machine-id` is not empty",
    "private key: `/etc/stray.pem`",
    "`/etc/fstab` names /dev/loop",
    "user `root` has a password",
    "it starts `/vmlinuz`, which does not exist",
    "`appliance.service` is not enabled",
    "`nginx.service` is enabled in the image",
    "is wrong: fstab, grub-cfg, machine-state, private-keys, accounts, first-boot, units",
];

pub fn faults_are_named(site: &mut Site) -> Result<()> {
    let system = site.disks()?.system.clone();
    let folder = tempfile::tempdir()?;
    let raw = folder.path().join("tampered.raw");
    run(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(&system).arg(&raw))?;
    let partitions = gpt::read(imgbuild::view::disk(&raw)?.1.as_mut())?;
    let root =
        partitions.iter().find(|partition| partition.kind == ROOT_X86_64).context("no root partition")?;
    for (name, text) in [
        ("key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        ("id", "0123456789abcdef0123456789abcdef\n"),
        ("fstab", "/dev/loop0p3 / ext4 defaults 0 1\n"),
        ("shadow", "root:$6$salt$hash:20000:0:99999:7:::\n"),
    ] {
        fs_err::write(folder.path().join(name), text)?;
    }
    let script = folder.path().join("faults");
    fs_err::write(&script, FAULTS.replace('@', &folder.path().to_string_lossy()))?;
    let target = format!("{}?offset={}", raw.display(), root.extent.offset());
    run(Command::new("debugfs").arg("-w").arg("-f").arg(&script).arg(target))?;
    let (code, said) = verify(&raw)?;
    ensure!(code == Some(1), "exit code {code:?}, not 1: {said}");
    for finding in FINDINGS {
        ensure!(said.contains(finding), "no word of `{finding}` in: {said}");
    }
    Ok(())
}

/// A disk whose content lies in another file must not be opened.
pub fn references_are_refused(site: &mut Site) -> Result<()> {
    let system = site.disks()?.system.clone();
    let folder = tempfile::tempdir()?;
    let overlay = folder.path().join("overlay.qcow2");
    run(Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
        .arg(&system)
        .arg(&overlay))?;
    let (code, said) = verify(&overlay)?;
    ensure!(code == Some(1) && said.contains("it refers to other files"), "exit code {code:?}: {said}");
    let boot = Command::new(IMGBUILD).arg("boot").arg(&system).arg("--data").arg(&overlay).output()?;
    let said = String::from_utf8_lossy(&boot.stderr).into_owned();
    let code = boot.status.code();
    ensure!(code == Some(1) && said.contains("it refers to other files"), "exit code {code:?}: {said}");
    Ok(())
}

fn verify(file: &Path) -> Result<(Option<i32>, String)> {
    let output = Command::new(IMGBUILD).args(["verify", "--quiet"]).arg(file).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
