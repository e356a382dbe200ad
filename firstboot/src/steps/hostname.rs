//! The machine's own name: `/etc/hostname`, the kernel, and `/etc/hosts` with both loopbacks.

use anyhow::Result;
use fs_err as fs;

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::{block, durable};

/// The name, everywhere the same.
pub const STEP: Step = Step {
    name: "hostname",
    why: "names the machine and keeps localhost on both address families",
    needs: Needs::Local,
    watch: engine::HOURLY,
    observe,
    apply,
};

fn observe(context: &Context) -> Result<Observation> {
    let name = context.settings()?.hostname();
    let stored = fs::read_to_string(context.path("/etc/hostname")).unwrap_or_default();
    let kernel = rustix::system::uname();
    let is_named = !context.is_machine() || kernel.nodename().to_bytes() == name.as_bytes();
    if stored.trim() == name && is_named && block::is_current(&context.path("/etc/hosts"), &hosts(name))? {
        Ok(Observation::Done)
    } else {
        Ok(Observation::Todo(format!("name the machine `{name}`")))
    }
}

fn apply(context: &Context) -> Result<()> {
    let name = context.settings()?.hostname();
    durable::write(&context.path("/etc/hostname"), format!("{name}\n").as_bytes(), 0o644, None)?;
    if context.is_machine() {
        rustix::system::sethostname(name.as_bytes())?;
    }
    block::write(&context.path("/etc/hosts"), &hosts(name), 0o644)
}

/// `localhost` on both families, because Redis is asked for by that name. The machine's name is given to loopback too, so that
/// programs that look themselves up do not wait for DNS.
fn hosts(name: &str) -> Vec<String> {
    let short = name.split('.').next().unwrap_or(name);
    let names = if short == name { name.to_owned() } else { format!("{name} {short}") };
    vec![
        "127.0.0.1 localhost localhost.localdomain".to_owned(),
        "::1 localhost localhost.localdomain ip6-localhost ip6-loopback".to_owned(),
        format!("127.0.1.1 {names}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::{apply, observe};
    use crate::context::tests::scratch_context;
    use crate::engine::Observation;
    use crate::settings::Settings;

    #[test]
    fn the_operators_own_hosts_stay() {
        let (_guard, mut context) = scratch_context();
        let text = "schema = 1\ndomain = \"v6don.example.net\"\n";
        context.settings = Some(Settings::parse("test", text).unwrap());
        fs_err::create_dir_all(context.path("/etc")).unwrap();
        fs_err::write(context.path("/etc/hosts"), "192.0.2.7 printer\n").unwrap();
        assert!(matches!(observe(&context).unwrap(), Observation::Todo(_)));
        apply(&context).unwrap();
        assert_eq!(observe(&context).unwrap(), Observation::Done);
        let hosts = fs_err::read_to_string(context.path("/etc/hosts")).unwrap();
        assert!(hosts.starts_with("192.0.2.7 printer\n"));
        assert!(hosts.contains("\n::1 localhost "));
        assert!(hosts.contains("\n127.0.1.1 v6don.example.net v6don\n"));
    }
}
