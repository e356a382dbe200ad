//! What tells this machine from every other: machine-id, instance-id, SSH host keys.
//!
//! Looked at on every boot: a cut can leave an empty key, with which `sshd` never starts again. The host keys live with the state,
//! so that a new system disk is the same machine to everybody who has logged in before; `/etc/ssh` has copies.
//!
//! On a copy of another machine (step `clone`) this step, being an early one, keeps the instance's services down until the operator has
//! said what the copy is.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use fs_err as fs;

use crate::context::Context;
use crate::durable;
use crate::engine::{self, Needs, Observation, Step};
use crate::exec::Run;
use crate::steps::clone;
use crate::systemd;

/// Identity, complete and sound.
pub const STEP: Step = Step {
    name: "identity",
    why: "gives this machine its own machine-id and SSH host keys",
    needs: Needs::Local,
    watch: engine::HOURLY,
    observe,
    apply,
};

/// Kinds of host keys that both old and new clients accept. A longer RSA key takes half a minute on an emulated processor, and
/// the whole boot waits for it.
const KINDS: [(&str, &[&str]); 3] = [
    ("ed25519", &["-t", "ed25519"]),
    ("ecdsa", &["-t", "ecdsa", "-b", "256"]),
    ("rsa", &["-t", "rsa", "-b", "2048"]),
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of every step")]
fn observe(context: &Context) -> Result<Observation> {
    if clone::is_released(context) && clone::is_open(context) {
        return Ok(Observation::Todo("keep the services of this copy down".to_owned()));
    }
    if !is_machine_id(&read(context.path("/etc/machine-id"))) {
        return Ok(Observation::Todo("make the machine-id".to_owned()));
    }
    if read(instance_id(context)).trim().is_empty() {
        return Ok(Observation::Todo("make the instance-id".to_owned()));
    }
    for (kind, _) in KINDS {
        let Some(public) = public_key(&kept_key(context, kind)) else {
            return Ok(Observation::Todo(format!("make the {kind} host key")));
        };
        if !is_served(context, kind, &public) {
            return Ok(Observation::Todo(format!("give sshd its {kind} host key")));
        }
    }
    Ok(Observation::Done)
}

fn apply(context: &Context) -> Result<()> {
    if clone::is_released(context) && clone::is_open(context) {
        clone::hold(context)?;
    }
    if !is_machine_id(&read(context.path("/etc/machine-id"))) {
        let root = format!("--root={}", context.root.display());
        Run::new("systemd-machine-id-setup", &[&root]).text()?;
        durable::sync_file(&context.path("/etc/machine-id"))?;
    }
    let id = instance_id(context);
    if read(id.clone()).trim().is_empty() {
        durable::write(&id, &fs::read("/proc/sys/kernel/random/uuid")?, 0o644, None)?;
    }
    for (kind, options) in KINDS {
        let kept = kept_key(context, kind);
        let public = match public_key(&kept) {
            Some(public) => public,
            None => make_key(&kept, options)?,
        };
        let served = served_key(context, kind);
        durable::write(&served, &fs::read(&kept)?, 0o600, None)?;
        durable::write(&served.with_extension("pub"), public.as_bytes(), 0o644, None)?;
    }
    Ok(())
}

/// Makes machine-id and host keys anew, for a copy of another machine. A cut leaves less than all of it, which the early step mends and
/// the step `clone` begins again. The instance-id stays: it is the instance's, and both disks of the machine have it.
pub(super) fn renew(context: &Context) -> Result<()> {
    // Not by `systemd-machine-id-setup`: it keeps what is there, and an image's `uninitialized` would make the next boot a first one.
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().replace('-', "");
    durable::write(&context.path("/etc/machine-id"), format!("{id}\n").as_bytes(), 0o444, None)?;
    for (kind, _) in KINDS {
        durable::remove(&kept_key(context, kind))?;
    }
    apply(context)?;
    if context.is_machine() {
        systemd::try_restart(&context.facts.system.ssh_unit)?;
    }
    Ok(())
}

fn instance_id(context: &Context) -> PathBuf {
    context.state().join("instance-id")
}

fn kept_key(context: &Context, kind: &str) -> PathBuf {
    context.state().join(format!("ssh/ssh_host_{kind}_key"))
}

fn served_key(context: &Context, kind: &str) -> PathBuf {
    context.path(&format!("/etc/ssh/ssh_host_{kind}_key"))
}

/// The text of a file; empty when it cannot be read, which every caller mends by writing it.
fn read(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// 32 hexadecimal digits and a line feed; `uninitialized` is what an image has.
fn is_machine_id(text: &str) -> bool {
    let digits = text.trim_end();
    digits.len() == 32
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        && digits.bytes().any(|byte| byte != b'0')
}

/// The public half of a private key; `None` when the key is missing, empty or damaged.
fn public_key(private: &std::path::Path) -> Option<String> {
    if private.metadata().ok()?.len() == 0 {
        return None;
    }
    let output = Run::new("ssh-keygen", &["-y", "-P", "", "-f", &private.to_string_lossy()]).output().ok()?;
    (output.code == 0 && !output.stdout.is_empty()).then_some(output.stdout)
}

/// Whether `/etc/ssh` has the kept key, readable by root alone, and its public half.
fn is_served(context: &Context, kind: &str, public: &str) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let served = served_key(context, kind);
    let is_private = served.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o7777 == 0o600);
    let is_same =
        fs::read(&served).is_ok_and(|key| fs::read(kept_key(context, kind)).is_ok_and(|kept| kept == key));
    is_private && is_same && read(served.with_extension("pub")) == public
}

