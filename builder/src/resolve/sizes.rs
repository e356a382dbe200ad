//! How much a Debian tree will occupy, by its package lists: the packages named, all that is essential, and what they depend on.
//!
//! An estimate for the forecast of space, not a resolver: of two versions the larger counts, and of alternatives the first one that
//! there is. mmdebstrap's apt decides; the lists are found by digests of an index whose signature apt checks later.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead, BufReader, Read};

use anyhow::{Result, ensure};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::release::Release;
use crate::context::Context;
use crate::fetch::{Fetcher, Wanted};

/// Longest package list that is read, in bytes: Debian's own has 50 MB.
const LIST_LIMIT: u64 = 512 << 20;
/// Longest line of one.
const LINE_LIMIT: u64 = 1 << 20;

/// Bytes of a tree's packages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// To fetch.
    pub download: u64,
    /// Once installed.
    pub installed: u64,
}

/// What the lists say of packages.
#[derive(Debug, Default)]
pub struct Lists {
    packages: BTreeMap<String, Package>,
    /// Who provides a virtual package.
    providers: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Default)]
struct Package {
    sizes: Sizes,
    is_essential: bool,
    /// Each is fulfilled by any of its names.
    depends: Vec<Vec<String>>,
}

impl Lists {
    /// Fetches and reads the lists of a suite's components.
    pub fn add(
        &mut self,
        uri: &str,
        suite: &str,
        components: &[String],
        release: &Release,
        context: &Context,
    ) -> Result<()> {
        for component in components {
            let path = format!("{component}/binary-amd64/Packages.xz");
            let Some(digest) = release.digest(&path) else { continue };
            let file = Fetcher::new(context).file(&Wanted {
                name: format!("the package list of {suite}"),
                origin: format!("mirror `{uri}`"),
                urls: vec![format!("{}/dists/{suite}/{path}", uri.trim_end_matches('/'))],
                size: None,
                sha256: digest.to_owned(),
            })?;
            let unpacked = liblzma::read::XzDecoder::new(fs::File::open(file)?);
            self.read(BufReader::new(unpacked.take(LIST_LIMIT)))?;
        }
        Ok(())
    }

    fn read(&mut self, mut list: impl BufRead) -> Result<()> {
        let mut name = String::new();
        let mut package = Package::default();
        let mut provides = Vec::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            let count = list.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line)?;
            ensure!((count as u64) < LINE_LIMIT, "a package list has a line of more than {LINE_LIMIT} bytes");
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            if text.is_empty() {
                self.insert(std::mem::take(&mut name), std::mem::take(&mut package), &provides);
                provides.clear();
                if count == 0 {
                    return Ok(());
                }
                continue;
            }
            let Some((key, value)) = text.split_once(": ") else { continue };
            match key {
                "Package" => value.clone_into(&mut name),
                "Essential" => package.is_essential = value == "yes",
                "Size" => package.sizes.download = value.parse().unwrap_or(0),
                // In KiB.
                "Installed-Size" => {
                    package.sizes.installed = value.parse::<u64>().unwrap_or(0).saturating_mul(1024);
                }
                "Depends" | "Pre-Depends" => package.depends.extend(dependencies(value)),
                "Provides" => provides = dependencies(value).into_iter().flatten().collect(),
                _ => {}
            }
        }
    }

    fn insert(&mut self, name: String, package: Package, provides: &[String]) {
        if name.is_empty() {
            return;
        }
        for provided in provides {
            self.providers.entry(provided.clone()).or_default().push(name.clone());
        }
        let known = self.packages.get(&name);
        if known.is_none_or(|known| known.sizes.installed <= package.sizes.installed) {
            self.packages.insert(name, package);
        }
    }

    /// The sizes of the packages named, of what is essential, of apt, and of all that these depend on.
    pub fn closure(&self, named: &[String]) -> Sizes {
        let essential =
            self.packages.iter().filter(|(_, package)| package.is_essential).map(|(name, _)| name.as_str());
        let mut queue: VecDeque<&str> =
            essential.chain(["apt"]).chain(named.iter().map(String::as_str)).collect();
        let mut taken: BTreeSet<&str> = BTreeSet::new();
        let mut sizes = Sizes::default();
        while let Some(name) = queue.pop_front() {
            let Some((name, package)) = self.packages.get_key_value(name) else { continue };
            if !taken.insert(name) {
                continue;
            }
            sizes.download += package.sizes.download;
            sizes.installed += package.sizes.installed;
            for names in &package.depends {
                // What is taken or will be is no second one.
                let is_there = |name: &str| taken.contains(name) || queue.contains(&name);
                let provided =
                    |name: &String| self.providers.get(name).into_iter().flatten().map(String::as_str);
                if names.iter().any(|name| is_there(name) || provided(name).any(is_there)) {
                    continue;
                }
                let real = names.iter().map(String::as_str).find(|name| self.packages.contains_key(*name));
                queue.extend(real.or_else(|| names.iter().find_map(|name| provided(name).next())));
            }
        }
        sizes
    }
}

/// `libc6 (>= 2.36), mawk | awk:any` as lists of names.
fn dependencies(text: &str) -> Vec<Vec<String>> {
    let name = |text: &str| text.trim().split([' ', '(', ':', '[']).next().unwrap_or_default().to_owned();
    text.split(',')
        .map(|group| group.split('|').map(name).filter(|name| !name.is_empty()).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
Package: base-files\nEssential: yes\nSize: 10\nInstalled-Size: 1\nPre-Depends: awk\n
Package: mawk\nProvides: awk\nSize: 20\nInstalled-Size: 2\n
Package: gawk\nProvides: awk (= 1.0)\nSize: 9000\nInstalled-Size: 900\n
Package: apt\nSize: 40\nInstalled-Size: 4\nDepends: libc6 (>= 2.36), mail | base-files:any\n
Package: libc6\nSize: 80\nInstalled-Size: 8\nDepends: libc6\n
Package: nginx\nSize: 160\nInstalled-Size: 16\nDepends: not-there, gone | libc6\n
Package: unwanted\nSize: 7000\nInstalled-Size: 700\n";

    fn lists(text: &str) -> Lists {
        let mut lists = Lists::default();
        lists.read(text.as_bytes()).unwrap();
        lists
    }

    #[test]
    fn what_is_named_essential_or_needed_counts_once() {
        let lists = lists(LIST);
        assert_eq!(lists.closure(&[]), Sizes { download: 150, installed: 15 << 10 });
        let nginx = ["nginx".to_owned(), "nginx".to_owned(), "unknown".to_owned()];
        assert_eq!(lists.closure(&nginx), Sizes { download: 310, installed: 31 << 10 });
        // Named, it provides what mawk would be taken for.
        assert_eq!(lists.closure(&["gawk".to_owned()]).download, 10 + 9000 + 40 + 80);
    }

    #[test]
    fn of_two_versions_the_larger_counts() {
        let mut lists = lists(LIST);
        lists
            .read(
                "Package: libc6\nSize: 90\nInstalled-Size: 9\n\nPackage: mawk\nSize: 1\nInstalled-Size: 1\n"
                    .as_bytes(),
            )
            .unwrap();
        assert_eq!(lists.closure(&[]), Sizes { download: 160, installed: 16 << 10 });
    }

    #[test]
    fn an_endless_line_is_refused() {
        let text = format!("Package: {}", "x".repeat(usize::try_from(LINE_LIMIT).unwrap()));
        assert!(Lists::default().read(text.as_bytes()).is_err());
    }
}
