//! Debian packages that a root lacks, brought from the mirror that the root came from.
//!
//! apt decides what is missing and verifies it, with the root's list of packages and none of the host's state. Nothing is
//! installed: these packages are used for their files alone.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;

use super::debian::{self, Package};
use super::tree::Tree;
use crate::exec;

/// Downloads packages with everything that they need and the root lacks, and adds their files to the tree.
pub(super) fn add(names: &[&str], tree: &mut Tree, scratch: &Path) -> Result<Vec<Package>> {
    let archives = download(names, tree, scratch)?;
    let mut packages = Vec::new();
    for archive in archives {
        let control = exec::text("dpkg-deb", &["--field".as_ref(), archive.as_os_str()])?;
        let mut package = debian::from_control(&control)?;
        let files = archive.with_extension("tar");
        exec::to_file("dpkg-deb", &["--fsys-tarfile".as_ref(), archive.as_os_str()], &files)?;
        package.files = tree.add(&files)?;
        packages.push(package);
    }
    Ok(packages)
}

fn download(names: &[&str], tree: &Tree, scratch: &Path) -> Result<Vec<PathBuf>> {
    let folder = scratch.join("apt");
    let (archives, etc) = (folder.join("archives"), folder.join("etc"));
    for folder in [&archives.join("partial"), &folder.join("lists/partial"), &folder.join("log"), &etc] {
        fs::create_dir_all(folder)?;
    }
    fs::write(folder.join("status"), tree.text("/var/lib/dpkg/status")?)?;
    fs::write(etc.join("sources.list"), tree.text("/etc/apt/sources.list")?)?;
    // The host's own settings stay in force where they say how its mirror is reached.
    let settings = [
        ("Dir::Etc::SourceList", etc.join("sources.list")),
        ("Dir::Etc::SourceParts", "/dev/null".into()),
        ("Dir::Etc::Preferences", "/dev/null".into()),
        ("Dir::Etc::PreferencesParts", "/dev/null".into()),
        ("Dir::Etc::Trusted", "/usr/share/keyrings/debian-archive-keyring.gpg".into()),
        ("Dir::Etc::TrustedParts", "/dev/null".into()),
        ("Dir::State", folder.clone()),
        ("Dir::State::Lists", folder.join("lists")),
        ("Dir::State::Status", folder.join("status")),
        ("Dir::State::Extended_States", folder.join("extended_states")),
        ("Dir::Cache", folder.clone()),
        ("Dir::Cache::Archives", archives.clone()),
        ("Dir::Log", folder.join("log")),
        ("APT::Architecture", "amd64".into()),
        ("APT::Default-Release", String::new().into()),
        ("APT::Install-Recommends", "false".into()),
        ("APT::Sandbox::User", "root".into()),
        ("APT::Update::Post-Invoke-Success", String::new().into()),
        ("Acquire::Languages", "none".into()),
        ("Acquire::Retries", "3".into()),
        ("Debug::NoLocking", "true".into()),
    ];
    let lines = settings.iter().map(|(key, value)| format!("{key} \"{}\";\n", value.display()));
    let config = folder.join("apt.conf");
    // Hooks of the host would run on its own state.
    fs::write(
        &config,
        lines.collect::<String>() + "#clear APT::Update::Post-Invoke-Success;\n#clear DPkg;\n",
    )?;
    let config = config.to_str().context("the scratch folder's name is not UTF-8")?;
    exec::text("apt-get", &["-q", "-c", config, "update"])?;
    let mut args = vec!["-q", "-y", "-c", config, "--download-only", "install"];
    args.extend(names);
    exec::text("apt-get", &args)?;
    let mut found = Vec::new();
    for file in fs::read_dir(&archives)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
