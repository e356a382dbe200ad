//! What a running program was last given, as a hash below `/var/lib/appliance`.
//!
//! A file that is right on the disk says nothing about the process that read it earlier. The stamp is written after the process has
//! taken the content; a cut between the two leaves the older stamp, and the process is told again.

use anyhow::Result;
use fs_err as fs;
use sha2::{Digest, Sha256};

use crate::context::Context;
use crate::durable;

/// SHA-256, in lower-case hexadecimal.
pub fn hash(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        // OK: writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Whether the stamp of this name was put for exactly this content.
pub fn holds(context: &Context, name: &str, bytes: &[u8]) -> bool {
    fs::read_to_string(path(context, name)).is_ok_and(|found| found.trim() == hash(bytes))
}

/// Puts the stamp: the content is in force.
pub fn put(context: &Context, name: &str, bytes: &[u8]) -> Result<()> {
    durable::write(&path(context, name), format!("{}\n", hash(bytes)).as_bytes(), 0o600, None).map(drop)
}

/// Takes the stamp away: what is in force is not known.
pub fn remove(context: &Context, name: &str) -> Result<()> {
    durable::remove(&path(context, name))
}

fn path(context: &Context, name: &str) -> std::path::PathBuf {
    context.state().join(format!("{name}.in-force"))
}

#[cfg(test)]
mod tests {
    use super::{holds, put, remove};
    use crate::context::tests::scratch_context;

    #[test]
    fn a_stamp_is_for_one_content() {
        let (_guard, context) = scratch_context();
        assert!(!holds(&context, "network", b"one"));
        put(&context, "network", b"one").unwrap();
        assert!(holds(&context, "network", b"one"));
        assert!(!holds(&context, "network", b"two"));
        assert!(!holds(&context, "postgresql", b"one"));
        remove(&context, "network").unwrap();
        assert!(!holds(&context, "network", b"one"));
    }
}
