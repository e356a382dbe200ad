//! Tests of the readers: literal metadata as createrepo writes it, and what a stranger might write instead.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};

use super::repomd::Repomd;
use super::{Candidate, filelists, open, primary};

mod closures;

const DIGEST: &str = "34aa95a2b0f8a85fb3bee0896576592efec3f54444cf88e89708f3037a000dcf";

/// Two packages of CentOS 7, shortened, and a twin for another machine.
const PRIMARY: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="3">
<package type="rpm">
  <name>bind-libs</name>
  <arch>x86_64</arch>
  <version epoch="32" ver="9.11.4" rel="26.P2.el7"/>
  <checksum type="sha256" pkgid="YES">34aa95a2b0f8a85fb3bee0896576592efec3f54444cf88e89708f3037a000dcf</checksum>
  <summary>Libraries &lt;for&gt; BIND</summary>
  <description>Contains heavyweight version of BIND suite libraries &#8212; used by named.</description>
  <packager>CentOS BuildSystem &lt;http://bugs.centos.org&gt;</packager>
  <time file="1601664213" build="1601563389"/>
  <size package="159744" installed="374784" archive="377184"/>
  <location href="Packages/bind-libs-9.11.4-26.P2.el7.x86_64.rpm"/>
  <format>
    <rpm:license>MPLv2.0</rpm:license>
    <rpm:sourcerpm>bind-9.11.4-26.P2.el7.src.rpm</rpm:sourcerpm>
    <rpm:header-range start="1384" end="12876"/>
    <rpm:provides>
      <rpm:entry name="bind-libs" flags="EQ" epoch="32" ver="9.11.4" rel="26.P2.el7"/>
      <rpm:entry name="libbind9.so.160()(64bit)"/>
    </rpm:provides>
    <rpm:requires>
      <rpm:entry name="/sbin/ldconfig"/>
      <rpm:entry name="/sbin/ldconfig" pre="1"/>
      <rpm:entry name="bind-license" flags="EQ" epoch="32" ver="9.11.4" rel="26.P2.el7"/>
      <rpm:entry name="glibc" flags="GE" epoch="0" ver="2.17"/>
    </rpm:requires>
    <rpm:conflicts><rpm:entry name="bind-dyndb-ldap" flags="LT" epoch="0" ver="11" rel="1"/></rpm:conflicts>
    <rpm:obsoletes><rpm:entry name="caching-nameserver" flags="LE" epoch="31" ver="9.4.1" rel="7"/></rpm:obsoletes>
    <file>/etc/a&amp;b&#x2e;conf</file>
    <file type="dir">/etc/bind.d</file>
  </format>
</package>
<package type="rpm"><name>bind-libs</name><arch>i686</arch><location href="../../../etc/passwd"/></package>
<package type="rpm"><name>tzdata</name><arch>noarch</arch><version epoch="0" ver="2020d" rel="2.el7"/>
<checksum type="sha256" pkgid="YES">34AA95a2b0f8a85fb3bee0896576592efec3f54444cf88e89708f3037a000dcf</checksum>
<size package="5"/><location href="tzdata.rpm"/><format/></package>
</metadata>"#;

fn packages(xml: &str) -> Result<Vec<Candidate>, String> {
    primary::read(xml.as_bytes(), "base")
}

#[test]
fn primary_is_read_whole() {
    let packages = packages(PRIMARY).unwrap();
    let [bind, tzdata] = packages.as_slice() else { panic!("{packages:#?}") };
    assert_eq!(bind.nevra.to_string(), "bind-libs-32:9.11.4-26.P2.el7.x86_64");
    assert_eq!((bind.size, bind.installed_size, bind.build_time), (159_744, 374_784, 1_601_563_389));
    assert_eq!(bind.location, "Packages/bind-libs-9.11.4-26.P2.el7.x86_64.rpm");
    assert_eq!((bind.source.as_str(), bind.sha256.as_str()), ("bind-9.11.4-26.P2.el7.src.rpm", DIGEST));
    assert_eq!(bind.files, ["/etc/a&b.conf", "/etc/bind.d"]);
    let shown = |list: &[super::Relation]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown(&bind.provides), ["bind-libs = 32:9.11.4-26.P2.el7", "libbind9.so.160()(64bit)"]);
    assert_eq!(
        shown(&bind.requires),
        ["/sbin/ldconfig", "bind-license = 32:9.11.4-26.P2.el7", "glibc >= 2.17"],
        "the second ldconfig is the first"
    );
    assert_eq!(shown(&bind.conflicts), ["bind-dyndb-ldap < 11-1"]);
    assert_eq!(shown(&bind.obsoletes), ["caching-nameserver <= 31:9.4.1-7"]);
    assert_eq!((tzdata.nevra.arch.as_str(), tzdata.sha256.as_str()), ("noarch", DIGEST));
}

