//! The disc that vSphere puts into a machine's CD drive when an OVA has the transport `iso`: `ovf-env.xml` with the properties that
//! somebody filled in.

use std::path::Path;

use anyhow::Result;

use crate::exec;

/// Writes an ISO 9660 image with the environment of a machine that has these properties.
pub fn write(image: &Path, properties: &[(String, String)]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs_err::write(folder.path().join("ovf-env.xml"), document(properties))?;
    let options = ["-quiet", "-V", "OVF ENV", "-J", "-r", "-o"].map(AsRef::as_ref);
    exec::text("genisoimage", &[&options[..], &[image.as_os_str(), folder.path().as_os_str()]].concat())?;
    Ok(())
}

fn document(properties: &[(String, String)]) -> String {
    let mut text = String::from(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<Environment
     xmlns="http://schemas.dmtf.org/ovf/environment/1"
     xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
     xmlns:oe="http://schemas.dmtf.org/ovf/environment/1"
     xmlns:ve="http://www.vmware.com/schema/ovfenv"
     oe:id=""
     ve:vCenterId="vm-1034">
   <PlatformSection>
      <Kind>VMware ESXi</Kind>
      <Version>8.0.2</Version>
      <Vendor>VMware, Inc.</Vendor>
      <Locale>en</Locale>
   </PlatformSection>
   <PropertySection>
"#,
    );
    for (key, value) in properties {
        let mut escaped = value.replace('&', "&amp;");
        for (letter, reference) in [('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\n', "&#x0a;")] {
            escaped = escaped.replace(letter, reference);
        }
        text.push_str(&format!("         <Property oe:key=\"{key}\" oe:value=\"{escaped}\"/>\n"));
    }
    text.push_str(
        r#"   </PropertySection>
   <ve:EthernetAdapterSection>
      <ve:Adapter ve:mac="00:50:56:a7:00:01" ve:network="VM Network" ve:unitNumber="7"/>
   </ve:EthernetAdapterSection>
</Environment>
"#,
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_read_the_label_and_the_properties() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disc.iso");
        let value = "a \"b\" <&>\nあ";
        write(&image, &[("domain".to_owned(), value.to_owned())]).unwrap();
        let said = exec::text("blkid", &["-p".as_ref(), image.as_os_str()]).unwrap();
        assert!(said.contains("LABEL=\"OVF ENV\"") && said.contains("TYPE=\"iso9660\""), "{said}");
        let file = folder.path().join("ovf-env.xml");
        let read = ["-J", "-x", "/ovf-env.xml", "-i"].map(AsRef::as_ref);
        exec::to_file("isoinfo", &[&read[..], &[image.as_os_str()]].concat(), &file).unwrap();
        let path = "string(//*[local-name()='Property']/@*[local-name()='value'])";
        let said = exec::text("xmllint", &["--xpath".as_ref(), path.as_ref(), file.as_os_str()]).unwrap();
        assert_eq!(said.trim_end(), value);
    }
}
