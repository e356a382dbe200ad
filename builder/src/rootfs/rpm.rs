//! The base tree of an RPM distribution: its own yum installs packages that imgbuild has fetched and verified.
//!
//! 1. Every package of the lock: fetched, its signature checked against the archive's pinned keys, its name compared with the lock.
//! 2. Stage 0: the closure of yum, unpacked by imgbuild without scripts or database. It lives for this one build.
//! 3. In stage 0, without network: `setup` and `filesystem` by rpm, then everything else by yum, into the target. So the rpm
//!    database is written by the distribution's own rpm, the only one that writes it as the guest's reads it.
//!
//! The host's rpm is never used. Nothing but the target's tar remains.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use fs_err as fs;

use super::settle;
use crate::context::Context;
use crate::error::Fault;
use crate::fetch::{Fetcher, Wanted};
use crate::recipe::{Recipe, Rpm};
use crate::report::Unit;
use crate::resolve::{Lock, LockedPackage, Tree};
use crate::rpm::evr::{Evr, compare_versions};
use crate::rpm::header::Package;
use crate::rpm::payload;
use crate::rpm::signature::{Keyring, Verified};
use crate::sandbox::{Network, Sandbox};
use crate::store::Key;

/// Raise when equal inputs give another tree.
const STAGE_VERSION: u32 = 3;

/// Marks the lines of rpm's answer among what else may be said.
const INSTALLED: &str = "installed ";
/// What rpm is to say of a package.
const FORMAT: &str = "installed %{NAME} %{VERSION} %{RELEASE}\\n";

/// Beside the tar: the version of the tree's kernel, empty when it has none.
pub(super) const KERNEL: &str = "kernel";

/// Installed before all others, because the rest relies on their folders, links and accounts; and before `/proc` is mounted in the
/// target, which `filesystem` owns.
const FIRST: [&str; 2] = ["setup", "filesystem"];

/// Folders of stage 0 that packages take for granted: an archive cannot make a link where a folder is already.
const USR_MERGE: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Only what is given counts: no repositories, no plugins, no cache; signatures were checked before, by imgbuild.
const YUM_CONF: &str = "\
[main]
cachedir=/build/cache
reposdir=/build/none
pluginpath=/build/none
logfile=/build/yum.log
plugins=0
gpgcheck=0
localpkg_gpgcheck=0
obsoletes=1
tsflags=nodocs
override_install_langs=en_US.utf8
install_weak_deps=0
history_record=0
";

/// The tree's key.
pub fn key(base: &Rpm, recipe: &Recipe, lock: &Lock, context: &Context) -> Result<Key> {
    let before = base.before.as_ref().map(|folder| recipe.folder.join(folder));
    let before = before.as_deref().map_or(Ok(String::new()), crate::digest::folder)?;
    let packages = trees_key(lock, &[Tree::Bootstrap, Tree::Image]);
    let options = Recipe::canonical(&(&base.bootstrap, &base.after, &base.ca_roots))?;
    let roots = base.ca_roots.as_ref().map_or_else(String::new, |_| ca_roots());
    let epoch = lock.epoch.to_string();
    // A tree that a key has vouched for must not serve where that key is not trusted any more.
    let recipe_keys: Vec<_> = base.archives.iter().map(|(name, archive)| (name, &archive.keys)).collect();
    let given: Vec<_> = context.keys.iter().map(|(name, key)| (name, &key.fingerprint)).collect();
    let keys = Recipe::canonical(&(recipe_keys, given))?;
    Ok(Key::of("rootfs-rpm", STAGE_VERSION, &[packages.as_str(), &options, &before, &roots, &epoch, &keys]))
}

/// What stands for the packages of trees in a key.
pub(super) fn trees_key(lock: &Lock, trees: &[Tree]) -> Key {
    let part = |tree: &Tree| {
        lock.tree(*tree).iter().map(|package| package.sha256.as_str()).collect::<Vec<_>>().join(" ")
    };
    Key::of(
        "packages",
        1,
        &trees.iter().map(part).collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>(),
    )
}

