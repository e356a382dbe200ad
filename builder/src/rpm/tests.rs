//! Packages made here, read, verified, unpacked; and everything that must be refused, with the words that say so.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::LazyLock;

use anyhow::Result;
use fs_err as fs;
use pgp::crypto::hash::HashAlgorithm;
use proptest::prelude::*;

use super::header::Package;
use super::signature::{Keyring, Verified, fingerprint};
use super::testing::{Draft, Item, Kind, Pair, Sign, assemble, trusted};
use super::{TrustedKey, payload};
use crate::error::{exit_code, render};

static RSA: LazyLock<Pair> = LazyLock::new(|| Pair::new(Kind::Rsa, 1));
static DSA: LazyLock<Pair> = LazyLock::new(|| Pair::new(Kind::Dsa, 2));
static STRANGER: LazyLock<Pair> = LazyLock::new(|| Pair::new(Kind::Ed25519, 3));

fn v3_both(header: &[u8], payload: &[u8]) -> Vec<(u32, Vec<u8>)> {
    vec![(268, RSA.v3(header)), (1002, RSA.v3(&[header, payload].concat()))]
}

fn v4_header(header: &[u8], _: &[u8]) -> Vec<(u32, Vec<u8>)> {
    vec![(268, RSA.v4(header, HashAlgorithm::Sha256))]
}

fn items() -> Vec<Item> {
    vec![
        Item::folder("/usr/share/demo", 0o555),
        Item::file("/usr/share/demo/first", 0o640, b"shared content").inode(7, 3),
        Item::file("/usr/bin/demo", 0o4755, b"#!/bin/sh\n"),
        Item::file("/usr/share/demo/second", 0o640, b"shared content").inode(7, 3),
        Item::file("/lib64/libdemo.so", 0o755, &vec![7; 100_000]),
        Item::link("/lib64/libdemo.so.1", "libdemo.so"),
        Item::file("/opt/third", 0o640, b"shared content").inode(7, 3),
        Item::file("/usr/share/demo/empty", 0o644, b""),
        Item { flags: 64, ..Item::file("/var/log/demo.log", 0o600, b"") },
        Item { mode: 0o020_600, ..Item::folder("/dev/demo", 0) },
    ]
}

fn keyring(folder: &Path) -> Keyring {
    Keyring::load(&[RSA.trusted(folder), DSA.trusted(folder)]).unwrap()
}

fn check(folder: &Path, draft: &Draft, sign: Sign<'_>) -> Result<Verified> {
    keyring(folder).verify(Package::open(&draft.write(folder, sign))?)
}

/// The words for the user, with the folder of the test taken out.
fn words<T: std::fmt::Debug>(folder: &Path, result: Result<T>) -> String {
    let error = result.unwrap_err();
    assert_ne!(exit_code(&error), 3, "{error:?}");
    render(&error).replace(&*folder.to_string_lossy(), "FOLDER")
}

#[track_caller]
fn refused(draft: &Draft, sign: Sign<'_>, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let words = words(folder.path(), check(folder.path(), draft, sign));
    assert!(words.contains(expected), "{words}");
    assert!(words.contains("hint: "), "{words}");
}

/// Roots as the caller makes them.
fn stage(folder: &Path) -> std::path::PathBuf {
    let root = folder.join("root");
    fs::create_dir_all(root.join("usr/lib64")).unwrap();
    symlink("usr/lib64", root.join("lib64")).unwrap();
    root
}

#[track_caller]
fn not_unpacked(draft: &Draft, prepare: impl Fn(&Path), expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let root = stage(folder.path());
    fs::create_dir(folder.path().join("outside")).unwrap();
    prepare(&root);
    let package = check(folder.path(), draft, &v3_both).unwrap();
    let words = words(folder.path(), payload::unpack(&package, &root));
    assert!(words.contains(expected), "{words}");
    assert_eq!(fs::read_dir(folder.path().join("outside")).unwrap().count(), 0);
}

