//! SMBIOS structures of type 11, "OEM strings": texts that a hypervisor hands to its guest with the firmware's tables.
//!
//! Ours begin with `mastodon.`; all others belong to others. `mastodon.config=` is a whole file, `mastodon.config.base64=` one in
//! Base64 or gzip and Base64, and of several of the latter one text is made, in their order: firmware bounds the length of a string.
//! `mastodon.KEY=value` is one setting, its value written as in a property of the OVA. Only root can read the tables in the guest, so
//! secrets may stand there.
//!
//! Format: DMTF DSP0134, sections 6.1.3 (text strings) and 7.12 (OEM strings).

use std::path::Path;

use anyhow::{Result, anyhow, bail};

use super::words::Words;
use super::{Offer, Wrong, accept, read_bytes};
use crate::exec::Run;

/// Where the kernel's `dmi-sysfs` shows the structures; readable by root alone.
const ENTRIES: &str = "/sys/firmware/dmi/entries";
/// What the operator knows it as.
pub(super) const SOURCE: &str = "SMBIOS type 11";
/// No machine has more structures of this type; each may have 255 strings.
const MOST_STRUCTURES: usize = 64;

/// What the strings offer: the whole file, and single settings.
pub(super) fn look(root: &Path) -> Result<Vec<Offer>> {
    let folder = root.join(&ENTRIES[1..]);
    if root == Path::new("/") && !folder.exists() {
        // A machine without these tables, or a kernel without the module, simply has no such channel.
        Run::new("modprobe", &["-q", "dmi-sysfs"]).succeeds();
    }
    let Ok(entries) = fs_err::read_dir(&folder) else { return Ok(Vec::new()) };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut numbers: Vec<u16> =
        names.filter_map(|name| name.strip_prefix("11-").and_then(|number| number.parse().ok())).collect();
    numbers.sort_unstable();
    let mut strings = Vec::new();
    for number in numbers.into_iter().take(MOST_STRUCTURES) {
        if let Some(structure) = read_bytes(&folder.join(format!("11-{number}/raw")), SOURCE)? {
            strings.extend(read(&structure)?);
        }
    }
    offers(&strings)
}

/// The strings of one structure with its header.
pub(super) fn read(structure: &[u8]) -> Result<Vec<Vec<u8>>> {
    let damaged =
        || anyhow!("{SOURCE}: the table of the firmware is damaged: start the virtual machine again");
    let [kind, length, _, _, count, ..] = *structure else { return Err(damaged()) };
    if kind != 11 {
        return Err(damaged());
    }
    let mut rest = structure.get(usize::from(length).max(5)..).ok_or_else(damaged)?;
    let mut strings = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let end = rest.iter().position(|byte| *byte == 0).ok_or_else(damaged)?;
        strings.push(rest[..end].to_vec());
        rest = &rest[end + 1..];
    }
    Ok(strings)
}

