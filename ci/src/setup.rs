//! `cargo ci setup`: what the build and the tests need from Debian and from PyPI. Idempotent: when all is there, nothing is asked
//! of the network.
//!
//! On Debian 12 the packages come from backports: mke2fs reads a tar from e2fsprogs 1.47.1 on, and packages of both suites do not
//! mix. The mirror is the one that this host already uses.

use anyhow::{Context as _, Result, bail};
use imgbuild::store::Store;
use xshell::{Shell, cmd};

use crate::say;

/// Old enough for every zig that links glibc 2.17, new enough for the Rust that `Cargo.toml` asks for.
const ZIG: [&str; 2] = ["ziglang==0.17.1", "cargo-zigbuild==0.24.0"];
/// The tests start servers by themselves, in machines of their own: Debian's packages must not start them on this host. A host that
/// has such a policy keeps its own; one of ours that a killed run left goes.
const NOTHING_STARTS: &str = "{ if grep -qs \"^# cargo ci setup\" /usr/sbin/policy-rc.d; then rm /usr/sbin/policy-rc.d; fi; \
    test -e /usr/sbin/policy-rc.d || { trap \"rm -f /usr/sbin/policy-rc.d\" EXIT; trap \"exit 130\" INT; trap \"exit 143\" TERM; \
    printf \"#!/bin/sh\\n# cargo ci setup\\nexit 101\\n\" >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; }; }";
/// Servers among the packages, by their units: nor must they start at the next boot of a host that had none.
const SERVERS: [(&str, &str); 3] =
    [("nginx-light", "nginx"), ("postgresql", "postgresql"), ("redis-server", "redis-server")];
/// The first e2fsprogs whose mke2fs reads a tar.
const E2FSPROGS: &str = "1.47.1";

/// Installs what is missing.
pub fn run(shell: &Shell) -> Result<()> {
    host(shell)?;
    dotenv(shell)
}

/// The same without what only a test reads, from another registry: images are built and booted without it.
pub fn host(shell: &Shell) -> Result<()> {
    packages(shell)?;
    zig(shell)
}

fn packages(shell: &Shell) -> Result<()> {
    if cmd!(shell, "dpkg-query --version").quiet().ignore_stderr().read().is_err() {
        say::line("this is no Debian: `imgbuild doctor` lists the programs that are needed");
        return Ok(());
    }
    let mut wanted = imgbuild::tools::packages();
    wanted.extend(testkit::packages());
    wanted.push("python3-pip");
    // A Node that is not Debian's brings its own, which Debian's does not go with.
    if cmd!(shell, "npm --version").quiet().ignore_stderr().read().is_err() {
        wanted.push("npm");
    }
    wanted.sort_unstable();
    wanted.dedup();
    let missing = missing(shell, &wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    say::title(&format!("installing {}", missing.join(" ")));
    let release = shell.read_file("/etc/os-release")?;
    let backports = (codename(&release) == Some("bookworm")).then_some("bookworm-backports");
    // apt reads its own sources, in both of their formats; this asks no network.
    let sources =
        cmd!(shell, "apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages'")
            .quiet()
            .read()?;
    let script = install_script(&missing, backports, &sources)?;
    if !rustix::process::geteuid().is_root() {
        bail!(
            "root is needed once, to install packages; run this, then `cargo ci` again:\n\n    sudo sh -c '{script}'\n"
        );
    }
    cmd!(shell, "sh -ec {script}").env("DEBIAN_FRONTEND", "noninteractive").quiet().run()?;
    Ok(())
}

/// Packages that are not installed, or too old.
fn missing<'a>(shell: &Shell, wanted: &[&'a str]) -> Result<Vec<&'a str>> {
    let format = "${Package} ${db:Status-Status} ${Version}\n";
    // It ends with 1 when it does not know one of the names.
    let known = cmd!(shell, "dpkg-query --show --showformat={format} {wanted...}")
        .quiet()
        .ignore_status()
        .ignore_stderr()
        .read()?;
    let version = |name: &str| {
        known.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find_map(|words| match words[..] {
            [package, "installed", version] if package == name => Some(version),
            _ => None,
        })
    };
    let mut missing = Vec::new();
    for &name in wanted {
        let good = match version(name) {
            None => false,
            Some(version) if name == "e2fsprogs" => {
                cmd!(shell, "dpkg --compare-versions {version} ge {E2FSPROGS}").quiet().run().is_ok()
            }
            Some(_) => true,
        };
        if !good {
            missing.push(name);
        }
    }
    Ok(missing)
}

