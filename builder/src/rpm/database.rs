//! The database of rpm 4.11 as files (Berkeley DB 4.7 to 5.3: hash and B-tree pages), for what its rpm cannot do: say when packages
//! were installed, and hold nothing by chance.
//!
//! Nothing is moved or resized. [`set_times`] writes two numbers in each header, which lie outside the part that is signed; the
//! indexes are then made anew by rpm itself. [`canonical`] clears the bytes that no item uses and gives the file a fixed identity.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;
use sha2::{Digest as _, Sha256};

/// Largest file that is taken for one of a database, in bytes.
const LIMIT: u64 = 1 << 30;
/// First bytes of a file at offset 12.
const HASH: u32 = 0x0006_1561;
const BTREE: u32 = 0x0005_3162;
/// In the first page: the size of pages, and the identity of the file, 20 bytes of time, inode and chance.
const PAGE_SIZE: usize = 20;
const IDENTITY: std::ops::Range<usize> = 52..72;
/// In every page: the number of items, where the lowest lies (of an overflow page: its bytes), the type; then the items' offsets.
const NEXT: usize = 16;
const ENTRIES: usize = 20;
const LOWEST: usize = 22;
const TYPE: usize = 25;
const HEADER: usize = 26;
/// Types of pages.
const UNSORTED_HASH: u8 = 2;
const BTREE_INNER: u8 = 3;
const BTREE_LEAF: u8 = 5;
const OVERFLOW: u8 = 7;
const DUPLICATES: u8 = 12;
const SORTED_HASH: u8 = 13;
/// Types of items.
const INLINE: u8 = 1;
const ELSEWHERE: u8 = 3;
/// `RPMTAG_INSTALLTIME` and `RPMTAG_INSTALLTID`: 32-bit numbers.
const TIMES: [u32; 2] = [1008, 1128];
const INT32: u32 = 4;

/// Says in every header that its package was installed at that time, by that transaction. Returns the number of headers. The indexes
/// are wrong afterwards: `rpm --rebuilddb`.
pub fn set_times(packages: &Path, time: u32) -> Result<usize> {
    let mut file = File::open(packages)?;
    ensure!(file.magic == HASH, "`{}` is no hash of Berkeley DB", packages.display());
    let mut count = 0;
    for page in 1..file.pages() {
        if ![UNSORTED_HASH, SORTED_HASH].contains(&file.page(page)?[TYPE]) {
            continue;
        }
        let items = file.items(page)?;
        // Keys and values alternate; items lie from the page's end downwards, so each ends where the one before begins.
        for (index, start) in items.iter().enumerate().filter(|(index, _)| index % 2 == 1) {
            let end = items[index - 1];
            let places = file.value(page, *start, end)?;
            let header: Vec<u8> = places.iter().map(|place| file.bytes[*place]).collect();
            // The one record without a header counts the others.
            if header.len() < 16 {
                continue;
            }
            for offset in numbers(&header).with_context(|| format!("reading `{}`", packages.display()))? {
                for (place, byte) in places[offset..offset + 4].iter().zip(time.to_be_bytes()) {
                    file.bytes[*place] = byte;
                }
            }
            count += 1;
        }
    }
    file.write(packages)?;
    Ok(count)
}

/// Where the two numbers lie in a header (rpm's file format without its magic: counts, index, data).
fn numbers(header: &[u8]) -> Result<Vec<usize>> {
    let number = |at: usize| -> Result<usize> {
        let bytes = header.get(at..at + 4).context("a header of its packages is cut off")?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
    };
    let (entries, length) = (number(0)?, number(4)?);
    let data =
        entries.checked_mul(16).and_then(|bytes| bytes.checked_add(8)).context("a header is too long")?;
    ensure!(data.checked_add(length) == Some(header.len()), "a header has another length than it says");
    let mut found = Vec::new();
    for entry in 0..entries {
        let at = 8 + entry * 16;
        let tag = u32::try_from(number(at)?)?;
        if TIMES.contains(&tag) {
            let (kind, offset, count) = (number(at + 4)?, number(at + 8)?, number(at + 12)?);
            ensure!(
                kind == INT32 as usize && count == 1 && offset + 4 <= length,
                "a header's time is no number"
            );
            found.push(data + offset);
        }
    }
    Ok(found)
}

