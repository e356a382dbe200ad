//! `/usr/lib/appliance/image.toml`: what the builder says about the image, so that first boot knows no distribution by name.
//!
//! The builder writes it from the recipe's `[guest]` table, first boot reads it; both use these types.

use serde::{Deserialize, Serialize};

/// Where the file lies in the guest.
pub const PATH: &str = "/usr/lib/appliance/image.toml";

/// Facts about an image that do not change during its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ImageFacts {
    /// Version of this file's format; 1.
    pub schema: u32,
    /// Name of the recipe, such as `demo`.
    pub image: String,
    /// What a person should read, such as `Debian 12 with the stand-in for Mastodon v1.6.1`.
    pub title: String,
    /// Earliest plausible time of day: the image's build epoch, in seconds since 1970.
    pub epoch: u64,
    /// The Mastodon tag whose interface the application has.
    pub tag: String,
    /// PostgreSQL.
    pub postgresql: PostgresqlFacts,
    /// Redis.
    pub redis: RedisFacts,
    /// nginx.
    pub nginx: NginxFacts,
    /// The application.
    pub application: ApplicationFacts,
    /// The network, SSH and the firewall.
    pub system: SystemFacts,
}

/// Where PostgreSQL is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PostgresqlFacts {
    /// Unit to start, such as `postgresql@15-main.service`.
    pub unit: String,
    /// Folder with `initdb`, `psql`, `postgres`.
    pub bin: String,
    /// The cluster's data folder, such as `/var/lib/postgresql/15/main`.
    pub data: String,
    /// What must lie on the data disk, such as `/var/lib/postgresql`.
    pub state: String,
    /// `pg_hba.conf` in force; first boot owns it.
    pub hba: String,
    /// A file that the server's configuration includes; first boot owns it.
    pub conf: String,
    /// Folder of the Unix socket, such as `/var/run/postgresql`.
    pub socket: String,
}

/// Where Redis is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RedisFacts {
    /// Unit to start, such as `redis-server.service`.
    pub unit: String,
    /// The server's configuration file.
    pub conf: String,
    /// State folder, such as `/var/lib/redis`.
    pub state: String,
}

/// Where nginx is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NginxFacts {
    /// Unit to start.
    pub unit: String,
    /// The site file that first boot renders, `/etc/nginx/conf.d/mstdn.conf`.
    pub site: String,
}

/// What the application's tag needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ApplicationFacts {
    /// `/home/mastodon/live`.
    pub root: String,
    /// The user that it runs as.
    pub user: String,
    /// `bundle` of the right Ruby.
    pub bundle: String,
    /// `node`.
    pub node: String,
    /// Version of the schema that `db:setup` makes, such as `20170913000752`.
    pub schema_version: String,
    /// The environment has LOCAL_HTTPS (up to v2.0).
    pub local_https: bool,
    /// The environment has PAPERCLIP_SECRET (up to v2.0).
    pub paperclip_secret: bool,
}

/// Names of units that differ between distributions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SystemFacts {
    /// `ssh.service` or `sshd.service`.
    pub ssh_unit: String,
    /// How network profiles are written: NetworkManager keyfiles or ifcfg files.
    pub network: NetworkBackend,
    /// Whose rules the host's firewall has.
    pub firewall: FirewallBackend,
}

/// The service that loads the rules of the host's firewall at every boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FirewallBackend {
    /// `nftables.service`.
    Nftables,
    /// `iptables.service` and `ip6tables.service`.
    Iptables,
}

/// The format of NetworkManager profiles that `nmtui` can edit on this distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkBackend {
    /// `/etc/NetworkManager/system-connections/*.nmconnection`.
    Keyfile,
    /// `/etc/sysconfig/network-scripts/ifcfg-*`.
    Ifcfg,
}
