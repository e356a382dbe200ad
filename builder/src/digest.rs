//! SHA-256 of files and folders, as inputs of keys.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Result;
use fs_err as fs;
use sha2::{Digest as _, Sha256};

use crate::store::hex;

/// Digest of a file's content.
pub fn file(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..count]);
    }
}

/// Digest of a folder: names, executable bits, contents and link targets, in order; times and owners do not count.
pub fn folder(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    walk(path, &mut hash)?;
    Ok(hex(&hash.finalize()))
}

fn walk(path: &Path, hash: &mut Sha256) -> Result<()> {
    let mut entries = fs::read_dir(path)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let kind = entry.file_type()?;
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_encoded_bytes());
        if kind.is_dir() {
            hash.update(b"d");
            walk(&entry.path(), hash)?;
            hash.update(b"e");
        } else if kind.is_symlink() {
            hash.update(b"l");
            hash.update(fs::read_link(entry.path())?.as_os_str().as_encoded_bytes());
        } else {
            let executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
            hash.update(if executable { b"x" } else { b"f" });
            hash.update(file(&entry.path())?.as_bytes());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_bits_and_contents_count() {
        let digest = |name: &str, content: &str, mode: u32| {
            let temp = tempfile::tempdir().unwrap();
            let path = temp.path().join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            folder(temp.path()).unwrap()
        };
        let one = digest("a", "x", 0o644);
        assert_eq!(one, digest("a", "x", 0o600));
        assert!(
            [digest("b", "x", 0o644), digest("a", "y", 0o644), digest("a", "x", 0o755)]
                .iter()
                .all(|other| *other != one)
        );
    }
}
