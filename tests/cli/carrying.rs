//! `fetch`, `--export`, `--import`, `--offline`: the inputs of a build without a network, and folders that somebody tampered with.

use std::path::{Path, PathBuf};

use fs_err as fs;
use testkit::sandbox::Sandbox;

use crate::ground::Ground;
use crate::{assert_nothing_left, imgbuild, transcript};

#[test]
fn what_was_fetched_is_enough() {
    let ground = Ground::new();
    insta::assert_snapshot!(ground.text(ground.command(&["fetch"]).arg("--offline")), @r"
    exit code 2
    error: stage resolve: --offline, and the store has no lock for image `centos7-stand-in`
    hint: build it once with a network, or bring its inputs with `imgbuild fetch --import DIR`
    ");
    ground.done(&["fetch"]);
    let bash = imgbuild::digest::file(&ground.repository.package("bash").unwrap()).unwrap();
    fs::remove_dir_all(ground.repository.folder.join("Packages")).unwrap();
    fs::remove_dir_all(ground.repository.folder.join("repodata")).unwrap();
    ground.done(&["fetch", "--offline"]);
    let store = ground.sandbox.store().join("files-v1");
    // A file that rotted in the store is not used, and is not in the way either.
    let file = store.join(bash);
    ground.repository.flip_byte(&file).unwrap();
    insta::assert_snapshot!(ground.text(ground.command(&["fetch"]).arg("--offline")), @r"
    exit code 2
    error: stage packages: `bash-5.2.15-2+b2.x86_64.rpm` was damaged in the store, and has been removed
    hint: run imgbuild again
    ");
    insta::assert_snapshot!(ground.text(ground.command(&["fetch"]).arg("--offline")), @r"
    exit code 2
    error: stage packages: --offline, and the store does not have bash-5.2.15-2+b2.x86_64.rpm (repository `stand-in`)
    hint: fetch it once with a network, or bring it with `imgbuild fetch --import DIR`
    ");
}

/// Exports; the guest's program, which takes minutes to build, is one that does nothing.
fn export(ground: &Ground) -> PathBuf {
    let program = ground.sandbox.write("appliance", "\x7fELF, as far as anybody looks").unwrap();
    let folder = ground.path("export");
    ground.done(&["fetch", "--appliance", program.to_str().unwrap(), "--export", folder.to_str().unwrap()]);
    folder
}

/// Imports into an empty store.
fn import(ground: &Ground, folder: &Path, sandbox: &Sandbox) -> String {
    let mut command = ground.bare(&["fetch"]);
    command.arg("--import").arg(folder).envs(sandbox.environment());
    transcript(&ground.sandbox, &mut command)
}

#[test]
fn inputs_that_were_carried_are_enough() {
    let ground = Ground::new();
    let folder = export(&ground);
    let other = Sandbox::new().unwrap();
    insta::assert_snapshot!(import(&ground, &folder, &other), @r"
    exit code 0
    18 files are in the store; build with --offline, and with the same --key
    ");
    fs::remove_dir_all(ground.repository.folder.join("Packages")).unwrap();
    let mut command = ground.command(&["fetch", "--offline"]);
    insta::assert_snapshot!(ground.text(command.envs(other.environment())), @r"
    exit code 0
    18 packages, [SIZE], are in the store
    ");
    // The key is asked for there too.
    let mut command = ground.bare(&["fetch", "--offline"]);
    insta::assert_snapshot!(ground.text(command.envs(other.environment())), @r"
    exit code 2
    error: stage packages: repository `stand-in`: package base-files-12.4-0.x86_64: it is signed by the key [FINGERPRINT]; no key is accepted
    hint: pin that key in the recipe, or name its file with --key NAME=FILE, if you trust its owner with everything in the image
    ");
}

#[test]
fn what_was_damaged_on_its_way_is_named() {
    let ground = Ground::new();
    let folder = export(&ground);
    let digest = imgbuild::digest::file(&ground.repository.package("bash").unwrap()).unwrap();
    let file = folder.join("files").join(digest);
    ground.repository.flip_byte(&file).unwrap();
    let other = Sandbox::new().unwrap();
    insta::assert_snapshot!(import(&ground, &folder, &other), @r"
    exit code 1
    error: `[SANDBOX]/home/export/files/[SHA-256]` (bash-5.2.15-2+b2.x86_64.rpm) is not what `inputs.json` says: damaged on its way
    hint: copy it again, or export it again
    ");
    fs::remove_file(file).unwrap();
    insta::assert_snapshot!(import(&ground, &folder, &other), @r"
    exit code 1
    error: the import lacks bash-5.2.15-2+b2.x86_64.rpm: failed to query resolved metadata `[SANDBOX]/home/export/files/[SHA-256]`: No such file or directory (os error 2)
    hint: copy it again, or export it again
    ");
    fs::remove_file(folder.join("inputs.json")).unwrap();
    insta::assert_snapshot!(import(&ground, &folder, &other), @r"
    exit code 1
    error: `[SANDBOX]/home/export` is no folder that `imgbuild fetch --export` wrote: failed to open file `[SANDBOX]/home/export/inputs.json`: No such file or directory (os error 2)
    ");
    let left = other.leftovers().unwrap();
    for path in left.iter().filter(|path| path.is_file() && !path.starts_with(other.store().join("logs"))) {
        assert_eq!(imgbuild::digest::file(path).unwrap(), path.file_name().unwrap().to_str().unwrap());
    }
    assert!(!other.store().join("locks").exists());
}

#[test]
fn a_hostile_list_of_inputs_is_refused() {
    let ground = Ground::new();
    let folder = export(&ground);
    let list = folder.join("inputs.json");
    let good = fs::read_to_string(&list).unwrap();
    let refused = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = serde_json::from_str(&good).unwrap();
        change(&mut value);
        fs::write(&list, value.to_string()).unwrap();
        let other = Sandbox::new().unwrap();
        let text = import(&ground, &folder, &other);
        assert_nothing_left(&other);
        text
    };
    let key = "0".repeat(64);
    let entry = |kind: &str, key: &str, name: &str| {
        let tar = serde_json::json!({ "name": name, "size": 1, "sha256": "0".repeat(64) });
        serde_json::json!([{ "kind": kind, "key": key, "tar": tar }])
    };
    insta::assert_snapshot!(refused(&|list| {
        list["files"] = serde_json::json!([]);
        list["entries"] = entry("../x", &key, "x.tar");
    }), @r"
    exit code 1
    error: `[SANDBOX]/home/export/inputs.json`: `../x` is nothing that can be imported
    hint: make the folder again with `imgbuild fetch --export`
    ");
    insta::assert_snapshot!(refused(&|list| {
        list["files"] = serde_json::json!([]);
        list["entries"] = entry("source-v1", "../x", "x.tar");
    }), @r"
    exit code 1
    error: `[SANDBOX]/home/export/inputs.json`: `../x` is no key
    hint: make the folder again with `imgbuild fetch --export`
    ");
    insta::assert_snapshot!(refused(&|list| {
        list["files"] = serde_json::json!([]);
        list["entries"] = entry("source-v1", &key, "../../x.tar");
    }), @r"
    exit code 1
    error: `[SANDBOX]/home/export/inputs.json`: `../../x.tar` is no plain file name
    hint: make the folder again with `imgbuild fetch --export`
    ");
    insta::assert_snapshot!(refused(&|list| list["files"][0]["sha256"] = "../../etc/passwd".into()), @r"
    exit code 1
    error: `[SANDBOX]/home/export/inputs.json`: `../../etc/passwd` is no plain file name
    hint: make the folder again with `imgbuild fetch --export`
    ");
    insta::assert_snapshot!(refused(&|list| list["lock"]["package"][0]["location"] = "../x.rpm".into()), @r"
    exit code 1
    error: `[SANDBOX]/home/export/inputs.json`: package `base-files`: key `location`: `../x.rpm` is no path below a repository
    hint: make the folder again with `imgbuild fetch --export`
    ");
    insta::assert_snapshot!(refused(&|list| list["image"] = "demo".into()), @r"
    exit code 1
    error: `[SANDBOX]/home/export/inputs.json` has the inputs of image `demo` in format 1; wanted: `centos7-stand-in` in format 1
    hint: export that image's inputs with this version of imgbuild
    ");
    // Where in its one long line is not the point.
    let unknown = refused(&|list| list["more"] = 1.into());
    insta::assert_snapshot!(unknown.lines().take(2).map(|line| line.split(" at line").next().unwrap()).collect::<Vec<_>>().join("\n"), @r"
    exit code 1
    error: `[SANDBOX]/home/export/inputs.json`: unknown field `more`, expected one of `schema`, `image`, `lock`, `files`, `entries`
    ");
    fs::write(&list, "{").unwrap();
    insta::assert_snapshot!(import(&ground, &folder, &Sandbox::new().unwrap()), @r"
    exit code 1
    error: `[SANDBOX]/home/export/inputs.json`: EOF while parsing an object at line 1 column 1
    hint: make the folder again with `imgbuild fetch --export`
    ");
}

#[test]
fn layers_that_are_none() {
    let sandbox = Sandbox::new().unwrap();
    let build = |arguments: &[&str]| {
        let mut command = imgbuild(&sandbox);
        let text = transcript(
            &sandbox,
            command.arg("--quiet").args(arguments).arg("--output").arg(sandbox.output()),
        );
        assert_nothing_left(&sandbox);
        text
    };
    insta::assert_snapshot!(build(&["build", "--app", "Cargo.toml"]), @r"
    exit code 1
    error: `Cargo.toml`: it is no layer: `layer.toml` is not where it must be
    hint: `imgbuild app export` makes such files
    ");
    insta::assert_snapshot!(build(&["build", "--app", "nosuch.tar.zst"]), @r"
    exit code 1
    error: failed to open file `nosuch.tar.zst`: No such file or directory (os error 2)
    ");
    insta::assert_snapshot!(build(&["build", "--image", "demo", "--app", "Cargo.toml"]), @r"
    exit code 1
    error: --app: image `demo` carries a stand-in, no layer has a place in it
    hint: leave --app or --image out
    ");
    let mut command = imgbuild(&sandbox);
    command.args(["app", "export", "--image", "demo"]).arg(sandbox.output().join("layer.tar.zst"));
    insta::assert_snapshot!(transcript(&sandbox, &mut command), @r"
    exit code 1
    error: image `demo` carries a stand-in, which every builder has
    ");
    assert_nothing_left(&sandbox);
}
