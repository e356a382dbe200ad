//! What a run left: every path with its kind, mode, owner and content, and the database, as lines that can be compared.
//!
//! Random values are masked by the rules below; that they stay the same over a cut is compared by their hashes, unmasked.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use anyhow::{Result, bail};
use firstboot::stamp;
use regex::Regex;

use crate::scene;

/// Not compared: the kernel's and other people's folders, what servers keep for themselves, logs.
const LEFT_OUT: [&str; 11] = [
    "/dev",
    "/proc",
    "/run",
    "/sys",
    "/tmp",
    "/usr",
    "/var/lib/redis",
    "/var/lib/nginx",
    "/var/log",
    "/etc/pam.d",
    "/disk/device",
];

/// Content that is made of random values alone. It must be there, and not empty.
const RANDOM: [&str; 9] = [
    r"^/etc/machine-id$",
    r"^/etc/ssh/ssh_host_[a-z0-9]+_key(\.pub)?$",
    r"^/etc/letsencrypt/archive/.*\.pem$",
    r"^/root/owner-password$",
    r"^/var/lib/appliance/acme/account-.*\.der$",
    r"^/var/lib/appliance/instance-id$",
    r"^/var/lib/appliance/secrets/[a-z-]+$",
    r"^/var/lib/appliance/ssh/ssh_host_[a-z0-9]+_key$",
    r"^/var/lib/appliance/environment\.in-force$",
];

/// What authority and relay were asked for, and when: nothing that anybody keeps secret, or that stays the same over a cut.
const ASKED: [&str; 3] = [
    "/var/lib/appliance/acme/ledger.json",
    "/var/lib/appliance/acme/renewal.json",
    "/var/lib/appliance/mail-accepted",
];

/// Values within other content that are random, or that PostgreSQL may change: after a recovery a sequence goes on up to 32 further.
/// And moments.
const WITHIN: [&str; 6] = [
    r#""(wall|uptime)": -?\d+"#,
    r#""boot": "[0-9a-f-]+""#,
    r"\b[0-9a-f]{32,}\b",
    r"(?m)^VAPID_P[A-Z]*_KEY=.*$",
    r"\\(un)?restrict \w+",
    r"_seq', \d+, (true|false)\)",
];

static RANDOM_FILES: LazyLock<Vec<Regex>> = LazyLock::new(|| compile(&RANDOM));
static RANDOM_WORDS: LazyLock<Vec<Regex>> = LazyLock::new(|| compile(&WITHIN));

fn compile(texts: &[&str]) -> Vec<Regex> {
    texts.iter().map(|text| Regex::new(text).expect("a constant")).collect()
}

/// Folders that the data disk holds for other places.
const ON_DISK: [&str; 4] =
    ["/var/lib/appliance", "/etc/letsencrypt", "/var/lib/redis", "/var/lib/postgresql"];

/// The path that a path of the tree has in the guest: that of a file on the data disk is where the disk is bound.
fn guest_path(root: &Path, path: &Path) -> String {
    let own = own_path(root, path);
    let bound = ON_DISK.iter().find_map(|place| {
        let kept = format!("/{}/files/state/{}", scene::DISK, place[1..].replace('/', "-"));
        own.strip_prefix(&kept).map(|rest| format!("{place}{rest}"))
    });
    bound.unwrap_or(own)
}

fn own_path(root: &Path, path: &Path) -> String {
    format!("/{}", path.strip_prefix(root).unwrap_or(path).display())
}

/// Where certificates lie in a tree.
fn certificates(root: &Path) -> PathBuf {
    let on_disk = root.join(scene::DISK).join("files/state/etc-letsencrypt");
    if !is_running(root) && on_disk.exists() { on_disk } else { root.join("etc/letsencrypt") }
}

/// Seen from within, where the files of the data disk are where they are bound.
fn is_running(root: &Path) -> bool {
    root == Path::new("/")
}

/// All lines for a tree, ordered by path.
pub fn tree(root: &Path) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let data = scene::facts()?.postgresql.data;
    // A pair that a cut kept from being put in force stays beside the one that is, as every older pair does.
    let live = fs::read_link(certificates(root).join("live").join(scene::DOMAIN)).unwrap_or_default();
    let number = live.file_name().unwrap_or_default().to_string_lossy().into_owned();
    walk(root, &mut |path, meta| {
        let guest = guest_path(root, path);
        if LEFT_OUT.contains(&guest.as_str()) {
            return Ok(false);
        }
        let mut shown = own_path(root, path);
        if let Some(rest) = guest.strip_prefix(&format!("/etc/letsencrypt/archive/{}/", scene::DOMAIN)) {
            let (first, _) = rest.split_once('/').unwrap_or((rest, ""));
            if first != number && !first.ends_with(".new") {
                return Ok(false);
            }
            let archive = format!("/archive/{}", scene::DOMAIN);
            shown = shown.replace(&format!("{archive}/{first}"), &format!("{archive}/N"));
        }
        let content = if meta.is_symlink() {
            let target = fs::read_link(path)?.display().to_string();
            if guest.starts_with("/etc/letsencrypt/live/") {
                "link to the pair in force".to_owned()
            } else {
                format!("link to {target}")
            }
        } else if meta.is_dir() {
            "folder".to_owned()
        } else {
            let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
            content(&guest, &text)
        };
        lines.push(format!("{shown}\t{:o} {}:{}\t{content}", meta.mode() & 0o7777, meta.uid(), meta.gid()));
        Ok(guest != data)
    })?;
    Ok(lines)
}

