//! The certificate authority of the lab: pebble. It resolves by the lab's DNS, validates on the real ports 80 and 443, and refuses
//! one nonce in twenty, as a client must be able to bear.

use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::{ROUTER_V6, dns};
use crate::client::{Client, Request, Trust};
use crate::exec::Service;
use crate::pebble;

/// Name of the directory's host.
pub(super) const HOST: &str = "acme.lab.test";
/// Port of the directory.
pub(super) const PORT: u16 = 14000;

const MANAGEMENT_PORT: u16 = 15000;

/// Both trust anchors of the lab.
#[derive(Debug)]
pub(super) struct Authority {
    directory_root: String,
    issued_root: String,
}

impl Authority {
    /// Makes a throw-away authority for the directory's own HTTPS and writes pebble's files.
    pub fn new(folder: &Path) -> Result<Authority> {
        let directory_root = pebble::directory_tls(folder, HOST)?;
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("[{ROUTER_V6}]:{PORT}"),
            "managementListenAddress": format!("[::1]:{MANAGEMENT_PORT}"),
            "certificate": folder.join(pebble::FILES[0]),
            "privateKey": folder.join(pebble::FILES[1]),
            "httpPort": 80,
            "tlsPort": 443,
        }});
        fs_err::write(folder.join("pebble.json"), config.to_string())?;
        Ok(Authority { directory_root, issued_root: String::new() })
    }

    /// Asks pebble for the anchor that it made at its start.
    pub fn fetch_root(&mut self, namespace: &str) -> Result<()> {
        let trust = Trust::anchors(&self.directory_root)?;
        let client = Client::new(HOST, IpAddr::V6(Ipv6Addr::LOCALHOST), trust)
            .in_namespace(namespace)
            .with_ports(MANAGEMENT_PORT, MANAGEMENT_PORT);
        let response = client.https(&Request::get("/roots/0")).context("asking pebble for its root")?;
        if response.status != 200 {
            bail!("asking pebble for its root: status {}", response.status);
        }
        self.issued_root = response.text();
        Ok(())
    }

    pub fn directory_root(&self) -> &str {
        &self.directory_root
    }

    pub fn issued_root(&self) -> &str {
        &self.issued_root
    }
}

/// URL of the directory.
pub(super) fn directory() -> String {
    format!("https://{HOST}:{PORT}/dir")
}

pub(super) fn start(namespace: &str, folder: &Path) -> Result<Service> {
    let config = folder.join("pebble.json").to_string_lossy().into_owned();
    let args = ["-config", &config, "-dnsserver", &dns::address()];
    // Without the first, pebble sleeps up to 15 s before each validation; the others are its percentages of refused nonces and of names
    // that need no other proof for a while.
    let environment =
        [("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "5"), ("PEBBLE_AUTHZREUSE", "0")];
    Service::start("acme", namespace, "pebble", &args, &environment, folder)
}
