//! The verbs beside `build` and `boot`, on the image that was built: other formats, `inspect`, `shell`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use testkit::{oracle, vsphere};

use crate::build::{imgbuild, text, verified, with_offline};
use crate::site::Site;

const LIMIT: Duration = Duration::from_secs(15 * 60);

/// The OVA is what vSphere wants of one, and the raw disk is the qcow2 byte for byte.
pub fn ova_and_raw_are_the_same_disk(site: &mut Site) -> Result<()> {
    let system = site.disks()?.system.clone();
    let folder = tempfile::tempdir()?;
    let output = text(folder.path());
    imgbuild(
        &with_offline(&["build", "--image", "demo", "--format", "ova,raw", "--output", &output]),
        LIMIT,
    )?;
    let stem = system.file_stem().context("the disk has no name")?.to_string_lossy().into_owned();
    let ova = folder.path().join(format!("{stem}.ova"));
    let names = oracle::tar_names(&ova)?;
    let wanted: Vec<String> =
        [".ovf", ".mf", "-disk1.vmdk", "-disk2.vmdk"].iter().map(|end| format!("{stem}{end}")).collect();
    ensure!(names == wanted, "members of the OVA: {names:?}");
    let descriptor = oracle::tar_text(&ova, &wanted[0])?;
    let file = folder.path().join("descriptor.xml");
    fs_err::write(&file, &descriptor)?;
    oracle::xml_is_well_formed(&file)?;
    for part in ["vmx-13", "VirtualSCSI", "VmxNet3", "VM Network", "streamOptimized"] {
        ensure!(descriptor.contains(part), "no `{part}` in the descriptor:\n{descriptor}");
    }
    verified(&ova, LIMIT)?;
    let raw = folder.path().join(format!("{stem}.raw"));
    oracle::gpt_is_sound(&raw)?;
    oracle::images_are_equal(&system, &raw)?;
    fs_err::remove_file(&raw)?;
    site.package = Some((folder, ova));
    Ok(())
}

/// The package with its whole disks, as a client of vSphere sends it; its descriptor alone has a test of its own.
pub fn ova_is_imported(site: &mut Site) -> Result<()> {
    let machine = vsphere::import(site.ova()?, None, Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    for (key, wanted) in [
        ("guest_id", json!("debian10_64Guest")),
        ("version", json!("vmx-13")),
        ("cpus", json!(2)),
        ("memory_mib", json!(2048)),
        ("controllers", json!(["pvscsi"])),
        ("network_cards", json!(["vmxnet3"])),
        ("disk_bytes", json!([8_u64 << 30, 32_u64 << 30])),
    ] {
        ensure!(machine[key] == wanted, "`{key}` of the imported machine: {}", machine[key]);
    }
    let uploaded: Option<u64> = machine["uploaded"][0].as_u64();
    ensure!(uploaded.is_some_and(|bytes| bytes > 100 << 20), "uploaded: {}", machine["uploaded"]);
    Ok(())
}

pub fn inspect_knows_the_packages(site: &mut Site) -> Result<()> {
    let said = imgbuild(&["inspect", "--json", &text(&site.disks()?.system)], LIMIT)?;
    let image: serde_json::Value = serde_json::from_str(&said)?;
    let packages = image["packages"].as_array().context("there are no packages")?;
    for package in ["nginx", "redis-server", "postgresql-15", "ruby3.1", "nodejs", "imagemagick", "ffmpeg"] {
        ensure!(
            packages.iter().any(|found| found["name"] == package),
            "no package `{package}` in {packages:?}"
        );
    }
    ensure!(image["partitions"].as_array().is_some_and(|all| all.len() == 3), "{}", image["partitions"]);
    Ok(())
}

pub fn shell_is_root_in_the_tree(_: &mut Site) -> Result<()> {
    let command = "id -u; stat -c %U:%a /home/mastodon; ls /dev/null /proc/self/status";
    let said = imgbuild(&with_offline(&["shell", "--image", "demo", "--", "sh", "-c", command]), LIMIT)?;
    ensure!(said == "0\nmastodon:711\n/dev/null\n/proc/self/status\n", "{said}");
    Ok(())
}
