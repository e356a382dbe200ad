//! The root file system: mke2fs reads the tree's tar and writes into the raw disk in place.

use std::path::Path;

use anyhow::Result;

use super::layout::Layout;
use crate::context::Context;
use crate::error::Fault;
use crate::exec::Run;
use crate::overlay::ImageTree;

/// Bytes of a block.
const BLOCK: u64 = 4096;
/// Label of the root file system.
pub const LABEL: &str = "mastodon-root";
/// Said in full, because mke2fs' defaults change: CentOS 7's kernel 3.10, e2fsck 1.42.9 and GRUB 2.02 must read the result.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,64bit";
/// The first mke2fs that reads a tar and honours SOURCE_DATE_EPOCH.
const MINIMUM: (u32, u32, u32) = (1, 47, 1);

/// Makes and checks the file system.
pub fn write(raw: &Path, layout: &Layout, tree: &ImageTree, context: &Context) -> Result<()> {
    let offset = layout.root.offset();
    let blocks = (layout.root.bytes() / BLOCK).to_string();
    let ids = tree.ids();
    // The disk is new and all zero: inode tables need no writing, so the guest never has to initialise them in the background.
    let options =
        format!("offset={offset},hash_seed={},root_owner=0:0,assume_storage_prezeroed=1", ids.hash_seed);
    Run::new(&context.log, "mke2fs")
        .env("SOURCE_DATE_EPOCH", tree.epoch().to_string())
        .env("MKE2FS_CONFIG", "/dev/null")
        .args([
            "-t",
            "ext4",
            "-F",
            "-q",
            "-b",
            "4096",
            "-I",
            "256",
            "-m",
            "1",
            "-e",
            "remount-ro",
            "-L",
            LABEL,
            "-O",
            FEATURES,
        ])
        .args(["-U", &ids.root.to_string(), "-E", &options, "-d"])
        .arg(tree.tar())
        .arg(raw)
        .arg(blocks)
        .run()?;
    check(raw, offset, context)
}

/// `e2fsck -fn` on a partition of a disk.
pub fn check(raw: &Path, offset: u64, context: &Context) -> Result<()> {
    Run::new(&context.log, "e2fsck").arg("-fn").arg(format!("{}?offset={offset}", raw.display())).run()
}

/// Refuses a mke2fs that cannot read a tar.
pub fn require_tool(context: &Context) -> Result<()> {
    let mut version = None;
    Run::new(&context.log, "mke2fs")
        .arg("-V")
        .on_line(|line| version = version.or_else(|| parse_version(line)))
        .run()?;
    match version {
        Some(found) if found >= MINIMUM => Ok(()),
        found => {
            let (major, minor, patch) = found.unwrap_or_default();
            let message =
                format!("mke2fs is {major}.{minor}.{patch}; 1.47.1 or later is needed to read a tar");
            Err(Fault::environment(message)
                .hint("Debian 12 has it in bookworm-backports; `cargo ci setup` installs it")
                .into())
        }
    }
}

/// `mke2fs 1.47.2 (1-Jan-2025)`.
fn parse_version(line: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = line
        .strip_prefix("mke2fs ")?
        .split_whitespace()
        .next()?
        .split('.')
        .map(|part| part.parse().unwrap_or(0));
    Some((numbers.next()?, numbers.next()?, numbers.next().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(parse_version("mke2fs 1.47.2 (1-Jan-2025)"), Some((1, 47, 2)));
        assert_eq!(parse_version("mke2fs 1.48 (1-Jan-2026)"), Some((1, 48, 0)));
        assert_eq!(parse_version("\tUsing EXT2FS Library version 1.47.2"), None);
    }
}
