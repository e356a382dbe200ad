//! What belongs to one machine and must not be in an image: identities, keys, logs, caches.
//!
//! The overlay stage removes it, `verify` looks for it again in the finished disk; both read this one table.

use super::path::TreePath;

/// What happens to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The path and all below it is left out.
    Drop,
    /// Files below it are left out, folders stay.
    DropFiles,
    /// The file stays, empty.
    Empty,
}

/// Path, rule, and what it is.
pub const RULES: &[(&str, Rule, &str)] = &[
    ("/etc/machine-id", Rule::Empty, "machine id"),
    ("/var/lib/dbus/machine-id", Rule::Drop, "machine id"),
    ("/var/lib/systemd/random-seed", Rule::Drop, "random seed"),
    ("/var/lib/systemd/credential.secret", Rule::Drop, "credential secret"),
    ("/etc/ssl/private/ssl-cert-snakeoil.key", Rule::Drop, "snakeoil key"),
    ("/etc/ssl/certs/ssl-cert-snakeoil.pem", Rule::Drop, "snakeoil certificate"),
    ("/etc/openldap/certs", Rule::DropFiles, "LDAP certificate store"),
    ("/var/lib/postgresql/15", Rule::Drop, "PostgreSQL cluster"),
    ("/var/lib/pgsql/data", Rule::DropFiles, "PostgreSQL cluster"),
    ("/var/lib/pgsql/11/data", Rule::DropFiles, "PostgreSQL cluster"),
    ("/var/lib/redis", Rule::DropFiles, "Redis data"),
    ("/etc/resolv.conf", Rule::Drop, "resolver of the build host"),
    ("/var/log", Rule::DropFiles, "logs"),
    ("/var/cache/apt", Rule::DropFiles, "package cache"),
    ("/var/cache/yum", Rule::DropFiles, "package cache"),
    ("/var/cache/debconf", Rule::DropFiles, "package cache"),
    ("/var/cache/ldconfig", Rule::DropFiles, "cache"),
    ("/var/lib/apt/lists", Rule::DropFiles, "package lists"),
    ("/var/lib/dhcp", Rule::DropFiles, "DHCP leases"),
    ("/var/lib/NetworkManager", Rule::DropFiles, "network state"),
    ("/var/lib/chrony", Rule::DropFiles, "clock drift"),
    ("/root/.bash_history", Rule::Drop, "shell history"),
    ("/home/mastodon/.bash_history", Rule::Drop, "shell history"),
    ("/home/mastodon/live/.env.production", Rule::Drop, "secrets of an instance"),
    ("/etc/letsencrypt", Rule::DropFiles, "certificates of an instance"),
    ("/tmp", Rule::DropFiles, "temporary files"),
    ("/var/tmp", Rule::DropFiles, "temporary files"),
    ("/run", Rule::DropFiles, "run-time state"),
];

/// Rule and name for a path; `None` when it may stay.
pub fn rule(path: &TreePath) -> Option<(Rule, &'static str)> {
    if path.parent().is_some_and(|parent| parent.as_str() == "/etc/ssh")
        && path.name().starts_with("ssh_host_")
    {
        return Some((Rule::Drop, "SSH host key"));
    }
    RULES
        .iter()
        .find(|(prefix, rule, _)| match rule {
            Rule::Empty => path.as_str() == *prefix,
            Rule::Drop | Rule::DropFiles => path.is_within(prefix),
        })
        .map(|(_, rule, what)| (*rule, *what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_and_what_stays() {
        let check = |path: &str| rule(&path.parse().unwrap()).map(|(rule, _)| rule);
        assert_eq!(check("/etc/ssh/ssh_host_rsa_key.pub"), Some(Rule::Drop));
        assert_eq!(check("/etc/ssh/sshd_config"), None);
        assert_eq!(check("/var/log/nginx/access.log"), Some(Rule::DropFiles));
        assert_eq!(check("/etc/machine-id"), Some(Rule::Empty));
        assert_eq!(check("/var/lib/postgresql/15/main/PG_VERSION"), Some(Rule::Drop));
        assert_eq!(check("/var/logs"), None);
    }
}
