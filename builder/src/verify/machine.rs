//! Nothing of a machine: identities, keys, passwords, logs.

use anyhow::Result;

use crate::context::Context;
use crate::tree::machine_state::{self, Rule};
use crate::tree::path::TreePath;
use crate::view::View;

/// Largest file that is searched for a private key, in bytes.
const KEY_LIMIT: u64 = 1 << 20;

/// The table of machine state, looked for in the finished disk.
pub fn state(view: &View, _: &Context) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    view.walk("/", &mut |node| {
        let Ok(path) = node.path.parse::<TreePath>() else { return Ok(()) };
        match machine_state::rule(&path) {
            Some((Rule::Drop, what)) => wrong.push(format!("{what}: `{path}`")),
            Some((Rule::DropFiles, what)) if !node.metadata.is_dir() => {
                wrong.push(format!("{what}: `{path}`"));
            }
            Some((Rule::Empty, what)) if node.metadata.len() > 0 => {
                wrong.push(format!("{what}: `{path}` is not empty"));
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(wrong)
}

/// No PEM private key where a machine would keep one.
pub fn private_keys(view: &View, _: &Context) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for folder in ["/etc", "/root", "/home", "/var", "/srv"] {
        view.walk(folder, &mut |node| {
            let is_file = node.metadata.file_type().is_regular_file();
            if is_file && node.metadata.len() < KEY_LIMIT && holds_key(&view.bytes(&node.path, KEY_LIMIT)?) {
                wrong.push(format!("private key: `{}`", node.path));
            }
            Ok(())
        })?;
    }
    Ok(wrong)
}

fn holds_key(bytes: &[u8]) -> bool {
    const END: &[u8] = b"PRIVATE KEY-----";
    bytes.windows(END.len()).enumerate().any(|(at, window)| {
        window == END && bytes[at.saturating_sub(32)..at].windows(10).any(|part| part == b"-----BEGIN")
    })
}

/// No account has a password, none but root has number 0.
pub fn accounts(view: &View, _: &Context) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for line in view.text("/etc/shadow")?.unwrap_or_default().lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(password)) = (fields.next(), fields.next())
            && !password.starts_with(['!', '*'])
        {
            wrong.push(format!("user `{name}` has a password"));
        }
    }
    for line in view.text("/etc/passwd")?.unwrap_or_default().lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if fields.get(2) == Some(&"0") && fields.first() != Some(&"root") {
            wrong.push(format!("user `{}` is another root", fields[0]));
        }
        if fields.get(1).is_some_and(|password| *password != "x") {
            wrong.push(format!("user `{}` has its password in /etc/passwd", fields[0]));
        }
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::holds_key;

    #[test]
    fn keys_of_all_kinds() {
        for kind in ["", "RSA ", "EC ", "OPENSSH "] {
            assert!(holds_key(format!("x\n-----BEGIN {kind}PRIVATE KEY-----\nabc").as_bytes()), "{kind}");
        }
        assert!(!holds_key(b"-----BEGIN PUBLIC KEY-----"));
    }
}
