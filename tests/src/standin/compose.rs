//! Which RPM packages the files of a Debian root make, shaped like those of CentOS 7 where that matters to a builder.
//!
//! Guarantees: no path is in two packages; every package but `setup` and the release comes after `filesystem`, which comes after
//! `setup`, so owners have their names and links their folders before any file needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use fs_err as fs;

use super::debian::{Index, Package, Version, rpm_name};
use super::spec::Rpm;
use super::tree::{Entry, Kind, Tree, below};

/// The package that says what the system is.
pub(super) const RELEASE: &str = "centos7-stand-in-release";
/// A package that only a file dependency leads to, on a path that `primary` does not list.
pub(super) const DATA: &str = "stand-in-data";
/// Files that Debian's maintainer scripts made.
const GENERATED: &str = "stand-in-generated";
/// Everything that Debian calls essential, as one name.
const CORE: &str = "stand-in-core";

/// Leaves of the root that the repository does without: the other package manager, and a closure that only the real application needs.
const LEFT_OUT: [&str; 3] = ["apt", "ffmpeg", "usr-is-merged"];
/// Who exists: before everything else, so that packages can give their files away.
///
/// Not the shadow files: they belong to a group, which rpm must find there already.
const SETUP: [&str; 4] = ["/etc/passwd", "/etc/group", "/etc/subuid", "/etc/subgid"];
/// Unowned files that are of this one root, of Debian's package manager, or made anew.
const DROPPED: [&str; 22] = [
    "/dev/",
    "/proc/",
    "/run/",
    "/sys/",
    "/tmp/",
    "/etc/.pwd.lock",
    "/etc/apt/",
    "/etc/dpkg/",
    "/etc/hostname",
    "/etc/ld.so.cache",
    "/etc/machine-id",
    "/etc/resolv.conf",
    "/etc/ssh/ssh_host_",
    "/etc/ssl/private/",
    "/usr/share/man/",
    "/var/cache/",
    "/var/lib/apt/",
    "/var/lib/dpkg/",
    "/var/lib/postgresql/",
    "/var/lib/ucf/",
    "/var/lib/systemd/",
    "/var/log/",
];
/// Debian builds of these get the other compression.
pub(super) const XZ: [&str; 5] = ["bash", "coreutils", "libc6", "sed", "zlib1g"];

