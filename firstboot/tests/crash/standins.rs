//! Stand-ins: programs that need a real machine (`systemctl`) or an application that was built (`bundle`, Mastodon's services).
//!
//! `systemctl` starts the real servers and knows units, conditions, `enable` and pid files, no more; `nmcli` knows one profile. The tasks of Rails
//! that make tables are in `standin/rails.rs`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{rails, scene};

/// The names that programs of first boot find in the search path.
pub const NAMES: [&str; 5] = ["systemctl", "bundle", "mount", "nft", "nmcli"];

const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";
/// The service that loads the firewall's rules, and what stands for the kernel's memory of them.
const FIREWALL: &str = "nftables.service";
const RULES: &str = "/run/units/rules";
/// NetworkManager's folder, what it has read of it, and what it has put in force.
const PROFILES: &str = "/etc/NetworkManager/system-connections";
const LOADED: &str = "/run/units/profile-loaded";
const ACTIVE: &str = "/run/units/profile-active";
const BOOTED: &str = "/run/units/booted";
const PATIENCE: Duration = Duration::from_secs(30);

/// Units in the order of a boot.
const UNITS: [&str; 8] = [
    FIREWALL,
    "postgresql.service",
    "redis-server.service",
    "nginx.service",
    "ssh.service",
    "mastodon-sidekiq.service",
    "mastodon-web.service",
    "mastodon-streaming.service",
];

/// Runs as the program of this name.
pub fn run(name: &str, args: &[String]) -> Result<u8> {
    if name == "mount" {
        return mount(args);
    }
    if name == "nft" {
        return nft(args);
    }
    if name == "nmcli" {
        return nmcli(args);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).filter(|arg| !arg.starts_with('-')).collect();
    let is_good = match (name, &args[..]) {
        ("systemctl", ["boot"]) => {
            // Once a boot: what is written later is for first boot to put in force.
            let is_first = !Path::new(BOOTED).exists();
            for profile in fs::read_dir(PROFILES).into_iter().flatten().filter(|_| is_first) {
                let path = profile?.path();
                if path.extension().is_some_and(|extension| extension == "nmconnection") {
                    load(&path)?;
                    fs::copy(LOADED, ACTIVE)?;
                }
            }
            fs::write(BOOTED, "")?;
            UNITS.into_iter().filter(|unit| is_enabled(unit)).try_for_each(start)?;
            true
        }
        ("systemctl", ["halt"]) => {
            UNITS.into_iter().rev().try_for_each(stop)?;
            true
        }
        ("systemctl", ["daemon-reload"] | ["reset-failed", _]) => true,
        ("systemctl", ["is-enabled", unit]) => is_enabled(unit),
        ("systemctl", ["is-active", unit]) => process(unit).is_some(),
        ("systemctl", ["is-failed", _]) => false,
        ("systemctl", ["show", unit]) => {
            println!("ActiveEnterTimestampMonotonic={}", u8::from(process(unit).is_some()));
            true
        }
        ("systemctl", ["enable", unit]) => {
            let link = Path::new(WANTS).join(unit);
            if !link.is_symlink() {
                symlink(Path::new("/lib/systemd/system").join(unit), link)?;
            }
            true
        }
        ("systemctl", ["disable", unit]) => {
            fs::remove_file(Path::new(WANTS).join(unit)).ok();
            true
        }
        ("systemctl", ["start", unit]) => start(unit).map(|()| true)?,
        ("systemctl", ["stop", unit]) => stop(unit).map(|()| true)?,
        ("systemctl", [verb @ ("restart" | "try-restart"), unit]) => {
            if *verb == "restart" || process(unit).is_some() {
                stop(unit)?;
                start(unit)?;
            }
            true
        }
        ("systemctl", ["reload", unit]) => {
            kill_process(process(unit).context("it does not run")?, Signal::HUP)?;
            true
        }
        ("bundle", ["exec", "rails", task]) => rails::run(task).map(|()| true)?,
        ("bundle", ["exec", "rails", "runner", _]) => make_owner().map(|()| true)?,
        _ => bail!("the stand-in does not know {args:?}"),
    };
    Ok(u8::from(!is_good))
}