#[test]
fn packages_are_verified_and_unpacked() {
    let dsa = |header: &[u8], payload: &[u8]| {
        vec![(267, DSA.v3(header)), (1005, DSA.v3(&[header, payload].concat()))]
    };
    let v4_all = |header: &[u8], payload: &[u8]| {
        vec![(1002, RSA.v4(&[header, payload].concat(), HashAlgorithm::Sha512))]
    };
    let subkey = |header: &[u8], _: &[u8]| vec![(268, RSA.v4_by_subkey(header))];
    let all: [(&str, Sign<'_>, &Pair); 5] = [
        ("xz", &v3_both, &RSA),
        ("gzip", &v4_header, &RSA),
        ("zstd", &v4_all, &RSA),
        ("none", &dsa, &DSA),
        ("xz", &subkey, &RSA),
    ];
    for (compressor, sign, pair) in all {
        let folder = tempfile::tempdir().unwrap();
        let root = stage(folder.path());
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        symlink("/etc/passwd", root.join("usr/bin/demo")).unwrap();
        let package = check(folder.path(), &Draft { compressor, ..Draft::new(items()) }, sign).unwrap();
        assert_eq!(package.signed_by(), pair.fingerprint());
        assert_eq!(package.nevra().to_string(), "demo-2:1.0-3.el7.x86_64");
        assert_eq!(package.source_rpm(), Some("demo-1.0-3.el7.src.rpm"));
        assert_eq!(package.files().len(), 10);
        payload::unpack(&package, &root).unwrap();
        payload::unpack(&package, &root).unwrap();

        let meta = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
        assert_eq!(meta("usr/share/demo").permissions().mode() & 0o7777, 0o755);
        assert_eq!(meta("opt").permissions().mode() & 0o7777, 0o755);
        assert!(meta("usr/bin/demo").is_file());
        assert_eq!(meta("usr/bin/demo").permissions().mode() & 0o7777, 0o755);
        assert_eq!(meta("usr/bin/demo").mtime(), 1_500_000_000);
        assert_eq!(fs::read(root.join("usr/lib64/libdemo.so")).unwrap(), vec![7; 100_000]);
        assert_eq!(fs::read_link(root.join("usr/lib64/libdemo.so.1")).unwrap(), Path::new("libdemo.so"));
        assert_eq!(fs::read(root.join("usr/share/demo/first")).unwrap(), b"shared content");
        assert_eq!(meta("usr/share/demo/first").permissions().mode() & 0o7777, 0o640);
        for other in ["usr/share/demo/second", "opt/third"] {
            assert_eq!(meta(other).ino(), meta("usr/share/demo/first").ino());
        }
        assert_eq!(meta("usr/share/demo/empty").len(), 0);
        assert!(!root.join("var/log/demo.log").exists() && !root.join("dev/demo").exists());
    }
}

#[test]
fn a_key_is_what_its_fingerprint_says_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let print = RSA.fingerprint();
    let old = trusted(path, &RSA.public_with_sha1(), &print);
    assert_eq!(fingerprint(&old.file).unwrap(), print);
    let spaced =
        TrustedKey { fingerprint: format!("{} {}", &print[..20].to_lowercase(), &print[20..]), ..old };
    let file = Draft::new(items()).write(path, &v3_both);
    let keyring = Keyring::load(std::slice::from_ref(&spaced)).unwrap();
    assert_eq!(keyring.verify(Package::open(&file).unwrap()).unwrap().signed_by(), print);

    let pinned = STRANGER.fingerprint();
    let other = TrustedKey { fingerprint: pinned.clone(), ..spaced };
    let text = words(path, Keyring::load(&[other]));
    assert!(text.contains(&format!(".asc` holds the key {print}, and {pinned} is pinned")), "{text}");

    // Two keys in one file, as nginx publishes them.
    let both = path.join("both.asc");
    let text =
        [RSA.trusted(path), DSA.trusted(path)].map(|key| fs::read_to_string(key.file).unwrap()).concat();
    fs::write(&both, text).unwrap();
    Keyring::load(&[TrustedKey { file: both, fingerprint: DSA.fingerprint(), sha1: false }]).unwrap();

    // A subkey that another key has bound is a stranger's.
    let mut stolen = RSA.public();
    stolen.public_subkeys = STRANGER.public().public_subkeys;
    let keyring = Keyring::load(&[trusted(path, &stolen, &print)]).unwrap();
    let file = Draft::new(items()).write(path, &|header, _| vec![(268, STRANGER.v4_by_subkey(header))]);
    let text = words(path, keyring.verify(Package::open(&file).unwrap()));
    assert!(text.contains("is signed by the key"), "{text}");

    for (content, expected) in
        [("", "is not an OpenPGP public key"), ("-----BEGIN PGP PUBLIC KEY BLOCK-----", "is not")]
    {
        let file = path.join("bad.asc");
        fs::write(&file, content).unwrap();
        let text =
            words(path, Keyring::load(&[TrustedKey { file, fingerprint: print.clone(), sha1: false }]));
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn signatures_that_do_not_count() {
    let draft = Draft::new(items());
    let print = RSA.fingerprint();
    let accepted = format!("accepted are {print}, {}", DSA.fingerprint());
    refused(
        &draft,
        &|_, _| vec![],
        &format!("package demo-2:1.0-3.el7.x86_64: it is not signed; {accepted}"),
    );
    let id = &STRANGER.fingerprint()[24..];
    let stranger = |header: &[u8], _: &[u8]| vec![(267, STRANGER.v4(header, HashAlgorithm::Sha256))];
    refused(&draft, &stranger, &format!("it is signed by the key {id}; {accepted}"));
    let weak = |header: &[u8], _: &[u8]| vec![(268, RSA.v4(header, HashAlgorithm::Sha1))];
    refused(
        &draft,
        &weak,
        &format!("it has only a SHA1 signature by {print}, and such signatures can be forged"),
    );
    let forged = |_: &[u8], _: &[u8]| vec![(268, RSA.v3(b"another header"))];
    refused(
        &draft,
        &forged,
        &format!("the signature over the header is not one of {print}: damaged or forged"),
    );
    // One good signature does not make up for a forged one.
    let half = |header: &[u8], _: &[u8]| vec![(268, RSA.v3(header)), (1002, RSA.v3(header))];
    refused(
        &draft,
        &half,
        &format!("the signature over header and payload is not one of {print}: damaged or forged"),
    );
    refused(&draft, &|_, _| vec![(268, vec![1, 2, 3])], "its signature cannot be read");
}

#[test]
fn damage_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let damaged = |draft: &Draft, sign: Sign<'_>, flip: &dyn Fn(&mut Vec<u8>), expected: &str| {
        let file = draft.write(path, sign);
        let mut bytes = fs::read(&file).unwrap();
        flip(&mut bytes);
        fs::write(&file, bytes).unwrap();
        let words = words(path, Package::open(&file).and_then(|package| keyring(path).verify(package)));
        assert!(words.contains(expected), "{words}");
    };
    let in_payload = |bytes: &mut Vec<u8>| {
        let at = bytes.len() - 50_000;
        bytes[at] ^= 1;
    };
    let in_header = |bytes: &mut Vec<u8>| {
        let at = bytes.windows(10).rposition(|at| at == b"libdemo.so").unwrap();
        let at = bytes[..at].windows(10).rposition(|at| at == b"libdemo.so").unwrap_or(at);
        bytes[at] ^= 1;
    };
    let stored = Draft { compressor: "none", ..Draft::new(items()) };
    let with_digest = Draft { payload_digest: true, ..stored.clone() };
    let bare = Draft { file_digests: false, ..stored.clone() };
    let xz = Draft::new(items());
    damaged(&xz, &v3_both, &in_header, "its header is damaged: SHA256");
    damaged(&stored, &v3_both, &in_payload, "the signature over header and payload is not one of");
    damaged(&with_digest, &v4_header, &in_payload, "its payload is damaged: SHA256");
    damaged(
        &stored,
        &v4_header,
        &in_payload,
        "`/lib64/libdemo.so` is not what the header says: its digest differs",
    );
    damaged(&bare, &v4_header, &|_| {}, "nothing signed vouches for the content of `/usr/share/demo/first`");
    let whole = fs::read(xz.write(path, &v3_both)).unwrap();
    for length in [0, 3, 95, 100, 500, 1500, whole.len() - 1] {
        let cut = |bytes: &mut Vec<u8>| bytes.truncate(length);
        damaged(&xz, &v3_both, &cut, "error: `FOLDER/demo.rpm` is not a sound RPM package: ");
        damaged(&xz, &v3_both, &cut, "it is cut off");
    }
    damaged(&xz, &v3_both, &|bytes| bytes[0] = 0, "it does not begin as one");
    damaged(&Draft { dribble: true, ..xz.clone() }, &v3_both, &|_| {}, "does not cover the whole header");
}

