//! The descriptor as a whole, and what the recipe changes in it.

use std::path::Path;

use firstboot::settings::schema::FIELDS;

use super::{Disk, descriptor};
use crate::recipe::Recipe;

/// The demo image's recipe with `--set`.
pub(in crate::export) fn recipe(set: &[String]) -> Recipe {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/demo");
    Recipe::load(&folder, None, set).unwrap()
}

fn disks(bytes: u64, populated: u64) -> Vec<Disk> {
    let disk = |number, capacity| Disk {
        name: format!("demo-v1.6.1-disk{number}.vmdk"),
        bytes,
        capacity,
        populated,
    };
    vec![disk(1, 8 << 30), disk(2, 32 << 30)]
}

fn text(set: &[&str], eula: Option<&str>) -> String {
    let set: Vec<String> = set.iter().map(|set| (*set).to_owned()).collect();
    descriptor(&recipe(&set), "demo-v1.6.1", &disks(400_000_000, 900_000_000), eula)
}

#[test]
fn the_whole_descriptor() {
    insta::assert_snapshot!(text(&[], None));
}

#[test]
fn the_recipe_says_controller_firmware_sizes_and_product() {
    let text = text(
        &[
            "export.controller=lsilogic",
            "export.firmware=efi",
            "machine.cpus=3",
            "machine.memory=3 GiB",
            "machine.vsphere-guest=centos7_64Guest",
            "export.vendor=Example & Sons",
            "export.product-url=https://example.net/a?b&c",
        ],
        Some("Do <not>\nharm.\n"),
    );
    for part in [
        "<rasd:ResourceSubType>lsilogic<",
        "vmw:key=\"firmware\" vmw:value=\"efi\"",
        "ovf:id=\"107\" vmw:osType=\"centos7_64Guest\"",
        "<Vendor>Example &amp; Sons</Vendor>",
        "<ProductUrl>https://example.net/a?b&amp;c</ProductUrl>",
        "<License>Do &lt;not&gt;\nharm.\n</License>",
        "<Description>3 virtual CPUs, 6 GiB of memory</Description>",
        "<Description>6 virtual CPUs, 12 GiB of memory</Description>",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    assert!(!text.contains("VirtualSCSI"));
}

/// What a writer that has to leave room relies on.
#[test]
fn no_descriptor_is_longer_than_that_of_the_largest_disks() {
    let recipe = recipe(&[]);
    let longest = descriptor(&recipe, "demo", &disks(u64::MAX, u64::MAX), None);
    let shortest = descriptor(&recipe, "demo", &disks(0, 0), None);
    // Two numbers of two disks, of 20 digits instead of one.
    assert_eq!(longest.len() - shortest.len(), 4 * 19);
}

#[test]
fn every_setting_is_a_property_that_may_stay_empty() {
    let text = text(&[], None);
    let properties: Vec<&str> = text.lines().filter(|line| line.contains("<Property ")).collect();
    assert_eq!(properties.len(), FIELDS.len());
    for (line, field) in properties.iter().zip(FIELDS) {
        assert!(line.contains(&format!("ovf:key=\"{}\"", field.key())), "{line}");
        assert!(line.contains("ovf:userConfigurable=\"true\""), "{line}");
        assert_eq!(line.contains("ovf:password=\"true\""), field.is_secret(), "{line}");
        assert!(line.contains(&format!("ovf:value=\"{}\"", field.default.unwrap_or_default())), "{line}");
        assert!(!line.contains("MinLen") && !field.key().contains(['.', ':']), "{line}");
        // A word that is not in the list cannot be left alone.
        if line.contains("ValueMap") && field.default.is_none() {
            assert!(line.contains("ValueMap{&quot;&quot;,"), "{line}");
        }
    }
}

#[test]
fn a_licence_is_text_of_the_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = recipe(&["export.eula=eula.txt".to_owned()]);
    folder.path().clone_into(&mut recipe.folder);
    let file = folder.path().join("eula.txt");
    let refused = |recipe: &Recipe| {
        let error = recipe.eula().unwrap_err();
        assert_eq!(crate::error::exit_code(&error), 1);
        error.to_string()
    };
    assert!(refused(&recipe).contains("eula.txt"));
    for (content, part) in [
        (b" \n".to_vec(), "is empty"),
        (b"\xff".to_vec(), "not UTF-8"),
        (vec![b'a'; 300 << 10], "are the limit"),
    ] {
        fs_err::write(&file, content).unwrap();
        assert!(refused(&recipe).contains(part), "{part}");
    }
    fs_err::write(&file, "Do no harm.").unwrap();
    assert_eq!(recipe.eula().unwrap().as_deref(), Some("Do no harm."));
}

#[test]
fn export_keys_outside_their_limits_are_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/demo");
    for (set, part) in [
        ("export.level=13", "key `export.level`: 13 is not 1 to 12"),
        ("export.controller=ide", "unknown variant `ide`"),
        ("export.product-url=example.net", "key `export.product-url`"),
        ("export.eula=../eula", "key `export.eula`"),
    ] {
        let error = Recipe::load(&folder, None, &[set.to_owned()]).unwrap_err();
        assert!(format!("{error:#}").contains(part), "{error:#}");
    }
}
