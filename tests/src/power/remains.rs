//! What is left on a data disk whose machine died: e2fsck mends it as the next boot would, debugfs takes it out, PostgreSQL
//! recovers on it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::{exec, oracle};

/// Folders of state on the data disk, under the names that first boot gives them.
const ENGINE: &str = "var-lib-appliance";
/// Where certificates lie.
const CERTIFICATES: &str = "etc-letsencrypt";
/// Where the clusters are, one folder for each version of PostgreSQL.
const CLUSTERS: &str = "var-lib-postgresql";

/// A data disk, taken out.
#[derive(Debug)]
pub struct Remains {
    folder: PathBuf,
}

/// The instance's database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Database {
    /// PostgreSQL has no cluster yet.
    NoCluster,
    /// The cluster does not have it yet.
    Absent,
    /// Whole.
    Ready {
        /// Rows that mark the web client; every instance has one.
        superapps: u64,
    },
}

impl Remains {
    /// Recovers the file system that fills a raw disk, in place, and takes what is on it into an empty folder. `None` when the
    /// disk was not formatted yet. An error when e2fsck finds damage that a journal does not explain.
    pub fn of(disk: &Path, folder: &Path) -> Result<Option<Remains>> {
        let superblock = exec::output("dumpe2fs", &["-h".as_ref(), disk.as_os_str()])?;
        if superblock.code != Some(0) {
            ensure!(superblock.text.contains("Bad magic number"), "dumpe2fs: {}", superblock.text.trim());
            return Ok(None);
        }
        let repaired = exec::output("e2fsck", &["-fp".as_ref(), disk.as_os_str()])?;
        // As a boot does it: a journal is replayed and counters are brought up to date (1), all else is damage.
        ensure!(matches!(repaired.code, Some(0 | 1)), "e2fsck found damage: {}", repaired.text.trim());
        oracle::ext4_is_clean(disk)?;
        fs_err::create_dir(folder)?;
        let mut request = std::ffi::OsString::from("rdump /state ");
        request.push(folder);
        let said = exec::output("debugfs", &["-R".as_ref(), request.as_os_str(), disk.as_os_str()])?;
        // It ends well whatever happens, and speaks of nothing but its version when all went well.
        let complaints: Vec<&str> = said.text.lines().filter(|line| !line.starts_with("debugfs ")).collect();
        let is_bare = complaints.iter().all(|line| line.contains("/state: File not found by ext2_lookup"));
        let first = complaints.first().copied().unwrap_or_default();
        ensure!(said.code == Some(0) && is_bare, "debugfs: {first} ({} lines like this)", complaints.len());
        Ok(Some(Remains { folder: folder.join("state") }))
    }

    /// Where a folder of state is, as first boot names it: `var-lib-appliance`.
    pub fn state(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What must never be made a second time, by its path below the engine's folder: secrets, private host keys, the identity.
    pub fn identity(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let engine = self.state(ENGINE);
        let mut found = BTreeMap::new();
        for folder in ["secrets", "ssh"] {
            let Ok(entries) = fs_err::read_dir(engine.join(folder)) else { continue };
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let is_public = folder == "ssh" && !name.ends_with("_key");
                if !is_public {
                    found.insert(format!("{folder}/{name}"), fs_err::read(entry.path())?);
                }
            }
        }
        if let Ok(id) = fs_err::read(engine.join("instance-id")) {
            found.insert("instance-id".to_owned(), id);
        }
        Ok(found)
    }

    /// The certificate in force for a domain, by where it came from; `None` when there is none yet. An error when its key is another
    /// one's, or a file is missing or cut short, as openssl sees it.
    pub fn certificate(&self, domain: &str) -> Result<Option<String>> {
        let live = self.state(CERTIFICATES).join("live").join(domain);
        // The link is relative, so it leads there here as well.
        if live.symlink_metadata().is_err() {
            return Ok(None);
        }
        let (chain, key) = (live.join("fullchain.pem"), live.join("privkey.pem"));
        let of_chain = exec::text(
            "openssl",
            &["x509".as_ref(), "-noout".as_ref(), "-pubkey".as_ref(), "-in".as_ref(), chain.as_os_str()],
        )?;
        let of_key =
            exec::text("openssl", &["pkey".as_ref(), "-pubout".as_ref(), "-in".as_ref(), key.as_os_str()])?;
        ensure!(of_chain == of_key, "the certificate's key is another one's");
        let source = fs_err::read_to_string(live.join("source"))?;
        // openssl reads the first certificate alone.
        let is_whole = fs_err::read_to_string(&chain)?.ends_with("-----END CERTIFICATE-----\n");
        ensure!(is_whole && source.ends_with('\n'), "the certificate's files are cut short");
        Ok(Some(source.trim().to_owned()))
    }