#[test]
fn a_primary_that_lies_is_refused_with_one_sentence() {
    for (from, to, message) in [
        (
            "type=\"sha256\"",
            "type=\"sha\"",
            "package `bind-libs`: a checksum is `sha`, and imgbuild believes `sha256` only",
        ),
        (DIGEST, "34aa", "package `bind-libs`: a checksum is no SHA-256: 64 hexadecimal digits"),
        (
            "Packages/bind",
            "../bind",
            "the location `../bind-libs-9.11.4-26.P2.el7.x86_64.rpm` is no plain path",
        ),
        ("Packages/bind", "/bind", "is no plain path below the repository"),
        ("Packages/bind", "https://elsewhere/bind", "is no plain path below the repository"),
        ("Packages/bind", "a?b", "is no plain path below the repository"),
        (
            "<location href=\"P",
            "<location xml:base=\"ftp://x/\" href=\"P",
            "it lies outside the repository (xml:base)",
        ),
        ("<name>bind-libs<", "<name>../bind<", "a package's name `../bind` is no plain word"),
        ("<name>bind-libs<", "<name>&bind;<", "it has an entity `&bind;` of its own"),
        ("<name>bind-libs<", "<name><![CDATA[bind]]><", "a CDATA section or a DOCTYPE"),
        ("<metadata", "<!DOCTYPE a [<!ENTITY b \"c\">]><metadata", "a CDATA section or a DOCTYPE"),
        ("<metadata", "<html><metadata", "it is a `html`, not the `metadata` of a repository"),
        ("epoch=\"32\" ver", "epoch=\"4294967296\" ver", "its epoch `4294967296` is too large"),
        ("epoch=\"32\" ver", "epoch=\"-1\" ver", "its epoch `-1` is no number"),
        ("flags=\"LT\"", "flags=\"NE\"", "the comparison `NE` is unknown"),
        ("name=\"/sbin/ldconfig\" pre", "name=\"\" pre", "the relation `` has no proper name"),
        ("package=\"159744\"", "package=\"many\"", "its size `many` is no number"),
        ("<size package=\"159744\"", "<size other=\"159744\"", "package `bind-libs`: it has no size"),
        ("<arch>x86_64</arch>", "", "package `bind-libs`: it has no architecture"),
        ("</format>", "</formats>", "expected `</format>`"),
    ] {
        let changed = PRIMARY.replacen(from, to, 1);
        assert_ne!(changed, PRIMARY, "{from}");
        let error = packages(&changed).unwrap_err();
        assert!(error.contains(message) && !error.contains('\n'), "{to}: {error}");
    }
    assert!(packages(&PRIMARY[..PRIMARY.len() - 12]).unwrap_err().contains("cut short"));
    assert!(packages("").unwrap_err().contains("it is empty"));
    let long = PRIMARY.replacen("Contains", &"long ".repeat(500_000), 1);
    assert!(packages(&long).unwrap_err().contains("longer than 1048576 bytes"));
    let deep = PRIMARY.replacen("<format>", &"<f>".repeat(1000), 1);
    assert!(packages(&deep).unwrap_err().contains("nested too deep"));
}

#[test]
fn endless_metadata_ends() {
    let endless = std::io::repeat(b' ');
    let error = primary::read(b"<metadata>".as_slice().chain(endless), "base").unwrap_err();
    assert!(error.contains("longer than"), "{error}");
    let package = "<package type=\"src\"/>".repeat(1000);
    let many = Repeat(package.into_bytes());
    let error = primary::read(b"<metadata>".as_slice().chain(many), "base").unwrap_err();
    assert!(error.contains("it has more than 500000 packages"), "{error}");
}

/// The same bytes again and again.
struct Repeat(Vec<u8>);

impl std::io::Read for Repeat {
    fn read(&mut self, mut into: &mut [u8]) -> std::io::Result<usize> {
        // Whole rounds only, so that each read begins where the last ended.
        if into.len() < self.0.len() {
            return Err(std::io::Error::other("a buffer that is too small for this test"));
        }
        into.write(&self.0)
    }
}

const REPOMD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<repomd xmlns="http://linux.duke.edu/metadata/repo" xmlns:rpm="http://linux.duke.edu/metadata/rpm">
 <revision>1608245317</revision>
<data type="primary">
  <checksum type="sha256">34aa95a2b0f8a85fb3bee0896576592efec3f54444cf88e89708f3037a000dcf</checksum>
  <open-checksum type="sha256">f6c7719d82d6e72cccb1106375b53c1d2df9b45670bae12ee481b9d370008ffe</open-checksum>
  <location href="repodata/34aa-primary.xml.gz"/>
  <timestamp>1608245318.25</timestamp>
  <size>48877</size>
  <open-size>327570</open-size>
</data>
<data type="group"><checksum type="sha">34aa</checksum><location xml:base="x:" href="/c7-x86_64-comps.xml"/></data>
</repomd>"#;

