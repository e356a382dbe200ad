//! The command line: clap structs only. Doc comments are the help text.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::export::Format;
use crate::qemu::Firmware;

/// Assembles a bootable Mastodon appliance image
#[derive(Debug, Parser)]
#[command(name = "imgbuild", version, max_term_width = 80, subcommand_required = true)]
#[command(after_help = "`build` is the default: `imgbuild --tag v1.6.1` is `imgbuild build --tag v1.6.1`.")]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
    /// Options of every command
    #[command(flatten)]
    pub global: Global,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Folder with `images` and `overlays` [default: found from here upwards]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub project: Option<PathBuf>,
    /// No progress and no notes; errors and data stay
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Plain lines instead of bars
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// Data on standard output as JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an image and export it
    Build(Build),
    /// Print what a build would do and use
    Plan(Plan),
    /// Pin every package of an image in its image.lock
    Lock(Lock),
    /// Fetch an image's inputs; take them to a machine without network
    Fetch(Fetch),
    /// Build the application alone; take it to another machine
    App(App),
    /// Boot an image in QEMU and leave it running
    Boot(Boot),
    /// Boot an image, wait for its verdict, check it from outside
    Smoke(Smoke),
    /// A root shell in an image's tree
    Shell(Shell),
    /// Show what is in an image
    Inspect(Inspect),
    /// Say in what two images differ
    Diff(Diff),
    /// Check an image or OVA that exists
    Verify(File),
    /// Build an image twice, differently, and compare every byte
    Repro(Repro),
    /// Say which programs this host lacks, and how to install them
    Doctor,
    /// Remove what the store keeps
    Clean(Clean),
}

/// Which image.
#[derive(Debug, Args)]
pub struct Image {
    /// Image: a name below `images`, or a path to a folder [default: the tag's]
    #[arg(long)]
    pub image: Option<String>,
    /// Mastodon tag [default: the image's]
    #[arg(long)]
    pub tag: Option<String>,
    /// Override a key of the recipe, such as machine.cpus=4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Take packages from here, such as debian=URL
    #[arg(long = "mirror", value_name = "NAME=URL")]
    pub mirror: Vec<String>,
    /// Also accept RPM packages signed by this public key, such as centos=FILE
    #[arg(long = "key", value_name = "NAME=FILE")]
    pub key: Vec<String>,
    /// Mastodon's source: a Git URL, a clone, or a tar [default: its own repository]
    #[arg(long, value_name = "WHERE")]
    pub source: Option<String>,
    /// Use only what the store has
    #[arg(long)]
    pub offline: bool,
}

/// `imgbuild build`.
#[derive(Debug, Args)]
pub struct Build {
    /// Which image
    #[command(flatten)]
    pub image: Image,
    /// Formats to export [default: the recipe's]
    #[arg(long, value_delimiter = ',')]
    pub format: Vec<Format>,
    /// Folder for the artifacts
    #[arg(long, default_value = "dist")]
    pub output: PathBuf,
    /// A ready-made application layer, from `app export`, instead of building it
    #[arg(long, value_name = "FILE")]
    pub app: Option<PathBuf>,
    /// A ready-made `appliance` program instead of building it
    #[arg(long, value_name = "FILE")]
    pub appliance: Option<PathBuf>,
    /// Sign the OVA with this RSA key (PEM)
    #[arg(long, value_name = "FILE", requires = "sign_cert")]
    pub sign_key: Option<PathBuf>,
    /// The key's certificate, then those of its issuers (PEM)
    #[arg(long, value_name = "FILE", requires = "sign_key")]
    pub sign_cert: Option<PathBuf>,
}

/// `imgbuild repro`.
#[derive(Debug, Args)]
pub struct Repro {
    /// Which image
    #[command(flatten)]
    pub image: Image,
    /// Formats to export and compare [default: the recipe's]
    #[arg(long, value_delimiter = ',')]
    pub format: Vec<Format>,
    /// Build the first image anew too, instead of from the store
    #[arg(long)]
    pub fresh: bool,
    /// Where the second build works [default: in the store]
    #[arg(long, value_name = "FOLDER")]
    pub work: Option<PathBuf>,
    /// A ready-made application layer, from `app export`, for both
    #[arg(long, value_name = "FILE")]
    pub app: Option<PathBuf>,
    /// A ready-made `appliance` program for both
    #[arg(long, value_name = "FILE")]
    pub appliance: Option<PathBuf>,
}

/// `imgbuild plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// Which image
    #[command(flatten)]
    pub image: Image,
}

/// `imgbuild app`.
#[derive(Debug, Args)]
pub struct App {
    /// What to do with it
    #[command(subcommand)]
    pub verb: AppVerb,
}

/// The verbs of `imgbuild app`.
#[derive(Debug, Subcommand)]
pub enum AppVerb {
    /// Write the application's layer into a file for `build --app`
    Export(AppExport),
}

/// `imgbuild app export`.
#[derive(Debug, Args)]
pub struct AppExport {
    /// Which image
    #[command(flatten)]
    pub image: Image,
    /// The file: tar, compressed by zstd
    pub file: PathBuf,
}

/// `imgbuild lock`.
#[derive(Debug, Args)]
pub struct Lock {
    /// Which image
    #[command(flatten)]
    pub image: Image,
}

