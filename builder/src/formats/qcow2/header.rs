//! The header, its extensions, and the entries of both tables. All numbers are big-endian.

/// Bytes of the unit that a compressed cluster's length is counted in.
pub const SECTOR: u64 = 512;
/// Bytes of an entry of either table.
pub const ENTRY: u64 = 8;
/// Smallest cluster, as a power of two.
pub const CLUSTER_BITS_LEAST: u32 = 9;
/// Largest cluster, as a power of two.
pub const CLUSTER_BITS_MOST: u32 = 21;
/// 64 KiB, what `qemu-img` takes by default.
pub const CLUSTER_BITS: u32 = 16;
/// Reference counts of 16 bits, the only ones of version 2.
pub const REFCOUNT_ORDER: u32 = 4;
/// Bytes of a header of version 2.
pub const HEADER_V2: usize = 72;
/// Bytes of a header of version 3 without a compression type.
pub const HEADER_V3: usize = 104;
/// Bytes of a header of version 3 with one.
pub const HEADER_V3_COMPRESSION: usize = 112;

/// Incompatible feature: reference counts may be wrong.
pub const DIRTY: u64 = 1;
/// Incompatible feature: something is known to be wrong.
pub const CORRUPT: u64 = 1 << 1;
/// Incompatible feature: the clusters lie in another file.
pub const EXTERNAL_DATA: u64 = 1 << 2;
/// Incompatible feature: `compression` is not deflate.
pub const COMPRESSION: u64 = 1 << 3;
/// Incompatible feature: entries of 16 bytes, which know of 32 parts of a cluster.
pub const EXTENDED_L2: u64 = 1 << 4;

/// `compression`: RFC 1951 without a frame; readers of old expect a window of 4 KiB.
pub const DEFLATE: u8 = 0;
/// `compression`: one frame of RFC 8878.
pub const ZSTD: u8 = 1;

/// Extension: ends the list.
pub const EXTENSION_END: u32 = 0;
/// Extension: names of feature bits, for readers that do not know them.
pub const EXTENSION_FEATURE_NAMES: u32 = 0x6803_f857;
/// Extension: format of the backing file.
pub const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
/// Extension: name of the file that holds the clusters.
pub const EXTENSION_EXTERNAL_DATA: u32 = 0x4441_5441;
/// Extension: where LUKS keeps its own header.
pub const EXTENSION_ENCRYPTION: u32 = 0x0537_be77;

/// In an entry of either table: nobody else uses what it names.
pub const COPIED: u64 = 1 << 63;
/// In an entry of the second level: the cluster is compressed.
pub const COMPRESSED: u64 = 1 << 62;
/// In an entry of the second level of version 3: the cluster reads as zeros.
pub const ZERO: u64 = 1;
/// In an entry of either table: where the table or the whole cluster begins, in bytes.
pub const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

const MAGIC: &[u8; 4] = b"QFI\xfb";

/// An image's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Version of the format, 2 or 3.
    pub version: u32,
    /// Where the backing file's name begins, in bytes; 0 for none.
    pub backing_offset: u64,
    /// Length of that name in bytes.
    pub backing_bytes: u32,
    /// Size of a cluster, as a power of two.
    pub cluster_bits: u32,
    /// Size of the disk in bytes.
    pub size: u64,
    /// 0 for none, 1 for AES, 2 for LUKS.
    pub encryption: u32,
    /// Entries of the first-level table.
    pub l1_entries: u32,
    /// Where the first-level table begins, in bytes.
    pub l1_offset: u64,
    /// Where the table of reference counts begins, in bytes.
    pub refcount_offset: u64,
    /// Its length in clusters.
    pub refcount_clusters: u32,
    /// Snapshots inside the image.
    pub snapshots: u32,
    /// Where their table begins, in bytes.
    pub snapshots_offset: u64,
    /// A reader that does not know one of these features must not read; none in version 2.
    pub incompatible: u64,
    /// Features that a reader may ignore.
    pub compatible: u64,
    /// Features that a writer which does not know them must clear.
    pub autoclear: u64,
    /// Bits of a reference count, as a power of two; [`REFCOUNT_ORDER`] in version 2.
    pub refcount_order: u32,
    /// Length of the header in bytes, after which extensions begin; [`HEADER_V2`] in version 2.
    pub header_bytes: u32,
    /// [`DEFLATE`] or [`ZSTD`]; a header without the field means [`DEFLATE`].
    pub compression: u8,
}

