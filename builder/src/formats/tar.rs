//! Finds a member of a tar without unpacking it: ustar, with the long names and sizes of GNU and POSIX.

use anyhow::Result;

use super::part::Part;
use crate::error::Fault;

/// Bytes of a block.
const BLOCK: u64 = 512;
/// The same for arrays.
const BLOCK_LENGTH: usize = 512;
/// Most members that are looked at.
const MEMBERS: usize = 1000;
/// Largest extended header in bytes.
const EXTENDED_LIMIT: u64 = 1 << 20;

/// The first file, in the archive's order, of whose name `wanted` is true.
pub fn first_member(archive: &Part, wanted: impl Fn(&str) -> bool) -> Result<Option<Part>> {
    let mut position = 0;
    let mut extended = Extended::default();
    for _ in 0..MEMBERS {
        if position == archive.length() {
            return Ok(None);
        }
        let mut block = [0; BLOCK_LENGTH];
        archive.read(position, &mut block)?;
        if block == [0; BLOCK_LENGTH] {
            return Ok(None);
        }
        let damaged =
            |what: &str| archive.damaged(format!("its member that begins at byte {position} {what}"));
        let header = Header::parse(&block).ok_or_else(|| damaged("has a wrong header"))?;
        let start = position + BLOCK;
        let is_file = matches!(header.kind, b'0' | b'\0' | b'7');
        let size = match header.kind {
            // Links, devices, folders: whatever their size field says, nothing follows.
            b'1'..=b'6' => 0,
            _ if is_file => extended.size.unwrap_or(header.size),
            _ => header.size,
        };
        let next = size.checked_next_multiple_of(BLOCK).and_then(|size| start.checked_add(size));
        let end = start.checked_add(size).filter(|end| *end <= archive.length());
        let (Some(next), Some(_)) = (next, end) else {
            return Err(damaged("goes on behind its end; it may have been cut off"));
        };
        match header.kind {
            b'x' => extended.add(&archive.read_table(start, size, EXTENDED_LIMIT, "an extended header")?),
            b'L' => {
                let name = archive.read_table(start, size, EXTENDED_LIMIT, "a long name")?;
                extended.path = Some(text(&name));
            }
            // For the whole archive: comments and times. A long link.
            b'g' | b'K' => {}
            kind => {
                let extended = std::mem::take(&mut extended);
                let name = extended.path.unwrap_or(header.name);
                if wanted(&name) {
                    if kind == b'S' || extended.sparse {
                        return Err(damaged("is sparse, which only GNU tar understands"));
                    }
                    if is_file {
                        let name = format!("{}: its member `{}`", archive.name(), name.escape_debug());
                        return archive.within(start, size, name).map(Some);
                    }
                }
            }
        }
        // The last member need not be filled up.
        position = next.min(archive.length());
    }
    let message = format!("{} has more than {MEMBERS} members", archive.name());
    Err(Fault::user(message).hint("an OVA holds a descriptor, a manifest and a few disks").into())
}

/// What extended headers say of the next member.
#[derive(Debug, Default)]
struct Extended {
    path: Option<String>,
    size: Option<u64>,
    sparse: bool,
}

impl Extended {
    /// Records of POSIX: `LENGTH KEY=VALUE` and a line end. What cannot be read ends the list.
    fn add(&mut self, mut records: &[u8]) {
        let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<u64>().ok();
        while let Some(space) = records.iter().position(|byte| *byte == b' ') {
            let length = number(&records[..space]).and_then(|length| usize::try_from(length).ok());
            let Some(record) = length.and_then(|length| records.get(space + 1..length)) else { return };
            let mut fields = record.trim_ascii_end().splitn(2, |byte| *byte == b'=');
            match (fields.next().unwrap_or_default(), fields.next().unwrap_or_default()) {
                (b"path", value) => self.path = Some(text(value)),
                (b"size", value) => self.size = number(value),
                (key, _) => self.sparse |= key.starts_with(b"GNU.sparse."),
            }
            records = &records[space + 1 + record.len()..];
        }
    }
}

/// A member's own header.
#[derive(Debug)]
struct Header {
    name: String,
    size: u64,
    kind: u8,
}

impl Header {
    /// `None` when it is none.
    fn parse(block: &[u8; BLOCK_LENGTH]) -> Option<Self> {
        let sum = block.iter().enumerate().map(|(at, byte)| {
            // Its own field counts as spaces.
            u64::from(if (148..156).contains(&at) { b' ' } else { *byte })
        });
        if octal(&block[148..156])? != sum.sum::<u64>() {
            return None;
        }
        let size = if block[124] & 0x80 == 0 {
            octal(&block[124..136])?
        } else {
            // GNU: a binary number behind a bit that is set; more than 63 bits are no size.
            if block[124] != 0x80 || block[125..128] != [0; 3] {
                return None;
            }
            block[128..136].iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
        };
        let (name, prefix) = (text(&block[..100]), text(&block[345..500]));
        let is_posix = &block[257..263] == b"ustar\0";
        let name = if is_posix && !prefix.is_empty() { format!("{prefix}/{name}") } else { name };
        Some(Header { name, size, kind: block[156] })
    }
}

/// Digits, ended by a space, a zero or the end of the field.
fn octal(field: &[u8]) -> Option<u64> {
    let field = field.trim_ascii_start();
    let end = field.iter().position(|byte| matches!(byte, b' ' | 0)).unwrap_or(field.len());
    field[..end].iter().try_fold(0_u64, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        value.checked_mul(8)?.checked_add(u64::from(digit))
    })
}

/// Up to the first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
