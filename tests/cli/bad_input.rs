//! Mistakes of the user: one clear message, exit code 1, nothing left behind.

use testkit::sandbox::Sandbox;

use crate::{assert_nothing_left, imgbuild, project, transcript};

fn refused(arguments: &[&str]) -> String {
    let sandbox = Sandbox::new().unwrap();
    let text = transcript(&sandbox, imgbuild(&sandbox).args(arguments));
    assert_nothing_left(&sandbox);
    text
}

/// A project whose one recipe is the demo's with a change.
fn refused_recipe(from: &str, to: &str) -> String {
    let sandbox = Sandbox::new().unwrap();
    let recipe = fs_err::read_to_string(project().join("images/demo/image.toml")).unwrap();
    assert!(recipe.contains(from), "the demo's recipe has no `{from}` any more");
    sandbox.write("images/broken/image.toml", &recipe.replacen(from, to, 1)).unwrap();
    fs_err::create_dir(sandbox.home().join("overlays")).unwrap();
    let text = transcript(
        &sandbox,
        imgbuild(&sandbox).current_dir(sandbox.home()).args(["plan", "--image", "broken"]),
    );
    assert_nothing_left(&sandbox);
    text
}

#[test]
fn a_misspelt_key_is_shown_in_its_line() {
    insta::assert_snapshot!(refused_recipe("\nsuite = ", "\nsiute = "), @r#"
    exit code 1
    error: `[SANDBOX]/home/images/broken/image.toml`: TOML parse error at line 10, column 1
       |
    10 | siute = "bookworm"
       | ^^^^^
    unknown field `siute`, expected one of `suite`, `components`, `packages`, `build-packages`, `exclude`, `before`
    "#);
}

#[test]
fn a_value_out_of_range_is_named() {
    insta::assert_snapshot!(refused_recipe("system = \"8 GiB\"", "system = \"8 GB\""), @r#"
    exit code 1
    error: `[SANDBOX]/home/images/broken/image.toml`: TOML parse error at line 41, column 10
       |
    41 | system = "8 GB"
       |          ^^^^^^
    `8 GB` is not a size; write a whole number and B, KiB, MiB or GiB, such as `8 GiB`
    "#);
    insta::assert_snapshot!(refused_recipe("name = \"demo\"", "name = \"../demo\""), @r#"
    exit code 1
    error: `[SANDBOX]/home/images/broken/image.toml`: key `name`: `../demo` may have only a-z, 0-9 and `-`
    "#);
    insta::assert_snapshot!(refused_recipe("schema = 1", "schema = 2"), @r#"
    exit code 1
    error: `[SANDBOX]/home/images/broken/image.toml`: key `schema`: got 2, this imgbuild reads 1
    "#);
}

#[test]
fn images_and_tags_that_do_not_exist() {
    insta::assert_snapshot!(refused(&["plan", "--image", "nosuch"]), @r"
    exit code 1
    error: no image `nosuch`: `[PROJECT]/images/nosuch/image.toml` does not exist
    hint: known images: centos7, centos7-pg11, centos7-stand-in, debian12, demo
    ");
    insta::assert_snapshot!(refused(&["--image", "demo", "--tag", "v9.9.9"]), @r#"
    exit code 1
    error: image `demo` has no tag `v9.9.9`: it carries v1.6.1
    hint: leave --tag out, or say --tag v1.6.1
    "#);
}

#[test]
fn overrides_that_make_no_sense() {
    insta::assert_snapshot!(refused(&["plan", "--set", "machine.cpus=many"]), @r#"
    exit code 1
    error: applying --set: --set machine.cpus=many: invalid type: string "many", expected u32
    in `machine.cpus`
    "#);
    insta::assert_snapshot!(refused(&["plan", "--set", "machine.cpus"]), @r#"
    exit code 1
    error: --set `machine.cpus` has no `=`
    hint: write --set machine.cpus=4
    "#);
    insta::assert_snapshot!(refused(&["plan", "--mirror", "debian"]), @r#"
    exit code 1
    error: --mirror `debian` is not NAME=URL
    hint: such as --mirror centos=file:///srv/centos or --mirror debian=http://mirror.example/debian
    "#);
}

#[test]
fn files_that_are_no_images() {
    insta::assert_snapshot!(refused(&["verify", "Cargo.toml"]), @r#"
    exit code 1
    error: `Cargo.toml` is no disk image: neither qcow2, VMDK, OVA nor a raw disk with a GPT
    "#);
    insta::assert_snapshot!(refused(&["inspect", "nosuch.qcow2"]), @r#"
    exit code 1
    error: failed to open file `nosuch.qcow2`: No such file or directory (os error 2)
    "#);
    // As with diff(1), 1 is an answer; trouble is 2.
    insta::assert_snapshot!(refused(&["diff", "Cargo.toml", "nosuch.qcow2"]), @r#"
    exit code 2
    error: `Cargo.toml` is no disk image: neither qcow2, VMDK, OVA nor a raw disk with a GPT
    "#);
}

fn refused_config(text: &str) -> String {
    let sandbox = Sandbox::new().unwrap();
    let config = sandbox.write("config.toml", text).unwrap();
    transcript(&sandbox, imgbuild(&sandbox).args(["boot", "image.qcow2", "--config"]).arg(config))
}

#[test]
fn first_boot_configurations_are_checked_before_the_guest_gets_them() {
    insta::assert_snapshot!(refused_config("schema = 1\n"), @r#"
    exit code 1
    error: `[SANDBOX]/home/config.toml`: missing field `domain`; add the instance's name, such as `domain = "social.example.net"`
    "#);
    insta::assert_snapshot!(refused_config("schema = 1\ndomain = \"a.example.net\"\nrelay = 3\n"), @r#"
    exit code 1
    error: `[SANDBOX]/home/config.toml` line 3, column 1: unknown field `relay`, expected one of `schema`, `domain`, `hostname`, `firewall`, `on-clone`, `extra-env`, `instance`, `media`, `streaming`, `sidekiq`, `network`, `web`, `tls`, `acme`, `database`, `mail`, `owner`, `ssh`; correct the spelling, or remove the line
    "#);
    insta::assert_snapshot!(
        refused_config("schema = 1\ndomain = \"a.example.net\"\n[network.ipv6]\naddresses = [\"2001:db8::/fast\"]\n"), @r#"
    exit code 1
    error: `[SANDBOX]/home/config.toml` line 4, column 13: `2001:db8::/fast` has the prefix length `fast`: it must be 1 to 128
    "#);
}

#[test]
fn what_an_export_would_refuse_is_refused_before_the_build() {
    let demo = |words: &[&str]| refused(&[&["--image", "demo"], words].concat());
    insta::assert_snapshot!(demo(&["--format", "vhd", "--set", "disk.data=3000 GiB"]), @r"
    exit code 1
    error: a VHD has 2040 GiB at most, and a disk of this image has 3000 GiB
    hint: make the disk smaller, or export another format
    ");
    let said = demo(&["--format", "ova", "--set", "export.eula=none.txt"]);
    assert!(said.starts_with("exit code 1\nerror: `[PROJECT]/images/demo/none.txt`: "), "{said}");
}

#[test]
fn words_that_are_no_options() {
    insta::assert_snapshot!(refused(&["build", "--formt", "ova"]), @r#"
    exit code 1
    error: unexpected argument '--formt' found

      tip: a similar argument exists: '--format'

    Usage: imgbuild build --format <FORMAT>

    For more information, try '--help'.
    "#);
}
