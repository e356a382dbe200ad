//! Network namespaces with names, as `ip netns` keeps them below `/run/netns`.
//!
//! A [`Namespace`] is deleted when it is dropped, and every process that is still inside is killed first. Names carry the id of the
//! process that made them, so that [`sweep`] can remove what a killed process left behind.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::exec;

const FOLDER: &str = "/run/netns";
const PREFIX: &str = "lab-";

/// A network namespace that we made.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with its loopback up. `role` makes the name unique within this process.
    pub fn create(role: &str) -> Result<Namespace> {
        if !rustix::process::geteuid().is_root() {
            bail!(
                "the lab needs root: network namespaces and tap devices are made with `ip`\n\
                 hint: run it with `sudo`, or let `cargo ci` start it in a user namespace (that needs a \
                 /dev/net/tun you may open); `passt` serves a single VM without either"
            );
        }
        let name = format!("{PREFIX}{}-{role}", std::process::id());
        exec::text("ip", &["netns", "add", &name])?;
        let namespace = Namespace { name };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Name below `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in this namespace; words are split at blanks.
    pub fn ip(&self, words: &str) -> Result<String> {
        let mut args = vec!["-n", &self.name];
        args.extend(words.split_whitespace());
        exec::text("ip", &args)
    }

    /// Runs a program to its end in this namespace and returns what it said.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let mut all = vec!["netns", "exec", &self.name, program];
        all.extend_from_slice(args);
        exec::text("ip", &all)
    }

    /// Writes a network setting of the kernel, for example `ipv6/conf/all/forwarding`.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        // The files below /proc/sys/net show the namespace of the thread that opens them.
        enter(&self.name, || Ok(fs_err::write(Path::new("/proc/sys/net").join(key), value)?))
    }

    fn remove(name: &str) -> Result<()> {
        for id in exec::text("ip", &["netns", "pids", name])?.split_whitespace() {
            if let Some(id) = id.parse().ok().and_then(Pid::from_raw) {
                // It may have ended since it was listed.
                let _ = rustix::process::kill_process(id, Signal::KILL);
            }
        }
        exec::text("ip", &["netns", "delete", name])?;
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing can be done here if it fails; the next start sweeps it away.
        let _ = Namespace::remove(&self.name);
    }
}

/// Runs `work` on a thread of its own that has joined the namespace `name`. What it opens stays there: a socket made inside may be
/// used by any thread afterwards.
pub fn enter<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let file = fs_err::File::open(Path::new(FOLDER).join(name))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            use std::os::fd::AsFd as _;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("joining network namespace `{name}`"))?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Removes the namespaces of processes that are no longer there, with everything that runs in them.
pub fn sweep() -> Result<()> {
    for name in names()? {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let Some(owner) = owner.and_then(|id| id.parse::<u32>().ok()) else { continue };
        if !Path::new("/proc").join(owner.to_string()).exists() {
            let removed = Namespace::remove(&name);
            // Tests start side by side: another one may have swept the same name since it was listed.
            if Path::new(FOLDER).join(&name).exists() {
                removed.with_context(|| format!("removing the left-over namespace `{name}`"))?;
            }
        }
    }
    Ok(())
}

/// Names of all namespaces on this machine.
pub fn names() -> Result<Vec<String>> {
    if !Path::new(FOLDER).exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs_err::read_dir(FOLDER)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
