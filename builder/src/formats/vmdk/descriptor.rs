//! The descriptor: text that says what kind of disk this is, and of which files it is made.

use anyhow::Result;

use crate::formats::part::Part;

/// First line of a descriptor, as a file of its own too.
pub const SIGNATURE: &[u8] = b"# Disk DescriptorFile";
/// Kinds of a disk that lies in the file of its header.
const KINDS: [&str; 2] = ["monolithicSparse", "streamOptimized"];
/// A disk without a parent.
const NO_PARENT: &str = "ffffffff";
/// Names a parent.
const PARENT_HINT: &[u8] = b"parentFileNameHint";

/// What a descriptor says, as far as we need it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// `createType`.
    pub kind: Option<String>,
    /// `parentCID`.
    pub parent: Option<String>,
    /// Lines that name an extent: access, sectors, kind, the rest.
    pub extents: Vec<String>,
}

impl Descriptor {
    /// Out of its sectors; a descriptor ends at the first zero. What is no text is none of its lines.
    pub fn parse(bytes: &[u8]) -> Self {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let mut descriptor = Descriptor::default();
        for line in bytes[..end].split(|byte| matches!(byte, b'\n' | b'\r')) {
            let line = String::from_utf8_lossy(line);
            let line = line.trim();
            let word = line.split_ascii_whitespace().next().unwrap_or_default();
            if ["RW", "RDONLY", "NOACCESS"].iter().any(|access| word.eq_ignore_ascii_case(access)) {
                descriptor.extents.push(line.to_owned());
            } else if let Some((key, value)) = line.split_once('=') {
                let value = value.trim().trim_matches('"').to_owned();
                match key.trim().to_ascii_lowercase().as_str() {
                    "createtype" => descriptor.kind = Some(value),
                    "parentcid" => descriptor.parent = Some(value),
                    _ => {}
                }
            }
        }
        descriptor
    }

    /// Refuses a disk that is not all in one file. `around` is all that some reader takes for the descriptor.
    pub fn check(&self, part: &Part, around: &[u8]) -> Result<()> {
        let refers = |what: &str| {
            Err(part.refused(format!("is not a disk by itself: it refers to other files ({what})")))
        };
        let hint = around.windows(PARENT_HINT.len()).any(|window| window.eq_ignore_ascii_case(PARENT_HINT));
        if hint || self.parent.as_ref().is_some_and(|parent| !parent.eq_ignore_ascii_case(NO_PARENT)) {
            return refers("it holds only what differs from a parent");
        }
        if self.extents.len() > 1 {
            return refers(&format!("it is made of {} extents", self.extents.len()));
        }
        let words: Vec<&str> =
            self.extents.iter().flat_map(|extent| extent.split_ascii_whitespace()).collect();
        if words.get(2).is_some_and(|kind| !kind.eq_ignore_ascii_case("SPARSE")) {
            return refers("its extent is not in the file of its header");
        }
        if *self == Descriptor::default() {
            return Err(part.refused("is not a disk by itself: it is one of several files of a disk"));
        }
        let known = |kind: &String| KINDS.iter().any(|known| kind.eq_ignore_ascii_case(known));
        if self.extents.is_empty() || !self.kind.as_ref().is_some_and(known) {
            let message = format!("its descriptor is none of a disk in one file ({})", KINDS.join(" or "));
            return Err(part.damaged(message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
        createType=\"streamOptimized\"\n\nRW 2048 SPARSE \"disk.vmdk\"\nddb.adapterType = \"lsilogic\"\n\0\0";

    fn check(from: &str, to: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.vmdk");
        fs_err::write(&path, "").unwrap();
        let part = Part::whole(fs_err::File::open(&path).unwrap()).unwrap();
        let text = GOOD.replace(from, to);
        let end = text.find('\0').unwrap();
        let result = Descriptor::parse(text.as_bytes()).check(&part, &text.as_bytes()[end..]);
        result.err().map_or("ok".to_owned(), |error| {
            let text = error.to_string();
            text[text.find("x.vmdk").unwrap() + 8..].to_owned()
        })
    }

    #[test]
    fn only_a_disk_in_one_file_passes() {
        assert_eq!(check("", ""), "ok");
        let refers = "is not a disk by itself: it refers to other files";
        for (from, to, what) in [
            ("parentCID=ffffffff", "parentCID=00000001", "it holds only what differs from a parent"),
            // Behind what the header calls the descriptor, where QEMU still looks.
            ("\0\0", "\0parentFileNameHint=\"/etc/shadow\"", "it holds only what differs from a parent"),
            ("ddb.", "RW 2048 SPARSE \"other.vmdk\"\nddb.", "it is made of 2 extents"),
            ("SPARSE", "FLAT", "its extent is not in the file of its header"),
        ] {
            assert_eq!(check(from, to), format!("{refers} ({what})"), "{to}");
        }
        for (from, to) in [("streamOptimized", "twoGbMaxExtentSparse"), ("RW 2048", "# 2048")] {
            assert!(
                check(from, to).starts_with("is damaged: its descriptor is none of a disk in one file"),
                "{to}"
            );
        }
    }
}
