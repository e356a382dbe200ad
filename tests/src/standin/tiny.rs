//! A root of a few files: enough for a repository with every trait of the real one, in a second and without a network. Nothing in it
//! runs.

use std::path::Path;

use anyhow::Result;
use fs_err as fs;
use tar::{Builder, EntryType, Header};

use super::Repository;

/// Name, version, other fields, files below `/usr`.
const PACKAGES: &[(&str, &str, &str, &[&str])] = &[
    ("base-files", "12.4", "Essential: yes\nPre-Depends: awk", &["lib/os-release"]),
    ("mawk", "1.3.4-3", "Depends: libc6 (>= 2.36)\nProvides: awk", &["bin/mawk"]),
    ("libc6", "2.36-9+deb12u1", "", &["lib/x86_64-linux-gnu/libc.so.6"]),
    (
        "libc-bin",
        "2.36-9+deb12u1",
        "Essential: yes\nDepends: libc6 (>> 2.36), libc6 (<< 2.37)",
        &["sbin/ldconfig"],
    ),
    ("dash", "0.5.12-2", "Essential: yes\nPre-Depends: libc6 (>= 2.36)", &["bin/dash", "bin/sh"]),
    ("bash", "5.2.15-2+b2", "Essential: yes\nPre-Depends: libc6 (>= 2.36)", &["bin/bash", "bin/["]),
    ("sudo", "1:1.9-1", "Depends: libc6", &["bin/sudo", "share/sudo/a b%name%\\x2d"]),
    ("rpm", "4.18.0+dfsg-1", "Depends: libc6 (>= 2.34)", &["bin/rpm"]),
    ("dnf", "4.14.0-3", "Depends: rpm (= 4.18.0+dfsg-1), python3:any | gone, sudo (>= 1:1.8)", &["bin/dnf"]),
    ("python3", "3.11.2-1+b1", "Depends: libc6", &["bin/python3"]),
    ("linux-image-6.1.0-1-amd64", "6.1.1-1", "", &["lib/modules/6.1.0-1-amd64/a.ko"]),
    ("linux-image-amd64", "6.1.1-1", "Depends: linux-image-6.1.0-1-amd64 (= 6.1.1-1)", &[]),
    ("ffmpeg", "7:5.1-1", "Depends: libav (= 7:5.1-1)", &["bin/ffmpeg"]),
    ("libav", "7:5.1-1", "", &["lib/libav.so"]),
];

impl Repository {
    /// A repository whose packages hold nothing that runs, for tests of what a builder refuses. See [`Repository::make`].
    pub fn tiny(folder: &Path) -> Result<Repository> {
        let scratch = tempfile::tempdir()?;
        let tar = scratch.path().join("tiny.tar");
        root(&tar)?;
        Repository::make(&tar, folder)
    }
}

/// Writes the root's tar.
fn root(file: &Path) -> Result<()> {
    let mut tar = Builder::new(fs::File::create(file)?);
    let mut status = String::new();
    for folder in [
        "usr",
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "etc",
        "var",
        "var/lib",
        "var/lib/dpkg",
        "var/log",
        "boot",
        "proc",
        "dev",
    ] {
        add(&mut tar, EntryType::Directory, folder, 0o755, 0, "")?;
    }
    for link in ["bin", "sbin", "lib"] {
        add(&mut tar, EntryType::Symlink, link, 0o777, 0, &format!("usr/{link}"))?;
    }
    // The second leads to the first, which leads to what only a left-out package has.
    add(&mut tar, EntryType::Directory, "etc/alternatives", 0o755, 0, "")?;
    for (link, target) in [("av", "/usr/lib/libav.so"), ("awk", "/usr/bin/mawk")] {
        add(&mut tar, EntryType::Symlink, &format!("etc/alternatives/{link}"), 0o777, 0, target)?;
        let target = format!("/etc/alternatives/{link}");
        add(&mut tar, EntryType::Symlink, &format!("usr/lib/{link}"), 0o777, 0, &target)?;
    }
    add(&mut tar, EntryType::Directory, "var/lib/redis", 0o750, 101, "")?;
    add(&mut tar, EntryType::Directory, "var/log/redis", 0o2750, 101, "")?;
    for (name, version, fields, files) in PACKAGES {
        let fields = if fields.is_empty() { String::new() } else { format!("{fields}\n") };
        status.push_str(&format!(
            "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n{fields}\
             Description: {name} for tests, 100% fake\n more of it\n\n"
        ));
        // dpkg knows programs and libraries by their old places, without `/usr`.
        let mut list = String::new();
        for path in *files {
            list.push_str(&format!("/{}{path}\n", if path.starts_with("share") { "usr/" } else { "" }));
        }
        add(&mut tar, EntryType::Regular, &format!("var/lib/dpkg/info/{name}.list"), 0o644, 0, &list)?;
        for path in *files {
            let mode = if path.ends_with("sudo") { 0o4755 } else { 0o755 };
            add(&mut tar, EntryType::Regular, &format!("usr/{path}"), mode, 0, name)?;
        }
    }
    for (path, mode, text) in [
        ("var/lib/dpkg/status", 0o644, status.as_str()),
        (
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/root:/bin/bash\nredis:x:101:101::/var/lib/redis:/bin/false\n",
        ),
        ("etc/group", 0o644, "root:x:0:\nredis:x:101:\n"),
        ("etc/shadow", 0o640, "root:*:1::::::\n"),
        ("etc/hosts", 0o644, "127.0.0.1 localhost\n"),
        ("boot/initrd.img-6.1.0-1-amd64", 0o644, "initrd"),
        ("etc/machine-id", 0o444, "0123\n"),
        ("var/log/redis/redis.log", 0o640, "of this one root"),
    ] {
        add(&mut tar, EntryType::Regular, path, mode, 0, text)?;
    }
    tar.into_inner()?;
    Ok(())
}

/// `content` is the text of a file, or what a link points to.
fn add(
    tar: &mut Builder<fs::File>,
    kind: EntryType,
    path: &str,
    mode: u32,
    owner: u64,
    content: &str,
) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(1_500_000_000);
    if kind == EntryType::Symlink {
        header.set_size(0);
        tar.append_link(&mut header, path, content)?;
    } else {
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes())?;
    }
    Ok(())
}
