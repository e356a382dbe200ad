//! Step `secrets`: the five secrets of the instance, made once.
//!
//! The folder is the commit point: all files are written into `secrets.new`, synced, and the folder is renamed. While a folder
//! `secrets` exists nothing is ever made anew, because other secrets would lock every two-factor login out and silence every
//! push subscription; a damaged file is reported by name instead.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use fs_err as fs;
use p256::elliptic_curve::sec1::ToEncodedPoint;
use rand::TryRngCore;

use crate::context::Context;
use crate::durable;
use crate::engine::{self, Needs, Observation, Step};
use crate::settings::Secret;

/// The step.
pub const STEP: Step = Step {
    name: "secrets",
    why: "keys that sign sessions, protect two-factor logins and identify the instance to push services",
    needs: Needs::Local,
    watch: engine::HOURLY,
    observe,
    apply,
};

/// The secrets, by their names in `.env.production`.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// `PAPERCLIP_SECRET`: 128 hexadecimal digits.
    pub paperclip: Secret,
    /// `SECRET_KEY_BASE`: 128 hexadecimal digits.
    pub session: Secret,
    /// `OTP_SECRET`: 128 hexadecimal digits.
    pub otp: Secret,
    /// `VAPID_PRIVATE_KEY`: a P-256 scalar in the form of the gem `webpush`.
    pub vapid_private: Secret,
    /// `VAPID_PUBLIC_KEY`: its point, uncompressed, in the same form.
    pub vapid_public: Secret,
}

const PAPERCLIP: &str = "paperclip-secret";
const SESSION: &str = "secret-key-base";
const OTP: &str = "otp-secret";
const VAPID_PRIVATE: &str = "vapid-private-key";
const VAPID_PUBLIC: &str = "vapid-public-key";

/// What `rake secret` prints: 64 bytes as hexadecimal digits.
const HEX_DIGITS: usize = 128;

impl Secrets {
    /// Reads the secrets and checks every one of them.
    pub fn load(context: &Context) -> Result<Secrets> {
        let folder = folder(context);
        let secrets = Secrets {
            paperclip: read(&folder, PAPERCLIP)?,
            session: read(&folder, SESSION)?,
            otp: read(&folder, OTP)?,
            vapid_private: read(&folder, VAPID_PRIVATE)?,
            vapid_public: read(&folder, VAPID_PUBLIC)?,
        };
        for (name, secret) in
            [(PAPERCLIP, &secrets.paperclip), (SESSION, &secrets.session), (OTP, &secrets.otp)]
        {
            let text = secret.expose();
            if text.len() != HEX_DIGITS || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                bail!(
                    "`{}` is damaged: it must hold {HEX_DIGITS} hexadecimal digits",
                    folder.join(name).display()
                );
            }
        }
        let public = public_key(secrets.vapid_private.expose())
            .with_context(|| format!("`{}` is damaged", folder.join(VAPID_PRIVATE).display()))?;
        if public != secrets.vapid_public.expose() {
            bail!(
                "`{}` is damaged: it does not belong to the private key",
                folder.join(VAPID_PUBLIC).display()
            );
        }
        Ok(secrets)
    }
}

fn observe(context: &Context) -> Result<Observation> {
    if !folder(context).try_exists()? {
        return Ok(Observation::Todo("the instance has no secrets yet".to_owned()));
    }
    Ok(match Secrets::load(context) {
        Ok(_) => Observation::Done,
        Err(error) => Observation::Broken(format!(
            "{error:#}; put the file back from a backup (if nobody has used this instance yet: remove `{}`, and new ones are made)",
            folder(context).display()
        )),
    })
}

fn apply(context: &Context) -> Result<()> {
    let folder = folder(context);
    let scratch = durable::scratch(&folder);
    durable::scratch_folder(&scratch)?;

    let (private, public) = new_vapid_pair()?;
    let contents = [
        (PAPERCLIP, hex::<64>()?),
        (SESSION, hex::<64>()?),
        (OTP, hex::<64>()?),
        (VAPID_PRIVATE, private),
        (VAPID_PUBLIC, public),
    ];
    for (name, content) in contents {
        durable::write(&scratch.join(name), format!("{content}\n").as_bytes(), 0o600, None)?;
    }
    durable::sync_tree(&scratch)?;
    durable::rename(&scratch, &folder)
}

