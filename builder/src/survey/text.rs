//! A survey and a difference as lines of text: what a person wants to know first on one screen, the rest when asked for.

use std::fmt::Write as _;

use super::difference::{Change, Difference};
use super::ext4::Kind;
use super::{Folder, Package, Password, Survey};

/// Lines of a list on the first screen.
const FIRST: usize = 8;
/// Lines of a list of differences.
const DIFFERENCES: usize = 20;

/// Bytes for people: three digits, decimal units.
pub fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut units = ["kB", "MB", "GB", "TB", "PB", "EB"].into_iter();
    let mut unit = "";
    // What rounds to 1000 belongs to the next unit.
    while value >= 999.5
        && let Some(next) = units.next()
    {
        (value, unit) = (value / 1000.0, next);
    }
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$} {unit}")
}

/// A difference of bytes, with its sign.
pub fn delta(before: u64, after: u64) -> String {
    match after.checked_sub(before) {
        Some(more) => format!("+{}", size(more)),
        None => format!("-{}", size(before - after)),
    }
}

/// A number with thin groups of three: `61 234`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `1 package`, `2 packages`.
fn counted(number: usize, noun: &str) -> String {
    format!("{} {noun}{}", count(number as u64), if number == 1 { "" } else { "s" })
}

// OK in what follows: writing to a String cannot fail.

/// The survey of one image; `all` adds every unit, account, package and program with rights.
pub fn survey(survey: &Survey, all: bool) -> String {
    let mut out = String::new();
    let file = &survey.file;
    let _ = writeln!(out, "{}", survey.title.as_deref().unwrap_or("not made by imgbuild"));
    let _ = writeln!(out, "{}", survey.system);
    let kind = format!("{:?}", file.kind).to_lowercase();
    let _ = writeln!(
        out,
        "{}: {kind}, {}, {} on this host's disk",
        super::shown(file.name.as_bytes()),
        size(file.apparent),
        size(file.allocated)
    );
    if !survey.software.is_empty() {
        let _ = writeln!(out, "\nsoftware");
        if let Some(tag) = &survey.tag {
            let _ = writeln!(out, "  {:<12} {tag}", "Mastodon");
        }
        for software in &survey.software {
            let _ = writeln!(out, "  {:<12} {}", software.name, software.version);
        }
    }
    partitions(survey, &mut out);
    files(survey, &mut out);
    let _ = writeln!(out, "\nlargest folders");
    for (path, folder) in survey.sizes.largest(2).iter().take(if all { 60 } else { FIRST }) {
        let _ = writeln!(out, "  {:>8}  {path}", size(folder.bytes));
    }
    packages(survey, all, &mut out);
    guest(survey, all, &mut out);
    out
}

fn partitions(survey: &Survey, out: &mut String) {
    let _ = writeln!(out, "\n{:<14} {:>8} {:>8} {:>8}", "partitions", "size", "used", "free");
    for partition in &survey.partitions {
        let system = partition.file_system.as_ref();
        let column = |bytes: Option<u64>| bytes.map(size).unwrap_or_default();
        let kind = system.map(|system| format!(", {}", system.kind)).unwrap_or_default();
        let unclean = system.and_then(|system| system.ext4.as_ref()).is_some_and(|ext4| !ext4.clean);
        let _ = writeln!(
            out,
            "  {:<12} {:>8} {:>8} {:>8}  {}{kind}{}",
            partition.name,
            size(partition.bytes),
            column(system.map(|system| system.used)),
            column(system.map(|system| system.free)),
            partition.purpose,
            if unclean { ", not shut down in order: what its journal holds is not shown" } else { "" }
        );
    }
}

fn files(survey: &Survey, out: &mut String) {
    let names = |kind| survey.files.names.get(&kind).copied().unwrap_or(0);
    let shared = match survey.files.shared {
        0 => String::new(),
        bytes => format!("; hard links save {}", size(bytes)),
    };
    let _ = writeln!(
        out,
        "\nfiles\n  {} files, {} links, {} folders\n  {} on the image's disk for {} of content{shared}",
        count(names(Kind::File)),
        count(names(Kind::Link)),
        count(names(Kind::Folder)),
        size(survey.files.allocated),
        size(survey.files.apparent),
    );
}