/// Knows rules as text, in the order in which they came.
fn nft(args: &[String]) -> Result<u8> {
    let known = fs::read_to_string(RULES).unwrap_or_default();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list", "ruleset"] => print!("{known}"),
        ["-f", "-"] => fs::write(RULES, known + &std::io::read_to_string(std::io::stdin())?)?,
        _ => bail!("the stand-in does not know {args:?}"),
    }
    Ok(0)
}

/// Puts profiles in force, and sets no address: those of the world are there.
fn nmcli(args: &[String]) -> Result<u8> {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--terse", "--fields", "UUID", "connection", "show", "--active"] => {
            println!("{}", network().lines().find_map(|line| line.strip_prefix("uuid=")).unwrap_or_default());
        }
        ["connection", "load", path] => load(Path::new(path))?,
        ["--wait", "0", "connection", "up", "uuid", id] => {
            let profile = fs::read_to_string(LOADED)?;
            ensure!(profile.contains(&format!("uuid={id}\n")), "no profile has the UUID {id}");
            fs::write(ACTIVE, profile)?;
        }
        _ => bail!("the stand-in does not know {args:?}"),
    }
    Ok(0)
}

/// NetworkManager passes a profile over that others can read; here that is an error, so that it is seen.
fn load(path: &Path) -> Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "`{}` has the mode {mode:o}", path.display());
    fs::copy(path, LOADED)?;
    Ok(())
}

/// The profile in force, if any.
pub fn network() -> String {
    fs::read_to_string(ACTIVE).unwrap_or_default()
}

/// The data disk's files are a folder; everything else is mounted by the real program.
fn mount(args: &[String]) -> Result<u8> {
    let mut command = Command::new("/usr/bin/mount");
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["-t", "ext4", "-o", _, "/dev/vdb", at] => command.args(["--bind", crate::machine::FILES, at]),
        _ => command.args(args),
    };
    Ok(u8::from(!command.status()?.success()))
}

fn is_enabled(unit: &str) -> bool {
    Path::new(WANTS).join(unit).is_symlink()
}

fn pid_file(unit: &str) -> PathBuf {
    Path::new("/run/units").join(format!("{unit}.pid"))
}

/// A unit's main process; one that has ended and that nobody has asked for its end does not run.
fn process(unit: &str) -> Option<Pid> {
    let id: i32 = fs::read_to_string(pid_file(unit)).ok()?.trim().parse().ok()?;
    let status = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    if status.rsplit_once(')')?.1.trim_start().starts_with('Z') { None } else { Pid::from_raw(id) }
}

