//! The command line around a whole image: `build`, `verify`, `boot`.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use assert_cmd::Command;
use testkit::foreground::Foreground;
use testkit::image::Disks;
use testkit::{oracle, wait};

use crate::site::{IMGBUILD, Site, images};

/// Cold, on two slow cores, with every package and the application to make.
const BUILD_LIMIT: Duration = Duration::from_secs(40 * 60);
/// Up to the export, everything is in the store.
const EXPORT_LIMIT: Duration = Duration::from_secs(10 * 60);
const KERNEL_LIMIT: Duration = Duration::from_secs(3 * 60);

pub fn image_is_built_and_verified(site: &mut Site) -> Result<()> {
    let folder = images();
    let output = text(&folder);
    imgbuild(
        &with_offline(&["build", "--image", "demo", "--format", "qcow2", "--output", &output]),
        BUILD_LIMIT,
    )?;
    let disks = Disks::find(&folder)?;
    oracle::image_is_sound(&disks.system)?;
    oracle::image_is_sound(&disks.data)?;
    verified(&disks.system, BUILD_LIMIT)?;
    site.disks = Some(disks);
    Ok(())
}

pub fn boot_shows_the_console(site: &mut Site) -> Result<()> {
    let system = text(&site.disks()?.system);
    let mut boot = Foreground::start(Path::new(IMGBUILD), &["boot", &system])?;
    boot.wait_for("Linux version", KERNEL_LIMIT)?;
    let status = boot.interrupt(Duration::from_secs(30))?;
    ensure!(status.success(), "after Ctrl-C the program ended with {status}");
    Ok(())
}

/// SIGKILL in the middle of a real export: what it leaves, the next build into the folder removes.
pub fn killed_export_is_swept(site: &mut Site) -> Result<()> {
    site.disks()?;
    let folder = tempfile::tempdir()?;
    let output = text(folder.path());
    let args = with_offline(&["build", "--image", "demo", "--format", "raw,qcow2", "--output", &output]);
    let build = Foreground::start(Path::new(IMGBUILD), &args)?;
    wait::until("the first bytes of an artifact", EXPORT_LIMIT, || {
        let parts = parts(folder.path())?;
        let begun = parts.iter().any(|(_, allocated)| *allocated > 1 << 20);
        Ok(if begun { Ok(()) } else { Err(format!("{parts:?}; {}", build.output())) })
    })?;
    // Kills it and all that it started.
    drop(build);
    ensure!(!parts(folder.path())?.is_empty(), "SIGKILL came too late: there is nothing to sweep");
    imgbuild(&args, BUILD_LIMIT)?;
    let mut names = Vec::new();
    for entry in fs_err::read_dir(folder.path())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let foreign: Vec<&String> = names.iter().filter(|name| !name.starts_with("demo-")).collect();
    ensure!(foreign.is_empty() && names.len() >= 5, "left behind: {names:?}");
    Ok(())
}

/// Temp files of artifacts, and the bytes that they occupy.
fn parts(folder: &Path) -> Result<Vec<(String, u64)>> {
    let mut parts = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".part") {
            // It may have got its own name since it was listed.
            parts.extend(entry.metadata().ok().map(|meta| (name, meta.blocks() * 512)));
        }
    }
    Ok(parts)
}

/// `cargo ci` has built the image a moment ago; the store must then be enough.
pub fn with_offline<'a>(args: &[&'a str]) -> Vec<&'a str> {
    let offline = std::env::var_os("IMGBUILD_TEST_OFFLINE").is_some();
    // In front of `--`, behind which the guest's own words stand.
    let (verb, rest) =
        args.split_first().map_or((&[][..], args), |(verb, rest)| (std::slice::from_ref(verb), rest));
    verb.iter().copied().chain(offline.then_some("--offline")).chain(rest.iter().copied()).collect()
}

/// Runs the program to its end, wants exit code 0, and returns its standard output.
pub fn imgbuild(args: &[&str], limit: Duration) -> Result<String> {
    let output = Command::new(IMGBUILD).args(args).timeout(limit).output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(
        output.status.success(),
        "`imgbuild {}` ended with {}:\n{out}{err}",
        args.join(" "),
        output.status
    );
    Ok(out.into_owned())
}

/// `imgbuild verify` finds nothing, and has looked at the content of the disk too.
pub fn verified(path: &Path, limit: Duration) -> Result<()> {
    let said = imgbuild(&["verify", &text(path)], limit)?;
    let looked = said.lines().any(|line| line.split_whitespace().eq(["file-system", "ok"]));
    ensure!(looked, "the content was not looked at:\n{said}");
    Ok(())
}

pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