fn packages(survey: &Survey, all: bool, out: &mut String) {
    let mut packages: Vec<&Package> = survey.packages.iter().collect();
    let sized = packages.iter().any(|package| package.bytes.is_some());
    packages.sort_by_key(|package| std::cmp::Reverse(package.bytes));
    let shown = if all {
        packages.len()
    } else if sized {
        FIRST
    } else {
        0
    };
    let head = if sized && !packages.is_empty() { ", largest first" } else { "" };
    let _ = writeln!(out, "\n{}{head}", counted(packages.len(), "package"));
    for package in packages.into_iter().take(shown) {
        let bytes = package.bytes.map(size).unwrap_or_default();
        let _ = writeln!(out, "  {bytes:>8}  {} {}", package.name, package.version);
    }
}

fn guest(survey: &Survey, all: bool, out: &mut String) {
    let _ = writeln!(out, "\n{} enabled", counted(survey.units.len(), "unit"));
    if all {
        for unit in &survey.units {
            let _ = writeln!(out, "  {:<40} {}", unit.name, unit.wanted_by.join(" "));
        }
    } else {
        let names: Vec<&str> =
            survey.units.iter().map(|unit| unit.name.trim_end_matches(".service")).collect();
        wrap(&names, out);
    }
    let open: Vec<&str> = survey
        .accounts
        .iter()
        .filter(|account| account.password != Password::Locked)
        .map(|account| account.name.as_str())
        .collect();
    let passwords = if open.is_empty() {
        "none can log in by password".to_owned()
    } else {
        format!("by password: {}", open.join(" "))
    };
    let _ = writeln!(out, "\n{}, {passwords}", counted(survey.accounts.len(), "account"));
    if all {
        for account in &survey.accounts {
            let password = match account.password {
                Password::Locked => "",
                Password::Set => "has a password",
                Password::Empty => "EMPTY password",
            };
            let _ = writeln!(
                out,
                "  {:>6} {:<20} {:<28} {:<20} {password}",
                account.uid, account.name, account.home, account.shell
            );
        }
    }
    let _ =
        writeln!(out, "{} with setuid, setgid or capabilities", counted(survey.privileged.len(), "program"));
    if all {
        for program in &survey.privileged {
            let _ = writeln!(
                out,
                "  {} {:>5}:{:<5} {}  {}",
                program.mode,
                program.uid,
                program.gid,
                program.path,
                program.rights.join(" ")
            );
        }
    }
}

/// Words in lines of at most 80 columns, indented.
fn wrap(words: &[&str], out: &mut String) {
    let mut column = 80;
    for (index, word) in words.iter().enumerate() {
        let width = word.chars().count() + 1;
        if column + width > 79 {
            out.push_str(if index == 0 { " " } else { "\n " });
            column = 1;
        }
        out.push(' ');
        out.push_str(word);
        column += width;
    }
    if !words.is_empty() {
        out.push('\n');
    }
}