/// Makes a key under a scratch name; its rename is the commit point. Returns the public half.
fn make_key(path: &std::path::Path, options: &[&str]) -> Result<String> {
    if let Some(folder) = path.parent() {
        durable::private_folder(folder)?;
    }
    let scratch = durable::scratch(path);
    let public = scratch.with_extension("new.pub");
    for leftover in [&scratch, &public] {
        durable::erase(leftover)?;
    }
    let file = scratch.to_string_lossy();
    let arguments = [options, &["-q", "-N", "", "-C", "", "-f", &file]].concat();
    Run::new("ssh-keygen", &arguments).text()?;
    // Before the key has its name: once it has, nobody comes here again.
    durable::erase(&public)?;
    durable::sync_file(&scratch)?;
    durable::rename(&scratch, path)?;
    public_key(path).with_context(|| format!("reading back the new host key `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{KINDS, apply, is_machine_id, kept_key, observe, served_key};
    use crate::context::tests::scratch_context;
    use crate::engine::Observation;
    use crate::exec::Run;

    #[test]
    fn machine_ids_are_checked() {
        for (text, expected) in [
            ("0123456789abcdef0123456789abcdef\n", true),
            ("", false),
            ("uninitialized\n", false),
            ("00000000000000000000000000000000\n", false),
            ("0123456789abcdef", false),
        ] {
            assert_eq!(is_machine_id(text), expected, "{text:?}");
        }
    }

    #[test]
    fn host_keys_are_made_once_and_healed() {
        if !Run::new("ssh-keygen", &["-l", "-f", "/dev/null"]).output().is_ok_and(|output| output.code != 127)
        {
            eprintln!("skipped: there is no ssh-keygen here");
            return;
        }
        let (_guard, context) = scratch_context();
        fs_err::create_dir_all(context.path("/etc/ssh")).unwrap();
        fs_err::write(context.path("/etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
        apply(&context).unwrap();
        assert_eq!(observe(&context).unwrap(), Observation::Done);
        let keys = || KINDS.map(|(kind, _)| fs_err::read(kept_key(&context, kind)).unwrap());
        let before = keys();
        fs_err::write(served_key(&context, "rsa"), "").unwrap();
        fs_err::write(served_key(&context, "ecdsa").with_extension("pub"), "other").unwrap();
        assert_ne!(observe(&context).unwrap(), Observation::Done);
        apply(&context).unwrap();
        assert_eq!(observe(&context).unwrap(), Observation::Done);
        assert_eq!(keys(), before);
        fs_err::write(kept_key(&context, "ed25519"), "").unwrap();
        apply(&context).unwrap();
        assert_eq!(observe(&context).unwrap(), Observation::Done);
        assert_ne!(keys()[0], before[0], "an empty key is replaced");
        assert_eq!(keys()[1..], before[1..], "the others are kept");
    }
}
