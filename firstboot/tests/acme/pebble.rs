//! Pebble, and the names that it and we look up.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use testkit::pebble::{FILES, directory_tls};

/// A name server whose records are given one by one; gone with the value.
pub struct Names {
    child: Child,
    pub resolver: SocketAddr,
    pub control: SocketAddr,
}

impl Names {
    /// With `is_known` every name leads to `::1`, else none anywhere.
    pub fn start(is_known: bool) -> Self {
        let [dns, control] = free_ports().map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let ipv6 = if is_known { "::1" } else { "" };
        let (listen, management) = (dns.to_string(), control.to_string());
        let mut args =
            vec!["-dns01", &listen, "-management", &management, "-defaultIPv4", "", "-defaultIPv6", ipv6];
        args.extend(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
        let child = spawn("pebble-challtestsrv", &args, &[]);
        wait_for(control);
        Names { child, resolver: dns, control }
    }

    /// Tells the name server something: `add-aaaa` and the like.
    pub fn tell(&self, verb: &str, what: &serde_json::Value) {
        let mut stream = TcpStream::connect(self.control).unwrap();
        let body = what.to_string();
        write!(stream, "POST /{verb} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{verb}: {answer}");
    }

    /// Gives a name one IPv6 address in place of all others.
    pub fn lead(&self, name: &str, address: &str) {
        self.tell("clear-aaaa", &serde_json::json!({ "host": name }));
        self.tell("add-aaaa", &serde_json::json!({ "host": name, "addresses": [address] }));
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Pebble, its name server, and a web server on the webroot; all gone with the value.
pub struct Authority {
    pub folder: tempfile::TempDir,
    children: Vec<Child>,
    pub directory: String,
    pub ca: String,
    pub web: SocketAddr,
    /// Where it looks for answers to tls-alpn-01; nobody listens there yet.
    pub tls: SocketAddr,
    pub names: Names,
}

impl Authority {
    /// `rejected` is the share of good nonces in per cent that Pebble refuses, to exercise the client's retries.
    /// Without `is_known` no name has an address until one is given to it.
    pub fn start(rejected: u8, is_known: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [api, management, tls] = free_ports();
        let names = Names::start(is_known);
        let web = serve(folder.path().join("webroot"));
        let ca = directory_tls(folder.path(), "localhost").unwrap();
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{api}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": folder.path().join(FILES[0]),
            "privateKey": folder.path().join(FILES[1]),
            "httpPort": web.port(),
            "tlsPort": tls,
            "domainBlocklist": ["blocked.example.net"],
        }});
        let path = folder.path().join("pebble.json");
        fs_err::write(&path, config.to_string()).unwrap();
        let resolver = names.resolver.to_string();
        let children = vec![spawn(
            "pebble",
            &["-config", &path.to_string_lossy(), "-dnsserver", &resolver],
            &[("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", &rejected.to_string())],
        )];
        wait_for(SocketAddr::from(([127, 0, 0, 1], api)));
        let directory = format!("https://localhost:{api}/dir");
        let tls = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), tls);
        Authority { folder, children, directory, ca, web, tls, names }
    }

    pub fn accounts(&self) -> PathBuf {
        self.folder.path().join("acme")
    }

    pub fn webroot(&self) -> PathBuf {
        self.folder.path().join("webroot")
    }

    pub fn account_keys(&self) -> Vec<Vec<u8>> {
        let files = fs_err::read_dir(self.accounts()).unwrap().map(|entry| entry.unwrap().path());
        files
            .filter(|path| path.extension().is_some_and(|end| end == "der"))
            .map(|path| fs_err::read(path).unwrap())
            .collect()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn spawn(program: &str, args: &[&str], env: &[(&str, &str)]) -> Child {
    #[expect(clippy::disallowed_methods, reason = "the test's own servers, killed when it ends")]
    let mut command = std::process::Command::new(program);
    command.args(args).envs(env.iter().copied()).stdout(Stdio::null()).stderr(Stdio::null());
    command
        .spawn()
        .unwrap_or_else(|error| panic!("starting `{program}`: {error}; `apt-get install pebble` brings it"))
}

/// Ports that nobody listens on; all are held until the last is known, so that they differ.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let held: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

fn wait_for(address: SocketAddr) {
    let start = Instant::now();
    while let Err(error) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
        assert!(start.elapsed() < Duration::from_secs(20), "nothing listens on {address}: {error}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A web server on `::1` that serves the files of a folder, until the test's process ends.
pub fn serve(folder: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away early is its own affair.
            let _ = answer(stream, &folder);
        }
    });
    address
}

fn answer(mut stream: TcpStream, folder: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The whole head, or closing would reset the connection.
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let (status, body) = match fs_err::read_to_string(folder.join(path)) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", String::new()),
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
