//! `tls.mode = "manual"`: a certificate that the operator brings, and the next one in time.
//!
//! It comes from the settings, else from two files whose names are certbot's. Nothing of it is put in force before it would
//! really serve: a replacement that is wrong leaves the one in force where it is, and says what is wrong with which file.

use anyhow::{Result, anyhow};
use fs_err as fs;

use super::attempts::DAY;
use crate::context::Context;
use crate::engine::Observation;
use crate::settings::Secret;
use crate::steps::nginx;
use crate::tls::certificate::{Certificate, now};
use crate::tls::moment::minute;
use crate::tls::store;

/// Where the files are looked for.
pub(super) const FOLDER: &str = "/etc/appliance/tls";
const CHAIN: &str = "fullchain.pem";
const KEY: &str = "privkey.pem";

/// No chain and no key is larger, in bytes.
const LARGEST: u64 = 256 * 1024;
/// How long before its end a certificate is asked to be replaced.
const NOTICE: i64 = 14 * DAY;

/// What the operator has brought.
struct Given {
    chain: String,
    key: String,
    /// How the operator knows the chain.
    chain_name: String,
    /// How the operator knows the key.
    key_name: String,
}

/// What there is; `Err` is what to do when it is not all there.
fn given(context: &Context) -> Result<Given, String> {
    let tls = &context.settings().map_err(|error| error.to_string())?.tls;
    if let (Some(chain), Some(key)) = (&tls.certificate, &tls.key) {
        return Ok(Given {
            chain: chain.clone(),
            key: Secret::expose(key).to_owned(),
            chain_name: "`tls.certificate` in the configuration".to_owned(),
            key_name: "`tls.key` in the configuration".to_owned(),
        });
    }
    let read = |name: &str| {
        let guest = format!("{FOLDER}/{name}");
        let path = context.path(&guest);
        match fs::metadata(&path) {
            Ok(meta) if !meta.is_file() => {
                return Err(format!("`{guest}` is not a file: put the PEM text there"));
            }
            Ok(meta) if meta.len() > LARGEST => {
                return Err(format!(
                    "`{guest}` is larger than {LARGEST} bytes, so it is not what it should be: replace it"
                ));
            }
            Ok(_) => {}
            Err(_) => {
                return Err(format!(
                    "for the certificate: put the chain into `{FOLDER}/{CHAIN}` and its key into `{FOLDER}/{KEY}`, or both into the \
                     configuration as `certificate` and `key` under `[tls]`; `{guest}` is not there"
                ));
            }
        }
        fs::read_to_string(&path)
            .map(|text| (text, format!("`{guest}`")))
            .map_err(|error| format!("`{guest}`: {error}: replace it"))
    };
    let ((chain, chain_name), (key, key_name)) = (read(CHAIN)?, read(KEY)?);
    Ok(Given { chain, key, chain_name, key_name })
}

/// The leaf, when the pair would serve this domain now.
fn checked(given: &Given, domain: &str, now: i64) -> Result<Certificate, String> {
    let Given { chain, key, chain_name, key_name } = given;
    let certificates = Certificate::all_of_chain(chain)
        .map_err(|error| format!("{chain_name}: {error:#}: replace it by the whole PEM text"))?;
    let Some(leaf) = certificates.first() else {
        return Err(format!("{chain_name} has no certificate: put the PEM chain there, leaf first"));
    };
    if key.contains("ENCRYPTED") {
        return Err(format!(
            "{key_name} is encrypted, and nobody is there at boot to say its password: decrypt it with `openssl pkey`"
        ));
    }
    if !leaf.belongs_to(key) {
        return Err(match certificates.iter().position(|other| other.belongs_to(key)) {
            Some(place) => {
                format!("{chain_name}: certificate {} is the one of the key: put it first", place + 1)
            }
            None => format!(
                "{key_name} is not the private key of the first certificate in {chain_name}: replace one of them"
            ),
        });
    }
    let wrong_order = certificates.windows(2).position(|pair| !pair[0].is_issued_by(&pair[1]));
    if let Some(place) = wrong_order {
        return Err(format!(
            "{chain_name}: certificate {} was not issued by certificate {}: bring them into order, leaf first, each followed by its issuer",
            place + 1,
            place + 2
        ));
    }
    if !leaf.is_for(domain) {
        return Err(format!(
            "{chain_name} is for {:?}, not for `{domain}`: get one for that name",
            leaf.names
        ));
    }
    if now < leaf.not_before {
        return Err(format!(
            "{chain_name} is valid from {} only, and the clock says {}: wait, or set the clock",
            minute(leaf.not_before),
            minute(now)
        ));
    }
    if now > leaf.not_after {
        return Err(format!(
            "{chain_name} has run out at {}: replace it, and its key",
            minute(leaf.not_after)
        ));
    }
    Ok(leaf.clone())
}

