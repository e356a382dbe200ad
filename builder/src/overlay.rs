//! `BaseTree`, `AppLayer`, `Appliance`, overlays -> `ImageTree`: one tar with nothing of a machine in it.
//!
//! An overlay may add files; it replaces a package's file only when its `overlay.toml` says so. One pass over the base tree: its
//! members are copied, dropped or held back for an edit; what is added follows.

mod layer;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use firstboot::facts::ImageFacts;
use fs_err as fs;

use crate::app::AppLayer;
use crate::appliance::Appliance;
use crate::context::Context;
use crate::disk::Ids;
use crate::error::Fault;
use crate::recipe::{Boot, Recipe};
use crate::report::Unit;
use crate::resolve::{Lock, Tree};
use crate::rootfs::BaseTree;
use crate::store::Key;
use crate::tree::accounts::Accounts;
use crate::tree::machine_state::{self, Rule};
use crate::tree::path::{TreePath, of_member};
use crate::tree::units;
use crate::tree::writer::{Meta, TreeWriter};
use layer::{Content, Layer};

/// Raise when equal inputs give another tree.
const STAGE_VERSION: u32 = 4;
/// Unit files larger than this are no unit files.
const UNIT_LIMIT: u64 = 64 << 10;
const ACCOUNT_FILES: [&str; 4] = ["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"];

/// The finished tree.
#[derive(Debug, Clone)]
pub struct ImageTree {
    tar: PathBuf,
    esp: PathBuf,
    key: Key,
    ids: Ids,
    epoch: u64,
}

impl ImageTree {
    /// The tar of the root file system.
    pub fn tar(&self) -> &Path {
        &self.tar
    }

    /// The tar of what packages and the builder put below [`ESP`]: it belongs on the EFI system partition, which is mounted there.
    pub fn esp(&self) -> &Path {
        &self.esp
    }

    /// Its key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Identifiers of the file systems, which `/etc/fstab` names already.
    pub fn ids(&self) -> &Ids {
        &self.ids
    }

    /// Latest time of a file.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// The packages of an RPM image, for `inspect` and for people.
pub const PACKAGES: &str = "/usr/lib/appliance/packages";

/// Where the guest mounts the EFI system partition.
pub const ESP: &str = "/boot/efi";

/// Everything that the stage takes.
pub struct Inputs<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// The distribution.
    pub base: &'a BaseTree,
    /// The application.
    pub app: &'a AppLayer,
    /// The guest's program.
    pub appliance: &'a Appliance,
    /// The build's time, and which kernel the image has.
    pub lock: &'a Lock,
}

/// Lays everything together, or takes the result from the store.
pub fn lay(inputs: &Inputs<'_>, context: &Context) -> Result<(ImageTree, bool)> {
    let image = &inputs.recipe.image;
    let mut parts = vec![
        inputs.base.key().as_str().to_owned(),
        inputs.app.key().as_str().to_owned(),
        facts(inputs)?,
        inputs.appliance.key().as_str().to_owned(),
        Recipe::canonical(&(&image.guest, &image.boot, &image.overlays, &image.title, &image.app.tag))?,
        inputs.lock.epoch.to_string(),
    ];
    require(inputs.recipe, context)?;
    for name in &image.overlays {
        let folder = context.project.overlay(name);
        parts.push(crate::digest::folder(&folder)?);
    }
    let key = Key::of("overlay", STAGE_VERSION, &parts.iter().map(String::as_str).collect::<Vec<_>>());
    let ids = Ids::derive(&key);
    let (folder, cached) = context.store.get_or_make("tree-v1", &key, |folder| {
        let mut layer = Layer::default();
        for name in &image.overlays {
            layer.load(&context.project.overlay(name))?;
        }
        add_own_files(&mut layer, inputs, &ids)?;
        compose(layer, inputs, folder, context)
    })?;
    let (tar, esp) = (folder.join("image.tar"), folder.join("esp.tar"));
    Ok((ImageTree { tar, esp, key, ids, epoch: inputs.lock.epoch }, cached))
}

