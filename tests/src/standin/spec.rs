//! RPM packages out of a folder of files, made by rpmbuild: one run and one spec file for many packages.
//!
//! Nothing is derived from the files: names, dependencies, owners and modes are what the caller says.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use fs_err as fs;

use super::debian::Version;
use super::tree::{Entry, Kind};
use crate::exec;

/// How the files inside a package are compressed: one level, for speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload {
    Gzip,
    Xz,
}

/// A package to be.
#[derive(Debug, Clone)]
pub(super) struct Rpm {
    pub name: String,
    pub version: Version,
    pub noarch: bool,
    pub summary: String,
    pub requires: Vec<String>,
    /// What must be installed before this package.
    pub before: Vec<String>,
    pub provides: Vec<String>,
    /// Sections of the spec file: `%post -n … `.
    pub scripts: String,
    pub files: BTreeMap<String, Entry>,
}

impl Rpm {
    /// A package without files or dependencies.
    pub fn new(name: &str, version: Version, summary: &str) -> Rpm {
        Rpm {
            name: name.to_owned(),
            version,
            noarch: true,
            summary: summary.to_owned(),
            requires: Vec::new(),
            before: Vec::new(),
            provides: Vec::new(),
            scripts: String::new(),
            files: BTreeMap::new(),
        }
    }
}

/// Builds packages out of the files below `root` into `packages`; `scratch` must be a new folder.
pub(super) fn build(
    rpms: &[&Rpm],
    payload: Payload,
    root: &Path,
    packages: &Path,
    scratch: &Path,
) -> Result<()> {
    fs::create_dir_all(scratch)?;
    let mut spec = String::from(
        "Name: stand-in\nVersion: 1\nRelease: 1\nSummary: Stand-in packages\nLicense: various\n%description\nNever built.\n",
    );
    for (number, rpm) in rpms.iter().enumerate() {
        let list = scratch.join(format!("files-{number}"));
        fs::write(&list, file_list(&rpm.files))?;
        spec.push_str(&section(rpm, &list));
    }
    let file = scratch.join("stand-in.spec");
    fs::write(&file, spec)?;
    let payload = match payload {
        Payload::Gzip => "w1.gzdio",
        Payload::Xz => "w1.xzdio",
    };
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a folder's name is not UTF-8");
    let defines = [
        format!("_topdir {}", text(scratch)?),
        format!("_builddir {}", text(scratch)?),
        format!("_rpmdir {}", text(packages)?),
        format!("_dbpath {}", text(scratch)?),
        "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm".to_owned(),
        format!("_binary_payload {payload}"),
        // The files are as they shall be: nothing is stripped, compiled, linked or looked for.
        "__os_install_post %{nil}".to_owned(),
        "__check_files %{nil}".to_owned(),
        "_build_id_links none".to_owned(),
        "_binaries_in_noarch_packages_terminate_build 0".to_owned(),
        "_buildhost stand-in".to_owned(),
        "vendor The test kit: a stand-in, not CentOS".to_owned(),
    ];
    let root = text(root)?;
    // Without --noclean, rpmbuild removes the root.
    let mut args =
        vec!["-bb", "--quiet", "--noclean", "--nodeps", "--target", "x86_64-linux", "--buildroot", &root];
    for define in &defines {
        args.extend(["--define", define]);
    }
    let file = text(&file)?;
    args.push(&file);
    exec::text("rpmbuild", &args)?;
    Ok(())
}

/// The part of a spec file that describes a package.
fn section(rpm: &Rpm, list: &Path) -> String {
    let name = &rpm.name;
    let mut text = format!(
        "\n%package -n {name}\nSummary: {}\nVersion: {}\nRelease: {}\nAutoReqProv: no\n",
        rpm.summary.replace('%', "%%"),
        rpm.version.upstream,
        rpm.version.release
    );
    if rpm.version.epoch > 0 {
        text.push_str(&format!("Epoch: {}\n", rpm.version.epoch));
    }
    if rpm.noarch {
        text.push_str("BuildArch: noarch\n");
    }
    for (tag, values) in
        [("Requires", &rpm.requires), ("Requires(pre)", &rpm.before), ("Provides", &rpm.provides)]
    {
        for value in values {
            text.push_str(&format!("{tag}: {value}\n"));
        }
    }
    text.push_str(&format!("%description -n {name}\nA stand-in for tests, made of files of Debian.\n"));
    text.push_str(&rpm.scripts);
    // A list without a line is an error to rpmbuild.
    let list = if rpm.files.is_empty() { String::new() } else { format!(" -f {}", list.display()) };
    text.push_str(&format!("%files -n {name}{list}\n"));
    text
}

/// Lines of a `%files` section. Between quotes only `%` is special, and rpmbuild expands a line three times.
fn file_list(files: &BTreeMap<String, Entry>) -> String {
    let mut text = String::new();
    for (path, entry) in files {
        let (owner, group) = (&entry.owner, &entry.group);
        let line = match entry.kind {
            Kind::Folder => format!("%dir %attr({:04o}, {owner}, {group})", entry.mode),
            Kind::Link => format!("%attr(-, {owner}, {group})"),
            Kind::File => {
                let config = if path.starts_with("/etc/") { "%config(noreplace) " } else { "" };
                let capabilities =
                    entry.capabilities.as_ref().map_or(String::new(), |text| format!(" %caps({text})"));
                format!("{config}%attr({:04o}, {owner}, {group}){capabilities}", entry.mode)
            }
        };
        text.push_str(&format!("{line} \"{}\"\n", path.replace('%', &"%".repeat(8))));
    }
    text
}
