//! Names of the files in an initramfs, and the same initramfs without what is of its making: cpio archives (newc) one after the
//! other, the last ones perhaps compressed (kernel documentation, `driver-api/early-userspace/buffer-format`).

use std::collections::BTreeMap;
use std::io::{Read, Write as _};

use anyhow::{Result, bail, ensure};

/// Most that an initramfs may unpack to, in bytes.
const LIMIT: u64 = 1 << 30;
const HEADER: usize = 110;

/// The names of all members.
pub fn names(bytes: &[u8]) -> Result<Vec<String>> {
    names_within(bytes, true)
}

/// `may_unpack`: the kernel unpacks once, what is compressed twice is none.
fn names_within(bytes: &[u8], may_unpack: bool) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = bytes;
    loop {
        let zeros = rest.iter().take_while(|byte| **byte == 0).count();
        rest = &rest[zeros..];
        if rest.is_empty() {
            return Ok(names);
        }
        if rest.starts_with(b"070701") || rest.starts_with(b"070702") {
            let used = archive(rest, &mut names)?;
            rest = &rest[used..];
            continue;
        }
        ensure!(may_unpack, "a compressed initramfs member holds another compressed one");
        let mut unpacked = Vec::new();
        let reader: Box<dyn Read> = if rest.starts_with(&[0x1f, 0x8b]) {
            Box::new(flate2::read::MultiGzDecoder::new(rest))
        } else if rest.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Box::new(zstd::stream::read::Decoder::new(rest)?)
        } else {
            bail!("an initramfs member is neither cpio, gzip nor zstd");
        };
        reader.take(LIMIT).read_to_end(&mut unpacked)?;
        if unpacked.starts_with(b"0707") {
            names.extend(names_within(&unpacked, false)?);
            return Ok(names);
        }
        bail!("a compressed initramfs member holds no cpio archive");
    }
}

/// Reads one archive up to its trailer; returns its length.
fn archive(bytes: &[u8], names: &mut Vec<String>) -> Result<usize> {
    let mut at = 0;
    loop {
        let Some(header) = bytes.get(at..at + HEADER) else { bail!("a cpio archive ends in a header") };
        let field = |index: usize| -> Result<usize> {
            let text = std::str::from_utf8(&header[6 + index * 8..14 + index * 8])?;
            Ok(usize::from_str_radix(text, 16)?)
        };
        let (size, name_size) = (field(6)?, field(11)?);
        let name_start = at + HEADER;
        let Some(name) = bytes.get(name_start..name_start.saturating_add(name_size)) else {
            bail!("a cpio archive ends in a name")
        };
        let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
        let data = (name_start + name_size).next_multiple_of(4);
        at = data.saturating_add(size).next_multiple_of(4);
        if at > bytes.len().next_multiple_of(4) {
            bail!("a cpio archive ends in `{name}`");
        }
        if name == "TRAILER!!!" {
            return Ok(at.min(bytes.len()));
        }
        names.push(name);
    }
}

/// The same initramfs without what is of its making: no time after `epoch`, inodes counted from 1 in the order of names, members in that
/// order. Archives that are not compressed stay so, gzip is written anew; other compression is not touched: `None`.
pub fn canonical(bytes: &[u8], epoch: u64) -> Result<Option<Vec<u8>>> {
    canonical_within(bytes, epoch, true)
}

fn canonical_within(bytes: &[u8], epoch: u64, may_unpack: bool) -> Result<Option<Vec<u8>>> {
    let mut output = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        let zeros = rest.iter().take_while(|byte| **byte == 0).count();
        output.resize(output.len() + zeros, 0);
        rest = &rest[zeros..];
        if rest.is_empty() {
            return Ok(Some(output));
        }
        if rest.starts_with(b"070701") {
            let (members, used) = members(rest)?;
            write_members(members, epoch, &mut output);
            rest = &rest[used..];
        } else if may_unpack && rest.starts_with(&[0x1f, 0x8b]) {
            let mut unpacked = Vec::new();
            flate2::read::MultiGzDecoder::new(rest).take(LIMIT).read_to_end(&mut unpacked)?;
            let Some(inner) = canonical_within(&unpacked, epoch, false)? else { return Ok(None) };
            // Its header says neither time nor name.
            let mut encoder = flate2::write::GzEncoder::new(output, flate2::Compression::best());
            encoder.write_all(&inner)?;
            return Ok(Some(encoder.finish()?));
        } else {
            return Ok(None);
        }
    }
}

/// Fields of a member's header, by their place.
const INODE: usize = 0;
const MODIFIED: usize = 5;
const SIZE: usize = 6;
/// Device that the member was read from: major and minor.
const DEVICE: [usize; 2] = [7, 8];
const NAME_SIZE: usize = 11;
const TRAILER: &[u8] = b"TRAILER!!!\0";

struct Member<'a> {
    fields: [u32; 13],
    /// With its closing zero.
    name: &'a [u8],
    data: &'a [u8],
}

/// The members of one archive, and its length.
fn members(bytes: &[u8]) -> Result<(Vec<Member<'_>>, usize)> {
    let mut members = Vec::new();
    let mut at = 0;
    loop {
        let Some(header) = bytes.get(at..at + HEADER) else { bail!("a cpio archive ends in a header") };
        ensure!(header.starts_with(b"070701"), "a cpio archive goes on with another format");
        let mut fields = [0; 13];
        for (field, text) in fields.iter_mut().zip(header[6..].chunks(8)) {
            *field = u32::from_str_radix(std::str::from_utf8(text)?, 16)?;
        }
        let name_end = at + HEADER + fields[NAME_SIZE] as usize;
        let data = name_end.next_multiple_of(4);
        let end = data + fields[SIZE] as usize;
        let (Some(name), Some(data)) = (bytes.get(at + HEADER..name_end), bytes.get(data..end)) else {
            bail!("a cpio archive ends in a member")
        };
        at = end.next_multiple_of(4);
        if name == TRAILER {
            return Ok((members, at.min(bytes.len())));
        }
        members.push(Member { fields, name, data });
    }
}