/// What the strings of all structures offer.
pub(super) fn offers(strings: &[Vec<u8>]) -> Result<Vec<Offer>> {
    let mut words = Words::new(SOURCE);
    for string in strings {
        let Some(word) = string.strip_prefix(b"mastodon.") else { continue };
        let Some(word) = accept(word.to_vec(), &format!("{SOURCE}: a string that begins with `mastodon.`"))?
        else {
            continue;
        };
        let Some((key, value)) = word.split_once('=') else {
            bail!(Wrong(format!(
                "{SOURCE}: a string begins with `mastodon.`, but has no `=`: write `mastodon.KEY=value` or \
                 `mastodon.config=…`"
            )));
        };
        words.say(key, value)?;
    }
    words.offers()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::super::packed::BASE64;
    use super::super::readers::tests::{gzip, structure};
    use super::*;

    fn said(strings: &[&[u8]]) -> Vec<String> {
        let strings = read(&structure(strings)).unwrap();
        match offers(&strings) {
            Ok(offers) => offers.into_iter().map(|offer| offer.text).collect(),
            Err(error) => vec![format!("{error:#}")],
        }
    }

    #[test]
    fn a_file_arrives_in_every_form() {
        let text = "schema = 1\ndomain = \"a.example\"\n";
        let packed = BASE64.encode(gzip(text.as_bytes()));
        let (first, second) = packed.split_at(20);
        assert_eq!(
            said(&[b"io.systemd.credential:a=b", b"mastodon.config=schema = 1\ndomain = \"a.example\"\n"]),
            [text]
        );
        assert_eq!(said(&[format!("mastodon.config.base64={}", BASE64.encode(text)).as_bytes()]), [text]);
        let parts = [format!("mastodon.config.base64={first}"), format!("mastodon.config.base64={second}")];
        assert_eq!(said(&[parts[0].as_bytes(), b"other", parts[1].as_bytes()]), [text]);
        assert_eq!(said(&[b"", b"Dell System", b"www.example.net"]), Vec::<String>::new());
        assert_eq!(said(&[b"mastodon.config=", b"mastodon.hostname=null"]), Vec::<String>::new());
    }

    /// Out of the memory of a machine with `-smbios type=11,value=mastodon.network.dns=2001:db8::53,,192.0.2.53,value=other,path=FILE`.
    #[test]
    fn the_structure_of_qemu_is_read() {
        let structure = b"\x0b\x05\x00\x0e\x03mastodon.network.dns=2001:db8::53,192.0.2.53\0other\0mastodon.config=schema = 1\n\
                          domain = \"a.example\"\n\0\0";
        let offers = offers(&read(structure).unwrap()).unwrap();
        assert_eq!(offers[0].text, "schema = 1\ndomain = \"a.example\"\n");
        assert_eq!(offers[1].text, "schema = 1\n\n[network]\ndns = [\"2001:db8::53\", \"192.0.2.53\"]\n");
    }

    #[test]
    fn single_settings_come_after_the_file() {
        let said = said(&[
            b"mastodon.mail.password=a, b",
            b"mastodon.web.listen=ipv6",
            b"mastodon.config=domain = \"a.example\"",
        ]);
        assert_eq!(
            said,
            [
                "domain = \"a.example\"",
                "schema = 1\n\n[mail]\npassword = \"a, b\"\n\n[web]\nlisten = \"ipv6\"\n"
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named_without_the_value() {
        for (strings, part) in [
            (&[&b"mastodon.domian=hunter2"[..]][..], "unknown key `domian`"),
            (&[b"mastodon.config.base64=hunter2!"], "is no base64"),
            (&[b"mastodon.config.base64=H4sIAAAAAAAA"], "is no base64"),
            (&[b"mastodon.hunter2"], "has no `=`"),
            (&[b"mastodon.mail.port=hunter2"], "must be a number"),
            (&[b"mastodon.config=a = 1", b"mastodon.config.base64=YSA9IDE="], "both"),
            (&[b"mastodon.config=a = 1", b"mastodon.config=b = 1"], "twice"),
            (&[b"mastodon.domain=a.example", b"mastodon.domain=b.example"], "twice"),
            (&[b"mastodon.domain=\xff"], "not UTF-8"),
        ] {
            let message = said(strings).concat();
            assert!(message.starts_with(SOURCE) && message.contains(part), "{message}");
            assert!(!message.contains("hunter2") || part.contains("unknown"), "{message}");
        }
    }

    #[test]
    fn a_damaged_table_is_refused() {
        let good = structure(&[b"one", b"two"]);
        assert_eq!(read(&good).unwrap(), [b"one", b"two"]);
        for damaged in [
            &good[..3],
            &good[..8],
            &[11, 5, 0, 0, 3, b'a', 0][..],
            &[12, 5, 0, 0, 0, 0, 0],
            &[11, 200, 0, 0, 1, 0, 0],
        ] {
            assert!(read(damaged).unwrap_err().to_string().contains("damaged"), "{damaged:?}");
        }
        let root = tempfile::tempdir().unwrap();
        for (number, text) in [("10", "mastodon.domain=b.example"), ("9", "mastodon.hostname=a")] {
            let folder = root.path().join(format!("sys/firmware/dmi/entries/11-{number}"));
            fs_err::create_dir_all(&folder).unwrap();
            fs_err::write(folder.join("raw"), structure(&[text.as_bytes()])).unwrap();
        }
        let offers = look(root.path()).unwrap();
        assert_eq!(offers[0].text, "domain = \"b.example\"\nhostname = \"a\"\nschema = 1\n");
    }
}
