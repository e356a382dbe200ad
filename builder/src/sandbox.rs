//! A tree unpacked into a folder of its own, in which commands run as its root.
//!
//! Mounts, processes and (unless asked for) network are the sandbox's own and end with the command. An ordinary user works in a
//! user namespace with subordinate ids, so owners in the tree are right for both.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::context::Context;
use crate::exec::{Log, Run};
use crate::store::{Scratch, Store};

/// Mounts that programs in the tree expect, in each of the roots up to `--`; then the command in the first of them. `$1` is what starts
/// it: a session of its own, so that no program of a package can type into the user's terminal; `$2` is the host's resolver, where there is a network. Modes of files do not depend on the
/// user's umask.
const ENTER: &str = r#"
set -e
umask 022
start=$1
resolver=$2
shift 2
first=$1
# A tree names no resolver; what works with the network gets the host's.
if [ -n "$resolver" ]; then
    rm -f "$first/etc/resolv.conf"
    cp "$resolver" "$first/etc/resolv.conf"
fi
while [ "$1" != -- ]; do
    root=$1
    shift
    mount -t proc proc "$root/proc"
    mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
    for node in null zero full random urandom; do
        : > "$root/dev/$node"
        mount --bind "/dev/$node" "$root/dev/$node"
    done
    mkdir "$root/dev/shm"
    mount -t tmpfs tmpfs "$root/dev/shm"
    ln -s /proc/self/fd "$root/dev/fd"
    mount -t tmpfs tmpfs "$root/run"
done
shift
exec $start chroot "$first" "$@"
"#;

/// What a program in the tree may know of the host: nothing.
const ENVIRONMENT: [&str; 5] = [
    "env",
    "-i",
    "TZ=UTC",
    "HOME=/root",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
];

/// Whether commands in the sandbox reach the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// No interface but an unconfigured loopback.
    None,
    /// The host's.
    Host,
}

/// An unpacked tree; removed when dropped.
pub struct Sandbox<'a> {
    context: &'a Context,
    root: PathBuf,
    _scratch: Scratch,
}

impl<'a> Sandbox<'a> {
    /// An empty tree, for its maker to fill.
    pub fn empty(context: &'a Context) -> Result<Self> {
        let scratch = context.store.scratch()?;
        let root = scratch.path().join("root");
        let sandbox = Sandbox { context, root, _scratch: scratch };
        sandbox.outside().arg("mkdir").arg(&sandbox.root).run()?;
        Ok(sandbox)
    }

    /// Unpacks a tree's tar.
    pub fn unpack(tar: &Path, context: &'a Context) -> Result<Self> {
        let sandbox = Self::empty(context)?;
        // Device nodes cannot be made in a user namespace; the sandbox brings its own.
        sandbox.untar(&sandbox.root, tar, &["--exclude=./dev/*"])?;
        Ok(sandbox)
    }

    /// The folder that the tree lies in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Unpacks a tar into a folder of the tree, with the tar's owners.
    pub fn untar_at(&self, folder: &str, tar: &Path) -> Result<()> {
        self.untar(&self.root.join(folder), tar, &["--keep-directory-symlink"])
    }

    fn untar(&self, folder: &Path, tar: &Path, more: &[&str]) -> Result<()> {
        let run = self
            .outside()
            .args(["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"])
            .arg(tar);
        run.arg("-C").arg(folder).args(more).run()
    }

    /// Copies a folder of the host to a path of the tree, with an owner; readable for all, whatever the host's umask.
    pub fn copy_in(&self, source: &Path, guest: &str, owner: u32) -> Result<()> {
        let target = self.root.join(guest.trim_start_matches('/'));
        self.outside().args(["mkdir", "-p"]).arg(&target).run()?;
        self.outside().args(["cp", "-r", "--no-preserve=ownership", "-T"]).arg(source).arg(&target).run()?;
        self.outside().args(["chmod", "-R", "u=rwX,go=rX"]).arg(&target).run()?;
        self.outside().args(["chown", "-R", &format!("{owner}:{owner}")]).arg(&target).run()
    }

    /// Runs a command as root of the tree.
    pub fn run(&self, command: &[&str], network: Network) -> Result<()> {
        self.enter(&[], network).args(ENVIRONMENT).arg(locale(&self.root)).args(command).run()
    }

    /// Runs a command as root of the tree, without network, with the mounts in inner roots as well; hears its lines.
    pub fn run_mounted(
        &self,
        inner: &[&str],
        command: &[&str],
        on_line: impl FnMut(&str) + 'a,
    ) -> Result<()> {
        self.enter(inner, Network::None)
            .args(ENVIRONMENT)
            .arg(locale(&self.root))
            .args(command)
            .on_line(on_line)
            .run()
    }

    /// Runs a command as root of a root inside the tree, without network.
    pub fn run_at(&self, inner: &str, command: &[&str]) -> Result<()> {
        let root = self.root.join(inner);
        let locale = locale(&root);
        self.enter_roots(&[root], Network::None).args(ENVIRONMENT).arg(locale).args(command).run()
    }