/// Something new in the root.
#[derive(Debug)]
pub(super) enum Content {
    Folder,
    Text(String),
    Link(&'static str),
}

/// The packages of a repository.
pub(super) struct Composition {
    /// Made of files of the root.
    pub rpms: Vec<Rpm>,
    /// Files that some of them have and the root does not.
    pub new: BTreeMap<String, Content>,
}

/// Composes the packages of a root: those that somebody asked for, the essential ones, and all that they need.
pub(super) fn compose(tree: &Tree, packages: &[Package]) -> Result<Composition> {
    let index = Index::new(packages);
    let left_out = |package: &&Package| !LEFT_OUT.contains(&package.name.as_str());
    let essential = || packages.iter().filter(|package| package.essential);
    let roots = index.leaves()?.into_iter().filter(left_out).chain(essential());
    let kept = index.closure(roots)?;
    let mut rpms = BTreeMap::new();
    for package in packages.iter().filter(|package| kept.contains(package.name.as_str())) {
        let mut rpm = Rpm::new(&rpm_name(&package.name), package.version.clone(), &package.summary);
        rpm.noarch = package.all;
        let requires = index.requirements(package)?.into_iter();
        rpm.requires = requires
            .filter(|(_, other)| other.name != package.name)
            .map(|(text, _)| text)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        rpm.provides.clone_from(&package.provides);
        if rpm.name != package.name {
            rpm.provides.push(format!("{} = {}", package.name, package.version.full()));
        }
        rpms.insert(rpm.name.clone(), rpm);
    }
    let ours = || Version { epoch: 0, upstream: "7".to_owned(), release: "1".to_owned() };
    for (name, summary) in [
        ("filesystem", "Folders that several packages share, and the links of the merged /usr"),
        ("setup", "Users and groups"),
        (GENERATED, "What Debian's maintainer scripts made"),
        (CORE, "Everything that Debian calls essential"),
        ("yum", "dnf under the name of its elder"),
    ] {
        rpms.insert(name.to_owned(), Rpm::new(name, ours(), summary));
    }
    rpms.entry("kernel".to_owned()).or_insert_with(|| Rpm::new("kernel", ours(), "No kernel"));
    assign(tree, packages, &kept, &mut rpms)?;
    drop_dead_links(&mut rpms);
    let mut new = BTreeMap::new();
    shape(&mut rpms, essential(), &mut new)?;
    for rpm in rpms.values_mut().filter(|rpm| !["filesystem", "setup"].contains(&rpm.name.as_str())) {
        rpm.before.push("filesystem".to_owned());
    }
    Ok(Composition { rpms: rpms.into_values().collect(), new })
}

/// Gives every path of the root to a package, or to none.
fn assign(
    tree: &Tree,
    packages: &[Package],
    kept: &BTreeSet<&str>,
    rpms: &mut BTreeMap<String, Rpm>,
) -> Result<()> {
    let mut owners: BTreeMap<&str, Vec<&Package>> = BTreeMap::new();
    for package in packages {
        for path in &package.files {
            owners.entry(path).or_default().push(package);
        }
    }
    let mut folders: BTreeSet<&str> = BTreeSet::new();
    for (path, entry) in tree.entries.iter().filter(|(_, entry)| entry.kind != Kind::Folder) {
        let all = owners.get(path.as_str());
        let owner = all.and_then(|all| all.iter().find(|package| kept.contains(package.name.as_str())));
        let name = if path[1..].find('/').is_none() && entry.kind == Kind::Link && path.len() < 8 {
            // `/bin` and the like; packages have folders of these names.
            "filesystem".to_owned()
        } else if let Some(owner) = owner {
            rpm_name(&owner.name)
        } else if all.is_some() {
            continue;
        } else if let Some(name) = unowned(path) {
            name.to_owned()
        } else {
            continue;
        };
        give(rpms, &name, path, entry)?;
        folders.extend(Path::new(path).ancestors().skip(1).filter_map(Path::to_str));
    }
    for (path, entry) in tree.entries.iter().filter(|(_, entry)| entry.kind == Kind::Folder) {
        // Services want the folder of their log; what is in it stays out.
        let of_logs = path.starts_with("/var/log/");
        let all = owners.get(path.as_str());
        let kept: Vec<_> =
            all.into_iter().flatten().filter(|package| kept.contains(package.name.as_str())).collect();
        let top = !path[1..].contains('/');
        match kept[..] {
            // Mount points among them: they must be there before the package manager runs in the root.
            _ if top => give(rpms, "filesystem", path, entry)?,
            [one] => give(rpms, &rpm_name(&one.name), path, entry)?,
            // What only packages have that stay out stays out with them.
            [] if !folders.contains(path.as_str())
                && (all.is_some() || !of_logs && unowned(path).is_none()) => {}
            _ => give(rpms, "filesystem", path, entry)?,
        }
    }
    Ok(())
}

/// Removes links that scriptlets made for packages that stay out: ldconfig would remove them from the machine.
fn drop_dead_links(rpms: &mut BTreeMap<String, Rpm>) {
    loop {
        let there = |target: &String| {
            let ours = target.starts_with("/usr/") || target.starts_with("/etc/alternatives/");
            !ours || rpms.values().any(|rpm| rpm.files.contains_key(target))
        };
        let files = rpms.get(GENERATED).into_iter().flat_map(|rpm| &rpm.files);
        let dead =
            |(_, entry): &(&String, &Entry)| entry.target.as_ref().is_some_and(|target| !there(target));
        let dead: Vec<String> = files.filter(dead).map(|(path, _)| path.clone()).collect();
        let Some(rpm) = rpms.get_mut(GENERATED).filter(|_| !dead.is_empty()) else { return };
        rpm.files.retain(|path, _| !dead.contains(path));
    }
}

fn give(rpms: &mut BTreeMap<String, Rpm>, name: &str, path: &str, entry: &Entry) -> Result<()> {
    let rpm = rpms.get_mut(name).with_context(|| format!("`{path}` belongs to no package: `{name}`"))?;
    rpm.files.insert(path.to_owned(), entry.clone());
    Ok(())
}

/// The package that takes a path which dpkg does not know; `None` for what an RPM would not carry.
fn unowned(path: &str) -> Option<&'static str> {
    let name = path.rsplit('/').next().unwrap_or_default();
    if DROPPED.iter().any(|start| path.starts_with(start))
        || path.contains("/__pycache__")
        || (path.starts_with("/etc/") && name.ends_with('-'))
    {
        return None;
    }
    let kernel = ["/boot/", "/usr/lib/modules/", "/vmlinuz", "/initrd.img"];
    Some(if kernel.iter().any(|start| path.starts_with(start)) {
        "kernel"
    } else if SETUP.contains(&path) {
        "setup"
    } else {
        GENERATED
    })
}