/// Makes the tree's tar.
pub fn make(base: &Rpm, recipe: &Recipe, lock: &Lock, tar: &Path, context: &Context) -> Result<()> {
    let packages: Vec<&LockedPackage> = lock
        .packages
        .iter()
        .filter(|package| package.trees.iter().any(|tree| *tree != Tree::Build))
        .collect();
    let verified = verified(base, recipe, lock, &packages, context)?;
    let sandbox = Sandbox::empty(context)?;
    let root = sandbox.root();

    context.reporter.doing("unpacking stage 0");
    for folder in USR_MERGE {
        fs::create_dir_all(root.join("usr").join(folder))?;
        symlink(format!("usr/{folder}"), root.join(folder))?;
    }
    let mut stage0: Vec<_> = packages
        .iter()
        .zip(&verified)
        .filter(|(package, _)| package.trees.contains(&Tree::Bootstrap))
        .collect();
    // Links such as /var/run must be there before files go through them.
    stage0.sort_by_key(|(package, _)| !FIRST.contains(&package.name.as_str()));
    for (_, file) in stage0 {
        payload::unpack(file, root)?;
    }
    for folder in ["proc", "dev", "run", "tmp", "target", "build/none", "build/cache", "packages"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::write(root.join("build/yum.conf"), YUM_CONF)?;
    let image: Vec<&LockedPackage> = lock.tree(Tree::Image);
    copy_packages(&image, &packages, &verified, &root.join("packages"))?;

    context.reporter.doing("installing the first packages");
    let first: Vec<String> = image
        .iter()
        .filter(|package| FIRST.contains(&package.name.as_str()))
        .map(|package| format!("/packages/{}", copy_name(package)))
        .collect();
    sandbox.run(&["rpm", "--root", "/target", "--initdb"], Network::None)?;
    let mut command = vec!["rpm", "--root", "/target", "-i", "--nodeps", "--excludedocs"];
    command.extend(first.iter().map(String::as_str));
    if !first.is_empty() {
        sandbox.run(&command, Network::None)?;
    }
    for package in &image {
        if FIRST.contains(&package.name.as_str()) {
            fs::remove_file(root.join("packages").join(copy_name(package)))?;
        }
    }
    if let Some(before) = &base.before {
        let files = root.join("build/before.tar");
        super::files_before(&recipe.folder.join(before), lock.epoch, &files)?;
        sandbox.untar_at("target", &files)?;
    }
    if let Some(path) = &base.ca_roots {
        let files = root.join("build/ca-roots");
        let target = files.join(path.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap_or(&files))?;
        fs::write(&target, ca_roots())?;
        let tar = root.join("build/ca-roots.tar");
        super::files_before(&files, lock.epoch, &tar)?;
        sandbox.untar_at("target", &tar)?;
    }

    let uuid = format!(
        "mkdir -p /target/var/lib/yum && echo {} > /target/{}",
        settle::YUM_UUID,
        settle::YUM_UUID_FILE
    );
    sandbox.run(&["bash", "-ec", &uuid], Network::None)?;
    let mut progress = Progress { total: image.len() as u64, done: 0 };
    sandbox.run_mounted(
        &["target"],
        &[
            "bash",
            "-ec",
            "exec yum -y -c /build/yum.conf --releasever=7 --installroot=/target install /packages/*.rpm",
        ],
        |line| progress.line(line, context),
    )?;
    let query = ["rpm", "--root", "/target", "-qa", "--qf", FORMAT];
    require_installed(&sandbox, &query, &image)?;
    for command in &base.after {
        context.reporter.doing(command);
        sandbox.run_at("target", &["sh", "-ec", command])?;
    }
    fs::write(tar.with_file_name(KERNEL), newest_kernel(&root.join("target/boot"))?)?;
    context.reporter.doing("removing what is of this build");
    settle::settle(&sandbox, lock.epoch)?;
    // Its own rpm still reads every package.
    require_installed(&sandbox, &query, &image)?;
    context.reporter.doing("packing the tree");
    sandbox.run(
        &["bash", "-ec", "rm -f /target/var/lib/rpm/__db.* /target/var/lib/rpm/.*.lock"],
        Network::None,
    )?;
    sandbox.pack_tree("target", lock.epoch, tar)
}

/// The version of the newest kernel: what follows `vmlinuz-`. A rescue image is named after a machine id, not after a version.
fn newest_kernel(boot: &Path) -> Result<String> {
    let mut versions = Vec::new();
    for entry in fs::read_dir(boot)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        versions.extend(
            name.strip_prefix("vmlinuz-")
                .filter(|version| !version.starts_with("0-rescue"))
                .map(str::to_owned),
        );
    }
    versions.sort_by(|one, two| compare_versions(one, two));
    Ok(versions.pop().unwrap_or_default())
}

