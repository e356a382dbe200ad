//! Which interface: the one that the settings name, or the first Ethernet interface.

use std::path::Path;

use anyhow::Result;
use fs_err as fs;

use crate::settings::Interface;

/// One Ethernet interface of the machine.
struct Ethernet {
    index: u32,
    name: String,
    mac: String,
}

/// Chooses among `/sys/class/net`. The inner error says what the operator must change.
pub fn choose(sys: &Path, wanted: Option<&Interface>) -> Result<Result<String, String>> {
    let found = list(sys)?;
    let names =
        || found.iter().map(|one| format!("`{}` ({})", one.name, one.mac)).collect::<Vec<_>>().join(", ");
    let chosen = found.iter().find(|one| match wanted {
        None => true,
        Some(Interface::Name(name)) => one.name == *name,
        Some(Interface::Mac(mac)) => one.mac == *mac,
    });
    Ok(match (chosen, wanted) {
        (Some(one), _) => Ok(one.name.clone()),
        (None, Some(Interface::Name(text) | Interface::Mac(text))) if !found.is_empty() => Err(format!(
            "no network interface `{text}`: this machine has {}; correct `interface` in the configuration",
            names()
        )),
        (None, _) => Err("no network interface: give the virtual machine a network adapter".to_owned()),
    })
}

/// The Ethernet interfaces of real or virtual hardware, in the kernel's order.
fn list(sys: &Path) -> Result<Vec<Ethernet>> {
    let mut found = Vec::new();
    if !sys.exists() {
        return Ok(found);
    }
    for entry in fs::read_dir(sys)? {
        let entry = entry?;
        let read =
            |file: &str| fs::read_to_string(entry.path().join(file)).map(|text| text.trim().to_owned());
        let is_ethernet = read("type").is_ok_and(|kind| kind == "1")
            && entry.path().join("device").exists()
            && !entry.path().join("wireless").exists();
        if is_ethernet {
            found.push(Ethernet {
                index: read("ifindex").ok().and_then(|index| index.parse().ok()).unwrap_or(u32::MAX),
                name: entry.file_name().to_string_lossy().into_owned(),
                mac: read("address").unwrap_or_default().to_ascii_lowercase(),
            });
        }
    }
    found.sort_by(|one, other| (one.index, &one.name).cmp(&(other.index, &other.name)));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::choose;
    use crate::settings::Interface;

    #[test]
    fn hardware_is_chosen_by_name_by_mac_or_by_order() {
        let sys = tempfile::tempdir().unwrap();
        for (name, kind, index, mac, device) in [
            ("lo", "772", "1", "00:00:00:00:00:00", false),
            ("ens192", "1", "3", "00:50:56:A7:00:02", true),
            ("ens160", "1", "2", "00:50:56:A7:00:01", true),
            ("docker0", "1", "4", "02:42:00:00:00:01", false),
        ] {
            let folder = sys.path().join(name);
            fs_err::create_dir_all(&folder).unwrap();
            for (file, text) in [("type", kind), ("ifindex", index), ("address", mac)] {
                fs_err::write(folder.join(file), format!("{text}\n")).unwrap();
            }
            if device {
                fs_err::create_dir(folder.join("device")).unwrap();
            }
        }
        let name = |text: &str| Some(Interface::Name(text.to_owned()));
        for (wanted, expected) in [
            (None, "ens160"),
            (name("ens192"), "ens192"),
            (Some(Interface::Mac("00:50:56:a7:00:02".to_owned())), "ens192"),
            (name("docker0"), "no network interface `docker0`: this machine has `ens160`"),
            (name("eth0"), "no network interface `eth0`: this machine has `ens160`"),
        ] {
            let (Ok(text) | Err(text)) = choose(sys.path(), wanted.as_ref()).unwrap();
            assert!(text.starts_with(expected), "{wanted:?}: {text}");
        }
        assert!(choose(&sys.path().join("absent"), None).unwrap().is_err());
    }
}
