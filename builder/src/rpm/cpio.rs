//! cpio archives of the kind `newc`, read as a stream (cpio(5); rpm names the members `./usr/bin/x` or `/usr/bin/x`).
//!
//! Lengths come from outside: a name has a limit, and a member's size is the caller's to judge before a byte of it is read.

use std::io::{self, Read};

use anyhow::{Result, bail, ensure};

use super::index::take;

const HEADER: usize = 110;
const LONGEST_NAME: usize = 4096 + 2;
const TRAILER: &str = "TRAILER!!!";
/// Archives are filled up to a block; rpm's to four bytes.
const MOST_FILLING: u64 = 64 << 10;

/// One member: what its header says.
#[derive(Debug)]
pub(super) struct Member {
    /// Absolute, whichever way it was written.
    pub(super) path: String,
    /// Number and device: equal for hard links.
    pub(super) inode: [u32; 3],
    /// `st_mode`.
    pub(super) mode: u32,
    /// How many names the inode has.
    pub(super) links: u32,
    /// Bytes of content.
    pub(super) size: u64,
}

/// The archive, and how much of the present member is unread.
pub(super) struct Archive<R> {
    source: R,
    unread: u64,
    padding: u64,
}

impl<R: Read> Archive<R> {
    /// From the first byte of the first member.
    pub(super) fn new(source: R) -> Self {
        Archive { source, unread: 0, padding: 0 }
    }

    /// The next member; what is left of the one before is skipped. At the end, the rest must be zeros.
    pub(super) fn next(&mut self) -> Result<Option<Member>> {
        let skipped = io::copy(&mut (&mut self.source).take(self.unread + self.padding), &mut io::sink())?;
        ensure!(skipped == self.unread + self.padding, "it is cut off");
        let header = take(&mut self.source, HEADER)?;
        match &header[..6] {
            b"070701" | b"070702" => {}
            b"07070X" => bail!("it has files of more than 4 GiB, in rpm's own format"),
            _ => bail!("it is not a cpio archive of the kind newc"),
        }
        let mut fields = [0; 13];
        for (field, digits) in fields.iter_mut().zip(header[6..].chunks_exact(8)) {
            *field = number(digits)?;
        }
        let [inode, mode, _, _, links, _, size, major, minor, _, _, name_size, _] = fields;
        let length = name_size as usize;
        ensure!((2..=LONGEST_NAME).contains(&length), "a member has a name of {length} bytes");
        let mut name = take(&mut self.source, length)?;
        take(&mut self.source, (HEADER + length).next_multiple_of(4) - HEADER - length)?;
        ensure!(name.pop() == Some(0), "a name does not end");
        let Ok(name) = String::from_utf8(name) else { bail!("a name is not UTF-8") };
        self.unread = u64::from(size);
        self.padding = self.unread.next_multiple_of(4) - self.unread;
        if name == TRAILER {
            self.finish()?;
            return Ok(None);
        }
        let relative = if name == "." { "" } else { name.strip_prefix("./").unwrap_or(&name) };
        let path = format!("/{}", relative.trim_start_matches('/'));
        Ok(Some(Member { path, inode: [inode, major, minor], mode, links, size: self.unread }))
    }

    /// Reading to the end makes the decompressor check what it has to check.
    fn finish(&mut self) -> Result<()> {
        let mut filling = Vec::new();
        (&mut self.source).take(MOST_FILLING + 1).read_to_end(&mut filling)?;
        let is_filling = filling.len() as u64 <= MOST_FILLING && filling.iter().all(|byte| *byte == 0);
        ensure!(is_filling, "there is something behind its end");
        Ok(())
    }
}

/// The content of the present member.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.unread).unwrap_or(usize::MAX).min(buffer.len());
        // A decompressor that is asked for nothing twice calls that an error.
        if most == 0 {
            return Ok(0);
        }
        let count = self.source.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off"));
        }
        self.unread -= count as u64;
        Ok(count)
    }
}

/// Eight hexadecimal digits; `from_str_radix` alone would take a sign.
fn number(digits: &[u8]) -> Result<u32> {
    let text = std::str::from_utf8(digits).unwrap_or_default();
    ensure!(text.bytes().all(|c| c.is_ascii_hexdigit()), "a member's header is not hexadecimal");
    match u32::from_str_radix(text, 16) {
        Ok(number) => Ok(number),
        Err(_) => bail!("a member's header is not hexadecimal"),
    }
}
