//! Mistakes in recipes of RPM images: the key, what is wrong, and nothing asked of any mirror.

use fs_err as fs;

use crate::assert_nothing_left;
use crate::ground::Ground;

/// What `plan` says of the recipe with a change.
fn refused(from: &str, to: &str) -> String {
    let ground = Ground::new();
    ground.edit(from, to);
    let text = ground.text(&mut ground.bare(&["plan"]));
    assert_nothing_left(&ground.sandbox);
    text
}

#[test]
fn two_bases_or_none() {
    insta::assert_snapshot!(refused("[app]", "[debian]\nsuite = \"bookworm\"\ncomponents = []\npackages = []\n[app]"), @r"
    exit code 1
    error: `[SANDBOX]/home/images/centos7-stand-in/image.toml`: it needs one of the tables `debian` and `rpm`, not both
    ");
}

#[test]
fn archives_and_repositories() {
    // Keeps the repository from being made for each line.
    let _held = Ground::new();
    insta::assert_snapshot!(refused("archive = \"stand-in\"", "archive = \"elsewhere\""), @r"
    exit code 1
    error: `[SANDBOX]/home/images/centos7-stand-in/image.toml`: repository `stand-in`: there is no archive `elsewhere`
    ");
    insta::assert_snapshot!(refused("\nstand-in = ", "\nelsewhere = "), @r"
    exit code 1
    error: `[SANDBOX]/home/images/centos7-stand-in/image.toml`: key `rpm.packages.elsewhere`: no repository is of this archive
    ");
    insta::assert_snapshot!(refused("path = \"centos7-stand-in\"", "path = \"../centos7\""), @r"
    exit code 1
    error: `[SANDBOX]/home/images/centos7-stand-in/image.toml`: key `rpm.repositories.stand-in.path`: `../centos7` must lie below its folder: no `..`, no `/` in front
    ");
    insta::assert_snapshot!(refused("mirrors = []", "mirrors = [\"vault.example.net\"]"), @r"
    exit code 1
    error: `[SANDBOX]/home/images/centos7-stand-in/image.toml`: key `rpm.archives.stand-in.mirrors`: `vault.example.net` is no URL
    ");
    insta::assert_snapshot!(refused("name = \"stand-in\"", "name = \"Stand in\""), @r"
    exit code 1
    error: `[SANDBOX]/home/images/centos7-stand-in/image.toml`: table `rpm.repositories`: the name `Stand in` is not plain, or used twice
    ");
}

#[test]
fn keys() {
    // Keeps the repository from being made for each line.
    let _held = Ground::new();
    let key = |file: &str, print: &str| {
        refused("keys = []", &format!("keys = [{{ file = \"{file}\", fingerprint = \"{print}\" }}]"))
    };
    insta::assert_snapshot!(key("../key.asc", &"A".repeat(40)), @r"
    exit code 1
    error: `[SANDBOX]/home/images/centos7-stand-in/image.toml`: key `rpm.archives.stand-in.keys`: `../key.asc` must lie below its folder: no `..`, no `/` in front
    ");
    insta::assert_snapshot!(key("/etc/key.asc", &"A".repeat(40)), @r"
    exit code 1
    error: `[SANDBOX]/home/images/centos7-stand-in/image.toml`: key `rpm.archives.stand-in.keys`: `/etc/key.asc` must lie below its folder: no `..`, no `/` in front
    ");
    insta::assert_snapshot!(key("keys/key.asc", "F4A80EB5"), @r"
    exit code 1
    error: `[SANDBOX]/home/images/centos7-stand-in/image.toml`: key `rpm.archives.stand-in.keys`: `F4A80EB5` is no fingerprint of 40 or 64 hexadecimal digits
    ");
}

#[test]
fn names_of_packages() {
    // Keeps the repository from being made for each line.
    let _held = Ground::new();
    insta::assert_snapshot!(refused("\"kernel\"", "\"--nogpgcheck\""), @r"
    exit code 1
    error: `[SANDBOX]/home/images/centos7-stand-in/image.toml`: key `rpm.packages.stand-in`: `--nogpgcheck` is not a package name
    ");
    insta::assert_snapshot!(refused("bootstrap = [\"yum\", \"bash\"]", "bootstrap = []"), @r"
    exit code 1
    error: `[SANDBOX]/home/images/centos7-stand-in/image.toml`: key `rpm.bootstrap`: name the package manager, such as `yum`
    ");
}

#[test]
fn what_a_recipe_extends() {
    let ground = Ground::new();
    let extends = |name: &str| {
        fs::write(ground.image().join("image.toml"), format!("extends = {name}\n")).unwrap();
        ground.text(&mut ground.bare(&["plan"]))
    };
    insta::assert_snapshot!(extends("\"nosuch\""), @r"
    exit code 1
    error: `[SANDBOX]/home/images/centos7-stand-in/image.toml`: key `extends`: failed to open file `[SANDBOX]/home/images/nosuch/image.toml`: No such file or directory (os error 2)
    ");
    insta::assert_snapshot!(extends("\"../demo\""), @r"
    exit code 1
    error: `[SANDBOX]/home/images/centos7-stand-in/image.toml`: key `extends`: write the name of another image's folder
    ");
    insta::assert_snapshot!(extends("\"centos7-stand-in\""), @r"
    exit code 1
    error: `[SANDBOX]/home/images/centos7-stand-in/image.toml`: key `extends`: `centos7-stand-in` extends an image itself
    ");
}

#[test]
fn archives_that_the_image_has_not() {
    let ground = Ground::new();
    insta::assert_snapshot!(ground.text(ground.bare(&["plan"]).args(["--mirror", "debian=http://127.0.0.1:9"])), @r"
    exit code 1
    error: --mirror `debian`: image `centos7-stand-in` has no such archive
    hint: known: stand-in
    ");
    let key = format!("centos={}", ground.repository.key.display());
    insta::assert_snapshot!(ground.text(ground.bare(&["plan"]).args(["--key", &key])), @r"
    exit code 1
    error: --key `centos`: image `centos7-stand-in` has no such archive
    hint: known: stand-in
    ");
    insta::assert_snapshot!(ground.text(ground.bare(&["plan"]).args(["--key", "centos"])), @r"
    exit code 1
    error: --key `centos` is not NAME=FILE
    hint: write --key centos=my-mirror.asc
    ");
    assert_nothing_left(&ground.sandbox);
}
