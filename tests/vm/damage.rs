//! A data disk with damage that only a person may mend: the machine says so, starts nothing on it, and lets that person in.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use imgbuild::qemu::{Machine, Verdict};
use testkit::{oracle, wait};

use crate::faults::serves;
use crate::site::{Site, folder};

/// A boot without KVM up to the question, and from its answer to green.
const LIMIT: Duration = Duration::from_secs(8 * 60);
/// What is lost and found again, at the top of the data disk.
const FILE: &str = "precious";

pub fn heals_by_its_remedy(site: &mut Site) -> Result<()> {
    let mounted = "/srv/appliance";
    site.machine()?.shell(&format!("findmnt {mounted} && echo {FILE} >{mounted}/{FILE} && sync"))?;
    let options = site.options.clone().context("there is no machine: it did not boot")?;
    site.machine.take().context("there is no machine: it did not boot")?.stop()?;
    let (disk, raw) = (folder().join("data.qcow2"), folder().join("data.raw"));
    oracle::to_raw(&disk, &raw)?;
    oracle::damage_ext4(&raw, FILE)?;
    oracle::to_qcow2(&raw, &disk)?;
    fs_err::remove_file(&raw)?;

    let machine = site.machine.insert(Machine::start(&options, &folder())?);
    let asks = |why: &serde_json::Value| {
        why["why"].as_str().is_some_and(|text| text.contains("is damaged: copy it"))
    };
    let report = machine
        .wait_report(LIMIT, &AtomicBool::new(false), |report| {
            report.json["waiting"].as_array().is_some_and(|all| all.iter().any(asks))
        })
        .context("waiting for a word about the damage")?;
    ensure!(report.json["verdict"] == "red", "a machine without its data disk is not red: {}", report.json);
    let prompt = machine.shell("cat /etc/issue")?;
    ensure!(prompt.contains("is damaged: copy it"), "the prompt does not say so: {prompt}");
    ensure!(serves(site).is_err(), "the instance serves without its data disk");
    let running =
        site.machine()?.exec("systemctl is-active 'postgresql@*' redis-server mastodon-web")?.stdout;
    ensure!(!running.lines().any(|state| state == "active"), "services run without their data: {running}");

    // From here on as a person would: by SSH, and by what was said.
    let lab = site.lab()?;
    // While the disk is looked at once more, the status says that instead.
    let command = wait::until("the remedy in the status", LIMIT, || {
        let said =
            lab.ssh("appliance status").context("logging in to a machine whose data disk is damaged")?;
        let command = said.split('`').find(|text| text.starts_with("e2fsck -f "));
        Ok(command.map(str::to_owned).ok_or(said))
    })?;
    // `-y` answers its questions. 1: all is mended.
    let mended = lab.ssh(&format!("{} || test $? = 1", command.replace("-f", "-fy")))?;
    ensure!(mended.contains("Connect to /lost+found? yes"), "e2fsck had nothing to mend: {mended}");
    lab.ssh("appliance retry")?;
    site.machine()?.wait_verdict(Verdict::Green, LIMIT)?;
    let found = site.lab()?.ssh(&format!("cat {mounted}/lost+found/*"))?;
    ensure!(found == format!("{FILE}\n"), "what e2fsck has found: {found}");
    crate::web::about_has_the_issued_chain(site)
}