/// Clears every byte that no item uses, which are whatever was in memory, and derives the file's identity from its name.
pub fn canonical(path: &Path) -> Result<()> {
    let mut file = File::open(path)?;
    let name = path.file_name().unwrap_or_default();
    let identity = Sha256::digest(name.as_encoded_bytes());
    file.bytes[IDENTITY].copy_from_slice(&identity[..IDENTITY.len()]);
    for page in 1..file.pages() {
        let used = file.used(page)?;
        let start = page * file.page_size;
        for (byte, used) in file.bytes[start..start + file.page_size].iter_mut().zip(used) {
            if !used {
                *byte = 0;
            }
        }
    }
    file.write(path)
}

/// A whole file of the database.
struct File {
    bytes: Vec<u8>,
    page_size: usize,
    magic: u32,
}

impl File {
    fn open(path: &Path) -> Result<Self> {
        let length = fs::symlink_metadata(path)?;
        ensure!(length.is_file() && length.len() <= LIMIT, "`{}` is no file of a database", path.display());
        let bytes = fs::read(path)?;
        ensure!(bytes.len() >= 512, "`{}` is no file of Berkeley DB", path.display());
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (magic, page_size) = (word(12), word(PAGE_SIZE) as usize);
        let is_known = [HASH, BTREE].contains(&magic) && page_size.is_power_of_two() && page_size >= 512;
        if !is_known || page_size > 65536 || bytes.len() % page_size != 0 {
            bail!("`{}` is no hash and no B-tree of Berkeley DB", path.display());
        }
        Ok(File { bytes, page_size, magic })
    }

    fn write(&self, path: &Path) -> Result<()> {
        use std::os::unix::fs::FileExt as _;
        let file = fs::OpenOptions::new().write(true).open(path)?;
        Ok(file.file().write_all_at(&self.bytes, 0)?)
    }

    fn pages(&self) -> usize {
        self.bytes.len() / self.page_size
    }

    fn page(&self, page: usize) -> Result<&[u8]> {
        let start = page.checked_mul(self.page_size).context("a page lies beyond the file")?;
        self.bytes.get(start..start + self.page_size).context("a page lies beyond the file")
    }

