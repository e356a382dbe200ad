//! The rules. Each has a test below that shows it failing.

use std::path::Path;

use super::File;

/// A rule: complaints about the files, none when all is well.
pub type Rule = fn(&[File]) -> Vec<String>;

/// All rules.
pub const RULES: &[Rule] = &[
    short_files,
    headers,
    used_dependencies,
    unknown_keys_refused,
    changelog_names_the_version,
    nothing_unfinished,
    no_ignored_tests,
    no_foreign_names,
    readme_commands_exist,
];

const LINES: usize = 600;

/// No Rust file is longer than what can be read in one sitting.
fn short_files(files: &[File]) -> Vec<String> {
    let count = |file: &File| file.text.lines().count();
    rust(files)
        .filter(|file| count(file) > LINES)
        .map(|file| format!("{}: {} lines, at most {LINES}", file.path, count(file)))
        .collect()
}

/// Every Rust file starts by saying what it is.
fn headers(files: &[File]) -> Vec<String> {
    rust(files)
        .filter(|file| !file.text.starts_with("//!"))
        .map(|file| format!("{}: does not start with a `//!` header", file.path))
        .collect()
}

/// Every dependency of the workspace says what it is for and is used by a member.
fn used_dependencies(files: &[File]) -> Vec<String> {
    let Some(workspace) = files.iter().find(|file| file.path == "Cargo.toml") else { return Vec::new() };
    let section = section(&workspace.text, "[workspace.dependencies]");
    let members: Vec<&File> = files.iter().filter(|file| file.path.ends_with("/Cargo.toml")).collect();
    let mut complaints = Vec::new();
    for line in section.lines() {
        let Some((name, _)) = line.split_once(" = ") else { continue };
        if !line.contains("# ") {
            complaints.push(format!("Cargo.toml: `{name}` has no comment that says what it is for"));
        }
        let uses = [format!("\n{name}.workspace = true"), format!("\n{name} = {{ workspace = true")];
        if !members.iter().any(|member| uses.iter().any(|usage| member.text.contains(usage))) {
            complaints.push(format!("Cargo.toml: no member uses `{name}`"));
        }
    }
    complaints
}

/// A misspelt key in a file is an error, not silence. Replies of other programs may grow keys: they say so in a comment on the
/// line before, `// foreign: …`.
fn unknown_keys_refused(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in rust(files) {
        let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
        for (number, line) in lines.iter().enumerate() {
            if !(line.starts_with("#[derive(") && line.contains("Deserialize")) {
                continue;
            }
            // From the comment above the attributes to the brace of the struct; enums and newtypes have no keys.
            let end =
                lines[number..].iter().position(|line| !line.starts_with("#[") && !line.starts_with("//"));
            let end = number + end.unwrap_or(0);
            let is_struct = lines[end].contains("struct ") && lines[end].ends_with('{');
            let start =
                lines[..number].iter().rposition(|line| !line.starts_with("//") && !line.starts_with("#["));
            let about = &lines[start.map_or(0, |start| start + 1)..end];
            // Read out of a single string, a struct has no keys either.
            let strict = |line: &str| line.contains("deny_unknown_fields") || line.contains("try_from = ");
            let good = about.iter().any(|line| strict(line) || line.starts_with("// foreign: "));
            if is_struct && !good {
                complaints.push(format!(
                    "{}:{}: no `deny_unknown_fields` and no `// foreign: …`",
                    file.path,
                    number + 1
                ));
            }
        }
    }
    complaints
}

/// The changelog has a section for the version that is being built.
fn changelog_names_the_version(files: &[File]) -> Vec<String> {
    let text = |path: &str| files.iter().find(|file| file.path == path).map_or("", |file| &*file.text);
    let version =
        text("Cargo.toml").lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    let Some(version) = version else {
        return vec!["Cargo.toml: no `version` in `[workspace.package]`".to_owned()];
    };
    let found = text("CHANGELOG.md").lines().any(|line| line.starts_with("## ") && line.contains(version));
    if found { Vec::new() } else { vec![format!("CHANGELOG.md: no section for {version}")] }
}

