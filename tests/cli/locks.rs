//! `imgbuild lock`: what is pinned stays, whatever the mirror offers later.

use fs_err as fs;

use crate::ground::{Ground, edit};

/// The build of `stand-in-data` that a plan names.
fn planned(ground: &Ground) -> String {
    let plan = ground.done(&["plan"]);
    let word = plan.split_whitespace().find(|word| word.starts_with("stand-in-data-")).unwrap();
    word.to_owned()
}

#[test]
fn a_lock_outlives_newer_builds() {
    let ground = Ground::new();
    let newest = ground.repository.package("stand-in-data").unwrap();
    let aside = ground.path("newest.rpm");
    fs::rename(&newest, &aside).unwrap();
    ground.repository.index().unwrap();

    insta::assert_snapshot!(ground.done(&["lock"]), @r"
    exit code 0
    [SANDBOX]/home/images/centos7-stand-in/image.lock: 18 packages, [SIZE]
    ");
    let file = ground.image().join("image.lock");
    let first = fs::read_to_string(&file).unwrap();
    ground.done(&["lock"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), first);
    let old = planned(&ground);

    fs::rename(&aside, &newest).unwrap();
    ground.repository.index().unwrap();
    assert_eq!(planned(&ground), old);
    ground.done(&["fetch"]);
    let fetched = |path: &std::path::Path| {
        let digest = imgbuild::digest::file(path).unwrap();
        ground.sandbox.store().join("files-v1").join(digest).is_file()
    };
    assert!(!fetched(&newest) && fetched(&ground.repository.package("bash").unwrap()));

    // Until the list changes, or the lock is renewed.
    ground.edit("\"kernel\", ", "");
    let mut command = crate::imgbuild(&ground.sandbox);
    command.current_dir(ground.sandbox.home()).args(["plan", "--offline", "--image", "centos7-stand-in"]);
    let text = ground.text(&mut command);
    insta::assert_snapshot!(text.lines().find(|line| line.contains("image.lock")).unwrap().trim(), @r"`[SANDBOX]/home/images/centos7-stand-in/image.lock` is for another list of packages, so the mirrors are asked; `imgbuild lock` renews it");
    ground.done(&["lock"]);
    assert_ne!(planned(&ground), old);
}

#[test]
fn an_edited_lock_is_refused() {
    let ground = Ground::new();
    ground.done(&["lock"]);
    let file = ground.image().join("image.lock");
    let good = fs::read_to_string(&file).unwrap();
    let refused = |from: &str, to: &str| {
        fs::write(&file, &good).unwrap();
        edit(&file, from, to);
        ground.text(&mut ground.command(&["fetch"]))
    };
    insta::assert_snapshot!(refused("location = \"Packages/", "location = \"../"), @r"
    exit code 1
    error: stage resolve: `[SANDBOX]/home/images/centos7-stand-in/image.lock` is no lock of this imgbuild: package `base-files`: key `location`: `../base-files-12.4-0.x86_64.rpm` is no path below a repository
    hint: write it anew with `imgbuild lock`, or remove it
    ");
    insta::assert_snapshot!(refused("sha256 = \"", "sha256 = \"../../"), @r"
    exit code 1
    error: stage resolve: `[SANDBOX]/home/images/centos7-stand-in/image.lock` is no lock of this imgbuild: package `base-files`: key `sha256`: `../../[SHA-256]` is no SHA-256 of 64 lower-case digits
    hint: write it anew with `imgbuild lock`, or remove it
    ");
    insta::assert_snapshot!(refused("repository = \"stand-in\"", "repository = \"other\""), @r"
    exit code 1
    error: stage packages: the lock names a repository `other` that the recipe does not have
    hint: `imgbuild lock` renews it
    ");
    insta::assert_snapshot!(refused("schema = 1", "schema = 2"), @r"
    exit code 1
    error: stage resolve: `[SANDBOX]/home/images/centos7-stand-in/image.lock` is no lock of this imgbuild: key `schema`: got 2, this imgbuild reads 1
    hint: write it anew with `imgbuild lock`, or remove it
    ");
    insta::assert_snapshot!(refused("schema = 1", "shcema = 1"), @r"
    exit code 1
    error: stage resolve: `[SANDBOX]/home/images/centos7-stand-in/image.lock` is no lock of this imgbuild: TOML parse error at line 2, column 1
      |
    2 | shcema = 1
      | ^^^^^^
    unknown field `shcema`, expected one of `schema`, `recipe`, `epoch`, `merged`, `sizes`, `suites`, `package`
    hint: write it anew with `imgbuild lock`, or remove it
    ");
    // What another build is pinned to is not fetched under this name.
    insta::assert_snapshot!(refused("name = \"bash\"", "name = \"bush\""), @r"
    exit code 2
    error: stage packages: repository `stand-in`: `bash-5.2.15-2+b2.x86_64.rpm` calls itself bash-5.2.15-2+b2.x86_64, and should be bush-5.2.15-2+b2.x86_64
    hint: the repository's index or `image.lock` is wrong: use another mirror, or renew the lock with `imgbuild lock`
    ");
    ground.assert_only_fetched();
}

#[test]
fn what_cannot_be_locked() {
    let ground = Ground::new();
    insta::assert_snapshot!(ground.text(ground.command(&["lock"]).arg("--offline")), @r"
    exit code 1
    error: a lock is what the mirrors say: --offline makes no sense here
    hint: leave --offline out
    ");
    let mut command = crate::imgbuild(&ground.sandbox);
    insta::assert_snapshot!(ground.text(command.args(["lock", "--image", "demo"])), @r"
    exit code 1
    error: image `demo` takes its packages from a Debian mirror, which keeps no old ones to pin
    hint: the store keeps its last lock for --offline by itself
    ");
    crate::assert_nothing_left(&ground.sandbox);
}