impl Header {
    /// A header with nothing special about it: clusters of [`CLUSTER_BITS`], and no tables yet. A compression type other than
    /// [`DEFLATE`] sets its feature bit.
    pub fn new(version: u32, size: u64, compression: u8) -> Self {
        let header_bytes = if version == 2 { HEADER_V2 } else { HEADER_V3_COMPRESSION };
        Header {
            version,
            backing_offset: 0,
            backing_bytes: 0,
            cluster_bits: CLUSTER_BITS,
            size,
            encryption: 0,
            l1_entries: 0,
            l1_offset: 0,
            refcount_offset: 0,
            refcount_clusters: 0,
            snapshots: 0,
            snapshots_offset: 0,
            incompatible: if compression == DEFLATE { 0 } else { COMPRESSION },
            compatible: 0,
            autoclear: 0,
            refcount_order: REFCOUNT_ORDER,
            #[expect(clippy::cast_possible_truncation, reason = "one of two small constants")]
            header_bytes: header_bytes as u32,
            compression,
        }
    }

    /// Bytes of a cluster.
    pub fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Its bytes, without extensions: 72 of version 2, otherwise 104 or 112 by `header_bytes`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_V3_COMPRESSION);
        bytes.extend(MAGIC);
        bytes.extend(self.version.to_be_bytes());
        bytes.extend(self.backing_offset.to_be_bytes());
        bytes.extend(self.backing_bytes.to_be_bytes());
        bytes.extend(self.cluster_bits.to_be_bytes());
        bytes.extend(self.size.to_be_bytes());
        bytes.extend(self.encryption.to_be_bytes());
        bytes.extend(self.l1_entries.to_be_bytes());
        bytes.extend(self.l1_offset.to_be_bytes());
        bytes.extend(self.refcount_offset.to_be_bytes());
        bytes.extend(self.refcount_clusters.to_be_bytes());
        bytes.extend(self.snapshots.to_be_bytes());
        bytes.extend(self.snapshots_offset.to_be_bytes());
        if self.version > 2 {
            bytes.extend(self.incompatible.to_be_bytes());
            bytes.extend(self.compatible.to_be_bytes());
            bytes.extend(self.autoclear.to_be_bytes());
            bytes.extend(self.refcount_order.to_be_bytes());
            bytes.extend(self.header_bytes.to_be_bytes());
        }
        if self.version > 2 && self.header_bytes as usize > HEADER_V3 {
            bytes.push(self.compression);
            bytes.resize(HEADER_V3_COMPRESSION, 0);
        }
        bytes
    }

    /// Out of the first bytes of a file; `None` when they are none, or too few for what they say. Values are as the file says,
    /// unchecked.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER_V2 || !bytes.starts_with(MAGIC) {
            return None;
        }
        let version = u32_at(bytes, 4);
        let mut header = Header {
            version,
            backing_offset: u64_at(bytes, 8),
            backing_bytes: u32_at(bytes, 16),
            cluster_bits: u32_at(bytes, 20),
            size: u64_at(bytes, 24),
            encryption: u32_at(bytes, 32),
            l1_entries: u32_at(bytes, 36),
            l1_offset: u64_at(bytes, 40),
            refcount_offset: u64_at(bytes, 48),
            refcount_clusters: u32_at(bytes, 56),
            snapshots: u32_at(bytes, 60),
            snapshots_offset: u64_at(bytes, 64),
            ..Header::new(2, 0, DEFLATE)
        };
        if version > 2 {
            if bytes.len() < HEADER_V3 {
                return None;
            }
            header.incompatible = u64_at(bytes, 72);
            header.compatible = u64_at(bytes, 80);
            header.autoclear = u64_at(bytes, 88);
            header.refcount_order = u32_at(bytes, 96);
            header.header_bytes = u32_at(bytes, 100);
            if header.header_bytes as usize > HEADER_V3 {
                header.compression = *bytes.get(HEADER_V3)?;
            }
        }
        Some(header)
    }
}

/// Something that a header says beside its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// `EXTENSION_*`.
    pub kind: u32,
    /// What it says, without padding.
    pub content: Vec<u8>,
}

