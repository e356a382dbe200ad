//! The mail relay of the lab: aiosmtpd. It takes every mail on the router's IPv4 address, and only there, and keeps it in a Maildir.

use std::path::Path;

use anyhow::Result;

use super::ROUTER_V4;
use crate::exec::Service;

pub(super) const PORT: u16 = 25;
/// The Maildir in the lab's folder.
pub(super) const FOLDER: &str = "mail";

pub(super) fn start(namespace: &str, folder: &Path) -> Result<Service> {
    let (listen, maildir) =
        (format!("{ROUTER_V4}:{PORT}"), folder.join(FOLDER).to_string_lossy().into_owned());
    // The system's own interpreter has Debian's aiosmtpd; another one that is first in PATH has not.
    let args = ["-m", "aiosmtpd", "-n", "-c", "aiosmtpd.handlers.Mailbox", "-l", &listen, &maildir];
    Service::start("mail", namespace, "/usr/bin/python3", &args, &[], folder)
}
