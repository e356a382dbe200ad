//! Documents as hypervisors write them, and as they never should.

use proptest::prelude::*;

use super::*;
use crate::settings::Settings;

/// As vSphere writes it: a namespace of its own for the platform, a network section, other machines of the same vApp.
const VSPHERE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
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
      <Vendor>VMware, Inc. &amp; others</Vendor>
      <Locale>ja</Locale>
   </PlatformSection>
   <PropertySection>
         <Property oe:key="acme-agree-terms" oe:value="True"/>
         <Property oe:key="acme-ca" oe:value="-----BEGIN CERTIFICATE-----&#x0a;AAAA&#10;BBBB&#x0a;-----END CERTIFICATE-----&#x0a;"/>
         <Property oe:key="acme-directory" oe:value="https://ca.example.net/directory?a=1&amp;b=2"/>
         <Property oe:key="acme-email" oe:value=""/>
         <Property oe:key="domain" oe:value=" v6don.example.net "/>
         <Property oe:key="extra-env" oe:value="SITE_TITLE=&quot;象の家&quot; &lt;v6&gt;; DEFAULT_LOCALE=ja"/>
         <Property oe:key="hostname" oe:value="null"/>
         <Property oe:key="mail-from" oe:value="words@example.net"/>
         <Property oe:key="mail-login" oe:value="words"/>
         <Property oe:key="mail-password" oe:value="&lt;pass&gt; &#x3042;"/>
         <Property oe:key="mail-port" oe:value="587"/>
         <Property oe:key="mail-relay" oe:value="192.168.100.25"/>
         <Property oe:key="network-ipv4-method" oe:value="off"/>
         <Property oe:key="network-ipv6-method" oe:value="auto"/>
   </PropertySection>
   <ve:EthernetAdapterSection>
      <ve:Adapter ve:mac="00:50:56:a7:00:01" ve:network="VM Network" ve:unitNumber="7"/>
   </ve:EthernetAdapterSection>
   <Entity oe:id="other">
      <PropertySection>
         <Property oe:key="domain" oe:value="other.example.net"/>
      </PropertySection>
   </Entity>
</Environment>
"#;

/// Another hypervisor's: a prefix for everything, blanks elsewhere, empty elements written out.
const PREFIXED: &str = "\u{feff}<?xml version='1.0'?>\r\n<!-- deployed -->\r\n<env:Environment \
    xmlns:env='http://schemas.dmtf.org/ovf/environment/1' env:id='appliance'>\
    <env:PropertySection ><env:Property env:value='a.example' env:key='domain' ></env:Property>\
    <env:Property env:key=\"tls-mode\" env:value='selfsigned'><!-- --></env:Property>\
    </env:PropertySection></env:Environment>\0\r\n";

fn document(properties: &str) -> String {
    format!(
        "<Environment xmlns=\"{NAMESPACE}\" xmlns:oe=\"{NAMESPACE}\"><PropertySection>{properties}</PropertySection></Environment>"
    )
}

fn property(key: &str, value: &str) -> String {
    let value = quick_xml::escape::escape(value).replace('\n', "&#x0a;");
    format!("<Property oe:key=\"{key}\" oe:value=\"{value}\"/>")
}

fn text(document: &str) -> Option<String> {
    offer("test", document).unwrap().map(|offer| offer.text)
}

fn refused(document: &str) -> String {
    offer("test", document).unwrap_err().to_string()
}

