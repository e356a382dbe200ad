//! What differs between two raw disks: which partition, which file in it, or which field of its file system.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use fs_err as fs;

use super::bytes::{Part, describe, first_difference};
use crate::context::Context;
use crate::disk::gpt::{self, EFI_SYSTEM, Partition, ROOT_X86_64};
use crate::exec::Run;
use crate::formats::{self, disk::Raw};
use crate::view::View;

/// Where ext4's superblock lies in its partition.
const SUPERBLOCK: u64 = 1024;
/// Its fields that a maker of file systems could fill from the clock or from chance: offset, length, name.
const FIELDS: &[(u64, u64, &str)] = &[
    (44, 4, "time of the last mount"),
    (48, 4, "time of the last write"),
    (64, 4, "time of the last check"),
    (104, 16, "UUID"),
    (208, 16, "UUID of the journal"),
    (236, 16, "seed of the folders' hashes"),
    (264, 4, "time of creation"),
    (376, 8, "kibibytes ever written"),
    (1020, 4, "checksum"),
];

/// One line for each thing that differs, at most `limit`, and how many more there are.
pub fn differences(one: &Path, two: &Path, limit: usize, context: &Context) -> Result<(Vec<String>, usize)> {
    let files = [fs::File::open(one)?, fs::File::open(two)?];
    let table = |path: &Path| -> Result<_> {
        gpt::read(&mut Raw::open(formats::part::Part::whole(fs::File::open(path)?)?)?)
    };
    let [first, second] = [table(one), table(two)];
    let whole = [Part::whole(&files[0])?, Part::whole(&files[1])?];
    let mut all = Lines { found: Vec::new(), more: 0, limit };
    let (Ok(first), Ok(second)) = (first, second) else {
        // Without tables there is nothing to dig in but bytes.
        if let Some(offset) = first_difference(whole[0], whole[1])? {
            all.add(describe(whole[0], whole[1], offset)?);
        }
        return Ok((all.found, all.more));
    };
    for (index, partition) in first.iter().enumerate() {
        let extent = partition.extent;
        if second.get(index) != Some(partition) {
            all.add(format!("partition {} `{}` has another place or id", index + 1, partition.name));
            continue;
        }
        let parts = whole.map(|whole| Part { start: extent.offset(), length: extent.bytes(), ..whole });
        if let Some(offset) = first_difference(parts[0], parts[1])? {
            let before = all.count();
            match partition.kind {
                ROOT_X86_64 => ext4(one, two, parts, &mut all, context)?,
                EFI_SYSTEM => fat(one, two, partition, &mut all, context)?,
                _ => {}
            }
            let said = describe(parts[0], parts[1], offset)?;
            // Named by its file already, or by its place alone.
            if all.count() == before {
                all.add(format!("partition `{}`, outside its files, {said}", partition.name));
            }
        }
    }
    outside(whole, &first, &mut all)?;
    Ok((all.found, all.more))
}

/// What is found, up to a limit.
struct Lines {
    found: Vec<String>,
    more: usize,
    limit: usize,
}

impl Lines {
    fn add(&mut self, line: String) {
        if self.found.len() < self.limit { self.found.push(line) } else { self.more += 1 }
    }

    fn count(&self) -> usize {
        self.found.len() + self.more
    }
}

