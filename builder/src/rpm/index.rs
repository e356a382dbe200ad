//! The header structure of an RPM package: an index of typed values and the store that they lie in.
//!
//! Format: rpm's own manual, "RPM V4 package format", and `lib/header.c` of rpm 4.11. Nothing here is trusted: every length has a
//! limit before memory is taken, every offset is checked before it is followed. Errors say what is wrong; the caller adds the file.

use std::collections::HashMap;
use std::io::Read;

use anyhow::{Context as _, Result, bail, ensure};

/// Magic, version 1 and four reserved bytes. They are part of what is signed.
const MAGIC: [u8; 8] = [0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0];
/// Magic, count of entries, size of the store.
const INTRO: usize = 16;
/// Tag, type, offset, count: four big-endian numbers of 32 bits.
const ENTRY: usize = 16;
/// The kernel's packages, the greatest of all, have some 20 000 files and 4 MiB.
const MOST_ENTRIES: usize = 64 << 10;
const MOST_STORE: usize = 32 << 20;

/// Types of values, as in `rpmTagType`.
const INT8: [u32; 2] = [1, 2];
const INT16: u32 = 3;
const INT32: u32 = 4;
const INT64: u32 = 5;
const STRING: u32 = 6;
const BINARY: u32 = 7;
const STRINGS: u32 = 8;
const TRANSLATED: u32 = 9;

/// Type, offset into the store, count.
#[derive(Debug, Clone, Copy)]
struct Entry {
    kind: u32,
    offset: usize,
    count: usize,
}

/// One header: the bytes as they are in the file, and where each tag's value lies in them.
#[derive(Debug)]
pub(super) struct Header {
    raw: Vec<u8>,
    store: usize,
    entries: HashMap<u32, Entry>,
}

impl Header {
    /// Reads a header from its first byte to its last.
    pub(super) fn read(source: &mut impl Read) -> Result<Self> {
        let mut raw = take(source, INTRO)?;
        ensure!(raw.starts_with(&MAGIC), "it has something else where a header begins");
        let entries = be32(&raw, 8) as usize;
        let size = be32(&raw, 12) as usize;
        ensure!(
            (1..=MOST_ENTRIES).contains(&entries),
            "a header of {entries} entries: 1 to {MOST_ENTRIES} are allowed"
        );
        ensure!(size <= MOST_STORE, "a header with {size} bytes of values: at most {MOST_STORE} are allowed");
        let store = INTRO + entries * ENTRY;
        raw.extend(take(source, entries * ENTRY + size)?);

        let mut header = Header { raw, store, entries: HashMap::with_capacity(entries) };
        for number in 0..entries {
            let at = INTRO + number * ENTRY;
            let [tag, kind, offset, count] = [0, 4, 8, 12].map(|field| be32(&header.raw, at + field));
            let entry = Entry { kind, offset: offset as usize, count: count as usize };
            header.check(entry).with_context(|| format!("tag {tag}"))?;
            if header.entries.insert(tag, entry).is_some() {
                bail!("tag {tag} is there twice");
            }
        }
        Ok(header)
    }

    /// A value lies in the store, whole; of strings, whose ends must be looked for, the first byte does.
    fn check(&self, entry: Entry) -> Result<()> {
        let Entry { kind, offset, count } = entry;
        let width = match kind {
            BINARY => 1,
            kind if INT8.contains(&kind) => 1,
            INT16 => 2,
            INT32 => 4,
            INT64 => 8,
            STRING | STRINGS | TRANSLATED => 1,
            _ => bail!("has the unknown type {kind}"),
        };
        ensure!(count > 0, "has no value");
        ensure!(offset % width == 0, "lies at the odd offset {offset}");
        let end = count.checked_mul(width).and_then(|length| length.checked_add(offset));
        ensure!(end.is_some_and(|end| end <= self.size()), "leads out of the header");
        Ok(())
    }

