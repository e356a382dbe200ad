//! `BaseTree`, the application's sources -> `AppLayer`: a tar of `/home/mastodon`, built in a root that has the tools.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::context::Context;
use crate::error::Fault;
use crate::recipe::Recipe;
use crate::resolve::Lock;
use crate::rootfs::BaseTree;
use crate::sandbox::Sandbox;
use crate::store::Key;

/// Raise when equal inputs give another layer.
const STAGE_VERSION: u32 = 2;

/// User id of `mastodon`, as in Mastodon's own container image.
pub const MASTODON_UID: u32 = 991;

/// A tar of the application's files.
#[derive(Debug, Clone)]
pub struct AppLayer {
    tar: PathBuf,
    key: Key,
}

impl AppLayer {
    /// The tar.
    pub fn tar(&self) -> &Path {
        &self.tar
    }

    /// Its key.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

/// Builds the layer, or takes it from the store.
pub fn build(recipe: &Recipe, base: &BaseTree, lock: &Lock, context: &Context) -> Result<(AppLayer, bool)> {
    let app = &recipe.image.app;
    let Some(folder) = &app.folder else {
        return Err(Fault::user("key `app.folder` is missing").into());
    };
    let epoch = lock.epoch;
    let source = recipe.folder.join(folder);
    if !source.join("live").is_dir() {
        let message = format!("key `app.folder`: `{}` has no folder `live`", source.display());
        return Err(Fault::user(message).into());
    }
    let digest = crate::digest::folder(&source)?;
    let options = Recipe::canonical(app)?;
    let key = Key::of("app", STAGE_VERSION, &[base.key().as_str(), &digest, &options, &epoch.to_string()]);
    let (folder, cached) = context.store.get_or_make("app-v1", &key, |folder| {
        context.reporter.doing("unpacking the base tree");
        let sandbox = Sandbox::unpack(base.tar(), context)?;
        sandbox.copy_in(&source.join("live"), "/home/mastodon/live", MASTODON_UID)?;
        if source.join("rbenv").is_dir() {
            sandbox.copy_in(&source.join("rbenv"), "/home/mastodon/.rbenv", MASTODON_UID)?;
        }
        sandbox.run(
            &["chown", &format!("{MASTODON_UID}:{MASTODON_UID}"), "/home/mastodon"],
            crate::sandbox::Network::None,
        )?;
        for command in &app.build {
            context.reporter.doing(command);
            sandbox.run_as(MASTODON_UID, "/home/mastodon/live", command)?;
        }
        context.reporter.doing("packing the layer");
        sandbox.pack("/home/mastodon", epoch, &folder.join("app.tar"))
    })?;
    Ok((AppLayer { tar: folder.join("app.tar"), key }, cached))
}
