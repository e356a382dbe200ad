//! What lies in the webroot for as long as an authority, or we ourselves, may want to fetch it.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use fs_err as fs;

use crate::durable;

/// Path of a challenge's answer below the webroot; RFC 8555, section 8.3.
pub const CHALLENGES: &str = ".well-known/acme-challenge";

/// Takes away every answer that a cut has left, for as long as nobody looks at one.
pub(super) fn sweep(webroot: &Path) -> Result<()> {
    let folder = webroot.join(CHALLENGES);
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(&folder)? {
        durable::erase(&entry?.path())?;
    }
    durable::sync_folder(&folder)
}

/// A file in the webroot that goes with its owner.
#[derive(Debug)]
pub struct Answer {
    path: PathBuf,
}

impl Answer {
    /// Puts a file there. Its name comes from another machine and is held to the characters that RFC 8555 allows.
    pub fn put(webroot: &Path, token: &str, content: &str) -> Result<Self> {
        if token.is_empty()
            || token.len() > 200
            || !token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        {
            bail!("the authority sent a malformed token");
        }
        let path = webroot.join(CHALLENGES).join(token);
        durable::write(&path, content.as_bytes(), 0o644, None)?;
        Ok(Answer { path })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // A left-over answer harms nobody: it is worth nothing without our account's key.
        let _ = durable::remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, CHALLENGES, sweep};

    #[test]
    fn what_a_cut_left_is_taken_away() {
        let webroot = tempfile::tempdir().unwrap();
        sweep(webroot.path()).unwrap();
        std::mem::forget(Answer::put(webroot.path(), "old", "x").unwrap());
        let folder = webroot.path().join(CHALLENGES);
        fs_err::write(folder.join("half.new"), "").unwrap();
        sweep(webroot.path()).unwrap();
        assert_eq!(fs_err::read_dir(folder).unwrap().count(), 0);
    }

    #[test]
    fn a_token_never_leaves_the_webroot() {
        let folder = tempfile::tempdir().unwrap();
        for token in ["", "../x", "a/b", "a.b", &"a".repeat(201)] {
            assert!(Answer::put(folder.path(), token, "x").is_err(), "{token:?}");
        }
        let answer = Answer::put(folder.path(), "aB-_9", "x").unwrap();
        let path = answer.path.clone();
        assert!(path.is_file());
        drop(answer);
        assert!(!path.exists());
    }
}
