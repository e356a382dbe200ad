//! VMware's guestinfo: values that the hypervisor keeps for its guest, read over its backdoor, without open-vm-tools.
//!
//! The backdoor is an I/O port. Touching it anywhere but on VMware may do anything or end the process, so the machine's maker and
//! the processor's hypervisor must both say VMware first, and a process of its own does it: one that is ended there takes nothing
//! along, and first boot itself never holds the right to use ports.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;

use super::packed::{self, BASE64};
use super::{Offer, Wrong, accept, ovf};
use crate::exec::Run;

/// Our own format as a whole.
const CONFIG: &str = "guestinfo.mastodon.config";
/// How it is packed.
const ENCODING: &str = "guestinfo.mastodon.config.encoding";
/// The properties of the OVA, where its transport is `com.vmware.guestInfo`.
const ENVIRONMENT: &str = "guestinfo.ovfEnv";

/// What answers `info-get KEY`; `None` when there is no such value.
pub(super) type Ask<'a> = &'a mut dyn FnMut(&str) -> Result<Option<Vec<u8>>>;

/// The channel `guestinfo.mastodon.config`.
pub(super) fn configuration(root: &Path) -> Result<Option<Offer>> {
    if is_vmware(root) { read_configuration(&mut ask) } else { Ok(None) }
}

/// The channel `guestinfo.ovfEnv`.
pub(super) fn environment(root: &Path) -> Result<Option<Offer>> {
    if is_vmware(root) { read_environment(&mut ask) } else { Ok(None) }
}

pub(super) fn read_configuration(ask: Ask<'_>) -> Result<Option<Offer>> {
    let Some(packed) = ask(CONFIG)? else { return Ok(None) };
    let Some(packed) = accept(packed, CONFIG)? else { return Ok(None) };
    let encoding = ask(ENCODING)?.map_or(Ok(None), |said| accept(said, ENCODING))?.unwrap_or_default();
    let text = match encoding.trim() {
        "" => Some(packed),
        "base64" | "b64" => accept(decode(&packed)?, CONFIG)?,
        "gzip+base64" | "gz+b64" => {
            let Some(bytes) = packed::gunzip(&decode(&packed)?) else {
                bail!(Wrong(format!(
                    "{CONFIG}: {ENCODING} says gzip, but it cannot be unpacked: pack it again, or correct {ENCODING}"
                )));
            };
            accept(bytes, CONFIG)?
        }
        _ => bail!(Wrong(format!(
            "{ENCODING} is none that this appliance knows: set it to base64 or gzip+base64, or leave it out"
        ))),
    };
    Ok(text.map(|text| Offer { source: CONFIG.to_owned(), text }))
}

fn read_environment(ask: Ask<'_>) -> Result<Option<Offer>> {
    let Some(document) = ask(ENVIRONMENT)? else { return Ok(None) };
    match accept(document, ENVIRONMENT)? {
        Some(document) => ovf::offer(ENVIRONMENT, &document),
        None => Ok(None),
    }
}

fn decode(text: &str) -> Result<Vec<u8>> {
    let Some(bytes) = packed::decode(text) else {
        bail!(Wrong(format!(
            "{CONFIG}: {ENCODING} says base64, but it is none: encode it, or remove {ENCODING}"
        )));
    };
    Ok(bytes)
}

/// Whether the machine says that VMware made it.
fn is_vmware(root: &Path) -> bool {
    // With another root the machine below it is not this one, and only this one can be asked.
    root == Path::new("/") && is_made_by_vmware(root)
}

fn is_made_by_vmware(root: &Path) -> bool {
    let vendor = fs_err::read_to_string(root.join("sys/class/dmi/id/sys_vendor")).unwrap_or_default();
    vendor.starts_with("VMware")
}

/// Asks in a process of its own, `appliance guestinfo KEY`.
fn ask(key: &str) -> Result<Option<Vec<u8>>> {
    let program = std::env::current_exe().context("finding this program")?;
    let said = Run::new(&program.to_string_lossy(), &["guestinfo", key])
        .limit(Duration::from_secs(30))
        .text()
        .context("asking VMware's guestinfo")?;
    match said.trim() {
        "" => Ok(None),
        said => Ok(Some(BASE64.decode(said).context("reading the answer of VMware's guestinfo")?)),
    }
}

/// The process that asks: a value in Base64, an empty text when there is none.
pub fn answer(key: &str) -> Result<String> {
    if !is_made_by_vmware(Path::new("/")) {
        bail!("this is no virtual machine of VMware's");
    }
    let value = backdoor::get(key)?;
    Ok(value.map(|value| BASE64.encode(trimmed(&value))).unwrap_or_default())
}

/// Without the end that texts have in C.
fn trimmed(value: &[u8]) -> &[u8] {
    let end = value.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &value[..end]
}

#[cfg(target_arch = "x86_64")]
mod backdoor {
    use anyhow::{Result, bail};
    use vmw_backdoor::{is_vmware_cpu, probe_backdoor, probe_backdoor_privileged};

