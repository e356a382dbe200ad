//! The header, which the footer repeats, and the markers. All numbers are little-endian.

/// Bytes of a sector, the unit of every offset and length in the header.
pub const SECTOR: u64 = 512;
/// Sectors of a grain.
pub const GRAIN_SECTORS: u64 = 128;
/// Bytes of a grain.
pub const GRAIN: u64 = GRAIN_SECTORS * SECTOR;
/// Entries of a grain table.
pub const TABLE_ENTRIES: u32 = 512;
/// `gd_offset` of a header whose directory is found through the footer.
pub const AT_END: u64 = u64::MAX;
/// Compressed grains, markers, and line ends that tell whether the file went through a text-mode transfer.
pub const STREAM_FLAGS: u32 = FLAG_NEWLINES | FLAG_COMPRESSED | FLAG_MARKERS;
/// The four line-end bytes are there.
pub const FLAG_NEWLINES: u32 = 1;
/// There is a second directory.
pub const FLAG_REDUNDANT: u32 = 1 << 1;
/// An entry of 1 in a grain table means a grain of zeros.
pub const FLAG_ZERO_GRAINS: u32 = 1 << 2;
/// Grains are compressed.
pub const FLAG_COMPRESSED: u32 = 1 << 16;
/// There are markers.
pub const FLAG_MARKERS: u32 = 1 << 17;

const MAGIC: &[u8; 4] = b"KDMV";
/// Where the four line-end bytes are.
const NEWLINES: (usize, &[u8; 4]) = (73, b"\n \r\n");
/// RFC 1951 in the frame of RFC 1950.
const DEFLATE: u16 = 1;

/// A sparse extent's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Version of the format; 3 for streamOptimized disks of today.
    pub version: u32,
    /// `FLAG_*`.
    pub flags: u32,
    /// Size of the disk in sectors.
    pub capacity: u64,
    /// Sectors of a grain.
    pub grain_sectors: u64,
    /// Where the descriptor begins, in sectors; 0 for none.
    pub descriptor_offset: u64,
    /// Room for the descriptor in sectors.
    pub descriptor_sectors: u64,
    /// Entries of a grain table.
    pub table_entries: u32,
    /// Where the second directory begins, in sectors.
    pub redundant_offset: u64,
    /// Where the directory begins, in sectors, or [`AT_END`].
    pub gd_offset: u64,
    /// Where the first grain may begin, in sectors.
    pub overhead: u64,
    /// The machine that had it open has ended without closing it.
    pub unclean: bool,
    /// How grains are compressed: 0 not at all, 1 by deflate.
    pub compression: u16,
}

impl Header {
    /// A stream's header, before the directory's place is known.
    pub fn stream(capacity_sectors: u64, descriptor_sectors: u64) -> Self {
        Header {
            version: 3,
            flags: STREAM_FLAGS,
            capacity: capacity_sectors,
            grain_sectors: GRAIN_SECTORS,
            descriptor_offset: 1,
            descriptor_sectors,
            table_entries: TABLE_ENTRIES,
            redundant_offset: 0,
            gd_offset: AT_END,
            overhead: GRAIN_SECTORS,
            unclean: false,
            compression: DEFLATE,
        }
    }

    /// Its sector.
    pub fn to_bytes(&self) -> [u8; 512] {
        let mut bytes = [0; 512];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, MAGIC);
        put(4, &self.version.to_le_bytes());
        put(8, &self.flags.to_le_bytes());
        put(12, &self.capacity.to_le_bytes());
        put(20, &self.grain_sectors.to_le_bytes());
        put(28, &self.descriptor_offset.to_le_bytes());
        put(36, &self.descriptor_sectors.to_le_bytes());
        put(44, &self.table_entries.to_le_bytes());
        put(48, &self.redundant_offset.to_le_bytes());
        put(56, &self.gd_offset.to_le_bytes());
        put(64, &self.overhead.to_le_bytes());
        put(72, &[u8::from(self.unclean)]);
        put(NEWLINES.0, NEWLINES.1);
        put(77, &self.compression.to_le_bytes());
        bytes
    }

    /// Out of its sector; `None` when that is none. Values are as the file says, unchecked.
    pub fn parse(bytes: &[u8; 512]) -> Option<Self> {
        let newlines = bytes[NEWLINES.0..NEWLINES.0 + 4] == *NEWLINES.1;
        let header = Header {
            version: u32_at(bytes, 4),
            flags: u32_at(bytes, 8),
            capacity: u64_at(bytes, 12),
            grain_sectors: u64_at(bytes, 20),
            descriptor_offset: u64_at(bytes, 28),
            descriptor_sectors: u64_at(bytes, 36),
            table_entries: u32_at(bytes, 44),
            redundant_offset: u64_at(bytes, 48),
            gd_offset: u64_at(bytes, 56),
            overhead: u64_at(bytes, 64),
            unclean: bytes[72] != 0,
            compression: u16::from_le_bytes([bytes[77], bytes[78]]),
        };
        (bytes.starts_with(MAGIC) && (newlines || header.flags & FLAG_NEWLINES == 0)).then_some(header)
    }
}

/// What a marker announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// Nothing follows.
    EndOfStream,
    /// A grain table.
    Table,
    /// The directory.
    Directory,
    /// The header once more.
    Footer,
}

/// A marker's sector: how many sectors follow, and of what.
pub fn marker(announced: Announced, sectors: u64) -> [u8; 512] {
    let mut bytes = [0; 512];
    bytes[..8].copy_from_slice(&sectors.to_le_bytes());
    // Its length is 0, which tells a marker from a grain.
    bytes[12..16].copy_from_slice(&(announced as u32).to_le_bytes());
    bytes
}

/// A number of a header, marker or table.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A number of a header or marker.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = Header { gd_offset: 77, unclean: true, ..Header::stream(1 << 24, 20) };
        assert_eq!(Header::parse(&header.to_bytes()), Some(header.clone()));
        let mut mangled = header.to_bytes();
        mangled[75] = b'\n';
        assert_eq!(Header::parse(&mangled), None, "a text-mode transfer shows");
    }
}