    /// The first entry must be the region `tag`, and the region must hold every entry and all of the store: rpm signs the region,
    /// so that what lies outside of it would be believed without a signature.
    pub(super) fn check_region(&self, tag: u32) -> Result<()> {
        ensure!(be32(&self.raw, INTRO) == tag, "the header does not begin with its signed region");
        let trailer = self.binary(tag)?.unwrap_or_default();
        let Some(Entry { offset, .. }) = self.entries.get(&tag) else {
            bail!("the signed region is missing")
        };
        ensure!(trailer.len() == ENTRY && offset + ENTRY == self.size(), "the signed region ends early");
        let [end_tag, kind, back, count] = [0, 4, 8, 12].map(|field| be32(trailer, field));
        let all = (self.entries.len() * ENTRY) as u64;
        ensure!(
            end_tag == tag
                && kind == BINARY
                && count as usize == ENTRY
                && u64::from(back.wrapping_neg()) == all,
            "the signed region does not cover the whole header"
        );
        Ok(())
    }

    /// The header's bytes: what header digests and signatures are over.
    pub(super) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Whether the tag is there.
    pub(super) fn has(&self, tag: u32) -> bool {
        self.entries.contains_key(&tag)
    }

    /// A string; of an array or of translations the first.
    pub(super) fn string(&self, tag: u32) -> Result<Option<&str>> {
        let Some(entry) = self.find(tag, &[STRING, STRINGS, TRANSLATED])? else { return Ok(None) };
        Ok(self.texts(tag, Entry { count: 1, ..entry })?.pop())
    }

    /// An array of strings; empty when the tag is not there.
    pub(super) fn strings(&self, tag: u32) -> Result<Vec<&str>> {
        match self.find(tag, &[STRING, STRINGS])? {
            Some(entry) => self.texts(tag, entry),
            None => Ok(Vec::new()),
        }
    }

    /// An array of 16-bit numbers; empty when the tag is not there.
    pub(super) fn u16s(&self, tag: u32) -> Result<Vec<u16>> {
        self.numbers(tag, INT16, |bytes: [u8; 2]| u16::from_be_bytes(bytes))
    }

    /// An array of 32-bit numbers; empty when the tag is not there.
    pub(super) fn u32s(&self, tag: u32) -> Result<Vec<u32>> {
        self.numbers(tag, INT32, |bytes: [u8; 4]| u32::from_be_bytes(bytes))
    }

    /// An array of 64-bit numbers; empty when the tag is not there.
    pub(super) fn u64s(&self, tag: u32) -> Result<Vec<u64>> {
        self.numbers(tag, INT64, |bytes: [u8; 8]| u64::from_be_bytes(bytes))
    }

    /// Bytes.
    pub(super) fn binary(&self, tag: u32) -> Result<Option<&[u8]>> {
        let entry = self.find(tag, &[BINARY])?;
        Ok(entry.map(|entry| &self.values()[entry.offset..entry.offset + entry.count]))
    }

    fn numbers<T, const WIDTH: usize>(
        &self,
        tag: u32,
        kind: u32,
        read: fn([u8; WIDTH]) -> T,
    ) -> Result<Vec<T>> {
        let Some(entry) = self.find(tag, &[kind])? else { return Ok(Vec::new()) };
        let bytes = &self.values()[entry.offset..entry.offset + entry.count * WIDTH];
        Ok(bytes.chunks_exact(WIDTH).filter_map(|chunk| chunk.try_into().ok()).map(read).collect())
    }

    fn texts(&self, tag: u32, entry: Entry) -> Result<Vec<&str>> {
        let mut rest = &self.values()[entry.offset..];
        let mut texts = Vec::new();
        for _ in 0..entry.count {
            let Some(end) = rest.iter().position(|byte| *byte == 0) else {
                bail!("tag {tag} leads out of the header");
            };
            let text = std::str::from_utf8(&rest[..end]);
            texts.push(text.with_context(|| format!("tag {tag} is not UTF-8"))?);
            rest = &rest[end + 1..];
        }
        Ok(texts)
    }

    fn find(&self, tag: u32, kinds: &[u32]) -> Result<Option<Entry>> {
        let Some(entry) = self.entries.get(&tag) else { return Ok(None) };
        ensure!(kinds.contains(&entry.kind), "tag {tag} has the type {}", entry.kind);
        Ok(Some(*entry))
    }

    fn values(&self) -> &[u8] {
        &self.raw[self.store..]
    }

    fn size(&self) -> usize {
        self.raw.len() - self.store
    }
}

/// Exactly so many bytes; memory grows with what comes, not with what was announced.
pub(super) fn take(source: &mut impl Read, length: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(length as u64).read_to_end(&mut bytes)?;
    ensure!(bytes.len() == length, "it is cut off");
    Ok(bytes)
}

/// The caller has checked that four bytes are there.
fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
