//! The file system of the data disk: made so that a cut is seen, checked before every mount, grown with the disk.
//!
//! The last MiB of the disk is outside the file system. Before a format begins, its last block gets a mark; after the format has
//! reached the disk, the mark is erased. So a marked disk never held anything of value, and a disk with our label but without the
//! mark is complete.

use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::disks::Disk;
use crate::durable;
use crate::exec::Run;

/// Label of the data disk's file system.
pub const LABEL: &str = "mastodon-data";

const BLOCK: u64 = 4096;
const TAIL: u64 = 1024 * 1024;
const MARK: &[u8] = b"mastodon-appliance: a format of this disk was begun and has not ended\n";

/// Everything that Linux 3.10 can mount and nothing more, whatever the defaults of this `mke2fs` are.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,flex_bg,sparse_super,large_file,\
                        huge_file,uninit_bg,dir_nlink,extra_isize";

/// Whether the disk carries the mark of an unfinished format.
pub fn has_mark(disk: &std::fs::File, bytes: u64) -> Result<bool> {
    let mut found = [0; MARK.len()];
    disk.read_exact_at(&mut found, bytes.saturating_sub(BLOCK)).context("reading the end of the disk")?;
    Ok(found == MARK)
}

/// Formats a disk, whatever is on it. May be cut at any instruction and repeated.
pub fn format(disk: &Disk) -> Result<()> {
    let file = fs_err::OpenOptions::new().read(true).write(true).open(&disk.device)?;
    write_last_block(file.file(), disk.bytes, MARK)?;
    let device = disk.device.to_string_lossy();
    let blocks = blocks(disk.bytes).to_string();
    // Inode tables stay unwritten: the disk's image stays as thin as it is. Nothing old can be in them, the disk was blank.
    let extended = "lazy_itable_init=1,lazy_journal_init=0,nodiscard";
    let arguments = [
        "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "1", "-J", "size=64", "-O", FEATURES,
        "-E", extended, "-L", LABEL, &device, &blocks,
    ];
    Run::new("mke2fs", &arguments).unlimited().text().context("formatting the data disk")?;
    durable::sync_file(&disk.device)?;
    write_last_block(file.file(), disk.bytes, b"")
}

fn write_last_block(file: &std::fs::File, bytes: u64, content: &[u8]) -> Result<()> {
    let mut block = vec![0; usize::try_from(BLOCK)?];
    block[..content.len()].copy_from_slice(content);
    durable::overwrite(file, &block, bytes.saturating_sub(BLOCK)).context("writing the end of the data disk")
}

/// Checks the unmounted file system, and mends what can be mended without questions.
pub fn check(device: &Path) -> Result<()> {
    let output = Run::new("e2fsck", &["-p", &device.to_string_lossy()]).unlimited().output()?;
    // 1: mended; 2: mended, and a reboot is advised for a root file system, which this is not.
    if output.code & !3 != 0 {
        bail!(
            "the data disk `{0}` is damaged: copy it, then run `e2fsck -f {0}` and answer its questions, then `appliance retry`: {1}",
            device.display(),
            output.stdout.trim()
        );
    }
    Ok(())
}

/// Grows the mounted file system when the hypervisor has given the disk more.
pub fn grow(disk: &Disk) -> Result<()> {
    let device = disk.device.to_string_lossy();
    let current = block_count(&Run::new("dumpe2fs", &["-h", &device]).text()?)
        .with_context(|| format!("reading the size of the file system on `{device}`"))?;
    let wanted = blocks(disk.bytes);
    // A tail more or less is not worth a resize: the next one could not be told from this one.
    if wanted > current + TAIL / BLOCK {
        let size = format!("{}K", wanted * (BLOCK / 1024));
        Run::new("resize2fs", &[&device, &size])
            .unlimited()
            .text()
            .context("growing the data disk's file system")?;
    }
    Ok(())
}

/// Blocks of a file system on a disk of this size: whole MiB, without the tail.
fn blocks(bytes: u64) -> u64 {
    (bytes / TAIL).saturating_sub(1) * (TAIL / BLOCK)
}

fn block_count(dumpe2fs: &str) -> Option<u64> {
    let value = dumpe2fs.lines().find_map(|line| line.strip_prefix("Block count:"))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Disk, TAIL, block_count, blocks, check, format, grow, has_mark, write_last_block};
    use crate::exec::Run;
    use crate::steps::storage::content::{Content, probe};

    /// A sparse plain file: `mke2fs` and `blkid` treat it as they treat a disk.
    fn disk(folder: &tempfile::TempDir, mebibytes: u64) -> Disk {
        let device = folder.path().join("disk");
        let bytes = mebibytes * TAIL;
        fs_err::OpenOptions::new().create(true).append(true).open(&device).unwrap().set_len(bytes).unwrap();
        Disk { device, bytes }
    }

    #[test]
    fn a_format_is_recognised_at_every_stage() {
        if !Run::new("mke2fs", &["-V"]).succeeds() {
            eprintln!("skipped: there is no mke2fs here");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut disk = disk(&folder, 1024);
        let content = |disk: &Disk| probe(&disk.device, disk.bytes).unwrap();
        assert_eq!(content(&disk), Content::Blank);
        let file = fs_err::OpenOptions::new().write(true).open(&disk.device).unwrap();
        write_last_block(file.file(), disk.bytes, super::MARK).unwrap();
        assert_eq!(content(&disk), Content::Unfinished, "cut before mke2fs");
        format(&disk).unwrap();
        assert_eq!(content(&disk), Content::Ours);
        write_last_block(file.file(), disk.bytes, super::MARK).unwrap();
        assert_eq!(content(&disk), Content::Unfinished, "cut after mke2fs");
        format(&disk).unwrap();
        check(&disk.device).unwrap();
        disk.bytes *= 4;
        file.set_len(disk.bytes).unwrap();
        Run::new("e2fsck", &["-f", "-p", &disk.device.to_string_lossy()]).output().unwrap();
        grow(&disk).unwrap();
        // Of a plain file, unlike of a disk, resize2fs cuts what the file system leaves out.
        file.set_len(disk.bytes).unwrap();
        let header = Run::new("dumpe2fs", &["-h", &disk.device.to_string_lossy()]).text().unwrap();
        assert_eq!(block_count(&header), Some(blocks(disk.bytes)));
        assert_eq!(content(&disk), Content::Ours);
        check(&disk.device).unwrap();
    }

    #[test]
    fn mke2fs_leaves_the_mark_alone() {
        if !Run::new("mke2fs", &["-V"]).succeeds() {
            eprintln!("skipped: there is no mke2fs here");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let disk = disk(&folder, 1024);
        let file = fs_err::OpenOptions::new().read(true).write(true).open(&disk.device).unwrap();
        write_last_block(file.file(), disk.bytes, super::MARK).unwrap();
        let count = blocks(disk.bytes).to_string();
        Run::new("mke2fs", &["-q", "-F", "-t", "ext4", &disk.device.to_string_lossy(), &count])
            .text()
            .unwrap();
        assert!(has_mark(file.file(), disk.bytes).unwrap());
    }

    #[test]
    fn the_tail_stays_outside() {
        for bytes in [1 << 30, (1 << 30) + 512, 40 * (1 << 30)] {
            assert!(blocks(bytes) * BLOCK + TAIL <= bytes);
            assert!(blocks(bytes) * BLOCK + 2 * TAIL > bytes);
        }
    }
}
