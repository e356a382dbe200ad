//! Step `modes`: who can read the files that hold secrets, at every boot.
//!
//! The steps that write them do so with the right owner and mode; a restored backup, a copy by hand or a mistaken `chmod -R` does not.
//! What is too open is closed, and the journal says so with the file's name: what it holds may have been read meanwhile, and only the
//! operator knows by whom. No right is ever added, no link followed, and no file touched that has a second name: what lies in a folder
//! of a service's user may be anything. The step that writes such a file puts a file of its own in the place of a link.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use crate::console;
use crate::context::Context;
use crate::durable::{self, Open};
use crate::engine::{self, Needs, Observation, Step};

/// The step.
pub const STEP: Step = Step {
    name: "modes",
    why: "keeps files with secrets from everybody whom they are not for",
    needs: Needs::Local,
    watch: engine::HOURLY,
    observe,
    apply,
};

/// Who owns all of [`SECRETS`].
const ROOT: (u32, u32) = (0, 0);

/// Every file and folder with secrets: where (a `*` stands for any part of one name), and what its mode allows at most. A file that is
/// not there is not made yet.
const SECRETS: &[(&str, u32)] = &[
    ("/etc/appliance/config.toml", 0o600),
    ("/etc/appliance/given.json", 0o600),
    // The operator's own pair.
    ("/etc/appliance/tls/privkey.pem", 0o600),
    ("/etc/letsencrypt/archive", 0o700),
    ("/etc/letsencrypt/archive/*/*/privkey.pem", 0o600),
    ("/etc/ssh/ssh_host_*_key", 0o600),
    ("/root/owner-password", 0o600),
    // The authority's account keys, and a certificate's key while it is ordered.
    ("/var/lib/appliance/acme", 0o700),
    ("/var/lib/appliance/acme/*", 0o600),
    // The owner's password while the account is made.
    ("/var/lib/appliance/owner-begun", 0o600),
    ("/var/lib/appliance/secrets", 0o700),
    ("/var/lib/appliance/secrets/*", 0o600),
    ("/var/lib/appliance/ssh", 0o700),
    ("/var/lib/appliance/ssh/*", 0o600),
];

/// The application's settings, below its folder: root's, and readable by its group. The folder is the application's own, so the owner
/// is left to the step that writes it.
const ENVIRONMENT: (&str, u32) = (".env.production", 0o640);

/// A file or folder that must be closed.
struct Finding {
    path: PathBuf,
    mode: u32,
    owner: Option<(u32, u32)>,
}

fn observe(context: &Context) -> Result<Observation> {
    let found = findings(context)?;
    Ok(match found.first() {
        None => Observation::Done,
        Some(first) => Observation::Todo(format!(
            "close {} files or folders with secrets, `{}` among them",
            found.len(),
            first.path.display()
        )),
    })
}

fn apply(context: &Context) -> Result<()> {
    for Finding { path, mode, owner } in findings(context)? {
        if let Some(open) = durable::close_to(&path, mode, owner)? {
            console::announce(&format!("appliance: note    modes: {}", said(&path, mode, open)));
        }
    }
    Ok(())
}

fn said(path: &Path, mode: u32, open: Open) -> String {
    let Open { mode: had, owner: (uid, gid) } = open;
    let readers = match (had & 0o004 != 0, had & 0o040 != 0 && mode & 0o040 == 0, uid) {
        (true, ..) => "by every user of this machine",
        (_, true, _) => "by its group",
        (_, _, 1..) => "by its owner",
        _ => "by nobody",
    };
    format!(
        "`{}` had mode {had:04o} and owner {uid}:{gid}, and was closed; meanwhile it could be read {readers}: if that was not only you, \
         change what it holds",
        path.display()
    )
}

fn findings(context: &Context) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    let mut look = |path: PathBuf, mode: u32, owner: Option<(u32, u32)>| -> Result<()> {
        let owner = owner.filter(|_| context.is_machine());
        if durable::is_open_beyond(&path, mode, owner)? {
            found.push(Finding { path, mode, owner });
        }
        Ok(())
    };
    for (pattern, mode) in SECRETS {
        for path in matching(&context.root, pattern) {
            look(path, *mode, Some(ROOT))?;
        }
    }
    let (name, mode) = ENVIRONMENT;
    look(context.path(&context.facts.application.root).join(name), mode, None)?;
    Ok(found)
}

