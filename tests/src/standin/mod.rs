//! A stand-in for the repositories of CentOS 7: RPM packages made of the files of a Debian root, with Debian's own rpm and dnf
//! as the package manager among them.
//!
//! It exists so that the builder's way from a repository of RPM packages to a booted machine can be walked where CentOS's own
//! cannot be had. It is not CentOS, and says so in its names. What is like there: `repodata` whose `primary` does not list every
//! file, epochs, several builds of one package, gzip and xz payloads, scriptlets, `yum` as the command, packages signed with
//! SHA-256 by a key whose own signature is SHA-1.
//!
//! | Package | What it is |
//! | --- | --- |
//! | `centos7-stand-in-release` | os-release; in two builds, of which the older says that it is broken |
//! | `stand-in-data` | needed by a path that only `filelists` has; its current build is newer by its epoch alone |
//! | `setup`, `filesystem` | users; shared folders and the links of the merged `/usr`. Everything comes after them |
//! | `stand-in-generated` | what Debian's maintainer scripts made; has a scriptlet that leaves `/var/lib/centos7-stand-in/scriptlet` |
//! | `stand-in-core` | needs all that Debian calls essential |
//! | `yum`, `kernel` | dnf; Debian's kernel with its initramfs |
//! | the rest | one for each Debian package, under its name |

mod compose;
mod debian;
mod faults;
mod kept;
mod missing;
mod signer;
mod spec;
mod tiny;
mod tree;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;

use crate::exec;
pub use kept::Kept;
use signer::Signer;
use spec::{Payload, Rpm};
use tree::Tree;

/// The package manager, which a Debian root has not.
const MANAGER: [&str; 2] = ["rpm", "dnf"];

/// File of the public key.
const KEY: &str = "RPM-GPG-KEY-centos7-stand-in";

/// A repository on disk, and the key that its packages are signed with.
#[derive(Debug)]
pub struct Repository {
    /// The folder with `repodata` and `Packages`.
    pub folder: PathBuf,
    /// The public key, armored.
    pub key: PathBuf,
    /// Its fingerprint: 40 hexadecimal digits, upper case.
    pub fingerprint: String,
    signer: Arc<Signer>,
}

impl Repository {
    /// Makes a repository out of a Debian root's tar in a folder that is new or empty. Root is not needed; a network is, for the
    /// package manager, unless the root has it.
    pub fn make(base_tar: &Path, folder: &Path) -> Result<Repository> {
        fs::create_dir_all(folder)?;
        let folder = &fs::canonicalize(folder)?;
        ensure!(fs::read_dir(folder)?.next().is_none(), "`{}` is not empty", folder.display());
        let work = tempfile::Builder::new().prefix(".making-").tempdir_in(folder)?;
        let mut tree = Tree::read(base_tar)?;
        let mut packages = debian::installed(&tree)?;
        let lacks = |name: &&str| !packages.iter().any(|package| package.name == **name);
        let names: Vec<&str> = MANAGER.iter().filter(|name| lacks(name)).copied().collect();
        if !names.is_empty() {
            packages.extend(missing::add(&names, &mut tree, work.path())?);
        }

        let system = compose::compose(&tree, &packages)?;
        let root = work.path().join("root");
        let wanted: BTreeSet<&str> =
            system.rpms.iter().flat_map(|rpm| rpm.files.keys().map(String::as_str)).collect();
        tree.write(&wanted, &root)?;
        compose::write(&system.new, &root)?;
        let (current, older) = (compose::twice(true), compose::twice(false));
        let old_root = work.path().join("root-of-older");
        compose::write(&current.new, &root)?;
        compose::write(&older.new, &old_root)?;

        let target = folder.join("Packages");
        fs::create_dir_all(&target)?;
        let xz = |rpm: &&Rpm| compose::XZ.contains(&rpm.name.as_str());
        let of_gzip: Vec<&Rpm> = system.rpms.iter().filter(|rpm| !xz(rpm)).collect();
        let of_xz: Vec<&Rpm> = system.rpms.iter().filter(xz).chain(&current.rpms).collect();
        let old: Vec<&Rpm> = older.rpms.iter().collect();
        spec::build(&of_gzip, Payload::Gzip, &root, &target, &work.path().join("gzip"))?;
        spec::build(&of_xz, Payload::Xz, &root, &target, &work.path().join("xz"))?;
        spec::build(&old, Payload::Gzip, &old_root, &target, &work.path().join("older"))?;

        let signer = Arc::new(Signer::new("CentOS 7 stand-in")?);
        let key = folder.join(KEY);
        signer.export(&key)?;
        let fingerprint = signer.fingerprint.clone();
        let repository = Repository { folder: folder.to_owned(), key, fingerprint, signer };
        repository.signer.sign(&repository.packages()?)?;
        drop(work);
        repository.index()?;
        Ok(repository)
    }

