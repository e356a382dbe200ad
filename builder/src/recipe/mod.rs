//! `images/<name>/image.toml` -> `Recipe`: parsed, unknown keys refused, valid by construction, no network.

mod base;
mod export;
mod file;
mod set;
mod size;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use firstboot::facts::{ApplicationFacts, NginxFacts, PostgresqlFacts, RedisFacts, SystemFacts};
use serde::{Deserialize, Serialize};

pub use base::{Archive, Base, Debian, Repository, Rpm};
pub use export::{Compression, Controller, Export, Firmware};
pub use size::{ByteSize, human};

use crate::error::Fault;
use crate::export::Format;

/// The only version of the format so far.
const SCHEMA: u32 = 1;

/// A recipe that was checked, and the folder that it came from.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Folder of `image.toml`; its relative paths start here.
    pub folder: PathBuf,
    /// What the file says.
    pub image: Image,
}

/// The file's content.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Image {
    /// Version of this format; 1.
    pub schema: u32,
    /// Name of the image and stem of its artifacts: lower-case letters, digits, `-`.
    pub name: String,
    /// What a person should read.
    pub title: String,
    /// The base tree is Debian's, made by mmdebstrap. Either this or `rpm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debian: Option<Debian>,
    /// The base tree is made of RPM packages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpm: Option<Rpm>,
    /// The application.
    pub app: App,
    /// Overlays by name, laid in this order.
    pub overlays: Vec<String>,
    /// The virtual machine that the artifacts describe.
    pub machine: Machine,
    /// The disks.
    pub disk: Disk,
    /// How the kernel is started.
    pub boot: Boot,
    /// What first boot must know about the distribution.
    pub guest: Guest,
    /// What is exported when the command line does not say.
    pub formats: Vec<Format>,
    /// What the artifacts state, and how they are packed.
    #[serde(default)]
    pub export: Export,
}

/// The application layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct App {
    /// The Mastodon tag whose interface it has.
    pub tag: String,
    /// Folder with `live/` and `rbenv/`: a stand-in. Without it the application is Mastodon at the tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Where Mastodon's source is, when not at its own repository: a Git URL, a clone, a tar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Release of PostgreSQL in the image, where its packages do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgresql: Option<String>,
    /// Release of Redis in the image, where its packages do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<String>,
    /// Commands run in the root, as the user `mastodon` in `/home/mastodon/live`, without network.
    #[serde(default)]
    pub build: Vec<String>,
}

/// The virtual hardware.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Machine {
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory.
    pub memory: ByteSize,
    /// vSphere's identifier of the guest system, such as `debian10_64Guest`.
    pub vsphere_guest: String,
}

/// The disks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Disk {
    /// Size of the system disk.
    pub system: ByteSize,
    /// Size of the empty data disk.
    pub data: ByteSize,
    /// Size of the EFI system partition.
    pub esp: ByteSize,
}

/// Booting.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Boot {
    /// Who keeps the menu of kernels.
    #[serde(default)]
    pub menu: Menu,
    /// Kernel in the root file system; `{kernel}` stands for the version in the name of the newest kernel's file.
    pub kernel: String,
    /// Its initramfs.
    pub initrd: String,
    /// Kernel parameters behind `root=`.
    pub options: String,
}

/// Who keeps GRUB's menu when the guest's kernel is updated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Menu {
    /// Nobody: its paths are links that the distribution's kernel packages move (Debian).
    #[default]
    Links,
    /// grubby edits one menu for each firmware (CentOS 7).
    Grubby,
}

/// The tables of `ImageFacts` that the recipe states.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Guest {
    /// PostgreSQL.
    pub postgresql: PostgresqlFacts,
    /// Redis.
    pub redis: RedisFacts,
    /// nginx.
    pub nginx: NginxFacts,
    /// The stand-in; Mastodon's own come from the table of tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<ApplicationFacts>,
    /// Network and SSH.
    pub system: SystemFacts,
}

