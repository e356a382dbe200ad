//! What differs between two tars: which member, and what of it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use fs_err as fs;

use super::bytes::{Part, describe, first_difference};

/// What an archive says of a member, but for its content.
#[derive(PartialEq, Eq)]
struct Member {
    mode: u32,
    owner: (u64, u64),
    modified: u64,
    kind: u8,
    link: Option<Vec<u8>>,
    device: (Option<u32>, Option<u32>),
    /// pax extensions, such as extended attributes and sub-second times.
    extensions: Vec<(String, Vec<u8>)>,
}

/// A member's name, and which of the members of this name it is.
type Name = (String, usize);

/// In order of the archive: names, members, where their contents lie.
type Listing = Vec<(Name, Member, (u64, u64))>;

/// One line for each member that differs, at most `limit`, and how many more there are.
pub fn differences(one: &fs::File, two: &fs::File, limit: usize) -> Result<(Vec<String>, usize)> {
    let (first, second) = (list(one)?, list(two)?);
    let seconds: BTreeMap<&Name, &(Name, Member, (u64, u64))> =
        second.iter().map(|entry| (&entry.0, entry)).collect();
    let firsts: BTreeSet<&Name> = first.iter().map(|entry| &entry.0).collect();
    let mut found = Vec::new();
    let mut more = 0;
    let mut add = |line: String| if found.len() < limit { found.push(line) } else { more += 1 };
    for (name, member, (start, length)) in &first {
        let Some((_, other, (other_start, other_length))) = seconds.get(name) else {
            add(format!("member `{}` is in the first only", name.0));
            continue;
        };
        for said in member.differences(other) {
            add(format!("member `{}`: {said}", name.0));
        }
        let one = Part { file: one, start: *start, length: *length };
        let two = Part { file: two, start: *other_start, length: *other_length };
        if let Some(offset) = first_difference(one, two)? {
            add(format!("member `{}`: content {}", name.0, describe(one, two, offset)?));
        }
    }
    for (name, ..) in second.iter().filter(|entry| !firsts.contains(&entry.0)) {
        add(format!("member `{}` is in the second only", name.0));
    }
    let order = first.iter().zip(&second).find(|(one, two)| one.0 != two.0);
    if let (true, Some((one, two))) = (found.is_empty(), order) {
        found.push(format!("order of members: `{}` stands where the second has `{}`", one.0.0, two.0.0));
    }
    Ok((found, more))
}

fn list(file: &fs::File) -> Result<Listing> {
    use std::io::Seek as _;
    let mut file = file;
    file.rewind()?;
    let mut archive = tar::Archive::new(file);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut listing = Vec::new();
    for entry in archive.entries_with_seek()? {
        let mut entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let count = counts.entry(name.clone()).or_default();
        *count += 1;
        let mut extensions = Vec::new();
        if let Some(all) = entry.pax_extensions()? {
            for extension in all {
                let extension = extension?;
                extensions.push((extension.key()?.to_owned(), extension.value_bytes().to_vec()));
            }
        }
        extensions.sort();
        let header = entry.header();
        let member = Member {
            // A field that a writer left empty is no number.
            mode: header.mode().unwrap_or_default(),
            owner: (header.uid().unwrap_or_default(), header.gid().unwrap_or_default()),
            modified: header.mtime().unwrap_or_default(),
            kind: header.entry_type().as_byte(),
            link: entry.link_name_bytes().map(std::borrow::Cow::into_owned),
            device: (header.device_major().unwrap_or_default(), header.device_minor().unwrap_or_default()),
            extensions,
        };
        listing.push(((name, *count), member, (entry.raw_file_position(), entry.size())));
    }
    Ok(listing)
}

impl Member {
    fn differences(&self, other: &Member) -> Vec<String> {
        let mut all = Vec::new();
        let mut add = |what: &str, one: String, two: String| {
            if one != two {
                all.push(format!("{what} {one} and {two}"));
            }
        };
        let text = |bytes: &[u8]| format!("`{}`", bytes.escape_ascii());
        let link = |member: &Member| member.link.as_deref().map_or_else(|| "none".to_owned(), text);
        add("type", text(&[self.kind]), text(&[other.kind]));
        add("mode", format!("{:04o}", self.mode), format!("{:04o}", other.mode));
        add("owner", format!("{:?}", self.owner), format!("{:?}", other.owner));
        add("time", self.modified.to_string(), other.modified.to_string());
        add("link to", link(self), link(other));
        add("device", format!("{:?}", self.device), format!("{:?}", other.device));
        let of = |member: &Member, key: &str| {
            let found = member.extensions.iter().find(|(name, _)| name == key);
            found.map_or_else(|| "none".to_owned(), |(_, value)| text(value))
        };
        let mut keys: Vec<&String> =
            self.extensions.iter().chain(&other.extensions).map(|(key, _)| key).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            add(key, of(self, key), of(other, key));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode, time, content.
    type Entry<'a> = (&'a str, u32, u64, &'a str);

    fn archive(entries: &[Entry<'_>]) -> fs::File {
        let (file, path) = tempfile::NamedTempFile::new().unwrap().keep().unwrap();
        fs::remove_file(path).unwrap();
        let mut builder = tar::Builder::new(fs::File::from_parts(file, "test"));
        for (name, mode, time, content) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_mode(*mode);
            header.set_mtime(*time);
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    const SAME: Entry<'_> = ("etc/hosts", 0o644, 5, "127.0.0.1 localhost");

    fn lines(one: &[Entry<'_>], two: &[Entry<'_>]) -> Vec<String> {
        differences(&archive(one), &archive(two), 8).unwrap().0
    }

    #[test]
    fn each_kind_of_difference_is_named() {
        let one =
            [SAME, ("a", 0o644, 1, "one"), ("b", 0o644, 1, "x"), ("etc/shadow", 0o640, 1, "root:*:20770:")];
        let two =
            [SAME, ("a", 0o600, 2, "one"), ("c", 0o644, 1, "x"), ("etc/shadow", 0o640, 1, "root:*:20771:")];
        assert_eq!(
            lines(&one, &two),
            [
                "member `a`: mode 0644 and 0600",
                "member `a`: time 1 and 2",
                "member `b` is in the first only",
                "member `etc/shadow`: content from byte 11 on: `root:*:20770:` and `root:*:20771:`",
                "member `c` is in the second only",
            ]
        );
        assert_eq!(lines(&one, &one), Vec::<String>::new());
    }

    #[test]
    fn order_counts_and_the_rest_is_counted() {
        let (one, two) = (("a", 0o644, 1, ""), ("b", 0o644, 1, ""));
        assert_eq!(
            lines(&[one, two], &[two, one]),
            ["order of members: `a` stands where the second has `b`"]
        );
        let (found, more) = differences(&archive(&[one, two, SAME]), &archive(&[SAME]), 1).unwrap();
        assert_eq!((found.len(), more), (1, 1));
    }
}
