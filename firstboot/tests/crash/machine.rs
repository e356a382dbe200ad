//! A machine around a tree: its own processes, mounts and name, the tree as its root, and the network of a world. Everything that
//! runs in it ends with its first process, as in a power cut.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, chroot};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_remount, unmount,
};
use rustix::process::{Pid, Signal, WaitOptions, kill_process};

use crate::world::World;
use crate::{scene, standins, state};

/// The files of the data disk while the machine runs.
pub const FILES: &str = "/run/disk";

/// Set in the process that has a mount namespace of its own.
pub const INSIDE: &str = "CRASH_MATRIX_INSIDE";

/// How long a machine may run: many times what the slowest one takes. More is a hang.
const LIMIT: Duration = Duration::from_secs(240);

/// The first process of a machine; `unshare` gives it its namespaces.
pub struct Machine<'a> {
    /// The tree.
    pub root: &'a Path,
    /// Folder with this program under the names of the stand-ins.
    pub programs: &'a Path,
    /// What it is plugged into.
    pub world: &'a World,
}

/// What one boot of a machine said.
#[derive(Debug, Default)]
pub struct Said {
    /// The operations of first boot, if it came to its end.
    pub operations: Vec<String>,
    /// The operation that was the last one, if it did not.
    pub cut: Option<String>,
    /// Secrets that could be seen when it was cut: path and hash.
    pub seen: Vec<String>,
    /// The database's content, and the network profile in force.
    pub database: String,
}

/// Starts the tests again in a mount namespace, in which a user may mount a file system in memory.
pub fn enter(args: &[String]) -> ExitCode {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-auto", "--map-root-user"]);
    }
    let own = std::env::current_exe().unwrap_or_default();
    command.args(["--mount", "--propagation", "private", "--"]).arg(own).args(args).env(INSIDE, "1");
    let error = command.exec();
    eprintln!("starting `unshare`: {error}");
    ExitCode::FAILURE
}

/// Mounts a file system in memory: syncs cost nothing there, and nothing outlives this process' namespace.
pub fn memory(at: &Path) -> Result<()> {
    mount("crash", at, "tmpfs", MountFlags::empty(), Some(c"mode=0755"))
        .with_context(|| format!("mounting memory at `{}`: root or a user namespace is needed", at.display()))
}

/// A folder in memory.
pub struct Memory(tempfile::TempDir);

impl Memory {
    /// Mounts it at a name of its own.
    pub fn new() -> Result<Memory> {
        let guard = tempfile::tempdir()?;
        memory(guard.path())?;
        Ok(Memory(guard))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // A folder that something is mounted at cannot be removed. If this fails, an empty folder stays.
        let _ = unmount(self.path(), UnmountFlags::DETACH);
    }
}

impl Machine<'_> {
    /// Boots, runs the engine with these arguments, and once more without faults when it was cut and `again` is set; then asks the
    /// database and ends, in order or by a cut.
    pub fn boot(&self, engine: &[String], again: bool, shuts_down: bool) -> Result<Said> {
        let own = self.programs.join("crash");
        let flags = [
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
            "--",
        ];
        let begun = Instant::now();
        // With `unshare` its child is killed, which is the first process of the machine, and with that one all others.
        let output = Command::new("timeout")
            .arg("--signal=KILL")
            .args([LIMIT.as_secs().to_string().as_str(), "nsenter"])
            .arg(format!("--net={}", self.world.network().display()))
            .args(["--", "unshare"])
            .args(flags)
            .arg(own)
            .arg("machine")
            .args([self.root, self.programs])
            .args([again.to_string(), shuts_down.to_string()])
            .args(engine)
            .stdin(Stdio::null())
            .output()?;
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            if begun.elapsed() >= LIMIT {
                bail!("it hung: killed after {} s: {}{}", LIMIT.as_secs(), stdout.trim(), stderr.trim());
            }
            bail!("{}: {}", output.status, stderr.trim());
        }
        let mut said = Said::default();
        let (lines, database) = stdout.split_once("DATABASE\n").unwrap_or((&stdout, ""));
        database.clone_into(&mut said.database);
        for line in lines.lines() {
            match line.split_once(' ').unwrap_or((line, "")) {
                ("OPERATION", operation) => said.operations.push(operation.to_owned()),
                ("CUT", cut) => said.cut = Some(cut.to_owned()),
                ("SEEN", seen) => said.seen.push(seen.to_owned()),
                // What it tells its operator.
                ("DONE" | "appliance:", _) => {}
                _ => bail!("a machine said `{line}`"),
            }
        }
        Ok(said)
    }
}