/// What two images differ in; `all` shows every file.
pub fn difference(difference: &Difference, all: bool) -> String {
    let mut out = String::new();
    let width = [&difference.before, &difference.after]
        .map(|side| side.name.chars().count())
        .into_iter()
        .max()
        .unwrap_or(0);
    for (mark, side) in [('-', &difference.before), ('+', &difference.after)] {
        let kind = format!("{:?}", side.kind).to_lowercase();
        let _ = writeln!(
            out,
            "{mark} {:<width$}  {kind}, {}, {}",
            super::shown(side.name.as_bytes()),
            size(side.bytes),
            side.title
        );
    }
    if difference.is_none() {
        let _ = writeln!(
            out,
            "\nno difference: {}, {}, {}",
            counted(difference.compared.partitions, "partition"),
            counted(difference.compared.packages, "package"),
            counted(difference.compared.files, "file")
        );
        return out;
    }
    list(&mut out, all, "partition", &difference.partitions, |change| {
        (change.change, format!("{}: {}", change.name, change.what.join(", ")))
    });
    list(&mut out, all, "package", &difference.packages, |package| {
        let versions = match (&package.before, &package.after) {
            (Some(before), Some(after)) => format!("{before} -> {after}"),
            (one, other) => one.as_ref().or(other.as_ref()).cloned().unwrap_or_default(),
        };
        (package.change, format!("{:<32} {versions}", package.name))
    });
    list(&mut out, all, "unit", &difference.units, |unit| {
        let targets = match unit.change {
            Change::Changed => format!("{} -> {}", unit.before.join(" "), unit.after.join(" ")),
            Change::Removed => unit.before.join(" "),
            Change::Added => unit.after.join(" "),
        };
        (unit.change, format!("{:<40} {targets}", unit.name))
    });
    // A folder that is new or gone stands for all in it.
    let tops: Vec<_> = difference.files.iter().filter(|file| !file.inside).collect();
    list(&mut out, all, "file", &tops, |file| {
        let below = if file.below > 0 {
            format!(" with {}", counted(usize::try_from(file.below).unwrap_or(usize::MAX), "file"))
        } else {
            String::new()
        };
        let what = if file.what.is_empty() { String::new() } else { format!("  {}", file.what.join(", ")) };
        (file.change, format!("{:>8}  {}{below}{what}", size(file.effect), file.path))
    });
    if !difference.sizes.is_empty() {
        let _ = writeln!(out, "\nsize by folder");
        for folder in difference.sizes.iter().take(if all { usize::MAX } else { DIFFERENCES }) {
            let _ = writeln!(
                out,
                "  {:>9}  {:>8} -> {:<8}  {}",
                delta(folder.before, folder.after),
                size(folder.before),
                size(folder.after),
                folder.path
            );
        }
    }
    out
}

fn list<T>(out: &mut String, all: bool, noun: &str, items: &[T], line: impl Fn(&T) -> (Change, String)) {
    if items.is_empty() {
        return;
    }
    let lines: Vec<(Change, String)> = items.iter().map(line).collect();
    let number = |wanted: Change| lines.iter().filter(|(change, _)| *change == wanted).count();
    let parts: Vec<String> =
        [(Change::Added, "new"), (Change::Removed, "gone"), (Change::Changed, "changed")]
            .into_iter()
            .filter(|(change, _)| number(*change) > 0)
            .map(|(change, word)| format!("{} {word}", count(number(change) as u64)))
            .collect();
    let _ = writeln!(out, "\n{noun}s: {}", parts.join(", "));
    let limit = if all { usize::MAX } else { DIFFERENCES };
    for (change, text) in lines.iter().take(limit) {
        let mark = match change {
            Change::Added => '+',
            Change::Removed => '-',
            Change::Changed => '~',
        };
        let _ = writeln!(out, "  {mark} {}", text.trim_end());
    }
    if lines.len() > limit {
        let _ = writeln!(out, "  ... and {} more: --all shows them", count((lines.len() - limit) as u64));
    }
}

/// The last line of `inspect`.
pub const MORE: &str = "everything: --all or --json; as a picture: --html FILE";

/// Used by the page too: a folder's size and what is in it, in words.
pub fn folder_words(folder: &Folder) -> String {
    format!(
        "{}, {}",
        size(folder.bytes),
        counted(usize::try_from(folder.files).unwrap_or(usize::MAX), "file")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units_and_three_digits() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (99_949, "99.9 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (1_530_000_000, "1.53 GB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(u64::MAX), "18.4 EB");
        assert_eq!(delta(2000, 500), "-1.50 kB");
        assert_eq!([count(7), count(1234), count(1_234_567)], ["7", "1 234", "1 234 567"]);
    }

    #[test]
    fn words_are_wrapped() {
        let mut out = String::new();
        wrap(&["a"; 50], &mut out);
        assert_eq!(out.lines().count(), 2);
        assert!(out.lines().all(|line| line.len() <= 80 && line.starts_with("  a")));
    }
}