impl Recipe {
    /// Reads `image.toml` in the folder and applies `--tag` and `--set key=value` on top.
    pub fn load(folder: &Path, tag: Option<&str>, overrides: &[String]) -> Result<Self> {
        let path = folder.join("image.toml");
        let mut image = file::read(&path, overrides)?;
        if let Some(tag) = tag.filter(|tag| image.app.tag != *tag) {
            if image.app.folder.is_some() {
                let message =
                    format!("image `{}` has no tag `{tag}`: it carries {}", image.name, image.app.tag);
                let hint = format!("leave --tag out, or say --tag {}", image.app.tag);
                return Err(Fault::user(message).hint(hint).into());
            }
            tag.clone_into(&mut image.app.tag);
        }
        let recipe = Recipe { folder: folder.to_owned(), image };
        recipe.check().map_err(|message| Fault::user(format!("`{}`: {message}", path.display())))?;
        Ok(recipe)
    }

    /// Who makes the base tree.
    pub fn base(&self) -> Base<'_> {
        match (&self.image.debian, &self.image.rpm) {
            (Some(debian), _) => Base::Debian(debian),
            (None, Some(rpm)) => Base::Rpm(rpm),
            (None, None) => unreachable!("`check` has seen that one of them is there"),
        }
    }

    /// Names that `--mirror NAME=URL` may have for this image.
    pub fn archives(&self) -> Vec<&str> {
        let mut names = match self.base() {
            Base::Debian(_) => vec!["debian", "debian-security"],
            Base::Rpm(rpm) => rpm.archives.keys().map(String::as_str).collect(),
        };
        if self.image.app.folder.is_none() {
            names.extend(crate::mastodon::origins::MIRRORS);
        }
        names
    }

    /// The recipe in canonical form, the input of every stage's key.
    pub fn canonical<T: Serialize>(part: &T) -> Result<String> {
        Ok(serde_json::to_string(part)?)
    }

    fn check(&self) -> Result<(), String> {
        let image = &self.image;
        if image.schema != SCHEMA {
            return Err(format!("key `schema`: got {}, this imgbuild reads {SCHEMA}", image.schema));
        }
        if !base::is_plain(&image.name) {
            return Err(format!("key `name`: `{}` may have only a-z, 0-9 and `-`", image.name));
        }
        match (&image.debian, &image.rpm) {
            (Some(debian), None) => debian.check()?,
            (None, Some(rpm)) => rpm.check()?,
            _ => return Err("it needs one of the tables `debian` and `rpm`, not both".to_owned()),
        }
        let tag = &image.app.tag;
        if tag.is_empty()
            || !tag.starts_with(char::is_alphanumeric)
            || !tag.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        {
            return Err(format!("key `app.tag`: `{tag}` is not a tag's name"));
        }
        if let Some(name) = image.overlays.iter().find(|name| !base::is_plain(name)) {
            return Err(format!("key `overlays`: `{name}` may have only a-z, 0-9 and `-`"));
        }
        match (&image.app.folder, &image.guest.application) {
            (Some(folder), Some(_)) => base::folder_below("app.folder", folder)?,
            (None, None) => {}
            (Some(_), None) => {
                return Err("a stand-in (`app.folder`) needs the table `guest.application`".to_owned());
            }
            (None, Some(_)) => {
                return Err(
                    "table `guest.application`: only for a stand-in (`app.folder`); tags have their own"
                        .to_owned(),
                );
            }
        }
        if image.overlays.iter().collect::<BTreeSet<_>>().len() != image.overlays.len() {
            return Err("key `overlays`: an overlay is listed twice".to_owned());
        }
        if image.machine.cpus == 0 || image.machine.memory.bytes() < 512 << 20 {
            return Err("table `machine`: at least 1 CPU and 512 MiB".to_owned());
        }
        let disk = &image.disk;
        for (key, size) in [("system", disk.system), ("data", disk.data), ("esp", disk.esp)] {
            if size.bytes() == 0 || size.bytes() % (1 << 20) != 0 {
                return Err(format!("key `disk.{key}`: {size} is not a whole number of MiB"));
            }
        }
        if disk.esp.bytes() < 34 << 20 || disk.system.bytes() < disk.esp.bytes() + (1 << 30) {
            return Err(
                "table `disk`: the ESP needs 34 MiB and the system disk 1 GiB more than that".to_owned()
            );
        }
        if image.formats.is_empty() {
            return Err("key `formats`: name at least one".to_owned());
        }
        image.export.check()
    }
}
