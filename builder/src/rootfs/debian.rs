//! Debian's base tree, made by mmdebstrap.
//!
//! mmdebstrap verifies the archive's signature and every package. As root it works in a chroot, as an ordinary user in a user
//! namespace. The result depends on the lock and the recipe alone.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Result;
use fs_err as fs;

use crate::context::Context;
use crate::error::Fault;
use crate::exec::Run;
use crate::recipe::{Debian, Recipe};
use crate::report::Unit;
use crate::resolve::{self, Lock};
use crate::sandbox::{Network, Sandbox};
use crate::store::Key;

/// Raise when equal inputs give another tree.
const STAGE_VERSION: u32 = 4;

/// Removes what packages' scripts make by chance: host keys, a self-signed certificate and the link to it by its hash, a cluster with
/// an identifier of its own; and what mmdebstrap copies from the build host: its name and its resolver. No image has any of it
/// (`tree::machine_state`, overlays); without it, equal inputs give an equal tree.
const FORGET: &str = r#"
rm -f "$1"/etc/ssh/ssh_host_*
rm -f "$1"/etc/ssl/private/ssl-cert-snakeoil.key "$1"/etc/ssl/certs/ssl-cert-snakeoil.pem
[ ! -d "$1"/etc/ssl/certs ] || find "$1"/etc/ssl/certs -type l -lname ssl-cert-snakeoil.pem -delete
rm -rf "$1"/var/lib/postgresql/[0-9]*
echo localhost > "$1"/etc/hostname
: > "$1"/etc/resolv.conf
find "$1"/var/lib/apt/lists -type f ! -name '*_InRelease' -delete
"#;

/// The tree's key.
pub fn key(debian: &Debian, recipe: &Recipe, lock: &Lock) -> Result<Key> {
    let before = debian.before.as_ref().map(|folder| recipe.folder.join(folder));
    let before = before.as_deref().map_or(Ok(String::new()), crate::digest::folder)?;
    // The tree names its mirrors in `sources.list`.
    let mirrors: Vec<&str> = lock.suites.iter().map(|suite| suite.uri.as_str()).collect();
    let (locked, options, mirrors) = (lock.key(), Recipe::canonical(debian)?, mirrors.join(" "));
    Ok(Key::of("rootfs", STAGE_VERSION, &[locked.as_str(), &options, &before, &mirrors]))
}

/// Makes the tree's tar.
pub fn make(debian: &Debian, recipe: &Recipe, lock: &Lock, tar: &Path, context: &Context) -> Result<()> {
    if context.offline {
        let message = "--offline, and the store does not have the base tree of this recipe and lock";
        return Err(Fault::environment(message)
            .hint("build it once with a network, or bring it with `imgbuild fetch --import DIR`")
            .into());
    }
    let before = debian.before.as_ref().map(|folder| recipe.folder.join(folder));
    let scratch = context.store.scratch()?;
    require_open_path(scratch.path())?;
    mmdebstrap(debian, lock, before.as_deref(), tar, scratch.path(), context)?;
    require_locked(tar, debian, lock)
}

/// Refuses a tree of other lists than the lock's: the mirror may have changed since it was asked.
fn require_locked(tar: &Path, debian: &Debian, lock: &Lock) -> Result<()> {
    let mut releases = Vec::new();
    let mut archive = tar::Archive::new(fs::File::open(tar)?);
    for entry in archive.entries_with_seek()? {
        let mut entry = entry?;
        let is_release = entry.path()?.to_string_lossy().ends_with("_InRelease");
        if is_release && entry.size() <= resolve::debian::RELEASE_LIMIT {
            let mut text = Vec::new();
            entry.read_to_end(&mut text)?;
            releases.push(String::from_utf8_lossy(&text).into_owned());
        }
    }
    if resolve::debian::are_of(&releases, debian, lock) {
        return Ok(());
    }
    Err(Fault::environment("the mirror changed between the look at it and the installation")
        .hint("run it again")
        .into())
}

