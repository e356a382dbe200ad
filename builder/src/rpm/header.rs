//! A package file: lead, signature header, header, payload. Parsed, not trusted: `signature::Keyring::verify` does that.
//!
//! Format: rpm's own manual, "RPM V4 package format". Whatever is wrong with a file is one error that names the file.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;

use super::files::{self, FileEntry};
use super::index::{self, Header};
use super::{Nevra, evr::Evr};
use crate::error::Fault;

/// Tags of the header, as in `rpmTag`.
mod tag {
    pub(super) const REGION: u32 = 63;
    pub(super) const NAME: u32 = 1000;
    pub(super) const VERSION: u32 = 1001;
    pub(super) const RELEASE: u32 = 1002;
    pub(super) const EPOCH: u32 = 1003;
    pub(super) const ARCH: u32 = 1022;
    pub(super) const SOURCE_RPM: u32 = 1044;
    pub(super) const PAYLOAD_FORMAT: u32 = 1124;
    pub(super) const PAYLOAD_COMPRESSOR: u32 = 1125;
    pub(super) const PAYLOAD_DIGEST: u32 = 5092;
    pub(super) const PAYLOAD_DIGEST_ALGORITHM: u32 = 5093;
    /// In the signature header: bytes of header and payload.
    pub(super) const SIGNED_SIZE: u32 = 1000;
}

/// Only the magic of the lead is looked at, as rpm does: everything else is in the headers again.
const LEAD: usize = 96;
const LEAD_MAGIC: [u8; 4] = [0xed, 0xab, 0xee, 0xdb];

/// A package as its file says, before anybody has vouched for it.
#[derive(Debug)]
pub struct Package {
    path: PathBuf,
    nevra: Nevra,
    source_rpm: Option<String>,
    files: Vec<FileEntry>,
    compressor: String,
    payload_digest: Option<(u32, String)>,
    payload: u64,
    pub(super) signatures: Header,
    pub(super) header: Header,
}

impl Package {
    /// Reads the headers of a package.
    pub fn open(path: &Path) -> Result<Self> {
        let file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        Self::read(path, &mut BufReader::new(file), length).map_err(|error| {
            Fault::environment(format!("`{}` is not a sound RPM package: {error:#}", path.display()))
                .hint("take it from another mirror")
                .into()
        })
    }

    fn read(path: &Path, source: &mut impl Read, length: u64) -> Result<Self> {
        let lead = index::take(source, LEAD)?;
        ensure!(lead.starts_with(&LEAD_MAGIC), "it does not begin as one");
        let signatures = Header::read(source).context("signature header")?;
        let signatures_end = LEAD + signatures.raw().len();
        let padding = signatures_end.next_multiple_of(8) - signatures_end;
        index::take(source, padding)?;
        let header = Header::read(source).context("header")?;
        header.check_region(tag::REGION)?;
        let start = (signatures_end + padding) as u64;
        // Nobody has signed this number, but it tells a download that was cut off from a forgery.
        if let Some(signed) = signatures.u32s(tag::SIGNED_SIZE)?.first() {
            let found = length.saturating_sub(start);
            ensure!(
                found == u64::from(*signed),
                "it is cut off or has grown: {found} bytes instead of {signed}"
            );
        }
        if let Some(format) = header.string(tag::PAYLOAD_FORMAT)? {
            ensure!(format == "cpio", "its payload is `{}`, not cpio", format.escape_debug());
        }
        let payload_digest = header.strings(tag::PAYLOAD_DIGEST)?.first().map(|hex| hex.to_ascii_lowercase());
        let payload_algorithm = header.u32s(tag::PAYLOAD_DIGEST_ALGORITHM)?.first().copied();
        Ok(Package {
            path: path.to_owned(),
            nevra: nevra(&header)?,
            source_rpm: header.string(tag::SOURCE_RPM)?.map(str::to_owned),
            files: files::read(&header)?,
            compressor: header.string(tag::PAYLOAD_COMPRESSOR)?.unwrap_or_default().to_owned(),
            payload_digest: payload_algorithm.zip(payload_digest),
            payload: start + header.raw().len() as u64,
            signatures,
            header,
        })
    }

    /// Where the package lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it calls itself.
    pub fn nevra(&self) -> &Nevra {
        &self.nevra
    }

    /// Its files, in the header's order.
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// Name of the source package that it was built from; none for a source package.
    pub fn source_rpm(&self) -> Option<&str> {
        self.source_rpm.as_deref()
    }

    /// What the payload is compressed with; empty when the package does not say.
    pub(super) fn compressor(&self) -> &str {
        &self.compressor
    }

    /// OpenPGP's number of the algorithm and the digest, of the payload as it is in the file.
    pub(super) fn payload_digest(&self) -> Option<(u32, &str)> {
        self.payload_digest.as_ref().map(|(algorithm, hex)| (*algorithm, hex.as_str()))
    }

    /// The file from its payload on.
    pub(super) fn payload(&self) -> Result<fs::File> {
        use std::io::Seek as _;
        let mut file = fs::File::open(&self.path)?;
        file.seek(std::io::SeekFrom::Start(self.payload))?;
        Ok(file)
    }

    /// The error for a package that cannot be used, and what to do.
    pub(super) fn refuse(&self, what: impl std::fmt::Display) -> Fault {
        Fault::environment(format!("package {}: {what}", self.nevra))
    }

    /// The error for a package that is not what its maker made.
    pub(super) fn damaged(&self, what: impl std::fmt::Display) -> Fault {
        let file = self.path.display();
        self.refuse(what).hint(format!("its file is `{file}`; take the package from another mirror"))
    }
}

fn nevra(header: &Header) -> Result<Nevra> {
    let text = |tag, what: &str| -> Result<String> {
        let text = header.string(tag)?.with_context(|| format!("it has no {what}"))?;
        // Names of packages become names of files, and lines of lists.
        let sound = |c: char| c.is_ascii_alphanumeric() || "._+-~^".contains(c);
        if text.is_empty() || text.starts_with(['.', '-']) || text.len() > 255 || !text.chars().all(sound) {
            bail!("its {what} is `{}`", text.escape_debug());
        }
        Ok(text.to_owned())
    };
    let epoch = header.u32s(tag::EPOCH)?.first().copied().unwrap_or(0);
    let evr = Evr { epoch, version: text(tag::VERSION, "version")?, release: text(tag::RELEASE, "release")? };
    Ok(Nevra { name: text(tag::NAME, "name")?, evr, arch: text(tag::ARCH, "architecture")? })
}
