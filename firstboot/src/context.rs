//! What every step is given: the root of the file system, the image's facts, the settings.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::channels;
use crate::facts::{self, ImageFacts};
use crate::settings::Settings;

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
    /// The context of a machine: the image's facts, and the settings that a channel gives. Stores nothing, so that any program may
    /// ask at any time. A refused configuration is no error here; the step `configuration` tells about it.
    pub fn load(root: &Path) -> anyhow::Result<Context> {
        let facts = Context::load_facts(root)?;
        let settings = channels::search(root).found.map(|(settings, _)| settings);
        Ok(Context { root: root.to_owned(), facts, settings })
    }

    /// What the image says about itself.
    pub fn load_facts(root: &Path) -> anyhow::Result<ImageFacts> {
        let path = root.join(facts::PATH.trim_start_matches('/'));
        toml::from_str(&fs_err::read_to_string(&path)?).with_context(|| {
            format!("reading `{}`: this image was not built for this program", path.display())
        })
    }

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

#[cfg(test)]
pub(crate) mod tests {
    use super::Context;
    use crate::facts::{
        ApplicationFacts, FirewallBackend, ImageFacts, NetworkBackend, NginxFacts, PostgresqlFacts,
        RedisFacts, SystemFacts,
    };

    /// A context in a temp folder, with facts of the shape that a Debian image has and no settings. The folder goes with the
    /// guard.
    pub(crate) fn scratch_context() -> (tempfile::TempDir, Context) {
        let guard = tempfile::tempdir().unwrap();
        let facts = ImageFacts {
            schema: 1,
            image: "test".to_owned(),
            title: "Test".to_owned(),
            epoch: 1_700_000_000,
            tag: "v1.6.1".to_owned(),
            postgresql: PostgresqlFacts {
                unit: "postgresql@15-main.service".to_owned(),
                bin: "/usr/lib/postgresql/15/bin".to_owned(),
                data: "/var/lib/postgresql/15/main".to_owned(),
                state: "/var/lib/postgresql".to_owned(),
                hba: "/etc/postgresql/15/main/pg_hba.conf".to_owned(),
                conf: "/etc/postgresql/15/main/conf.d/appliance.conf".to_owned(),
                socket: "/var/run/postgresql".to_owned(),
            },
            redis: RedisFacts {
                unit: "redis-server.service".to_owned(),
                conf: "/etc/redis/redis.conf".to_owned(),
                state: "/var/lib/redis".to_owned(),
            },
            nginx: NginxFacts {
                unit: "nginx.service".to_owned(),
                site: "/etc/nginx/conf.d/mstdn.conf".to_owned(),
            },
            application: ApplicationFacts {
                root: "/home/mastodon/live".to_owned(),
                user: "mastodon".to_owned(),
                bundle: "/home/mastodon/.rbenv/shims/bundle".to_owned(),
                node: "/usr/bin/node".to_owned(),
                schema_version: "20170913000752".to_owned(),
                local_https: true,
                paperclip_secret: true,
            },
            system: SystemFacts {
                ssh_unit: "ssh.service".to_owned(),
                network: NetworkBackend::Keyfile,
                firewall: FirewallBackend::Nftables,
            },
        };
        let context = Context { root: guard.path().to_owned(), facts, settings: None };
        (guard, context)
    }

    #[test]
    fn loading_stores_nothing() {
        let (guard, context) = scratch_context();
        let facts = toml::to_string(&context.facts).unwrap();
        let config = "schema = 1\ndomain = \"v6don.example.net\"\n";
        let offered = "/sys/firmware/qemu_fw_cfg/by_name/opt/org.mastodon/config/raw";
        for (path, text) in [(crate::facts::PATH, facts.as_str()), (offered, config)] {
            fs_err::create_dir_all(context.path(path).parent().unwrap()).unwrap();
            fs_err::write(context.path(path), text).unwrap();
        }
        assert!(Context::load(guard.path()).unwrap().settings.is_some());
        assert!(!context.path(crate::channels::STORED).exists());
    }
}