/// The paths below a root that a pattern is for. Only real folders are looked into below a `*`.
fn matching(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut paths = vec![root.to_owned()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let Some((before, after)) = part.split_once('*') else {
            for path in &mut paths {
                path.push(part);
            }
            continue;
        };
        let is_like = |name: &str| {
            name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
        };
        paths = paths
            .iter()
            .filter(|folder| folder.symlink_metadata().is_ok_and(|meta| meta.is_dir()))
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
            .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_like))
            .collect();
    }
    paths
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{ENVIRONMENT, Open, SECRETS, apply, matching, observe, said};
    use crate::context::tests::scratch_context;
    use crate::engine::Observation;

    /// Every line of the table, as a file that everybody can read, is found and closed.
    #[test]
    fn every_secret_of_the_table_is_closed() {
        let (guard, context) = scratch_context();
        let environment = format!("{}/{}", context.facts.application.root, ENVIRONMENT.0);
        let names = SECRETS.iter().map(|(pattern, mode)| (pattern.replace('*', "x"), *mode));
        let names: Vec<_> = names.chain([(environment, ENVIRONMENT.1)]).collect();
        let set = |path: &std::path::Path, mode| {
            fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        assert_eq!(observe(&context).unwrap(), Observation::Done, "what is not there is not made yet");
        for (name, mode) in &names {
            let path = context.path(name);
            if *mode == 0o700 {
                fs_err::create_dir_all(&path).unwrap();
                set(&path, 0o755);
            } else {
                fs_err::create_dir_all(path.parent().unwrap()).unwrap();
                fs_err::write(&path, "secret").unwrap();
                set(&path, 0o644);
            }
        }
        let Observation::Todo(text) = observe(&context).unwrap() else { panic!("they are open") };
        assert!(text.starts_with(&format!("close {} files", names.len())), "{text}");
        apply(&context).unwrap();
        assert_eq!(observe(&context).unwrap(), Observation::Done);
        for (name, mode) in &names {
            let found = context.path(name).metadata().unwrap().permissions().mode() & 0o7777;
            assert_eq!(found, 0o755 & mode | 0o644 & mode & found, "{name}");
            assert_eq!(found & !mode, 0, "{name}");
        }
        assert_eq!(matching(guard.path(), "/etc/ssh/ssh_host_*_key").len(), 1);
    }

    #[test]
    fn a_link_leads_nowhere() {
        let (_guard, context) = scratch_context();
        let victim = context.path("/etc/passwd");
        fs_err::create_dir_all(context.path("/root")).unwrap();
        fs_err::create_dir_all(context.path("/etc/elsewhere/1")).unwrap();
        fs_err::create_dir_all(context.path("/etc/letsencrypt/archive")).unwrap();
        for path in [&victim, &context.path("/etc/elsewhere/1/privkey.pem")] {
            fs_err::write(path, "text").unwrap();
        }
        std::os::unix::fs::symlink(&victim, context.path("/root/owner-password")).unwrap();
        std::os::unix::fs::symlink("../../elsewhere", context.path("/etc/letsencrypt/archive/a.example"))
            .unwrap();
        apply(&context).unwrap();
        for path in [victim, context.path("/etc/elsewhere/1/privkey.pem")] {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o044, 0o044);
        }
    }

    #[test]
    fn the_journal_says_who_could_read_it() {
        let open = |mode, uid| said("/root/x".as_ref(), 0o600, Open { mode, owner: (uid, 0) });
        insta::assert_snapshot!(open(0o644, 0), @"`/root/x` had mode 0644 and owner 0:0, and was closed; meanwhile it could be read by every user of this machine: if that was not only you, change what it holds");
        assert!(open(0o640, 0).contains("could be read by its group:"));
        assert!(open(0o600, 991).contains("could be read by its owner:"));
    }
}
