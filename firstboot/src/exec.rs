//! The only file that starts programs inside the appliance.
//!
//! Every child gets a fixed environment, no stdin (or the bytes given), and its standard error in the error message. Secrets go
//! through stdin or files, never through arguments. Everything has a limit, ten minutes unless told otherwise; what talks much gets
//! a log.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::durable;

/// A program about to be run.
#[derive(Debug, Clone)]
pub struct Run {
    program: String,
    args: Vec<String>,
    stdin: Option<Vec<u8>>,
    env: BTreeMap<String, String>,
    folder: Option<String>,
    limit: Option<Duration>,
    log: Option<PathBuf>,
}

/// Exit code when the time was up; that of `timeout`.
pub const TIME_IS_UP: i32 = 124;
/// The limit of a program that got no other: a hung one must not stop everything for ever.
const LIMIT: Duration = Duration::from_secs(600);
/// How long a program may take to end when it is asked to.
const FAREWELL: Duration = Duration::from_secs(10);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// In order of preference; CentOS 7 has no `C.UTF-8`.
const LOCALES: [&str; 2] = ["C.UTF-8", "en_US.UTF-8"];

/// What a program said.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; 128 + signal when it was killed.
    pub code: i32,
    /// Standard output, lossily as UTF-8.
    pub stdout: String,
    /// Standard error, lossily as UTF-8.
    pub stderr: String,
}

impl Run {
    /// A program by name or path, with its arguments.
    pub fn new(program: &str, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Run {
            program: program.to_owned(),
            args,
            stdin: None,
            env: BTreeMap::new(),
            folder: None,
            limit: Some(LIMIT),
            log: None,
        }
    }

    /// The same program as another user, with that user's groups; `runuser` takes no password. HOME stays ours: a program that
    /// writes there needs [`Run::env`].
    pub fn as_user(user: &str, program: &str, args: &[&str]) -> Self {
        let mut all = vec!["-u", user, "--", program];
        all.extend_from_slice(args);
        Run::new("runuser", &all)
    }

    /// Bytes for standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// One more environment variable. Never a secret: `/proc/PID/environ` is readable by the same user.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Working folder.
    #[must_use]
    pub fn folder(mut self, folder: &str) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// The time after which it is killed, with everything that it started.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Lets it take all its time: for work whose time grows with a disk, and which must not be cut.
    #[must_use]
    pub fn unlimited(mut self) -> Self {
        self.limit = None;
        self
    }

    /// A file that gets both outputs as they are written, added to what it holds; nothing is returned then.
    #[must_use]
    pub fn log(mut self, path: &Path) -> Self {
        self.log = Some(path.to_owned());
        self
    }

