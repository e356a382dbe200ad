//! What a cut takes in the model, on small trees.

use std::cell::RefCell;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Kept, Layer, Loss, Plan, arm, entries, with};
use crate::durable;

thread_local! {
    static LAYER: RefCell<Option<Layer>> = const { RefCell::new(None) };
}

/// A layer for each thread: tests run beside each other.
pub(super) fn layer<T>(act: impl FnOnce(&mut Option<Layer>) -> T) -> T {
    LAYER.with_borrow_mut(act)
}

fn new(loss: Loss) -> Layer {
    Layer::new(Plan { at: u64::MAX, loss })
}

/// Makes a file as durable.rs does.
fn make(layer: &mut Layer, path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    layer.created(path);
    layer.dirty.push(path.to_owned());
}

fn rename(layer: &mut Layer, from: &Path, to: &Path) {
    let kept = Kept(layer.keep(to));
    fs::rename(from, to).unwrap();
    layer.renamed(from, to, kept);
}

/// Every file below a folder with its content.
fn shown(folder: &Path) -> String {
    let one = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            format!("{name}({})", shown(path))
        } else {
            format!("{name}={}", fs::read_to_string(path).unwrap())
        }
    };
    entries(folder).iter().map(|path| one(path)).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_replaced_file_is_the_old_one_or_the_new_one_only_if_both_syncs_are_made() {
    for (sync_file, sync_folder, expected) in [
        (true, true, "file=new"),
        (true, false, "file=old"),
        (false, false, "file=old"),
        (false, true, "file="),
    ] {
        let guard = tempfile::tempdir().unwrap();
        let (root, path) = (guard.path(), guard.path().join("file"));
        fs::write(&path, "old").unwrap();
        let mut layer = new(Loss::All);
        let temp = root.join("file.new");
        make(&mut layer, &temp, "new");
        if sync_file {
            layer.synced(&temp);
        }
        rename(&mut layer, &temp, &path);
        if sync_folder {
            layer.synced(root);
        }
        layer.lose();
        assert_eq!(shown(root), expected, "{sync_file} {sync_folder}");
    }
}

#[test]
fn what_a_program_made_is_lost_from_a_tree_that_was_renamed_without_a_sync() {
    for (sync, expected) in
        [("nothing", "data()"), ("folder", "data(a=)"), ("file", "data()"), ("both", "data(a=made)")]
    {
        let guard = tempfile::tempdir().unwrap();
        let (root, temp, data) = (guard.path(), guard.path().join("data.new"), guard.path().join("data"));
        let mut layer = new(Loss::All);
        fs::create_dir(&temp).unwrap();
        layer.created(&temp);
        fs::write(temp.join("a"), "made").unwrap();
        if sync == "file" || sync == "both" {
            layer.synced(&temp.join("a"));
        }
        if sync == "folder" || sync == "both" {
            layer.synced(&temp);
        }
        rename(&mut layer, &temp, &data);
        layer.synced(root);
        layer.lose();
        assert_eq!(shown(root), expected, "{sync}");
    }
}

#[test]
fn what_was_removed_comes_back_unless_its_folder_was_synced() {
    for sync in [false, true] {
        let guard = tempfile::tempdir().unwrap();
        let root = guard.path();
        fs::create_dir(root.join("tree")).unwrap();
        fs::write(root.join("tree/a"), "1").unwrap();
        fs::write(root.join("b"), "2").unwrap();
        let mut layer = new(Loss::All);
        assert!(layer.bury(&root.join("tree")) && layer.bury(&root.join("b")));
        if sync {
            layer.synced(root);
        }
        layer.lose();
        assert_eq!(shown(root), if sync { "" } else { "b=2 tree(a=1)" });
    }
}

#[test]
fn a_part_of_the_names_is_the_first_ones() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let guard = tempfile::tempdir().unwrap();
        let root = guard.path();
        let mut layer = new(Loss::Some(seed));
        for name in ["a", "b"] {
            make(&mut layer, &root.join(name), "x");
        }
        layer.lose();
        seen.insert(shown(root));
    }
    let seen: Vec<_> = seen.iter().map(String::as_str).collect();
    assert_eq!(seen, ["", "a=", "a= b=", "a= b=x", "a=x", "a=x b=", "a=x b=x"]);
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_mode_is_lost_from_a_name_that_lasts() {
    for (is_synced, expected) in [(false, 0o700), (true, 0o750)] {
        let guard = tempfile::tempdir().unwrap();
        let (root, temp, data) = (guard.path(), guard.path().join("data.new"), guard.path().join("data"));
        let mut layer = new(Loss::All);
        fs::create_dir(&temp).unwrap();
        layer.created(&temp);
        fs::set_permissions(&temp, Permissions::from_mode(0o700)).unwrap();
        let before = temp.metadata().unwrap();
        fs::set_permissions(&temp, Permissions::from_mode(0o750)).unwrap();
        layer.changed(&temp, &before);
        if is_synced {
            layer.synced(&temp);
        }
        rename(&mut layer, &temp, &data);
        layer.synced(root);
        layer.lose();
        assert_eq!(mode(&data), expected, "{is_synced}");
    }
}

#[test]
fn what_durable_has_returned_for_is_not_lost() {
    let guard = tempfile::tempdir().unwrap();
    let root = guard.path();
    arm(Plan { at: u64::MAX, loss: Loss::All });
    durable::folder_with(&root.join("deep/folder"), 0o750, None).unwrap();
    durable::write(&root.join("deep/file"), b"text", 0o604, None).unwrap();
    durable::folder_with(&root.join("deep/other"), 0o700, None).unwrap();
    durable::folder_with(&root.join("deep/other"), 0o711, None).unwrap();
    with(Layer::lose);
    assert_eq!(shown(root), "deep(file=text folder() other())");
    assert_eq!(
        ["folder", "file", "other"].map(|name| mode(&root.join("deep").join(name))),
        [0o750, 0o604, 0o711]
    );
}
