//! The writer of streamOptimized disks.
//!
//! One pass, nothing is patched afterwards: what is written can be hashed and archived on the way. Grains come in order, each table
//! behind its grains, and the last sector of the stream is the one end-of-stream marker. A table without grains is left out.

use std::io::Write;

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use libdeflater::{CompressionLvl, Compressor};

use super::header::{Announced, GRAIN, Header, SECTOR, TABLE_ENTRIES, marker};
use crate::formats::Identity;
use crate::formats::chunks::{Encoder, Source};

/// Room for the descriptor, in sectors; what VMware's converter takes.
const DESCRIPTOR_SECTORS: u64 = 20;
/// The version of the virtual hardware that the descriptor names, and the OVF too. Read by ESXi 6.5 and later; what is newer cuts
/// off 6.x, what is older the newest.
pub const HARDWARE: u32 = 13;
/// Sectors of a grain table.
const TABLE_SECTORS: u64 = TABLE_ENTRIES as u64 * 4 / SECTOR;
/// Bytes of the grain marker before the grain's own.
const GRAIN_MARKER: usize = 12;

/// How a disk is to be written.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// File name that the descriptor gives to the extent: the disk's own.
    pub name: &'a str,
    /// Deflate level, 1 to 12.
    pub level: u8,
    /// What the disk's content is called.
    pub identity: Identity,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the disk that are in grains: what the disk occupies.
    pub populated: u64,
}

/// Writes the disk of `size` bytes that is in the raw `file`. `seen` hears how far into the disk it has come, in bytes.
pub fn write(
    file: &fs::File,
    size: u64,
    options: Options<'_>,
    target: impl Write,
    seen: impl FnMut(u64),
) -> Result<Written> {
    let capacity = size.div_ceil(SECTOR);
    let header = Header::stream(capacity, DESCRIPTOR_SECTORS);
    let grains = size.div_ceil(GRAIN);
    let directory = vec![0; usize::try_from(grains.div_ceil(u64::from(TABLE_ENTRIES)))?];
    let mut stream =
        Stream { target, sector: 0, grains: 0, directory, table: [0; TABLE_ENTRIES as usize], current: None };
    stream.put(&header.to_bytes())?;
    stream.put(&descriptor(capacity, options)?)?;
    stream.put(&vec![0; usize::try_from((header.overhead - stream.sector) * SECTOR)?])?;
    let source = Source { file, size, unit: GRAIN };
    source.encode(|| encoder(options.level), |number, bytes| stream.grain(number, bytes), seen)?;
    stream.end(&header)
}

/// The embedded descriptor, in its room.
fn descriptor(capacity: u64, options: Options<'_>) -> Result<Vec<u8>> {
    let Options { name, identity, .. } = options;
    // The geometry that every disk above 8 GB has.
    let cylinders = (capacity / (255 * 63)).clamp(1, 65535);
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID={:08x}\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\n\
         # Extent description\nRW {capacity} SPARSE \"{name}\"\n\n\
         # The Disk Data Base\n#DDB\n\n\
         ddb.adapterType = \"lsilogic\"\nddb.geometry.cylinders = \"{cylinders}\"\nddb.geometry.heads = \"255\"\n\
         ddb.geometry.sectors = \"63\"\nddb.longContentID = \"{:032x}\"\nddb.toolsInstallType = \"4\"\n\
         ddb.toolsVersion = \"2147483647\"\nddb.virtualHWVersion = \"{HARDWARE}\"\n",
        identity.short(),
        identity.long(),
    );
    let mut bytes = text.into_bytes();
    let room = usize::try_from(DESCRIPTOR_SECTORS * SECTOR)?;
    ensure!(bytes.len() <= room, "the disk's name `{name}` is too long for a VMDK's descriptor");
    bytes.resize(room, 0);
    Ok(bytes)
}

fn encoder(level: u8) -> Result<Grains> {
    let level = CompressionLvl::new(level.into())
        .map_err(|_| anyhow::anyhow!("deflate has no level {level}: it is 1 to 12"))?;
    Ok(Grains(Compressor::new(level)))
}

/// A grain's bytes behind its sector number: length, content in the frame of RFC 1950, zeros to the next sector.
struct Grains(Compressor);

impl Encoder for Grains {
    fn encode(&mut self, unit: &[u8], target: &mut Vec<u8>) -> Result<()> {
        let start = target.len();
        target.resize(start + 4 + self.0.zlib_compress_bound(unit.len()), 0);
        let length = self
            .0
            .zlib_compress(unit, &mut target[start + 4..])
            .context("libdeflate needs more room than it said")?;
        target[start..start + 4].copy_from_slice(&u32::try_from(length)?.to_le_bytes());
        let padded = (GRAIN_MARKER + length).next_multiple_of(512) - 8;
        // Behind the grain may be what the compressor left there.
        target.truncate(start + 4 + length);
        target.resize(start + padded, 0);
        Ok(())
    }
}

/// The file under way.
struct Stream<W> {
    target: W,
    /// Sectors written.
    sector: u64,
    /// Grains written.
    grains: u64,
    /// Sector of each table.
    directory: Vec<u32>,
    /// Sector of each grain of the current table.
    table: [u32; TABLE_ENTRIES as usize],
    /// The current table's place in the directory.
    current: Option<usize>,
}

impl<W: Write> Stream<W> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.target.write_all(bytes)?;
        self.sector += bytes.len() as u64 / SECTOR;
        Ok(())
    }

    /// Where the next thing will be; the tables have 32 bits for it.
    fn place(&self) -> Result<u32> {
        u32::try_from(self.sector).context("a VMDK cannot be larger than 2 TiB")
    }

    fn grain(&mut self, number: u64, encoded: &[u8]) -> Result<()> {
        let entries = u64::from(TABLE_ENTRIES);
        let table = usize::try_from(number / entries)?;
        if self.current != Some(table) {
            self.flush()?;
            self.current = Some(table);
        }
        self.table[usize::try_from(number % entries)?] = self.place()?;
        self.grains += 1;
        self.target.write_all(&(number * GRAIN / SECTOR).to_le_bytes())?;
        self.target.write_all(encoded)?;
        self.sector += (8 + encoded.len() as u64) / SECTOR;
        Ok(())
    }

    /// Writes the current table.
    fn flush(&mut self) -> Result<()> {
        let Some(current) = self.current.take() else { return Ok(()) };
        self.put(&marker(Announced::Table, TABLE_SECTORS))?;
        self.directory[current] = self.place()?;
        let bytes: Vec<u8> = self.table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        self.table = [0; TABLE_ENTRIES as usize];
        self.put(&bytes)
    }

    fn end(mut self, header: &Header) -> Result<Written> {
        self.flush()?;
        let mut bytes: Vec<u8> = self.directory.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        self.put(&marker(Announced::Directory, bytes.len() as u64 / SECTOR))?;
        let gd_offset = self.sector;
        self.put(&bytes)?;
        self.put(&marker(Announced::Footer, 1))?;
        self.put(&Header { gd_offset, ..header.clone() }.to_bytes())?;
        self.put(&marker(Announced::EndOfStream, 0))?;
        self.target.flush()?;
        Ok(Written { bytes: self.sector * SECTOR, populated: self.grains * GRAIN })
    }
}
