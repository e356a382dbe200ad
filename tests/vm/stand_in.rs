//! The way from RPM packages to a machine, on the stand-in for CentOS 7's repositories (`testkit::standin`): resolved, verified and
//! installed as CentOS 7 is, judged by the tree's own rpm and dnf, booted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use assert_cmd::Command;
use serde_json::Value;
use testkit::image::Disks;
use testkit::oracle;
use testkit::scenario::say;
use testkit::standin::Kept;

use crate::build::{imgbuild, text};
use crate::site::{IMGBUILD, Site, project};

const LIMIT: Duration = Duration::from_secs(20 * 60);

/// Steps whose time is that of programs of others: initdb and the server's start, Rails' tasks, the start of Rails. An authority is not
/// asked here.
const OF_OTHERS: [&str; 3] = ["postgresql", "database", "units"];

/// Every path that differs from its package in the finished tree, and why. `rpm -Va` must name these and no others.
const CHANGED: &[(&str, &str)] = &[
    ("/etc/group", "users of overlays"),
    ("/etc/gshadow", "users of overlays"),
    ("/etc/passwd", "users of overlays"),
    ("/etc/shadow", "users of overlays"),
    ("/etc/fstab", "written by the builder"),
    ("/etc/default/locale", "replaced by overlays/debian"),
    ("/etc/hosts", "replaced by overlays/debian"),
    ("/etc/nftables.conf", "replaced by overlays/debian"),
    ("/etc/init.d/nginx", "removed by overlays/debian"),
    ("/etc/init.d/postgresql", "removed by overlays/debian"),
    ("/etc/init.d/redis-server", "removed by overlays/debian"),
    ("/etc/nginx/sites-enabled/default", "removed by overlays/debian"),
    ("/etc/systemd/system/multi-user.target.wants/e2scrub_reap.service", "disabled by overlays/debian"),
    ("/etc/systemd/system/multi-user.target.wants/nginx.service", "disabled by overlays/debian"),
    ("/etc/systemd/system/multi-user.target.wants/postgresql.service", "disabled by overlays/debian"),
    ("/etc/systemd/system/multi-user.target.wants/redis-server.service", "disabled by overlays/debian"),
    ("/etc/systemd/system/redis.service", "disabled by overlays/debian"),
    ("/etc/postgresql/15/main", "replaced by overlays/postgresql-debian"),
    ("/etc/postgresql/15/main/conf.d", "replaced by overlays/postgresql-debian"),
    ("/etc/postgresql/15/main/environment", "replaced by overlays/postgresql-debian"),
    ("/etc/postgresql/15/main/pg_ctl.conf", "replaced by overlays/postgresql-debian"),
    ("/etc/postgresql/15/main/pg_hba.conf", "replaced by overlays/postgresql-debian"),
    ("/etc/postgresql/15/main/pg_ident.conf", "replaced by overlays/postgresql-debian"),
    ("/etc/postgresql/15/main/postgresql.conf", "replaced by overlays/postgresql-debian"),
    ("/etc/postgresql/15/main/start.conf", "replaced by overlays/postgresql-debian"),
    ("/proc", "mounted while this looks"),
    ("/run", "mounted while this looks"),
];

/// What dnf of the tree makes of the repository's metadata, which comes on standard input: the transaction for an empty root.
const DNF: &str = r#"
import sys, dnf
base = dnf.Base()
base.conf.installroot, base.conf.cachedir, base.conf.install_weak_deps = "/empty", "/empty/cache", False
base.repos.add_new_repo("repository", base.conf, baseurl=["file:///repository"])
base.fill_sack(load_system_repo=False)
for name in sys.argv[1:]:
    base.install(name)
base.resolve()
for package in base.transaction.install_set:
    print(package.name, package.evr, package.arch)
"#;

/// Questions to the tree, in one shell, because unpacking it takes longer than all of them. Arguments: dnf's program, the names.
const QUESTIONS: &str = r#"
ask() { echo "== $1"; shift; "$@" 2>&1 || true; }
ask verify rpm -Va
ask release cat /etc/os-release
ask scriptlet cat /var/lib/centos7-stand-in/scriptlet
ask yum yum --version
ask kernel rpm -q kernel
ask installed rpm -qa --queryformat '%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE} %{ARCH}\n'
ask recorded cat /usr/lib/appliance/packages
mkdir /repository /empty
tar -x -C /repository
ask dnf python3 -c "$@"
"#;

