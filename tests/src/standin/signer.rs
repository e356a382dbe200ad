//! A throw-away OpenPGP key of the kind that CentOS 7 has: RSA, its self-signature made with SHA-1. The packages' signatures are
//! SHA-256, as there.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::exec;

/// gpg's number of SHA-1.
const SHA1: &str = "digest algo 2,";
/// Packages per run of rpmsign.
const BATCH: usize = 64;

/// A key with its secret half, gone when dropped.
#[derive(Debug)]
pub(super) struct Signer {
    home: TempDir,
    pub fingerprint: String,
}

impl Signer {
    /// Makes a key.
    pub fn new(name: &str) -> Result<Signer> {
        // Not in the caller's folder: sockets live here, whose names must be short.
        let home = tempfile::Builder::new().prefix("standin-").tempdir()?;
        let mut signer = Signer { home, fingerprint: String::new() };
        let user = format!("{name} <stand-in@example.net>");
        signer.gpg(&[
            "--passphrase",
            "",
            "--cert-digest-algo",
            "SHA1",
            "--quick-generate-key",
            &user,
            "rsa2048",
            "sign",
            "never",
        ])?;
        let listed = signer.gpg(&["--with-colons", "--list-keys"])?;
        let fingerprint = listed.lines().find_map(|line| line.strip_prefix("fpr:::::::::"));
        let fingerprint = fingerprint.context("gpg lists no fingerprint")?.trim_end_matches(':');
        fingerprint.clone_into(&mut signer.fingerprint);
        Ok(signer)
    }

    /// Writes the public key, and holds it to the weakness that it is made for.
    pub fn export(&self, file: &Path) -> Result<()> {
        let name = file.to_str().context("the key's name is not UTF-8")?;
        self.gpg(&["--armor", "--output", name, "--export", &self.fingerprint])?;
        let packets = self.gpg(&["--list-packets", name])?;
        ensure!(packets.contains(SHA1), "gpg did not sign `{name}` with SHA-1: {packets}");
        Ok(())
    }

    /// Signs packages, or signs them anew.
    pub fn sign(&self, packages: &[PathBuf]) -> Result<()> {
        let sign = |packages: &[PathBuf]| {
            for batch in packages.chunks(BATCH) {
                let mut args = vec!["--resign".to_owned()];
                for define in [
                    format!("_gpg_name {}", self.fingerprint),
                    format!("_gpg_path {}", self.home.path().display()),
                    "_gpg_digest_algo sha256".to_owned(),
                    "__gpg /usr/bin/gpg".to_owned(),
                ] {
                    args.extend(["--define".to_owned(), define]);
                }
                args.extend(batch.iter().map(|path| path.display().to_string()));
                exec::text("rpmsign", &args)?;
            }
            Ok(())
        };
        let (one, other) = packages.split_at(packages.len() / 2);
        std::thread::scope(|scope| {
            let one = scope.spawn(|| sign(one));
            sign(other)?;
            one.join().unwrap_or_else(|_| bail!("a thread that signs packages panicked"))
        })
    }

    fn gpg(&self, args: &[&str]) -> Result<String> {
        let home = self.home.path().to_str().context("the temporary folder's name is not UTF-8")?;
        let mut all = vec!["--homedir", home, "--batch", "--quiet", "--no-tty"];
        all.extend(args);
        exec::text("gpg", &all)
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        // gpg leaves an agent behind; without its folder it would stay for a while.
        let home = self.home.path().as_os_str();
        let _ = exec::text("gpgconf", &["--homedir".as_ref(), home, "--kill".as_ref(), "gpg-agent".as_ref()]);
    }
}
