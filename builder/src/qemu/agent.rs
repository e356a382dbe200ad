//! Commands in the guest by the QEMU guest agent: no network, no password, no shell on a console.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use serde_json::{Value, json};

/// What a command in the guest said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestOutput {
    /// Exit code; 255 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `sh -c command` as root in the guest.
pub fn exec(socket: &Path, command: &str, limit: Duration) -> Result<GuestOutput> {
    let deadline = Instant::now() + limit;
    let mut agent = connect(socket, deadline)?;
    let arguments = json!({ "path": "/bin/sh", "arg": ["-c", command], "capture-output": true, "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root"] });
    let pid = agent.execute("guest-exec", &arguments)?["pid"].clone();
    loop {
        let status = agent.execute("guest-exec-status", &json!({ "pid": pid }))?;
        if status["exited"].as_bool() == Some(true) {
            let text = |key: &str| -> Result<String> {
                let bytes = base64::engine::general_purpose::STANDARD
                    .decode(status[key].as_str().unwrap_or_default())?;
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            };
            let code = status["exitcode"].as_i64().and_then(|code| i32::try_from(code).ok()).unwrap_or(255);
            return Ok(GuestOutput { code, stdout: text("out-data")?, stderr: text("err-data")? });
        }
        if Instant::now() > deadline {
            bail!("it did not end within {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

struct Agent {
    reader: BufReader<UnixStream>,
}

/// Connects and synchronises: what an earlier client left unread is thrown away.
fn connect(socket: &Path, deadline: Instant) -> Result<Agent> {
    // One that no earlier command of this process has used: its answer may still be on the way.
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    loop {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let stream = UnixStream::connect(socket).context("connecting to the guest agent's port")?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut agent = Agent { reader: BufReader::new(stream) };
        // The agent may not run yet; the byte 0xff makes it drop a half-read line.
        agent.reader.get_mut().write_all(b"\xff")?;
        agent.send("guest-sync", &json!({ "id": number }))?;
        while let Ok(answer) = agent.read() {
            if answer["return"] == json!(number) {
                agent.reader.get_ref().set_read_timeout(Some(Duration::from_secs(60)))?;
                return Ok(agent);
            }
        }
        if Instant::now() > deadline {
            bail!("the guest agent does not answer");
        }
    }
}

impl Agent {
    fn send(&mut self, command: &str, arguments: &Value) -> Result<()> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string();
        self.reader.get_mut().write_all(format!("{line}\n").as_bytes())?;
        Ok(())
    }

    fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        self.send(command, arguments)?;
        let mut answer = self.read()?;
        if let Some(error) = answer.get("error") {
            bail!("the guest agent refused `{command}`: {}", error["desc"].as_str().unwrap_or("no reason"));
        }
        Ok(answer["return"].take())
    }

    fn read(&mut self) -> Result<Value> {
        loop {
            let mut line = Vec::new();
            let count = self.reader.read_until(b'\n', &mut line)?;
            if count == 0 {
                return Err(std::io::Error::from(ErrorKind::UnexpectedEof).into());
            }
            // What is left of an earlier conversation is no JSON.
            let start = line.iter().rposition(|byte| *byte == 0xff).map_or(0, |at| at + 1);
            if let Ok(value) = serde_json::from_slice(&line[start..]) {
                return Ok(value);
            }
        }
    }
}
