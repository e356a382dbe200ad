//! Test kit: the home network an appliance lives in, clients that look at it from outside, and other people's programs as
//! judges of what was built.
//!
//! | Module | What it gives |
//! | --- | --- |
//! | [`acme_stub`] | a certificate authority that refuses by script |
//! | [`config_volume`], [`ovf_environment`] | a disk with a configuration; a disc with the properties of an OVA |
//! | [`dotenv`] | the two genuine parsers of `.env.production` |
//! | [`foreground`] | a program at a terminal |
//! | [`image`] | the disks that a build gave |
//! | [`lab`] | a network namespace with router advertisements, DNS, an ACME authority and a mail relay |
//! | [`client`] | HTTP, TCP and WebSocket as seen from a given place, at a given address, with a given trust anchor |
//! | [`mailbox`] | the mail that reached the relay |
//! | [`oracle`] | `sgdisk`, `e2fsck`, `qemu-img` … as judges |
//! | [`pebble`] | what every authority of the tests needs |
//! | [`power`] | what a power cut may have left of a disk, and what other programs find there |
//! | [`sandbox`] | a throw-away home for command line tests, and the filters their snapshots need |
//! | [`standin`] | a repository of RPM packages in place of CentOS 7's |
//! | [`scenario`] | ordered checks on one machine, reported as tests |
//! | [`vsphere`] | an import of an OVA into govmomi's vCenter simulator |
//! | [`systemd219`] | what systemd of CentOS 7 does not know in a unit |
//!
//! Everything that outlives a function call (namespaces, processes, folders) is owned by a value that undoes it when dropped.

pub mod acme_stub;
pub mod client;
pub mod config_volume;
pub mod dotenv;
mod exec;
pub mod foreground;
pub mod image;
pub mod lab;
pub mod mailbox;
pub mod namespace;
pub mod oracle;
pub mod ovf_environment;
pub mod pebble;
pub mod power;
pub mod sandbox;
pub mod scenario;
pub mod standin;
pub mod systemd219;
pub mod vsphere;
pub mod wait;

/// Runs a program that was built here, wants exit code 0, and returns what it said.
pub fn run(program: &std::path::Path, args: &[&std::ffi::OsStr]) -> anyhow::Result<String> {
    exec::text(&program.to_string_lossy(), args)
}

/// Debian packages that the tests need beyond those of `imgbuild` itself.
pub fn packages() -> &'static [&'static str] {
    &[
        "binutils",
        "createrepo-c",
        "curl",
        "e2fsprogs",
        "fdisk",
        "gdisk",
        "genisoimage",
        "gnupg",
        "golang-github-vmware-govmomi-dev",
        "golang-go",
        "iproute2",
        "iptables",
        "libvirt-common",
        "libxml2-utils",
        "nftables",
        "nginx-light",
        "nodejs",
        "openssh-client",
        "openssl",
        "pebble",
        "postgresql",
        "python3-aiosmtpd",
        "qemu-utils",
        "radvd",
        "redis-server",
        "rpm",
        "ruby-dotenv",
    ]
}