/// See [`crate::engine::Step::observe`].
pub(super) fn observe(context: &Context) -> Result<Observation> {
    let domain = context.settings()?.site().as_str();
    let now = now()?;
    let in_force = store::load(context, domain).ok().filter(|pair| pair.source == store::MANUAL);
    let (given, leaf) =
        match given(context).and_then(|given| checked(&given, domain, now).map(|leaf| (given, leaf))) {
            Ok(good) => good,
            Err(problem) => {
                let meanwhile = in_force.map_or("a certificate of our own serves".to_owned(), |pair| {
                    format!("the one in force serves until {}", minute(pair.certificate.not_after))
                });
                return Ok(Observation::Waiting(format!(
                    "{problem}; until then {meanwhile}; it is looked at again within a minute"
                )));
            }
        };
    let is_stored = |guest: String, wanted: &str| {
        fs::read_to_string(context.path(&guest)).is_ok_and(|found| found == wanted)
    };
    let is_in_force = in_force.is_some()
        && is_stored(store::chain_path(domain), &given.chain)
        && is_stored(store::key_path(domain), &given.key);
    if !is_in_force {
        return Ok(Observation::Todo(format!("put {} in force", given.chain_name)));
    }
    // Short-lived ones are always near their end.
    let notice = NOTICE.min((leaf.not_after - leaf.not_before) / 3);
    Ok(if leaf.not_after - now < notice {
        Observation::Waiting(format!(
            "for the next certificate: {} runs out at {}; replace it, and its key: it is looked at within a minute",
            given.chain_name,
            minute(leaf.not_after)
        ))
    } else {
        Observation::Done
    })
}

