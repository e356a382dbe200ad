//! Before the slow part of a build: are the programs there, and is there room? A build that cannot end does not begin.
//!
//! The forecast is made of what is known: the sizes that the package lists state, what the store has, the sources of the
//! application, the formats wanted. What has to be assumed is said. It is an upper bound, stage by stage: a stage's result stays in
//! the store, what it works with goes when it ends.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Result;
use fs_err as fs;
use serde::Serialize;

use crate::context::Context;
use crate::error::Fault;
use crate::export::Format;
use crate::recipe::{Base, Recipe, human};
use crate::resolve::{Lock, Sizes, Tree};
use crate::store::room;
use crate::{fetch, rootfs, tools};

const TOOLS: &[&str] =
    &["unshare", "tar", "grub-mkimage", "mke2fs", "e2fsck", "mkfs.vfat", "mcopy", "qemu-img"];

/// Refuses to start without the tools.
pub fn check(recipe: &Recipe, context: &Context) -> Result<()> {
    let mut wanted = TOOLS.to_vec();
    match recipe.base() {
        Base::Debian(_) => wanted.insert(0, "mmdebstrap"),
        Base::Rpm(_) => {}
    }
    if recipe.image.app.folder.is_none() {
        wanted.push("git");
    }
    tools::require(&wanted)?;
    tools::require_files()?;
    crate::disk::require_tools(context)?;
    if !rustix::process::geteuid().is_root() {
        tools::require(&["newuidmap"])?;
    }
    Ok(())
}

/// Bytes that a build needs at most at any one time, beside what is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// In the store.
    pub store: u64,
    /// In the folder of the artifacts.
    pub output: u64,
    /// What was not known, and what was taken for it.
    pub assumed: Vec<String>,
}

/// What a forecast is made of, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    /// The base tree as the store has it.
    base: Option<u64>,
    /// The image's packages, by their lists.
    packages: Option<Sizes>,
    /// Packages that are to be kept and not there yet.
    to_keep: u64,
    /// The throw-away root that installs the image's packages, and its copies of them.
    stage0: u64,
    /// The compilers.
    compilers: u64,
    /// The application's sources.
    sources: Option<u64>,
    /// The application is compiled, not only copied.
    compiled: bool,
}

/// What a build of the recipe needs; `None` where the size of its tree is not known yet. `sources` are the application's, in bytes.
pub fn forecast(
    recipe: &Recipe,
    lock: &Lock,
    sources: Option<u64>,
    formats: &[Format],
    context: &Context,
) -> Result<Option<Forecast>> {
    let files = context.store.root().join(fetch::KIND);
    let sum = |tree: Tree, size: fn(&crate::resolve::LockedPackage) -> u64| {
        lock.tree(tree).iter().fold(0_u64, |sum, package| sum.saturating_add(size(package)))
    };
    let image: Vec<&str> = lock.tree(Tree::Image).iter().map(|package| package.sha256.as_str()).collect();
    let missing = lock.packages.iter().filter(|package| !files.join(&package.sha256).is_file());
    let beyond =
        lock.tree(Tree::Build).into_iter().filter(|package| !image.contains(&package.sha256.as_str()));
    let known = Known {
        base: rootfs::kept(recipe, lock, context)?,
        packages: lock.sizes(),
        to_keep: missing.fold(0, |sum, package| sum.saturating_add(package.size)),
        stage0: sum(Tree::Bootstrap, |package| package.installed_size)
            .saturating_add(sum(Tree::Image, |package| package.size)),
        compilers: beyond
            .fold(0, |sum, package| sum.saturating_add(package.size).saturating_add(package.installed_size)),
        sources,
        compiled: recipe.image.app.folder.is_none() && context.layer.is_none(),
    };
    Ok(known.forecast(formats))
}

impl Known {
    fn forecast(&self, formats: &[Format]) -> Option<Forecast> {
        let mut assumed = Vec::new();
        let base = if let Some(base) = self.base {
            base
        } else {
            let installed = self.packages?.installed;
            assumed.push("a tenth more than the packages' lists say, for what their scripts make".to_owned());
            installed.saturating_add(installed / 10)
        };
        let sources = self.sources.unwrap_or_else(|| {
            assumed.push("nothing for the application, whose sources are not there yet".to_owned());
            0
        });
        let layer = if self.compiled && sources > 0 {
            assumed.push("the application twice as large as its sources".to_owned());
            sources.saturating_mul(2)
        } else {
            sources
        };
        let all = |parts: &[u64]| parts.iter().fold(0_u64, |sum, part| sum.saturating_add(*part));
        let image = all(&[base, layer]);
        // Packages are compressed better than a disk is, but not twice as well.
        let compressed = match self.packages {
            Some(packages) => all(&[packages.download, packages.download, layer]).min(image),
            None => image,
        };
        if formats.iter().any(|format| !matches!(format, Format::Raw | Format::Vhd)) {
            assumed.push(match self.packages {
                Some(_) => "a compressed disk at most twice as large as the packages".to_owned(),
                None => "a compressed disk as large as what it holds".to_owned(),
            });
        }
        let new_base = if self.base.is_some() { 0 } else { base };
        // Its packages are fetched into the tree itself.
        let fetched = self.packages.map_or(0, |packages| packages.download);
        let installing = if self.base.is_some() { 0 } else { all(&[fetched, self.stage0, base, base]) };
        let compiling = all(&[new_base, base, self.compilers, sources, layer, layer]);
        let writing = all(&[new_base, layer, image, image]);
        // The disks of an OVA are looked at one by one, out of it.
        let exporting = if formats.contains(&Format::Ova) { compressed } else { 0 };
        let exporting = all(&[writing, exporting]);
        let store = all(&[self.to_keep, installing.max(compiling).max(exporting)]);
        let output = formats
            .iter()
            .map(|format| if matches!(format, Format::Raw | Format::Vhd) { image } else { compressed });
        Some(Forecast { store, output: all(&output.collect::<Vec<_>>()), assumed })
    }
}