    /// Lets PostgreSQL recover the cluster and looks for the instance's database.
    pub fn database(&self) -> Result<Database> {
        let clusters = self.state(CLUSTERS);
        let versions = fs_err::read_dir(&clusters).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut all = versions.map(|version| version.join("main"));
        let Some(cluster) = all.find(|cluster| cluster.join("PG_VERSION").is_file()) else {
            return Ok(Database::NoCluster);
        };
        // Debian keeps these elsewhere.
        let conf = cluster.join("remains.conf");
        fs_err::write(&conf, "")?;
        let said = query(&cluster, &conf, "template1", "SELECT datname AS found FROM pg_database;")?;
        if !said.contains("found = \"mastodon\"") {
            return Ok(Database::Absent);
        }
        let said = query(
            &cluster,
            &conf,
            "mastodon",
            "SELECT 'superapps ' || count(*) AS found FROM oauth_applications WHERE superapp;",
        )?;
        let superapps = said
            .split_once("found = \"superapps ")
            .and_then(|(_, rest)| rest.split_once('"')?.0.parse().ok())
            .with_context(|| format!("PostgreSQL did not count: {said}"))?;
        Ok(Database::Ready { superapps })
    }
}

/// Runs one statement in single-user mode, as the owner of the files, after PostgreSQL has recovered.
fn query(cluster: &Path, conf: &Path, database: &str, statement: &str) -> Result<String> {
    use std::os::unix::fs::MetadataExt as _;
    let owner = fs_err::metadata(cluster)?;
    let version = fs_err::read_to_string(cluster.join("PG_VERSION"))?;
    let server = format!("/usr/lib/postgresql/{}/bin/postgres", version.trim());
    ensure!(
        Path::new(&server).is_file(),
        "the guest has PostgreSQL {}, and only the same version on this host can look at its data: there is no `{server}`",
        version.trim()
    );
    let (user, group) = (format!("--reuid={}", owner.uid()), format!("--regid={}", owner.gid()));
    let conf = format!("config_file={}", conf.display());
    let script = cluster.join("remains.sql");
    // Single-user mode takes one statement a line.
    fs_err::write(&script, format!("{statement}\n"))?;
    let shell = "exec \"$@\" <\"$SCRIPT\"";
    let args: [&OsStr; 14] = [
        user.as_ref(),
        group.as_ref(),
        "--clear-groups".as_ref(),
        "sh".as_ref(),
        "-c".as_ref(),
        shell.as_ref(),
        "sh".as_ref(),
        server.as_ref(),
        "--single".as_ref(),
        "-D".as_ref(),
        cluster.as_os_str(),
        "-c".as_ref(),
        conf.as_ref(),
        database.as_ref(),
    ];
    let said = exec::text_with("setpriv", &args, &[("SCRIPT", script.as_os_str())])
        .context("letting PostgreSQL recover what is left of its cluster")?;
    for sign in ["PANIC", "FATAL", "ERROR", "invalid page"] {
        ensure!(!said.contains(sign), "PostgreSQL objects: {}", said.trim());
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn a_certificate_is_whole_or_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let remains = Remains { folder: folder.path().to_owned() };
        assert_eq!(remains.certificate("a.example").unwrap(), None);
        let live = folder.path().join("etc-letsencrypt/live");
        let pair = folder.path().join("etc-letsencrypt/archive/a.example/1");
        fs_err::create_dir_all(&live).unwrap();
        fs_err::create_dir_all(&pair).unwrap();
        fs_err::os::unix::fs::symlink("../archive/a.example/1", live.join("a.example")).unwrap();
        assert!(remains.certificate("a.example").is_err());
        let write = |name: &str, text: &str| fs_err::write(pair.join(name), text).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        write("fullchain.pem", &certificate.pem());
        write("privkey.pem", &key.serialize_pem());
        write("source", "self-signed\n");
        assert_eq!(remains.certificate("a.example").unwrap().as_deref(), Some("self-signed"));
        write("privkey.pem", &KeyPair::generate().unwrap().serialize_pem());
        assert!(remains.certificate("a.example").unwrap_err().to_string().contains("another one's"));
        write("privkey.pem", "");
        assert!(remains.certificate("a.example").is_err());
    }

    #[test]
    fn a_blank_disk_holds_nothing_and_a_damaged_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        fs_err::File::create(&disk).unwrap().set_len(16 << 20).unwrap();
        assert!(Remains::of(&disk, &folder.path().join("blank")).unwrap().is_none());

        let tree = folder.path().join("tree");
        fs_err::create_dir_all(tree.join("state/var-lib-appliance/secrets")).unwrap();
        fs_err::write(tree.join("state/var-lib-appliance/secrets/otp-secret"), "abc\n").unwrap();
        exec::text(
            "mke2fs",
            &["-qt".as_ref(), "ext4".as_ref(), "-d".as_ref(), tree.as_os_str(), disk.as_os_str()],
        )
        .unwrap();
        let remains = Remains::of(&disk, &folder.path().join("sound")).unwrap().unwrap();
        assert_eq!(remains.identity().unwrap()["secrets/otp-secret"], b"abc\n");
        assert_eq!(remains.database().unwrap(), Database::NoCluster);

        let destroy = ["-w".as_ref(), "-R".as_ref(), "clri /state".as_ref(), disk.as_os_str()];
        exec::text("debugfs", &destroy).unwrap();
        let error = Remains::of(&disk, &folder.path().join("damaged")).unwrap_err().to_string();
        assert!(error.contains("e2fsck"), "{error}");
    }
}
