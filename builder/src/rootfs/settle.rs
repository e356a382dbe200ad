//! A tree that yum has filled, made to depend on its packages alone: no times of this build, no random numbers, no keys of all
//! machines.
//!
//! What the packages' scripts make by chance goes where each machine makes it anew or does without. The rpm database says that all
//! was installed at the time of the build; `rpm -V` looks at none of what is changed here. A database that is not rpm 4.11's (the
//! stand-in's, which is SQLite) stays as it is.

mod keystore;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;

use crate::initramfs;
use crate::rpm::database;
use crate::sandbox::{Network, Sandbox};

/// What yum calls this machine while it works. The file goes afterwards: each machine makes its own.
pub const YUM_UUID: &str = "00000000-0000-4000-8000-000000000000";
/// Where yum keeps that.
pub const YUM_UUID_FILE: &str = "var/lib/yum/uuid";
/// Largest keystore that is read, in bytes.
const KEYSTORE_LIMIT: u64 = 16 << 20;
const KEYSTORE: &str = "etc/pki/ca-trust/extracted/java/cacerts";
const DATABASE: &str = "var/lib/rpm";

/// In order: what yum noted about this run; the times of repositories that no machine has; caches that name inodes; the caches of
/// fonts, which are out of date as soon as the tree is packed, and their random names; the id of the machine; a certificate store
/// with its password, which the guest would have in common with every other; what grubby noted.
const FORGET: &str = "\
shopt -s globstar nullglob
cd /target
rm -rf build var/lib/yum/history/*
rm -f var/lib/yum/uuid var/lib/yum/yumdb/*/*/from_repo_{revision,timestamp}
rm -f var/cache/ldconfig/aux-cache
rm -f usr/share/fonts/**/.uuid usr/lib/fontconfig/cache/*.cache-*
[ ! -e etc/machine-id ] || : > etc/machine-id
rm -f etc/openldap/certs/*
rm -f var/log/grubby_prune_debug
rmdir var/lib/yum 2> /dev/null || :
";

/// Settles the tree in `/target` of the sandbox.
pub fn settle(sandbox: &Sandbox<'_>, epoch: u64) -> Result<()> {
    sandbox.run(&["bash", "-ec", FORGET], Network::None)?;
    rewrite(sandbox, KEYSTORE, |file| {
        let meta = fs::metadata(file)?;
        anyhow::ensure!(meta.len() <= KEYSTORE_LIMIT, "it is too large for a keystore");
        Ok(fs::write(file, keystore::with_time(&fs::read(file)?, epoch)?)?)
    })?;
    for entry in fs::read_dir(sandbox.root().join("target/boot")).into_iter().flatten() {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("initramfs-") && name.ends_with(".img") {
            rewrite(sandbox, &format!("boot/{name}"), |file| {
                let settled = initramfs::canonical(&fs::read(file)?, epoch)?;
                settled.map_or(Ok(()), |bytes| Ok(fs::write(file, bytes)?))
            })?;
        }
    }
    let time = u32::try_from(epoch).context("the time of the build is none that rpm can note")?;
    let packages = format!("{DATABASE}/Packages");
    let is_there = rewrite(sandbox, &packages, |file| database::set_times(file, time).map(drop))?;
    if !is_there {
        return Ok(());
    }
    // Its own rpm makes the indexes, after it has checked every header.
    sandbox.run(&["bash", "-ec", "rm -f /target/var/lib/rpm/__db.*"], Network::None)?;
    sandbox.run(&["rpm", "--root", "/target", "--rebuilddb"], Network::None)?;
    for entry in fs::read_dir(sandbox.root().join("target").join(DATABASE))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // What begins so is of one run of rpm, and is removed before the tree is packed.
        if !name.starts_with("__db.") && !name.starts_with('.') {
            rewrite(sandbox, &format!("{DATABASE}/{name}"), database::canonical)?;
        }
    }
    Ok(())
}

/// Changes a file of the tree; `false` when there is none. The change is made on a copy, which the tree's own root then writes back:
/// an ordinary user may not write to every file of it, and a link must lead nowhere but into the tree.
fn rewrite(sandbox: &Sandbox<'_>, path: &str, change: impl FnOnce(&Path) -> Result<()>) -> Result<bool> {
    let source = sandbox.root().join("target").join(path);
    if !is_plain(sandbox.root(), &source)? {
        return Ok(false);
    }
    let name = source.file_name().unwrap_or_default();
    let folder = sandbox.root().join("build/settle");
    fs::create_dir_all(&folder)?;
    let copy: PathBuf = folder.join(name);
    fs::write(&copy, fs::read(&source)?)?;
    change(&copy).with_context(|| format!("settling `/{path}`"))?;
    let script = "cat \"/build/settle/$1\" > \"/target/$2\"";
    sandbox.run(&["bash", "-ec", script, "settle", &name.to_string_lossy(), path], Network::None)?;
    fs::remove_file(copy)?;
    Ok(true)
}

/// Whether there is a file of its own at that path, and no link on the way.
fn is_plain(root: &Path, path: &Path) -> Result<bool> {
    match fs::canonicalize(path) {
        Ok(real) => Ok(real == fs::canonicalize(root)?.join(path.strip_prefix(root)?) && real.is_file()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}