/// The image, and what its tree answered.
pub struct StandIn {
    repository: Kept,
    disks: Disks,
    /// `name evr architecture` of each package of the image.
    lock: BTreeSet<String>,
    /// The recipe's own names.
    names: Vec<String>,
    answers: Option<BTreeMap<String, Vec<String>>>,
}

/// Built without network: all that it needs is in the repository and in the store.
pub fn image_is_built(site: &mut Site) -> Result<()> {
    let below = project().join("target/stand-in");
    let base = imgbuild::pipeline::base_tree(&project(), "demo")?;
    let repository = Kept::find_or_make(base.tar(), base.key().as_str(), &below)?;
    let folder = below.join("image");
    // Of another recipe or version, its disks would be found too.
    if folder.exists() {
        fs_err::remove_dir_all(&folder)?;
    }
    build_without_network(&repository, &text(&folder))?;
    let disks = Disks::find(&folder)?;
    oracle::image_is_sound(&disks.system)?;
    imgbuild(&["verify", &text(&disks.system)], LIMIT)?;

    let plan: Value = serde_json::from_str(&plan(&repository)?)?;
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = plan["lock"]["package"].as_array().context("the plan has no packages")?;
    let of_image = |package: &&Value| {
        package["trees"].as_array().is_some_and(|trees| trees.iter().any(|tree| tree == "image"))
    };
    let line = |package: &Value| [&package["name"], &package["evr"], &package["arch"]].map(word).join(" ");
    let lock: BTreeSet<String> = packages.iter().filter(of_image).map(line).collect();
    ensure!(lock.len() > 300, "only {} packages are in the lock", lock.len());
    let names = plan["recipe"]["rpm"]["packages"]["stand-in"].as_array().context("the recipe names none")?;
    let names = names.iter().map(word).collect();
    site.stand_in = Some(StandIn { repository, disks, lock, names, answers: None });
    Ok(())
}

/// rpm finds every file as its package has it, but for [`CHANGED`].
pub fn rpm_finds_no_other_changes(site: &mut Site) -> Result<()> {
    let answers = site.stand_in()?.answers()?;
    // `S.5....T.  c /path` or `missing   c /path`; the letter is for configuration files.
    let mut seen = BTreeSet::new();
    for line in &answers["verify"] {
        seen.insert(line.split_whitespace().last().unwrap_or_default());
    }
    let known: BTreeSet<&str> = CHANGED.iter().map(|(path, _)| *path).collect();
    let unknown: Vec<_> = answers["verify"]
        .iter()
        .filter(|line| !known.iter().any(|path| line.ends_with(&format!(" {path}"))))
        .collect();
    ensure!(unknown.is_empty(), "rpm finds what nobody meant to change: {unknown:#?}");
    let unchanged: Vec<_> = known.difference(&seen).collect();
    ensure!(unchanged.is_empty(), "as in their packages, although something else is stated: {unchanged:?}");
    Ok(())
}

/// The current builds won, scriptlets ran, and all three lists of packages are one.
pub fn packages_are_those_of_the_lock(site: &mut Site) -> Result<()> {
    let stand_in = site.stand_in()?;
    let lock = stand_in.lock.clone();
    let answers = stand_in.answers()?;
    let release = answers["release"].join("\n");
    ensure!(release.contains("current") && !release.contains("BROKEN"), "{release}");
    ensure!(answers["scriptlet"] == ["%post ran in /"], "{:?}", answers["scriptlet"]);
    ensure!(answers["yum"].first().is_some_and(|line| line.starts_with("4.")), "{:?}", answers["yum"]);
    ensure!(
        answers["kernel"].len() == 1 && answers["kernel"][0].starts_with("kernel-6."),
        "{:?}",
        answers["kernel"]
    );
    same("rpm's database", &answers["installed"], "the lock", &lock)?;
    let recorded: Vec<String> = answers["recorded"]
        .iter()
        .map(|line| line.strip_suffix(" stand-in").unwrap_or(line).to_owned())
        .collect();
    same("/usr/lib/appliance/packages", &recorded, "the lock", &lock)
}

/// dnf's solver, of which ours knows nothing, comes to the same packages.
pub fn dnf_resolves_the_same(site: &mut Site) -> Result<()> {
    let stand_in = site.stand_in()?;
    let lock = stand_in.lock.clone();
    same("dnf's transaction", &stand_in.answers()?["dnf"], "the lock", &lock)
}

