//! `images/<name>/image.toml` -> `Recipe`: parsed, unknown keys refused, valid by construction, no network.

mod set;
mod size;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use firstboot::facts::{ApplicationFacts, NginxFacts, PostgresqlFacts, RedisFacts, SystemFacts};
use fs_err as fs;
use serde::{Deserialize, Serialize};

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
    /// Who makes the base tree.
    pub debian: Debian,
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
}

/// A base tree made by mmdebstrap.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Debian {
    /// Release name, such as `bookworm`.
    pub suite: String,
    /// Archive components.
    pub components: Vec<String>,
    /// Packages to install, without recommended ones.
    pub packages: Vec<String>,
    /// Path patterns that dpkg leaves out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Folder whose files are put into the root before the packages are configured.
    pub before: Option<String>,
}

/// The application layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct App {
    /// The Mastodon tag whose interface it has.
    pub tag: String,
    /// Folder with `live/` and `rbenv/`.
    pub folder: String,
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
    /// Kernel in the root file system.
    pub kernel: String,
    /// Its initramfs.
    pub initrd: String,
    /// Kernel parameters behind `root=`.
    pub options: String,
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
    /// The application.
    pub application: ApplicationFacts,
    /// Network and SSH.
    pub system: SystemFacts,
}

impl Recipe {
    /// Reads `image.toml` in the folder and applies `--set key=value` on top.
    pub fn load(folder: &Path, overrides: &[String]) -> Result<Self> {
        let path = folder.join("image.toml");
        let text = fs::read_to_string(&path)?;
        let image = parse(&path, &text, overrides)?;
        let recipe = Recipe { folder: folder.to_owned(), image };
        recipe.check().map_err(|message| Fault::user(format!("`{}`: {message}", path.display())))?;
        Ok(recipe)
    }

    /// Refuses another Mastodon tag than the recipe's.
    pub fn require_tag(&self, tag: &str) -> Result<()> {
        if self.image.app.tag == tag {
            return Ok(());
        }
        let message =
            format!("image `{}` has no tag `{tag}`: it carries {}", self.image.name, self.image.app.tag);
        Err(Fault::user(message).hint(format!("leave --tag out, or say --tag {}", self.image.app.tag)).into())
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
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if image.name.is_empty() || !image.name.chars().all(plain) {
            return Err(format!("key `name`: `{}` may have only a-z, 0-9 and `-`", image.name));
        }
        let word = |c: char| c.is_ascii_alphanumeric() || "+-.:".contains(c);
        for package in &image.debian.packages {
            if package.is_empty() || !package.chars().all(word) {
                return Err(format!("key `debian.packages`: `{package}` is not a package name"));
            }
        }
        if !image.debian.suite.chars().all(plain) || image.debian.suite.is_empty() {
            return Err(format!("key `debian.suite`: `{}` is not a suite's name", image.debian.suite));
        }
        let tag = &image.app.tag;
        if tag.is_empty()
            || !tag.starts_with(char::is_alphanumeric)
            || !tag.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        {
            return Err(format!("key `app.tag`: `{tag}` is not a tag's name"));
        }
        for (key, names) in [("overlays", &image.overlays), ("debian.components", &image.debian.components)] {
            if let Some(name) = names.iter().find(|name| name.is_empty() || !name.chars().all(plain)) {
                return Err(format!("key `{key}`: `{name}` may have only a-z, 0-9 and `-`"));
            }
        }
        for (key, folder) in
            [("app.folder", Some(&image.app.folder)), ("debian.before", image.debian.before.as_ref())]
        {
            let inside = |folder: &String| {
                Path::new(folder).components().all(|part| matches!(part, std::path::Component::Normal(_)))
            };
            if let Some(folder) = folder.filter(|folder| !inside(folder)) {
                return Err(format!("key `{key}`: `{folder}` must be a folder below the recipe's own"));
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
        Ok(())
    }
}

fn parse(path: &Path, text: &str, overrides: &[String]) -> Result<Image> {
    let named = |error: toml::de::Error| {
        Fault::user(format!("`{}`: {}", path.display(), error.to_string().trim_end()))
    };
    // The text is parsed as it stands first, so that an error points at its line and column.
    let image: Image = toml::from_str(text).map_err(named)?;
    if overrides.is_empty() {
        return Ok(image);
    }
    let mut table: toml::Table = toml::from_str(text).map_err(named)?;
    for assignment in overrides {
        set::apply(&mut table, assignment)?;
    }
    let image = table.try_into().map_err(|error: toml::de::Error| {
        Fault::user(format!("--set {}: {}", overrides.join(" --set "), error.to_string().trim_end()))
    });
    image.context("applying --set")
}