fn write_members(mut members: Vec<Member<'_>>, epoch: u64, output: &mut Vec<u8>) {
    // A folder's name is the beginning of those of its members, so it stays in front of them.
    members.sort_by_key(|member| member.name);
    let mut inodes: BTreeMap<[u32; 3], u32> = BTreeMap::new();
    for member in &mut members {
        let fields = &mut member.fields;
        // Hard links are members of one inode.
        let next = u32::try_from(inodes.len() + 1).unwrap_or(u32::MAX);
        fields[INODE] = *inodes.entry([fields[INODE], fields[DEVICE[0]], fields[DEVICE[1]]]).or_insert(next);
        fields[MODIFIED] = fields[MODIFIED].min(u32::try_from(epoch).unwrap_or(u32::MAX));
        for field in DEVICE {
            fields[field] = 0;
        }
    }
    let mut trailer = [0; 13];
    // One link; the length of the name.
    (trailer[4], trailer[NAME_SIZE]) = (1, 11);
    members.push(Member { fields: trailer, name: TRAILER, data: b"" });
    // Padding counts from the archive's own beginning.
    let start = output.len();
    let pad = |output: &mut Vec<u8>| output.resize(start + (output.len() - start).next_multiple_of(4), 0);
    for member in members {
        output.extend_from_slice(b"070701");
        for field in member.fields {
            output.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        output.extend_from_slice(member.name);
        pad(output);
        output.extend_from_slice(member.data);
        pad(output);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpio(names: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for name in names.iter().chain(&["TRAILER!!!"]) {
            let mut header = String::from("070701");
            for index in 0..13 {
                header.push_str(&format!("{:08x}", if index == 11 { name.len() + 1 } else { 0 }));
            }
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(0);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn early_and_compressed_members() {
        let mut bytes = cpio(&["kernel/x86/microcode"]);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&cpio(&["init", "lib/vmw_pvscsi.ko"])).unwrap();
        bytes.extend(encoder.finish().unwrap());
        assert_eq!(names(&bytes).unwrap(), ["kernel/x86/microcode", "init", "lib/vmw_pvscsi.ko"]);
    }

    /// Name, inode, time, content.
    type Entry<'a> = (&'a str, u32, u32, &'a [u8]);

    fn archive_of(entries: &[Entry<'_>], device: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, inode, time, content) in entries.iter().chain(&[("TRAILER!!!", 0, 0, &b""[..])]) {
            let mut fields = [0_u32; 13];
            fields[INODE] = *inode;
            fields[MODIFIED] = *time;
            fields[SIZE] = u32::try_from(content.len()).unwrap();
            fields[DEVICE[1]] = if *name == "TRAILER!!!" { 0 } else { device };
            fields[NAME_SIZE] = u32::try_from(name.len()).unwrap() + 1;
            fields[4] = 1;
            bytes.extend(b"070701");
            bytes.extend(fields.iter().flat_map(|field| format!("{field:08X}").into_bytes()));
            bytes.extend(name.as_bytes());
            bytes.push(0);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.extend(*content);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn gzip(bytes: &[u8], time: u32) -> Vec<u8> {
        let mut encoder = flate2::GzBuilder::new().mtime(time).write(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_order_inodes_and_times_of_its_making_do_not_count() {
        let early = |time| {
            let mut bytes = archive_of(&[("kernel", 9, time, b"")], 1);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
            bytes
        };
        let one = archive_of(
            &[
                ("init", 70, 5, b"#!"),
                ("bin", 71, 2_000, b""),
                ("bin/a", 72, 2_000, b"x"),
                ("bin/b", 72, 2_000, b""),
            ],
            3,
        );
        let two = archive_of(
            &[
                ("bin", 4, 3_000, b""),
                ("bin/b", 5, 3_000, b""),
                ("bin/a", 5, 3_000, b"x"),
                ("init", 6, 5, b"#!"),
            ],
            8,
        );
        let first = canonical(&[early(2_000), gzip(&one, 7)].concat(), 1_000).unwrap().unwrap();
        assert_eq!(first, canonical(&[early(3_000), gzip(&two, 8)].concat(), 1_000).unwrap().unwrap());
        assert_eq!(names(&first).unwrap(), ["kernel", "bin", "bin/a", "bin/b", "init"]);
        // Nothing else has changed.
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&first[512..]).read_to_end(&mut unpacked).unwrap();
        let wanted = [
            ("bin", 1, 1_000, &b""[..]),
            ("bin/a", 2, 1_000, b"x"),
            ("bin/b", 2, 1_000, b""),
            ("init", 3, 5, b"#!"),
        ];
        assert_eq!(unpacked, archive_of(&wanted, 0));
    }

    #[test]
    fn what_is_compressed_otherwise_stays() {
        assert_eq!(canonical(&[0x28, 0xb5, 0x2f, 0xfd, 1], 1).unwrap(), None);
        assert!(canonical(b"070701 and no header", 1).is_err());
    }

    proptest::proptest! {
        #[test]
        fn hostile_bytes_end_in_an_error_or_a_list(mut bytes in proptest::collection::vec(0u8..=255, 0..300), cpio_like in proptest::bool::ANY) {
            if cpio_like {
                bytes.splice(0..0, *b"070701");
            }
            let _ = names(&bytes);
            let _ = canonical(&bytes, 1);
        }
    }
}
