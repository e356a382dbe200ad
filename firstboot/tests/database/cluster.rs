//! A PostgreSQL server of its own for each test.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::rails;

/// User and group that the servers run as: `daemon`, which every system has.
const SERVER: u32 = 1;

/// Who may come in how, when nothing is wrong.
pub const HBA: &str = "host all all 127.0.0.1/32 md5\n";

/// The password of role `mastodon`.
pub const PASSWORD: &str = "hunter:2#$x";

/// A cluster that was never started; making one takes longer than a copy.
static TEMPLATE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = open_folder();
    chown(folder.path(), Some(SERVER), Some(SERVER)).unwrap();
    let data = folder.path().join("data").display().to_string();
    let mut command = program("initdb");
    let args = ["-D", &data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"];
    let output = command.args(args).uid(SERVER).gid(SERVER).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder
});

/// A folder that every user can enter.
pub fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn program(name: &str) -> Command {
    let (bin, _) = rails::postgresql().unwrap();
    let mut command = Command::new(format!("{bin}/{name}"));
    command.current_dir("/").env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
    command
}

/// A server; gone with the value.
pub struct Cluster {
    folder: tempfile::TempDir,
    pub port: u16,
    child: Option<Child>,
}

impl Cluster {
    /// One that runs, with the role `mastodon`, which may not make databases.
    pub fn start() -> Cluster {
        let folder = open_folder();
        chown(folder.path(), Some(SERVER), Some(SERVER)).unwrap();
        let status = Command::new("cp")
            .args(["-a", "--"])
            .arg(TEMPLATE.path().join("data"))
            .arg(folder.path())
            .status();
        assert!(status.unwrap().success());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut cluster = Cluster { folder, port, child: None };
        cluster.allow(HBA);
        cluster.set("password_encryption = md5\n");
        cluster.up();
        cluster.sql("postgres", &format!("CREATE ROLE mastodon LOGIN PASSWORD '{PASSWORD}';"));
        cluster
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn put(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.data().join(name);
        fs::write(&path, content).unwrap();
        chown(&path, Some(SERVER), Some(SERVER)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// Who may come in over TCP; the tests themselves come by the socket.
    pub fn allow(&self, lines: &str) {
        self.put("pg_hba.conf", &format!("local all postgres trust\n{lines}"), 0o600);
        self.reload();
    }

    /// Settings beside those that every cluster here has.
    pub fn set(&self, lines: &str) {
        let socket = self.folder.path().display();
        let conf = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{socket}'\nfsync = off\nshared_buffers = 16MB\n\
            max_connections = 20\n{lines}",
            self.port
        );
        self.put("postgresql.conf", &conf, 0o600);
        self.reload();
    }

    /// Gives it encryption; returns the certificate, which is for `localhost`.
    pub fn encrypt(&self) -> String {
        let (chain, key) = firstboot::tls::selfsigned::make("localhost", 0, 4_000_000_000).unwrap();
        self.put("server.crt", &chain, 0o600);
        self.put("server.key", &key, 0o600);
        self.set("password_encryption = md5\nssl = on\n");
        chain
    }

    pub fn up(&mut self) {
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        let mut command = program("postgres");
        command.arg("-D").arg(self.data()).uid(SERVER).gid(SERVER).stdin(Stdio::null());
        self.child = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        let begun = Instant::now();
        while !self.try_sql("postgres", "SELECT 1;").0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn down(&mut self) {
        self.signal(Signal::INT);
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
    }

    fn reload(&self) {
        self.signal(Signal::HUP);
        // The server reads its files again when it gets to it.
        std::thread::sleep(Duration::from_millis(if self.child.is_some() { 300 } else { 0 }));
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            kill_process(Pid::from_child(child), signal).unwrap();
        }
    }

    /// Statements as the server's superuser; the rows.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        let (is_good, said) = self.try_sql(database, statements);
        assert!(is_good, "{statements}: {said}");
        said
    }

    fn try_sql(&self, database: &str, statements: &str) -> (bool, String) {
        let mut command = program("psql");
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-f", "-", "-h"]);
        command.arg(self.folder.path()).args(["-p", &self.port.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // One that cannot connect does not read.
        let _ = child.stdin.take().unwrap().write_all(statements.as_bytes());
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).trim().to_owned())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.down();
    }
}

/// The path of this test program's copy that every user can run, under the stand-in's name.
pub fn bundle(folder: &Path) -> String {
    let path = folder.join("bundle");
    fs::copy("/proc/self/exe", &path).unwrap();
    path.display().to_string()
}
