//! `/etc/passwd` and `/etc/group` of the guest: numbers and homes of users by name.
//!
//! Read as files and not through the C library: the answer is then the same in a test's folder.

use anyhow::{Context as _, Result};
use fs_err as fs;

use crate::context::Context;

/// One user of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User number.
    pub uid: u32,
    /// Number of the user's own group.
    pub gid: u32,
    /// Home folder.
    pub home: String,
}

/// Looks a user up.
pub fn user(context: &Context, name: &str) -> Result<User> {
    let text = fs::read_to_string(context.path("/etc/passwd"))?;
    find(&text, name).with_context(|| {
        format!("finding user `{name}` in `/etc/passwd`: it is not there, so this image is not complete")
    })
}

fn find(text: &str, name: &str) -> Option<User> {
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields[..] {
            [user, _, uid, gid, _, home, _] if user == name => {
                Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.to_owned() })
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{User, find};

    #[test]
    fn users_are_found_by_their_whole_name() {
        let text =
            "root:x:0:0:root:/root:/bin/bash\n# comment\nmastodon:x:991:990::/home/mastodon:/bin/bash\n";
        let mastodon = User { uid: 991, gid: 990, home: "/home/mastodon".to_owned() };
        assert_eq!(find(text, "mastodon"), Some(mastodon));
        assert_eq!(find(text, "masto"), None);
        assert_eq!(find("mastodon:x:many:990::/:/bin/sh", "mastodon"), None);
    }
}
