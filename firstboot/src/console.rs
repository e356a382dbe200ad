//! Where first boot talks to people: the journal, the console, and the text above the login prompt.

use std::fmt::Write as _;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;

use crate::durable;
use crate::exec::Run;
use crate::status::Status;

/// A line for the journal: systemd takes our standard output.
pub fn journal(line: &str) {
    // A journal that is gone cannot be told so.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A line for the journal and for the machine's console.
pub fn announce(line: &str) {
    journal(line);
    let console = fs_err::OpenOptions::new().write(true).open("/dev/console");
    if let Ok(mut console) = console {
        // The console may be in raw mode, where a line feed alone makes stairs. One write, so that kernel messages do not
        // come between.
        let _ = console.write_all(format!("{line}\r\n").as_bytes());
    }
}

/// Keeps the text above the login prompt true.
pub fn issue(root: &Path, title: &str, status: &Status, addresses: &[IpAddr]) -> Result<()> {
    if durable::write(&root.join("etc/issue"), render(title, status, addresses).as_bytes(), 0o644, None)? {
        // Old versions have no such option; their prompt shows the new text after the next login.
        Run::new("agetty", &["--reload"]).succeeds();
    }
    Ok(())
}

fn render(title: &str, status: &Status, addresses: &[IpAddr]) -> String {
    let mut text = format!("\n{title}\n\n");
    // OK: writing to a string cannot fail.
    if let Some(url) = &status.url {
        let _ = writeln!(text, "  {url}");
    }
    for address in addresses.iter().filter(|address| !address.is_loopback()) {
        let _ = writeln!(text, "  {address}");
    }
    let _ = writeln!(text, "\n  {}", status.verdict.sentence());
    for waiting in &status.waiting {
        let _ = writeln!(text, "  - {}: {}", waiting.step, waiting.why.replace('\n', " "));
    }
    if !status.waiting.is_empty() {
        text.push_str("\n  log in as root and type `appliance status` for more, `appliance retry` to try again at once\n");
    }
    text.push('\n');
    // A backslash would be a command to agetty.
    text.replace('\\', "/")
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::engine::{Needs, Observation};
    use crate::status::{Known, Status};

    #[test]
    fn the_prompt_names_the_address_and_what_is_missing() {
        let step = |step, needs, observation| Known {
            step,
            needs,
            observation: Some(observation),
            held: false,
            working: false,
            millis: None,
        };
        let known = [
            step("database", Needs::Local, Observation::Done),
            step("certificate", Needs::World, Observation::Waiting("no AAAA record\nfor a\\b".to_owned())),
        ];
        let status = Status::of(Some("v6don.example.net"), &known);
        let addresses = ["::1".parse().unwrap(), "2001:db8::101".parse().unwrap()];
        insta::assert_snapshot!(render("Mastodon on Debian 12", &status, &addresses), @"

        Mastodon on Debian 12

          https://v6don.example.net/
          2001:db8::101

          amber: the instance serves, and waits for something outside
          - certificate: no AAAA record for a/b

          log in as root and type `appliance status` for more, `appliance retry` to try again at once
        ");
    }
}
