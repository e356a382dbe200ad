//! The OVF environment on a CD-ROM, the transport `iso`: the hypervisor puts a disc with `ovf-env.xml` into the machine's drive.
//! vSphere labels it `OVF ENV`; others use other labels, so every disc is looked at, and every disk that has one of the labels.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Offer, medium, ovf, read_offered};

/// Labels under which a hypervisor may attach it as a disk.
const LABELS: [&str; 3] = ["OVF ENV", "OVFENV", "OVF-TRANSPORT"];
/// Its name; the last ones as a disc without long names has them.
const NAMES: [&str; 4] = ["ovf-env.xml", "OVF-ENV.XML", "ovf_env.xml", "OVF_ENV.XML"];

pub(super) fn look(root: &Path) -> Result<Option<Offer>> {
    if root != Path::new("/") {
        return Ok(None);
    }
    let mut devices = medium::discs();
    for label in LABELS {
        for device in medium::labelled(label) {
            let device = fs_err::canonicalize(&device).unwrap_or(device);
            if !devices.contains(&device) {
                devices.push(device);
            }
        }
    }
    let mut refused = None;
    for device in devices {
        let offer = medium::visit(&device, |folder| read_folder(folder, &device))
            .with_context(|| format!("looking for an OVF environment on `{}`", device.display()));
        match offer {
            Ok(None) => {}
            Ok(offer) => return Ok(offer),
            // A disc that has nothing to do with this must not hide the one behind it.
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    refused.map_or(Ok(None), Err)
}

/// What the mounted disc offers.
fn read_folder(folder: &Path, device: &Path) -> Result<Option<Offer>> {
    for name in NAMES {
        let source = format!("{name} on the CD-ROM {}", device.display());
        if let Some(document) = read_offered(&folder.join(name), &source)? {
            return ovf::offer(&source, &document);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::read_folder;
    use crate::channels::Offer;

    const DOCUMENT: &str = "<Environment xmlns=\"http://schemas.dmtf.org/ovf/environment/1\" \
                            xmlns:oe=\"http://schemas.dmtf.org/ovf/environment/1\"><PropertySection>\
                            <Property oe:key=\"domain\" oe:value=\"a.example\"/></PropertySection></Environment>";

    fn check(files: &[(&str, &[u8])]) -> Result<Option<Offer>, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs_err::write(folder.path().join(name), content).unwrap();
        }
        read_folder(folder.path(), Path::new("/dev/sr0")).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_environment_is_found_by_any_of_its_names() {
        for name in super::NAMES {
            let offer = check(&[(name, DOCUMENT.as_bytes()), ("other", b"")]).unwrap().unwrap();
            assert_eq!(offer.source, format!("{name} on the CD-ROM /dev/sr0"));
            assert_eq!(offer.text, "domain = \"a.example\"\nschema = 1\n");
        }
        assert_eq!(check(&[("setup.exe", b"MZ")]), Ok(None));
        assert_eq!(check(&[("ovf-env.xml", b"")]), Ok(None));
    }

    #[test]
    fn a_damaged_environment_is_refused_with_its_place() {
        let message = check(&[("ovf-env.xml", &DOCUMENT.as_bytes()[..100])]).unwrap_err();
        assert!(message.starts_with("ovf-env.xml on the CD-ROM /dev/sr0: "), "{message}");
        let message = check(&[("ovf-env.xml", b"\xff")]).unwrap_err();
        assert!(message.contains("not UTF-8"), "{message}");
    }
}