    /// Runs it; a non-zero exit is an output, not an error.
    pub fn output(&self) -> Result<Output> {
        let line = self.line();
        let mut command = self.command();
        for (key, value) in [("PATH", PATH), ("LC_ALL", locale()), ("LANG", locale()), ("HOME", "/root")] {
            if !self.env.contains_key(key) {
                command.env(key, value);
            }
        }
        command.current_dir(self.folder.as_deref().unwrap_or("/"));
        command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        if let Some(log) = &self.log {
            let file = durable::log(log)?;
            command.stdout(file.try_clone()?).stderr(file);
        } else {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        durable::faults::program("starting", &line);
        let mut child = command.spawn().with_context(|| format!("starting `{line}`"))?;
        let group = Pid::from_child(&child);
        let (ended, end) = channel::<()>();
        let watch = self.limit.map(|limit| std::thread::spawn(move || kill_after(limit, group, &end)));
        let writer = self.stdin.clone().zip(child.stdin.take()).map(|(bytes, mut pipe)| {
            std::thread::spawn(move || {
                // A program may end without reading all; its exit code tells more than the broken pipe.
                let _ = pipe.write_all(&bytes);
            })
        });
        let output = child.wait_with_output().with_context(|| format!("waiting for `{line}`"));
        drop(ended);
        let was_killed = watch.is_some_and(|watch| watch.join().unwrap_or(false));
        let output = output?;
        if let Some(writer) = writer {
            let _ = writer.join();
        }
        durable::faults::program("ended", &line);
        let code = if was_killed { Some(TIME_IS_UP) } else { None };
        let code = code
            .or(output.status.code())
            .or_else(|| output.status.signal().map(|signal| 128 + signal))
            .unwrap_or(255);
        Ok(Output {
            code,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs it and wants exit code 0; returns standard output.
    pub fn text(&self) -> Result<String> {
        let before =
            self.log.as_ref().and_then(|log| fs_err::metadata(log).ok()).map_or(0, |meta| meta.len());
        let before = usize::try_from(before)?;
        let output = self.output()?;
        if output.code == 0 {
            return Ok(output.stdout);
        }
        let logged = self.log.as_ref().map(fs_err::read).transpose()?.unwrap_or_default();
        // Earlier attempts are in the log too; only this one's words explain it. It may have been rotated meanwhile.
        let before = if before > logged.len() { 0 } else { before };
        let logged = String::from_utf8_lossy(&logged[before..]);
        let said =
            [&*output.stderr, &*output.stdout, &*logged].into_iter().find(|text| !text.trim().is_empty());
        let lines: Vec<&str> = said.unwrap_or_default().trim().lines().collect();
        let tail = lines[lines.len().saturating_sub(12)..].join("\n");
        match self.limit {
            Some(limit) if output.code == TIME_IS_UP => {
                bail!("running `{}`: not done after {} s: {tail}", self.line(), limit.as_secs())
            }
            _ => bail!("running `{}`: exit code {}: {tail}", self.line(), output.code),
        }
    }

    /// Whether it runs and exits with 0.
    pub fn succeeds(&self) -> bool {
        self.output().is_ok_and(|output| output.code == 0)
    }

    /// In a process group of its own, so that a limit ends all that it started.
    fn command(&self) -> Command {
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        let mut command = Command::new(&self.program);
        command.process_group(0);
        command.args(&self.args).env_clear().envs(&self.env);
        command
    }

    fn line(&self) -> String {
        let mut line = self.program.clone();
        for arg in &self.args {
            line.push(' ');
            line.push_str(arg);
        }
        line
    }
}

/// Ends a process group whose time is up; whether that was so.
fn kill_after(limit: Duration, group: Pid, end: &Receiver<()>) -> bool {
    // The sender is dropped, never used: only a timeout means that the program still runs.
    if end.recv_timeout(limit) != Err(RecvTimeoutError::Timeout) {
        return false;
    }
    for (signal, patience) in [(Signal::TERM, FAREWELL), (Signal::KILL, Duration::ZERO)] {
        // It may have ended in this very moment.
        let _ = kill_process_group(group, signal);
        if end.recv_timeout(patience) != Err(RecvTimeoutError::Timeout) {
            break;
        }
    }
    true
}

/// The best UTF-8 locale of this machine, else the plain C locale.
pub fn locale() -> &'static str {
    static FOUND: OnceLock<&'static str> = OnceLock::new();
    FOUND.get_or_init(|| {
        #[expect(clippy::disallowed_methods, reason = "the environment of all other programs depends on it")]
        let installed = Command::new("locale").arg("-a").env_clear().env("PATH", PATH).output();
        installed.map_or("C", |output| pick_locale(&String::from_utf8_lossy(&output.stdout)))
    })
}

/// `locale -a` writes `UTF-8` as `utf8`.
fn pick_locale(installed: &str) -> &'static str {
    let canonical = |name: &str| name.to_lowercase().replace("utf-8", "utf8");
    LOCALES
        .into_iter()
        .find(|wanted| installed.lines().any(|name| canonical(name.trim()) == canonical(wanted)))
        .unwrap_or("C")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Run, pick_locale};

    #[test]
    fn the_best_locale_is_picked() {
        for (installed, expected) in [
            ("C\nC.utf8\nPOSIX\n", "C.UTF-8"),
            ("C\nC.UTF-8\n", "C.UTF-8"),
            ("C\nPOSIX\nen_US\nen_US.utf8\n", "en_US.UTF-8"),
            ("C\nPOSIX\n", "C"),
        ] {
            assert_eq!(pick_locale(installed), expected, "{installed:?}");
        }
    }

    #[test]
    fn a_limit_ends_what_the_program_started() {
        let start = std::time::Instant::now();
        let run = Run::new("sh", &["-c", "sleep 30 & sleep 30; echo"]).limit(Duration::from_secs(1));
        assert_eq!(run.output().unwrap().code, super::TIME_IS_UP);
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_limit_kills_and_says_so() {
        let error = Run::new("sleep", &["30"]).limit(Duration::from_secs(1)).text().unwrap_err();
        assert_eq!(error.to_string(), "running `sleep 30`: not done after 1 s: ");
    }

    #[test]
    fn a_log_gets_both_outputs_and_its_end_is_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("deep/x.log");
        let run = Run::new("sh", &["-c", "echo one; echo two >&2; exit 3"]).log(&log);
        let error = run.text().unwrap_err().to_string();
        assert!(error.ends_with("exit code 3: one\ntwo"), "{error}");
        let again = run.text().unwrap_err().to_string();
        assert_eq!(again, error, "the second error shows the second run alone");
        assert_eq!(fs_err::read_to_string(log).unwrap(), "one\ntwo\none\ntwo\n");
    }
}
