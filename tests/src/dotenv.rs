//! The genuine parsers of `.env.production`: Ruby's dotenv, as Debian has it, and Node's in the version that v1.6.1's yarn.lock names.
//!
//! Debian has no package of the latter: `cargo ci setup` fetches it by [`PACKAGE`] from the npm registry of the host, checks it by
//! [`SHA256`] and unpacks it into [`folder`].

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::exec;

/// The npm package.
pub const PACKAGE: &str = "dotenv@4.0.0";
/// Of its tar; the SHA-1 of the same file is the one in v1.6.1's yarn.lock.
pub const SHA256: &str = "811af006e79733e5f06a82710c43e5d564a0d07f7a9a8d6f245901faf17cd3ab";

/// What a file says: names and values.
pub type Variables = BTreeMap<String, String>;

/// As `Dotenv::Railtie` reads files: `true` is for loading. A file at which Mastodon would not even start says nothing.
const RUBY: &str = "def read(file) = Dotenv::Environment.new(file, true).to_h\n\
    rescued = ->(file) { begin; read(file); rescue Dotenv::FormatError; {}; end }\n\
    puts JSON.generate(ARGV.map(&rescued))";
/// As `dotenv.config` reads files.
const NODE: &str = "const [dotenv, ...files] = process.argv.slice(1); \
    const read = (file) => require(dotenv).parse(require('fs').readFileSync(file, { encoding: 'utf8' })); \
    console.log(JSON.stringify(files.map(read)))";

/// Where the npm package lies: in the store of imgbuild, which is found as imgbuild finds it.
pub fn folder() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || {
        let home = || from("HOME").map(|home| home.join(".cache"));
        from("XDG_CACHE_HOME").or_else(home).unwrap_or_else(|| PathBuf::from("/var/cache/.cache"))
    };
    from("IMGBUILD_STORE").unwrap_or_else(|| cache().join("imgbuild")).join("tools/dotenv/package")
}

/// Files as Ruby reads them.
pub fn ruby(files: &[PathBuf]) -> Result<Vec<Variables>> {
    let script = ["-rjson", "-rdotenv", "-e", RUBY].map(OsStr::new);
    read("ruby", &script, files)
}

/// Files as Node reads them.
pub fn node(files: &[PathBuf]) -> Result<Vec<Variables>> {
    let folder = folder();
    ensure!(folder.is_dir(), "`{}` is not there: `cargo ci setup` fetches npm's {PACKAGE}", folder.display());
    read("node", &["-e".as_ref(), NODE.as_ref(), "--".as_ref(), folder.as_os_str()], files)
}

fn read(program: &str, script: &[&OsStr], files: &[PathBuf]) -> Result<Vec<Variables>> {
    let args: Vec<&OsStr> =
        script.iter().copied().chain(files.iter().map(|file| Path::as_os_str(file))).collect();
    let said = exec::text(program, &args)?;
    serde_json::from_str(&said).with_context(|| format!("reading what `{program}` said: {said:?}"))
}
