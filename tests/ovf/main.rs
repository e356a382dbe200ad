//! A package with our descriptor goes through an import that we did not write, in each of its configurations. The disks are empty:
//! the simulator takes no notice of their content. The VM scenario does the same with the package of a whole image.

use std::path::{Path, PathBuf};

use anyhow::Result;
use firstboot::settings::schema::FIELDS;
use imgbuild::export::ovf::{Disk, descriptor};
use imgbuild::recipe::Recipe;
use imgbuild::store::hex;
use serde_json::{Value, json};
use sha2::Digest as _;
use testkit::vsphere;

const STEM: &str = "demo-v1.6.1";
const DISKS: [(u64, usize); 2] = [(8 << 30, 70_000), (32 << 30, 1_536)];

/// Descriptor, manifest and two files of zeros as its disks.
fn package(folder: &Path, set: &[&str], spoil: impl Fn(String) -> String) -> Result<PathBuf> {
    let set: Vec<String> = set.iter().map(|set| (*set).to_owned()).collect();
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/demo");
    let recipe = Recipe::load(&image, None, &set)?;
    let disks: Vec<Disk> = (1..)
        .zip(DISKS)
        .map(|(number, (capacity, bytes))| Disk {
            name: format!("{STEM}-disk{number}.vmdk"),
            bytes: bytes as u64,
            capacity,
            populated: 1 << 20,
        })
        .collect();
    let text = spoil(descriptor(&recipe, STEM, &disks, Some("Do no harm.")));
    let mut members = vec![(format!("{STEM}.ovf"), text.into_bytes())];
    members.extend(disks.iter().zip(DISKS).map(|(disk, (_, bytes))| (disk.name.clone(), vec![0; bytes])));
    let mut manifest = String::new();
    for (name, content) in &members {
        manifest.push_str(&format!("SHA256({name})= {}\n", hex(&sha2::Sha256::digest(content))));
    }
    members.insert(1, (format!("{STEM}.mf"), manifest.into_bytes()));
    let path = folder.join("package.ova");
    let mut archive = tar::Builder::new(fs_err::File::create(&path)?);
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, &*content)?;
    }
    archive.finish()?;
    Ok(path)
}

#[test]
fn govmomi_imports_every_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let import = |set: &[&str], configuration: Option<&str>| -> Value {
        let ova = package(folder.path(), set, |text| text).unwrap();
        let mut machine = vsphere::import(&ova, configuration, cache).unwrap();
        let properties = machine.as_object_mut().unwrap().remove("properties").unwrap();
        let expected: serde_json::Map<String, Value> =
            FIELDS.iter().map(|field| (field.key(), field.default.unwrap_or_default().into())).collect();
        assert_eq!(properties, Value::Object(expected));
        machine
    };
    let small = json!({
        "guest_id": "debian10_64Guest",
        "version": "vmx-13",
        "cpus": 2,
        "memory_mib": 2048,
        "controllers": ["pvscsi"],
        "network_cards": ["vmxnet3"],
        "networks": ["VM Network"],
        "cd_drives": 1,
        "disk_bytes": [8_u64 << 30, 32_u64 << 30],
        "uploaded": [70_000, 1_536],
        "transport": "com.vmware.guestInfo iso",
        "configurations": ["small", "medium", "large"],
    });
    assert_eq!(import(&[], None), small);
    let mut medium = small.clone();
    medium["memory_mib"] = 4096.into();
    assert_eq!(import(&[], Some("medium")), medium);
    let mut large = small;
    large["cpus"] = 4.into();
    large["memory_mib"] = 8192.into();
    large["guest_id"] = "centos7_64Guest".into();
    large["controllers"] = json!(["lsilogic"]);
    let set = ["export.controller=lsilogic", "export.firmware=efi", "machine.vsphere-guest=centos7_64Guest"];
    assert_eq!(import(&set, Some("large")), large);

    // The judge does object when there is something to object to.
    let refused = |from: &str, to: &str| {
        let ova = package(folder.path(), &[], |text| text.replace(from, to)).unwrap();
        vsphere::import(&ova, None, cache).unwrap_err().to_string()
    };
    assert!(
        refused("<rasd:ResourceType>10<", "<rasd:ResourceType>33<").contains("unsupported resource type")
    );
    assert!(
        refused("ovf:size=\"1536\"", "ovf:size=\"1537\"").contains("1536 bytes, the descriptor says 1537")
    );
    assert!(
        refused("</NetworkSection>", "<Network ovf:name=\"2\"/></NetworkSection>")
            .contains("exactly one network")
    );
}
