//! The sources in `firstboot/` -> `Appliance`: the binary for the guest.
//!
//! It runs on CentOS 7 too: linked against glibc 2.17 by cargo-zigbuild, which is checked on the result. A ready-made binary can be
//! given instead (`--appliance FILE`); the same check holds for it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;

use crate::context::Context;
use crate::error::Fault;
use crate::exec::Run;
use crate::store::Key;

/// Raise when equal inputs give another binary.
const STAGE_VERSION: u32 = 2;
/// The oldest glibc that an image has: CentOS 7's.
const GLIBC: (u32, u32) = (2, 17);
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The checked binary.
#[derive(Debug, Clone)]
pub struct Appliance {
    path: PathBuf,
    key: Key,
}

impl Appliance {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its key.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

/// Builds the binary, or takes it from the store or from the command line.
pub fn build(context: &Context) -> Result<(Appliance, bool)> {
    if let Some(path) = &context.appliance {
        check(path)?;
        let key = Key::of("appliance-given", STAGE_VERSION, &[&crate::digest::file(path)?]);
        return Ok((Appliance { path: path.clone(), key }, true));
    }
    let root = context.project.root();
    let sources = root.join("firstboot");
    if !sources.join("Cargo.toml").is_file() {
        let message =
            format!("`{}` has no `firstboot` sources to build the guest's program from", root.display());
        return Err(Fault::user(message).hint("give a ready-made one with --appliance FILE").into());
    }
    let digest = [
        crate::digest::folder(&sources)?,
        crate::digest::file(&root.join("Cargo.lock"))?,
        crate::digest::file(&root.join("Cargo.toml"))?,
    ];
    let key = Key::of("appliance", STAGE_VERSION, &digest.iter().map(String::as_str).collect::<Vec<_>>());
    let (folder, cached) = context.store.get_or_make("appliance-v1", &key, |folder| {
        let target = context.store.root().join("cargo-target");
        // cargo's own lock ends with cargo: until the copy is made, another project must not build over it.
        fs::create_dir_all(&target)?;
        let lock = fs::File::create(target.join("imgbuild.lock"))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
            .context("locking cargo's folder")?;
        zigbuild(context, &target)?;
        let built = target.join(TARGET).join("release/appliance");
        check(&built)?;
        refuse_paths(&built, &[&cargo_home(), root])?;
        fs::copy(&built, folder.join("appliance"))?;
        Ok(())
    })?;
    Ok((Appliance { path: folder.join("appliance"), key }, cached))
}

/// Refuses a host without the linker for the guest's glibc; returns where it is.
pub fn require_tools(context: &Context) -> Result<PathBuf> {
    let tools = context.store.root().join("tools/zig");
    let zigbuild = tools.join("bin/cargo-zigbuild");
    if zigbuild.is_file() {
        return Ok(tools);
    }
    let message = format!("not on this host: `cargo-zigbuild` (looked for `{}`)", zigbuild.display());
    Err(Fault::environment(message)
        .hint("`cargo ci setup` installs it; or give the binary with --appliance FILE")
        .into())
}

fn zigbuild(context: &Context, target: &Path) -> Result<()> {
    let tools = require_tools(context)?;
    // cargo-zigbuild takes `zig` from the search path.
    let mut path = std::ffi::OsString::from(tools.join("ziglang"));
    path.push(":");
    path.push(crate::exec::search_path());
    Run::new(&context.log, tools.join("bin/cargo-zigbuild"))
        .env("PATH", path)
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_ENCODED_RUSTFLAGS", remapped(&cargo_home()))
        .args([
            "zigbuild",
            "--release",
            "--locked",
            "--package",
            "firstboot",
            "--bin",
            "appliance",
            "--target",
        ])
        .arg(format!("{TARGET}.{}.{}", GLIBC.0, GLIBC.1))
        .folder(context.project.root())
        .on_line(|line| context.reporter.doing(line.trim()))
        .run()
}

/// Where cargo keeps the sources of crates, whose paths stand in the messages of panics.
fn cargo_home() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("CARGO_HOME").unwrap_or_else(|| from("HOME").unwrap_or_default().join(".cargo"))
}

