//! From a blank machine to a green verdict, in the article's network, configured as vSphere does it, through power cuts.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use firstboot::settings::schema::{FIELDS, Field};
use imgbuild::qemu::accel::Accelerator;
use imgbuild::qemu::medium;
use imgbuild::qemu::{Devices, Firmware, Machine, MachineOptions, Net};
use imgbuild::store::Store;
use testkit::lab::{self, INSTANCE_V4, INSTANCE_V6, Lab};
use testkit::{config_volume, ovf_environment};

use crate::power_cut::History;
use crate::site::{DOMAIN, Site, folder};

/// The instance of a configuration that is attached too, and that must not win.
const OTHER_DOMAIN: &str = "volume.lab.test";

pub fn turns_green(site: &mut Site) -> Result<()> {
    let folder = folder();
    let (lab, options) = machine(site, &folder)?;
    site.options = Some(options.clone());
    let mut history = History::new(&folder)?;
    history.suffer(&options, 1)?;
    let mut machine = history.start(&options)?;
    let alone = history.wait_without_link(&mut machine).and_then(|()| serves_itself(&mut machine));
    machine.set_link(true)?;
    let verdict = history.wait_green(&mut machine);
    site.history = Some(history);
    // What a person in front of the machine sees; for a look when something is odd.
    machine.screenshot(&folder.join("screen.png"))?;
    // A machine that is not green still lets the other checks say what works and what does not; one that never spoke only lets
    // each of them wait.
    if !machine.serial()?.is_empty() {
        site.lab = Some(lab);
        site.machine = Some(machine);
    }
    alone.context("the instance does not serve on a machine without a link")?;
    let report = verdict?.json;
    ensure!(report["domain"] == DOMAIN, "the verdict is about another domain: {report}");
    Ok(())
}

/// The instance answers on the machine itself, with whatever certificate.
fn serves_itself(machine: &mut Machine) -> Result<()> {
    let ruby = format!(
        "web = Net::HTTP.new(%q(::1), 443); web.use_ssl = true; web.verify_mode = OpenSSL::SSL::VERIFY_NONE; \
         puts web.get(%q(/about), %q(Host) => %q({DOMAIN})).code"
    );
    let said = machine.shell(&format!("ruby -rnet/http -ropenssl -e '{ruby}'"))?;
    ensure!(said == "200\n", "`/about` on the machine itself: {said}");
    Ok(())
}

/// A new machine in a network of its own, with its files in a folder that is emptied: out of the OVA itself, on the devices that it
/// asks vSphere for.
pub fn machine(site: &Site, folder: &Path) -> Result<(Lab, MachineOptions)> {
    let mut disks = medium::of_ova(site.ova()?)?.into_iter();
    let system = disks.next().context("the OVA has no disk")?;
    if folder.exists() {
        fs_err::remove_dir_all(folder)?;
    }
    fs_err::create_dir_all(folder)?;
    let lab = Lab::start(DOMAIN)?;
    let volume = folder.join("volume.img");
    config_volume::write(&volume, &format!("schema = 1\ndomain = \"{OTHER_DOMAIN}\"\n"))?;
    let disc = folder.join("ovf-env.iso");
    ovf_environment::write(&disc, &properties(&lab.config_toml())?)?;
    let options = MachineOptions {
        name: "vm-tests".to_owned(),
        accelerator: Accelerator::prove(&system, &Store::default_root(), |_| ())?,
        system,
        data: disks.next(),
        write_log: None,
        devices: Devices::Vmware,
        overlay: true,
        firmware: Firmware::Bios,
        cpus: 2,
        memory_mib: 2048,
        net: Net::Tap { interface: lab::TAP.to_owned(), namespace: Some(lab.namespace().to_owned()) },
        mac: "52:54:00:6d:61:73".to_owned(),
        fw_cfg: Vec::new(),
        volume: Some(volume),
        cdrom: Some(disc),
        resume: None,
        uuid: Some(crate::changes::HARDWARE.to_owned()),
    };
    Ok((lab, options))
}

/// What somebody who wants this configuration types into the form that an OVA makes vSphere show.
fn properties(config: &str) -> Result<Vec<(String, String)>> {
    let config: toml::Table = config.parse()?;
    let said = |field: &Field| {
        let path = field.path.split('.').collect::<Vec<_>>();
        let (last, tables) = path.split_last()?;
        let table = tables.iter().try_fold(&config, |table, name| table.get(*name)?.as_table())?;
        Some(match table.get(*last)? {
            toml::Value::String(text) => text.clone(),
            toml::Value::Array(parts) => {
                parts.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>().join(", ")
            }
            toml::Value::Table(pairs) => {
                let pair =
                    |(name, value): (&String, &toml::Value)| Some(format!("{name}={}", value.as_str()?));
                pairs.iter().filter_map(pair).collect::<Vec<_>>().join("; ")
            }
            value => value.to_string(),
        })
    };
    // As with vSphere, every property is there, those that nobody filled in with their default.
    Ok(FIELDS
        .iter()
        .map(|field| {
            (field.key(), said(field).unwrap_or_else(|| field.default.unwrap_or_default().to_owned()))
        })
        .collect())
}

pub fn both_media_are_read_and_the_environment_wins(site: &mut Site) -> Result<()> {
    let said = site.machine()?.shell("appliance diagnose")?;
    for wanted in [
        format!("ovf-env.xml on the CD-ROM /dev/sr0: valid, for the instance `{DOMAIN}`"),
        format!("config.toml on the volume CIDATA: valid, for the instance `{OTHER_DOMAIN}`"),
    ] {
        ensure!(said.contains(&wanted), "no `{wanted}` in: {said}");
    }
    Ok(())
}

pub fn configuration_is_stored(site: &mut Site) -> Result<()> {
    let machine = site.machine()?;
    let said = machine
        .shell("stat -c '%a %U' /etc/appliance/config.toml && findmnt -no LABEL --target /etc/appliance")?;
    ensure!(said == "600 root\nmastodon-data\n", "mode, owner and disk of the stored configuration: {said}");
    let status = machine.shell("appliance status --json")?;
    let status: serde_json::Value =
        serde_json::from_str(&status).with_context(|| format!("reading the status: {status}"))?;
    ensure!(status["verdict"] == "green", "the status is not the verdict: {status}");
    Ok(())
}

/// As README says: `ssh root@<machine>`, then `appliance status`.
pub fn administrator_logs_in(site: &mut Site) -> Result<()> {
    let lab = site.lab()?;
    let said = lab.ssh("id -un; appliance status")?;
    ensure!(
        said.starts_with("root\n") && said.contains(DOMAIN),
        "what was said to the administrator: {said}"
    );
    let refused = lab.ssh_without_key("id");
    ensure!(refused.is_err(), "somebody without a key was let in: {refused:?}");
    Ok(())
}

pub fn network_is_the_articles(site: &mut Site) -> Result<()> {
    let said = site
        .machine()?
        .shell("ip -o addr show scope global; ip -6 route show default; ip -4 route show default")?;
    for wanted in [format!("{INSTANCE_V6}/128"), format!("{INSTANCE_V4}/24"), "proto ra".to_owned()] {
        ensure!(said.contains(&wanted), "no `{wanted}` in: {said}");
    }
    let slaac = said.lines().any(|line| line.contains("2001:db8:fc89:100:") && line.contains("/64"));
    ensure!(slaac, "no address by SLAAC beside the fixed one: {said}");
    ensure!(
        !said.contains("default via 192.168."),
        "the lab offers no way out over IPv4, but a default route is there: {said}"
    );
    Ok(())
}
