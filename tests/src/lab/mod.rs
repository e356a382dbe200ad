//! The home network of the appliance, made of network namespaces.
//!
//! One namespace is the router and everything behind it; a second one is a computer elsewhere from which requests are made; the VM
//! is a tap device. A bridge joins the three, so that every request really crosses a link:
//!
//! ```text
//!   outside  ::50  .50 ──┐
//!                        ├── bridge lan0, router ::1 .1: RA (prefix, RDNSS), DNS, ACME, mail relay (IPv4 only)
//!   VM  ::101 + SLAAC ───┘   2001:db8:fc89:100::/64, 192.168.100.0/24 without DHCP and without a way out
//!       .154
//! ```
//!
//! The instance has an AAAA record and no A record. Everything is torn down when the [`Lab`] is dropped.

mod acme;
mod admin;
mod dns;
mod mail;
mod radvd;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

pub use self::dns::Zone;
use crate::client::{Client, Trust};
use crate::exec::Service;
use crate::mailbox::Mailbox;
use crate::namespace::{self, Namespace};
use crate::wait;

/// The router: gateway, resolver, ACME authority.
pub const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xfc89, 0x100, 0, 0, 0, 1);
/// The router's other address: the mail relay listens on this one only.
pub const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 1);
/// Where the world finds the instance.
pub const INSTANCE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xfc89, 0x100, 0, 0, 0, 0x101);
/// The instance as a client of IPv4 services; nothing may listen there but SSH.
pub const INSTANCE_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 154);
/// The computer elsewhere.
pub const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xfc89, 0x100, 0, 0, 0, 0x50);
/// The computer elsewhere, for requests that must be refused.
pub const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 50);
/// The tap device for the VM, in the router's namespace.
pub const TAP: &str = "vm0";

const BRIDGE: &str = "lan0";
const READY: Duration = Duration::from_secs(20);

/// A server of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// DNS.
    Resolver,
    /// The certificate authority.
    Authority,
    /// The mail relay.
    Relay,
    /// Router advertisements.
    Router,
}

/// A running home network for one instance.
#[derive(Debug)]
pub struct Lab {
    domain: String,
    authority: acme::Authority,
    admin: admin::Admin,
    // In the order of their end: servers, then namespaces, then the folder with their logs.
    services: BTreeMap<Server, Service>,
    outside: Namespace,
    router: Namespace,
    folder: TempDir,
}

