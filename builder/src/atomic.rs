//! Small files on the build host: temp, fsync, rename, so that a killed run leaves the old file or the new one.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use fs_err as fs;

/// Replaces a file's content; mode 0644 less the umask.
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut temp = tempfile::NamedTempFile::new_in(folder)?;
    temp.write_all(content).with_context(|| format!("writing `{}`", path.display()))?;
    publish(temp, path)
}

/// Gives a finished temp file, made in the same folder, its final name.
pub fn publish(temp: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    temp.as_file().sync_all().with_context(|| format!("writing `{}`", path.display()))?;
    // NamedTempFile makes 0600; artifacts and logs are no secrets.
    temp.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    temp.persist(path)
        .map_err(|error| error.error)
        .with_context(|| format!("writing `{}`", path.display()))?;
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}
