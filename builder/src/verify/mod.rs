//! `DiskImage`, `Artifact`s -> `Verified`: named checks, and other people's programs reading every artifact back.
//!
//! A check that could not run is an error; a check that found something is a finding. Only an image without findings is verified.
//! The format of a file comes first (`package`: the rules of OVA, VMDK and qcow2), the content of its disk second.

mod boot;
mod formats;
mod machine;
pub mod package;
mod system;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::context::Context;
use crate::disk::DiskImage;
use crate::error::Fault;
use crate::export::{Draft, Format};
use crate::recipe::Recipe;
use crate::view::{Kind, View, kind};

use self::package::{Outcome, Readable, Verdict};

/// One check.
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// What goes wrong on a machine when it fails.
    pub why: &'static str,
    /// Returns what is wrong, nothing when all is well.
    pub run: fn(&View, &Context) -> Result<Vec<String>>,
}

/// Every check of a disk, in order.
pub const CHECKS: &[Check] = &[
    Check { name: "file-system", why: "a damaged root file system stops the boot", run: boot::file_system },
    Check { name: "bios-boot", why: "without GRUB's code a BIOS finds no system", run: boot::bios_boot },
    Check {
        name: "uefi-boot",
        why: "without a loader on the ESP UEFI finds no system",
        run: boot::uefi_boot,
    },
    Check { name: "fstab", why: "a wrong root entry stops the boot", run: boot::fstab },
    Check {
        name: "grub-cfg",
        why: "GRUB must find the kernel, and the kernel its root",
        run: boot::grub_cfg,
    },
    Check {
        name: "initrd-drivers",
        why: "a disk controller without a driver is no disk",
        run: boot::initrd_drivers,
    },
    Check {
        name: "nic-drivers",
        why: "a network card without a driver is no network",
        run: boot::nic_drivers,
    },
    Check {
        name: "machine-state",
        why: "what belongs to one machine must not be shared by all",
        run: machine::state,
    },
    Check {
        name: "private-keys",
        why: "a key in the image is known to everybody",
        run: machine::private_keys,
    },
    Check { name: "accounts", why: "a password in the image is known to everybody", run: machine::accounts },
    Check {
        name: "first-boot",
        why: "without it the image never becomes an instance",
        run: system::first_boot,
    },
    Check {
        name: "units",
        why: "a service that starts before its data is there makes its own",
        run: system::units,
    },
];

/// The result of one check.
#[derive(Debug, serde::Serialize)]
pub struct Finding {
    /// The check.
    pub check: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// What is wrong.
    pub wrong: Vec<String>,
}

/// The proof that a disk passed every check.
#[derive(Debug)]
pub struct Verified(());

/// Runs every check on an opened image.
pub fn findings(view: &View, context: &Context) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for check in CHECKS {
        context.reporter.doing(check.name);
        let wrong = (check.run)(view, context).with_context(|| format!("running check `{}`", check.name))?;
        // Paths and words of a stranger's disk must not steer the terminal.
        let shown = |text: &String| {
            let lines: Vec<String> = text.lines().map(|line| crate::survey::shown(line.as_bytes())).collect();
            lines.join("\n")
        };
        let wrong = wrong.iter().map(shown).collect();
        findings.push(Finding { check: check.name, why: check.why, wrong });
    }
    Ok(findings)
}

/// The checks on the disk that a build made; any finding fails the build.
pub fn disk(disk: &DiskImage, context: &Context) -> Result<Verified> {
    let view = View::open(disk.path(), context)?;
    refuse(&findings(&view, context)?)?;
    Ok(Verified(()))
}

/// The proof that other programs read every draft back as the disk that it was made from.
#[derive(Debug)]
pub struct ReadBack(());

/// Has other programs read every draft back and compare it with the disk that it was made from.
pub fn drafts(
    recipe: &Recipe,
    drafts: &[Draft],
    disk: &DiskImage,
    _: &Verified,
    context: &Context,
) -> Result<ReadBack> {
    let scratch = context.store.scratch()?;
    let data = scratch.path().join("data.raw");
    fs_err::File::create(&data)?.set_len(recipe.image.disk.data.bytes())?;
    for draft in drafts {
        context.reporter.doing(&draft.path().display().to_string());
        let mut wrong = match draft.format() {
            Format::Qcow2 => broken(&package::examine(draft.temp(), Kind::Qcow2, context)?.verdicts),
            Format::Ova => broken(&package::examine(draft.temp(), Kind::Ova, context)?.verdicts),
            Format::Raw | Format::Vhd | Format::Domain => Vec::new(),
        };
        let source = if draft.is_data_disk() { &data } else { disk.path() };
        match draft.format() {
            Format::Raw => wrong.extend(formats::compare(draft.temp(), "raw", source, context)?),
            Format::Qcow2 => wrong.extend(formats::compare(draft.temp(), "qcow2", source, context)?),
            Format::Vhd => wrong.extend(formats::compare(draft.temp(), "vpc", source, context)?),
            Format::Ova => wrong.extend(formats::package(draft.temp(), &[disk.path(), &data], context)?),
            // No disk. Its schema is libvirt's, and the tests hold it against that.
            Format::Domain => {}
        }
        // Nobody's fault but our writer's: no `Fault`.
        ensure!(wrong.is_empty(), "`{}` reads back wrong: {}", draft.path().display(), wrong.join("; "));
    }
    Ok(ReadBack(()))
}

/// The rules that something refuses a file for, as a build says them.
fn broken(verdicts: &[Verdict]) -> Vec<String> {
    let wrong = verdicts.iter().filter(|verdict| verdict.outcome == Outcome::Wrong);
    wrong.map(|verdict| format!("{}: {}", verdict.rule.name, verdict.found.join(", "))).collect()
}

/// What is said of a file.
#[derive(Debug)]
pub struct Answer {
    /// Of its format.
    pub rules: Vec<Verdict>,
    /// Of its disk's content.
    pub content: Content,
}

/// What is said of a disk's content.
#[derive(Debug)]
pub enum Content {
    /// Every check ran.
    Checked(Vec<Finding>),
    /// It was not looked at, and why not.
    Unchecked(String),
    /// It could not be read, though the format is sound.
    Failed(anyhow::Error),
}

/// The rules of the file's format, then every check on the content of a disk that is laid out as imgbuild's.
pub fn file(path: &Path, context: &Context) -> Result<Answer> {
    let kind = kind(path)?;
    if kind == Kind::Qcow2 {
        crate::tools::require(&["qemu-img"])?;
    }
    context.reporter.doing("rules of the format");
    let examined = package::examine(path, kind, context)?;
    let answered = match examined.content {
        Readable::No(reason) => Content::Unchecked(reason),
        Readable::Failed(error) => Content::Failed(error),
        Readable::Yes => match content(path, context) {
            Ok(findings) => Content::Checked(findings),
            Err(error) => Content::Failed(error),
        },
    };
    Ok(Answer { rules: examined.verdicts, content: answered })
}

fn content(path: &Path, context: &Context) -> Result<Vec<Finding>> {
    crate::tools::require(&["qemu-img", "e2fsck", "mdir"])?;
    findings(&View::open(path, context)?, context)
}

/// An error that lists what was found; `Ok` when nothing was.
pub fn refuse(findings: &[Finding]) -> Result<()> {
    let mut message = String::new();
    for finding in findings {
        for wrong in &finding.wrong {
            message.push_str(&format!("\n  {}: {wrong} ({})", finding.check, finding.why));
        }
    }
    if message.is_empty() {
        Ok(())
    } else {
        Err(Fault::user(format!("the image fails its checks:{message}")).into())
    }
}
