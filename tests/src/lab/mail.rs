//! The mail relay of the lab: aiosmtpd. It takes every mail on the router's IPv4 address, and only there, and keeps it in a Maildir.

use std::path::Path;

use anyhow::Result;

use super::ROUTER_V4;
use crate::exec::Service;

pub(super) const PORT: u16 = 25;
/// The Maildir in the lab's folder.
pub(super) const FOLDER: &str = "mail";

/// What makes aiosmtpd refuse; a module of the lab's folder.
const REFUSAL: &str = "class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        return '554 5.7.1 relay access denied'
";

/// What the relay does with mail.
#[derive(Debug, Clone, Copy)]
pub(super) enum Manner {
    /// Keeps it.
    Takes,
    /// Refuses every recipient.
    Refuses,
}

pub(super) fn start(namespace: &str, folder: &Path, manner: Manner) -> Result<Service> {
    let (listen, maildir) =
        (format!("{ROUTER_V4}:{PORT}"), folder.join(FOLDER).to_string_lossy().into_owned());
    let modules = folder.to_string_lossy();
    let class: &[&str] = match manner {
        Manner::Takes => &["aiosmtpd.handlers.Mailbox", &maildir],
        Manner::Refuses => &["refusal.Handler"],
    };
    fs_err::write(folder.join("refusal.py"), REFUSAL)?;
    // The system's own interpreter has Debian's aiosmtpd; another one that is first in PATH has not.
    let mut args = vec!["-m", "aiosmtpd", "-n", "-l", &listen, "-c"];
    args.extend(class);
    Service::start("mail", namespace, "/usr/bin/python3", &args, &[("PYTHONPATH", &modules)], folder)
}
