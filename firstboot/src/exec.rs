//! The only file that starts programs inside the appliance.
//!
//! Every child gets a fixed environment, no stdin (or the bytes given), and its standard error in the error message. Secrets go
//! through stdin or files, never through arguments.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// A program about to be run.
#[derive(Debug, Clone)]
pub struct Run {
    program: String,
    args: Vec<String>,
    stdin: Option<Vec<u8>>,
    env: BTreeMap<String, String>,
    folder: Option<String>,
}

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
        Run { program: program.to_owned(), args, stdin: None, env: BTreeMap::new(), folder: None }
    }

    /// The same program as another user, with that user's home and groups; `runuser` takes no password and no PAM detour.
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

    /// Runs it; a non-zero exit is an output, not an error.
    pub fn output(&self) -> Result<Output> {
        let line = self.line();
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().envs(&self.env);
        for (key, value) in [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("LC_ALL", "C.UTF-8"),
            ("LANG", "C.UTF-8"),
            ("HOME", "/root"),
        ] {
            if !self.env.contains_key(key) {
                command.env(key, value);
            }
        }
        command.current_dir(self.folder.as_deref().unwrap_or("/"));
        command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting `{line}`"))?;
        let writer = self.stdin.clone().zip(child.stdin.take()).map(|(bytes, mut pipe)| {
            std::thread::spawn(move || {
                // A program may end without reading all; its exit code tells more than the broken pipe.
                let _ = pipe.write_all(&bytes);
            })
        });
        let output = child.wait_with_output().with_context(|| format!("waiting for `{line}`"))?;
        if let Some(writer) = writer {
            let _ = writer.join();
        }
        use std::os::unix::process::ExitStatusExt;
        let code =
            output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal)).unwrap_or(255);
        Ok(Output {
            code,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs it and wants exit code 0; returns standard output.
    pub fn text(&self) -> Result<String> {
        let output = self.output()?;
        if output.code != 0 {
            let said = if output.stderr.trim().is_empty() { &output.stdout } else { &output.stderr };
            let lines: Vec<&str> = said.trim().lines().collect();
            let tail = lines[lines.len().saturating_sub(12)..].join("\n");
            bail!("running `{}`: exit code {}: {tail}", self.line(), output.code);
        }
        Ok(output.stdout)
    }

    /// Whether it runs and exits with 0.
    pub fn succeeds(&self) -> bool {
        self.output().is_ok_and(|output| output.code == 0)
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
