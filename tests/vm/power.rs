//! Reboot and power off: what must be the same after, and what the disks look like.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use imgbuild::qemu::Verdict;
use testkit::client::Request;
use testkit::oracle;

use crate::site::{Site, folder};

/// A boot without KVM, with everything set up already.
const LIMIT: Duration = Duration::from_secs(12 * 60);

/// Whatever must never be made a second time.
const IDENTITY: &str = "find /var/lib/appliance/secrets /etc/ssh/ssh_host_*_key /etc/machine-id /home/mastodon/live/.env.production \
    -type f -exec sha256sum {} + | sort -k2";

pub fn reboot_keeps_everything(site: &mut Site) -> Result<()> {
    let before = identity(site)?;
    // Without this, "the same as before" could be said of nothing.
    ensure!(before.identity.lines().count() >= 8, "too few files to compare: {}", before.identity);
    let machine = site.machine()?;
    // What a disk may lose, and a careless hand open: a host key, and who can read the secrets.
    machine.shell(
        "truncate -s 0 /etc/ssh/ssh_host_ed25519_key && chown -R mastodon /var/lib/appliance/secrets && \
         chmod 644 /home/mastodon/live/.env.production",
    )?;
    machine.reboot()?;
    machine.wait_verdict(Verdict::Green, LIMIT)?;
    let after = identity(site)?;
    ensure!(before == after, "before the reboot: {before:#?}\nafter: {after:#?}");
    let said = site.machine()?.shell(
        "stat -c %U:%G:%a /home/mastodon/live/.env.production && find /var/lib/appliance/secrets ! -user root && \
         swapon --noheadings --show=NAME",
    )?;
    ensure!(
        said == "root:mastodon:640\n/swapfile\n",
        "who can read the settings, secrets that are not root's, swap: {said}"
    );

    let status =
        site.visitor()?.status.clone().context("there is no status to look for: it was not posted")?;
    let timeline =
        site.lab()?.client()?.https(&Request::get("/api/v1/timelines/public"))?.expect(200)?.text();
    ensure!(timeline.contains(&status), "the status is gone: {timeline}");
    site.first_id = Some(site.machine()?.shell("cat /etc/machine-id")?);
    let failed = site.machine()?.shell("systemctl list-units --failed --plain --no-legend")?;
    ensure!(failed.is_empty(), "units that failed: {failed}");
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Identity {
    identity: String,
    certificate: String,
}

fn identity(site: &mut Site) -> Result<Identity> {
    let client = site.lab()?.client()?;
    // Right after a green verdict the site must answer.
    let response = client.https(&Request::get("/about"))?.expect(200)?;
    let certificate = response.chain.first().context("the server sent no certificate")?.serial.clone();
    Ok(Identity { identity: site.machine()?.shell(IDENTITY)?, certificate })
}

pub fn off_leaves_clean_file_systems(site: &mut Site) -> Result<()> {
    let machine = site.machine.take().context("there is no machine: it did not boot")?;
    machine.stop()?;
    // The overlays that the machine wrote, with the image below them.
    let folder = folder();
    let raw = folder.join("disk.raw");
    oracle::to_raw(&folder.join("system.qcow2"), &raw)?;
    oracle::gpt_is_sound(&raw)?;
    let partitions = oracle::partitions(&raw)?;
    let root = partitions.last().context("the system disk has no partitions")?;
    oracle::partition_is_clean_ext4(&raw, root, &folder).context("the root file system")?;
    oracle::to_raw(&folder.join("data.qcow2"), &raw)?;
    oracle::ext4_is_clean(&raw).context("the data disk")?;
    fs_err::remove_file(&raw)?;
    Ok(())
}
