//! The command line: some verbs for systemd, the others for the operator.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use fs_err as fs;

use crate::context::Context;
use crate::exec::Run;
use crate::settings::{Settings, is_username};
use crate::steps::{certificate, clone, firewall, network, owner, storage};
use crate::{channels, daemon, diagnosis, status, steps, systemd};

/// The unit that runs `appliance firstboot`.
const UNIT: &str = "appliance.service";
const ROOT: &str = "/";

/// The steps that only read files below the root, need no settings, and start no program: what they see in the files of another machine
/// is about that machine, and seeing it changes nothing.
const OBSERVABLE: &[&str] = &["secrets"];

/// Looks after this Mastodon appliance.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 80)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Prepare storage and identity (run by systemd)
    #[command(hide = true)]
    Early,
    /// Turn this machine into an instance and keep it one (run by systemd)
    #[command(hide = true)]
    Firstboot,
    /// Lead port 443 back to the web server, if a killed first boot has led it away (run by systemd)
    #[command(hide = true)]
    LeadBack,
    /// Ask VMware for a value that it keeps for this machine (run by first boot)
    #[command(hide = true)]
    Guestinfo {
        /// Its name
        key: String,
    },
    /// Say what the step `secrets` sees in a folder that holds a machine's files, such as a disk's that was taken out
    #[command(hide = true)]
    Observe {
        /// The folder
        root: PathBuf,
        /// The step's name
        step: String,
    },
    /// Show what is done, what is waited for, and why
    Status {
        /// Print the status as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what a person who helps you needs to see; without secrets
    Diagnose,
    /// Try everything again at once; the certificate at its own time
    Retry,
    /// Look at configurations
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// Make an account of this instance an administrator
    MakeAdmin {
        /// The account's name, without `@` and domain
        username: String,
    },
    /// Answer what this machine is, when its disks were copied from another one
    Identity {
        /// What it is
        answer: clone::Answer,
    },
    /// Order the certificate again if it is due, as soon as the authority allows it
    Renew,
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Print the configuration in force, with secrets redacted
    Show,
    /// Say whether a file is a valid configuration
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print a complete configuration with comments
    Example,
}

impl Cli {
    /// Does what was asked for.
    pub fn run(&self) -> Result<()> {
        let root = Path::new(ROOT);
        match &self.verb {
            Verb::Early => daemon::early(root),
            Verb::Firstboot => daemon::run(root),
            Verb::LeadBack => firewall::end_diversion(root),
            Verb::Guestinfo { key } => print(&channels::answer_guestinfo(key)?),
            Verb::Observe { root, step } => observe(root, step),
            Verb::Status { json } => show_status(root, *json),
            Verb::Diagnose => print(&diagnosis::report(root)),
            Verb::Retry => {
                network::forgive(root)?;
                retry()
            }
            Verb::Identity { answer } => {
                clone::reply(root, *answer)?;
                retry()
            }
            Verb::Renew => {
                certificate::forget_failures(&Context::load(root)?)?;
                retry()
            }
            Verb::Config { verb } => config(root, verb),
            Verb::MakeAdmin { username } => make_admin(root, username),
        }
    }
}

/// Standard output is data; a reader that has seen enough is no error.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// What a step sees below a root that need not be this machine's.
fn observe(root: &Path, name: &str) -> Result<()> {
    let step = steps::STEPS.iter().find(|step| step.name == name && OBSERVABLE.contains(&name));
    let Some(step) = step else {
        bail!("`{name}` cannot be observed in a folder: it is not one of `{}`", OBSERVABLE.join("`, `"));
    };
    // No channel is asked for settings: channels mount volumes, and ask the machine that this runs on.
    let context = Context { root: root.to_owned(), facts: Context::load_facts(root)?, settings: None };
    print(&format!("{:?}\n", (step.observe)(&context)?))
}

fn show_status(root: &Path, json: bool) -> Result<()> {
    let text = fs::read_to_string(root.join(&status::PATH[1..]))
        .with_context(|| format!("there is no status yet; see `systemctl status {UNIT}`"))?;
    if json {
        return print(&text);
    }
    print(&status::table(&text, steps::STEPS)?)?;
    let context =
        Context::load_facts(root).map(|facts| Context { root: root.to_owned(), facts, settings: None })?;
    if storage::is_on_system_disk(&context) {
        print(
            "\nstate is on the system disk, because no data disk was attached: a new system disk would lose it\n",
        )?;
    }
    Ok(())
}

/// Wakes the process that keeps this machine, also in the middle of its first pass, when systemd does not call the unit active
/// yet. Nothing here waits for the pass to end.
fn retry() -> Result<()> {
    channels::look_again(Path::new(ROOT))?;
    if systemd::has_main_process(UNIT) {
        // Not only its main process was started by the unit: the signal is for that one alone.
        Run::new("systemctl", &["kill", "--signal=USR1", "--kill-who=main", UNIT]).text()?;
    } else {
        systemd::start_without_waiting(UNIT)?;
    }
    print("trying again now; `appliance status` shows how it goes\n")
}

fn config(root: &Path, verb: &ConfigVerb) -> Result<()> {
    match verb {
        ConfigVerb::Example => print(Settings::example()),
        ConfigVerb::Check { file } => {
            let settings = Settings::parse(&file.to_string_lossy(), &fs::read_to_string(file)?)?;
            print(&format!("`{}` is valid, for the instance `{}`\n", file.display(), settings.domain))
        }
        ConfigVerb::Show => {
            let search = channels::search(root);
            let Some((settings, _)) = &search.found else {
                bail!(
                    "no valid configuration was found: {}",
                    [search.refused, search.waiting].concat().join("; ")
                );
            };
            print(&format!("{}{}", search.origin(), settings.redacted()))
        }
    }
}

fn make_admin(root: &Path, username: &str) -> Result<()> {
    if !is_username(username) {
        bail!("`{username}` is no account name: give it without `@` and domain");
    }
    owner::make_admin(&Context::load(root)?, username)?;
    print(&format!("`{username}` is an administrator now\n"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{Cli, ConfigVerb, OBSERVABLE, config, observe};
    use crate::context::tests::scratch_context;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_step_is_observed_only_where_it_looks_below_the_root_alone() {
        let (guard, context) = scratch_context();
        let facts = context.path(crate::facts::PATH);
        fs_err::create_dir_all(facts.parent().unwrap()).unwrap();
        fs_err::write(&facts, toml::to_string(&context.facts).unwrap()).unwrap();
        for name in OBSERVABLE {
            observe(guard.path(), name).unwrap();
        }
        for name in ["configuration", "storage", "what"] {
            let error = observe(guard.path(), name).unwrap_err().to_string();
            assert!(error.contains("it is not one of `secrets`"), "{error}");
        }
    }

    #[test]
    fn a_file_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        let check = || config(folder.path(), &ConfigVerb::Check { file: file.clone() });
        assert!(check().is_err());
        fs_err::write(&file, "schema = 1\n").unwrap();
        assert!(check().unwrap_err().to_string().contains("missing field `domain`"));
        fs_err::write(&file, "schema = 1\ndomain = \"a.example\"\n").unwrap();
        check().unwrap();
    }
}
