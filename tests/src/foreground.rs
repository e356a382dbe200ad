//! A program in the foreground of a terminal, as a user runs it: its output is watched, and Ctrl-C ends it.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::{exec, wait};

/// The running program, in a process group of its own with everything that it starts; killed when dropped.
#[derive(Debug)]
pub struct Foreground {
    child: Child,
    group: Pid,
    output: Arc<Mutex<Vec<u8>>>,
}

impl Foreground {
    /// Starts it; standard output and standard error are collected together.
    pub fn start(program: &Path, args: &[&str]) -> Result<Foreground> {
        use std::os::unix::process::CommandExt as _;
        // A test runner that was itself started in the background ignores Ctrl-C, and so would all that it starts.
        let mut command = exec::command("env", &["--default-signal=INT"]);
        command.arg(program).args(args);
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting `{}`", program.display()))?;
        let group =
            i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("reading the id of a child")?;
        let output = Arc::new(Mutex::new(Vec::new()));
        for mut pipe in [
            child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn std::io::Read + Send>),
            child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn std::io::Read + Send>),
        ]
        .into_iter()
        .flatten()
        {
            let output = Arc::clone(&output);
            // Ends with the pipe.
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count) = pipe.read(&mut buffer) {
                    if count == 0 {
                        break;
                    }
                    output.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
                }
            });
        }
        Ok(Foreground { child, group, output })
    }

    /// What it has said so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until it has said `text`.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<()> {
        wait::until(&format!("`{text}` in the output"), limit, || {
            let output = self.output();
            if output.contains(text) {
                return Ok(Ok(()));
            }
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("the program ended with {status}: {output}");
            }
            let lines: Vec<&str> = output.lines().collect();
            Ok(Err(format!("its last lines:\n{}", lines[lines.len().saturating_sub(50)..].join("\n"))))
        })
    }

    /// Ctrl-C, as a terminal sends it: to the whole group. Waits for the end of the program and of all that it started.
    pub fn interrupt(mut self, limit: Duration) -> Result<ExitStatus> {
        kill_process_group(self.group, Signal::INT)?;
        wait::until("the end after Ctrl-C", limit, || {
            let Some(status) = self.child.try_wait()? else { return Ok(Err("it still runs".to_owned())) };
            let left = test_kill_process_group(self.group).is_ok();
            Ok(if left { Err("something that it started still runs".to_owned()) } else { Ok(status) })
        })
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        // Both fail only if there is nothing left to kill.
        let _ = kill_process_group(self.group, Signal::KILL);
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_seen_and_ctrl_c_ends_it() {
        let mut shell = Foreground::start(Path::new("/bin/sh"), &["-c", "echo ready; sleep 100"]).unwrap();
        shell.wait_for("ready", Duration::from_secs(5)).unwrap();
        assert!(!shell.interrupt(Duration::from_secs(5)).unwrap().success());

        let mut shell = Foreground::start(Path::new("/bin/sh"), &["-c", "echo no >&2; exit 4"]).unwrap();
        let error = shell.wait_for("ready", Duration::from_secs(5)).unwrap_err().to_string();
        assert!(error.starts_with("the program ended with exit status: 4"), "{error}");
    }
}