    fn half(&self, page: usize, at: usize) -> Result<usize> {
        let page = self.page(page)?;
        let bytes = page.get(at..at + 2).context("an item lies beyond its page")?;
        Ok(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
    }

    fn word(&self, page: usize, at: usize) -> Result<usize> {
        Ok(self.half(page, at)? | self.half(page, at + 2)? << 16)
    }

    /// Offsets of a page's items, in the page's order; behind the page's end comes first.
    fn items(&self, page: usize) -> Result<Vec<usize>> {
        let entries = self.half(page, ENTRIES)?;
        let items =
            (0..entries).map(|entry| self.half(page, HEADER + 2 * entry)).collect::<Result<Vec<_>>>()?;
        ensure!(items.iter().all(|item| *item < self.page_size), "an item lies beyond its page");
        Ok(items)
    }

    /// Where the bytes of a hash's value lie in the file.
    fn value(&self, page: usize, start: usize, end: usize) -> Result<Vec<usize>> {
        let base = page * self.page_size;
        match self.page(page)?[start] {
            INLINE => {
                ensure!(start < end && end <= self.page_size, "the items of a page overlap");
                Ok((base + start + 1..base + end).collect())
            }
            ELSEWHERE => {
                let (mut next, length) = (self.word(page, start + 4)?, self.word(page, start + 8)?);
                let mut places = Vec::new();
                // Every page adds at least a byte, so a chain that leads back into itself ends too.
                while places.len() < length {
                    ensure!(self.page(next)?[TYPE] == OVERFLOW, "a value's page is of another type");
                    let used = self.half(next, LOWEST)?;
                    ensure!(used > 0 && HEADER + used <= self.page_size, "a value's page has no bytes of it");
                    let start = next * self.page_size + HEADER;
                    places.extend(start..start + used);
                    next = self.word(next, NEXT)?;
                }
                ensure!(places.len() == length, "a value is longer than it says");
                Ok(places)
            }
            other => bail!("a hash has an item of type {other}"),
        }
    }

    /// Which bytes of a page mean something.
    fn used(&self, page: usize) -> Result<Vec<bool>> {
        let kind = self.page(page)?[TYPE];
        let mut used = vec![true; self.page_size];
        match kind {
            OVERFLOW => {
                let end = HEADER + self.half(page, LOWEST)?;
                ensure!(end <= self.page_size, "a value's page is longer than a page");
                used[end..].fill(false);
            }
            BTREE_LEAF | BTREE_INNER | DUPLICATES => {
                let items = self.items(page)?;
                used[HEADER + 2 * items.len()..].fill(false);
                for start in items {
                    let length = self.half(page, start)?;
                    // Deleted items keep their type under a flag.
                    let end = match (kind, self.page(page)?.get(start + 2).map(|kind| kind & 0x7f)) {
                        (BTREE_INNER, Some(_)) => start + 12 + length,
                        (_, Some(INLINE)) => start + 3 + length,
                        _ => start + 12,
                    };
                    ensure!(end <= self.page_size, "an item is longer than its page");
                    used[start..end].fill(true);
                    if kind == BTREE_INNER {
                        used[start + 3] = false;
                    } else if self.page(page)?[start + 2] & 0x7f != INLINE {
                        // Padding around the type; the rest is a page's number and a length.
                        used[start..start + 2].fill(false);
                        used[start + 3] = false;
                    }
                }
            }
            UNSORTED_HASH | SORTED_HASH => {
                let (entries, lowest) = (self.half(page, ENTRIES)?, self.half(page, LOWEST)?);
                let from = HEADER + 2 * entries;
                if entries == 0 {
                    used[from..].fill(false);
                } else {
                    ensure!(from <= lowest && lowest <= self.page_size, "a page's items run into its header");
                    used[from..lowest].fill(false);
                    for start in self.items(page)? {
                        if self.page(page)?[start] == ELSEWHERE {
                            ensure!(start + 12 <= self.page_size, "an item is longer than its page");
                            used[start + 1..start + 4].fill(false);
                        }
                    }
                }
            }
            // Free pages hold nothing but their header.
            0 => used[HEADER..].fill(false),
            _ => {}
        }
        Ok(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 512;

    fn meta(magic: u32) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        page[12..16].copy_from_slice(&magic.to_le_bytes());
        page[PAGE_SIZE..PAGE_SIZE + 4].copy_from_slice(&512_u32.to_le_bytes());
        page[IDENTITY].fill(7);
        page
    }

    /// A header with these tags, each one number, and a string.
    fn header(tags: &[(u32, u32)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((u32::try_from(tags.len()).unwrap() + 1).to_be_bytes());
        bytes.extend((u32::try_from(tags.len()).unwrap() * 4 + 600).to_be_bytes());
        for (index, (tag, _)) in tags.iter().enumerate() {
            for word in [*tag, INT32, u32::try_from(index).unwrap() * 4, 1] {
                bytes.extend(word.to_be_bytes());
            }
        }
        for word in [1000, 6, u32::try_from(tags.len()).unwrap() * 4, 1] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(tags.iter().flat_map(|(_, value)| value.to_be_bytes()));
        bytes.resize(bytes.len() + 600, b'x');
        bytes
    }

    /// A hash with one key whose value is in overflow pages; what no item uses is `noise`.
    fn packages(value: &[u8], noise: u8) -> Vec<u8> {
        let mut bytes = meta(HASH);
        let mut page = vec![noise; PAGE];
        page[..HEADER].fill(0);
        page[ENTRIES] = 2;
        page[LOWEST..LOWEST + 2].copy_from_slice(&495_u16.to_le_bytes());
        page[TYPE] = SORTED_HASH;
        page[HEADER..HEADER + 4].copy_from_slice(&[0xfb, 1, 0xef, 1]);
        page[507..].copy_from_slice(&[INLINE, 1, 0, 0, 0]);
        page[495] = ELSEWHERE;
        page[499..503].copy_from_slice(&2_u32.to_le_bytes());
        page[503..507].copy_from_slice(&u32::try_from(value.len()).unwrap().to_le_bytes());
        bytes.extend(page);
        let chunks: Vec<&[u8]> = value.chunks(PAGE - HEADER).collect();
        for (index, chunk) in chunks.iter().enumerate() {
            let mut page = vec![noise; PAGE];
            page[..HEADER].fill(0);
            let next = if index + 1 < chunks.len() { u32::try_from(index).unwrap() + 3 } else { 0 };
            page[NEXT..NEXT + 4].copy_from_slice(&next.to_le_bytes());
            page[LOWEST..LOWEST + 2].copy_from_slice(&u16::try_from(chunk.len()).unwrap().to_le_bytes());
            page[TYPE] = OVERFLOW;
            page[HEADER..HEADER + chunk.len()].copy_from_slice(chunk);
            bytes.extend(page);
        }
        bytes
    }

    fn file(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Packages");
        fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    #[test]
    fn builds_at_different_times_come_out_the_same() {
        let results = [(1_700_000_000, 0xaa), (1_800_000_000, 0x55)].map(|(time, noise)| {
            let (_folder, path) =
                file(&packages(&header(&[(1007, 5), (1008, time), (1128, time + 1)]), noise));
            assert_eq!(set_times(&path, 42).unwrap(), 1);
            canonical(&path).unwrap();
            fs::read(&path).unwrap()
        });
        assert_eq!(results[0], results[1]);
        let mut wanted = packages(&header(&[(1007, 5), (1008, 42), (1128, 42)]), 0);
        wanted[IDENTITY].copy_from_slice(&results[0][IDENTITY]);
        assert_eq!(results[0], wanted, "a byte that means something has changed");
    }

    #[test]
    fn a_tree_keeps_its_items_and_loses_the_padding() {
        let tree = |noise: u8| {
            let mut page = vec![noise; PAGE];
            page[..HEADER].fill(0);
            page[ENTRIES] = 1;
            page[TYPE] = BTREE_LEAF;
            page[HEADER..HEADER + 2].copy_from_slice(&504_u16.to_le_bytes());
            page[504..508].copy_from_slice(&[4, 0, INLINE, b'b']);
            page[508..511].copy_from_slice(b"ash");
            [meta(BTREE), page].concat()
        };
        let (_folder, path) = file(&tree(0xaa));
        canonical(&path).unwrap();
        let mut wanted = tree(0);
        wanted[IDENTITY].copy_from_slice(&fs::read(&path).unwrap()[IDENTITY]);
        assert_eq!(fs::read(&path).unwrap(), wanted);
    }

    proptest::proptest! {
        #[test]
        fn damaged_files_end_in_an_error_or_a_result(flips in proptest::collection::vec((0_usize..2048, 0_u8..=255), 0..12)) {
            let mut bytes = packages(&header(&[(1008, 1)]), 3);
            let length = bytes.len();
            for (at, value) in flips {
                bytes[at % length] = value;
            }
            let (_folder, path) = file(&bytes);
            let _ = set_times(&path, 42);
            let _ = canonical(&path);
        }
    }
}
