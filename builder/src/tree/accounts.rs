//! `/etc/passwd` and its kin: one more system user, its password locked.

use std::fmt::Write as _;

/// A user that an overlay brings.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct User {
    /// Login name; the group has the same name and number.
    pub name: String,
    /// Number.
    pub uid: u32,
    /// Home folder in the guest.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// The four files.
#[derive(Debug, Default, Clone)]
pub struct Accounts {
    /// `/etc/passwd`.
    pub passwd: String,
    /// `/etc/group`.
    pub group: String,
    /// `/etc/shadow`.
    pub shadow: String,
    /// `/etc/gshadow`.
    pub gshadow: String,
}

impl Accounts {
    /// Adds a user with a locked password, last changed on `day` (days since 1970). An equal user that is there already stays.
    pub fn add(&mut self, user: &User, day: u64) -> Result<(), String> {
        if let Some((uid, _)) = find(&self.passwd, &user.name) {
            return if uid == user.uid {
                Ok(())
            } else {
                Err(format!("user `{}` exists with uid {uid}, not {}", user.name, user.uid))
            };
        }
        if let Some(other) =
            self.passwd.lines().find(|line| line.split(':').nth(2) == Some(&user.uid.to_string()))
        {
            return Err(format!("uid {} of user `{}` is taken: `{other}`", user.uid, user.name));
        }
        let User { name, uid, home, shell } = user;
        // OK: writing to a String cannot fail.
        let _ = writeln!(self.passwd, "{name}:x:{uid}:{uid}::{home}:{shell}");
        let _ = writeln!(self.group, "{name}:x:{uid}:");
        let _ = writeln!(self.shadow, "{name}:!:{day}:0:99999:7:::");
        if !self.gshadow.is_empty() {
            let _ = writeln!(self.gshadow, "{name}:!::");
        }
        Ok(())
    }

    /// Number and primary group of a user.
    pub fn user(&self, name: &str) -> Option<(u32, u32)> {
        find(&self.passwd, name)
    }

    /// Number of a group.
    pub fn group(&self, name: &str) -> Option<u32> {
        find(&self.group, name).map(|(gid, _)| gid)
    }
}

fn find(text: &str, name: &str) -> Option<(u32, u32)> {
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut numbers = line.split(':').skip(2);
    let first = numbers.next()?.parse().ok()?;
    Some((first, numbers.next().and_then(|text| text.parse().ok()).unwrap_or(first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_once_and_refuses_a_taken_number() {
        let user = User {
            name: "mastodon".into(),
            uid: 991,
            home: "/home/mastodon".into(),
            shell: "/bin/bash".into(),
        };
        let mut accounts = Accounts { passwd: "root:x:0:0::/root:/bin/sh\n".into(), ..Accounts::default() };
        accounts.add(&user, 20_000).unwrap();
        accounts.add(&user, 20_000).unwrap();
        assert_eq!(accounts.passwd.lines().count(), 2);
        assert_eq!(accounts.shadow, "mastodon:!:20000:0:99999:7:::\n");
        assert_eq!(accounts.user("mastodon"), Some((991, 991)));
        let other = User { name: "other".into(), ..user };
        assert!(accounts.add(&other, 20_000).is_err());
    }
}