/// What CentOS has and Debian has not.
fn shape<'a>(
    rpms: &mut BTreeMap<String, Rpm>,
    essential: impl Iterator<Item = &'a Package>,
    new: &mut BTreeMap<String, Content>,
) -> Result<()> {
    // The release names what the system is.
    for path in ["/usr/lib/os-release", "/etc/os-release"] {
        for rpm in rpms.values_mut() {
            rpm.files.remove(path);
        }
    }
    let mut named = |name: &str, change: &mut dyn FnMut(&mut Rpm)| {
        rpms.get_mut(name).map(change).with_context(|| format!("the Debian root has no package `{name}`"))
    };
    named("filesystem", &mut |rpm| rpm.before.push("setup".to_owned()))?;
    named("setup", &mut |rpm| rpm.requires.push("system-release".to_owned()))?;
    named("rpm", &mut |rpm| {
        // Debian's rpm keeps its database in the home of whoever runs it.
        rpm.files.insert("/etc/rpm/macros".to_owned(), Entry::of_root(Kind::File, 0o644));
        new.insert("/etc/rpm/macros".to_owned(), Content::Text("%_dbpath /var/lib/rpm\n".to_owned()));
        // These have no folder of their own in Debian.
        for path in ["/etc/rpm", "/var/lib/rpm"] {
            rpm.files.insert(path.to_owned(), Entry::of_root(Kind::Folder, 0o755));
            new.insert(path.to_owned(), Content::Folder);
        }
    })?;
    let mut dnf = None;
    named("dnf", &mut |rpm| dnf = Some(rpm.version.full()))?;
    named("yum", &mut |rpm| {
        rpm.requires.extend(dnf.iter().map(|version| format!("dnf = {version}")));
        rpm.files.insert("/usr/bin/yum".to_owned(), Entry::of_root(Kind::Link, 0o777));
        new.insert("/usr/bin/yum".to_owned(), Content::Link("dnf"));
    })?;
    let essential: Vec<String> = essential.map(|package| rpm_name(&package.name)).collect();
    named(CORE, &mut |rpm| {
        rpm.requires.extend(essential.iter().cloned());
        rpm.requires.push(GENERATED.to_owned());
    })?;
    named("libc-bin", &mut |rpm| {
        rpm.scripts.push_str("%posttrans -n libc-bin -p /usr/sbin/ldconfig\n");
    })?;
    // In a merged /usr the old names of a shell are nobody's files.
    named("dash", &mut |rpm| rpm.provides.push("/bin/sh".to_owned()))?;
    named("bash", &mut |rpm| rpm.provides.push("/bin/bash".to_owned()))?;
    named(GENERATED, &mut |rpm| {
        let path = "/var/lib/centos7-stand-in";
        rpm.files.insert(path.to_owned(), Entry::of_root(Kind::Folder, 0o755));
        new.insert(path.to_owned(), Content::Folder);
        // As CentOS's packages ask for users: where there is no /dev/null, this would make a file of that name.
        rpm.scripts = format!(
            "%post -n {GENERATED}\n[ -e /etc/passwd ] >/dev/null 2>&1 || exit 1\necho \"%%post ran in $PWD\" >{path}/scriptlet\n"
        );
    })
}

/// One build of the packages that exist twice: `DATA` is newer by its epoch, the release by a number of two digits.
pub(super) fn twice(current: bool) -> Composition {
    let (epoch, data, release) = if current { (1, "1.0", "10") } else { (0, "2.0", "9") };
    let word = if current { "current" } else { "BROKEN: an older build won" };
    let version = |epoch, version: &str, release: &str| Version {
        epoch,
        upstream: version.to_owned(),
        release: format!("{release}.stand_in"),
    };
    let mut new = BTreeMap::new();
    let mut file = |rpm: &mut Rpm, path: &str, content: Content| {
        let kind = match content {
            Content::Folder => Kind::Folder,
            Content::Text(_) => Kind::File,
            Content::Link(_) => Kind::Link,
        };
        rpm.files
            .insert(path.to_owned(), Entry::of_root(kind, if kind == Kind::Folder { 0o755 } else { 0o644 }));
        new.insert(path.to_owned(), content);
    };
    let mut rpm =
        Rpm::new(RELEASE, version(0, "7", release), "A stand-in for CentOS 7, made of files of Debian");
    rpm.provides = ["system-release = 7", "system-release(releasever) = 7", "centos-release = 7"]
        .map(str::to_owned)
        .to_vec();
    rpm.requires = vec!["/usr/share/centos7-stand-in/data".to_owned()];
    let text = format!(
        "NAME=\"CentOS 7 stand-in\"\nPRETTY_NAME=\"CentOS 7 stand-in (files of Debian), {word}\"\nID=centos7-stand-in\nVERSION_ID=7\n"
    );
    file(&mut rpm, "/usr/lib/os-release", Content::Text(text));
    file(&mut rpm, "/etc/os-release", Content::Link("../usr/lib/os-release"));
    file(&mut rpm, "/etc/centos7-stand-in-release", Content::Text(format!("CentOS 7 stand-in, {word}\n")));
    let mut other = Rpm::new(DATA, version(epoch, data, "1"), "Found by a file dependency alone");
    file(&mut other, "/usr/share/centos7-stand-in", Content::Folder);
    file(&mut other, "/usr/share/centos7-stand-in/data", Content::Text(format!("{word}\n")));
    Composition { rpms: vec![rpm, other], new }
}

/// Writes new files below a folder, for rpmbuild.
pub(super) fn write(new: &BTreeMap<String, Content>, folder: &Path) -> Result<()> {
    for (path, content) in new {
        let target = below(folder, path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        match content {
            Content::Folder => fs::create_dir_all(&target)?,
            Content::Text(text) => fs::write(&target, text)?,
            Content::Link(link) => std::os::unix::fs::symlink(link, &target)
                .with_context(|| format!("linking `{}`", target.display()))?,
        }
    }
    Ok(())
}