/// Extensions as they follow the header, with the one that ends the list; padded to eight bytes each.
pub fn extensions_to_bytes(extensions: &[Extension]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for extension in extensions {
        bytes.extend(extension.kind.to_be_bytes());
        #[expect(
            clippy::cast_possible_truncation,
            reason = "an extension lies in one cluster, 2 MiB at most"
        )]
        bytes.extend((extension.content.len() as u32).to_be_bytes());
        bytes.extend(&extension.content);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes.extend([0; 8]);
    bytes
}

/// Extensions out of the bytes between the header and the end of its cluster; `None` when one does not fit. The list may end
/// without the extension that ends it where the bytes do.
pub fn parse_extensions(mut bytes: &[u8]) -> Option<Vec<Extension>> {
    let mut extensions = Vec::new();
    while bytes.len() >= 8 {
        let (kind, length) = (u32_at(bytes, 0), u32_at(bytes, 4) as usize);
        if kind == EXTENSION_END {
            break;
        }
        let content = bytes.get(8..)?.get(..length)?;
        extensions.push(Extension { kind, content: content.to_vec() });
        bytes = bytes.get(8 + length.next_multiple_of(8)..).unwrap_or_default();
    }
    Some(extensions)
}

/// Where a compressed cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compressed {
    /// Its first byte.
    pub offset: u64,
    /// Sectors that it touches beyond the first.
    pub more_sectors: u64,
}

impl Compressed {
    /// For bytes from `offset` on, of which there is at least one.
    pub fn of(offset: u64, bytes: u64) -> Self {
        Compressed { offset, more_sectors: (offset + bytes - 1) / SECTOR - offset / SECTOR }
    }

    /// Bytes up to the end of its last sector: at least those that were written.
    pub fn bytes(self) -> u64 {
        (self.more_sectors + 1) * SECTOR - self.offset % SECTOR
    }

    /// Its entry.
    pub fn to_entry(self, cluster_bits: u32) -> u64 {
        COMPRESSED | self.more_sectors << offset_bits(cluster_bits) | self.offset
    }

    /// Out of its entry.
    pub fn parse(entry: u64, cluster_bits: u32) -> Self {
        let bits = offset_bits(cluster_bits);
        let value = entry & (COMPRESSED - 1);
        Compressed { offset: value & ((1 << bits) - 1), more_sectors: value >> bits }
    }
}

/// Bits of a compressed cluster's entry that say where it begins; those above count sectors.
fn offset_bits(cluster_bits: u32) -> u32 {
    62 - (cluster_bits - 8)
}

/// A number of a header.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A number of a header or table.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        for (version, compression, length) in [(2, DEFLATE, 72), (3, DEFLATE, 112), (3, ZSTD, 112)] {
            let mut header = Header::new(version, 40 << 30, compression);
            (header.l1_entries, header.l1_offset, header.snapshots_offset) = (80, 0x30000, 7);
            let bytes = header.to_bytes();
            assert_eq!(bytes.len(), length);
            assert_eq!(Header::parse(&bytes), Some(header));
            assert_eq!(Header::parse(&bytes[..length - 8]), None, "version {version}, cut off");
        }
    }

    #[test]
    fn extensions_are_read_as_they_were_written() {
        let extensions = [
            Extension { kind: EXTENSION_BACKING_FORMAT, content: b"raw".to_vec() },
            Extension { kind: EXTENSION_FEATURE_NAMES, content: vec![1; 48] },
        ];
        let bytes = extensions_to_bytes(&extensions);
        assert_eq!(bytes.len(), 16 + 56 + 8);
        assert_eq!(parse_extensions(&bytes).unwrap(), extensions);
        assert_eq!(parse_extensions(&bytes[..40]), None, "the second does not fit");
    }

    #[test]
    fn a_compressed_cluster_runs_to_the_end_of_a_sector() {
        for cluster_bits in [9, 16, 21] {
            for (offset, bytes, sectors) in [(0x5_0000, 1, 0), (0x5_01ff, 2, 1), (0x5_01ff, 1, 0)] {
                let place = Compressed::of(offset, bytes);
                assert_eq!(place.more_sectors, sectors);
                assert!(place.bytes() >= bytes);
                assert_eq!(Compressed::parse(place.to_entry(cluster_bits), cluster_bits), place);
            }
        }
    }
}
