//! Disks for tests: bytes that are the same each time, and files of every format that hold them.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::disk::ReadDisk;
use super::part::Part;
use super::{Identity, qcow2, vmdk};
use crate::exec::{Log, Run};

/// Numbers that look random and are the same each time (SplitMix64).
pub struct Numbers(pub u64);

impl Numbers {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }

    /// Bytes that cannot be compressed.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            std::iter::repeat_with(|| self.next().to_le_bytes()).take(count / 8 + 1).flatten().collect();
        bytes.truncate(count);
        bytes
    }
}

/// A folder with images in it.
pub struct Images {
    folder: tempfile::TempDir,
    log: Log,
}

impl Images {
    /// An empty one.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::create(&folder.path().join("log")).unwrap();
        Images { folder, log }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A new file.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// A program with these words, in the folder.
    pub fn run(&self, program: &str, words: &str) {
        Run::new(&self.log, program).args(words.split(' ')).folder(self.folder.path()).run().unwrap();
    }

    /// `qemu-img` with these words, in the folder.
    pub fn qemu_img(&self, words: &str) {
        self.run("qemu-img", words);
    }

    /// `disk.raw` converted, by the words that follow `qemu-img convert`.
    pub fn convert(&self, words: &str) -> PathBuf {
        let path = self.path("image");
        let _ = fs::remove_file(&path);
        self.qemu_img(&format!("convert -f raw {words} disk.raw image"));
        path
    }
}

/// A file as a part.
pub fn part(path: &Path) -> Result<Part> {
    Part::whole(fs::File::open(path)?)
}

/// A VMDK or qcow2 by its first byte.
pub fn open(part: Part) -> Result<Box<dyn ReadDisk>> {
    let mut first = [0];
    part.read(0, &mut first)?;
    if first == *b"Q" { qcow2::read::open(part) } else { vmdk::read::open(part) }
}

/// Every byte of a disk, read in pieces of an odd length.
pub fn bytes(disk: &mut dyn ReadDisk) -> Result<Vec<u8>> {
    let mut bytes = vec![0xaa; usize::try_from(disk.size())?];
    let mut offset = 0;
    for piece in bytes.chunks_mut(77_777) {
        disk.read_at(offset, piece)?;
        offset += piece.len() as u64;
    }
    Ok(bytes)
}

/// The streamOptimized VMDK that we write, whose directory is found by its footer: `qemu-img` writes none such.
pub fn stream(disk: &[u8]) -> Vec<u8> {
    let file = fs::File::from_parts(tempfile::tempfile().unwrap(), "disk");
    file.file().write_all_at(disk, 0).unwrap();
    let size = disk.len() as u64;
    let identity = Identity::of(&file, size).unwrap();
    let mut stream = Vec::new();
    let options = vmdk::write::Options { name: "disk.vmdk", level: 6, identity };
    let written = vmdk::write::write(&file, size, options, &mut stream, |_| ()).unwrap();
    assert_eq!(written.bytes, stream.len() as u64);
    stream
}