#[test]
fn repomd_names_the_parts() {
    let repomd = Repomd::parse(REPOMD.as_bytes()).unwrap();
    assert_eq!(repomd.primary.location, "repodata/34aa-primary.xml.gz");
    assert_eq!((repomd.primary.size, repomd.primary.open_size), (Some(48877), Some(327_570)));
    assert_eq!(repomd.primary.sha256, DIGEST);
    assert!(repomd.primary.open_sha256.unwrap().starts_with("f6c7"));
    assert_eq!((repomd.filelists, repomd.revision), (None, Some(1_608_245_317)));
    let named = REPOMD.replace("<revision>1608245317", "<revision>7.9.2009");
    assert_eq!(Repomd::parse(named.as_bytes()).unwrap().revision, Some(1_608_245_318), "the newest part's");
    for (from, to, message) in [
        ("type=\"primary\"", "type=\"prestodelta\"", "it names no `primary`"),
        (
            "<location href",
            "<location xml:base=\"x:\" href",
            "its `primary` lies outside the repository (xml:base)",
        ),
        ("<checksum type=\"sha256\"", "<checksum type=\"md5\"", "imgbuild believes `sha256` only"),
        ("href=\"repodata/", "href=\"repodata/../../", "is no plain path below the repository"),
        (
            "<checksum type=\"sha256\">34aa95a2b0f8a85fb3bee0896576592efec3f54444cf88e89708f3037a000dcf</checksum>",
            "",
            "its `primary` has no checksum",
        ),
        ("<size>48877", "<size>0x1", "a size `0x1` is no number"),
        ("<repomd ", "<metalink ", "it is a `metalink`, not the `repomd`"),
    ] {
        let error = Repomd::parse(REPOMD.replacen(from, to, 1).as_bytes()).unwrap_err();
        assert!(error.contains(message), "{to}: {error}");
    }
}

#[test]
fn every_compression_of_metadata_opens_but_bzip2() {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(PRIMARY.as_bytes()).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
    xz.write_all(PRIMARY.as_bytes()).unwrap();
    let zst = zstd::encode_all(PRIMARY.as_bytes(), 3).unwrap();
    let whole =
        [("gz", gz.finish().unwrap()), ("xz", xz.finish().unwrap()), ("zst", zst), ("xml", PRIMARY.into())];
    for (suffix, bytes) in whole {
        let location = format!("repodata/primary.xml.{suffix}");
        let packages = primary::read(open(bytes.as_slice(), &location).unwrap(), "base").unwrap();
        assert_eq!(packages.len(), 2, "{suffix}");
        let cut = primary::read(open(&bytes[..bytes.len() / 2], &location).unwrap(), "base");
        assert!(cut.is_err(), "half of a .{suffix}");
    }
    let refused = open(b"BZh9".as_slice(), "repodata/primary.sqlite.bz2").err().unwrap();
    assert!(refused.contains(".gz, .xz and .zst"), "{refused}");
}

#[test]
fn owners_of_files() {
    let xml = r#"<filelists xmlns="http://linux.duke.edu/metadata/filelists" packages="2">
<package pkgid="aa" name="shadow-utils" arch="x86_64"><version epoch="2" ver="4.6" rel="5.el7"/>
<file>/usr/sbin/useradd</file><file>/usr/share/a&amp;b</file><file type="dir">/etc/default</file></package>
<package pkgid="BB" name="other" arch="noarch"><file type="ghost">/usr/sbin/useradd</file><file>/usr/sbin/user</file></package>
</filelists>"#;
    let wanted: BTreeSet<String> =
        ["/usr/sbin/useradd", "/usr/share/a&b", "/absent"].map(str::to_owned).into();
    let owners = filelists::owners(xml.as_bytes(), &wanted).unwrap();
    assert_eq!(owners.len(), 2);
    assert_eq!(owners["/usr/sbin/useradd"], ["aa", "bb"]);
    assert_eq!(owners["/usr/share/a&b"], ["aa"]);
}

proptest::proptest! {
    /// Whatever is cut out, put in or exchanged: an answer, no panic; and what is accepted stays below the repository.
    #[test]
    fn hostile_metadata_never_panics(at in 0..PRIMARY.len(), cut in 0..40usize, put in "[<>/&;\"'a-z=! \\x00é-]{0,12}", raw: Vec<u8>) {
        for text in [PRIMARY, REPOMD] {
            let mut bytes = text.as_bytes().to_vec();
            let start = at.min(bytes.len());
            let end = (start + cut).min(bytes.len());
            bytes.splice(start..end, put.bytes());
            for candidate in primary::read(bytes.as_slice(), "base").unwrap_or_default() {
                proptest::prop_assert!(!candidate.location.starts_with('/') && !candidate.location.split('/').any(|part| part == ".."));
            }
            let _ = Repomd::parse(&bytes);
            let _ = filelists::owners(bytes.as_slice(), &BTreeSet::new());
        }
        for location in ["a.gz", "a.xz", "a.zst", "a.xml"] {
            if let Ok(reader) = open(raw.as_slice(), location) {
                let _ = primary::read(reader, "base");
            }
        }
    }
}