/// Mozilla's certificate roots, as PEM.
fn ca_roots() -> String {
    let mut text =
        String::from("# Mozilla's certificate roots, as of the build of imgbuild that made this image.\n");
    for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        let code = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, root.as_ref());
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in code.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// Installs the packages that only a build needs, by the tree's own yum.
pub fn add_compilers(
    base: &Rpm,
    recipe: &Recipe,
    lock: &Lock,
    sandbox: &Sandbox<'_>,
    context: &Context,
) -> Result<()> {
    let packages: Vec<&LockedPackage> =
        lock.tree(Tree::Build).into_iter().filter(|package| !package.trees.contains(&Tree::Image)).collect();
    if packages.is_empty() {
        return Ok(());
    }
    let verified = verified(base, recipe, lock, &packages, context)?;
    context.reporter.doing("installing the compilers");
    let scratch = context.store.scratch()?;
    let build = scratch.path().join("build");
    for folder in ["none", "cache", "packages"] {
        fs::create_dir_all(build.join(folder))?;
    }
    fs::write(build.join("yum.conf"), YUM_CONF)?;
    copy_packages(&packages, &packages, &verified, &build.join("packages"))?;
    sandbox.copy_in(&build, "/build", 0)?;
    let mut progress = Progress { total: packages.len() as u64, done: 0 };
    sandbox.run_mounted(
        &[],
        &["sh", "-ec", "exec yum -y -c /build/yum.conf --releasever=7 install /build/packages/*.rpm"],
        |line| progress.line(line, context),
    )?;
    require_installed(sandbox, &["rpm", "-qa", "--qf", FORMAT], &packages)?;
    sandbox.run(&["rm", "-rf", "/build"], Network::None)
}

/// The name of a package's copy in the sandbox.
fn copy_name(package: &LockedPackage) -> String {
    format!("{}-{}.{}.rpm", package.name, package.evr.replace(':', "_"), package.arch)
}

