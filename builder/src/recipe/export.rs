//! The table `export`: what the artifacts state about the machine and the product, and how they are packed.

use anyhow::Result;
use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::{Recipe, base};
use crate::error::Fault;

/// Longest licence text that a form of a hypervisor should have to show.
const LONGEST_EULA: u64 = 256 << 10;

/// The table; every key has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Export {
    /// What the disks of the OVA hang on.
    pub controller: Controller,
    /// What starts the machine that the artifacts describe; the disk itself boots by either.
    pub firmware: Firmware,
    /// Compression of a qcow2.
    pub qcow2: Compression,
    /// Effort of deflate in a VMDK or a zlib qcow2: 1 (fast) to 12 (small).
    pub level: u8,
    /// Who made the appliance, as hypervisors show it.
    pub vendor: String,
    /// Where a person reads about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_url: Option<String>,
    /// File below the recipe's folder with a licence that whoever deploys the OVA has to accept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eula: Option<String>,
}

impl Default for Export {
    fn default() -> Self {
        Export {
            controller: Controller::default(),
            firmware: Firmware::default(),
            qcow2: Compression::default(),
            level: 6,
            vendor: "imgbuild".to_owned(),
            product_url: None,
            eula: None,
        }
    }
}

/// A SCSI controller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Controller {
    /// VMware's own: least work for the host.
    #[default]
    Pvscsi,
    /// LSI Logic 53C1030: what other importers of OVAs know too.
    Lsilogic,
}

/// What starts the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// It is what an importer that does not read the statement takes, so the OVA means the same to all; and the oldest guest's boot
    /// path with the longest history.
    #[default]
    Bios,
    /// UEFI without Secure Boot.
    Efi,
}

/// Compression of a qcow2.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Read by QEMU 5.1 and later.
    #[default]
    Zstd,
    /// Read by all.
    Zlib,
}

impl Export {
    pub(super) fn check(&self) -> Result<(), String> {
        if !(1..=12).contains(&self.level) {
            return Err(format!("key `export.level`: {} is not 1 to 12", self.level));
        }
        if let Some(url) = &self.product_url
            && !["https://", "http://"]
                .iter()
                .any(|scheme| url.len() > scheme.len() && url.starts_with(scheme))
        {
            return Err(format!("key `export.product-url`: `{url}` is not an http:// or https:// URL"));
        }
        self.eula.as_deref().map_or(Ok(()), |file| base::folder_below("export.eula", file))
    }
}

impl Recipe {
    /// The licence text, where the recipe names one.
    pub fn eula(&self) -> Result<Option<String>> {
        let Some(file) = &self.image.export.eula else { return Ok(None) };
        let path = self.folder.join(file);
        let wrong = |cause: String| {
            Fault::user(format!("`{}`: {cause}", path.display()))
                .hint("key `export.eula` of the recipe names it: a text file, or leave the key out")
        };
        let length = fs::metadata(&path).map_err(|error| wrong(error.to_string()))?.len();
        if length > LONGEST_EULA {
            return Err(wrong(format!("a licence of {length} bytes; {LONGEST_EULA} are the limit")).into());
        }
        let bytes = fs::read(&path).map_err(|error| wrong(error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| wrong("the licence is not UTF-8 text".to_owned()))?;
        if text.trim().is_empty() {
            return Err(wrong("the licence is empty".to_owned()).into());
        }
        Ok(Some(text))
    }
}
