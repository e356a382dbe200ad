//! The configuration: a channel gave one, it is valid, and it is stored.
//!
//! The settings are adopted before a pass begins, because every step of the pass sees the same ones; this step tells the operator
//! how that went.

use anyhow::Result;

use crate::channels;
use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};

/// Settings, valid and stored.
pub const STEP: Step = Step {
    name: "configuration",
    why: "reads what you want from the stored file, a configuration volume or the hypervisor",
    needs: Needs::Local,
    watch: engine::HOURLY,
    observe,
    apply: |_| Ok(()),
};

#[expect(clippy::unnecessary_wraps, reason = "the signature of every step")]
fn observe(context: &Context) -> Result<Observation> {
    if context.settings.is_some() {
        return Ok(Observation::Done);
    }
    let search = channels::search(&context.root);
    Ok(verdict(&search.refused, &search.waiting))
}

fn verdict(refused: &[String], waiting: &[String]) -> Observation {
    if refused.is_empty() && !waiting.is_empty() {
        Observation::Waiting(waiting.join("; "))
    } else if refused.is_empty() {
        Observation::Waiting(format!(
            "no configuration was given: power off and fill in the OVA's properties, or set `guestinfo.mastodon.config` (VMware), or \
             attach a CD-ROM or disk with the label CIDATA that holds `config.toml`, or start QEMU with `-fw_cfg \
             name=opt/org.mastodon/config,file=config.toml`, or give EC2's user-data, or write `{}` here; `appliance config example` shows one, `appliance \
             retry` looks again at once",
            channels::STORED
        ))
    } else {
        Observation::Broken(format!(
            "the configuration was refused: {}; correct it and run `appliance retry`",
            [refused, waiting].concat().join("; ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::verdict;
    use crate::engine::Observation;

    #[test]
    fn absent_waits_and_refused_is_broken() {
        assert!(matches!(verdict(&[], &[]), Observation::Waiting(text) if text.contains("CIDATA")));
        let silent = ["EC2's metadata does not answer".to_owned()];
        assert!(matches!(verdict(&[], &silent), Observation::Waiting(text) if text.contains("EC2")));
        let refused = ["`config.toml` line 1: unknown field".to_owned()];
        assert!(
            matches!(verdict(&refused, &[]), Observation::Broken(text) if text.contains("unknown field"))
        );
    }
}
