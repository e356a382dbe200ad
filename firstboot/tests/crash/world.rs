//! The world around a machine: a network with a certificate authority (Pebble), the name server that both ask, and a mail relay
//! (aiosmtpd). No power cut of the machine ends it, and it knows how many certificates were asked of it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// The machine's own address, which every name leads to.
const ADDRESS: &str = "2001:db8::101";
/// What later settings ask for beside it.
pub const SECOND: &str = "2001:db8::102/64";
/// The machine's adapter.
pub const INTERFACE: &str = "eth0";
/// The mail relay.
pub const RELAY: &str = "127.0.0.1";
/// URL of the authority's directory.
pub const DIRECTORY: &str = "https://localhost:14000/dir";
const PATIENCE: Duration = Duration::from_secs(20);

/// A network namespace and who lives in it; gone with the value, and with this process.
pub struct World {
    child: Child,
    log: PathBuf,
}

impl World {
    /// `folder` has the authority's certificate; `number` tells worlds apart that share it.
    pub fn start(folder: &Path, number: usize) -> Result<World> {
        let log = folder.join(format!("authority-{number}.log"));
        let mut child = Command::new("unshare")
            // With `unshare` its child ends, and with that one everything in the namespace.
            .args(["--net", "--pid", "--fork", "--kill-child", "--"])
            .arg(std::env::current_exe()?)
            .arg("world")
            .args([folder, &log])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("it has an output")?;
        let world = World { child, log };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line == "READY\n", "the world around the machine does not come up");
        Ok(world)
    }

    /// The network that a machine joins.
    pub fn network(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.child.id()).into()
    }

    /// How many certificates were signed.
    pub fn signed(&self) -> Result<usize> {
        Ok(fs::read_to_string(&self.log)?.matches("Issued certificate serial").count())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The end of its input is the end of it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Lives in the namespace until nobody needs it. Arguments as [`World::start`] gives them.
pub fn run(args: &[String]) -> Result<u8> {
    let [folder, log] = args else { bail!("two arguments, not {}", args.len()) };
    // The addresses are there from the beginning: what is tested is what first boot remembers of them, not NetworkManager.
    for line in [
        "link set lo up".to_owned(),
        format!("link add {INTERFACE} type veth peer name switch"),
        "link set switch up".to_owned(),
        format!("link set {INTERFACE} up"),
        format!("address add {ADDRESS}/64 dev {INTERFACE} nodad"),
        format!("address add {SECOND} dev {INTERFACE} nodad"),
        format!("-6 route add default dev {INTERFACE}"),
    ] {
        ensure!(Command::new("ip").args(line.split(' ')).status()?.success(), "`ip {line}`");
    }
    let config = serde_json::json!({ "pebble": {
        "listenAddress": "127.0.0.1:14000",
        "managementListenAddress": "127.0.0.1:15000",
        "certificate": Path::new(folder).join(testkit::pebble::FILES[0]),
        "privateKey": Path::new(folder).join(testkit::pebble::FILES[1]),
        "httpPort": 80,
        "tlsPort": 443,
    }});
    let path = format!("{log}.json");
    fs::write(&path, config.to_string())?;
    let names = ["-dns01", "127.0.0.1:53", "-management", "127.0.0.1:8055", "-defaultIPv4", ""];
    let silent = ["-defaultIPv6", ADDRESS, "-http01", "", "-https01", "", "-tlsalpn01", ""];
    let log = fs::File::create(log)?;
    let _children = [
        Command::new("pebble-challtestsrv").args(names).args(silent).stdout(Stdio::null()).spawn()?,
        Command::new("pebble")
            .args(["-config", &path, "-dnsserver", "127.0.0.1:53"])
            .envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "0"), ("PEBBLE_AUTHZREUSE", "0")])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?,
        // The system's own interpreter has Debian's aiosmtpd; another one that is first in PATH has not.
        Command::new("/usr/bin/python3")
            .args(["-m", "aiosmtpd", "-n", "-l", &format!("{RELAY}:25"), "-c", "aiosmtpd.handlers.Sink"])
            .stdout(Stdio::null())
            .spawn()?,
    ];
    let begun = Instant::now();
    for port in [8055, 14000, 25] {
        while TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_err() {
            ensure!(begun.elapsed() < PATIENCE, "nobody listens on port {port}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    println!("READY");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    // All end with this process, the first of its namespace.
    Ok(0)
}
