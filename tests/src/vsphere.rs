//! An import of an OVA as vSphere's clients do it, into govmomi's vCenter simulator: `ovf/import.go`, compiled by the host's Go with
//! the library of Debian's package.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::exec;

/// Where Debian keeps Go libraries.
const LIBRARIES: &str = "/usr/share/gocode";

/// What became of the machine: `guest_id`, `version`, `cpus`, `memory_mib`, `controllers`, `network_cards`, `networks`, `cd_drives`,
/// `disk_bytes`, `uploaded`, `transport`, `properties`, `configurations`. An error, be it a warning of the import, is an error here.
/// `configuration` is one of the descriptor's, its default when absent. The program and the compiler's cache are kept in `cache`.
pub fn import(ova: &Path, configuration: Option<&str>, cache: &Path) -> Result<Value> {
    let program = compile(cache)?;
    let mut args = vec![ova.as_os_str()];
    args.extend(configuration.map(OsStr::new));
    let said = exec::text(&program.to_string_lossy(), &args)?;
    // Standard output is first; the simulator's chat comes behind it.
    let line = said.lines().next().context("the import said nothing")?;
    serde_json::from_str(line).with_context(|| format!("reading what the import said: {said}"))
}

/// A minute the first time, then a second.
fn compile(cache: &Path) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("ovf/import.go");
    let folder = cache.join("go");
    fs_err::create_dir_all(&folder)?;
    let program = folder.join("import");
    let store = folder.join("cache");
    let environment: [(&str, &OsStr); 6] = [
        // Libraries from the folder alone, none from a network.
        ("GO111MODULE", "off".as_ref()),
        ("GOPATH", LIBRARIES.as_ref()),
        ("GOCACHE", store.as_os_str()),
        // Nothing of C: less to compile, and no gcc.
        ("CGO_ENABLED", "0".as_ref()),
        ("GOFLAGS", "".as_ref()),
        ("GOTELEMETRY", "off".as_ref()),
    ];
    let args = ["build".as_ref(), "-o".as_ref(), program.as_os_str(), source.as_os_str()];
    exec::text_with("go", &args, &environment).context("compiling the import")?;
    Ok(program)
}