fn folder(context: &Context) -> PathBuf {
    context.state().join("secrets")
}

fn read(folder: &Path, name: &str) -> Result<Secret> {
    let path = folder.join(name);
    let text = fs::read_to_string(&path)?;
    match text.strip_suffix('\n') {
        Some(line) if !line.is_empty() => Ok(Secret::new(line)),
        _ => bail!("`{}` is damaged: it is empty or cut short", path.display()),
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).context("asking the kernel for random bytes")?;
    Ok(bytes)
}

/// So many random bytes as hexadecimal digits.
pub(super) fn hex<const N: usize>() -> Result<String> {
    let halves = random::<N>()?.into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    Ok(halves.filter_map(|half| char::from_digit(half.into(), 16)).collect())
}

/// A VAPID pair as `Webpush.generate_key` gives it: url-safe base64, padding kept.
fn new_vapid_pair() -> Result<(String, String)> {
    loop {
        let private = URL_SAFE.encode(random::<32>()?);
        // Zero and numbers above the curve's order are no keys; of 2^32 draws about one is such a number.
        if let Ok(public) = public_key(&private) {
            return Ok((private, public));
        }
    }
}

fn public_key(private: &str) -> Result<String> {
    let scalar = URL_SAFE.decode(private).context("reading the private key as url-safe base64")?;
    let secret =
        p256::SecretKey::from_slice(&scalar).context("reading the private key as a number on P-256")?;
    Ok(URL_SAFE.encode(secret.public_key().to_encoded_point(false).as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{STEP, Secrets, folder, public_key};
    use crate::context::tests::scratch_context;
    use crate::engine::Observation;

    #[test]
    fn secrets_are_made_once_and_differ() {
        let (_guard, context) = scratch_context();
        assert!(matches!((STEP.observe)(&context).unwrap(), Observation::Todo(_)));
        // What a cut left behind does not count.
        fs_err::create_dir_all(crate::durable::scratch(&folder(&context))).unwrap();
        (STEP.apply)(&context).unwrap();
        assert_eq!((STEP.observe)(&context).unwrap(), Observation::Done);

        let secrets = Secrets::load(&context).unwrap();
        assert_ne!(secrets.paperclip, secrets.session);
        assert_ne!(secrets.session, secrets.otp);
        assert_eq!(secrets.vapid_private.expose().len(), 44);
        assert_eq!(secrets.vapid_public.expose().len(), 88);
        assert!(secrets.vapid_public.expose().starts_with('B'), "an uncompressed point begins with byte 4");
        let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder(&context)), 0o700);
        assert_eq!(mode(&folder(&context).join("otp-secret")), 0o600);
    }

    #[test]
    fn damage_is_named_and_never_repaired_by_new_secrets() {
        for (file, content, message) in [
            ("otp-secret", "", "otp-secret` is damaged: it is empty"),
            ("secret-key-base", "abc\n", "secret-key-base` is damaged: it must hold 128"),
            ("vapid-private-key", "????\n", "vapid-private-key` is damaged"),
            ("vapid-public-key", "BAAA\n", "vapid-public-key` is damaged: it does not belong"),
        ] {
            let (_guard, context) = scratch_context();
            (STEP.apply)(&context).unwrap();
            fs_err::write(folder(&context).join(file), content).unwrap();
            let Observation::Broken(text) = (STEP.observe)(&context).unwrap() else { panic!("{file}") };
            assert!(text.contains(message), "{text}");
        }
    }

    #[test]
    fn the_public_key_follows_from_the_private_one() {
        // RFC 8292's sibling RFC 8291, appendix A: the application server's key pair.
        let private = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw=";
        let public =
            "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8=";
        assert_eq!(public_key(private).unwrap(), public);
        assert!(public_key("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").is_err());
    }
}