/// Installs the packages that only a build needs, from the mirrors that the tree itself names.
pub fn add_compilers(debian: &Debian, sandbox: &Sandbox<'_>, context: &Context) -> Result<()> {
    if debian.build_packages.is_empty() {
        return Ok(());
    }
    if context.offline {
        let message = "--offline, and the store does not have the application, which is built with packages of a mirror";
        return Err(Fault::environment(message)
            .hint("build it once with a network, or give it with --app FILE")
            .into());
    }
    context.reporter.doing("installing the compilers");
    sandbox.run(&["apt-get", "-q", "update"], Network::Host)?;
    let mut command = vec!["apt-get", "-q", "-y", "--no-install-recommends", "install"];
    command.extend(debian.build_packages.iter().map(String::as_str));
    sandbox.run(&command, Network::Host)
}

fn mmdebstrap(
    debian: &Debian,
    lock: &Lock,
    before: Option<&Path>,
    tar: &Path,
    temp: &Path,
    context: &Context,
) -> Result<()> {
    let mut progress = Progress::default();
    // What it mounts as root goes with it, however it ends: a sweep must never walk through a mount that a killed run left.
    let (program, own_mounts): (_, &[&str]) = if rustix::process::geteuid().is_root() {
        ("unshare", &["--mount", "--", "mmdebstrap"])
    } else {
        ("mmdebstrap", &[])
    };
    let mut run = Run::new(&context.log, program)
        .args(own_mounts)
        .env("SOURCE_DATE_EPOCH", lock.epoch.to_string())
        .env("TMPDIR", temp)
        .args(["--variant=apt", "--architectures=amd64", "--verbose", "--skip=cleanup/apt/lists"])
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        .arg("--aptopt=Acquire::Retries \"3\"")
        .arg(format!("--include={}", debian.packages.join(",")));
    run = run.arg(format!("--customize-hook={FORGET}"));
    for pattern in &debian.exclude {
        run = run.arg(format!("--dpkgopt=path-exclude={pattern}"));
    }
    if let Some(before) = before {
        let files = temp.join("before.tar");
        super::files_before(before, lock.epoch, &files)?;
        run = run.arg(format!("--essential-hook=tar-in {} /", shell_quote(&files)));
    }
    run = run.arg(&debian.suite).arg(tar);
    for suite in &lock.suites {
        run = run.arg(format!("deb {} {} {}", suite.uri, suite.suite, debian.components.join(" ")));
    }
    run.on_line(|line| progress.line(line, context)).run()
}

/// An ordinary user's mmdebstrap works as his subordinate users, who must be able to walk to its folder.
fn require_open_path(folder: &Path) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    for folder in folder.ancestors() {
        if fs::metadata(folder)?.permissions().mode() & 0o001 == 0 {
            let message = format!(
                "`{}` is closed to your subordinate user ids, which mmdebstrap works as",
                folder.display()
            );
            let hint = format!(
                "chmod o+x {}, or put the store elsewhere: IMGBUILD_STORE=/var/tmp/imgbuild",
                folder.display()
            );
            return Err(Fault::environment(message).hint(hint).into());
        }
    }
    Ok(())
}

fn shell_quote(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

/// Counts packages through apt's and dpkg's words: each is fetched, unpacked and set up.
#[derive(Default)]
struct Progress {
    total: u64,
    done: u64,
}

impl Progress {
    fn line(&mut self, line: &str, context: &Context) {
        let line = line.trim();
        if let Some((count, _)) =
            line.split_once(" upgraded, ").and_then(|(_, rest)| rest.split_once(" newly installed"))
        {
            self.total += 3 * count.parse::<u64>().unwrap_or(0);
        } else if line.starts_with("Get:")
            || line.starts_with("Unpacking ")
            || line.starts_with("Setting up ")
        {
            self.done += 1;
            let words: Vec<&str> = line.split_whitespace().take(3).collect();
            context.reporter.doing(&words.join(" "));
        }
        if self.total > 0 {
            context.reporter.progress(self.done.min(self.total), self.total, Unit::Items);
        }
    }
}
