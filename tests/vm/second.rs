//! A second machine of the same image: it shares no secret with the first, and the image has none of either.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use imgbuild::qemu::accel::Accelerator;
use imgbuild::qemu::medium::Medium;
use imgbuild::qemu::{Devices, Firmware, Machine, MachineOptions, Net};
use imgbuild::store::Store;
use testkit::oracle;
use testkit::power::remains::Remains;
use testkit::scenario::say;

use crate::site::{Site, folder};

const LIMIT: Duration = Duration::from_secs(15 * 60);
const CONFIG: &str = "schema = 1\ndomain = \"second.test\"\n\n[tls]\nmode = \"selfsigned\"\n";
/// Shorter lines say what a file is; they are no secret.
const SHORTEST: usize = 16;
/// Of a line that is in every image, so that a search that finds nothing is noticed.
const CONTROL: &str = "schema-version = ";

/// What makes a machine itself: names with their contents.
type Identity = BTreeMap<String, String>;

pub fn shares_no_secret(site: &mut Site) -> Result<()> {
    let first = folder();
    ensure!(site.machine.is_none() && site.first_id.is_some(), "the first machine did not come to its end");
    let second = first.with_file_name("second");
    if second.exists() {
        fs_err::remove_dir_all(&second)?;
    }
    fs_err::create_dir_all(&second)?;
    let disks = site.disks()?;
    let system = Medium::from(disks.system.clone());
    let options = MachineOptions {
        name: "second".to_owned(),
        accelerator: Accelerator::prove(&system, &Store::default_root(), |_| ())?,
        system,
        data: Some(disks.data.clone().into()),
        write_log: None,
        devices: Devices::Virtio,
        overlay: true,
        firmware: Firmware::Bios,
        cpus: 2,
        memory_mib: 2048,
        net: Net::User { forwards: Vec::new() },
        mac: "52:54:00:6d:61:74".to_owned(),
        fw_cfg: vec![("opt/org.mastodon/config".to_owned(), CONFIG.as_bytes().to_vec())],
        volume: None,
        cdrom: None,
        resume: None,
        uuid: None,
    };
    let mut machine = Machine::start(&options, &second)?;
    machine.wait_report(LIMIT, &AtomicBool::new(false), |report| {
        ["identity", "ssh", "secrets"].iter().all(|step| report.json["steps"][step] == "done")
    })?;
    let id = machine.shell("cat /etc/machine-id")?;
    machine.kill()?;
    let mut identities = [Identity::new(), Identity::new()];
    let ids = [site.first_id.clone().unwrap_or_default(), id];
    for ((folder, id), identity) in [&first, &second].into_iter().zip(ids).zip(&mut identities) {
        *identity = identity_of(folder)?;
        identity.insert("machine-id".to_owned(), id);
    }
    let [one, other] = &identities;
    ensure!(one.keys().eq(other.keys()) && one.len() > 8, "{:?} and {:?}", one.keys(), other.keys());
    let mut secrets = BTreeSet::new();
    for (name, content) in one {
        let lines = |text: &str| -> BTreeSet<String> {
            text.lines().filter(|line| line.len() >= SHORTEST).map(str::to_owned).collect()
        };
        let (mine, others) = (lines(content), lines(&other[name]));
        let unlike: Vec<_> = mine.symmetric_difference(&others).cloned().collect();
        // Keys begin alike: with the name of their format.
        ensure!(unlike.len() >= 2, "`{name}` is the same on both machines");
        secrets.extend(unlike);
    }
    say(&format!("{} files of each machine are unlike; {} texts to look for", one.len(), secrets.len()));
    image_has_none(site, &secrets, &second)
}

fn identity_of(folder: &Path) -> Result<Identity> {
    let disk = folder.join("look.raw");
    oracle::to_raw(&folder.join("data.qcow2"), &disk)?;
    let tree = tempfile::tempdir_in(folder)?;
    let remains = Remains::of(&disk, &tree.path().join("tree"))?.context("the data disk is blank")?;
    fs_err::remove_file(&disk)?;
    let text = |(name, content)| Ok((name, String::from_utf8(content)?));
    remains.identity()?.into_iter().map(text).collect()
}

/// Neither disk of the image, as a user gets it.
fn image_has_none(site: &Site, secrets: &BTreeSet<String>, scratch: &Path) -> Result<()> {
    let mut wanted = secrets.clone();
    wanted.insert(CONTROL.to_owned());
    let mut found = BTreeSet::new();
    for disk in [&site.disks()?.system, &site.disks()?.data] {
        let raw = scratch.join("image.raw");
        oracle::to_raw(disk, &raw)?;
        found.extend(oracle::found_by_strings(&raw, &wanted, scratch)?);
        fs_err::remove_file(&raw)?;
    }
    ensure!(found.remove(CONTROL), "the search does not even find what is in every image");
    ensure!(found.is_empty(), "{} secrets of machines are in the image", found.len());
    Ok(())
}