impl Lab {
    /// Builds the network and starts its servers; returns when each of them answers.
    pub fn start(domain: &str) -> Result<Lab> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        namespace::sweep()?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::Builder::new().prefix("lab-").tempdir()?;
        let router = Namespace::create(&number.to_string())?;
        connect_router(&router).context("building the network of the lab")?;
        let outside = join(&router, &format!("{number}-outside"), "out0")?;
        for address in [format!("{OUTSIDE_V6}/64 nodad"), format!("{OUTSIDE_V4}/24")] {
            outside.ip(&format!("addr add {address} dev eth0"))?;
        }
        let mut lab = Lab {
            domain: domain.to_owned(),
            authority: acme::Authority::new(folder.path())?,
            admin: admin::Admin::new(folder.path())?,
            services: BTreeMap::new(),
            outside,
            router,
            folder,
        };
        for server in [Server::Resolver, Server::Authority, Server::Relay, Server::Router] {
            lab.revive(server)?;
        }
        lab.authority.fetch_root(lab.router.name())?;
        Ok(lab)
    }

    /// Ends a server at once, as a power cut would end it.
    pub fn silence(&mut self, server: Server) {
        self.services.remove(&server);
    }

    /// Starts a server, also one that runs, as it was at first; returns when it answers.
    pub fn revive(&mut self, server: Server) -> Result<()> {
        self.silence(server);
        let (namespace, folder) = (self.router.name(), self.folder.path());
        let service = match server {
            Server::Resolver => dns::start(namespace, folder)?,
            Server::Authority => acme::start(namespace, folder)?,
            Server::Relay => mail::start(namespace, folder, mail::Manner::Takes)?,
            Server::Router => radvd::start(namespace, folder)?,
        };
        self.services.insert(server, service);
        match server {
            Server::Resolver => {
                self.answers(IpAddr::V6(Ipv6Addr::LOCALHOST), dns::MANAGEMENT_PORT)?;
                self.zone().set_aaaa(acme::HOST, ROUTER_V6)?;
                self.zone().set_aaaa(&self.domain, INSTANCE_V6)
            }
            Server::Authority => self.answers(IpAddr::V6(ROUTER_V6), acme::PORT),
            Server::Relay => self.answers(IpAddr::V4(ROUTER_V4), mail::PORT),
            // It answers nobody.
            Server::Router => Ok(()),
        }
    }

    /// Lets the mail relay refuse every recipient with 554, until it is revived.
    pub fn refuse_mail(&mut self) -> Result<()> {
        self.silence(Server::Relay);
        let relay = mail::start(self.router.name(), self.folder.path(), mail::Manner::Refuses)?;
        self.services.insert(Server::Relay, relay);
        self.answers(IpAddr::V4(ROUTER_V4), mail::PORT)
    }

    /// The records that the resolver gives.
    pub fn zone(&self) -> Zone<'_> {
        Zone::of(self.router.name())
    }

    /// Lets another machine of the network have the instance's address, or takes it away from there.
    pub fn occupy_address(&self, is_occupied: bool) -> Result<()> {
        let verb = if is_occupied { "add" } else { "del" };
        let more = if is_occupied { " nodad" } else { "" };
        self.outside.ip(&format!("addr {verb} {INSTANCE_V6}/128 dev eth0{more}")).map(drop)
    }

    /// The instance's name in DNS.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The namespace in which [`TAP`] is, for QEMU to be started in.
    pub fn namespace(&self) -> &str {
        self.router.name()
    }

    /// The namespace of the computer elsewhere.
    pub fn outside_namespace(&self) -> &str {
        self.outside.name()
    }

    /// Logs of the servers, and the files they work on.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The anchor of the certificates that the lab's authority issues, as PEM.
    pub fn issued_root(&self) -> &str {
        self.authority.issued_root()
    }

    /// The anchor of the ACME directory's own HTTPS, as PEM.
    pub fn directory_root(&self) -> &str {
        self.authority.directory_root()
    }

    /// A client on the computer elsewhere that reaches the instance over IPv6 and trusts the lab's authority alone.
    pub fn client(&self) -> Result<Client> {
        self.client_to(IpAddr::V6(INSTANCE_V6))
    }

    /// The same for another address of the instance.
    pub fn client_to(&self, address: IpAddr) -> Result<Client> {
        let trust = Trust::anchors(self.issued_root())?;
        Ok(Client::new(&self.domain, address, trust).in_namespace(self.outside.name()))
    }

    /// A page of the instance, fetched by curl on the computer elsewhere, whoever has signed the instance's certificate.
    pub fn page_of_anybody(&self, path: &str) -> Result<String> {
        let resolve = format!("{}:443:[{INSTANCE_V6}]", self.domain);
        let url = format!("https://{}{path}", self.domain);
        let manner = ["--insecure", "--fail", "--silent", "--show-error", "--max-time", "60"];
        let args = [&manner[..], &["--resolve", &resolve, &url]].concat();
        self.outside.run("curl", &args)
    }

    /// Runs a command as root on the instance, by the key that [`config_toml`](Lab::config_toml) names, from the computer elsewhere.
    pub fn ssh(&self, command: &str) -> Result<String> {
        self.admin.ssh(&self.outside, &[], command)
    }

    /// The same by a password, which nobody must be asked for.
    pub fn ssh_without_key(&self, command: &str) -> Result<String> {
        let only = ["-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=0"];
        self.admin.ssh(&self.outside, &only, command)
    }

    /// What reached the mail relay.
    pub fn mailbox(&self) -> Mailbox {
        Mailbox::at(&self.folder.path().join(mail::FOLDER))
    }

    /// One more machine on the bridge, without addresses: stands for the VM in tests of the lab itself.
    pub fn machine(&self, role: &str) -> Result<Namespace> {
        let number = self.router.name().rsplit('-').next().unwrap_or_default();
        join(&self.router, &format!("{number}-{role}"), role)
    }

    /// First boot's configuration for this network: the article's, with the instance and the server under different names.
    pub fn config_toml(&self) -> String {
        let Lab { domain, .. } = self;
        let directory = acme::directory();
        let (ca, key) = (self.directory_root().trim_end(), self.admin.public());
        format!(
            r#"schema = 1
domain = "{domain}"
hostname = "sns-v6.lab.test"

[network.ipv6]
method = "auto"
addresses = ["{INSTANCE_V6}/128"]

[network.ipv4]
method = "static"
addresses = ["{INSTANCE_V4}/24"]

[web]
listen = "ipv6"

[tls]
mode = "acme"

[acme]
email = "admin@{domain}"
directory = "{directory}"
ca = """
{ca}
"""

[mail]
relay = "{ROUTER_V4}"
from = "words@{domain}"

[ssh]
authorized-keys = ["{key}"]
"#
        )
    }

    fn answers(&mut self, address: IpAddr, port: u16) -> Result<()> {
        let client = Client::new(acme::HOST, address, Trust::Nothing).in_namespace(self.router.name());
        let services = &mut self.services;
        wait::until(&format!("the lab's server at {address} port {port}"), READY, || {
            for service in services.values_mut() {
                service.must_run().with_context(|| format!("starting `{}` in the lab", service.name()))?;
            }
            Ok(client.connect(port).map(|_| ()).map_err(|error| format!("{error:#}")))
        })
    }
}

fn connect_router(router: &Namespace) -> Result<()> {
    // Without snooping, neighbour discovery crosses the bridge from the first packet on.
    router.ip(&format!("link add {BRIDGE} type bridge mcast_snooping 0 forward_delay 0"))?;
    router.set("ipv6/conf/all/forwarding", "1")?;
    router.ip(&format!("addr add {ROUTER_V6}/64 dev {BRIDGE} nodad"))?;
    router.ip(&format!("addr add {ROUTER_V4}/24 dev {BRIDGE}"))?;
    router.ip(&format!("link set {BRIDGE} up"))?;
    router.ip(&format!("tuntap add {TAP} mode tap"))?;
    router.ip(&format!("link set {TAP} master {BRIDGE} up"))?;
    Ok(())
}

/// A new namespace whose `eth0` is plugged into the bridge at `port`.
fn join(router: &Namespace, role: &str, port: &str) -> Result<Namespace> {
    let machine = Namespace::create(role)?;
    router.ip(&format!("link add {port} type veth peer name eth0 netns {}", machine.name()))?;
    router.ip(&format!("link set {port} master {BRIDGE} up"))?;
    machine.ip("link set eth0 up")?;
    Ok(machine)
}
