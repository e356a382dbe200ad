//! The only file that starts programs on the build host.
//!
//! Every child gets a fixed locale, time zone and epoch, no standard input, and a line in the log with all its output after it.
//! A failure shows the command, how it ended, its last lines, and where the whole log is.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{BufReader, Read as _, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

use anyhow::{Context as _, Result};
use fs_err as fs;

use crate::error::Fault;

/// Lines of a failed command that its error shows.
const TAIL: usize = 12;

/// The log of one run of `imgbuild`: every command and all that it said.
#[derive(Debug, Clone)]
pub struct Log {
    path: PathBuf,
    file: Arc<Mutex<fs::File>>,
}

impl Log {
    /// Creates the file; its folder must exist.
    pub fn create(path: &Path) -> Result<Self> {
        let file = fs::File::create(path)?;
        Ok(Log { path: path.to_owned(), file: Arc::new(Mutex::new(file)) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line. A log that cannot be written does not stop a build.
    pub fn line(&self, text: &str) {
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = writeln!(file, "{text}");
    }
}

/// Hears every line of a program's output.
type LineWatcher<'a> = Box<dyn FnMut(&str) + 'a>;

/// A program about to be run.
pub struct Run<'a> {
    log: &'a Log,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    folder: Option<PathBuf>,
    stdout: Option<std::fs::File>,
    on_line: Option<LineWatcher<'a>>,
}

/// How a program ended.
struct Ended {
    status: ExitStatus,
    stdout: String,
    /// That in words, and its last lines.
    message: String,
}

/// Search path of every child: the user's, then the folders of system tools that an ordinary user's lacks.
pub fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    for folder in ["/usr/sbin", "/sbin"] {
        path.push(":");
        path.push(folder);
    }
    path
}

/// The file that a program's name stands for on the search path.
pub fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Path::new(program).is_file().then(|| PathBuf::from(program));
    }
    std::env::split_paths(&search_path()).map(|folder| folder.join(program)).find(|path| path.is_file())
}

impl<'a> Run<'a> {
    /// A program by name.
    pub fn new(log: &'a Log, program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref().to_owned();
        Run { log, program, args: Vec::new(), env: Vec::new(), folder: None, stdout: None, on_line: None }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The working folder.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Standard output goes into this file instead of the log.
    #[must_use]
    pub fn stdout(mut self, file: fs::File) -> Self {
        self.stdout = Some(file.into_parts().0);
        self
    }

    /// Called with every line of output as it comes, for progress.
    #[must_use]
    pub fn on_line(mut self, callback: impl FnMut(&str) + 'a) -> Self {
        self.on_line = Some(Box::new(callback));
        self
    }

    /// Runs it to its end; an exit code other than 0 is an error of the environment.
    pub fn run(self) -> Result<()> {
        self.capture().map(drop)
    }

    /// Runs it and returns its standard output (unless that went to a file).
    pub fn capture(self) -> Result<String> {
        let log = self.log.path().to_owned();
        let ended = self.finish()?;
        if ended.status.success() {
            return Ok(ended.stdout);
        }
        Err(Fault::environment(ended.message).hint(format!("the whole log is in `{}`", log.display())).into())
    }

    /// Runs a program that judges: nothing when it ended well, what it said when it ended with one of these exit codes. Any other
    /// end, by a signal too, is an error of the environment.
    pub fn judge(self, verdicts: RangeInclusive<i32>) -> Result<Option<String>> {
        let log = self.log.path().to_owned();
        let ended = self.finish()?;
        match ended.status.code() {
            Some(0) => Ok(None),
            Some(code) if verdicts.contains(&code) => Ok(Some(ended.message)),
            _ => Err(Fault::environment(ended.message)
                .hint(format!("the whole log is in `{}`", log.display()))
                .into()),
        }
    }

    fn finish(mut self) -> Result<Ended> {
        let line = command_line(&self.program, &self.args);
        self.log.line(&format!("$ {line}"));
        let start = Instant::now();
        let mut command = base_command(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(key, value)| (key, value)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let to_file = self.stdout.is_some();
        command.stdout(self.stdout.take().map_or_else(Stdio::piped, Stdio::from)).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| not_started(&self.program, &line, &error))?;
        let mut stdout = String::new();
        let mut tail: VecDeque<String> = VecDeque::new();
        for (is_stdout, text) in lines(&mut child) {
            self.log.line(&text);
            if let Some(callback) = &mut self.on_line {
                callback(&text);
            }
            if is_stdout {
                stdout.push_str(&text);
                stdout.push('\n');
            }
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(text);
        }
        let status = child.wait().with_context(|| format!("waiting for `{line}`"))?;
        self.log.line(&format!("# {status} after {:.1} s", start.elapsed().as_secs_f64()));
        let name =
            Path::new(&self.program).file_name().unwrap_or(&self.program).to_string_lossy().into_owned();
        let mut message = format!("`{name}` ended with {status}");
        for text in tail {
            message.push_str("\n  | ");
            message.push_str(text.trim_end());
        }
        Ok(Ended { status, stdout: if to_file { String::new() } else { stdout }, message })
    }

    /// Starts it and leaves it running; its output goes to the file. For QEMU and servers, whose owner stops them.
    pub fn start(self, output: &fs::File) -> Result<Child> {
        let line = command_line(&self.program, &self.args);
        self.log.line(&format!("$ {line} &"));
        let mut command = base_command(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(key, value)| (key, value)));
        let output = output.file();
        command.stdout(output.try_clone()?).stderr(output.try_clone()?);
        command.spawn().map_err(|error| not_started(&self.program, &line, &error))
    }

