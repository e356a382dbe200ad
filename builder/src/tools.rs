//! The host's programs that a build needs: name, minimum version, Debian package. `imgbuild doctor` prints this table.

use std::path::{Path, PathBuf};

use crate::error::Fault;
use crate::exec;

/// One program of the host.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// Its name on the search path.
    pub name: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
    /// What it is for.
    pub purpose: &'static str,
}

const fn tool(name: &'static str, package: &'static str, purpose: &'static str) -> Tool {
    Tool { name, package, purpose }
}

/// Every program that some command starts.
pub const TOOLS: &[Tool] = &[
    tool("mmdebstrap", "mmdebstrap", "makes the Debian base tree"),
    tool("unshare", "util-linux", "gives a build its own mounts, and root rights to an ordinary user"),
    tool("newuidmap", "uidmap", "subordinate user ids for builds by an ordinary user"),
    tool("tar", "tar", "unpacks trees with owners and capabilities"),
    tool("git", "git", "brings the sources of Mastodon, rbenv and of gems that are Git repositories"),
    tool("grub-mkimage", "grub-common", "makes the boot loaders' core images"),
    tool("mke2fs", "e2fsprogs", "makes the root file system out of a tar (1.47.1 or later)"),
    tool("e2fsck", "e2fsprogs", "checks the root file system"),
    tool("mkfs.vfat", "dosfstools", "makes the EFI system partition"),
    tool("mcopy", "mtools", "fills the EFI system partition"),
    tool("qemu-img", "qemu-utils", "converts and checks disk images"),
    tool("qemu-system-x86_64", "qemu-system-x86", "boots images"),
    tool("setpriv", "util-linux", "ends a booted image with imgbuild"),
];

/// Packages that bring files instead of programs.
const FILES: &[(&str, &str)] = &[
    ("/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin"),
    ("/usr/lib/grub/x86_64-efi/kernel.img", "grub-efi-amd64-bin"),
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"),
    ("/usr/share/seabios/bios-256k.bin", "seabios"),
    ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
];

/// Every Debian package of the host that a build or a boot needs, sorted. `cargo ci setup` installs them.
pub fn packages() -> Vec<&'static str> {
    let mut packages: Vec<&str> = TOOLS.iter().map(|tool| tool.package).collect();
    packages.extend(FILES.iter().map(|(_, package)| package));
    // mke2fs loads libarchive at run time to read a tar; no dependency of its package says so.
    packages.push("libarchive13");
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// One line of `imgbuild doctor`.
#[derive(Debug)]
pub struct Finding {
    /// The program or file.
    pub name: String,
    /// Its package.
    pub package: &'static str,
    /// Where it is; `None` when missing.
    pub path: Option<PathBuf>,
}

/// Looks for every tool and file.
pub fn survey() -> Vec<Finding> {
    let tools = TOOLS.iter().map(|tool| Finding {
        name: tool.name.to_owned(),
        package: tool.package,
        path: exec::find(tool.name),
    });
    let files = FILES.iter().map(|(file, package)| Finding {
        name: (*file).to_owned(),
        package,
        path: Path::new(file).exists().then(|| PathBuf::from(file)),
    });
    tools.chain(files).collect()
}

/// An error for the programs of these names that are not there; `Ok` when all are.
pub fn require(names: &[&str]) -> Result<(), Fault> {
    let absent: Vec<&str> = names.iter().copied().filter(|name| exec::find(name).is_none()).collect();
    if absent.is_empty() { Ok(()) } else { Err(missing(&absent)) }
}

/// An error for the files of the build that are not there; those of a boot are asked for by the boot.
pub fn require_files() -> Result<(), Fault> {
    let absent: Vec<_> =
        FILES.iter().filter(|(file, _)| !file.contains("OVMF") && !Path::new(file).exists()).collect();
    if absent.is_empty() {
        return Ok(());
    }
    let list = absent.iter().map(|(file, _)| format!("`{file}`")).collect::<Vec<_>>().join(", ");
    let packages: Vec<&str> = absent.iter().map(|(_, package)| *package).collect();
    Err(Fault::environment(format!("not on this host: {list}")).hint(install_command(&packages)))
}

/// The error for missing programs, with the one command that installs them.
pub fn missing(names: &[&str]) -> Fault {
    let mut packages: Vec<&str> =
        TOOLS.iter().filter(|tool| names.contains(&tool.name)).map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let list = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let fault = Fault::environment(format!("not on this host: {list}"));
    if packages.is_empty() { fault } else { fault.hint(install_command(&packages)) }
}

/// The command that installs packages.
pub fn install_command(packages: &[&str]) -> String {
    format!(
        "install with: apt-get install --no-install-recommends {} (or `cargo ci setup` for everything)",
        packages.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_comes_with_the_command_that_installs_it() {
        let error = anyhow::Error::from(missing(&["mmdebstrap", "mke2fs"]));
        let text = crate::error::render(&error);
        assert!(text.contains("apt-get install --no-install-recommends e2fsprogs mmdebstrap"), "{text}");
    }
}
