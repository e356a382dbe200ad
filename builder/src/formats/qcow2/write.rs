//! The writer of compressed images: version 3, clusters of 64 KiB, no snapshots, nothing shared.
//!
//! The disk is read once. Compressed clusters lie side by side as they come, a cluster that does not shrink is whole and on a
//! boundary; tables and reference counts follow, the header is filled in last.

use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};

use anyhow::{Context as _, Result};
use flate2::{Compress, Compression, FlushCompress, Status};
use fs_err as fs;

use super::header::{
    COMPRESSED, COPIED, Compressed, DEFLATE, ENTRY, HEADER_V3, Header, OFFSET, SECTOR, ZSTD,
};
use crate::formats::chunks::{Encoder, Source};

/// Highest level of zlib; those above are libdeflate's.
const DEFLATE_MOST: u8 = 9;
/// What the format allows: readers of old inflate with a window of 4 KiB.
const WINDOW_BITS: u8 = 12;

/// How clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// RFC 1951 at this level: every reader knows it.
    Deflate(u8),
    /// RFC 8878 at this level: QEMU 5.1 and later.
    Zstd(i32),
}

/// Writes the disk of `size` bytes that is in the raw `file`, from the beginning of `target`. `seen` hears how far into the disk
/// it has come, in bytes.
pub fn write(
    file: &fs::File,
    size: u64,
    method: Method,
    target: impl Write + Seek,
    seen: impl FnMut(u64),
) -> Result<()> {
    let compression = if matches!(method, Method::Deflate(_)) { DEFLATE } else { ZSTD };
    let size = size.next_multiple_of(SECTOR);
    let mut header = Header::new(3, size, compression);
    if compression == DEFLATE {
        header.header_bytes = u32::try_from(HEADER_V3)?;
    }
    let cluster = header.cluster();
    let mut image =
        Image { target, position: 0, cluster, tables: BTreeMap::new(), compressed: BTreeMap::new() };
    image.put(&vec![0; usize::try_from(cluster)?])?;
    Source { file, size, unit: cluster }.encode(
        || Clusters::new(method),
        |number, encoded| image.cluster(number, encoded, header.cluster_bits),
        seen,
    )?;
    image.end(header)
}

/// One byte that says whether the cluster is compressed, then its bytes.
enum Clusters {
    Deflate(Compress),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Clusters {
    fn new(method: Method) -> Result<Self> {
        Ok(match method {
            Method::Deflate(level) => Clusters::Deflate(Compress::new_with_window_bits(
                Compression::new(level.min(DEFLATE_MOST).into()),
                false,
                WINDOW_BITS,
            )),
            Method::Zstd(level) => Clusters::Zstd(zstd::bulk::Compressor::new(level)?),
        })
    }
}

impl Encoder for Clusters {
    fn encode(&mut self, unit: &[u8], target: &mut Vec<u8>) -> Result<()> {
        let start = target.len() + 1;
        target.push(1);
        // It must be smaller than the cluster, or it is not worth it.
        target.resize(start + unit.len() - 1, 0);
        let length = match self {
            Clusters::Deflate(deflate) => {
                deflate.reset();
                let status = deflate.compress(unit, &mut target[start..], FlushCompress::Finish)?;
                (status == Status::StreamEnd).then(|| deflate.total_out()).map(usize::try_from).transpose()?
            }
            // Its only error here is that the result does not fit.
            Clusters::Zstd(zstd) => zstd.compress_to_buffer(unit, &mut target[start..]).ok(),
        };
        if let Some(length) = length {
            target.truncate(start + length);
        } else {
            target.truncate(start);
            target[start - 1] = 0;
            target.extend_from_slice(unit);
        }
        Ok(())
    }
}

/// The file under way.
struct Image<W> {
    target: W,
    position: u64,
    /// Bytes of a cluster.
    cluster: u64,
    /// Second-level tables by their place in the first.
    tables: BTreeMap<u64, Vec<u64>>,
    /// Compressed clusters that each cluster of the file has a part of; all others are used once.
    compressed: BTreeMap<u64, u16>,
}

impl<W: Write + Seek> Image<W> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.target.write_all(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Zeros up to the next cluster; where that begins.
    fn align(&mut self) -> Result<u64> {
        let missing = self.position.next_multiple_of(self.cluster) - self.position;
        self.put(&vec![0; usize::try_from(missing)?])?;
        Ok(self.position)
    }

    fn numbers(&mut self, numbers: &[u64]) -> Result<()> {
        self.put(&numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<_>>())
    }

    fn cluster(&mut self, number: u64, encoded: &[u8], cluster_bits: u32) -> Result<()> {
        let (kind, bytes) = encoded.split_first().context("an empty cluster")?;
        let entry = if *kind == 1 {
            let place = Compressed::of(self.position, bytes.len() as u64);
            let first = place.offset / self.cluster;
            let last = (place.offset + place.bytes() - 1) / self.cluster;
            for touched in first..=last {
                *self.compressed.entry(touched).or_default() += 1;
            }
            place.to_entry(cluster_bits)
        } else {
            COPIED | self.align()?
        };
        debug_assert!(entry & COMPRESSED != 0 || entry & !COPIED & !OFFSET == 0);
        self.put(bytes)?;
        let entries = self.cluster / ENTRY;
        let length = usize::try_from(entries)?;
        let table = self.tables.entry(number / entries).or_insert_with(|| vec![0; length]);
        table[usize::try_from(number % entries)?] = entry;
        Ok(())
    }

    fn end(mut self, mut header: Header) -> Result<()> {
        let entries = self.cluster / ENTRY;
        let mut first = vec![0; usize::try_from(header.size.div_ceil(self.cluster).div_ceil(entries))?];
        for (index, table) in std::mem::take(&mut self.tables) {
            first[usize::try_from(index)?] = COPIED | self.align()?;
            self.numbers(&table)?;
        }
        header.l1_entries = u32::try_from(first.len()).context("a disk too large for qcow2")?;
        header.l1_offset = self.align()?;
        self.numbers(&first)?;
        let used = self.align()? / self.cluster;
        // Reference counts count themselves: blocks of counts, and the table that names the blocks.
        let per_block = self.cluster / 2;
        let (mut blocks, mut table) = (0, 0);
        loop {
            let all = used + blocks + table;
            let wanted = (all.div_ceil(per_block), (all.div_ceil(per_block) * ENTRY).div_ceil(self.cluster));
            if wanted == (blocks, table) {
                break;
            }
            (blocks, table) = wanted;
        }
        let begin = self.position;
        let mut counts = Vec::with_capacity(usize::try_from(self.cluster)?);
        for cluster in 0..used + blocks + table {
            let count = self.compressed.get(&cluster).copied().unwrap_or(1);
            counts.extend(count.to_be_bytes());
            if counts.len() as u64 == self.cluster {
                self.put(&counts)?;
                counts.clear();
            }
        }
        self.put(&counts)?;
        header.refcount_offset = self.align()?;
        header.refcount_clusters = u32::try_from(table)?;
        let named: Vec<u64> = (0..blocks).map(|block| begin + block * self.cluster).collect();
        self.numbers(&named)?;
        self.align()?;
        // No extension follows: eight zeros end their list.
        self.target.seek(SeekFrom::Start(0))?;
        self.target.write_all(&header.to_bytes())?;
        self.target.flush()?;
        Ok(())
    }
}