    /// Runs it on the user's own terminal and returns its exit code.
    pub fn interactive(self) -> Result<i32> {
        let line = command_line(&self.program, &self.args);
        self.log.line(&format!("$ {line}"));
        let mut command = base_command(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::inherit());
        let status = command.status().map_err(|error| not_started(&self.program, &line, &error))?;
        Ok(status.code().unwrap_or(255))
    }
}

/// Variables of the user that change what tools write; a run that needs one sets it.
const FOREIGN: [&str; 8] = [
    "SOURCE_DATE_EPOCH",
    "TAR_OPTIONS",
    "MTOOLSRC",
    "MKE2FS_CONFIG",
    "XZ_OPT",
    "XZ_DEFAULTS",
    "GZIP",
    "POSIXLY_CORRECT",
];

fn base_command(program: &OsStr) -> Command {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    let mut command = Command::new(program);
    for name in FOREIGN {
        command.env_remove(name);
    }
    command.env("PATH", search_path()).env("LC_ALL", "C.UTF-8").env("TZ", "UTC").stdin(Stdio::null());
    command
}

fn not_started(program: &OsStr, line: &str, error: &std::io::Error) -> anyhow::Error {
    if error.kind() == std::io::ErrorKind::NotFound {
        return crate::tools::missing(&[&program.to_string_lossy()]).into();
    }
    anyhow::anyhow!("starting `{line}`: {error}")
}

/// Both outputs of a child, line by line in order of arrival; `true` marks standard output. A carriage return ends a line too,
/// so that a tool's own progress arrives as it happens.
fn lines(child: &mut Child) -> mpsc::IntoIter<(bool, String)> {
    fn pump(
        stream: impl std::io::Read + Send + 'static,
        is_stdout: bool,
        sender: mpsc::Sender<(bool, String)>,
    ) {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            for byte in BufReader::new(stream).bytes().map_while(Result::ok) {
                if byte != b'\n' && byte != b'\r' {
                    text.push(byte);
                } else if !text.is_empty()
                    && sender.send((is_stdout, String::from_utf8_lossy(&text).into_owned())).is_err()
                {
                    return;
                } else {
                    text.clear();
                }
            }
            if !text.is_empty() {
                let _ = sender.send((is_stdout, String::from_utf8_lossy(&text).into_owned()));
            }
        });
    }
    let (sender, receiver) = mpsc::channel();
    if let Some(stream) = child.stdout.take() {
        pump(stream, true, sender.clone());
    }
    if let Some(stream) = child.stderr.take() {
        pump(stream, false, sender);
    }
    receiver.into_iter()
}

/// A command line that can be pasted into a shell.
pub fn command_line(program: &OsStr, args: &[OsString]) -> String {
    let mut line = quote(&program.to_string_lossy());
    for arg in args {
        line.push(' ');
        line.push_str(&quote(&arg.to_string_lossy()));
    }
    line
}

fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> (tempfile::TempDir, Log) {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::create(&folder.path().join("log")).unwrap();
        (folder, log)
    }

    #[test]
    fn a_failure_names_the_command_its_last_lines_and_the_log() {
        let (_folder, log) = log();
        let error = Run::new(&log, "sh").args(["-c", "echo one; echo two >&2; exit 7"]).run().unwrap_err();
        let text = crate::error::render(&error);
        assert!(text.contains("`sh` ended with exit status: 7"), "{text}");
        assert!(text.contains("| two") && text.contains("hint: the whole log is in"), "{text}");
        assert_eq!(crate::error::exit_code(&error), 2);
    }

    #[test]
    fn only_an_exit_code_that_is_an_answer_is_one() {
        let (_folder, log) = log();
        let judge = |script: &str| Run::new(&log, "sh").args(["-c", script]).judge(1..=3);
        assert_eq!(judge("true").unwrap(), None);
        assert!(judge("echo two; exit 2").unwrap().unwrap().contains("| two"));
        for script in ["exit 4", "kill -9 $$"] {
            assert_eq!(crate::error::exit_code(&judge(script).unwrap_err()), 2, "{script}");
        }
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let (_folder, log) = log();
        let error = Run::new(&log, "mmdebstrap-that-is-not-there").run().unwrap_err();
        assert!(error.to_string().contains("mmdebstrap-that-is-not-there"), "{error}");
    }

    #[test]
    fn quotes_only_what_a_shell_would_read_otherwise() {
        assert_eq!(quote("-d"), "-d");
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), "'it'\\''s'");
    }
}
