//! What systemd is told: `man sd_notify`, one datagram each.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The first pass has ended; units that are ordered behind may start.
pub fn ready() {
    send("READY=1");
}

/// What `systemctl status` shows.
pub fn status(text: &str) {
    send(&format!("STATUS={}", text.replace('\n', " ")));
}

/// Started without systemd, there is nobody to tell; a datagram that is lost is no reason to stop.
fn send(message: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
        _ => SocketAddr::from_pathname(&name),
    };
    if let Ok(address) = address
        && let Ok(socket) = UnixDatagram::unbound()
    {
        let _ = socket.send_to_addr(message.as_bytes(), &address);
    }
}
