//! The profile as a file, and whose it is.
//!
//! Once the operator has edited it, it is theirs: it is compared with the hashes of what we wrote. A hash is on the disk before the
//! content that it is of, and the one before is forgotten after it, so no cut makes a profile of ours look like one that somebody has
//! edited; the hashes may lie on another disk than the profile.

use std::path::PathBuf;

use anyhow::Result;
use fs_err as fs;

use super::{NAME, ifcfg, keyfile};
use crate::context::Context;
use crate::facts::NetworkBackend;
use crate::settings::Network;
use crate::{durable, stamp};

/// The profile as a file.
pub(super) struct Profile {
    /// Path in the guest.
    pub(super) guest: String,
    /// What the file holds.
    pub(super) content: String,
    mode: u32,
}

/// Whose file is at the profile's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// What we want is there.
    Current,
    /// It is missing, or another one of ours.
    Ours,
    /// Edited since we wrote it.
    Operator,
}

impl Profile {
    /// The profile of these settings in the distribution's format.
    pub(super) fn new(context: &Context, network: &Network, interface: &str) -> Profile {
        match context.facts.system.network {
            NetworkBackend::Keyfile => Profile {
                guest: format!("/etc/NetworkManager/system-connections/{NAME}.nmconnection"),
                content: keyfile::render(network, interface),
                mode: 0o600,
            },
            NetworkBackend::Ifcfg => Profile {
                // Not named after the interface: one with another name would leave a second file with our UUID behind.
                guest: format!("/etc/sysconfig/network-scripts/ifcfg-{NAME}"),
                content: ifcfg::render(network, interface),
                mode: 0o644,
            },
        }
    }

    /// What tells one profile from another.
    pub(super) fn hash(&self) -> String {
        stamp::hash(self.content.as_bytes())
    }

    /// Whose file is there.
    pub(super) fn owner(&self, context: &Context) -> Owner {
        let Ok(found) = fs::read(context.path(&self.guest)) else { return Owner::Ours };
        if found == self.content.as_bytes() {
            return Owner::Current;
        }
        let hash = stamp::hash(&found);
        if hashes(context).lines().any(|line| line.trim() == hash) { Owner::Ours } else { Owner::Operator }
    }

    /// Writes it, unless the operator has edited what is there.
    pub(super) fn write(&self, context: &Context) -> Result<()> {
        let path = context.path(&self.guest);
        if self.owner(context) == Owner::Operator {
            return Ok(());
        }
        self.announce(context)?;
        durable::write(&path, self.content.as_bytes(), self.mode, Some((0, 0)))?;
        self.record(context)
    }

    /// Makes it known beside what is known already, until it is there.
    fn announce(&self, context: &Context) -> Result<()> {
        let mut known = hashes(context);
        if !self.is_recorded(context) {
            known.insert_str(0, &self.line());
        }
        durable::write(&hash_path(context), known.as_bytes(), 0o600, None).map(drop)
    }

    /// Whether it is known as ours. A data disk that comes from elsewhere, or from a backup, may lack that.
    pub(super) fn is_recorded(&self, context: &Context) -> bool {
        let hash = self.hash();
        hashes(context).lines().any(|line| line.trim() == hash)
    }

    /// Makes it, which is there, the only content that is ours: whoever types a former one in from now on is the operator.
    pub(super) fn record(&self, context: &Context) -> Result<()> {
        durable::write(&hash_path(context), self.line().as_bytes(), 0o600, None).map(drop)
    }

    fn line(&self) -> String {
        format!("{}\n", self.hash())
    }
}

fn hash_path(context: &Context) -> PathBuf {
    context.state().join("network.sha256")
}

fn hashes(context: &Context) -> String {
    fs::read_to_string(hash_path(context)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Owner, Profile, hash_path};
    use crate::context::tests::scratch_context;
    use crate::facts::NetworkBackend;
    use crate::settings::Settings;

    #[test]
    fn an_edited_profile_is_left_alone() {
        for backend in [NetworkBackend::Keyfile, NetworkBackend::Ifcfg] {
            let (_guard, mut context) = scratch_context();
            context.facts.system.network = backend;
            let network = Settings::parse("example", Settings::example()).unwrap().network;
            let first = Profile::new(&context, &network, "ens160");
            assert_eq!(first.owner(&context), Owner::Ours);
            first.write(&context).unwrap();
            assert_eq!(first.owner(&context), Owner::Current);
            let second = Profile::new(&context, &network, "ens192");
            assert_eq!(second.owner(&context), Owner::Ours, "new settings replace what we wrote");
            second.write(&context).unwrap();
            assert_eq!(second.owner(&context), Owner::Current);
            assert_eq!(first.owner(&context), Owner::Ours, "and the former ones replace these");
            let edited = second.content.replace("192.168.100.154", "192.168.100.155");
            fs_err::write(context.path(&second.guest), &edited).unwrap();
            for profile in [first, second] {
                assert_eq!(profile.owner(&context), Owner::Operator);
                profile.write(&context).unwrap();
                assert_eq!(fs_err::read_to_string(context.path(&profile.guest)).unwrap(), edited);
            }
        }
    }

    /// The hash is there before its content: settings that change back after such a cut must still find a profile of ours.
    #[test]
    fn a_cut_between_hash_and_profile_makes_nobody_its_operator() {
        let (_guard, context) = scratch_context();
        let network = Settings::parse("example", Settings::example()).unwrap().network;
        let [first, second] =
            ["ens160", "ens192"].map(|interface| Profile::new(&context, &network, interface));
        first.write(&context).unwrap();
        second.announce(&context).unwrap();
        assert_eq!(first.owner(&context), Owner::Current);
        assert_eq!(second.owner(&context), Owner::Ours);
        assert!(
            first.is_recorded(&context) && second.is_recorded(&context),
            "either may be found after a cut"
        );

        second.write(&context).unwrap();
        fs_err::write(context.path(&first.guest), &first.content).unwrap();
        assert_eq!(second.owner(&context), Owner::Operator, "the former content, typed in later");
    }

    #[test]
    fn a_profile_that_is_right_is_ours_again_when_its_hash_is_lost() {
        let (_guard, context) = scratch_context();
        let network = Settings::parse("example", Settings::example()).unwrap().network;
        let [first, second] =
            ["ens160", "ens192"].map(|interface| Profile::new(&context, &network, interface));
        first.write(&context).unwrap();
        fs_err::remove_file(hash_path(&context)).unwrap();
        assert!(first.owner(&context) == Owner::Current && !first.is_recorded(&context));
        first.record(&context).unwrap();
        assert_eq!(second.owner(&context), Owner::Ours);
    }
}