/// Refuses a recipe that names an overlay which is not there.
pub fn require(recipe: &Recipe, context: &Context) -> Result<()> {
    for name in &recipe.image.overlays {
        let file = context.project.overlay(name).join("overlay.toml");
        if !file.is_file() {
            let message =
                format!("key `overlays`: `{name}` is no overlay: `{}` does not exist", file.display());
            return Err(Fault::user(message).into());
        }
    }
    Ok(())
}

/// What first boot is told about the image, as text.
fn facts(inputs: &Inputs<'_>) -> Result<String> {
    let image = &inputs.recipe.image;
    let facts = ImageFacts {
        schema: 1,
        image: image.name.clone(),
        title: image.title.clone(),
        epoch: inputs.lock.epoch,
        tag: image.app.tag.clone(),
        postgresql: image.guest.postgresql.clone(),
        redis: image.guest.redis.clone(),
        nginx: image.guest.nginx.clone(),
        application: inputs.app.facts().clone(),
        system: image.guest.system.clone(),
    };
    Ok(toml::to_string(&facts)?)
}

/// The files that the builder itself makes.
fn add_own_files(layer: &mut Layer, inputs: &Inputs<'_>, ids: &Ids) -> Result<()> {
    let image = &inputs.recipe.image;
    layer.add(firstboot::facts::PATH, 0o644, Content::Bytes(facts(inputs)?.into_bytes()))?;
    layer.add("/usr/libexec/appliance", 0o755, Content::Host(inputs.appliance.path().to_owned()))?;
    layer.add("/usr/bin/appliance", 0o777, Content::Link("../libexec/appliance".to_owned()))?;
    layer.add("/etc/fstab", 0o644, Content::Bytes(crate::disk::fstab(ids).into_bytes()))?;
    layer.replace.insert("/etc/fstab".to_owned());
    if !inputs.lock.packages.is_empty() {
        layer.add(PACKAGES, 0o644, Content::Bytes(packages(inputs.lock).into_bytes()))?;
    }
    let boot = boot_with_kernel(&image.boot, inputs.base)?;
    for (path, text) in crate::disk::menus(&boot, &image.title, ids) {
        layer.add(path, 0o644, Content::Bytes(text.into_bytes()))?;
        layer.replace.insert(path.to_owned());
    }
    Ok(())
}

/// One line a package: name, version, architecture, repository. The rpm database of CentOS 7 can be read by its own rpm alone.
fn packages(lock: &Lock) -> String {
    let line = |package: &&crate::resolve::LockedPackage| {
        format!("{} {} {} {}\n", package.name, package.evr, package.arch, package.repository)
    };
    lock.tree(Tree::Image).iter().map(line).collect()
}

/// The recipe's paths, with the version of the kernel that the image has.
fn boot_with_kernel(boot: &Boot, base: &BaseTree) -> Result<Boot> {
    const PLACE: &str = "{kernel}";
    let mut boot = boot.clone();
    if [&boot.kernel, &boot.initrd].iter().any(|path| path.contains(PLACE)) {
        let version = base.kernel().ok_or_else(|| {
            Fault::user("table `boot` says `{kernel}`, and no package brought a `/boot/vmlinuz-…`")
                .hint("is `kernel` among the packages?")
        })?;
        boot.kernel = boot.kernel.replace(PLACE, &version);
        boot.initrd = boot.initrd.replace(PLACE, &version);
    }
    Ok(boot)
}