/// Refuses a tree that does not hold just what was to be installed: yum leaves out what it cannot install, and goes on.
fn require_installed(sandbox: &Sandbox<'_>, query: &[&str], wanted: &[&LockedPackage]) -> Result<()> {
    let mut installed = BTreeSet::new();
    sandbox.run_mounted(&[], query, |line| {
        installed.extend(line.strip_prefix(INSTALLED).map(str::to_owned));
    })?;
    let missing: Vec<String> = wanted
        .iter()
        .filter(|package| {
            let evr = Evr::parse(&package.evr);
            !installed.contains(&format!("{} {} {}", package.name, evr.version, evr.release))
        })
        .map(|package| copy_name(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("yum did not install {}", missing.join(", "));
    Err(Fault::environment(message).hint("the log shows what it said about them").into())
}

/// Copies by readable names: rpm and yum take the files by name. No links: what runs in the sandbox must not reach the store.
fn copy_packages(
    wanted: &[&LockedPackage],
    packages: &[&LockedPackage],
    verified: &[Verified],
    folder: &Path,
) -> Result<()> {
    for (package, file) in packages.iter().zip(verified) {
        if wanted.iter().any(|other| other.sha256 == package.sha256) {
            // By what it is, which the lock has once, and not by what the mirror calls its file.
            let name = folder.join(copy_name(package));
            fs::copy(file.path(), &name)?;
        }
    }
    Ok(())
}

/// The packages' files: in the store by their digest, signed by a key of their archive, and what the lock says they are.
pub fn verified(
    base: &Rpm,
    recipe: &Recipe,
    lock: &Lock,
    packages: &[&LockedPackage],
    context: &Context,
) -> Result<Vec<Verified>> {
    let keyrings = keyrings(base, recipe, lock, context)?;
    let wanted = packages.iter().map(|package| wanted(base, package, context)).collect::<Result<Vec<_>>>()?;
    let files = Fetcher::new(context).files(&wanted)?;
    context.reporter.doing("verifying signatures");
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let (Some(package), Some(file)) = (packages.get(index), files.get(index)) else { return };
                    let result = verify(base, package, file, &keyrings);
                    let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    results.push((index, result));
                    context.reporter.progress(results.len() as u64, packages.len() as u64, Unit::Items);
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

fn verify(
    base: &Rpm,
    locked: &LockedPackage,
    file: &Path,
    keyrings: &BTreeMap<String, Keyring>,
) -> Result<Verified> {
    let archive = archive_of(base, &locked.repository)?;
    let keyring =
        keyrings.get(archive).ok_or_else(|| Fault::user(format!("archive `{archive}` has no keys")))?;
    open(locked, file, keyring).map_err(|error| {
        // A store on a failing disk: with the file gone, the next run fetches it again.
        let is_rotten = crate::digest::file(file).is_ok_and(|digest| digest != locked.sha256);
        if is_rotten && fs::remove_file(file).is_ok() {
            let message = format!("`{}` was damaged in the store, and has been removed", locked.file_name());
            return Fault::environment(message).hint("run imgbuild again").into();
        }
        error.context(format!("repository `{}`", locked.repository))
    })
}

/// The package, when its key vouches for it and it is the one that the lock says.
fn open(locked: &LockedPackage, file: &Path, keyring: &Keyring) -> Result<Verified> {
    let package = Package::open(file).with_context(|| format!("package `{}`", locked.file_name()))?;
    let verified = keyring.verify(package)?;
    let nevra = verified.nevra();
    let evr = crate::rpm::evr::Evr::parse(&locked.evr);
    if nevra.name == locked.name && nevra.evr == evr && nevra.arch == locked.arch {
        return Ok(verified);
    }
    let message = format!(
        "`{}` calls itself {nevra}, and should be {}-{}.{}",
        locked.file_name(),
        locked.name,
        locked.evr,
        locked.arch
    );
    Err(Fault::environment(message)
        .hint("the repository's index or `image.lock` is wrong: use another mirror, or renew the lock with `imgbuild lock`")
        .into())
}

/// The keys that an archive's packages may be signed with.
fn keyrings(
    base: &Rpm,
    recipe: &Recipe,
    lock: &Lock,
    context: &Context,
) -> Result<BTreeMap<String, Keyring>> {
    let mut keyrings = BTreeMap::new();
    for (name, archive) in &base.archives {
        let mut keys = if lock.merged {
            base.archives.values().flat_map(|archive| archive.keys.clone()).collect()
        } else {
            archive.keys.clone()
        };
        for key in &mut keys {
            key.file = recipe.folder.join(&key.file);
        }
        keys.extend(context.keys.iter().filter(|(archive, _)| archive == name).map(|(_, key)| key.clone()));
        keyrings.insert(name.clone(), Keyring::load(&keys)?);
    }
    Ok(keyrings)
}

fn archive_of<'a>(base: &'a Rpm, repository: &str) -> Result<&'a str> {
    match base.repositories.iter().find(|other| other.name == repository) {
        Some(repository) => Ok(&repository.archive),
        None => Err(Fault::user(format!(
            "the lock names a repository `{repository}` that the recipe does not have"
        ))
        .hint("`imgbuild lock` renews it")
        .into()),
    }
}

/// Where a locked package may be had.
pub fn wanted(base: &Rpm, package: &LockedPackage, context: &Context) -> Result<Wanted> {
    let archive = archive_of(base, &package.repository)?;
    let repository = base.repositories.iter().find(|other| other.name == package.repository);
    let roots = repository
        .map(|repository| crate::resolve::rpm::roots(base, repository, context))
        .unwrap_or_default();
    let mut urls: Vec<String> = roots.iter().map(|root| format!("{root}/{}", package.location)).collect();
    // A lock that was made from the publisher's folders, and a mirror that is one flat folder.
    if let (Some(root), true) = (roots.last(), context.mirror(archive).is_some()) {
        urls.push(format!("{root}/{}", package.file_name()));
    }
    Ok(Wanted {
        name: package.file_name().to_owned(),
        origin: format!("repository `{}`", package.repository),
        urls,
        size: Some(package.size),
        sha256: package.sha256.clone(),
    })
}

/// Counts packages through yum's words.
struct Progress {
    total: u64,
    done: u64,
}

impl Progress {
    fn line(&mut self, line: &str, context: &Context) {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("Installing").and_then(|rest| rest.split_once(": ")) {
            self.done += 1;
            context.reporter.doing(rest.1.split_whitespace().next().unwrap_or_default());
            context.reporter.progress(self.done.min(self.total), self.total, Unit::Items);
        }
    }
}
