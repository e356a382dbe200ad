//! NetworkManager, by `nmcli`: the appliance's own profile, and a link to ask for a configuration over.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{UUID, interface};
use crate::exec::Run;

/// The name that `nmcli` shows for the profile that lives in NetworkManager's memory alone.
const METADATA: &str = "appliance-metadata";

/// Whether the appliance's profile is active, or on its way there.
pub(super) fn is_up() -> Result<bool> {
    Ok(active("UUID")?.lines().any(|line| line == UUID))
}

/// Lets NetworkManager read the profile again, and activates it.
pub(super) fn activate(file: &Path) -> Result<()> {
    Run::new("nmcli", &["connection", "load", &file.to_string_lossy()])
        .text()
        .context("loading the profile")?;
    // Without waiting: addresses that take their time must not hold up the steps behind this one.
    Run::new("nmcli", &["--wait", "0", "connection", "up", "uuid", UUID])
        .text()
        .context("activating the profile; is the network adapter connected?")
        .map(drop)
}

/// For a machine that has no configuration yet: brings the first Ethernet interface up when nothing is, with addresses by DHCP and
/// router advertisement. The profile is in memory alone: the step `network` takes the interface as soon as there are settings, and
/// a reboot forgets it. Returns what went wrong, if something did.
pub fn raise(root: &Path) -> Option<String> {
    if root != Path::new("/") {
        return None;
    }
    try_raise(root).err().map(|error| format!("no link to ask for a configuration over: {error:#}"))
}

fn try_raise(root: &Path) -> Result<()> {
    if has_link(&active("DEVICE")?) {
        return Ok(());
    }
    let interface = interface::choose(&root.join("sys/class/net"), None)?.map_err(anyhow::Error::msg)?;
    if !Run::new("nmcli", &["connection", "show", METADATA]).succeeds() {
        Run::new("nmcli", &in_memory(&interface)).text()?;
    }
    // The next pass looks whether it came up.
    let up = ["--wait", "0", "connection", "up", METADATA];
    Run::new("nmcli", &up).limit(Duration::from_secs(30)).text().map(drop)
}

/// One field of every active connection, one a line.
fn active(field: &str) -> Result<String> {
    Run::new("nmcli", &["--terse", "--fields", field, "connection", "show", "--active"]).text()
}

/// Whether one of the devices that have an active connection leads out of the machine. Newer versions list loopback too, and a
/// connection that has only just begun has no device yet.
fn has_link(devices: &str) -> bool {
    devices.lines().map(str::trim).any(|device| !["", "lo", "--"].contains(&device))
}

/// The arguments that make the profile in memory.
fn in_memory(interface: &str) -> Vec<&str> {
    let add =
        ["connection", "add", "save", "no", "type", "ethernet", "con-name", METADATA, "ifname", interface];
    // It must not compete with the profile of the settings.
    [&add[..], &["autoconnect", "no", "ipv4.method", "auto", "ipv6.method", "auto"]].concat()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{has_link, in_memory, raise};

    #[test]
    fn loopback_is_no_link() {
        for (devices, expected) in
            [("", false), ("lo\n", false), ("\nlo\n--\n", false), ("lo\nens160\n", true), ("ens160", true)]
        {
            assert_eq!(has_link(devices), expected, "{devices:?}");
        }
    }

    #[test]
    fn the_profile_in_memory_is_neither_stored_nor_started_by_itself() {
        insta::assert_snapshot!(in_memory("ens160").join(" "), @"connection add save no type ethernet con-name appliance-metadata ifname ens160 autoconnect no ipv4.method auto ipv6.method auto");
    }

    #[test]
    fn the_network_of_another_root_is_left_alone() {
        assert_eq!(raise(Path::new("/nonexistent")), None);
    }
}