/// By OVMF, which the demo image does not meet.
pub fn smoke_by_ovmf(site: &mut Site) -> Result<()> {
    let system = text(&site.stand_in()?.disks.system);
    let said = imgbuild(
        &["smoke", &system, "--firmware", "uefi", "--timeout", "1200", "--json"],
        Duration::from_secs(25 * 60),
    )?;
    what_first_boot_costs(&serde_json::from_str(&said)?)
}

/// A first boot that nothing disturbed: the seconds of each step, and how much of them is the engine's own.
fn what_first_boot_costs(said: &Value) -> Result<()> {
    let green = said["seconds-to-green"].as_f64().context("smoke does not say when it was green")?;
    let seconds = said["report"]["seconds"].as_object().context("the report has no seconds")?;
    let (mut all, mut own) = (0.0, 0.0);
    for (step, value) in seconds {
        let value = value.as_f64().with_context(|| format!("the seconds of `{step}`: {value}"))?;
        say(&format!("{step:<14} {value:>8.1} s"));
        all += value;
        own += if OF_OTHERS.contains(&step.as_str()) { 0.0 } else { value };
    }
    ensure!(OF_OTHERS.iter().all(|step| seconds.contains_key(*step)) && all < green, "{said}");
    let share = 100.0 * own / all;
    say(&format!(
        "green {green:.1} s after power-on; steps {all:.1} s, the engine's own {own:.1} s: {share:.1} %"
    ));
    Ok(())
}

impl StandIn {
    /// The tree's answers, asked for once.
    fn answers(&mut self) -> Result<&BTreeMap<String, Vec<String>>> {
        if self.answers.is_none() {
            self.answers = Some(self.ask()?);
        }
        self.answers.as_ref().context("there are no answers")
    }

    fn ask(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let metadata = self.metadata()?;
        let mut command = Command::new(IMGBUILD);
        command.args(["shell", "--image", "centos7-stand-in"]).args(self.repository.arguments());
        command.args(["--", "sh", "-c", QUESTIONS, "questions", DNF]).args(&self.names);
        let output = command.write_stdin(metadata).timeout(LIMIT).output()?;
        let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "the shell in the tree ended with {}:\n{out}{err}", output.status);
        let mut answers = BTreeMap::new();
        let mut lines = Vec::new();
        for line in out.lines().rev() {
            match line.strip_prefix("== ") {
                Some(question) => {
                    lines.reverse();
                    answers.insert(question.to_owned(), std::mem::take(&mut lines));
                }
                None => lines.push(line.to_owned()),
            }
        }
        Ok(answers)
    }

    /// The repository's metadata as a tar: dnf resolves without the packages.
    fn metadata(&self) -> Result<Vec<u8>> {
        let folder: PathBuf = self.repository.folder.join("repodata");
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_dir_all("repodata", folder)?;
        Ok(tar.into_inner()?)
    }
}

/// Two lists of packages, with what only one of them has in the error.
fn same(one: &str, packages: &[String], other: &str, lock: &BTreeSet<String>) -> Result<()> {
    let all: BTreeSet<String> = packages.iter().cloned().collect();
    let (more, less): (Vec<_>, Vec<_>) = (all.difference(lock).collect(), lock.difference(&all).collect());
    ensure!(more.is_empty() && less.is_empty(), "only in {one}: {more:?}; only in {other}: {less:?}");
    ensure!(packages.len() == lock.len(), "{one} has {} packages, {other} {}", packages.len(), lock.len());
    Ok(())
}

/// In a network namespace of its own, which has no way out.
fn build_without_network(repository: &Kept, output: &str) -> Result<()> {
    let mut command = Command::new("unshare");
    command.args(["--net", IMGBUILD, "build", "--image", "centos7-stand-in"]).args(repository.arguments());
    let output = command.args(["--format", "qcow2", "--output", output]).timeout(LIMIT).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "building the image ended with {}:\n{said}", output.status);
    Ok(())
}

fn plan(repository: &Kept) -> Result<String> {
    let given = repository.arguments();
    let mut args = vec!["plan", "--json", "--image", "centos7-stand-in"];
    args.extend(given.iter().map(String::as_str));
    imgbuild(&args, LIMIT)
}