#[test]
fn paths_that_lead_out() {
    for path in ["/usr/../../etc/passwd", "usr/bin/x", "/usr//x", "/usr/./x", "/usr/x\n", "/usr/lib/.."] {
        let draft = Draft::new(vec![Item::file(path, 0o644, b"x")]);
        let expected =
            format!("package demo-2:1.0-3.el7.x86_64: path `{}` leads out of the tree", path.escape_debug());
        refused(&draft, &v3_both, &expected);
    }
    let file = Draft::new(vec![Item::file("/srv/demo/file", 0o644, b"x")]);
    let outside = "demo-2:1.0-3.el7.x86_64: path `/srv/demo/file` leads out of the tree: ";
    not_unpacked(
        &file,
        |root| symlink(root.parent().unwrap().join("outside"), root.join("srv")).unwrap(),
        outside,
    );
    not_unpacked(&file, |root| symlink("../outside", root.join("srv")).unwrap(), outside);
    not_unpacked(
        &file,
        |root| symlink("nowhere", root.join("srv")).unwrap(),
        "`/srv`, a symbolic link to nothing",
    );
    not_unpacked(
        &file,
        |root| fs::write(root.join("srv"), "").unwrap(),
        "is below `/srv/demo`, which is not a folder",
    );
    let own = Draft::new(vec![Item::link("/srv", "../outside"), Item::file("/srv/file", 0o644, b"x")]);
    not_unpacked(&own, |_| {}, "path `/srv/file` leads out of the tree");
    let folder = Draft::new(vec![Item::link("/srv", "../outside"), Item::folder("/srv/folder", 0o755)]);
    not_unpacked(&folder, |_| {}, "path `/srv/folder` leads out of the tree");
    not_unpacked(&own, |root| fs::create_dir(root.join("srv")).unwrap(), "`/srv` is a folder already");
}

