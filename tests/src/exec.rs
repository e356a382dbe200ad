//! The only file of the test kit that starts programs.
//!
//! Guarantees: a fixed `PATH` and locale, no standard input, the program's own words in every error, and no child that
//! survives its [`Service`].

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a program said.
#[derive(Debug)]
pub(crate) struct Output {
    pub code: Option<i32>,
    /// Standard output and standard error, in this order.
    pub text: String,
}

/// Runs a program to its end; a non-zero exit is an output, not an error.
pub(crate) fn output<A: AsRef<OsStr>>(program: &str, args: &[A]) -> Result<Output> {
    let output = command(program, args)
        .output()
        .with_context(|| format!("starting `{program}` (`cargo ci setup` installs what is missing)"))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(Output { code: output.status.code(), text })
}

/// Runs a program, wants exit code 0, and returns what it said.
pub(crate) fn text<A: AsRef<OsStr>>(program: &str, args: &[A]) -> Result<String> {
    let output = output(program, args)?;
    if output.code != Some(0) {
        let args: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
        let end = output.code.map_or("a signal".to_owned(), |code| format!("exit code {code}"));
        bail!("running `{program} {}`: {end}: {}", args.join(" "), output.text.trim());
    }
    Ok(output.text)
}

/// The same with more in its environment.
pub(crate) fn text_with<A: AsRef<OsStr>>(
    program: &str,
    args: &[A],
    environment: &[(&str, &OsStr)],
) -> Result<String> {
    let assignments = environment.iter().map(|(name, value)| {
        let mut assignment = std::ffi::OsString::from(format!("{name}="));
        assignment.push(value);
        assignment
    });
    let mut all: Vec<std::ffi::OsString> = assignments.collect();
    all.push(program.into());
    all.extend(args.iter().map(|arg| arg.as_ref().to_owned()));
    text("env", &all)
}

/// Runs a program, wants exit code 0, and keeps its standard output, of any bytes, in a file.
pub(crate) fn to_file<A: AsRef<OsStr>>(program: &str, args: &[A], file: &Path) -> Result<()> {
    let output = command(program, args)
        .stdout(fs_err::File::create(file)?.into_parts().0)
        .stderr(Stdio::piped())
        .spawn()
        .and_then(Child::wait_with_output)
        .with_context(|| format!("starting `{program}` (`cargo ci setup` installs what is missing)"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("running `{program}` into `{}`: {}: {}", file.display(), output.status, said.trim());
    }
    Ok(())
}

/// A server in the foreground: killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Service {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts `program` inside the network namespace; its output goes to `<name>.log` in `folder`.
    pub fn start(
        name: &'static str,
        namespace: &str,
        program: &str,
        args: &[&str],
        environment: &[(&str, &str)],
        folder: &Path,
    ) -> Result<Service> {
        let log = folder.join(format!("{name}.log"));
        let file = fs_err::File::create(&log)?.into_parts().0;
        // `ip netns exec` replaces itself with the program, so the child's id is the program's own.
        let mut all = vec!["netns", "exec", namespace, program];
        all.extend_from_slice(args);
        let child = command("ip", &all)
            .envs(environment.iter().copied())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting `{program}`"))?;
        Ok(Service { name, child, log })
    }

    /// An error with the end of the log once the program is no longer there.
    pub fn must_run(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = fs_err::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            bail!(
                "`{}` ended with {status}: {}",
                self.name,
                lines[lines.len().saturating_sub(12)..].join("\n")
            );
        }
        Ok(())
    }

    /// Name of the server in messages, and of its log.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Both fail only if the program has ended and been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program with its arguments, the fixed environment and no standard input.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn command<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: &[A]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env("PATH", PATH).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_names_the_command_and_what_it_said() {
        let error = text("sh", &["-c", "echo no such thing >&2; exit 3"]).unwrap_err().to_string();
        assert_eq!(error, "running `sh -c echo no such thing >&2; exit 3`: exit code 3: no such thing");
    }

    #[test]
    fn missing_program_says_how_to_get_it() {
        let error = text("no-such-program", &["x"]).unwrap_err().to_string();
        assert_eq!(error, "starting `no-such-program` (`cargo ci setup` installs what is missing)");
    }
}
