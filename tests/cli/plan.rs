//! `imgbuild plan`: what a build would take, before it takes it.

use testkit::sandbox::Sandbox;

use crate::ground::Ground;
use crate::{assert_nothing_left, imgbuild, transcript};

/// The lists of the real recipes, cut down to what the tiny repository has.
const FEW: [&str; 10] = [
    "--set",
    "rpm.bootstrap=[\"yum\"]",
    "--set",
    "rpm.packages.centos=[\"stand-in-core\", \"kernel\"]",
    "--set",
    "rpm.packages.epel=[]",
    "--set",
    "rpm.packages.nginx=[]",
    "--set",
    "rpm.build-packages.centos=[\"sudo\"]",
];

#[test]
fn of_the_stand_in() {
    let ground = Ground::new();
    let mut command = imgbuild(&ground.sandbox);
    command
        .args(["plan", "--image", "centos7-stand-in", "--set", "rpm.bootstrap=[\"yum\"]"])
        .args(["--set", "rpm.packages.stand-in=[\"stand-in-core\", \"kernel\", \"yum\"]"])
        .arg("--mirror")
        .arg(format!("stand-in=file://{}", ground.repository.folder.display()));
    insta::assert_snapshot!(ground.text(&mut command), @r"
    exit code 0
    image      centos7-stand-in (Stand-in for CentOS 7 with the stand-in for Mastodon v1.6.1)
    tag        v1.6.1
    overlays   debian postgresql-debian mastodon appliance
    machine    2 CPUs, 2 GiB memory
    disks      system 8 GiB, data 32 GiB
    formats    qcow2
    store      [SANDBOX]/store ([SIZE] kept)
    mirror     stand-in: file://[SANDBOX]/home/mirror/centos7-stand-in, then file://[SANDBOX]/home/mirror
    named      stand-in: stand-in-core kernel yum
    packages   stand-in: 18 packages, [SIZE]
               base-files-12.4-0 bash-5.2.15-2+b2 centos7-stand-in-release-7-10.stand_in dash-0.5.12-2 dnf-4.14.0-3 filesystem-7-1 kernel-6.1.1-1 libc-bin-2.36-9+deb12u1 libc6-2.36-9+deb12u1 mawk-1.3.4-3 python3-3.11.2-1+b1 rpm-4.18.0+dfsg-1 setup-7-1 stand-in-core-7-1 stand-in-data-1:1.0-1.stand_in stand-in-generated-7-1 sudo-1:1.9-1 yum-7-1
    total      18 packages in the image, [SIZE] to fetch, [SIZE] installed
    room       at most [SIZE] in the store, [SIZE] for the artifacts
               assumed: a tenth more than the packages' lists say, for what their scripts make
               assumed: a compressed disk at most twice as large as the packages
    ");
}

/// A plan of `images/centos7` whose archives are all the tiny repository.
fn genuine(ground: &Ground, more: &[&str]) -> assert_cmd::Command {
    let mut command = imgbuild(&ground.sandbox);
    command.arg("plan").args(FEW).args(more);
    for archive in ["centos", "epel", "nginx"] {
        command.arg("--mirror").arg(format!("{archive}=file://{}", ground.repository.folder.display()));
    }
    command.args(["--mirror", "npm=https://npm.example.net"]);
    command
}

const SERVICES: [&str; 4] = ["--set", "app.postgresql=\"9.2.24\"", "--set", "app.redis=\"3.2.12\""];

#[test]
fn of_a_tag() {
    let ground = Ground::new();
    let mut command = genuine(&ground, &["--tag", "v1.6.1"]);
    insta::assert_snapshot!(ground.text(command.args(SERVICES)), @r"
    exit code 0
    image      centos7 (CentOS 7 with Mastodon)
    tag        v1.6.1
    overlays   centos7 mastodon mastodon-node mastodon-ffmpeg appliance
    machine    2 CPUs, 2 GiB memory
    disks      system 8 GiB, data 32 GiB
    formats    qcow2 ova
    store      [SANDBOX]/store ([SIZE] kept)
    ruby       2.4.1
    node       8.17.0
    bundler    1.17.3
    yarn       1.22.22
    source     https://github.com/tootsuite/mastodon
    mirror     rubygems: as the tag's lock files say
    mirror     npm: https://npm.example.net
    mirror     git: https://github.com
    mirror     ruby: https://cache.ruby-lang.org/pub/ruby
    mirror     node: https://nodejs.org/dist
    mirror     centos (base): file://[SANDBOX]/home/mirror/7.9.2009/os/x86_64, then file://[SANDBOX]/home/mirror
    mirror     centos (updates): file://[SANDBOX]/home/mirror/7.9.2009/updates/x86_64, then file://[SANDBOX]/home/mirror
    mirror     centos (extras): file://[SANDBOX]/home/mirror/7.9.2009/extras/x86_64, then file://[SANDBOX]/home/mirror
    mirror     epel: file://[SANDBOX]/home/mirror/7/x86_64, then file://[SANDBOX]/home/mirror
    mirror     nginx: file://[SANDBOX]/home/mirror/7/x86_64, then file://[SANDBOX]/home/mirror
    named      centos: stand-in-core kernel
    to build   centos: sudo
    packages   base: 13 packages, [SIZE]
               base-files-12.4-0 bash-5.2.15-2+b2 centos7-stand-in-release-7-10.stand_in dash-0.5.12-2 filesystem-7-1 kernel-6.1.1-1 libc-bin-2.36-9+deb12u1 libc6-2.36-9+deb12u1 mawk-1.3.4-3 setup-7-1 stand-in-core-7-1 stand-in-data-1:1.0-1.stand_in stand-in-generated-7-1
    total      13 packages in the image, [SIZE] to fetch, [SIZE] installed
    total      14 packages with those that build the application, [SIZE] to fetch, [SIZE] installed
    room       at most [SIZE] in the store, [SIZE] for the artifacts
               assumed: a tenth more than the packages' lists say, for what their scripts make
               assumed: nothing for the application, whose sources are not there yet
               assumed: a compressed disk at most twice as large as the packages
    postgresql 9.2.24
    redis      3.2.12
    ");

    let mut command = genuine(&ground, &["--tag", "v1.6.1", "--json"]);
    let output = command.args(SERVICES).output().unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&plan["application"]).unwrap(), @r#"
    {
      "bundler": "1.17.3",
      "in-table": true,
      "mirrors": {
        "git": "https://github.com",
        "node": "https://nodejs.org/dist",
        "npm": "https://npm.example.net",
        "ruby": "https://cache.ruby-lang.org/pub/ruby",
        "rubygems": null
      },
      "node": "8.17.0",
      "postgresql": "9.2.24",
      "redis": "3.2.12",
      "ruby": "2.4.1",
      "source": "https://github.com/tootsuite/mastodon",
      "yarn": "1.22.22"
    }
    "#);
    let first = &plan["lock"]["package"][0];
    assert!(first["evr"].is_string() && first["size"].as_u64() > Some(0), "{first}");
}

#[test]
fn of_a_tag_that_the_services_are_too_old_for() {
    let ground = Ground::new();
    let mut command = genuine(&ground, &["--image", "centos7", "--tag", "v2.4.3"]);
    let text = ground.text(command.args(SERVICES));
    let (_, end) = text.split_once("redis ").unwrap();
    insta::assert_snapshot!(end, @r"
         3.2.12
    error: Mastodon v2.4.3 does not work with PostgreSQL 9.2.24: it needs 9.4 or later
    hint: choose another base or another tag
    ");
}

#[test]
fn of_a_tag_that_nobody_has_tried() {
    let sandbox = Sandbox::new().unwrap();
    let mut command = imgbuild(&sandbox);
    command.args(["plan", "--tag", "v9.9.9", "--mirror", "debian=http://127.0.0.1:9/debian"]);
    let text = transcript(&sandbox, command.args(["--mirror", "npm=https://npm.example.net"]));
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with("store")).collect();
    insta::assert_snapshot!(text.join("\n"), @r"
    exit code 0
    image      debian12 (Debian 12 with Mastodon)
    tag        v9.9.9
    overlays   debian postgresql-debian mastodon mastodon-node appliance
    machine    2 CPUs, 2 GiB memory
    disks      system 8 GiB, data 32 GiB
    formats    qcow2 ova
    ruby       as the files of v9.9.9 say, node and bundler too: v9.9.9 is not in the table, nobody has tried it
    yarn       1.22.22
    source     https://github.com/tootsuite/mastodon
    mirror     rubygems: as the tag's lock files say
    mirror     npm: https://npm.example.net
    mirror     git: https://github.com
    mirror     ruby: https://cache.ruby-lang.org/pub/ruby
    mirror     node: https://nodejs.org/dist
    packages   http://127.0.0.1:9/debian bookworm
    packages   http://127.0.0.1:9/debian bookworm-updates
               51 named: systemd-sysv udev dbus libpam-systemd linux-image-amd64 initramfs-tools zstd e2fsprogs dosfstools fdisk locales tzdata kbd less nano procps kmod sudo logrotate file curl openssl ca-certificates network-manager iproute2 iputils-ping nftables openssh-server chrony open-vm-tools qemu-guest-agent nginx redis-server postgresql imagemagick ffmpeg shared-mime-info libyaml-0-2 libffi8 libreadline8 zlib1g libgdbm6 libncurses6 libxml2 libxslt1.1 libicu72 libidn12 libpq5 libprotobuf32 libstdc++6 libgmp10
    room       not known before the mirror's package lists have been read
    postgresql 15
    redis      7.0
    ");
    assert_nothing_left(&sandbox);
}