    /// Runs a shell command as a user of the tree, in a folder of it, without network.
    pub fn run_as(&self, user: u32, folder: &str, command: &str) -> Result<()> {
        let id = user.to_string();
        let script = format!("cd {folder} && {command}");
        let inside = [
            "setpriv",
            "--reuid",
            &id,
            "--regid",
            &id,
            "--clear-groups",
            "--no-new-privs",
            "env",
            "-i",
            "TZ=UTC",
            locale(&self.root),
        ];
        let rest = ["HOME=/home/mastodon", "PATH=/usr/local/bin:/usr/bin:/bin", "sh", "-ec", &script];
        self.enter(&[], Network::None).args(inside).args(rest).run()
    }

    /// A command on the user's terminal as root of the tree; its exit code.
    pub fn interactive(&self, command: &[&str], network: Network) -> Result<i32> {
        self.enter_as("", std::slice::from_ref(&self.root), network).args(command).interactive()
    }

    /// Packs a path of the tree, sorted, with the given time for every file.
    pub fn pack(&self, guest: &str, epoch: u64, tar: &Path) -> Result<()> {
        let run = self.tar().arg(format!("--mtime=@{epoch}"));
        run.arg("-cf").arg(tar).arg("-C").arg(&self.root).arg(format!(".{guest}")).run()
    }

    /// Packs a root inside the tree, sorted; only times after the given one are changed, because a package database knows the others.
    pub fn pack_tree(&self, inner: &str, epoch: u64, tar: &Path) -> Result<()> {
        let run = self.tar().arg(format!("--mtime=@{epoch}")).arg("--clamp-mtime");
        run.arg("-cf").arg(tar).arg("-C").arg(self.root.join(inner)).arg(".").run()
    }

    fn tar(&self) -> Run<'a> {
        self.outside().args([
            "tar",
            "--numeric-owner",
            "--sort=name",
            "--format=pax",
            "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
            "--xattrs",
            "--xattrs-include=*",
        ])
    }

    /// A command with root's rights over the tree's owners, outside the tree.
    fn outside(&self) -> Run<'a> {
        Run::new(&self.context.log, "unshare").args(identity()).arg("--")
    }

    fn enter(&self, inner: &[&str], network: Network) -> Run<'a> {
        let roots: Vec<PathBuf> = std::iter::once(self.root.clone())
            .chain(inner.iter().map(|inner| self.root.join(inner)))
            .collect();
        self.enter_roots(&roots, network)
    }

    fn enter_roots(&self, roots: &[PathBuf], network: Network) -> Run<'a> {
        self.enter_as("setsid -w", roots, network)
    }

    fn enter_as(&self, start: &str, roots: &[PathBuf], network: Network) -> Run<'a> {
        let mut run = Run::new(&self.context.log, "unshare").args(identity());
        run = run.args([
            "--mount",
            "--propagation=private",
            "--pid",
            "--fork",
            "--kill-child",
            "--ipc",
            "--uts",
        ]);
        let resolver = match network {
            Network::None => {
                run = run.arg("--net");
                ""
            }
            Network::Host => "/etc/resolv.conf",
        };
        run.args(["--", "sh", "-ec", ENTER, "sandbox", start, resolver]).args(roots).arg("--")
    }
}

/// A setting with UTF-8, which the sources of gems need, as far as the tree has one: CentOS 7 has no `C.UTF-8`.
fn locale(root: &Path) -> &'static str {
    let has = |name: &str| root.join("usr/lib/locale").join(name).exists();
    if has("C.utf8") {
        "LC_ALL=C.UTF-8"
    } else if has("locale-archive") {
        "LC_ALL=en_US.UTF-8"
    } else {
        "LC_ALL=C"
    }
}

impl Drop for Sandbox<'_> {
    fn drop(&mut self) {
        // Folders of subordinate ids can be removed only from inside the namespace.
        let _ = self.outside().args(["rm", "-rf"]).arg(&self.root).run();
    }
}

/// Removes what killed runs of an ordinary user left in the store: trees of his subordinate ids, which [`Store::open`] cannot remove.
pub fn sweep(store: &Store, log: &Log) -> Result<()> {
    for scratch in store.left_over()? {
        // Opening the store has removed all that it may; where a folder is left, its files are of other owners.
        if scratch.path().is_dir() {
            let remove = Run::new(log, "unshare").args(identity()).args([
                "--",
                "rm",
                "-rf",
                "--one-file-system",
                "--",
            ]);
            // What cannot be removed now keeps its lock for the next run; it is no reason to refuse this one.
            let _ = remove.arg(scratch.path()).run();
        }
    }
    Ok(())
}

/// Arguments of `unshare` that give an ordinary user root's rights over subordinate ids; root has them.
fn identity() -> Vec<&'static str> {
    if rustix::process::geteuid().is_root() {
        vec!["--mount"]
    } else {
        vec!["--map-auto", "--map-root-user", "--mount"]
    }
}
