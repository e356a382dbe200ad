//! `Recipe`, `Lock` -> `BaseTree`: the distribution's files as one tar, made by its own package manager.
//!
//! mmdebstrap verifies the archive's signature and every package. As root it works in a chroot, as an ordinary user in a user
//! namespace. The result depends on the lock and the recipe alone.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use crate::context::Context;
use crate::error::Fault;
use crate::exec::Run;
use crate::recipe::Recipe;
use crate::report::Unit;
use crate::resolve::Lock;
use crate::store::Key;
use crate::tree::path::TreePath;
use crate::tree::writer::{Meta, TreeWriter};

/// Raise when equal inputs give another tree.
const STAGE_VERSION: u32 = 2;

/// A tar of the distribution's files.
#[derive(Debug, Clone)]
pub struct BaseTree {
    tar: PathBuf,
    key: Key,
}

impl BaseTree {
    /// The tar.
    pub fn tar(&self) -> &Path {
        &self.tar
    }

    /// Its key.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

/// Makes the tree, or takes it from the store.
pub fn make(recipe: &Recipe, lock: &Lock, context: &Context) -> Result<(BaseTree, bool)> {
    let debian = &recipe.image.debian;
    let before = debian.before.as_ref().map(|folder| recipe.folder.join(folder));
    let before_digest = before.as_deref().map_or(Ok(String::new()), crate::digest::folder)?;
    let options = Recipe::canonical(debian)?;
    let key = Key::of("rootfs", STAGE_VERSION, &[lock.key().as_str(), &options, &before_digest]);
    let (folder, cached) = context.store.get_or_make("rootfs-v1", &key, |folder| {
        if context.offline {
            let message = "--offline, and the store does not have the base tree of this recipe and lock";
            return Err(Fault::environment(message).hint("build it once with a network").into());
        }
        let scratch = context.store.scratch()?;
        require_open_path(scratch.path())?;
        mmdebstrap(recipe, lock, before.as_deref(), &folder.join("base.tar"), scratch.path(), context)
    })?;
    Ok((BaseTree { tar: folder.join("base.tar"), key }, cached))
}

fn mmdebstrap(
    recipe: &Recipe,
    lock: &Lock,
    before: Option<&Path>,
    tar: &Path,
    temp: &Path,
    context: &Context,
) -> Result<()> {
    let debian = &recipe.image.debian;
    let mut progress = Progress::default();
    let mut run = Run::new(&context.log, "mmdebstrap")
        .env("SOURCE_DATE_EPOCH", lock.epoch.to_string())
        .env("TMPDIR", temp)
        .args(["--variant=apt", "--architectures=amd64", "--verbose"])
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        .arg("--aptopt=Acquire::Retries \"3\"")
        .arg(format!("--include={}", debian.packages.join(",")));
    for pattern in &debian.exclude {
        run = run.arg(format!("--dpkgopt=path-exclude={pattern}"));
    }
    if let Some(before) = before {
        // Owners and modes of a checkout must not reach the guest: the tar says root, 0644 or 0755, and names no folder.
        let files = temp.join("before.tar");
        let mut writer = TreeWriter::new(fs::File::create(&files)?, lock.epoch);
        add_files(before, &TreePath::root(), &mut writer)?;
        writer.finish()?.sync_all()?;
        run = run.arg(format!("--essential-hook=tar-in {} /", shell_quote(&files)));
    }
    run = run.arg(&debian.suite).arg(tar);
    for suite in &lock.suites {
        run = run.arg(format!("deb {} {} {}", suite.uri, suite.suite, debian.components.join(" ")));
    }
    run.on_line(|line| progress.line(line, context)).run()
}

/// Adds the files below a folder of the recipe, folders only as parts of their names.
fn add_files(folder: &Path, guest: &TreePath, writer: &mut TreeWriter<fs::File>) -> Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = guest.join(&entry.file_name().to_string_lossy()).map_err(Fault::user)?;
        if entry.file_type()?.is_dir() {
            add_files(&entry.path(), &path, writer)?;
        } else {
            let executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
            writer.file(
                &path,
                Meta::root(if executable { 0o755 } else { 0o644 }),
                &fs::read(entry.path())?,
            )?;
        }
    }
    Ok(())
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
