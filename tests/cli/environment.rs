//! Faults of the environment: exit code 2, what is missing and how to get it, nothing left behind.

use std::time::{Duration, Instant};

use assert_cmd::Command;
use testkit::sandbox::Sandbox;

use crate::ground::{Ground, IMAGE, edit};
use crate::{assert_nothing_left, imgbuild, project, transcript};

#[test]
fn no_network() {
    let sandbox = Sandbox::new().unwrap();
    // Port 9 (discard) of the loopback: nobody listens there.
    let mirror = "debian=http://127.0.0.1:9/debian";
    let text = transcript(
        &sandbox,
        imgbuild(&sandbox)
            .args(["build", "--image", "demo", "--mirror", mirror, "--output"])
            .arg(sandbox.output()),
    );
    insta::assert_snapshot!(text, @r"
    exit code 2
    [1/10] resolve
          resolve: failed
    error: stage resolve: the mirror cannot be used: http://127.0.0.1:9 does not answer: Connection refused (os error 111)
    hint: check the network, name another with --mirror debian=URL, or use what the store has with --offline
    ");
    assert_nothing_left(&sandbox);
}

/// A refused port: nobody listens there.
const REFUSED: &str = "http://127.0.0.1:9/x";

#[test]
fn no_mirror_of_centos_answers() {
    let sandbox = Sandbox::new().unwrap();
    let mut command = imgbuild(&sandbox);
    command.args(["--tag", "v1.6.1"]);
    for archive in ["centos", "epel", "nginx"] {
        command.args(["--mirror", &format!("{archive}={REFUSED}")]);
    }
    let start = Instant::now();
    insta::assert_snapshot!(transcript(&sandbox, command.arg("--output").arg(sandbox.output())), @r"
    exit code 2
    [1/10] resolve
          resolve: failed
    error: stage resolve: repositories `base`, `updates`, `extras`, `epel`, `nginx` cannot be had:
           http://127.0.0.1:9 does not answer: Connection refused (os error 111)
    hint: use a mirror that you can reach: --mirror NAME=URL (`imgbuild plan` names them; file:///… works too)
    hint: or bring the files from a machine that has them: `imgbuild fetch --export DIR` there, `imgbuild fetch --import DIR` here
    hint: or build what needs Debian's mirror alone: `imgbuild --image demo`
    ");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_nothing_left(&sandbox);
}

/// A network namespace of its own has not even a loopback that is up.
#[test]
fn no_network_at_all() {
    let sandbox = Sandbox::new().unwrap();
    let mut command = Command::new("unshare");
    command.current_dir(project()).envs(sandbox.environment());
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.arg("--net").arg(assert_cmd::cargo::cargo_bin!("imgbuild")).args(["--tag", "v1.6.1", "--output"]);
    let start = Instant::now();
    insta::assert_snapshot!(transcript(&sandbox, command.arg(sandbox.output())), @r"
    exit code 2
    [1/10] resolve
          resolve: failed
    error: stage resolve: repository `base` cannot be had:
           https://vault.centos.org does not answer: failed to lookup address information: Temporary failure in name resolution
           https://archive.kernel.org does not answer: failed to lookup address information: Temporary failure in name resolution
           https://linuxsoft.cern.ch does not answer: failed to lookup address information: Temporary failure in name resolution
           https://mirrors.aliyun.com does not answer: failed to lookup address information: Temporary failure in name resolution
    hint: use a mirror that you can reach: --mirror NAME=URL (`imgbuild plan` names them; file:///… works too)
    hint: or bring the files from a machine that has them: `imgbuild fetch --export DIR` there, `imgbuild fetch --import DIR` here
    hint: or build what needs Debian's mirror alone: `imgbuild --image demo`
    ");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_nothing_left(&sandbox);
}

#[test]
fn offline_with_an_empty_store() {
    let sandbox = Sandbox::new().unwrap();
    let text = transcript(
        &sandbox,
        imgbuild(&sandbox)
            .args(["--quiet", "build", "--image", "demo", "--offline", "--output"])
            .arg(sandbox.output()),
    );
    insta::assert_snapshot!(text, @r"
    exit code 2
    error: stage resolve: --offline, and the store has no lock for image `demo`
    hint: build it once with a network, or bring its inputs with `imgbuild fetch --import DIR`
    ");
    assert_nothing_left(&sandbox);
}

#[test]
fn without_words_the_first_tags_image_is_meant() {
    let sandbox = Sandbox::new().unwrap();
    let text = transcript(&sandbox, imgbuild(&sandbox).args(["--quiet", "--offline"]));
    assert!(text.contains("the store has no lock for image `centos7`\n"), "{text}");
}

#[test]
fn missing_tools() {
    let sandbox = Sandbox::new().unwrap();
    let text = transcript(
        &sandbox,
        imgbuild(&sandbox)
            .env("PATH", "/nonexistent")
            .args(["build", "--image", "demo", "--output"])
            .arg(sandbox.output()),
    );
    assert!(text.starts_with("exit code 2\nerror: not on this host: `mmdebstrap`"), "{text}");
    assert!(text.contains("hint: install with: apt-get install --no-install-recommends "), "{text}");
    assert_nothing_left(&sandbox);
}

/// A file system of 64 MiB, in a mount namespace that ends with the command; and a lock that says of a package that it is large.
#[test]
fn a_full_disk() {
    let ground = Ground::new();
    ground.done(&["lock"]);
    edit(&ground.image().join("image.lock"), "installed-size = ", "installed-size = 9000000000");
    let sandbox = &ground.sandbox;
    let script = "mount -t tmpfs -o size=64m tmpfs \"$IMGBUILD_STORE\" && exec \"$0\" build --quiet \"$@\"";
    let mut command = Command::new("unshare");
    command.current_dir(sandbox.home()).envs(sandbox.environment());
    if rustix::process::geteuid().is_root() {
        command.arg("--mount");
    } else {
        command.args(["--map-root-user", "--mount"]);
    }
    command.args(["sh", "-c", script]).arg(assert_cmd::cargo::cargo_bin!("imgbuild"));
    command.args(["--image", IMAGE, "--output"]).arg(sandbox.output());
    command.arg("--key").arg(format!("stand-in={}", ground.repository.key.display()));
    insta::assert_snapshot!(ground.text(&mut command), @r"
    exit code 2
    error: no space: `[SANDBOX]/store` has [SIZE] free, the build may need [SIZE] (a tenth more than the packages' lists say, for what their scripts make; a compressed disk at most twice as large as the packages)
    hint: free some, run `imgbuild clean`, or use another folder (IMGBUILD_STORE, --output)
    ");
    ground.assert_only_fetched();
}

#[test]
fn a_store_that_is_a_file() {
    let sandbox = Sandbox::new().unwrap();
    let file = sandbox.write("file", "").unwrap();
    let text = transcript(&sandbox, imgbuild(&sandbox).env("IMGBUILD_STORE", file).arg("plan"));
    assert!(text.starts_with("exit code 2\nerror: the store cannot be used: "), "{text}");
}