/// What is not done is an issue, not a comment.
fn nothing_unfinished(files: &[File]) -> Vec<String> {
    let marks =
        [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X:"].concat(), ["to", "do!"].concat()];
    // As words: `MASTODON` is finished.
    let found = |line: &str, mark: &str| {
        let inside = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let mut places = line.match_indices(mark);
        places.any(|(at, _)| {
            !inside(line[..at].chars().next_back()) && !inside(line[at + mark.len()..].chars().next())
        })
    };
    search(files, &marks, found, "unfinished")
}

/// A test that does not run proves nothing.
fn no_ignored_tests(files: &[File]) -> Vec<String> {
    let files: Vec<File> = rust(files).cloned().collect();
    search(&files, &[["#[", "ignore"].concat()], |line, mark| line.contains(mark), "a test is left out")
}

/// Where packages come from is the host's business, and where a developer works is nobody's.
fn no_foreign_names(files: &[File]) -> Vec<String> {
    let hosts = [
        "deb.deb|ian.org",
        "security.deb|ian.org",
        "snapshot.deb|ian.org",
        "registry.np|mjs.org",
        "registry.yar|npkg.com",
    ];
    let more = [
        "static.cra|tes.io",
        "index.cra|tes.io",
        "py|pi.org",
        "files.python|hosted.org",
        "ruby|gems.org",
        "proxy.go|lang.org",
    ];
    let places = ["/ho|me/runner", "/wo|rk/", "/ro|ot/.cargo", "/Us|ers/"];
    // In two halves, so that this file does not find itself.
    let needles: Vec<String> =
        [&hosts[..], &more, &places].concat().iter().map(|half| half.replace('|', "")).collect();
    // The lock file names the registry in cargo's own form.
    let files: Vec<File> = files.iter().filter(|file| file.path != "Cargo.lock").cloned().collect();
    search(&files, &needles, |line, name| line.contains(name), "names a registry or a place on one machine")
}

/// What the README tells people to type exists: `cargo ci …` here, `imgbuild …` in its command line.
fn readme_commands_exist(files: &[File]) -> Vec<String> {
    let text = |path: &str| files.iter().find(|file| file.path == path).map_or("", |file| &*file.text);
    let variants = |source: &str| -> Vec<String> {
        let words = source.lines().map(|line| line.trim().trim_end_matches([',', '{']).trim());
        words.map(|line| line.split('(').next().unwrap_or_default().to_lowercase()).collect()
    };
    let known = [
        ("cargo ci ", variants(text("ci/src/main.rs"))),
        ("imgbuild ", variants(text("builder/src/cli.rs"))),
    ];
    let mut complaints = Vec::new();
    let mut fenced = false;
    for (number, line) in text("README.md").lines().enumerate() {
        fenced ^= line.starts_with("```");
        // Only what is set as code is something to type.
        let typed = if fenced { line } else { line.strip_prefix("    ").unwrap_or_default() };
        for (program, verbs) in &known {
            let Some(verb) = typed
                .trim_start_matches("$ ")
                .strip_prefix(program)
                .and_then(|rest| rest.split_whitespace().next())
            else {
                continue;
            };
            if !verb.starts_with('-') && !verb.starts_with('#') && !verbs.iter().any(|known| known == verb) {
                complaints.push(format!("README.md:{}: `{program}{verb}` does not exist", number + 1));
            }
        }
    }
    complaints
}

fn rust(files: &[File]) -> impl Iterator<Item = &File> {
    files.iter().filter(|file| Path::new(&file.path).extension().is_some_and(|extension| extension == "rs"))
}

fn search(
    files: &[File],
    needles: &[String],
    found: impl Fn(&str, &str) -> bool,
    complaint: &str,
) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            for needle in needles.iter().filter(|needle| found(line, needle)) {
                complaints.push(format!("{}:{}: {complaint}: `{needle}`", file.path, number + 1));
            }
        }
    }
    complaints
}

