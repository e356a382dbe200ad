//! What every step is given: the root of the file system, the image's facts, the settings.

use std::path::{Path, PathBuf};

use crate::{facts::ImageFacts, settings::Settings};

/// Immutable during a pass.
pub struct Context {
    /// `/` in the guest; a temp folder in tests.
    pub root: PathBuf,
    /// What the image is.
    pub facts: ImageFacts,
    /// What the operator wants; `None` until a channel has given a full configuration.
    pub settings: Option<Settings>,
}

impl Context {
    /// The host path of a guest path: `/etc/fstab` below the root.
    pub fn path(&self, guest: &str) -> PathBuf {
        self.root.join(guest.trim_start_matches('/'))
    }

    /// The settings, or an error that says that no channel gave any.
    pub fn settings(&self) -> anyhow::Result<&Settings> {
        self.settings.as_ref().ok_or_else(|| anyhow::anyhow!("no configuration yet"))
    }

    /// Folder of the engine's own state.
    pub fn state(&self) -> PathBuf {
        self.path("/var/lib/appliance")
    }

    /// Whether this is a real machine and not a test's folder.
    pub fn is_machine(&self) -> bool {
        self.root == Path::new("/")
    }
}
