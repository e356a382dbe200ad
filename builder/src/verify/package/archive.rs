//! The archive of an OVA, header by header: only so are the extensions seen that a tar library hides.
//!
//! Members stay where they are; what is found is their names and places. A header that cannot be followed ends the walk.

use anyhow::Result;

use super::section::Section;
use super::{Report, rules, shown};

const BLOCK: u64 = 512;
/// Members of an archive; a real one has fewer than twenty.
const MEMBERS: usize = 4096;
/// Longest block of PAX records, in bytes.
const RECORDS: u64 = 1 << 16;

/// A file in the archive.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl Member {
    /// Whether its name ends so.
    pub(super) fn is(&self, extension: &str) -> bool {
        self.name.strip_suffix(extension).is_some_and(|stem| stem.ends_with('.'))
    }
}

/// Goes through the archive and returns its files in order, as far as they can be found.
pub(super) fn read(file: &Section<'_>, report: &mut Report) -> Result<Vec<Member>> {
    for rule in
        [rules::TAR_WHOLE, rules::TAR_FORMAT, rules::TAR_SIZE, rules::MEMBER_KIND, rules::MEMBER_NAMES]
    {
        report.check(&rule);
    }
    let mut members: Vec<Member> = Vec::new();
    let mut at = 0;
    // What a PAX header says of the next member.
    let mut announced = None;
    loop {
        let Some(block) = file.sector(at)? else {
            report.breaks(
                &rules::TAR_WHOLE,
                format!("it ends at byte {} without the two empty blocks", file.length()),
            );
            break;
        };
        if block == [0; 512] {
            end(file, at, report)?;
            break;
        }
        let Some(header) = Header::parse(&block) else {
            report.breaks(
                &rules::TAR_WHOLE,
                format!("the header at byte {at} is damaged: its checksum or size is no number that fits"),
            );
            break;
        };
        let name = shown(&header.name);
        header.format(&block, &name, report);
        let size = announced.take().unwrap_or(header.size);
        let offset = at + BLOCK;
        let Some(content) = file.part(offset, size) else {
            report.breaks(
                &rules::TAR_WHOLE,
                format!(
                    "`{name}` has {size} bytes, of which {} are there",
                    file.length().saturating_sub(offset)
                ),
            );
            break;
        };
        match header.kind {
            b'0' | 0 => {
                names(&header.name, &members, report);
                members.push(Member { name: header.name, offset, size });
            }
            b'x' => announced = pax_size(&content)?,
            b'g' | b'L' | b'K' => {}
            b'S' => {
                // Its length is not that of its content: nothing behind it can be found without knowing GNU's map.
                break;
            }
            kind => report.breaks(&rules::MEMBER_KIND, format!("`{name}` is {}", kind_of(kind))),
        }
        if members.len() > MEMBERS {
            report.breaks(
                &rules::TAR_WHOLE,
                format!("it has more than {MEMBERS} members; the rest was not looked at"),
            );
            break;
        }
        at = offset + size.next_multiple_of(BLOCK);
    }
    Ok(members)
}

/// After the first empty block: a second, then nothing but padding.
fn end(file: &Section<'_>, at: u64, report: &mut Report) -> Result<()> {
    if file.sector(at + BLOCK)?.is_none() {
        report.breaks(&rules::TAR_WHOLE, "it ends with one empty block instead of two");
    } else if let Some(rest) = file.part(at, file.length() - at)
        && !rest.is_zero()?
    {
        report.breaks(&rules::TAR_WHOLE, format!("something follows the end of the archive at byte {at}"));
    }
    Ok(())
}

fn names(name: &str, members: &[Member], report: &mut Report) {
    let plain = !name.is_empty() && !name.contains(['/', '\\']) && !name.starts_with('.');
    if !plain || name.chars().any(char::is_control) {
        report.breaks(&rules::MEMBER_NAMES, format!("`{}` is no plain name", shown(name)));
    } else if members.iter().any(|member| member.name == name) {
        report.breaks(&rules::MEMBER_NAMES, format!("`{}` is in it twice", shown(name)));
    }
}

fn kind_of(kind: u8) -> String {
    match kind {
        b'1' => "a hard link".to_owned(),
        b'2' => "a symbolic link".to_owned(),
        b'3' | b'4' => "a device".to_owned(),
        b'5' => "a folder".to_owned(),
        b'6' => "a pipe".to_owned(),
        other => format!("of the kind `{}`", char::from(other).escape_default()),
    }
}

/// The `size` of the next member, for those that ustar cannot say.
fn pax_size(records: &Section<'_>) -> Result<Option<u64>> {
    // OK: the limit is far below 2^32.
    let length = usize::try_from(records.length().min(RECORDS)).unwrap_or_default();
    let text = String::from_utf8_lossy(&records.bytes(0, length)?.unwrap_or_default()).into_owned();
    let size = text.lines().find_map(|line| line.split_once(' ')?.1.strip_prefix("size="));
    Ok(size.and_then(|size| size.parse().ok()))
}

struct Header {
    name: String,
    size: u64,
    kind: u8,
    large: bool,
}

impl Header {
    /// `None` when the checksum or the size is wrong.
    fn parse(block: &[u8; 512]) -> Option<Header> {
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte }))
            .sum();
        if octal(&block[148..156])? != sum {
            return None;
        }
        let large = block[124] & 0x80 != 0;
        let size = if large {
            // GNU's way: a number in base 256. What does not fit 63 bits is no size of a file.
            if block[124] != 0x80 || block[125..128] != [0; 3] {
                return None;
            }
            u64::from_be_bytes(block[128..136].try_into().ok()?)
        } else {
            octal(&block[124..136])?
        };
        let text = |range: std::ops::Range<usize>| {
            let bytes = &block[range];
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        };
        let (mut name, prefix) = (text(0..100), text(345..500));
        // In GNU's format other things are there.
        if &block[257..263] == b"ustar\0" && !prefix.is_empty() {
            name = format!("{prefix}/{name}");
        }
        (size < 1 << 62).then_some(Header { name, size, kind: block[156], large })
    }

    fn format(&self, block: &[u8; 512], name: &str, report: &mut Report) {
        let extension = match (&block[257..265], self.kind) {
            (_, b'x' | b'g') => "a PAX header (`tar --format=ustar` writes none)",
            (_, b'L' | b'K') => "a GNU header for a long name",
            (_, b'S') => "a sparse member (`tar` without `--sparse` writes none)",
            (b"ustar\x0000", _) => {
                if self.large || self.size >= 1 << 33 {
                    report.breaks(&rules::TAR_SIZE, format!("`{name}` has {} bytes", self.size));
                }
                return;
            }
            (b"ustar  \0", _) => "a header of GNU's format (`tar --format=ustar` writes none)",
            _ => "a header of the format before ustar",
        };
        report.breaks(&rules::TAR_FORMAT, format!("`{name}` has {extension}"));
    }
}

/// Digits of base eight, ended by a space, a zero or the field.
fn octal(field: &[u8]) -> Option<u64> {
    let digits: &[u8] = field.trim_ascii_start();
    let end = digits.iter().position(|byte| !(b'0'..=b'7').contains(byte)).unwrap_or(digits.len());
    let ended = digits[end..].iter().all(|byte| matches!(byte, 0 | b' '));
    if end == 0 || !ended {
        return None;
    }
    digits[..end]
        .iter()
        .try_fold(0_u64, |value, digit| value.checked_mul(8)?.checked_add(u64::from(digit - b'0')))
}