/// Flags for rustc, in cargo's own encoding: equal sources give an equal binary, whoever builds it. The project's own folder needs none:
/// cargo names its files relative to it, and a flag that names it would compile every crate anew for each clone. They also take the
/// place of the user's own `RUSTFLAGS`.
fn remapped(cargo_home: &Path) -> std::ffi::OsString {
    let mut flag = std::ffi::OsString::from("--remap-path-prefix=");
    flag.push(cargo_home);
    flag.push("=/cargo");
    flag
}

/// Refuses a binary that wants a newer glibc than the oldest image has.
fn check(path: &Path) -> Result<()> {
    let bytes = fs::read(path).map_err(|error| Fault::user(error.to_string()))?;
    if !bytes.starts_with(b"\x7fELF") {
        return Err(Fault::user(format!("`{}` is not an ELF program", path.display())).into());
    }
    match newest_glibc(&bytes) {
        Some(version) if version > GLIBC => {
            let message =
                format!("`{}` needs GLIBC_{}.{}, CentOS 7 has 2.17", path.display(), version.0, version.1);
            Err(Fault::user(message)
                .hint("build it with cargo-zigbuild for x86_64-unknown-linux-gnu.2.17")
                .into())
        }
        _ => Ok(()),
    }
}

/// Refuses a program that names folders of the build host: another host would build another one, and strangers would read them.
fn refuse_paths(program: &Path, folders: &[&Path]) -> Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = fs::read(program)?;
    // `/src` or `/build` says nothing of a host, and stands within other paths.
    for folder in folders.iter().filter(|folder| folder.components().count() > 2) {
        let text = folder.as_os_str().as_bytes();
        anyhow::ensure!(
            !bytes.windows(text.len()).any(|window| window == text),
            "`{}` names `{}`, a folder of this host",
            program.display(),
            folder.display()
        );
    }
    Ok(())
}

/// The newest `GLIBC_x.y` that a program names.
pub fn newest_glibc(bytes: &[u8]) -> Option<(u32, u32)> {
    const MARK: &[u8] = b"GLIBC_";
    let mut newest = None;
    for start in bytes
        .windows(MARK.len())
        .enumerate()
        .filter(|(_, window)| *window == MARK)
        .map(|(at, _)| at + MARK.len())
    {
        let text: String = bytes[start..]
            .iter()
            .take(8)
            .map_while(|byte| (byte.is_ascii_digit() || *byte == b'.').then_some(char::from(*byte)))
            .collect();
        let mut parts = text.split('.').map(str::parse::<u32>);
        if let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) {
            newest = newest.max(Some((major, minor)));
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_newest_version() {
        assert_eq!(newest_glibc(b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.4\0GLIBC_PRIVATE\0"), Some((2, 34)));
        assert_eq!(newest_glibc(b"static"), None);
    }

    #[test]
    fn no_folder_of_the_builder_gets_into_the_binary() {
        let flag = remapped(Path::new("/home/my own/.cargo"));
        assert_eq!(flag, "--remap-path-prefix=/home/my own/.cargo=/cargo");
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, b"\x7fELF /home/my own/.cargo/registry").unwrap();
        assert!(refuse_paths(&program, &[Path::new("/home/other"), Path::new("/registry")]).is_ok());
        assert!(refuse_paths(&program, &[Path::new("/home/my own/.cargo")]).is_err());
    }

    #[test]
    fn a_program_of_the_host_is_refused() {
        let error = check(&std::env::current_exe().unwrap()).unwrap_err();
        assert!(error.to_string().contains("CentOS 7 has 2.17"), "{error}");
    }
}
