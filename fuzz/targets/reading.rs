//! What every target does with its bytes: opens them as a disk and reads some megabytes of it.
//!
//! A panic, an error that is not the file's fault, more than 512 MiB of memory or more than a few seconds is a finding. Run with
//!
//! ```text
//! truncate -s 300K disk.raw; dd if=Cargo.lock of=disk.raw bs=1K seek=70 conv=notrunc
//! mkdir -p fuzz/corpus/vmdk fuzz/corpus/qcow2
//! qemu-img convert -f raw -O vmdk -o subformat=streamOptimized disk.raw fuzz/corpus/vmdk/stream
//! qemu-img convert -f raw -O vmdk disk.raw fuzz/corpus/vmdk/sparse
//! for type in zlib zstd; do
//!     qemu-img convert -c -f raw -O qcow2 -o cluster_size=4k,compression_type=$type disk.raw fuzz/corpus/qcow2/$type
//! done
//! cargo +nightly fuzz run vmdk -- -timeout=5 -rss_limit_mb=512 -max_len=1000000 -max_total_time=120
//! ```
//!
//! `tar_member` begins with a tar of some small files, one of them with a name that ends with an x, of GNU (`tar --format=gnu`) and of POSIX (`--format=posix`).

use std::io::Write as _;

use anyhow::{Context as _, Result};

use crate::error;
use crate::formats::disk::ReadDisk;
use crate::formats::part::Part;

/// A file in memory.
fn part(bytes: &[u8]) -> Result<Part> {
    let file = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC).context("making a file")?;
    let mut file = fs_err::File::from_parts(file.into(), "disk");
    file.write_all(bytes)?;
    Part::whole(file)
}

fn try_read(disk: &mut dyn ReadDisk) -> Result<()> {
    let mut buffer = vec![0; 50_000];
    let mut offset = 0;
    for _ in 0..40 {
        let Some(range) = disk.next_data(offset)? else { break };
        assert!(range.start >= offset && range.end > range.start && range.end <= disk.size());
        let length = buffer.len().min(usize::try_from(range.end - range.start)?);
        disk.read_at(range.start, &mut buffer[..length])?;
        offset = range.start + length as u64;
    }
    if let Some(last) = disk.size().checked_sub(1) {
        disk.read_at(last, &mut buffer[..1])?;
    }
    Ok(())
}

/// Opens and reads.
pub fn read(bytes: &[u8], open: impl FnOnce(Part) -> Result<Option<Box<dyn ReadDisk>>>) {
    let read = || match open(part(bytes)?)? {
        Some(mut disk) => try_read(disk.as_mut()),
        None => Ok(()),
    };
    if let Err(error) = read() {
        assert_eq!(error::exit_code(&error), 1, "{error:#}");
    }
}
