//! Names of the files in an initramfs: cpio archives (newc) one after the other, the last ones perhaps compressed
//! (kernel documentation, `driver-api/early-userspace/buffer-format`).

use std::io::Read;

use anyhow::{Result, bail};

/// Most that an initramfs may unpack to, in bytes.
const LIMIT: u64 = 1 << 30;
const HEADER: usize = 110;

/// The names of all members.
pub fn names(bytes: &[u8]) -> Result<Vec<String>> {
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
            names.extend(self::names(&unpacked)?);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

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

    proptest::proptest! {
        #[test]
        fn hostile_bytes_end_in_an_error_or_a_list(mut bytes in proptest::collection::vec(0u8..=255, 0..300), cpio_like in proptest::bool::ANY) {
            if cpio_like {
                bytes.splice(0..0, *b"070701");
            }
            let _ = names(&bytes);
        }
    }
}
