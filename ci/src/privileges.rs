//! Rights over networks for the lab: root has them; an ordinary user gets them in a user namespace where `/dev/net/tun` may be
//! opened, as on most desktops.

use anyhow::{Result, bail};

/// What to put before a command that starts the lab. In a user namespace that command has no network but the lab.
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
    // With a network of its own: `ip netns add` goes back to the namespace it came from, which must be the user's own.
    let unshare = ["unshare", "--user", "--map-auto", "--map-root-user", "--net", "--mount"];
    // Names of network namespaces are files below /run/netns, which this user cannot write.
    let prepare = ["sh", "-c", "mount -t tmpfs tmpfs /run && ip link set lo up && exec \"$@\"", "sh"];
    Ok(unshare.into_iter().chain(prepare).collect())
}
