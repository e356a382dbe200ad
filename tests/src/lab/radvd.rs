//! Router advertisements of the lab: the prefix for SLAAC, the default route and the resolver (RDNSS), every few seconds.

use std::path::Path;

use anyhow::Result;

use super::{BRIDGE, ROUTER_V6};
use crate::exec::Service;

pub(super) fn start(namespace: &str, folder: &Path) -> Result<Service> {
    let config = format!(
        "interface {BRIDGE} {{\n  AdvSendAdvert on;\n  MinRtrAdvInterval 3;\n  MaxRtrAdvInterval 10;\n  \
         prefix 2001:db8:fc89:100::/64 {{ }};\n  RDNSS {ROUTER_V6} {{ }};\n}};\n"
    );
    fs_err::write(folder.join("radvd.conf"), config)?;
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let args = ["-n", "-C", &path("radvd.conf"), "-p", &path("radvd.pid"), "-m", "stderr"];
    Service::start("radvd", namespace, "radvd", &args, &[], folder)
}
