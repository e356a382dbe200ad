//! The administrator: a key pair on the computer elsewhere, and OpenSSH's own client.
//!
//! The machine's key is believed at the first login and must be the same at every later one.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::INSTANCE_V6;
use crate::exec;
use crate::namespace::Namespace;

#[derive(Debug)]
pub(super) struct Admin {
    key: PathBuf,
    known: PathBuf,
    public: String,
}

impl Admin {
    pub(super) fn new(folder: &Path) -> Result<Admin> {
        let key = folder.join("admin-key");
        let path = key.to_string_lossy();
        exec::text("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "admin", "-f", &path])?;
        let public = fs_err::read_to_string(folder.join("admin-key.pub"))?.trim().to_owned();
        Ok(Admin { key, known: folder.join("known-hosts"), public })
    }

    /// One line of `authorized_keys`.
    pub(super) fn public(&self) -> &str {
        &self.public
    }

    /// Runs a command as root on the instance; what it said. `options` are ssh's, before our own.
    pub(super) fn ssh(&self, from: &Namespace, options: &[&str], command: &str) -> Result<String> {
        let key = self.key.to_string_lossy();
        let known = format!("UserKnownHostsFile={}", self.known.display());
        let to = format!("root@{INSTANCE_V6}");
        // An emulated machine takes its time for the keys.
        let own = ["StrictHostKeyChecking=accept-new", "BatchMode=yes", "ConnectTimeout=60", &known];
        let mut args = vec!["-F", "none", "-q", "-i", &key];
        args.extend(options);
        args.extend(own.iter().flat_map(|option| ["-o", option]));
        args.extend([&to, command]);
        from.run("ssh", &args)
    }
}