    /// A copy of it in a new folder, to be spoilt; the same key signs there.
    pub fn copy(&self, folder: &Path) -> Result<Repository> {
        for name in ["repodata", "Packages"] {
            fs::create_dir_all(folder.join(name))?;
            for file in fs::read_dir(self.folder.join(name))? {
                let file = file?;
                fs::copy(file.path(), folder.join(name).join(file.file_name()))?;
            }
        }
        let folder = fs::canonicalize(folder)?;
        let key = folder.join(self.key.file_name().context("the key has a name")?);
        fs::copy(&self.key, &key)?;
        Ok(Repository {
            folder,
            key,
            fingerprint: self.fingerprint.clone(),
            signer: Arc::clone(&self.signer),
        })
    }

    /// Writes the repository's metadata anew, for the packages as they are now.
    pub fn index(&self) -> Result<()> {
        let args =
            ["--quiet", "--no-database", "--checksum=sha256", "--general-compress-type=gz", "--workers=2"];
        let mut args: Vec<_> = args.iter().map(AsRef::as_ref).collect();
        args.push(self.folder.as_os_str());
        exec::text("createrepo_c", &args)?;
        Ok(())
    }

    /// The files of its packages, sorted.
    pub fn packages(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.folder.join("Packages"))?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    /// The file of a package, by name; the build that wins where there are two.
    pub fn package(&self, name: &str) -> Result<PathBuf> {
        let is = |path: &&PathBuf| {
            let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
            // Neither version nor release has a hyphen.
            let parts: Vec<&str> = file.rsplitn(3, '-').collect();
            let older =
                parts[0].starts_with("9.stand_in") || parts.get(1) == Some(&"2.0") && name == compose::DATA;
            parts.get(2) == Some(&name) && !older
        };
        let packages = self.packages()?;
        let found = packages.iter().find(is).cloned();
        found.with_context(|| format!("`{}` has no package `{name}`", self.folder.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What rpm says of a package file, without looking at its signature.
    fn query(package: &Path, args: &[&str]) -> String {
        let mut all = vec!["--query", "--package", "--nosignature"];
        all.extend(args);
        all.push(package.to_str().unwrap());
        exec::text("rpm", &all).unwrap()
    }

    /// What rpm says to a package when it trusts this key alone.
    fn check(package: &Path, key: &Path) -> String {
        let database = tempfile::tempdir().unwrap();
        let database = format!("_dbpath {}", database.path().display());
        let run = |args: &[&str], file: &Path| {
            let mut all = vec!["--define", &database];
            all.extend(args);
            all.push(file.to_str().unwrap());
            exec::output("rpmkeys", &all).unwrap().text
        };
        run(&["--import"], key);
        run(&["--checksig", "--verbose"], package)
    }

    fn metadata(repository: &Repository, kind: &str) -> String {
        let folder = repository.folder.join("repodata");
        let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        let wanted = format!("-{kind}.xml.gz");
        let file = files.into_iter().find(|path| path.to_str().unwrap().ends_with(&wanted)).unwrap();
        exec::text("zcat", &[file]).unwrap()
    }

    #[test]
    fn a_tiny_root_becomes_a_repository_of_the_kind_of_centos() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::tiny(&folder.path().join("repository")).unwrap();
        let package = |name| repository.package(name).unwrap();

        // Debian's words, in rpm's form; one that only left-out packages need is not there.
        let requires = query(&package("dnf"), &["--requires"]);
        for wanted in ["filesystem", "rpm = 0:4.18.0+dfsg-1", "python3", "sudo >= 1:1.8"] {
            assert!(requires.lines().any(|line| line == wanted), "{wanted}: {requires}");
        }
        assert!(!requires.contains("gone"), "{requires}");
        assert_eq!(query(&package("sudo"), &["--queryformat", "%{EPOCH}:%{VERSION}-%{RELEASE}"]), "1:1.9-1");
        assert!(query(&package("kernel"), &["--list"]).contains("/boot/initrd.img-6.1.0-1-amd64"));
        assert!(repository.package("libav").is_err());

        // Owners and modes are those of the tar, whoever ran this.
        let format =
            ["--queryformat", "[%{FILEMODES:octal} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILENAMES}\n]"];
        let files = |name| query(&package(name), &format);
        assert_eq!(
            files("sudo"),
            "104755 root:root /usr/bin/sudo\n100755 root:root /usr/share/sudo/a b%name%\\x2d\n"
        );
        assert!(
            files("filesystem").contains("40750 redis:redis /var/lib/redis\n"),
            "{}",
            files("filesystem")
        );
        let logs = "42750 redis:redis /var/log/redis\n";
        assert!(files("filesystem").contains(logs), "{}", files("filesystem"));
        assert!(files("filesystem").contains("120777 root:root /bin\n"), "{}", files("filesystem"));
        assert!(files("filesystem").contains("40755 root:root /proc\n"), "{}", files("filesystem"));
        assert_eq!(files("setup"), "100644 root:root /etc/group\n100644 root:root /etc/passwd\n");
        let generated = files("stand-in-generated");
        assert!(generated.contains("/usr/lib/awk\n"), "{generated}");
        assert!(!generated.contains("redis.log"), "{generated}");
        assert!(!generated.contains("machine-id") && !generated.contains("/av\n"), "{generated}");

        // What a resolver must see through: compression, two builds, a path that only the long list has.
        let compression = |name| query(&package(name), &["--queryformat", "%{PAYLOADCOMPRESSOR}"]);
        assert_eq!((compression("bash").as_str(), compression("dash").as_str()), ("xz", "gzip"));
        let both = |name: &str| {
            let packages = repository.packages().unwrap();
            packages.iter().filter(|path| path.to_str().unwrap().contains(name)).count()
        };
        assert_eq!((both(compose::RELEASE), both(compose::DATA)), (2, 2));
        assert!(package(compose::RELEASE).to_str().unwrap().contains("7-10.stand_in"));
        let only = "<file>/usr/share/centos7-stand-in/data</file>";
        assert!(!metadata(&repository, "primary").contains(only));
        assert!(metadata(&repository, "filelists").contains(only));

        let said = check(&package("bash"), &repository.key);
        assert!(said.contains("RSA/SHA256 Signature") && !said.contains("NOT"), "{said}");
    }

    #[test]
    fn rpm_refuses_what_was_spoilt() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::tiny(&folder.path().join("repository")).unwrap();
        let refused = |name: &str, spoil: &dyn Fn(&Path) -> Result<()>| {
            let package = repository.package(name).unwrap();
            spoil(&package).unwrap();
            check(&package, &repository.key)
        };
        let said = refused("bash", &|package| repository.flip_byte(package));
        assert!(said.contains("digest: BAD"), "{said}");
        let said = refused("dash", &|package| repository.truncate(package));
        assert!(said.contains("BAD") || said.contains("read failed"), "{said}");
        let said = refused("rpm", &|package| repository.resign_with_other_key(package));
        assert!(said.contains("NOKEY"), "{said}");
        let said = refused("dnf", &|package| repository.unsign(package));
        assert!(!said.contains("RSA"), "{said}");
        // Only its path is wrong: signature and digests are right.
        let said = refused(compose::DATA, &|package| repository.with_escaping_path(package));
        assert!(
            said.contains("RSA/SHA256 Signature") && !said.contains("BAD") && !said.contains("NOKEY"),
            "{said}"
        );
        let files = query(&repository.package(compose::DATA).unwrap(), &["--list"]);
        assert!(files.contains("/../etc/x/data"), "{files}");
    }
}
