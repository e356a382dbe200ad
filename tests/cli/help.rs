//! Help that fits a terminal, and data that a program can read.

use testkit::sandbox::Sandbox;

use crate::{imgbuild, project};

const VERBS: [&str; 14] = [
    "build", "plan", "lock", "fetch", "app", "boot", "smoke", "shell", "inspect", "diff", "verify", "repro",
    "doctor", "clean",
];

#[test]
fn every_help_fits_80_columns() {
    let sandbox = Sandbox::new().unwrap();
    for arguments in std::iter::once(vec!["--help"]).chain(VERBS.iter().map(|verb| vec![*verb, "--help"])) {
        let output = imgbuild(&sandbox).args(&arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{arguments:?}: {line}");
        }
    }
}

#[test]
fn the_verbs() {
    let sandbox = Sandbox::new().unwrap();
    let output = imgbuild(&sandbox).arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for verb in VERBS {
        assert!(text.contains(&format!("\n  {verb} ")), "{verb} is not in the help:\n{text}");
    }
}

#[test]
fn plan_is_data_and_touches_no_network() {
    let sandbox = Sandbox::new().unwrap();
    let mirror = "debian=http://127.0.0.1:9/debian";
    let output = imgbuild(&sandbox)
        .args(["plan", "--image", "demo", "--json", "--mirror", mirror, "--set", "machine.cpus=4"])
        .output()
        .unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["recipe"]["machine"]["cpus"], 4);
    assert_eq!(plan["mirrors"][0][0], "http://127.0.0.1:9/debian");
}

#[test]
fn every_key_of_the_demo_is_documented() {
    let readme = fs_err::read_to_string(project().join("images/README.md")).unwrap();
    let recipe: toml::Table =
        toml::from_str(&fs_err::read_to_string(project().join("images/demo/image.toml")).unwrap()).unwrap();
    for (key, value) in &recipe {
        match value.as_table() {
            Some(table) if key != "guest" => {
                for inner in table.keys() {
                    assert!(
                        readme.contains(&format!("`{key}.{inner}`")),
                        "{key}.{inner} is not in images/README.md"
                    );
                }
            }
            Some(table) => {
                for inner in table.keys() {
                    assert!(
                        readme.contains(&format!("`{key}.{inner}.*`")),
                        "{key}.{inner} is not in images/README.md"
                    );
                }
            }
            None => assert!(readme.contains(&format!("`{key}`")), "{key} is not in images/README.md"),
        }
    }
}

#[test]
fn the_configurations_of_the_readme_are_valid() {
    let readme = fs_err::read_to_string(project().join("README.md")).unwrap();
    let blocks: Vec<&str> =
        readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        firstboot::settings::Settings::parse("README.md", block).unwrap();
    }
}