    pub(super) fn get(key: &str) -> Result<Option<Vec<u8>>> {
        if !is_vmware_cpu() {
            bail!("the processor does not say that VMware runs it");
        }
        // A locked-down kernel, as after Secure Boot, gives nobody the right to use ports. VMware lets everybody through all the
        // same, unless it is told not to: then this process ends here.
        let mut guard = probe_backdoor_privileged().or_else(|_| probe_backdoor())?;
        Ok(guard.open_enhanced_chan()?.get_guestinfo(key.as_bytes())?)
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod backdoor {
    use anyhow::{Result, bail};

    pub(super) fn get(_key: &str) -> Result<Option<Vec<u8>>> {
        bail!("VMware's backdoor is read on x86_64 only")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::readers::tests::gzip;
    use super::*;

    fn said(values: &[(&str, &[u8])]) -> String {
        let values: BTreeMap<String, Vec<u8>> =
            values.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect();
        match read_configuration(&mut |key| Ok(values.get(key).cloned())) {
            Ok(Some(offer)) => format!("{}: {}", offer.source, offer.text),
            Ok(None) => "nothing".to_owned(),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn a_configuration_arrives_in_every_encoding() {
        let text = "domain = \"例え.example\"\n";
        let expected = format!("guestinfo.mastodon.config: {text}");
        assert_eq!(said(&[(CONFIG, text.as_bytes())]), expected);
        assert_eq!(said(&[(CONFIG, text.as_bytes()), (ENCODING, b"")]), expected);
        let mut wrapped = BASE64.encode(text).into_bytes();
        wrapped.insert(8, b'\n');
        wrapped.push(b'\n');
        while wrapped.contains(&b'=') {
            wrapped.retain(|byte| *byte != b'=');
        }
        let zipped = BASE64.encode(gzip(text.as_bytes()));
        for (name, packed) in [
            ("base64", &*wrapped),
            ("b64", &wrapped),
            ("gzip+base64\n", zipped.as_bytes()),
            ("gz+b64", zipped.as_bytes()),
        ] {
            assert_eq!(said(&[(CONFIG, packed), (ENCODING, name.as_bytes())]), expected, "{name}");
        }
    }

    #[test]
    fn saying_nothing_is_no_configuration() {
        assert_eq!(said(&[]), "nothing");
        for empty in [&b""[..], b"null", b" \n"] {
            assert_eq!(said(&[(CONFIG, empty), (ENCODING, b"base64")]), "nothing", "{empty:?}");
        }
        assert_eq!(said(&[(CONFIG, BASE64.encode("null").as_bytes()), (ENCODING, b"base64")]), "nothing");
    }

    #[test]
    fn what_cannot_be_unpacked_is_refused_without_showing_it() {
        let secret = b"hunter2 is no base64!";
        let bomb = BASE64.encode(gzip(&vec![b' '; 64 << 20]));
        let cut = BASE64.encode(&gzip(b"domain")[..12]);
        let large = vec![b'A'; 1024 * 1024 + 1];
        for (value, encoding, part) in [
            (&secret[..], "base64", "says base64, but it is none"),
            (secret, "gzip+base64", "says base64, but it is none"),
            (secret, "rot13", "set it to base64 or gzip+base64"),
            (b"aHVudGVyMg==", "gz+b64", "says gzip, but it cannot be unpacked"),
            (cut.as_bytes(), "gz+b64", "says gzip, but it cannot be unpacked"),
            (bomb.as_bytes(), "gz+b64", "larger than 1 MiB"),
            (&large, "", "larger than 1 MiB"),
            (b"/////w==", "base64", "not UTF-8"),
        ] {
            let message = said(&[(CONFIG, value), (ENCODING, encoding.as_bytes())]);
            assert!(message.contains(part) && !message.contains("hunter2"), "{encoding}: {message}");
        }
    }

    #[test]
    fn the_environment_is_read_as_ovf() {
        let document = "<Environment xmlns=\"http://schemas.dmtf.org/ovf/environment/1\" \
                        xmlns:oe=\"http://schemas.dmtf.org/ovf/environment/1\"><PropertySection>\
                        <Property oe:key=\"domain\" oe:value=\"a.example\"/></PropertySection></Environment>\0";
        let mut ask = |key: &str| Ok((key == ENVIRONMENT).then(|| document.as_bytes().to_vec()));
        let offer = read_environment(&mut ask).unwrap().unwrap();
        assert_eq!(offer.source, "guestinfo.ovfEnv");
        assert_eq!(offer.text, "domain = \"a.example\"\nschema = 1\n");
        assert!(read_environment(&mut |_| Ok(None)).unwrap().is_none());
    }

    #[test]
    fn only_a_machine_of_vmware_is_asked() {
        let root = tempfile::tempdir().unwrap();
        let vendor = root.path().join("sys/class/dmi/id/sys_vendor");
        assert!(!is_made_by_vmware(root.path()), "a machine without DMI");
        fs_err::create_dir_all(vendor.parent().unwrap()).unwrap();
        for (name, expected) in
            [("VMware, Inc.\n", true), ("VMware20,1\n", true), ("QEMU\n", false), ("", false)]
        {
            fs_err::write(&vendor, name).unwrap();
            assert_eq!(is_made_by_vmware(root.path()), expected, "{name}");
            assert!(!is_vmware(root.path()), "a machine below another root");
        }
    }

    #[test]
    fn answers_end_before_the_zero() {
        assert_eq!(trimmed(b"a\0\0"), b"a");
        assert_eq!(trimmed(b"\0"), b"");
    }
}
