//! The second build: the same imgbuild as a program of its own, in another project, store, home and temp folder, with another umask,
//! locale, time zone, epoch, number of processors and host name, as far as this host and user allow.
//!
//! It shares what was fetched, and cargo's folder for the guest's program; everything else is made anew.

use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;

use crate::context::Context;
use crate::error::Fault;
use crate::exec::{self, Run};
use crate::export::Format;
use crate::recipe::Recipe;
use crate::store::Store;

/// Folders of the store that hold what came from outside, or what is not part of any image: cargo's folder, and its linker.
const SHARED: &[&str] =
    &["files-v1", "source-v1", "git-v1", "packages-v1", "vendor-v1", "cargo-target", "tools"];
/// What the second build's machine calls itself.
const HOST_NAME: &str = "another-host";
/// Sets the umask (`$1`) and, in a namespace of its own, the host's name (`$2`), and becomes the rest.
const START: &str = r#"
umask "$1"
[ -z "$2" ] || echo "$2" > /proc/sys/kernel/hostname
shift 2
exec "$@"
"#;

/// A store that has only what is shared, and the locks: both builds must be made of the same packages.
pub fn throw_away_store(from: &Store, root: &Path) -> Result<Store> {
    let tmp = root.join("tmp");
    fs::create_dir_all(&tmp)?;
    for folder in [root, &tmp] {
        // An ordinary user's mmdebstrap works as his subordinate users, whatever his umask.
        fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    }
    for kind in SHARED {
        let shared = from.root().join(kind);
        fs::create_dir_all(&shared)?;
        symlink(shared, root.join(kind))?;
    }
    let locks = from.root().join("locks");
    if locks.is_dir() {
        copy(&locks, &root.join("locks"))?;
    }
    Store::open(root)
}

/// What the second build is given.
pub struct Second<'a> {
    /// The recipe of the first.
    pub recipe: &'a Recipe,
    /// The formats of the first.
    pub formats: &'a [Format],
    /// Options of the command line that say what the image is: `--tag`, `--set`.
    pub options: &'a [String],
    /// Where it puts its artifacts.
    pub output: &'a Path,
    /// Its store.
    pub store: &'a Store,
    /// A folder for all else that it has.
    pub folder: &'a Path,
}

impl Second<'_> {
    /// Runs it to its end. Returns what was different for it, one phrase each.
    pub fn run(&self, context: &Context) -> Result<Vec<String>> {
        let mut different = Vec::new();
        let project = self.copy_project(context, &mut different)?;
        let mut words = Self::start(&mut different);
        words.push(std::env::current_exe().context("looking for imgbuild itself")?.into());
        words.extend(self.arguments(&project, context));
        let mut run = Run::new(&context.log, &words[0]).args(&words[1..]).folder(&project);
        for (name, value) in self.environment(&mut different)? {
            run = run.env(name, value);
        }
        let said = run.on_line(|line| progress(line, context)).run();
        said.map_err(|error| self.failed(&error, context))?;
        Ok(different)
    }

    /// Its log would go with its store.
    fn failed(&self, error: &anyhow::Error, context: &Context) -> anyhow::Error {
        let kept = context.log.path().with_extension("second.log");
        let logs = fs::read_dir(self.store.root().join("logs")).into_iter().flatten().flatten();
        let log = logs.map(|entry| entry.path()).max();
        let hint = match log.map(|log| fs::copy(log, &kept)) {
            Some(Ok(_)) => format!("its whole log is in `{}`", kept.display()),
            _ => format!("what it said is in `{}`", context.log.path().display()),
        };
        Fault::environment(format!("the second build did not succeed: {error}")).hint(hint).into()
    }

    /// The images, the overlays and, where it is built, the guest's program: in another folder, made in reverse order.
    fn copy_project(&self, context: &Context, different: &mut Vec<String>) -> Result<PathBuf> {
        let (from, to) = (context.project.root(), self.folder.join("project"));
        let mut parts: Vec<String> = ["images", "overlays"].map(str::to_owned).to_vec();
        if context.appliance.is_none() {
            parts.extend(workspace(from)?);
        }
        for part in parts.iter().filter(|part| from.join(part).exists()) {
            copy(&from.join(part), &to.join(part))?;
        }
        different.push("project in another folder".to_owned());
        let images = orders(&from.join("images"), &to.join("images"))?;
        let overlays = orders(&from.join("overlays"), &to.join("overlays"))?;
        let (folders, other) = (images.0 + overlays.0, images.1 + overlays.1);
        different.push(if other > 0 {
            format!("entries of {other} of its {folders} folders in another order")
        } else {
            "order of its folders as before: --work on another file system changes it".to_owned()
        });
        Ok(to)
    }

    /// Programs that the second build is started through.
    fn start(different: &mut Vec<String>) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        if let Some((first, count)) = processors().filter(|(_, count)| *count > 1)
            && exec::find("taskset").is_some()
        {
            words.extend(["taskset".into(), "-c".into(), first.to_string().into()]);
            different.push(format!("1 processor instead of {count}"));
        }
        let root = rustix::process::geteuid().is_root();
        if root {
            words.extend(["unshare", "--uts", "--"].map(OsString::from));
            different.push(format!("host name `{HOST_NAME}`"));
        }
        // imgbuild sets its own before it writes anything: this is what it must not inherit.
        let umask = "077";
        different.push(format!("umask {umask} at its start"));
        let name = if root { HOST_NAME } else { "" };
        words.extend(["sh", "-ec", START, "sh", umask, name].map(OsString::from));
        words
    }

    fn environment(&self, different: &mut Vec<String>) -> Result<Vec<(&'static str, OsString)>> {
        let mut all: Vec<(&str, OsString)> = Vec::new();
        // Where cargo finds itself and its registry, which a new home would not have.
        let home = std::env::var_os("HOME").map(PathBuf::from);
        for (name, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            let place = std::env::var_os(name).map(PathBuf::from);
            if let Some(place) =
                place.or_else(|| Some(home.as_ref()?.join(folder))).filter(|place| place.is_dir())
            {
                all.push((name, place.into()));
            }
        }
        for (name, folder) in [("HOME", "home-of-the-second"), ("TMPDIR", "temp-of-the-second")] {
            let path = self.folder.join(folder);
            fs::create_dir(&path)?;
            fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
            all.push((name, path.into()));
        }
        all.push(("IMGBUILD_STORE", self.store.root().into()));
        different.push("another store, home and temp folder".to_owned());
        for (name, value) in [
            ("TZ", "Pacific/Apia"),
            ("LANG", "tr_TR.UTF-8"),
            ("LANGUAGE", "tr"),
            ("LC_ALL", "tr_TR.UTF-8"),
            ("SOURCE_DATE_EPOCH", "86400"),
        ] {
            different.push(format!("{name}={value}"));
            all.push((name, value.into()));
        }
        Ok(all)
    }

    fn arguments(&self, project: &Path, context: &Context) -> Vec<OsString> {
        let formats: Vec<String> = self.formats.iter().map(ToString::to_string).collect();
        // An image outside the project is named by its folder, wherever that is.
        let image = self
            .recipe
            .folder
            .strip_prefix(context.project.root())
            .map_or_else(|_| self.recipe.folder.clone(), |inside| project.join(inside));
        let mut words: Vec<OsString> = ["build", "--no-progress", "--project"].map(OsString::from).to_vec();
        words.extend([project.into(), "--image".into(), image.into()]);
        words.extend(["--format".into(), formats.join(",").into(), "--output".into(), self.output.into()]);
        words.extend(self.options.iter().map(OsString::from));
        for (name, url) in &context.mirrors {
            words.extend(["--mirror".into(), format!("{name}={url}").into()]);
        }
        for (name, key) in &context.keys {
            let mut pair = OsString::from(format!("{name}="));
            pair.push(&key.file);
            words.extend(["--key".into(), pair]);
        }
        // It runs in another folder.
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        for (option, path) in [("--appliance", &context.appliance), ("--app", &context.layer)] {
            words.extend(path.iter().flat_map(|path| [option.into(), absolute(path).into()]));
        }
        if let Some(source) = &context.source {
            let path = Path::new(source);
            let source = if path.exists() { absolute(path).into() } else { OsString::from(source) };
            words.extend(["--source".into(), source]);
        }
        words.extend(context.offline.then(|| "--offline".into()));
        words
    }
}

