//! Names of hosts: the instance's domain and the machine's own name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A fully qualified domain name in lower-case ASCII (punycode for everything else), without a final dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(String);

/// A host name: one label or several, by the same rules as a [`Domain`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

impl Domain {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl HostName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Domain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        host_name(text)?;
        if !text.contains('.') {
            return Err(format!(
                "`{text}` is not a full domain name: write it with its zone, such as `{text}.example.net`"
            ));
        }
        Ok(Domain(text.to_owned()))
    }
}

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        host_name(text)?;
        Ok(HostName(text.to_owned()))
    }
}

/// Both names are read from, and written as, a string.
macro_rules! string_conversions {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    )*};
}

string_conversions!(Domain, HostName);

/// Checks a name by RFC 1123, and names the mistakes that people make before the ones that programs make.
pub(super) fn host_name(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("the name is empty: write it, such as `social.example.net`".to_owned());
    }
    if text.trim() != text {
        return Err(format!("`{text}` has a space before or after the name: remove it"));
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let bare = rest.split(['/', ':']).next().unwrap_or_default();
        return Err(format!("`{text}` begins with `{scheme}://`: write the bare name `{bare}`"));
    }
    if let Some(bare) = text.strip_suffix('.') {
        return Err(format!("`{text}` ends in a dot: write `{bare}`"));
    }
    if !text.is_ascii() {
        return Err(format!("`{text}` is not ASCII: write its punycode form, which begins with `xn--`"));
    }
    if text.chars().any(|character| character.is_ascii_uppercase()) {
        return Err(format!("`{text}` has capital letters: write `{}`", text.to_ascii_lowercase()));
    }
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Err(format!("`{text}` is an address: write a name"));
    }
    if text.len() > 253 {
        return Err(format!("`{text}` is longer than the 253 characters that DNS allows"));
    }
    let known =
        |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-';
    for label in text.split('.') {
        if let Some(character) = label.chars().find(|character| !known(*character)) {
            return Err(format!(
                "`{text}` contains `{}`: a name has letters, digits, hyphens and dots only",
                character.escape_default()
            ));
        }
        if label.is_empty() || label.len() > 63 || label.starts_with('-') || label.ends_with('-') {
            return Err(format!(
                "`{text}` has the part `{label}`: each part is 1 to 63 characters and neither begins nor ends with a hyphen"
            ));
        }
    }
    if text.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(format!("`{text}` ends in a number: write a name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Domain, HostName};

    #[test]
    fn good_names_are_kept_as_they_are() {
        for name in ["v6don.example.net", "a.b", "xn--bcher-kva.example", "1and1.example", "a-b.c-d.example"]
        {
            assert_eq!(name.parse::<Domain>().unwrap().to_string(), name);
        }
        assert_eq!("sns".parse::<HostName>().unwrap().as_str(), "sns");
    }

    #[test]
    fn bad_names_are_refused_with_the_remedy() {
        let long = format!("{}.example", "a".repeat(64));
        for (name, part) in [
            ("", "is empty"),
            ("v6don.example.net ", "space before or after"),
            ("https://v6don.example.net/about", "write the bare name `v6don.example.net`"),
            ("v6don.example.net.", "write `v6don.example.net`"),
            ("V6don.Example.net", "write `v6don.example.net`"),
            ("bücher.example", "punycode"),
            ("2001:db8::1", "is an address"),
            ("192.0.2.1", "is an address"),
            ("localhost", "not a full domain name"),
            ("v6_don.example", "contains `_`"),
            ("a..b", "has the part ``"),
            ("-a.b", "has the part `-a`"),
            (long.as_str(), "1 to 63"),
            ("host.123", "ends in a number"),
            ("a\nb.example", "contains `\\n`"),
        ] {
            let message = name.parse::<Domain>().unwrap_err();
            assert!(message.contains(part), "{name:?}: {message}");
        }
    }
}
