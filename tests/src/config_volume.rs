//! A config volume: a small FAT disk with the label `CIDATA`, as hypervisors' tools and people with a USB stick make them.

use std::path::Path;

use anyhow::Result;

use crate::exec;

/// Writes a disk image with one file `config.toml`.
pub fn write(image: &Path, config: &str) -> Result<()> {
    if image.exists() {
        fs_err::remove_file(image)?;
    }
    // -C makes the file, of so many KiB.
    exec::text(
        "mkfs.vfat",
        &["-C".as_ref(), "-n".as_ref(), "CIDATA".as_ref(), image.as_os_str(), "1024".as_ref()],
    )?;
    let source = tempfile::NamedTempFile::new()?;
    fs_err::write(source.path(), config)?;
    let args = ["-i".as_ref(), image.as_os_str(), source.path().as_os_str(), "::config.toml".as_ref()];
    exec::text("mcopy", &args)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_find_the_label_and_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("volume.img");
        write(&image, "schema = 1\n").unwrap();
        let said = exec::text("blkid", &["-p".as_ref(), image.as_os_str()]).unwrap();
        assert!(said.contains("LABEL=\"CIDATA\""), "{said}");
        let said =
            exec::text("mtype", &["-i".as_ref(), image.as_os_str(), "::config.toml".as_ref()]).unwrap();
        assert_eq!(said, "schema = 1\n");
    }
}
