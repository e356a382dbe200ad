//! Where certificates lie: `/etc/letsencrypt/archive/<domain>/<n>/`, and `live/<domain>` is a link to one of these.
//!
//! The paths that nginx reads are certbot's (`live/<domain>/fullchain.pem`, `privkey.pem`). Chain and key always change
//! together: the folder is complete and synced before the one link is flipped. Older folders stay.

use std::path::Path;

use anyhow::{Result, bail};
use fs_err as fs;

use super::certificate::Certificate;
use crate::context::Context;
use crate::durable;

/// Root of the store in the guest; kept from certbot for everything that expects it there.
pub const ROOT: &str = "/etc/letsencrypt";

/// What `source` says in the folder of a certificate of our own.
pub const SELF_SIGNED: &str = "self-signed";

/// What `source` says in the folder of a certificate that the operator has brought.
pub const MANUAL: &str = "manual";

/// The pair that is in force.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Its leaf.
    pub certificate: Certificate,
    /// Where it came from: [`SELF_SIGNED`], [`MANUAL`] or the URL of an ACME directory.
    pub source: String,
}

/// The guest's path of the chain.
pub fn chain_path(domain: &str) -> String {
    format!("{ROOT}/live/{domain}/fullchain.pem")
}

/// The guest's path of the private key.
pub fn key_path(domain: &str) -> String {
    format!("{ROOT}/live/{domain}/privkey.pem")
}

/// The pair in force: an error when there is none, or when it cannot serve this domain.
pub fn load(context: &Context, domain: &str) -> Result<Pair> {
    let chain = fs::read_to_string(context.path(&chain_path(domain)))?;
    let key = fs::read_to_string(context.path(&key_path(domain)))?;
    let certificate = Certificate::from_chain(&chain)?;
    if !certificate.is_for(domain) {
        bail!("the certificate is for {:?}, not for `{domain}`", certificate.names);
    }
    if !certificate.belongs_to(&key) {
        bail!("the certificate's private key is not the one beside it");
    }
    let source =
        fs::read_to_string(context.path(&format!("{ROOT}/live/{domain}/source"))).unwrap_or_default();
    Ok(Pair { certificate, source: source.trim().to_owned() })
}

/// Puts the newest stored pair from a source in force again that can serve this domain and is not yet due; whether there is one.
pub fn reuse(context: &Context, domain: &str, source: &str, now: i64) -> Result<bool> {
    let archive = context.path(&format!("{ROOT}/archive/{domain}"));
    if !archive.is_dir() {
        return Ok(false);
    }
    for number in (1..next_number(&archive)?).rev() {
        let folder = archive.join(number.to_string());
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        if read("source").trim() != source {
            continue;
        }
        let Ok(certificate) = Certificate::from_chain(&read("fullchain.pem")) else { continue };
        let is_good =
            certificate.is_for(domain) && certificate.is_valid_at(now) && !certificate.is_due_at(now);
        if is_good && certificate.belongs_to(&read("privkey.pem")) {
            durable::private_folder(&context.path(&format!("{ROOT}/live")))?;
            let live = context.path(&format!("{ROOT}/live/{domain}"));
            durable::flip_link(&live, &format!("../archive/{domain}/{number}"))?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Adds a pair and puts it in force; the flip of the link is the commit point.
pub fn install(context: &Context, domain: &str, chain: &str, key: &str, source: &str) -> Result<()> {
    let archive = context.path(&format!("{ROOT}/archive/{domain}"));
    let live = context.path(&format!("{ROOT}/live/{domain}"));
    for folder in ["archive", "live"] {
        durable::private_folder(&context.path(&format!("{ROOT}/{folder}")))?;
    }
    durable::folder(&archive)?;

    let number = next_number(&archive)?;
    let folder = archive.join(number.to_string());
    let scratch = durable::scratch(&folder);
    durable::scratch_folder(&scratch)?;
    durable::write(&scratch.join("fullchain.pem"), chain.as_bytes(), 0o644, None)?;
    durable::write(&scratch.join("privkey.pem"), key.as_bytes(), 0o600, None)?;
    durable::write(&scratch.join("source"), format!("{source}\n").as_bytes(), 0o644, None)?;
    durable::sync_tree(&scratch)?;
    durable::rename(&scratch, &folder)?;
    durable::flip_link(&live, &format!("../archive/{domain}/{number}"))
}

fn next_number(archive: &Path) -> Result<u32> {
    let mut largest = 0;
    for entry in fs::read_dir(archive)? {
        if let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) {
            largest = largest.max(number);
        }
    }
    Ok(largest + 1)
}

#[cfg(test)]
mod tests {
    use super::{SELF_SIGNED, install, load};
    use crate::context::tests::scratch_context;
    use crate::tls::selfsigned;

    const DOMAIN: &str = "v6don.example.net";

    #[test]
    fn the_newest_pair_is_in_force_and_older_ones_stay() {
        let (_guard, context) = scratch_context();
        assert!(load(&context, DOMAIN).is_err());
        let (chain, key) = selfsigned::make(DOMAIN, 0, 300).unwrap();
        install(&context, DOMAIN, &chain, &key, SELF_SIGNED).unwrap();
        assert_eq!(load(&context, DOMAIN).unwrap().source, SELF_SIGNED);
        let first = load(&context, DOMAIN).unwrap().certificate;

        // What a cut left.
        fs_err::create_dir_all(context.path("/etc/letsencrypt/archive/v6don.example.net/2.new")).unwrap();
        let (chain, key) = selfsigned::make(DOMAIN, 0, 300).unwrap();
        install(&context, DOMAIN, &chain, &key, "https://ca.example.net/directory").unwrap();
        let second = load(&context, DOMAIN).unwrap();
        assert_eq!(second.source, "https://ca.example.net/directory");
        assert_ne!(second.certificate, first);
        let names: Vec<_> = fs_err::read_dir(context.path("/etc/letsencrypt/archive/v6don.example.net"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn a_pair_that_cannot_serve_is_an_error() {
        let (_guard, context) = scratch_context();
        let (chain, key) = selfsigned::make("other.example.net", 0, 300).unwrap();
        install(&context, DOMAIN, &chain, &key, SELF_SIGNED).unwrap();
        assert!(load(&context, DOMAIN).unwrap_err().to_string().contains("is for [\"other.example.net\"]"));
        let (chain, _) = selfsigned::make(DOMAIN, 0, 300).unwrap();
        install(&context, DOMAIN, &chain, &key, SELF_SIGNED).unwrap();
        assert!(load(&context, DOMAIN).unwrap_err().to_string().contains("not the one beside it"));
    }
}
