//! What must not answer from another computer. Refused is meant literally: a silent port would also be a broken network.

use std::net::IpAddr;

use anyhow::{Result, bail, ensure};
use testkit::client::Refusal;
use testkit::lab::{INSTANCE_V4, INSTANCE_V6};

use crate::site::Site;

/// Rails, streaming, PostgreSQL, Redis.
const INNER: [u16; 4] = [3000, 4000, 5432, 6379];

pub fn no_web_over_ipv4(site: &mut Site) -> Result<()> {
    refused(site, IpAddr::V4(INSTANCE_V4), &[80, 443])
}

pub fn inner_services_are_closed(site: &mut Site) -> Result<()> {
    // They are there, or being refused from outside would say nothing.
    let said = site.machine()?.shell("ss -Hltn | awk '{print $4}'")?;
    for port in INNER {
        // PostgreSQL is reached by its Unix socket; it may listen on the loopback or not at all.
        let listens = said.lines().any(|line| line.ends_with(&format!(":{port}")));
        ensure!(listens || port == 5432, "nothing listens on port {port} inside: {said}");
    }
    refused(site, IpAddr::V4(INSTANCE_V4), &INNER)?;
    refused(site, IpAddr::V6(INSTANCE_V6), &INNER)
}

fn refused(site: &Site, address: IpAddr, ports: &[u16]) -> Result<()> {
    let client = site.lab()?.client_to(address)?;
    for &port in ports {
        match client.connect(port) {
            Err(Refusal::Refused) => {}
            Err(other) => bail!("{address} port {port}: {other} instead of a refusal"),
            Ok(_) => bail!("{address} port {port} is open"),
        }
    }
    Ok(())
}