/// See [`crate::engine::Step::apply`].
pub(super) fn apply(context: &Context) -> Result<()> {
    let domain = context.settings()?.site().as_str();
    let given = given(context).map_err(|error| anyhow!(error))?;
    checked(&given, domain, now()?).map_err(|error| anyhow!(error))?;
    store::install(context, domain, &given.chain, &given.key, store::MANUAL)?;
    nginx::take(context)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::{FOLDER, Given, checked, observe};
    use crate::context::tests::scratch_context;
    use crate::engine::Observation;
    use crate::settings::Settings;
    use crate::steps::certificate::attempts::DAY;
    use crate::tls::certificate::now;
    use crate::tls::{selfsigned, store};

    const DOMAIN: &str = "v6don.example.net";

    /// An intermediate, a leaf of it for a name, and the leaf's key, as PEM.
    fn chain(name: &str) -> (String, String, String) {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "intermediate");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let intermediate = parameters.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(parameters, key);
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        (intermediate, leaf.pem(), key.serialize_pem())
    }

    #[test]
    fn what_would_not_serve_is_refused_by_name() {
        let (intermediate, leaf, key) = chain(DOMAIN);
        let (other, _, other_key) = chain("*.example.net");
        let (_, wildcard, wildcard_key) = chain("*.example.net");
        let now = now().unwrap();
        let (expired, expired_key) = selfsigned::make(DOMAIN, now - 100, now - 1).unwrap();
        let (future, future_key) = selfsigned::make(DOMAIN, now + DAY, now + 2 * DAY).unwrap();
        let (_, foreign, foreign_key) = chain("other.example.org");
        for (chain, key, expected) in [
            (format!("{leaf}{intermediate}"), &key, ""),
            (leaf.clone(), &key, ""),
            (wildcard, &wildcard_key, ""),
            (
                format!("{intermediate}{leaf}"),
                &key,
                "`chain`: certificate 2 is the one of the key: put it first",
            ),
            (format!("{leaf}{}", leaf.replace("CERTIFICATE", "OTHER")), &key, ""),
            (format!("{leaf}{leaf}"), &key, "`chain`: certificate 1 was not issued by certificate 2"),
            (leaf.clone(), &other_key, "`key` is not the private key of the first certificate in `chain`"),
            (other, &key, "`key` is not the private key"),
            (expired, &expired_key, "`chain` has run out at 2"),
            (future, &future_key, "`chain` is valid from 2"),
            (foreign, &foreign_key, "`chain` is for [\"other.example.org\"], not for `v6don.example.net`"),
            (key.clone(), &leaf, "`chain` has no certificate"),
            (String::new(), &key, "`chain` has no certificate"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
                &key,
                "`chain`: reading the certificate",
            ),
        ] {
            let names = ("`chain`".to_owned(), "`key`".to_owned());
            let given = Given { chain, key: key.clone(), chain_name: names.0, key_name: names.1 };
            let said = checked(&given, DOMAIN, now).err().unwrap_or_default();
            assert!(
                if expected.is_empty() { said.is_empty() } else { said.starts_with(expected) },
                "{expected}: {said}"
            );
        }
    }

    #[test]
    fn files_are_waited_for_taken_replaced_and_asked_for_again() {
        let (_guard, mut context) = scratch_context();
        let text = format!("schema = 1\ndomain = \"{DOMAIN}\"\n[tls]\nmode = \"manual\"\n");
        context.settings = Some(Settings::parse("test", &text).unwrap());
        let said = |context: &_| match observe(context).unwrap() {
            Observation::Done => "done".to_owned(),
            Observation::Waiting(text) | Observation::Todo(text) | Observation::Broken(text) => text,
        };
        assert!(said(&context).contains("`/etc/appliance/tls/fullchain.pem` is not there"));
        fs_err::create_dir_all(context.path(FOLDER)).unwrap();
        let put = |life: i64| {
            let start = now().unwrap() - 10;
            let (chain, key) = selfsigned::make(DOMAIN, start, start + life).unwrap();
            fs_err::write(context.path(&format!("{FOLDER}/fullchain.pem")), &chain).unwrap();
            fs_err::write(context.path(&format!("{FOLDER}/privkey.pem")), &key).unwrap();
            (chain, key)
        };
        let (chain, key) = put(90 * DAY);
        assert_eq!(said(&context), "put `/etc/appliance/tls/fullchain.pem` in force");
        store::install(&context, DOMAIN, &chain, &key, store::MANUAL).unwrap();
        assert_eq!(said(&context), "done");
        fs_err::write(context.path(&format!("{FOLDER}/privkey.pem")), "cut").unwrap();
        let text = said(&context);
        assert!(
            text.contains("is not the private key") && text.contains("the one in force serves until"),
            "{text}"
        );
        let (chain, key) = put(5);
        assert!(said(&context).contains("has run out"));
        let _ = (chain, key);
        let (chain, key) = put(10 * DAY);
        store::install(&context, DOMAIN, &chain, &key, store::MANUAL).unwrap();
        assert_eq!(said(&context), "done", "a short-lived one is not near its end");
    }

    #[test]
    fn the_settings_come_before_the_files() {
        let (_guard, mut context) = scratch_context();
        let (chain, key) = selfsigned::make("other.example.net", 0, 300).unwrap();
        let text = format!(
            "schema = 1\ndomain = \"{DOMAIN}\"\n[tls]\nmode = \"manual\"\ncertificate = \"\"\"\n{chain}\"\"\"\nkey = \"\"\"\n{key}\"\"\"\n"
        );
        context.settings = Some(Settings::parse("test", &text).unwrap());
        let Observation::Waiting(text) = observe(&context).unwrap() else { panic!() };
        assert!(text.starts_with("`tls.certificate` in the configuration is for"), "{text}");
    }
}