/// `imgbuild fetch`.
#[derive(Debug, Args)]
pub struct Fetch {
    /// Which image
    #[command(flatten)]
    pub image: Image,
    /// Write everything that the build needs into a folder
    #[arg(long, value_name = "FOLDER", conflicts_with = "import")]
    pub export: Option<PathBuf>,
    /// Take everything from a folder that `--export` wrote
    #[arg(long, value_name = "FOLDER")]
    pub import: Option<PathBuf>,
    /// A ready-made `appliance` program, which you carry yourself, instead of building it
    #[arg(long, value_name = "FILE")]
    pub appliance: Option<PathBuf>,
}

/// `imgbuild boot`, and the machine of `imgbuild smoke`.
#[derive(Debug, Args)]
pub struct Boot {
    /// System disk: raw, qcow2, VMDK or fixed VHD; or an OVA, whose disks and devices are taken
    pub disk: PathBuf,
    /// Data disk [default: FILE-data beside it, if there]
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// First-boot configuration for the guest
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Firmware
    #[arg(long, value_enum, default_value = "bios")]
    pub firmware: Firmware,
    /// Virtual CPUs
    #[arg(long, default_value_t = 2)]
    pub cpus: u32,
    /// Memory in MiB
    #[arg(long, default_value_t = 2048)]
    pub memory: u32,
    /// Write to the disks themselves; without it they stay as they are
    #[arg(long)]
    pub write: bool,
    /// Seconds to wait for the verdict
    #[arg(long, default_value_t = 1800)]
    pub timeout: u64,
}

/// `imgbuild smoke`.
#[derive(Debug, Args)]
pub struct Smoke {
    /// The machine
    #[command(flatten)]
    pub boot: Boot,
    /// Write what happened when, for `inspect --html --boot`
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

/// `imgbuild shell`.
#[derive(Debug, Args)]
pub struct Shell {
    /// Which image
    #[command(flatten)]
    pub image: Image,
    /// Give the shell the host's network
    #[arg(long)]
    pub network: bool,
    /// A ready-made `appliance` program instead of building it
    #[arg(long, value_name = "FILE")]
    pub appliance: Option<PathBuf>,
    /// Command to run instead of a shell
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// `imgbuild inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// Raw disk, qcow2, VMDK or OVA
    pub file: PathBuf,
    /// Show everything, not only what comes first
    #[arg(long)]
    pub all: bool,
    /// Also draw it: one page that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// A boot's record, from `smoke --record`, for the page
    #[arg(long, value_name = "FILE", requires = "html")]
    pub boot: Option<PathBuf>,
}

/// `imgbuild diff`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code 0: no difference; 1: the images differ; 2: they could not be compared. \
    Times of files are not compared: two builds of one tree at different times are equal.")]
pub struct Diff {
    /// Raw disk, qcow2, VMDK or OVA
    pub before: PathBuf,
    /// The other one, of any of these formats
    pub after: PathBuf,
    /// Show every difference, not only the largest of each kind
    #[arg(long)]
    pub all: bool,
}

/// `imgbuild verify`.
#[derive(Debug, Args)]
pub struct File {
    /// Raw disk, qcow2, VMDK or OVA
    pub file: PathBuf,
}

/// `imgbuild clean`.
#[derive(Debug, Args)]
pub struct Clean {
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
}

/// Parses the command line; `build` is put in where no verb is given. Exits by itself on `--help` and on mistakes.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Cli {
    let arguments = with_default_verb(arguments.into_iter().collect());
    match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // clap uses 2 for mistakes on the command line; here those are the user's: 1.
            let code = i32::from(error.use_stderr());
            let _ = error.print();
            #[expect(clippy::exit, reason = "help and usage errors end the program here")]
            std::process::exit(code)
        }
    }
}

fn with_default_verb(mut arguments: Vec<OsString>) -> Vec<OsString> {
    use clap::CommandFactory as _;
    let verbs: Vec<String> =
        Cli::command().get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    let is_verb = |word: &OsString| {
        word.to_str().is_some_and(|word| word == "help" || verbs.iter().any(|verb| verb == word))
    };
    let asks = |word: &OsString| {
        word.to_str().is_some_and(|word| ["--help", "-h", "--version", "-V"].contains(&word))
    };
    let first = arguments.get(1);
    let bare_question = arguments.len() == 2 && first.is_some_and(asks);
    // A word in its place is a verb, perhaps mistyped: clap knows what is near it.
    let names_verb = first.and_then(|word| word.to_str()).is_some_and(|word| !word.starts_with('-'));
    if !bare_question && !names_verb && !arguments.iter().skip(1).any(is_verb) {
        arguments.insert(1, "build".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verb(line: &str) -> String {
        let words = line.split_whitespace().map(OsString::from).collect();
        with_default_verb(words)[1].to_string_lossy().into_owned()
    }

    #[test]
    fn build_is_the_default_verb() {
        assert_eq!(verb("imgbuild --tag v1.6.1"), "build");
        assert_eq!(verb("imgbuild"), "build");
        assert_eq!(verb("imgbuild verfy file"), "verfy");
        assert_eq!(verb("imgbuild --quiet plan"), "--quiet");
        assert_eq!(verb("imgbuild --help"), "--help");
        assert_eq!(verb("imgbuild doctor"), "doctor");
    }

    #[test]
    fn the_definitions_are_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