/// A line of the second build, as far as it says how far that is.
fn progress(line: &str, context: &Context) {
    if line.starts_with('[') {
        context.reporter.doing(&format!("second build: {line}"));
    } else if line.trim_start().contains(": ") && line.ends_with(" s") {
        context.reporter.note(&format!("second build, {}", line.trim()));
    }
}

/// Folders and files, beside the images, that cargo needs to build a member of the project's workspace.
fn workspace(project: &Path) -> Result<Vec<String>> {
    let mut parts: Vec<String> =
        ["Cargo.toml", "Cargo.lock", ".cargo", "rust-toolchain.toml"].map(str::to_owned).to_vec();
    let Ok(text) = fs::read_to_string(project.join("Cargo.toml")) else { return Ok(parts) };
    let manifest: toml::Table = toml::from_str(&text)
        .map_err(|error| Fault::user(format!("`{}`: {error}", project.join("Cargo.toml").display())))?;
    let members = manifest.get("workspace").and_then(|workspace| workspace.get("members"));
    let members = members.and_then(toml::Value::as_array).into_iter().flatten();
    parts.extend(members.filter_map(toml::Value::as_str).map(str::to_owned));
    Ok(parts)
}

/// A copy whose folders were filled from their last name to their first.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let kind = fs::symlink_metadata(from)?.file_type();
    if kind.is_symlink() {
        return Ok(symlink(fs::read_link(from)?, to)?);
    }
    if !kind.is_dir() {
        fs::create_dir_all(to.parent().unwrap_or(to))?;
        fs::copy(from, to)?;
        return Ok(());
    }
    fs::create_dir_all(to)?;
    let mut names: Vec<OsString> = names(from)?;
    names.sort();
    names.reverse();
    for name in names {
        copy(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

/// Names in a folder, in the file system's order.
fn names(folder: &Path) -> Result<Vec<OsString>> {
    Ok(fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<_>>()?)
}

/// Folders at or below `one`, and how many of them list their entries in another order in `two`.
fn orders(one: &Path, two: &Path) -> Result<(usize, usize)> {
    let listed = names(one)?;
    let mut counts = (1, usize::from(listed != names(two)?));
    for name in listed {
        let (inner, other) = (one.join(&name), two.join(&name));
        if fs::symlink_metadata(&inner)?.is_dir() {
            let (folders, differing) = orders(&inner, &other)?;
            counts = (counts.0 + folders, counts.1 + differing);
        }
    }
    Ok(counts)
}

/// The first processor that this process may use, and how many there are.
fn processors() -> Option<(usize, u32)> {
    let set = rustix::thread::sched_getaffinity(None).ok()?;
    let first = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| set.is_set(*cpu))?;
    Some((first, set.count()))
}
