//! An opened image in, what is in it as data out: nothing is judged and nothing changed.
//!
//! The room has three doors: [`Survey`] for one image (`text` and `html` show it), [`difference`] for two, and [`page`] for a person
//! who would rather look. What an image says is hostile: numbers have bounds, texts are stripped of what steers a terminal.

pub mod catalogue;
pub mod difference;
pub mod ext4;
mod fat;
mod guest;
pub mod html;
mod packages;
mod sizes;
mod software;
mod source;
#[cfg(test)]
mod tests;
pub mod text;
mod timeline;
mod treemap;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;
use serde::Serialize;

pub use guest::{Account, Password, Privileged, Unit};
pub use packages::Package;
pub use sizes::Folder;
pub use software::Software;

use crate::disk::gpt::{BIOS_BOOT, EFI_SYSTEM, ROOT_X86_64};
use crate::error::Fault;
use crate::view::{Kind, View};
use catalogue::Catalogue;
use ext4::FileSystem;
use source::Source;

/// Everything that is known of an image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Survey {
    /// Version of this object's form: 1.
    pub schema: u32,
    /// The file that was opened.
    pub file: FileFacts,
    /// What a person calls the image; absent when imgbuild did not make it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Mastodon's tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The distribution, as its os-release calls it.
    pub system: String,
    /// Programs with their versions.
    pub software: Vec<Software>,
    /// Partitions in order of the table.
    pub partitions: Vec<Partition>,
    /// Files of the root file system.
    pub files: Files,
    /// Where its bytes are.
    pub sizes: Folder,
    /// Installed packages by name.
    pub packages: Vec<Package>,
    /// Units that start by themselves.
    pub units: Vec<Unit>,
    /// Accounts in the order of `/etc/passwd`.
    pub accounts: Vec<Account>,
    /// Programs with setuid, setgid or capabilities.
    pub privileged: Vec<Privileged>,
}

/// The file that was opened.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileFacts {
    /// Its name, without its folder.
    pub name: String,
    /// Its format.
    pub kind: Kind,
    /// Its length in bytes.
    pub apparent: u64,
    /// Bytes that it takes on the host's disk.
    pub allocated: u64,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Partition {
    /// Its name in the table.
    pub name: String,
    /// What it is for, in words.
    pub purpose: &'static str,
    /// Its type.
    pub kind: String,
    /// Its own identifier.
    pub id: String,
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Its file system, where it is one that imgbuild makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_system: Option<Usage>,
}

/// How full a file system is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Usage {
    /// `ext4` or `vfat`.
    pub kind: &'static str,
    /// Bytes that hold something.
    pub used: u64,
    /// Bytes that are free.
    pub free: u64,
    /// Figures of an ext4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ext4: Option<ext4::Totals>,
}

/// Files of the root file system by what they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Files {
    /// Names by what they stand for.
    pub names: std::collections::BTreeMap<ext4::Kind, u64>,
    /// Lengths of all files, each counted once however many names it has.
    pub apparent: u64,
    /// Bytes on the disk of all files and folders, holes not counted.
    pub allocated: u64,
    /// Bytes that further names of files save.
    pub shared: u64,
}

/// The root file system of an opened image, with the names of all its files.
pub struct Root {
    /// The file system.
    pub system: FileSystem,
    /// Its files.
    pub catalogue: Catalogue,
    given: PathBuf,
}

impl Root {
    /// Reads it. `given` is the file that the user named.
    pub fn read(view: &View, given: &Path) -> Result<Root> {
        let named = |error: anyhow::Error| damaged(given, "its root file system", &error);
        let length = view
            .partitions
            .iter()
            .find(|partition| partition.kind == ROOT_X86_64)
            .map_or(0, |root| root.extent.bytes());
        let mut system = FileSystem::open(Source::of(view, view.root_offset(), length)).map_err(named)?;
        let catalogue = Catalogue::read(&mut system).map_err(named)?;
        Ok(Root { system, catalogue, given: given.to_owned() })
    }

    /// An error of reading it, with its file's name.
    fn damaged(&self, error: &anyhow::Error) -> anyhow::Error {
        damaged(&self.given, "its root file system", error)
    }
}