#[test]
fn the_payload_is_held_against_the_header() {
    let fine = Item::file("/usr/fine", 0o644, b"fine");
    let draft = Draft::new(vec![fine.clone()]);
    let with = |stowaway: Item| Draft { stowaways: vec![stowaway], ..draft.clone() };
    not_unpacked(&with(Item::file("/usr/more", 0o644, b"x")), |_| {}, "`/usr/more` is not in the header");
    not_unpacked(&with(Item::file("/../x", 0o644, b"x")), |_| {}, "`/../x` is not in the header");
    not_unpacked(&with(fine.clone()), |_| {}, "`/usr/fine` is there twice");
    let missing = Draft::new(vec![
        fine.clone(),
        Item::file("/usr/linked", 0o644, b"x").inode(9, 2),
        Item::folder("/y", 0).inode(9, 2),
    ]);
    not_unpacked(&missing, |_| {}, "`/usr/linked` is a hard link to a file that is not there");
    let bzip2 = Draft { compressor: "bzip2", ..draft };
    not_unpacked(&bzip2, |_| {}, "its payload is compressed by `bzip2`, which is not understood");
    // Sizes, types and targets differ only where header and payload were made apart.
    let folder = tempfile::tempdir().unwrap();
    for (item, expected) in [
        (Item::file("/usr/fine", 0o644, b"longer"), "has 4 bytes and not 6 as the header says"),
        (Item::file("/usr/fine", 0o644, b"okay"), "its digest differs"),
        (Item::folder("/usr/fine", 0o755), "is of another type than the header says"),
    ] {
        let (header, _) = Draft::new(vec![item]).parts();
        let (_, payload) = Draft::new(vec![fine.clone()]).parts();
        let mixed = folder.path().join("mixed.rpm");
        fs::write(&mixed, assemble(&header, &payload, &v3_both)).unwrap();
        let package = keyring(folder.path()).verify(Package::open(&mixed).unwrap()).unwrap();
        let root = tempfile::tempdir().unwrap();
        let words = words(folder.path(), payload::unpack(&package, root.path()));
        assert!(words.contains(expected), "{words}");
    }
}

static GOOD: LazyLock<(tempfile::TempDir, Vec<u8>, Keyring)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let draft = Draft { compressor: "none", ..Draft::new(items()[..4].to_vec()) };
    let bytes = fs::read(draft.write(folder.path(), &v4_header)).unwrap();
    let keyring = keyring(folder.path());
    (folder, bytes, keyring)
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever comes, there is an answer; and what is accepted is what was signed.
    #[test]
    fn hostile_bytes_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0), Just(255)]), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (_, good, keyring) = &*GOOD;
        let mut bytes = good.clone();
        for (at, value) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("demo.rpm");
        fs::write(&file, &bytes).unwrap();
        if let Ok(package) = Package::open(&file).and_then(|package| keyring.verify(package)) {
            let root = folder.path().join("root");
            fs::create_dir(&root).unwrap();
            payload::unpack(&package, &root).unwrap();
            prop_assert_eq!(fs::read(root.join("usr/bin/demo")).unwrap(), b"#!/bin/sh\n");
        }
    }

    /// The same for keys.
    #[test]
    fn hostile_keys_never_panic(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let folder = tempfile::tempdir().unwrap();
        let key = STRANGER.trusted(folder.path());
        let mut bytes = fs::read(&key.file).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = value;
        fs::write(&key.file, bytes).unwrap();
        let _ = Keyring::load(&[key]);
    }
}

#[test]
fn sha1_signatures_count_only_for_a_key_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let weak = |header: &[u8], _: &[u8]| vec![(268, RSA.v4(header, HashAlgorithm::Sha1))];
    let open = || Package::open(&Draft::new(items()).write(folder.path(), &weak)).unwrap();
    let strict = RSA.trusted(folder.path());
    let tolerant = TrustedKey { sha1: true, ..strict.clone() };
    assert!(Keyring::load(&[strict]).unwrap().verify(open()).is_err());
    assert_eq!(Keyring::load(&[tolerant]).unwrap().verify(open()).unwrap().signed_by(), RSA.fingerprint());
}
