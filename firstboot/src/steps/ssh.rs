//! Root's way in: the public keys of the settings. Passwords of root stay locked, so without keys there is only the console.

use std::os::unix::fs::PermissionsExt;

use anyhow::Result;

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::{block, durable, systemd};

/// The keys, and the server that takes them.
pub const STEP: Step = Step {
    name: "ssh",
    why: "lets the owners of your SSH keys log in as root",
    needs: Needs::Local,
    watch: engine::HOURLY,
    observe,
    apply,
};

const FOLDER: &str = "/root/.ssh";
const KEYS: &str = "/root/.ssh/authorized_keys";

fn observe(context: &Context) -> Result<Observation> {
    let wanted = &context.settings()?.ssh.authorized_keys;
    let path = context.path(KEYS);
    // `sshd` ignores a file that others could have written.
    let has_mode = |guest: &str, mode: u32| {
        context.path(guest).metadata().is_ok_and(|meta| meta.permissions().mode() & 0o7777 == mode)
    };
    if !block::is_current(&path, wanted)?
        || path.exists() && !(has_mode(KEYS, 0o600) && has_mode(FOLDER, 0o700))
    {
        return Ok(Observation::Todo(format!("write {} keys to `{KEYS}`", wanted.len())));
    }
    let unit = &context.facts.system.ssh_unit;
    if context.is_machine() && !(systemd::is_enabled(unit) && systemd::is_active(unit)) {
        return Ok(Observation::Todo(format!("start `{unit}`")));
    }
    Ok(Observation::Done)
}

fn apply(context: &Context) -> Result<()> {
    let wanted = &context.settings()?.ssh.authorized_keys;
    let folder = context.path(FOLDER);
    durable::private_folder(&folder)?;
    block::write(&context.path(KEYS), wanted, 0o600)?;
    if context.is_machine() {
        let unit = &context.facts.system.ssh_unit;
        // At boot it may just not have come up yet, and enabling it again is slow where it also has an init script.
        systemd::enable(unit)?;
        systemd::start(unit)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{KEYS, apply, observe};
    use crate::context::tests::scratch_context;
    use crate::engine::Observation;
    use crate::settings::Settings;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_written_beside_the_operators_own() {
        let (_guard, mut context) = scratch_context();
        context.settings = Some(Settings::parse("example", Settings::example()).unwrap());
        let path = context.path(KEYS);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, "ssh-ed25519 AAAAmine me\n").unwrap();
        apply(&context).unwrap();
        assert_eq!(observe(&context).unwrap(), Observation::Done);
        let text = fs_err::read_to_string(&path).unwrap();
        assert!(text.starts_with("ssh-ed25519 AAAAmine me\n") && text.contains("alice@example.net"));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(observe(&context).unwrap(), Observation::Todo(_)));
    }
}
