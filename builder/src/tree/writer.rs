//! Writes a tree as a pax tar: every owner by number, every time the build's epoch at the latest.

use std::io::{Read, Write};

use anyhow::{Context as _, Result};
use tar::{Builder, EntryType, Header};

use super::path::TreePath;

/// Owner and mode of a file that we add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Meta {
    /// Owned by root.
    pub const fn root(mode: u32) -> Self {
        Meta { mode, uid: 0, gid: 0 }
    }
}

/// A tar under way.
pub struct TreeWriter<W: Write> {
    builder: Builder<W>,
    epoch: u64,
}

impl<W: Write> TreeWriter<W> {
    /// Starts a tar in which no file is younger than the epoch.
    pub fn new(output: W, epoch: u64) -> Self {
        let mut builder = Builder::new(output);
        builder.mode(tar::HeaderMode::Complete);
        TreeWriter { builder, epoch }
    }

    fn header(&self, kind: EntryType, meta: Meta, size: u64) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(meta.mode);
        header.set_uid(u64::from(meta.uid));
        header.set_gid(u64::from(meta.gid));
        header.set_mtime(self.epoch);
        header.set_size(size);
        header
    }

    /// A folder.
    pub fn folder(&mut self, path: &TreePath, meta: Meta) -> Result<()> {
        let mut header = self.header(EntryType::Directory, meta, 0);
        self.append(&mut header, path, std::io::empty())
    }

    /// A file.
    pub fn file(&mut self, path: &TreePath, meta: Meta, content: &[u8]) -> Result<()> {
        let mut header = self.header(EntryType::Regular, meta, content.len() as u64);
        self.append(&mut header, path, content)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &TreePath, target: &str) -> Result<()> {
        let mut header = self.header(EntryType::Symlink, Meta::root(0o777), 0);
        self.builder
            .append_link(&mut header, path.member(), target)
            .with_context(|| format!("adding `{path}`"))
    }

    fn append(&mut self, header: &mut Header, path: &TreePath, content: impl Read) -> Result<()> {
        self.builder.append_data(header, path.member(), content).with_context(|| format!("adding `{path}`"))
    }

    /// A member of another tree as it is, its extended attributes with it.
    pub fn copy<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, path: &TreePath) -> Result<()> {
        let mut header = self.start_copy(entry)?;
        let link = entry.link_name()?.map(std::borrow::Cow::into_owned);
        match link {
            Some(target) => self
                .builder
                .append_link(&mut header, path.member(), target)
                .with_context(|| format!("copying `{path}`")),
            None => self.append(&mut header, path, entry),
        }
    }

    /// The same for a file whose content has been read already.
    pub fn copy_read<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        path: &TreePath,
        content: &[u8],
    ) -> Result<()> {
        let mut header = self.start_copy(entry)?;
        self.append(&mut header, path, content)
    }

    /// Writes a member's extended attributes; its header in this tree.
    fn start_copy<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<Header> {
        let mut attributes: Vec<(String, Vec<u8>)> = Vec::new();
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                let key = extension.key()?.to_owned();
                if key.starts_with("SCHILY.xattr.") {
                    attributes.push((key, extension.value_bytes().to_vec()));
                }
            }
        }
        if !attributes.is_empty() {
            let pairs = attributes.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
            self.builder.append_pax_extensions(pairs)?;
        }
        let mut header = entry.header().clone();
        let mtime = header.mtime()?.min(self.epoch);
        header.set_mtime(mtime);
        header.set_size(entry.size());
        Ok(header)
    }

    /// Ends the tar and returns what it was written to.
    pub fn finish(self) -> Result<W> {
        Ok(self.builder.into_inner()?)
    }
}