/// The first process in its namespaces. Arguments as [`Machine::boot`] gives them.
pub fn run(args: &[String]) -> Result<u8> {
    let [root, programs, again, shuts_down, engine @ ..] = args else { bail!("not enough arguments") };
    set_up(Path::new(root), Path::new(programs))?;
    let result = first_boot(engine, again == "true");
    if result.is_ok() && shuts_down == "true" {
        Command::new("/usr/local/sbin/systemctl").arg("halt").status()?;
    }
    keep_disk()?;
    result
}

fn first_boot(engine: &[String], again: bool) -> Result<u8> {
    let own = "/usr/local/sbin/crash";
    let output = Command::new(own).arg("engine").args(engine).env_clear().output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if let Some(cut) = stderr.lines().find(|line| line.starts_with("CUT ")) {
        println!("{cut}");
        for seen in state::secrets(Path::new("/"))? {
            println!("SEEN {seen}");
        }
        if !again {
            return Ok(0);
        }
        let mut healed = engine.to_vec();
        "0".clone_into(&mut healed[2]);
        let output = Command::new(own).arg("engine").args(healed).env_clear().output()?;
        if !output.status.success() {
            bail!("after `{cut}`: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
    } else if output.status.success() {
        print!("{}", String::from_utf8_lossy(&output.stdout));
    } else {
        bail!("{}", stderr.trim());
    }
    println!("DATABASE\n{}{}", state::database()?, standins::network());
    Ok(0)
}

/// Ends everything, as the machine's end does, and puts the files of the data disk back where they outlive it.
fn keep_disk() -> Result<()> {
    let kept = Path::new("/").join(scene::DISK).join("files");
    if !kept.exists() {
        return Ok(());
    }
    // Whoever loses its parent becomes a child of the first process, which this is.
    loop {
        for entry in fs::read_dir("/proc")?.flatten() {
            let id = entry.file_name().to_str().and_then(|name| name.parse().ok()).filter(|id| *id != 1);
            if let Some(id) = id.and_then(Pid::from_raw) {
                // It may have ended meanwhile.
                let _ = kill_process(id, Signal::KILL);
            }
        }
        if rustix::process::wait(WaitOptions::empty()).is_err() {
            break;
        }
    }
    fs::remove_dir_all(&kept)?;
    let status = Command::new("cp").args(["--archive", "--"]).args([Path::new(FILES), &kept]).status()?;
    if status.success() { Ok(()) } else { bail!("`cp`: {status}") }
}

fn set_up(root: &Path, programs: &Path) -> Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount_bind(root, root)?;
    let at = |path: &str| root.join(path);
    mount_bind("/usr", at("usr"))?;
    mount_remount(at("usr"), MountFlags::BIND | MountFlags::RDONLY, "")?;
    mount_bind(programs, at("usr/local/sbin"))?;
    mount("proc", at("proc"), "proc", MountFlags::empty(), None)?;
    for folder in ["dev", "run", "tmp"] {
        memory(&at(folder))?;
    }
    for device in ["null", "zero", "full", "random", "urandom"] {
        fs::write(at("dev").join(device), "")?;
        mount_bind(Path::new("/dev").join(device), at("dev").join(device))?;
    }
    for folder in ["dev/shm", "run/units", "run/postgresql"] {
        fs::create_dir(at(folder))?;
        fs::set_permissions(at(folder), fs::Permissions::from_mode(0o1777))?;
    }
    fs::set_permissions(at("tmp"), fs::Permissions::from_mode(0o1777))?;
    chown(at("run/postgresql"), Some(101), Some(101))?;
    // Each boot has a name of its own, by which moments before a power cut are told from those after it.
    let boot = at("run/boot-id");
    fs::copy("/proc/sys/kernel/random/uuid", &boot)?;
    mount_bind(&boot, at("proc/sys/kernel/random/boot_id"))?;
    if at(scene::DISK).exists() {
        let files = at(FILES.trim_start_matches('/'));
        fs::create_dir(&files)?;
        // A file system of its own: what is bound from it is known by its path there.
        memory(&files)?;
        let all = at(scene::DISK).join("files/.");
        let status = Command::new("cp").args(["--archive", "--"]).args([&all, &files]).status()?;
        if !status.success() {
            bail!("`cp`: {status}");
        }
        fs::write(at("dev/vdb"), "")?;
        mount_bind(at(scene::DISK).join("device"), at("dev/vdb"))?;
    }
    chroot(root)?;
    std::env::set_current_dir("/")?;
    rustix::system::sethostname(b"localhost")?;
    Ok(())
}

/// Folder with this program under its own name and those of the stand-ins.
pub fn programs(folder: &Path) -> Result<PathBuf> {
    let programs = folder.join("programs");
    fs::create_dir(&programs)?;
    fs::copy("/proc/self/exe", programs.join("crash"))?;
    for name in crate::standins::NAMES {
        std::os::unix::fs::symlink("crash", programs.join(name))?;
    }
    Ok(programs)
}
