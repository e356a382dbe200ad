//! A link to ask over, for a machine that has no configuration yet: a profile of NetworkManager that lives in its memory alone,
//! addresses by DHCP and router advertisement. The step `network` replaces it as soon as there are settings; a reboot forgets it.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::exec::Run;
use crate::steps::network::interface;

/// The name that `nmcli` shows.
const NAME: &str = "appliance-metadata";

/// Brings the first Ethernet interface up, when nothing is; what went wrong, if something did.
pub(super) fn raise(root: &Path) -> Option<String> {
    if root != Path::new("/") {
        return None;
    }
    try_raise(root).err().map(|error| format!("no link to ask for a configuration over: {error:#}"))
}

fn try_raise(root: &Path) -> Result<()> {
    let active =
        Run::new("nmcli", &["--terse", "--fields", "DEVICE", "connection", "show", "--active"]).text()?;
    if active.lines().any(|device| !device.is_empty() && device != "lo") {
        return Ok(());
    }
    let interface = interface::choose(&root.join("sys/class/net"), None)?.map_err(anyhow::Error::msg)?;
    if !Run::new("nmcli", &["connection", "show", NAME]).succeeds() {
        let add =
            ["connection", "add", "save", "no", "type", "ethernet", "con-name", NAME, "ifname", &interface];
        let methods = ["autoconnect", "no", "ipv4.method", "auto", "ipv6.method", "auto"];
        Run::new("nmcli", &[&add[..], &methods].concat()).text()?;
    }
    // The next pass looks whether it came up.
    let up = ["--wait", "0", "connection", "up", NAME];
    Run::new("nmcli", &up).limit(Duration::from_secs(30)).text().map(drop)
}
