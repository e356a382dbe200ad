//! The mail that reached the lab's relay, read from its Maildir.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::wait;

/// A Maildir that a server fills.
#[derive(Debug, Clone)]
pub struct Mailbox {
    folder: PathBuf,
}

/// One mail.
#[derive(Debug, Clone)]
pub struct Mail {
    /// The text as it was sent, with quoted-printable undone.
    pub text: String,
    /// Who delivered it to the relay: address and port, as aiosmtpd notes them.
    pub peer: String,
}

impl Mailbox {
    /// The mailbox in this folder.
    pub fn at(folder: &Path) -> Mailbox {
        Mailbox { folder: folder.to_owned() }
    }

    /// Waits for a mail to `address`.
    pub fn wait_for(&self, address: &str, limit: Duration) -> Result<Mail> {
        wait::until(&format!("a mail to {address}"), limit, || {
            let mails = self.mails()?;
            let count = mails.len();
            let mail = mails.into_iter().find(|(recipients, _)| recipients.contains(address));
            Ok(mail.map(|(_, mail)| mail).ok_or_else(|| format!("{count} mails to others are there")))
        })
    }

    fn mails(&self) -> Result<Vec<(String, Mail)>> {
        let folder = self.folder.join("new");
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let mut mails = Vec::new();
        for entry in fs_err::read_dir(&folder)? {
            let raw = String::from_utf8_lossy(&fs_err::read(entry?.path())?).replace("\r\n", "\n");
            let recipients = header(&raw, "X-RcptTo").unwrap_or_default().to_owned();
            let peer = header(&raw, "X-Peer").unwrap_or_default().to_owned();
            let text = if raw.contains("quoted-printable") { unquote(&raw) } else { raw };
            mails.push((recipients, Mail { text, peer }));
        }
        Ok(mails)
    }
}

impl Mail {
    /// The first link that has `part` in it.
    pub fn link(&self, part: &str) -> Result<&str> {
        self.text
            .split(|c: char| c.is_whitespace() || matches!(c, '"' | '<' | '>'))
            .find(|word| word.starts_with("http") && word.contains(part))
            .with_context(|| format!("looking for a link with `{part}` in the mail: {}", self.text))
    }
}

fn header<'a>(mail: &'a str, name: &str) -> Option<&'a str> {
    let head = mail.split("\n\n").next().unwrap_or_default();
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// Undoes quoted-printable (RFC 2045, section 6.7).
fn unquote(text: &str) -> String {
    let joined = text.replace("=\n", "");
    let mut bytes = Vec::new();
    let mut rest = joined.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = std::str::from_utf8(after.get(..2).unwrap_or_default()).ok();
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) if first == b'=' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &str = "Subject: Confirm\nContent-Transfer-Encoding: quoted-printable\nX-Peer: ('192.168.100.154', 4711)\n\
        X-RcptTo: alice@example.net\n\nOpen https://v6don.lab.test/auth/confirmation?confirmation_tok=\nen=3Dabc.\n";

    #[test]
    fn finds_the_link_of_a_quoted_mail() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::create_dir(folder.path().join("new")).unwrap();
        let mailbox = Mailbox::at(folder.path());
        fs_err::write(folder.path().join("new/1"), MAIL).unwrap();
        let mail = mailbox.wait_for("alice@example.net", Duration::ZERO).unwrap();
        assert_eq!(
            mail.link("confirmation_token=").unwrap(),
            "https://v6don.lab.test/auth/confirmation?confirmation_token=abc."
        );
        assert_eq!(mail.peer, "('192.168.100.154', 4711)");
        let error = mailbox.wait_for("bob@example.net", Duration::ZERO).unwrap_err().to_string();
        assert_eq!(error, "waiting 0 s for a mail to bob@example.net: 1 mails to others are there");
    }
}