/// Boot code, both partition tables, and the gaps.
fn outside(disks: [Part<'_>; 2], partitions: &[Partition], all: &mut Lines) -> Result<()> {
    let mut start = 0;
    let length = disks[0].length.min(disks[1].length);
    let mut extents: Vec<(u64, u64)> = partitions
        .iter()
        .map(|partition| (partition.extent.offset(), partition.extent.offset() + partition.extent.bytes()))
        .collect();
    extents.push((length, length));
    extents.sort_unstable();
    for (from, to) in extents {
        let gap = disks.map(|disk| Part { start, length: from.saturating_sub(start), ..disk });
        if let Some(offset) = first_difference(gap[0], gap[1])? {
            let said = describe(gap[0], gap[1], offset)?;
            all.add(format!("outside the partitions, in what begins at byte {start} of the disk, {said}"));
        }
        start = to.max(start);
    }
    if disks[0].length != disks[1].length {
        all.add(format!("the disks are {} and {} bytes long", disks[0].length, disks[1].length));
    }
    Ok(())
}

/// What is known of one file.
#[derive(PartialEq, Eq)]
struct File {
    mode: u16,
    owner: (u32, u32),
    length: u64,
    modified: String,
    created: String,
    is_folder: bool,
    is_link: bool,
}

fn ext4(one: &Path, two: &Path, parts: [Part<'_>; 2], all: &mut Lines, context: &Context) -> Result<()> {
    let views = [View::open(one, context)?, View::open(two, context)?];
    let [first, second] = [tree(&views[0])?, tree(&views[1])?];
    for (path, file) in &first {
        let Some(other) = second.get(path) else {
            all.add(format!("file `{path}` is in the first only"));
            continue;
        };
        let mut add = |what: &str, one: String, two: String| {
            if one != two {
                all.add(format!("file `{path}`: {what} {one} and {two}"));
            }
        };
        add("mode", format!("{:04o}", file.mode), format!("{:04o}", other.mode));
        add("owner", format!("{:?}", file.owner), format!("{:?}", other.owner));
        add("time", file.modified.clone(), other.modified.clone());
        add("time of creation", file.created.clone(), other.created.clone());
        if file.is_link && other.is_link {
            let target = |view: &View| -> Result<String> {
                Ok(view.root.read_link(path.as_str())?.display().to_string())
            };
            add("link to", target(&views[0])?, target(&views[1])?);
        } else if !file.is_folder && !other.is_folder && !file.is_link && !other.is_link {
            let (one, two) = (views[0].root.read(path.as_str())?, views[1].root.read(path.as_str())?);
            if one != two {
                let at = one.iter().zip(&two).take_while(|(one, two)| one == two).count();
                add("content", excerpt(&one, at), excerpt(&two, at));
            }
        }
    }
    for path in second.keys().filter(|path| !first.contains_key(*path)) {
        all.add(format!("file `{path}` is in the second only"));
    }
    for (offset, length, name) in FIELDS {
        let field =
            parts.map(|part| Part { start: part.start + SUPERBLOCK + offset, length: *length, ..part });
        if first_difference(field[0], field[1])?.is_some() {
            let said = (field[0].excerpt(0)?, field[1].excerpt(0)?);
            all.add(format!("superblock of the root file system: {name} `{}` and `{}`", said.0, said.1));
        }
    }
    Ok(())
}

fn excerpt(bytes: &[u8], at: usize) -> String {
    let part = &bytes[at.saturating_sub(16)..bytes.len().min(at + 24)];
    format!("from byte {at} on: `{}`", part.escape_ascii())
}

fn tree(view: &View) -> Result<BTreeMap<String, File>> {
    let mut files = BTreeMap::new();
    view.walk("/", &mut |node| {
        let meta = &node.metadata;
        let file = File {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            length: meta.len(),
            modified: format!("{:?}", meta.modified()),
            created: format!("{:?}", meta.created()),
            is_folder: meta.is_dir(),
            is_link: meta.is_symlink(),
        };
        files.insert(node.path.clone(), file);
        Ok(())
    })?;
    Ok(files)
}

/// mtools takes the files out of both; they are few.
fn fat(one: &Path, two: &Path, partition: &Partition, all: &mut Lines, context: &Context) -> Result<()> {
    let scratch = context.store.scratch()?;
    let mut trees = Vec::new();
    for (name, disk) in [("one", one), ("two", two)] {
        let folder = scratch.path().join(name);
        fs::create_dir(&folder)?;
        Run::new(&context.log, "mcopy")
            .env("MTOOLS_SKIP_CHECK", "1")
            .args(["-s", "-n", "-m", "-i"])
            .arg(format!("{}@@{}", disk.display(), partition.extent.offset()))
            .arg("::/")
            .arg(&folder)
            .run()?;
        trees.push(folder);
    }
    let listed = |folder: &Path| -> Result<BTreeMap<String, std::time::SystemTime>> {
        let mut files = BTreeMap::new();
        list(folder, "", &mut files)?;
        Ok(files)
    };
    let (first, second) = (listed(&trees[0])?, listed(&trees[1])?);
    for (path, time) in &first {
        let Some(other) = second.get(path) else {
            all.add(format!("EFI system partition: `{path}` is in the first only"));
            continue;
        };
        let files = [fs::File::open(trees[0].join(path))?, fs::File::open(trees[1].join(path))?];
        let parts = [Part::whole(&files[0])?, Part::whole(&files[1])?];
        if let Some(offset) = first_difference(parts[0], parts[1])? {
            all.add(format!("EFI system partition: `{path}` {}", describe(parts[0], parts[1], offset)?));
        } else if time != other {
            all.add(format!("EFI system partition: `{path}`: time {time:?} and {other:?}"));
        }
    }
    for path in second.keys().filter(|path| !first.contains_key(*path)) {
        all.add(format!("EFI system partition: `{path}` is in the second only"));
    }
    Ok(())
}

fn list(folder: &Path, prefix: &str, files: &mut BTreeMap<String, std::time::SystemTime>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{path}/"), files)?;
        } else {
            files.insert(path, entry.metadata()?.modified()?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;
    use std::path::PathBuf;

    use super::*;
    use crate::disk::Ids;
    use crate::disk::layout::Layout;
    use crate::store::Key;

    const MIB: u64 = 1 << 20;
    const CONTENT: &[u8] = b"this stands in one file of the disk and nowhere else";

    /// A disk with one file, and where its root lies.
    fn disk(folder: &Path, context: &Context) -> (PathBuf, u64) {
        let (raw, files) = (folder.join("one.raw"), folder.join("files"));
        fs::create_dir_all(files.join("etc")).unwrap();
        fs::write(files.join("etc/motd"), CONTENT).unwrap();
        let layout = Layout::plan(160 * MIB, 34 * MIB).unwrap();
        fs::File::create(&raw).unwrap().set_len(160 * MIB).unwrap();
        Run::new(&context.log, "mke2fs")
            .args(["-t", "ext4", "-F", "-q", "-b", "4096", "-O", "none,filetype,extent"])
            .args(["-E", &format!("offset={}", layout.root.offset()), "-d"])
            .arg(&files)
            .arg(&raw)
            .arg((layout.root.bytes() / 4096).to_string())
            .run()
            .unwrap();
        gpt::write(&raw, &layout, &Ids::derive(&Key::of("test", 1, &[]))).unwrap();
        (raw, layout.root.offset())
    }

    #[test]
    fn what_differs_is_named_and_what_does_not_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let context = Context::for_tests(&folder.path().join("store"));
        let (one, root) = disk(folder.path(), &context);
        let two = folder.path().join("two.raw");
        let found = |offset: Option<u64>| {
            fs::copy(&one, &two).unwrap();
            if let Some(offset) = offset {
                let file = fs::OpenOptions::new().read(true).write(true).open(&two).unwrap();
                let mut byte = [0];
                file.file().read_exact_at(&mut byte, offset).unwrap();
                file.file().write_all_at(&[byte[0] ^ 1], offset).unwrap();
            }
            differences(&one, &two, 10, &context).unwrap().0
        };
        assert_eq!(found(None), Vec::<String>::new());
        let bytes = fs::read(&one).unwrap();
        let place = bytes.windows(CONTENT.len()).position(|window| window == CONTENT).unwrap() as u64;
        for (offset, expected) in [
            (place + 5, "file `/etc/motd`: content from byte 5 on"),
            (root + SUPERBLOCK + 44, "superblock of the root file system: time of the last mount"),
            (10, "outside the partitions, in what begins at byte 0 of the disk"),
        ] {
            let lines = found(Some(offset));
            assert!(lines.len() == 1 && lines[0].starts_with(expected), "{expected}: {lines:?}");
        }
    }
}