fn damaged(given: &Path, what: &str, error: &anyhow::Error) -> anyhow::Error {
    let hint = "`e2fsck -fn` or `fsck.vfat -n` says whether it is damaged";
    Fault::user(format!("`{}`: {what}: {error:#}", given.display())).hint(hint).into()
}

impl Survey {
    /// Surveys an opened image. `given` is the file that the user named.
    pub fn of(view: &View, root: &Root, given: &Path) -> Result<Survey> {
        let catalogue = &root.catalogue;
        let facts = view
            .text(firstboot::facts::PATH)?
            .and_then(|text| toml::from_str::<firstboot::facts::ImageFacts>(&text).ok());
        let (packages, owners) = packages::read(view, catalogue)?;
        let metadata = fs::metadata(given)?;
        let os_release = view.text("/etc/os-release").ok().flatten().unwrap_or_default();
        Ok(Survey {
            schema: 1,
            file: FileFacts {
                name: given.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                kind: view.kind,
                apparent: metadata.len(),
                allocated: metadata.blocks() * 512,
            },
            title: facts.as_ref().map(|facts| shown(facts.title.as_bytes())),
            tag: facts.as_ref().map(|facts| shown(facts.tag.as_bytes())),
            system: pretty_name(&os_release),
            software: software::read(view, catalogue, &packages)?,
            partitions: partitions(view, root)?,
            files: files(catalogue),
            sizes: Folder::tree(catalogue, &owners),
            packages,
            units: guest::units(catalogue),
            accounts: guest::accounts(view, catalogue)?,
            privileged: guest::privileged(catalogue),
        })
    }
}

/// Partitions with how full they are.
pub fn partitions(view: &View, root: &Root) -> Result<Vec<Partition>> {
    let partition = |found: &crate::disk::gpt::Partition| {
        let (start, bytes) = (found.extent.offset(), found.extent.bytes());
        let (purpose, file_system) = match found.kind {
            ROOT_X86_64 => {
                let totals = root.system.totals().clone();
                let used = totals.bytes.saturating_sub(totals.free);
                let usage = Usage { kind: "ext4", used, free: totals.free, ext4: Some(totals) };
                // A disk may have a second one; only the first was opened.
                ("root file system", (start == view.root_offset()).then_some(usage))
            }
            EFI_SYSTEM => {
                let usage =
                    fat::usage(&mut Source::of(view, start, bytes)).map_err(|error| root.damaged(&error))?;
                let usage =
                    usage.map(|(all, free)| Usage { kind: "vfat", used: all - free, free, ext4: None });
                ("EFI system partition", usage)
            }
            BIOS_BOOT => ("GRUB for BIOS", None),
            _ => ("other", None),
        };
        let name = shown(found.name.as_bytes());
        Ok(Partition {
            name,
            purpose,
            kind: found.kind.to_string(),
            id: found.id.to_string(),
            start,
            bytes,
            file_system,
        })
    };
    view.partitions.iter().map(partition).collect()
}

fn files(catalogue: &Catalogue) -> Files {
    let mut files = Files { names: catalogue.counts(), ..Files::default() };
    for (entry, inode) in catalogue.each() {
        if entry.again {
            files.shared = files.shared.saturating_add(inode.allocated);
            continue;
        }
        files.allocated = files.allocated.saturating_add(inode.allocated);
        files.apparent =
            files.apparent.saturating_add(if inode.kind == ext4::Kind::File { inode.size } else { 0 });
    }
    files
}

fn pretty_name(os_release: &str) -> String {
    let line = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.map_or_else(|| "unknown system".to_owned(), |name| shown(name.trim_matches(['"', '\'']).as_bytes()))
}

/// Bytes from an image as text that cannot steer a terminal or turn the direction of writing: what is no plain UTF-8 becomes `\xNN`
/// or `\u{N}`.
pub fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            // Marks that turn the direction, joiners and other letters without a shape.
            let hidden = matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
            if letter.is_control() || hidden {
                text.push_str(&letter.escape_unicode().to_string());
            } else {
                text.push(letter);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}