fn compose(layer: Layer, inputs: &Inputs<'_>, folder: &Path, context: &Context) -> Result<()> {
    let epoch = inputs.lock.epoch;
    let writer = |name: &str| -> Result<_> {
        let file = fs::File::create(folder.join(name))?;
        Ok(TreeWriter::new(BufWriter::with_capacity(1 << 20, file), epoch))
    };
    let mut composer = Composer::new(layer, writer("image.tar")?, writer("esp.tar")?);
    let total = fs::metadata(inputs.base.tar())?.len();
    let base = tar::Archive::new(BufReader::with_capacity(1 << 20, fs::File::open(inputs.base.tar())?));
    composer.copy_base(base, |done| context.reporter.progress(done, total, Unit::Bytes))?;
    composer.copy_app(tar::Archive::new(BufReader::new(fs::File::open(inputs.app.tar())?)))?;
    for writer in composer.finish(epoch)? {
        writer.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    }
    Ok(())
}

struct Composer<W: Write> {
    layer: Layer,
    writer: TreeWriter<W>,
    /// What lies on the EFI system partition.
    esp: TreeWriter<W>,
    /// Folders that the tar has.
    folders: BTreeSet<TreePath>,
    accounts: Accounts,
    account_meta: BTreeMap<&'static str, Meta>,
    /// Texts of unit files by name.
    units: BTreeMap<String, (String, String)>,
}

impl<W: Write> Composer<W> {
    fn new(layer: Layer, writer: TreeWriter<W>, esp: TreeWriter<W>) -> Self {
        let accounts = Accounts::default();
        Composer {
            layer,
            writer,
            esp,
            folders: BTreeSet::new(),
            accounts,
            account_meta: BTreeMap::new(),
            units: BTreeMap::new(),
        }
    }

    fn copy_base<R: Read>(&mut self, mut base: tar::Archive<R>, progress: impl Fn(u64)) -> Result<()> {
        for entry in base.entries()? {
            let mut entry = entry?;
            progress(entry.raw_file_position());
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = of_member(&name).map_err(|message| anyhow!(message))?;
            self.base_member(&mut entry, &path)?;
        }
        Ok(())
    }

