//! Unpacks a foreign tar into a folder of the host: no path leaves the folder, nothing goes through a link, nothing is without limit.

use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fs_err as fs;
use tar::EntryType;

use crate::tree::path::{TreePath, of_member};

/// Members of one archive.
const MEMBERS: u64 = 200_000;
/// Bytes of all files of one archive.
const BYTES: u64 = 2 << 30;

/// Unpacks files, folders and symbolic links; the one folder that everything lies in is left out of the names. Messages are about
/// the archive, whose name the caller adds.
pub fn stripped(input: impl Read, target: &Path) -> Result<(), String> {
    let mut links: Vec<(TreePath, String)> = Vec::new();
    let (mut members, mut bytes) = (0, 0);
    let mut top: Option<String> = None;
    let mut archive = tar::Archive::new(input);
    let broken = |error: std::io::Error| format!("it is not a whole tar: {error}");
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader | EntryType::XHeader) {
            continue;
        }
        members += 1;
        bytes += entry.size();
        if members > MEMBERS || bytes > BYTES {
            return Err(format!("it has more than {MEMBERS} members or {} GiB", BYTES >> 30));
        }
        let path = entry.path_bytes();
        let name = std::str::from_utf8(&path).map_err(|_| "a name in it is not UTF-8".to_owned())?;
        let path = of_member(name)?;
        let (first, rest) = path.as_str()[1..].split_once('/').unwrap_or((&path.as_str()[1..], ""));
        if top.get_or_insert_with(|| first.to_owned()) != first {
            return Err(format!(
                "it must hold one folder, but has both `{}` and `{first}`",
                top.unwrap_or_default()
            ));
        }
        let path: TreePath = format!("/{rest}").parse()?;
        let place = target.join(&path.as_str()[1..]);
        let failed = |error: std::io::Error| error.to_string();
        match kind {
            EntryType::Directory => fs::create_dir_all(&place).map_err(failed)?,
            EntryType::Regular | EntryType::Continuous if !rest.is_empty() => {
                fs::create_dir_all(place.parent().unwrap_or(target)).map_err(failed)?;
                let mut file =
                    fs::OpenOptions::new().write(true).create_new(true).open(&place).map_err(failed)?;
                std::io::copy(&mut entry, &mut file).map_err(broken)?;
                let executable = entry.header().mode().unwrap_or(0) & 0o100 != 0;
                let mode = if executable { 0o755 } else { 0o644 };
                fs::set_permissions(&place, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
            }
            EntryType::Symlink if !rest.is_empty() => {
                let link = entry.link_name_bytes().unwrap_or_default();
                let link = std::str::from_utf8(&link).map_err(|_| "a link in it is not UTF-8".to_owned())?;
                if !stays_inside(&path, link) {
                    return Err(format!("its link `{name}` points outside: `{link}`"));
                }
                links.push((path, link.to_owned()));
            }
            _ => return Err(format!("its member `{name}` is neither file, folder nor symbolic link")),
        }
    }
    if members == 0 {
        return Err("it is empty".to_owned());
    }
    // Last, so that no file was written through one of them.
    for (path, link) in links {
        let place = target.join(&path.as_str()[1..]);
        fs::create_dir_all(place.parent().unwrap_or(target)).map_err(|error| error.to_string())?;
        fs::os::unix::fs::symlink(&link, &place).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn stays_inside(path: &TreePath, link: &str) -> bool {
    if link.starts_with('/') {
        return false;
    }
    let mut depth = path.as_str().matches('/').count().saturating_sub(1);
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." if depth == 0 => return false,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Member<'a> {
        File(&'a str, &'a str),
        Link(&'a str, &'a str),
        Hard(&'a str, &'a str),
    }

    fn tar(members: &[Member<'_>]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for member in members {
            let mut header = tar::Header::new_ustar();
            let (name, kind, link, content) = match member {
                Member::File(name, content) => (name, EntryType::Regular, "", *content),
                Member::Link(name, link) => (name, EntryType::Symlink, *link, ""),
                Member::Hard(name, link) => (name, EntryType::Link, *link, ""),
            };
            // By hand: the writer would refuse the names that are tried here.
            header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.as_ustar_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(kind);
            header.set_mode(0o755);
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn unpacks_below_one_folder() {
        let temp = tempfile::tempdir().unwrap();
        let bytes = tar(&[
            Member::File("m-1.0/bin/x", "#!"),
            Member::Link("m-1.0/y", "bin/x"),
            Member::File("m-1.0/.ruby-version", "2.4.1\n"),
        ]);
        stripped(&bytes[..], temp.path()).unwrap();
        assert_eq!(fs::read_to_string(temp.path().join("y")).unwrap(), "#!");
        assert_eq!(fs::metadata(temp.path().join("bin/x")).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn refuses_what_would_leave_the_folder() {
        for (members, expected) in [
            (vec![Member::File("m/../../x", "")], "component"),
            (vec![Member::File("/etc/x", "")], "absolute"),
            (vec![Member::Link("m/a", "/etc"), Member::File("m/a/x", "")], "points outside"),
            (vec![Member::Link("m/a", "../../etc")], "points outside"),
            (vec![Member::Link("m/a", "b"), Member::File("m/a/x", "")], "File exists"),
            (vec![Member::Hard("m/a", "/etc/passwd")], "neither file"),
            (vec![Member::File("m/a", ""), Member::File("n/a", "")], "one folder"),
            (vec![Member::File("m/a", ""), Member::File("m/a", "")], "File exists"),
        ] {
            let temp = tempfile::tempdir().unwrap();
            let error = stripped(&tar(&members)[..], temp.path()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(
            stripped(&tar(&[Member::File("m/a", "x")])[..700], tempfile::tempdir().unwrap().path()).is_err()
        );
    }
}