/// Hashes of what is the same on every machine: which of them are there is what a cut may change.
const EXACT: [&str; 2] = ["/var/lib/appliance/network.sha256", "/var/lib/appliance/network.in-force"];

fn content(guest: &str, text: &str) -> String {
    if EXACT.contains(&guest) {
        return format!("{text:?}");
    }
    if ASKED.contains(&guest) || RANDOM_FILES.iter().any(|rule| rule.is_match(guest)) {
        return if text.trim().is_empty() {
            "EMPTY, but it should be random".to_owned()
        } else {
            "random".to_owned()
        };
    }
    let text = RANDOM_WORDS
        .iter()
        .fold(text.to_owned(), |text, rule| rule.replace_all(&text, "RANDOM").into_owned());
    if text.len() > 200 {
        format!("{} bytes, {}", text.len(), stamp::hash(text.as_bytes()))
    } else {
        format!("{text:?}")
    }
}

/// Shows every path to `see`, which says whether to go below it.
fn walk(folder: &Path, see: &mut dyn FnMut(&Path, &fs::Metadata) -> Result<bool>) -> Result<()> {
    let mut paths: Vec<_> =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths {
        let meta = path.symlink_metadata()?;
        if see(&path, &meta)? && meta.is_dir() {
            walk(&path, see)?;
        }
    }
    Ok(())
}

/// What [`secrets`] calls the certificate's key. One from another source takes its place.
pub const KEY: &str = "the certificate's key in force";

/// Path and hash of every secret and identity that can be seen, the certificate's key in force among them.
pub fn secrets(root: &Path) -> Result<Vec<String>> {
    let mut seen = Vec::new();
    let mut add = |path: &Path, guest: &str| -> Result<()> {
        let bytes = fs::read(path)?;
        // Empty or not made yet, it is nothing that anybody could have used.
        if !bytes.is_empty() && bytes != b"uninitialized\n" {
            seen.push(format!("{guest} {}", stamp::hash(&bytes)));
        }
        Ok(())
    };
    walk(root, &mut |path, meta| {
        let guest = guest_path(root, path);
        if is_running(root) && guest == format!("/{}", scene::DISK) {
            return Ok(false);
        }
        let is_secret =
            !guest.starts_with("/etc/letsencrypt") && RANDOM_FILES.iter().any(|rule| rule.is_match(&guest));
        if is_secret && meta.is_file() {
            add(path, &guest)?;
        }
        Ok(!LEFT_OUT.contains(&guest.as_str()) && guest != "/var/lib/postgresql")
    })?;
    let live = certificates(root).join("live").join(scene::DOMAIN);
    if let Ok(target) = fs::read_link(&live) {
        // The link is relative, so it leads there from outside of the tree as well.
        let key = live.parent().unwrap_or(root).join(target).join("privkey.pem");
        let source = fs::read_to_string(key.with_file_name("source"))?;
        add(&key, &format!("{KEY} from {}", source.trim()))?;
    }
    seen.sort();
    Ok(seen)
}

/// Roles, databases, and the application's own in full; nothing when no server answers. Runs inside the machine.
pub fn database() -> Result<String> {
    let bin = scene::facts()?.postgresql.bin;
    let run = |program: &str, args: &[&str]| -> Result<Option<String>> {
        let output = Command::new("runuser")
            .args(["-u", "postgres", "--", &format!("{bin}/{program}"), "-h", "/run/postgresql"])
            .args(args)
            .env("PATH", "/usr/sbin:/usr/bin")
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(0) => Ok(Some(text)),
            // No server.
            Some(2) => Ok(None),
            _ => bail!("`{program}`: {}", String::from_utf8_lossy(&output.stderr).trim()),
        }
    };
    let roles = "SELECT rolname, rolsuper, rolcreatedb, rolcanlogin FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1; \
                 SELECT datname, datdba::regrole FROM pg_database ORDER BY 1;";
    let Some(mut text) = run("psql", &["-XAtq", "-d", "postgres", "-c", roles])? else {
        return Ok(String::new());
    };
    if text.lines().any(|line| line.starts_with("mastodon|mastodon")) {
        text += &run("pg_dump", &["mastodon"])?.unwrap_or_default();
        if let Ok(password) = fs::read_to_string("/root/owner-password") {
            let fits =
                format!("SELECT 'the password fits', password = md5('{}') FROM users;", password.trim_end());
            text += &run("psql", &["-XAtq", "-d", "mastodon", "-c", &fits])?.unwrap_or_default();
        }
    }
    Ok(RANDOM_WORDS.iter().fold(text, |text, rule| rule.replace_all(&text, "RANDOM").into_owned()))
}