#[test]
fn the_environment_of_vsphere_is_a_configuration() {
    let text = text(VSPHERE).unwrap();
    Settings::parse("test", &text).unwrap();
    insta::assert_snapshot!(text, @r#"
    domain = "v6don.example.net"
    schema = 1

    [acme]
    ca = """
    -----BEGIN CERTIFICATE-----
    AAAA
    BBBB
    -----END CERTIFICATE-----
    """
    directory = "https://ca.example.net/directory?a=1&b=2"

    [extra-env]
    DEFAULT_LOCALE = "ja"
    SITE_TITLE = '"象の家" <v6>'

    [mail]
    from = "words@example.net"
    login = "words"
    password = "<pass> あ"
    port = 587
    relay = "192.168.100.25"

    [network.ipv4]
    method = "off"
    "#);
}

#[test]
fn the_environment_of_others_is_one_too() {
    assert_eq!(
        text(PREFIXED).unwrap(),
        "domain = \"a.example\"\nschema = 1\n\n[tls]\nmode = \"selfsigned\"\n"
    );
}

#[test]
fn one_environment_is_always_the_same_text() {
    // A configuration counts as news when its text is another one.
    let (first, second) = (property("domain", "a.example"), property("web-listen", "dual"));
    let forward = text(&document(&format!("{first}{second}")));
    assert!(forward.is_some());
    assert_eq!(forward, text(&document(&format!("{second}\n\n{first}"))));
}

#[test]
fn without_our_properties_there_is_no_configuration() {
    let nothing =
        ["", &property("vm.name", "mastodon"), &property("domain", ""), &property("domain", "null")];
    for properties in nothing {
        assert_eq!(text(&document(properties)), None, "{properties}");
    }
    assert_eq!(text(&format!("<Environment xmlns=\"{NAMESPACE}\"/>")), None);
    let platform = format!("<Environment xmlns='{NAMESPACE}'><PlatformSection/></Environment>");
    assert_eq!(text(&platform), None);
    let foreign = document("<Property key=\"domain\" value=\"a.example\"/>");
    assert_eq!(text(&foreign.replace("<Property ", "<Property xmlns='urn:x' ")), None);
}

#[test]
fn class_and_instance_of_a_section_are_left_out() {
    let domain = |key: &str| text(&document(&property(key, "a.example")));
    let expected = domain("domain");
    assert!(expected.is_some());
    for key in ["org.mastodon.domain", "org.mastodon.domain.1", "mastodon.domain", "domain.1"] {
        assert_eq!(domain(key), expected, "{key}");
    }
    assert_eq!(domain("domain.one.two"), None);
    assert_eq!(domain("subdomain"), None);
    let (plain, other) = (property("domain", "a.example"), property("x.domain.1", "b.example"));
    assert_eq!(text(&document(&format!("{other}{plain}"))), expected, "the plain name is ours");
    let third = property("y.domain.1", "c.example");
    insta::assert_snapshot!(refused(&document(&format!("{other}{third}"))), @"test: property `domain` is there for two products, with different values");
}

#[test]
fn what_is_no_environment_is_refused() {
    let domain = property("domain", "a.example");
    let good = document(&domain);
    let twice = document(&format!("{domain}{domain}"));
    let deep = document(&format!("{}{}", "<a>".repeat(40), "</a>".repeat(40)));
    let many = document(&"<a/>".repeat(20_000));
    let bindings = (0..20_000).map(|index| format!(" xmlns:n{index}='u'")).collect::<Vec<_>>().concat();
    let attributes = (0..50).map(|index| format!(" a{index}='u'")).collect::<Vec<_>>().concat();
    for (document, part) in [
        ("", "there is no element in it"),
        ("schema = 1", "text outside of it"),
        (&good[..good.len() - 4], "no well-formed XML"),
        (&good[..good.len() - "</Environment>".len()], "cut short"),
        (&good.replace("environment/1", "environment/2"), "no `Environment` of http://schemas.dmtf.org"),
        ("<html/>", "no `Environment` of"),
        (&format!("{good}{good}"), "an element outside of it"),
        (&format!("{good}more"), "text outside of it"),
        (&good.replace("</PropertySection>", "</Other>"), "no well-formed XML"),
        (&format!("<!DOCTYPE Environment [<!ENTITY a \"b\">]>{good}"), "DOCTYPE"),
        (&good.replace("a.example", "&a;"), "unknown entity"),
        (&good.replace("a.example", "&#0;"), "malformed"),
        (&good.replace("a.example", "a & b"), "malformed"),
        (&good.replace("</PropertySection>", "&a;</PropertySection>"), "an entity that XML does not know"),
        (&twice, "property `domain` is there twice"),
        (&good.replace("oe:value", "oe:key=\"x\" oe:value"), "its key or its value twice"),
        (&good.replace("oe:key", "key"), "a property has no key"),
        (&deep, "nested too deep"),
        (&many, "too many elements"),
        (&good.replace("<PropertySection", &format!("<PropertySection{bindings}")), "no well-formed XML"),
        (&good.replace("oe:key", &format!("{attributes} oe:key")), "too many attributes"),
        (&document(&" ".repeat(1024 * 1024)), "larger than 1 MiB"),
    ] {
        let message = refused(document);
        let start: String = document.chars().take(200).collect();
        assert!(message.starts_with("test: ") && message.contains(part), "{message}: {start}");
    }
}

#[test]
fn a_refusal_names_the_property_and_shows_no_value() {
    let with = |key: &str, value: &str| {
        refused(&document(&format!("{}{}", property("domain", "a.example"), property(key, value))))
    };
    insta::assert_snapshot!(with("network-ipv6-addresses", "2001:db8::zz/64"), @"test: property `network-ipv6-addresses`: `2001:db8::zz/64` is not an IPv6 address with prefix length, such as `2001:db8::101/128`");
    insta::assert_snapshot!(with("mail-port", "hunter2"), @"test: property `mail-port`: it must be a number from 0 to 65535");
    insta::assert_snapshot!(with("web-listen", "both"), @"test: property `web-listen`: unknown variant `both`, expected one of `ipv6`, `dual`, `ipv4`; use one of these");
    for hostile in
        ["<Property oe:key='mail-password' oe:value='&hunter2;'/>", "<Property oe:value='hunter2'/>"]
    {
        let message = refused(&document(hostile));
        assert!(!message.contains("hunter2"), "{message}");
    }
}

/// Every property, as a form would hand it over, is the setting that the same words are in TOML.
#[test]
fn every_property_arrives() {
    let table = |path: &str| path.rsplit_once('.').map(|(table, _)| table.to_owned());
    for field in FIELDS {
        // Most settings of a table go with its others: the gateway with `static`, a login with a password. Without a certificate
        // to order nothing has to be agreed to.
        let mut said: BTreeMap<String, String> = FIELDS
            .iter()
            .filter(|other| {
                other.path == "domain"
                    || table(field.path).is_some() && table(other.path) == table(field.path)
            })
            .filter(|other| other.path != "acme.agree-terms")
            .chain([field])
            .chain(FIELDS.iter().filter(|other| other.path == "tls.mode"))
            .map(|field| (field.key(), field.example.to_owned()))
            .collect();
        // Some go with one mode of the certificate alone.
        let (mode, others): (&str, &[&str]) = match field.path {
            "tls.certificate" | "tls.key" => ("manual", &["tls-proxies", "tls-challenge", "tls-dns-hook"]),
            "tls.proxies" => ("offload", &["tls-certificate", "tls-key", "tls-challenge", "tls-dns-hook"]),
            "tls.challenge" | "tls.dns-hook" => ("acme", &["tls-certificate", "tls-key", "tls-proxies"]),
            _ => (
                "selfsigned",
                &["tls-certificate", "tls-key", "tls-proxies", "tls-challenge", "tls-dns-hook"],
            ),
        };
        said.insert("tls-mode".to_owned(), mode.to_owned());
        said.retain(|key, _| !others.contains(&key.as_str()));
        // Trust anchors go with the one kind of encryption that looks at them.
        if field.path == "database.ca" {
            said.insert("database-sslmode".to_owned(), "verify-full".to_owned());
        } else {
            said.remove("database-ca");
        }
        let properties: String = said.iter().map(|(key, value)| property(key, value)).collect();
        let text = text(&document(&properties)).unwrap();
        assert_eq!(text, schema::to_toml(&said).unwrap().unwrap(), "{}", field.path);
        Settings::parse("test", &text).unwrap_or_else(|error| panic!("{}: {error}", field.path));
    }
}

proptest! {
    #[test]
    fn any_text_in_a_property_arrives_unchanged(value in "[^\\x00-\\x08\\x0b-\\x1f\u{fffe}\u{ffff}]{0,40}") {
        let read = read(&document(&property("mail-password", &value))).unwrap();
        // XML itself makes blanks of these; where they matter they are written as references.
        prop_assert_eq!(&read["mail-password"], &value.replace('\t', " "));
    }

    #[test]
    fn nothing_panics_on_a_changed_document(
        cut in 0..VSPHERE.len(), position in 0..VSPHERE.len(), piece in "[<>&;\"'/=a-z!\\[\\]\u{0}\u{3042}-]{0,6}", length in 0_usize..80
    ) {
        let mut changed: Vec<char> = VSPHERE.chars().collect();
        let start = position.min(changed.len());
        let end = (start + length).min(changed.len());
        changed.splice(start..end, piece.chars());
        let changed: String = changed.into_iter().collect();
        let _ = offer("test", &changed);
        let cut = (0..=cut).rev().find(|cut| changed.is_char_boundary(*cut)).unwrap_or(0);
        let _ = offer("test", &changed[..cut.min(changed.len())]);
    }
}