/// The shell commands that install packages, adding the suite of backports if it is not among the sources (`URI suite` lines).
fn install_script(packages: &[&str], backports: Option<&str>, sources: &str) -> Result<String> {
    let mut script = Vec::new();
    let mut target = String::new();
    if let Some(suite) = backports {
        target = format!("-t {suite} ");
        let mirror_of = |wanted| {
            sources.lines().filter_map(|line| line.split_once(' ')).find(|(_, suite)| *suite == wanted)
        };
        if mirror_of(suite).is_none() {
            let release = suite.trim_end_matches("-backports");
            let (mirror, _) = mirror_of(release)
                .with_context(|| format!("apt has no source for `{release}` whose mirror could be used"))?;
            script.push(format!(
                "printf \"%s\\n\" \"Types: deb\" \"URIs: {mirror}\" \"Suites: {suite}\" \"Components: main\" \
                 \"Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\" >/etc/apt/sources.list.d/{suite}.sources"
            ));
        }
    }
    script.push("apt-get update -q".to_owned());
    script.push(NOTHING_STARTS.to_owned());
    script.push(format!("apt-get install -q -y --no-install-recommends {target}{}", packages.join(" ")));
    let servers: Vec<&str> =
        SERVERS.iter().filter(|(package, _)| packages.contains(package)).map(|(_, unit)| *unit).collect();
    if !servers.is_empty() {
        let units = servers.join(" ");
        script.push(format!("if test -d /run/systemd/system; then systemctl disable {units}; fi"));
    }
    Ok(script.join(" && "))
}

fn codename(os_release: &str) -> Option<&str> {
    os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))
}

/// zig and cargo-zigbuild, into the store: they link the guest's program against the glibc of its oldest image.
fn zig(shell: &Shell) -> Result<()> {
    let folder = Store::default_root().join("tools/zig");
    let stamp = folder.join("installed");
    let wanted = ZIG.join("\n");
    if fs_err::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    say::title(&format!("installing {} into `{}`", ZIG.join(" "), folder.display()));
    shell.remove_path(&folder)?;
    cmd!(shell, "/usr/bin/python3 -m pip install --quiet --no-deps --target {folder} {ZIG...}")
        .quiet()
        .run()?;
    // Last, so that a download cut short is seen as not installed.
    shell.write_file(&stamp, wanted)?;
    Ok(())
}

/// Node's parser of `.env.production`, into the store: the tests let it read what first boot writes.
pub fn dotenv(shell: &Shell) -> Result<()> {
    let package = testkit::dotenv::folder();
    let folder = package.parent().context("a folder in the store")?;
    if package.is_dir() {
        return Ok(());
    }
    let (name, digest) = (testkit::dotenv::PACKAGE, testkit::dotenv::SHA256);
    say::title(&format!("installing {name} into `{}`", folder.display()));
    let scratch = folder.with_extension("new");
    shell.remove_path(&scratch)?;
    shell.create_dir(&scratch)?;
    let file =
        cmd!(shell, "timeout 300 npm pack --silent --pack-destination {scratch} {name}").quiet().read()?;
    let tar = scratch.join(file.trim());
    let found = cmd!(shell, "sha256sum {tar}").quiet().read()?;
    if found.split(' ').next() != Some(digest) {
        bail!("`{name}` of this host's npm registry has another digest than {digest}: {found}");
    }
    cmd!(shell, "tar --extract --no-same-owner --file {tar} --directory {scratch}").quiet().run()?;
    // Last, so that a download cut short is seen as not installed.
    shell.remove_path(folder)?;
    fs_err::rename(&scratch, folder)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(sources: &str) -> Result<String> {
        install_script(&["qemu-utils"], Some("bookworm-backports"), sources)
    }

    #[test]
    fn backports_come_from_the_mirror_of_the_host() {
        let script =
            script("http://mirror.example.net/debian/ bookworm\nhttp://other.example.net/ nodistro\n")
                .unwrap();
        assert!(script.contains("\"URIs: http://mirror.example.net/debian/\""), "{script}");
        assert!(script.ends_with("--no-install-recommends -t bookworm-backports qemu-utils"), "{script}");
    }

    #[test]
    fn a_server_that_is_installed_for_the_tests_does_not_start_by_itself() {
        let script = install_script(&["redis-server", "rpm"], None, "").unwrap();
        assert!(script.ends_with("then systemctl disable redis-server; fi"), "{script}");
    }

    #[test]
    fn a_suite_that_is_there_is_not_added_again() {
        let script = script("http://mirror.example.net/debian/ bookworm-backports\n").unwrap();
        assert!(script.starts_with("apt-get update"), "{script}");
    }

    #[test]
    fn a_host_without_a_mirror_is_an_error() {
        let error = script("http://other.example.net/ nodistro\n").unwrap_err().to_string();
        assert_eq!(error, "apt has no source for `bookworm` whose mirror could be used");
    }

    #[test]
    fn the_release_is_read() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=trixie\n"), Some("trixie"));
        assert_eq!(codename("ID=other\n"), None);
    }
}
