//! The resolver of the lab: pebble-challtestsrv. It knows the AAAA records that were added and nothing else; there is no A record.

use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use anyhow::{Result, bail};

use super::ROUTER_V6;
use crate::client::{Client, Request, Trust};
use crate::exec::Service;

/// Port of the interface through which records are added, on the router's own loopback.
pub(super) const MANAGEMENT_PORT: u16 = 8055;

pub(super) fn start(namespace: &str, folder: &Path) -> Result<Service> {
    let (listen, management) = (address(), format!("[::1]:{MANAGEMENT_PORT}"));
    let mut args = vec!["-dns01", &listen, "-management", &management];
    // Its defaults answer every name with an address of its own.
    args.extend(["-defaultIPv4", "", "-defaultIPv6", ""]);
    args.extend(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
    Service::start("dns", namespace, "pebble-challtestsrv", &args, &[], folder)
}

/// Where the resolver listens, in the form that Go's programs read.
pub(super) fn address() -> String {
    format!("[{ROUTER_V6}]:53")
}

pub(super) fn add_aaaa(namespace: &str, name: &str, address: Ipv6Addr) -> Result<()> {
    let client = Client::new("localhost", IpAddr::V6(Ipv6Addr::LOCALHOST), Trust::Nothing)
        .in_namespace(namespace)
        .with_ports(MANAGEMENT_PORT, MANAGEMENT_PORT);
    let record = serde_json::json!({ "host": name, "addresses": [address] });
    let response = client.http(&Request::post("/add-aaaa").json(&record))?;
    if response.status != 200 {
        bail!("adding the AAAA record of `{name}`: status {}: {}", response.status, response.text());
    }
    Ok(())
}
