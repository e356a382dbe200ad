//! Packages that must not get into an image: what a user reads when a repository is wrong, and that no trace of it stays.

use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::ground::{Ground, edit};

/// What `fetch` says, whatever it is; the store must have nothing that is not what its name says.
fn fetch(ground: &Ground) -> String {
    let text = ground.text(&mut ground.command(&["fetch"]));
    ground.assert_only_fetched();
    text
}

fn package(ground: &Ground, name: &str) -> PathBuf {
    ground.repository.package(name).unwrap()
}

#[test]
fn a_sound_repository_is_taken() {
    let ground = Ground::new();
    insta::assert_snapshot!(fetch(&ground), @r"
    exit code 0
    18 packages, [SIZE], are in the store
    ");
}

#[test]
fn a_package_with_one_changed_byte() {
    let ground = Ground::new();
    ground.repository.flip_byte(&package(&ground, "bash")).unwrap();
    insta::assert_snapshot!(fetch(&ground), @r"
    exit code 2
    error: stage packages: cannot be had: bash-5.2.15-2+b2.x86_64.rpm (repository `stand-in`): file://[SANDBOX]/home/mirror/Packages/bash-5.2.15-2+b2.x86_64.rpm: its SHA-256 is [SHA-256], expected [SHA-256]
    hint: use a mirror that you can reach: --mirror NAME=URL (`imgbuild plan` names them; file:///… works too)
    hint: or bring the files from a machine that has them: `imgbuild fetch --export DIR` there, `imgbuild fetch --import DIR` here
    hint: or build what needs Debian's mirror alone: `imgbuild --image demo`
    ");
    // With metadata that say so too, the signature alone can tell.
    ground.repository.index().unwrap();
    insta::assert_snapshot!(fetch(&ground), @r"
    exit code 2
    error: stage packages: repository `stand-in`: package bash-5.2.15-2+b2.x86_64: its payload is damaged: SHA256 [SHA-256], not [SHA-256]
    hint: its file is `[SANDBOX]/store/files-v1/[SHA-256]`; take the package from another mirror
    ");
}

#[test]
fn a_package_that_is_cut_off() {
    let ground = Ground::new();
    ground.repository.truncate(&package(&ground, "dash")).unwrap();
    insta::assert_snapshot!(fetch(&ground), @r"
    exit code 2
    error: stage packages: cannot be had: dash-0.5.12-2.x86_64.rpm (repository `stand-in`): file://[SANDBOX]/home/mirror/Packages/dash-0.5.12-2.x86_64.rpm: it is truncated: [SIZE] of [SIZE]
    hint: use a mirror that you can reach: --mirror NAME=URL (`imgbuild plan` names them; file:///… works too)
    hint: or bring the files from a machine that has them: `imgbuild fetch --export DIR` there, `imgbuild fetch --import DIR` here
    hint: or build what needs Debian's mirror alone: `imgbuild --image demo`
    ");
}

#[test]
fn a_package_that_somebody_else_signed() {
    let ground = Ground::new();
    ground.repository.resign_with_other_key(&package(&ground, "bash")).unwrap();
    ground.repository.index().unwrap();
    insta::assert_snapshot!(fetch(&ground), @r"
    exit code 2
    error: stage packages: repository `stand-in`: package bash-5.2.15-2+b2.x86_64: it is signed by the key [FINGERPRINT]; accepted are [FINGERPRINT]
    hint: pin that key in the recipe, or name its file with --key NAME=FILE, if you trust its owner with everything in the image
    ");
}

#[test]
fn a_package_that_nobody_signed() {
    let ground = Ground::new();
    ground.repository.unsign(&package(&ground, "bash")).unwrap();
    ground.repository.index().unwrap();
    insta::assert_snapshot!(fetch(&ground), @r"
    exit code 2
    error: stage packages: repository `stand-in`: package bash-5.2.15-2+b2.x86_64: it is not signed; accepted are [FINGERPRINT]
    hint: take it from a repository that signs its packages
    ");
}

#[test]
fn a_package_whose_path_leads_out_of_the_tree() {
    let ground = Ground::new();
    ground.done(&["lock"]);
    let file = package(&ground, "stand-in-data");
    let about = |path: &Path| (imgbuild::digest::file(path).unwrap(), fs::metadata(path).unwrap().len());
    let (digest, size) = about(&file);
    ground.repository.with_escaping_path(&file).unwrap();
    // Signed and pinned: nothing is wrong with it but the path.
    let lock = ground.image().join("image.lock");
    let (new_digest, new_size) = about(&file);
    edit(&lock, &digest, &new_digest);
    let text = fs::read_to_string(&lock).unwrap();
    let (before, entry) = text.split_once("name = \"stand-in-data\"").unwrap();
    let entry = entry.replacen(&format!("\nsize = {size}\n"), &format!("\nsize = {new_size}\n"), 1);
    fs::write(&lock, format!("{before}name = \"stand-in-data\"{entry}")).unwrap();
    insta::assert_snapshot!(fetch(&ground), @r"
    exit code 2
    error: stage packages: repository `stand-in`: package stand-in-data-1:1.0-1.stand_in.noarch: path `/../../../../../../../etc/x/data` leads out of the tree
    hint: do not use this package: no builder makes such a path
    ");
}

#[test]
fn packages_without_any_key() {
    let ground = Ground::new();
    let text = ground.text(&mut ground.without_key(&["fetch"]));
    ground.assert_only_fetched();
    insta::assert_snapshot!(text, @r"
    exit code 2
    error: stage packages: repository `stand-in`: package base-files-12.4-0.x86_64: it is signed by the key [FINGERPRINT]; no key is accepted
    hint: pin that key in the recipe, or name its file with --key NAME=FILE, if you trust its owner with everything in the image
    ");
}

#[test]
fn metadata_that_are_not_what_the_index_says() {
    let ground = Ground::new();
    let repodata = ground.repository.folder.join("repodata");
    let primary = fs::read_dir(&repodata)
        .unwrap()
        .map(|file| file.unwrap().path())
        .find(|path| path.to_str().unwrap().ends_with("-primary.xml.gz"))
        .unwrap();
    let mut bytes = fs::read(&primary).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&primary, bytes).unwrap();
    insta::assert_snapshot!(fetch(&ground), @r"
    exit code 2
    error: stage resolve: cannot be had: repodata/[SHA-256]-primary.xml.gz (named by repodata/repomd.xml of repository `stand-in`): file://[SANDBOX]/home/mirror/repodata/[SHA-256]-primary.xml.gz: its SHA-256 is [SHA-256], expected [SHA-256]
    hint: use a mirror that you can reach: --mirror NAME=URL (`imgbuild plan` names them; file:///… works too)
    hint: or bring the files from a machine that has them: `imgbuild fetch --export DIR` there, `imgbuild fetch --import DIR` here
    hint: or build what needs Debian's mirror alone: `imgbuild --image demo`
    ");
    fs::write(repodata.join("repomd.xml"), "<html>Welcome</html>").unwrap();
    insta::assert_snapshot!(fetch(&ground), @r"
    exit code 2
    error: stage resolve: `file://[SANDBOX]/home/mirror/repodata/repomd.xml` is no index of an RPM repository: it is a `html`, not the `repomd` of a repository (byte 6 of its XML)
    hint: use another mirror: --mirror NAME=URL
    ");
}

#[test]
fn packages_that_the_mirror_lacks() {
    let ground = Ground::new();
    for name in ["bash", "kernel"] {
        fs::remove_file(package(&ground, name)).unwrap();
    }
    insta::assert_snapshot!(fetch(&ground), @r"
    exit code 2
    error: stage packages: cannot be had: bash-5.2.15-2+b2.x86_64.rpm (repository `stand-in`): there is no file://[SANDBOX]/home/mirror/centos7-stand-in/Packages/bash-5.2.15-2+b2.x86_64.rpm; there is no file://[SANDBOX]/home/mirror/Packages/bash-5.2.15-2+b2.x86_64.rpm; there is no file://[SANDBOX]/home/mirror/bash-5.2.15-2+b2.x86_64.rpm
           kernel-6.1.1-1.x86_64.rpm (repository `stand-in`): there is no file://[SANDBOX]/home/mirror/centos7-stand-in/Packages/kernel-6.1.1-1.x86_64.rpm; there is no file://[SANDBOX]/home/mirror/Packages/kernel-6.1.1-1.x86_64.rpm; there is no file://[SANDBOX]/home/mirror/kernel-6.1.1-1.x86_64.rpm
    hint: use a mirror that you can reach: --mirror NAME=URL (`imgbuild plan` names them; file:///… works too)
    hint: or bring the files from a machine that has them: `imgbuild fetch --export DIR` there, `imgbuild fetch --import DIR` here
    hint: or build what needs Debian's mirror alone: `imgbuild --image demo`
    ");
}

#[test]
fn a_name_that_no_repository_has() {
    let ground = Ground::new();
    ground.edit("\"kernel\"", "\"kernle\"");
    insta::assert_snapshot!(fetch(&ground), @r"
    exit code 1
    error: stage resolve: the packages cannot be resolved: no package `kernle` in stand-in: the recipe names it
    hint: change the recipe's packages (`rpm.packages`), or use a mirror that has them: --mirror NAME=URL
    ");
}

#[test]
fn a_mirror_that_has_no_repository() {
    let ground = Ground::new();
    fs::remove_dir_all(ground.repository.folder.join("repodata")).unwrap();
    insta::assert_snapshot!(fetch(&ground), @r"
    exit code 2
    error: stage resolve: repository `stand-in` cannot be had:
           there is no file://[SANDBOX]/home/mirror/centos7-stand-in/repodata/repomd.xml
           there is no file://[SANDBOX]/home/mirror/repodata/repomd.xml
    hint: use a mirror that you can reach: --mirror NAME=URL (`imgbuild plan` names them; file:///… works too)
    hint: or bring the files from a machine that has them: `imgbuild fetch --export DIR` there, `imgbuild fetch --import DIR` here
    hint: or build what needs Debian's mirror alone: `imgbuild --image demo`
    ");
    let text = ground.text(&mut ground.bare(&["fetch"]));
    insta::assert_snapshot!(text, @r"
    exit code 2
    error: stage resolve: repository `stand-in` cannot be had:
           the recipe names no mirror of it, and the command line neither
    hint: use a mirror that you can reach: --mirror NAME=URL (`imgbuild plan` names them; file:///… works too)
    hint: or bring the files from a machine that has them: `imgbuild fetch --export DIR` there, `imgbuild fetch --import DIR` here
    hint: or build what needs Debian's mirror alone: `imgbuild --image demo`
    ");
}

#[test]
fn a_key_that_is_none() {
    let ground = Ground::new();
    let file = ground.sandbox.write("key.asc", "not a key").unwrap();
    let mut command = ground.without_key(&["fetch"]);
    command.arg("--key").arg(format!("stand-in={}", file.display()));
    insta::assert_snapshot!(ground.text(&mut command), @r"
    exit code 1
    error: reading the keys of packages: `[SANDBOX]/home/key.asc` is not an OpenPGP public key: it has no armoured block
    hint: it must be the public key as its owner publishes it, exported with `gpg --armor --export`
    ");
    edit(
        &file,
        "not a key",
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n",
    );
    insta::assert_snapshot!(ground.text(&mut command), @r"
    exit code 1
    error: reading the keys of packages: `[SANDBOX]/home/key.asc` is not an OpenPGP public key: unknown packet header version 0
    hint: it must be the public key as its owner publishes it, exported with `gpg --armor --export`
    ");
    let mut command = ground.without_key(&["fetch"]);
    insta::assert_snapshot!(ground.text(command.args(["--key", "stand-in=nosuch.asc"])), @r"
    exit code 1
    error: reading a key: failed to open file `nosuch.asc`: No such file or directory (os error 2)
    ");
    crate::assert_nothing_left(&ground.sandbox);
}