    fn base_member<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, path: &TreePath) -> Result<()> {
        let is_folder = entry.header().entry_type().is_dir();
        if self.layer.removes(path) {
            return Ok(());
        }
        match machine_state::rule(path) {
            Some((Rule::Drop, _)) => return Ok(()),
            Some((Rule::DropFiles, _)) if !is_folder => return Ok(()),
            Some((Rule::Empty, _)) => return self.writer.file(path, meta_of(entry)?, b""),
            _ => {}
        }
        if path.as_str().starts_with("/dev/") {
            // The kernel's devtmpfs brings them.
            return Ok(());
        }
        if let Some(file) = ACCOUNT_FILES.iter().find(|file| **file == path.as_str()) {
            self.account_meta.insert(file, meta_of(entry)?);
            return self.read_account(entry, file);
        }
        if dangles(entry, path)? {
            return Ok(());
        }
        if let Some(target) = entry.link_name()?.filter(|_| entry.header().entry_type().is_symlink())
            && self
                .layer
                .disable
                .iter()
                .any(|unit| units::enables(path.as_str(), &target.to_string_lossy(), unit))
        {
            return Ok(());
        }
        if let Some(added) = self.layer.files.get(path) {
            if is_folder && matches!(added.content, Content::Folder) {
                // The package's folder and the overlay's are one; the package's owner and mode hold unless stated.
                self.folders.insert(path.clone());
                self.layer.files.remove(path);
                return self.writer.copy(entry, path);
            }
            if !self.layer.replace.contains(path.as_str()) {
                let message = format!("`{}` would replace `{path}`, which a package brought", added.origin);
                return Err(Fault::user(message)
                    .hint("name it under `replace` in overlay.toml if that is meant")
                    .into());
            }
            return Ok(());
        }
        if on_esp(path) {
            return if is_folder { Ok(()) } else { self.esp.copy(entry, path) };
        }
        if is_folder {
            self.folders.insert(path.clone());
        }
        if units::is_unit_path(path.as_str())
            && entry.header().entry_type().is_file()
            && entry.size() < UNIT_LIMIT
        {
            let mut text = Vec::new();
            entry.read_to_end(&mut text)?;
            self.units.insert(
                path.name().to_owned(),
                (path.to_string(), String::from_utf8_lossy(&text).into_owned()),
            );
            return self.writer.copy_read(entry, path, &text);
        }
        self.writer.copy(entry, path)
    }

    fn read_account<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, file: &str) -> Result<()> {
        let mut text = String::new();
        entry.read_to_string(&mut text).with_context(|| format!("reading `{file}` of the base tree"))?;
        match file {
            "/etc/passwd" => self.accounts.passwd = text,
            "/etc/group" => self.accounts.group = text,
            "/etc/shadow" => self.accounts.shadow = text,
            _ => self.accounts.gshadow = text,
        }
        Ok(())
    }

    fn copy_app<R: Read>(&mut self, mut app: tar::Archive<R>) -> Result<()> {
        {
            let parent = "/home";
            let path: TreePath = parent.parse().map_err(|message: String| anyhow!(message))?;
            if self.folders.insert(path.clone()) {
                self.writer.folder(&path, Meta::root(0o755))?;
            }
        }
        for entry in app.entries()? {
            let mut entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = of_member(&name).map_err(|message| anyhow!(message))?;
            if path.is_within("/home/mastodon")
                && machine_state::rule(&path).is_none()
                && !self.layer.files.contains_key(&path)
            {
                if entry.header().entry_type().is_dir() {
                    self.folders.insert(path.clone());
                    if let Some(meta) = self.stated_meta(&path)? {
                        self.writer.folder(&path, meta)?;
                        continue;
                    }
                }
                self.writer.copy(&mut entry, &path)?;
            }
        }
        Ok(())
    }

    /// Owner and mode that an `overlay.toml` states for a path.
    fn stated_meta(&self, path: &TreePath) -> Result<Option<Meta>> {
        let Some(stated) = self.layer.paths.get(path) else { return Ok(None) };
        let mut meta = Meta::root(stated.mode);
        if let Some(owner) = &stated.owner {
            // Users that overlays bring are not in the base tree's passwd yet.
            let found =
                self.layer.users.iter().find(|user| user.name == *owner).map(|user| (user.uid, user.uid));
            (meta.uid, meta.gid) = found
                .or_else(|| self.accounts.user(owner))
                .ok_or_else(|| Fault::user(format!("`{path}`: no user `{owner}` in the tree")))?;
        }
        if let Some(group) = &stated.group {
            let found = self.layer.users.iter().find(|user| user.name == *group).map(|user| user.uid);
            meta.gid = found
                .or_else(|| self.accounts.group(group))
                .ok_or_else(|| Fault::user(format!("`{path}`: no group `{group}` in the tree")))?;
        }
        Ok(Some(meta))
    }

    fn finish(mut self, epoch: u64) -> Result<[W; 2]> {
        for user in &self.layer.users {
            self.accounts.add(user, epoch / 86_400).map_err(Fault::user)?;
        }
        let files = std::mem::take(&mut self.layer.files);
        for (path, added) in &files {
            if let (Content::Host(host), true) = (&added.content, units::is_unit_path(path.as_str())) {
                self.units.insert(path.name().to_owned(), (path.to_string(), fs::read_to_string(host)?));
            }
        }
        for (path, added) in files {
            if let (true, Content::Bytes(bytes)) = (on_esp(&path), &added.content) {
                self.esp.file(&path, Meta::root(0o700), bytes)?;
                continue;
            }
            self.make_parents(&path)?;
            let meta = self.stated_meta(&path)?.unwrap_or(Meta::root(added.mode));
            match added.content {
                Content::Folder => {
                    if self.folders.insert(path.clone()) {
                        self.writer.folder(&path, meta)?;
                    }
                }
                Content::Link(target) => self.writer.link(&path, &target)?,
                Content::Bytes(bytes) => self.writer.file(&path, meta, &bytes)?,
                Content::Host(host) => self.writer.file(&path, meta, &fs::read(host)?)?,
            }
        }
        for (path, _) in self.layer.paths.clone() {
            // A path that is stated and came with nothing is an empty folder.
            if self.layer.stated_folder(&path) && !self.folders.contains(&path) {
                self.make_parents(&path)?;
                let meta = self.stated_meta(&path)?.unwrap_or(Meta::root(0o755));
                self.folders.insert(path.clone());
                self.writer.folder(&path, meta)?;
            }
        }
        self.enable_units()?;
        let texts =
            [&self.accounts.passwd, &self.accounts.group, &self.accounts.shadow, &self.accounts.gshadow]
                .map(Clone::clone);
        for (file, text) in ACCOUNT_FILES.iter().zip(texts) {
            let path: TreePath = file.parse().map_err(|message: String| anyhow!(message))?;
            let mode = if file.ends_with("shadow") { 0o640 } else { 0o644 };
            let meta = self.account_meta.get(file).copied().unwrap_or(Meta::root(mode));
            self.writer.file(&path, meta, text.as_bytes())?;
        }
        Ok([self.writer.finish()?, self.esp.finish()?])
    }

    fn enable_units(&mut self) -> Result<()> {
        let mut links: BTreeMap<String, String> = BTreeMap::new();
        for unit in &self.layer.enable {
            let (path, text) = self.units.get(unit).ok_or_else(|| {
                Fault::user(format!("an overlay enables `{unit}`, which is not in the tree"))
            })?;
            let wanted = units::install_links(unit, path, text);
            if wanted.is_empty() {
                return Err(Fault::user(format!(
                    "an overlay enables `{unit}`, which has no [Install] section"
                ))
                .into());
            }
            links.extend(wanted);
        }
        for unit in &self.layer.mask {
            links.insert(format!("/etc/systemd/system/{unit}"), "/dev/null".to_owned());
        }
        for (link, target) in links {
            let path: TreePath = link.parse().map_err(|message: String| anyhow!(message))?;
            self.make_parents(&path)?;
            self.writer.link(&path, &target)?;
        }
        Ok(())
    }

    fn make_parents(&mut self, path: &TreePath) -> Result<()> {
        let mut missing = Vec::new();
        let mut parent = path.parent();
        while let Some(folder) = parent {
            if self.folders.contains(&folder) || folder == TreePath::root() {
                break;
            }
            parent = folder.parent();
            missing.push(folder);
        }
        for folder in missing.into_iter().rev() {
            let meta = self.stated_meta(&folder)?.unwrap_or(Meta::root(0o755));
            self.writer.folder(&folder, meta)?;
            self.folders.insert(folder);
        }
        Ok(())
    }
}

/// A link beside a file that the image does not have, such as the one named after the hash of the build host's certificate.
fn dangles<R: Read>(entry: &tar::Entry<'_, R>, path: &TreePath) -> Result<bool> {
    let Some(target) = entry.link_name()?.filter(|_| entry.header().entry_type().is_symlink()) else {
        return Ok(false);
    };
    let beside = path.parent().zip(target.to_str().filter(|name| !name.contains('/')));
    let beside = beside.and_then(|(folder, name)| folder.join(name).ok());
    Ok(beside.is_some_and(|target| matches!(machine_state::rule(&target), Some((Rule::Drop, _)))))
}

/// Below the mount point of the EFI system partition.
fn on_esp(path: &TreePath) -> bool {
    path.is_within(ESP) && path.as_str() != ESP
}

fn meta_of<R: Read>(entry: &tar::Entry<'_, R>) -> Result<Meta> {
    let header = entry.header();
    let number = |value: u64| u32::try_from(value).context("an owner's number is out of range");
    Ok(Meta { mode: header.mode()?, uid: number(header.uid()?)?, gid: number(header.gid()?)? })
}