/// The lines below a TOML table's header.
fn section<'a>(text: &'a str, header: &str) -> &'a str {
    let rest = text.split_once(header).map_or("", |(_, rest)| rest);
    rest.split_once("\n[").map_or(rest, |(section, _)| section)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: Rule, files: &[(&str, &str)], expected: &[&str]) {
        let files: Vec<File> = files
            .iter()
            .map(|(path, text)| File { path: (*path).to_owned(), text: (*text).to_owned() })
            .collect();
        assert_eq!(rule(&files), expected);
    }

    #[test]
    fn long_file() {
        let text = "//! x\n".repeat(601);
        check(short_files, &[("a.rs", &text), ("b.rb", &text)], &["a.rs: 601 lines, at most 600"]);
    }

    #[test]
    fn no_header() {
        check(
            headers,
            &[("a.rs", "//! A.\n"), ("b.rs", "fn b() {}\n")],
            &["b.rs: does not start with a `//!` header"],
        );
    }

    #[test]
    fn unused_dependency() {
        let workspace = "[workspace.dependencies]\na = \"1\" # for a\nb = { version = \"1\" }\nc = \"1\" # for c\n\n[profile.dev]\nd = 1\n";
        let member = "[dependencies]\na.workspace = true\nc = { workspace = true, optional = true }\n";
        let complaints =
            ["Cargo.toml: `b` has no comment that says what it is for", "Cargo.toml: no member uses `b`"];
        check(used_dependencies, &[("Cargo.toml", workspace), ("x/Cargo.toml", member)], &complaints);
    }

    #[test]
    fn unknown_keys() {
        let loose = "//! A.\n\n/// A.\n#[derive(Deserialize)]\npub struct A {\n    a: u8,\n}\n";
        let strict = "//! A.\n#[derive(Debug, Deserialize)]\n#[serde(deny_unknown_fields)]\nstruct A {\n}\n";
        let foreign = "//! A.\n// foreign: QMP may say more\n#[derive(Deserialize)]\nstruct A {\n}\n";
        let no_keys = "//! A.\n#[derive(Deserialize)]\nenum A {\n}\n#[derive(Deserialize)]\nstruct B(u8);\n";
        let files = [("a.rs", loose), ("b.rs", strict), ("c.rs", foreign), ("d.rs", no_keys)];
        check(unknown_keys_refused, &files, &["a.rs:4: no `deny_unknown_fields` and no `// foreign: …`"]);
    }

    #[test]
    fn version_missing_in_changelog() {
        let cargo = ("Cargo.toml", "[workspace.package]\nversion = \"0.2.0\"\n");
        check(changelog_names_the_version, &[cargo, ("CHANGELOG.md", "## 0.2.0\n")], &[]);
        check(
            changelog_names_the_version,
            &[cargo, ("CHANGELOG.md", "## 0.1.0\n")],
            &["CHANGELOG.md: no section for 0.2.0"],
        );
    }

    #[test]
    fn unfinished_work() {
        let text = format!("//! A of MAS{mark}N.\n// {mark}: later\n", mark = ["TO", "DO"].concat());
        check(
            nothing_unfinished,
            &[("a.rs", &text)],
            &[&format!("a.rs:2: unfinished: `{}`", ["TO", "DO"].concat())],
        );
    }

    #[test]
    fn ignored_test() {
        let mark = ["#[", "ignore"].concat();
        let text = format!("//! A.\n{mark} = \"slow\"]\n");
        check(
            no_ignored_tests,
            &[("a.rs", &text), ("a.md", &text)],
            &[&format!("a.rs:2: a test is left out: `{mark}`")],
        );
    }

    #[test]
    fn registry_and_machine() {
        let host = ["py", "pi.org"].concat();
        let expected = format!("a.toml:1: names a registry or a place on one machine: `{host}`");
        check(no_foreign_names, &[("a.toml", &host), ("Cargo.lock", &host)], &[&expected]);
    }

    #[test]
    fn command_that_does_not_exist() {
        let readme = "imgbuild builds.\n\n    cargo ci demo     # all\n    cargo ci tset\n```\nimgbuild --tag v1\nimgbuild biuld\n```\n";
        let cli = "enum Verb {\n    /// Build\n    Build(BuildArgs),\n}\n";
        let files = [
            ("README.md", readme),
            ("ci/src/main.rs", "    Demo {\n    Test,\n"),
            ("builder/src/cli.rs", cli),
        ];
        check(
            readme_commands_exist,
            &files,
            &["README.md:4: `cargo ci tset` does not exist", "README.md:7: `imgbuild biuld` does not exist"],
        );
    }
}