/// A condition that does not hold is no error, as in systemd.
fn start(unit: &str) -> Result<()> {
    let mut conditions = Vec::new();
    for entry in fs::read_dir(format!("/etc/systemd/system/{unit}.d")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path())?;
        let paths = text.lines().filter_map(|line| line.strip_prefix("ConditionPathExists="));
        conditions.extend(paths.map(str::to_owned));
    }
    if unit.starts_with("mastodon-") {
        conditions.push("/var/lib/appliance/ready".to_owned());
    }
    if process(unit).is_some() || conditions.iter().any(|path| !Path::new(path).exists()) {
        return Ok(());
    }
    let facts = scene::facts()?;
    let server = format!("{}/postgres", facts.postgresql.bin);
    let config = format!(
        "config_file={}/postgresql.conf",
        Path::new(&facts.postgresql.hba).parent().context("no folder")?.display()
    );
    let own = "/usr/local/sbin/crash";
    let (user, line): (u32, Vec<&str>) = match unit {
        "postgresql.service" => (101, vec![&server, "-D", &facts.postgresql.data, "-c", &config]),
        "redis-server.service" => (102, vec!["redis-server", &facts.redis.conf]),
        "nginx.service" => (0, vec!["nginx", "-g", "daemon off;"]),
        "mastodon-web.service" => (1000, vec![own, "service", "3000", "200"]),
        "mastodon-streaming.service" => (1000, vec![own, "service", "4000", "401"]),
        "mastodon-sidekiq.service" => (1000, vec![own, "service", "0", "0"]),
        _ => (0, vec!["sleep", "infinity"]),
    };
    let log = fs::File::create(format!("/run/units/{unit}.log"))?;
    let child = Command::new(line[0])
        .args(&line[1..])
        .env("PATH", "/usr/sbin:/usr/bin")
        .uid(user)
        .gid(user)
        .process_group(0)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    fs::write(pid_file(unit), child.id().to_string())?;
    if unit == FIREWALL {
        fs::copy("/etc/nftables.conf", RULES)?;
    }
    let begun = Instant::now();
    while !is_ready(unit, &facts.postgresql.bin) {
        if begun.elapsed() > PATIENCE || process(unit).is_none() {
            bail!("`{unit}` does not start: {}", fs::read_to_string(format!("/run/units/{unit}.log"))?);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn is_ready(unit: &str, bin: &str) -> bool {
    let answers = |address: &str| TcpStream::connect(address).is_ok();
    match unit {
        "postgresql.service" => {
            Path::new("/run/postgresql/.s.PGSQL.5432").exists()
                && Command::new(format!("{bin}/pg_isready"))
                    .args(["-q", "-h", "/run/postgresql"])
                    .status()
                    .is_ok_and(|status| status.success())
        }
        "redis-server.service" => answers("127.0.0.1:6379"),
        "nginx.service" => answers("[::1]:443"),
        "mastodon-web.service" => answers("127.0.0.1:3000"),
        "mastodon-streaming.service" => answers("127.0.0.1:4000"),
        "mastodon-sidekiq.service" => Path::new("/run/units/beats").exists(),
        _ => true,
    }
}

fn stop(unit: &str) -> Result<()> {
    let Some(process) = process(unit) else { return Ok(()) };
    // Of PostgreSQL's ways to end, the one that waits for nobody.
    kill_process(process, if unit.starts_with("postgresql") { Signal::INT } else { Signal::TERM })?;
    let begun = Instant::now();
    while self::process(unit).is_some() {
        if begun.elapsed() > PATIENCE {
            bail!("`{unit}` does not stop");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// What Sidekiq says of itself.
const INFO: &str = r#"{"queues":["default","mailers","pull","push"],"concurrency":10}"#;

/// Mastodon's services. Arguments: a port and the status of every answer; port 0 is Sidekiq.
pub fn serve(args: &[String]) -> Result<u8> {
    let [port, status] = args else { bail!("two arguments") };
    if port == "0" {
        loop {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
            if let Ok(mut redis) = TcpStream::connect("127.0.0.1:6379") {
                redis.write_all(
                    format!("SADD processes crash:1\r\nHSET crash:1 beat {now} info '{INFO}'\r\nQUIT\r\n")
                        .as_bytes(),
                )?;
                redis.read_to_string(&mut String::new())?;
                fs::write("/run/units/beats", "")?;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    for stream in TcpListener::bind(format!("127.0.0.1:{port}"))?.incoming() {
        let mut stream = stream?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        // Who only looks whether the port is open reads no answer.
        let _ = write!(stream, "HTTP/1.1 {status} X\r\nConnection: close\r\n\r\n{{}}");
    }
    Ok(0)
}

/// The program that first boot gives Rails to make the owner's account.
fn make_owner() -> Result<()> {
    let (name, email) = (std::env::var("USERNAME")?, std::env::var("USER_EMAIL")?);
    let password = std::io::read_to_string(std::io::stdin())?;
    let password = password.trim_end();
    rails::psql(&format!(
        "WITH account AS (INSERT INTO accounts (username) SELECT '{name}' \
            WHERE NOT EXISTS (SELECT FROM accounts WHERE username = '{name}') RETURNING id) \
         INSERT INTO users (email, account_id, password, admin, confirmed) \
            SELECT '{email}', id, md5('{password}'), true, true FROM account; \
         DO $$ BEGIN ASSERT (SELECT password = md5('{password}') FROM users); END $$;"
    ))
}
