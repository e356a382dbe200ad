//! The answer to a dns-01 challenge (RFC 8555, section 8.4): a TXT record that a program of the operator's puts into the zone.
//!
//! The program is called with `present NAME VALUE` and, afterwards, `cleanup NAME VALUE`; neither is a secret. It runs as root,
//! because what it needs to change a zone is kept from everybody else; so nobody else may be able to change it either. The
//! authority is asked to look only when every server of the zone that answers has the record.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use fs_err as fs;

use crate::dns::{self, Answer, Data, Kind, Reply};
use crate::exec::Run;

/// How long the program may take.
const PROGRAM: Duration = Duration::from_secs(120);
/// How long the zone's servers may take.
const ZONE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_secs(3);

/// A record in the zone that goes with its owner.
#[derive(Debug)]
pub(super) struct Published<'a> {
    hook: &'a Path,
    name: String,
    value: String,
}

impl<'a> Published<'a> {
    /// Has a record put into the zone.
    pub fn put(hook: &'a Path, domain: &str, value: &str) -> Result<Self> {
        check(hook)?;
        // From here on there may be something to clean up, whatever comes of it.
        let published =
            Published { hook, name: format!("_acme-challenge.{domain}"), value: value.to_owned() };
        published.call("present").context("putting the answer to the challenge into DNS")?;
        Ok(published)
    }

    fn call(&self, verb: &str) -> Result<()> {
        let program = self.hook.to_string_lossy();
        Run::new(&program, &[verb, &self.name, &self.value]).limit(PROGRAM).text().map(drop)
    }

    /// Waits until the zone's servers have it; resolvers, where none of those can be asked.
    pub fn wait(&self, resolvers: &[SocketAddr], zone_port: u16) -> Result<()> {
        let start = Instant::now();
        loop {
            let Some(missing) = self.missing(resolvers, zone_port) else { return Ok(()) };
            if start.elapsed() > ZONE {
                bail!(
                    "{missing} {} s after `{}` was told to put it there: let the program end with an error when it cannot",
                    ZONE.as_secs(),
                    self.hook.display()
                );
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Who does not have it yet.
    fn missing(&self, resolvers: &[SocketAddr], zone_port: u16) -> Option<String> {
        let of_zone = resolvers.iter().map(|resolver| dns::zone(&self.name, *resolver, zone_port).1);
        let of_zone = of_zone.into_iter().find(|servers| !servers.is_empty()).unwrap_or_default();
        let mut was_seen = false;
        for (name, server) in of_zone {
            match dns::ask(server, &self.name, Kind::Txt, false) {
                Ok(Answer { reply, is_authoritative: true }) if !matches!(reply, Reply::Alias(_)) => {
                    if !self.is_in(&reply) {
                        return Some(format!("{name} does not have the TXT record `{}`", self.name));
                    }
                    was_seen = true;
                }
                // An alias into another zone, or a server that this machine cannot reach.
                _ => {}
            }
        }
        let has_it = |resolver: &SocketAddr| {
            dns::ask(*resolver, &self.name, Kind::Txt, true).is_ok_and(|answer| self.is_in(&answer.reply))
        };
        let is_there = was_seen || resolvers.iter().any(has_it);
        (!is_there).then(|| format!("no DNS server has the TXT record `{}`", self.name))
    }

    fn is_in(&self, reply: &Reply) -> bool {
        let Reply::Records(records) = reply else { return false };
        records.iter().any(|record| matches!(&record.data, Data::Text(text) if *text == self.value))
    }
}

impl Drop for Published<'_> {
    fn drop(&mut self) {
        // A record that stays behind harms nobody: it is worth nothing without our account's key.
        let _ = self.call("cleanup");
    }
}

/// Whether root may run a program: nobody but root may have written it.
fn check(hook: &Path) -> Result<()> {
    let name = hook.display();
    let meta = fs::metadata(hook)
        .with_context(|| format!("`tls.dns-hook`: put the program at `{name}`, or name another one"))?;
    if !meta.is_file() || meta.mode() & 0o111 == 0 {
        bail!("`tls.dns-hook`: `{name}` is not a program: `chmod 0755` it, or name another one");
    }
    if meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
        bail!(
            "`tls.dns-hook`: others than root can change `{name}`, which runs as root: `chown root` and `chmod 0755` it"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::Published;

    #[test]
    fn a_program_is_called_before_and_after_and_only_if_it_is_roots() {
        let folder = tempfile::tempdir().unwrap();
        let (hook, log) = (folder.path().join("hook"), folder.path().join("log"));
        let mode = |mode| fs_err::set_permissions(&hook, std::fs::Permissions::from_mode(mode)).unwrap();
        let said = || Published::put(&hook, "a.example", "value").map(drop).unwrap_err().to_string();
        assert!(said().starts_with("`tls.dns-hook`: put the program at"));
        fs_err::write(&hook, format!("#!/bin/sh\necho \"$@\" >> {}\n", log.display())).unwrap();
        mode(0o644);
        assert!(said().contains("is not a program"));
        mode(0o777);
        assert!(said().contains("others than root can change"));
        assert!(!log.exists());
        mode(0o755);
        drop(Published::put(&hook, "a.example", "value").unwrap());
        let called = fs_err::read_to_string(&log).unwrap();
        assert_eq!(
            called,
            "present _acme-challenge.a.example value\ncleanup _acme-challenge.a.example value\n"
        );
        fs_err::write(&hook, "#!/bin/sh\necho the zone is locked >&2; exit 1\n").unwrap();
        let error = Published::put(&hook, "a.example", "value").map(drop).unwrap_err();
        assert!(format!("{error:#}").ends_with("the zone is locked"), "{error:#}");
    }
}
