//! The resolver of the lab: pebble-challtestsrv. It knows the AAAA records that were added and nothing else; there is no A record.

use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Value, json};

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

/// The records that the lab's resolver gives; each setter replaces what a name had.
#[derive(Debug)]
pub struct Zone<'a> {
    namespace: &'a str,
}

impl Zone<'_> {
    pub(super) fn of(namespace: &str) -> Zone<'_> {
        Zone { namespace }
    }

    /// The AAAA record of a name.
    pub fn set_aaaa(&self, name: &str, address: Ipv6Addr) -> Result<()> {
        self.post("clear-aaaa", &json!({ "host": name }))?;
        self.post("add-aaaa", &json!({ "host": name, "addresses": [address] }))
    }

    /// The CAA record of a name: the one authority that may issue. `None` takes it away.
    pub fn set_issuer(&self, name: &str, authority: Option<&str>) -> Result<()> {
        self.post("clear-caa", &json!({ "host": name }))?;
        let Some(authority) = authority else { return Ok(()) };
        self.post("add-caa", &json!({ "host": name, "policies": [{ "tag": "issue", "value": authority }] }))
    }

    fn post(&self, verb: &str, body: &Value) -> Result<()> {
        let client = Client::new("localhost", IpAddr::V6(Ipv6Addr::LOCALHOST), Trust::Nothing)
            .in_namespace(self.namespace)
            .with_ports(MANAGEMENT_PORT, MANAGEMENT_PORT);
        let response = client.http(&Request::post(&format!("/{verb}")).json(body))?;
        if response.status != 200 {
            bail!("the lab's resolver: `{verb}` {body}: status {}: {}", response.status, response.text());
        }
        Ok(())
    }
}
