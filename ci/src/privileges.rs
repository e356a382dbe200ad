//! Rights over networks for the lab: root has them; an ordinary user gets them in a user namespace where `/dev/net/tun` may be
//! opened, as on most desktops.

use anyhow::{Result, bail};

/// What to put before a command that starts the lab.
pub fn prefix() -> Result<Vec<&'static str>> {
    if rustix::process::geteuid().is_root() {
        return Ok(Vec::new());
    }
    if std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_err() {
        bail!(
            "the lab needs tap devices, and this user may not open /dev/net/tun\n\
             hint: run `cargo ci` with sudo, or boot a single machine without a lab by `imgbuild boot`"
        );
    }
    let unshare = ["unshare", "--user", "--map-auto", "--map-root-user", "--mount"];
    // Names of network namespaces are files below /run/netns, which this user cannot write.
    let mount = ["sh", "-c", "mount -t tmpfs tmpfs /run && exec \"$@\"", "sh"];
    Ok(unshare.into_iter().chain(mount).collect())
}