impl Forecast {
    /// Refuses to go on without the room; results of earlier builds make way for it.
    pub fn require(&self, output: &Path, context: &Context) -> Result<()> {
        let store = context.store.root();
        // The folder itself is made by the export; its nearest ancestor that is there tells the room.
        let output = output.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
        let shared = fs::metadata(store)?.dev() == fs::metadata(output)?.dev();
        let in_store = if shared { self.store.saturating_add(self.output) } else { self.store };
        let removed = context.store.make_room(in_store)?;
        if !removed.is_empty() {
            let bytes = removed.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
            context.reporter.note(&format!(
                "room was short: removed {} of earlier builds from the store ({} trees and disks)",
                human(bytes),
                removed.len()
            ));
        }
        if shared {
            return self.room(store, in_store, "the build, artifacts included,");
        }
        self.room(store, in_store, "the build")?;
        self.room(output, self.output, "the artifacts")
    }

    fn room(&self, folder: &Path, need: u64, what: &str) -> Result<()> {
        let free = room::free(folder)?;
        if free >= need {
            return Ok(());
        }
        let message = format!(
            "no space: `{}` has {} free, {what} may need {} ({})",
            folder.display(),
            human(free),
            human(need),
            self.assumed.join("; ")
        );
        Err(Fault::environment(message)
            .hint("free some, run `imgbuild clean`, or use another folder (IMGBUILD_STORE, --output)")
            .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Format; 3] = [Format::Raw, Format::Qcow2, Format::Ova];
    const MB: u64 = 1_000_000;

    /// What was measured of the demo, built anew: 1453 MB of base tree, at most 4818 MB in the store, 2431 MB of artifacts.
    fn demo() -> Known {
        let packages = Some(Sizes { download: 340 * MB, installed: 1503 * MB });
        Known { packages, sources: Some(MB), ..Known::default() }
    }

    #[test]
    fn the_forecast_is_not_under_what_a_build_took_and_not_far_above() {
        let forecast = demo().forecast(&ALL).unwrap();
        assert!((4818 * MB..6500 * MB).contains(&forecast.store), "{forecast:?}");
        assert!((2431 * MB..3500 * MB).contains(&forecast.output), "{forecast:?}");
        assert_eq!(forecast.assumed.len(), 2, "{forecast:?}");
    }

    #[test]
    fn what_the_store_has_is_not_needed_again() {
        let cold = demo().forecast(&ALL).unwrap();
        let warm = Known { base: Some(1453 * MB), ..demo() }.forecast(&ALL).unwrap();
        assert!(warm.store + 1453 * MB <= cold.store, "{warm:?} {cold:?}");
        let without_ova = demo().forecast(&[Format::Qcow2]).unwrap();
        assert!(without_ova.store < cold.store && without_ova.output < cold.output);
    }

    #[test]
    fn nothing_is_forecast_of_a_tree_that_nobody_has_measured() {
        assert_eq!(Known::default().forecast(&ALL), None);
        let absurd = Sizes { download: u64::MAX, installed: u64::MAX };
        let forecast = Known { packages: Some(absurd), ..demo() }.forecast(&ALL).unwrap();
        assert_eq!(forecast.store, u64::MAX, "a hostile list must not wrap round to a small number");
    }

    #[test]
    fn a_refusal_names_the_folder_the_need_and_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let context = Context::for_tests(&folder.path().join("store"));
        let forecast = Forecast { store: u64::MAX / 4, output: 1, assumed: vec!["much".to_owned()] };
        let error = forecast.require(&folder.path().join("not/there/yet"), &context).unwrap_err();
        let text = crate::error::render(&error);
        let store = context.store.root().display().to_string();
        assert!(text.contains(&format!("`{store}` has ")) && text.contains("(much)"), "{text}");
        assert!(text.contains("IMGBUILD_STORE") && crate::error::exit_code(&error) == 2, "{text}");
        assert!(
            Forecast { store: 1, output: 1, assumed: Vec::new() }.require(folder.path(), &context).is_ok()
        );
    }
}
