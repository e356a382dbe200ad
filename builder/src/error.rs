//! Who must act on an error: decides the exit code, in `main` alone.
//!
//! An error without a `Blame` in its chain is our own bug (exit code 3): a user who sees it should report it.

use std::fmt;

/// Who must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The user's input is wrong: exit code 1.
    User,
    /// The environment is: no network, no tool, no space. Exit code 2.
    Environment,
}

impl Blame {
    /// The process' exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Blame::User => 1,
            Blame::Environment => 2,
        }
    }
}

/// An error with blame and what to do next.
#[derive(Debug)]
pub struct Fault {
    blame: Blame,
    message: String,
    hints: Vec<String>,
}

impl Fault {
    /// The user's input is wrong.
    pub fn user(message: impl Into<String>) -> Self {
        Fault { blame: Blame::User, message: message.into(), hints: Vec::new() }
    }

    /// The environment is wrong.
    pub fn environment(message: impl Into<String>) -> Self {
        Fault { blame: Blame::Environment, message: message.into(), hints: Vec::new() }
    }

    /// Adds one thing that the user can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Who must act.
    pub fn blame(&self) -> Blame {
        self.blame
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// An answer that a command has put on standard output already, such as "the images differ": `main` adds nothing to it and ends with
/// this exit code.
#[derive(Debug)]
pub struct Answer(pub u8);

impl fmt::Display for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "the answer is {}", self.0)
    }
}

impl std::error::Error for Answer {}

/// For commands whose exit code 1 is an answer: what the user or the environment did wrong ends with 2. Our own bugs keep their 3.
pub fn as_trouble(error: anyhow::Error) -> anyhow::Error {
    let Some(fault) = error.chain().find_map(|cause| cause.downcast_ref::<Fault>()) else { return error };
    let hints = fault.hints.clone();
    Fault { blame: Blame::Environment, message: format!("{error:#}"), hints }.into()
}

/// The exit code of an error: of the outermost `Fault`; 2 for a disk that is full or may not be written, wherever it struck; else 3.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(Answer(code)) = error.downcast_ref() {
        return *code;
    }
    if let Some(fault) = error.chain().find_map(|cause| cause.downcast_ref::<Fault>()) {
        return fault.blame.exit_code();
    }
    let environment = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(|cause| {
        use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        matches!(cause.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem | PermissionDenied)
    });
    if environment { Blame::Environment.exit_code() } else { 3 }
}

/// The text for the user: the chain of causes on one line, then a `hint:` line each. Empty after an [`Answer`].
pub fn render(error: &anyhow::Error) -> String {
    if error.is::<Answer>() {
        return String::new();
    }
    let mut text = format!("error: {error:#}");
    for fault in error.chain().filter_map(|cause| cause.downcast_ref::<Fault>()) {
        for hint in &fault.hints {
            text.push_str("\nhint: ");
            text.push_str(hint);
        }
    }
    if exit_code(error) == 3 {
        text.push_str("\nhint: this looks like a bug in imgbuild; please report it with the log");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn blame_survives_context() {
        let error: anyhow::Error = Fault::environment("no space").hint("free some").into();
        let error = Err::<(), _>(error).context("writing the disk").unwrap_err();
        assert_eq!(exit_code(&error), 2);
        assert_eq!(render(&error), "error: writing the disk: no space\nhint: free some");
    }

    #[test]
    fn an_error_without_blame_is_ours() {
        assert_eq!(exit_code(&anyhow::anyhow!("what")), 3);
    }

    #[test]
    fn an_answer_is_no_error_and_trouble_is_no_answer() {
        let error = anyhow::Error::from(Answer(1));
        assert_eq!((exit_code(&error), render(&error).as_str()), (1, ""));
        let fault: anyhow::Error = Fault::user("no image").hint("take another").into();
        let error = as_trouble(fault);
        assert_eq!((exit_code(&error), render(&error).as_str()), (2, "error: no image\nhint: take another"));
        assert_eq!(exit_code(&as_trouble(anyhow::anyhow!("what"))), 3);
    }

    #[test]
    fn a_full_disk_is_the_environment() {
        let error = anyhow::Error::from(std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(exit_code(&error), 2);
    }
}
