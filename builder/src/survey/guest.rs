//! What an image does and who is in it: units that are enabled, accounts, programs with more rights than their user.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::catalogue::Catalogue;
use super::ext4::{Inode, Kind};
use super::source::u32_at;
use crate::view::View;

/// A unit that starts by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// The units that want or require it, sorted.
    pub wanted_by: Vec<String>,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Account {
    /// Login name.
    pub name: String,
    /// Number.
    pub uid: u32,
    /// Number of its group.
    pub gid: u32,
    /// Home folder.
    pub home: String,
    /// Login shell.
    pub shell: String,
    /// What its password is; never the password itself.
    pub password: Password,
}

/// What the password of an account is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Password {
    /// Nothing that is typed fits.
    Locked,
    /// There is one.
    Set,
    /// Empty: whoever knows the name gets in.
    Empty,
}

/// A program that has more rights than who starts it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Privileged {
    /// Guest path.
    pub path: String,
    /// Permissions, in octal.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// `setuid`, `setgid`, and capabilities by name.
    pub rights: Vec<String>,
}

/// Units enabled by links in `/etc/systemd/system`, by name.
pub fn units(catalogue: &Catalogue) -> Vec<Unit> {
    let mut units: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut masked = BTreeSet::new();
    for (entry, inode) in catalogue.each().filter(|(_, inode)| inode.kind == Kind::Link) {
        let Some(rest) = entry.path.strip_prefix(b"/etc/systemd/system/") else { continue };
        let rest = super::shown(rest);
        let target = catalogue.target(inode.number).unwrap_or_default();
        let Some((folder, name)) = rest.split_once('/') else {
            // A link to nothing is a unit that must never start, whoever wants it.
            if target == b"/dev/null" {
                masked.insert(rest);
            }
            continue;
        };
        if target != b"/dev/null" {
            let wants = folder.strip_suffix(".wants").or_else(|| folder.strip_suffix(".requires"));
            if let Some(by) = wants.filter(|_| !name.contains('/')) {
                units.entry(name.to_owned()).or_default().push(by.to_owned());
            }
        }
    }
    units.retain(|name, _| !masked.contains(name));
    let unit = |(name, mut wanted_by): (String, Vec<String>)| {
        wanted_by.sort();
        wanted_by.dedup();
        Unit { name, wanted_by }
    };
    units.into_iter().map(unit).collect()
}

/// The accounts of `/etc/passwd`, in its order.
pub fn accounts(view: &View, catalogue: &Catalogue) -> Result<Vec<Account>> {
    let text = |path: &str| match catalogue.find(path) {
        Some(inode) if inode.kind == Kind::File => view.text(path).map(Option::unwrap_or_default),
        _ => Ok(String::new()),
    };
    Ok(parse_accounts(&text("/etc/passwd")?, &text("/etc/shadow")?))
}

fn parse_accounts(passwd: &str, shadow: &str) -> Vec<Account> {
    let secrets: BTreeMap<&str, &str> =
        shadow.lines().filter_map(|line| Some((line.split(':').next()?, line.split(':').nth(1)?))).collect();
    let account = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, password, uid, gid, _, home, shell] = fields[..] else { return None };
        let password =
            match if password == "x" { secrets.get(name).copied().unwrap_or("!") } else { password } {
                "" => Password::Empty,
                // A hash begins with `$`; the old form has 13 letters. `!`, `*` and words fit nothing.
                text if text.starts_with('$') || text.len() == 13 && !text.starts_with(['!', '*']) => {
                    Password::Set
                }
                _ => Password::Locked,
            };
        let shown = |text: &str| super::shown(text.as_bytes());
        let (name, home, shell) = (shown(name), shown(home), shown(shell));
        Some(Account { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home, shell, password })
    };
    passwd.lines().filter_map(account).collect()
}

/// Programs with setuid, setgid or capabilities, in order of paths.
pub fn privileged(catalogue: &Catalogue) -> Vec<Privileged> {
    let files = catalogue.each().filter(|(_, inode)| inode.kind == Kind::File);
    let one = |(entry, inode): (&super::catalogue::Entry, &Inode)| {
        let mut rights = Vec::new();
        for (bit, name) in [(0o4000, "setuid"), (0o2000, "setgid")] {
            if inode.mode & bit != 0 {
                rights.push(name.to_owned());
            }
        }
        rights.extend(inode.attributes.get(CAPABILITY).map(|value| capabilities(value)));
        (!rights.is_empty()).then(|| Privileged {
            path: super::shown(&entry.path),
            mode: format!("{:04o}", inode.mode),
            uid: inode.uid,
            gid: inode.gid,
            rights,
        })
    };
    files.filter_map(one).collect()
}

/// The attribute that holds a program's capabilities.
pub const CAPABILITY: &str = "security.capability";

/// Names of capabilities by number (`linux/capability.h`), without `cap_`.
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// The value of the attribute as setcap writes it: `cap_net_raw+ep`.
pub fn capabilities(value: &[u8]) -> String {
    let wide = |at: usize| u64::from(u32_at(value, at)) | u64::from(u32_at(value, at + 8)) << 32;
    let (permitted, inheritable) = (wide(4), wide(8));
    let names = |set: u64| {
        let name = |number: usize| {
            let known = CAPABILITIES.get(number).map(|name| format!("cap_{name}"));
            (set >> number & 1 == 1).then(|| known.unwrap_or_else(|| number.to_string()))
        };
        (0..64).filter_map(name).collect::<Vec<_>>().join(",")
    };
    let effective = if u32_at(value, 0) & 1 == 1 { "e" } else { "" };
    match (permitted, inheritable) {
        (0, 0) => "no capabilities".to_owned(),
        (_, 0) => format!("{}+{effective}p", names(permitted)),
        (0, _) => format!("{}+{effective}i", names(inheritable)),
        _ if permitted == inheritable => format!("{}+{effective}ip", names(permitted)),
        _ => format!("{}+{effective}p {}+i", names(permitted), names(inheritable)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_told_apart_and_never_shown() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\na::1:1::/:/bin/sh\nb:x:2:2::/:/bin/sh\nc:x:3:3::/:/bin/sh\nbroken\nd:x:x:1::/:/\n";
        let shadow = "root:*:1::::::\nb:$6$salt$hash:1::::::\nc::1::::::\n";
        let found: Vec<_> = parse_accounts(passwd, shadow)
            .into_iter()
            .map(|account| (account.name, account.password))
            .collect();
        let wanted = [
            ("root", Password::Locked),
            ("a", Password::Empty),
            ("b", Password::Set),
            ("c", Password::Empty),
        ];
        assert_eq!(found, wanted.map(|(name, password)| (name.to_owned(), password)));
    }

    #[test]
    fn capabilities_read_as_setcap_writes_them() {
        let mut value = [0; 20];
        value[..4].copy_from_slice(&0x0200_0001_u32.to_le_bytes());
        value[4..8].copy_from_slice(&(1_u32 << 13).to_le_bytes());
        assert_eq!(capabilities(&value), "cap_net_raw+ep");
        value[12..16].copy_from_slice(&(1_u32 << 7).to_le_bytes());
        assert_eq!(capabilities(&value), "cap_net_raw,cap_bpf+ep");
        assert_eq!(capabilities(&[]), "no capabilities");
    }
}
