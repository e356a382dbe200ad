//! Paths in the guest: absolute, normalised, never outside the root.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// `/etc/passwd`: starts with `/`, has no `.`, `..`, empty component or NUL. Never a path of the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct TreePath(String);

impl TreePath {
    /// The root folder.
    pub fn root() -> Self {
        TreePath("/".to_owned())
    }

    /// With the leading `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As a member of a tar: `./etc/passwd`.
    pub fn member(&self) -> String {
        format!(".{}", self.0)
    }

    /// A child.
    pub fn join(&self, name: &str) -> Result<Self, String> {
        format!("{}/{name}", self.0.trim_end_matches('/')).parse()
    }

    /// The folder that holds it; `None` for the root.
    pub fn parent(&self) -> Option<TreePath> {
        let (parent, name) = self.0.rsplit_once('/')?;
        match (parent, name) {
            ("", "") => None,
            ("", _) => Some(TreePath::root()),
            (parent, _) => Some(TreePath(parent.to_owned())),
        }
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(_, name)| name)
    }

    /// Whether it is the folder itself or lies below it.
    pub fn is_within(&self, folder: &str) -> bool {
        self.0
            .strip_prefix(folder.trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for TreePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("`{text}` is not a path of the guest: {why}"));
        if !text.starts_with('/') {
            return wrong("it must start with `/`");
        }
        if text.contains('\0') {
            return wrong("it has a NUL byte");
        }
        let text = if text.len() > 1 { text.trim_end_matches('/') } else { text };
        if text.len() > 1 && text[1..].split('/').any(|part| ["", ".", ".."].contains(&part)) {
            return wrong("it has an empty, `.` or `..` component");
        }
        Ok(TreePath(if text.is_empty() { "/".to_owned() } else { text.to_owned() }))
    }
}

impl TryFrom<String> for TreePath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The guest path of a tar member such as `./etc/passwd` or `etc/passwd`.
pub fn of_member(name: &str) -> Result<TreePath, String> {
    let name = name.strip_prefix("./").unwrap_or(name);
    if name.starts_with('/') {
        return Err(format!("member `{name}` of the archive is an absolute path"));
    }
    let name = if name == "." { "" } else { name };
    format!("/{name}").parse()
}

impl fmt::Display for TreePath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members() {
        for (member, path) in
            [("./", "/"), (".", "/"), ("./etc/passwd", "/etc/passwd"), ("etc/", "/etc"), ("./a b", "/a b")]
        {
            assert_eq!(of_member(member).unwrap().as_str(), path, "{member}");
        }
        for member in ["../x", "./a/../../x", "/etc/passwd", "a//b", "./a/./b"] {
            assert!(of_member(member).is_err(), "{member}");
        }
    }

    #[test]
    fn relations() {
        let path: TreePath = "/var/log/nginx".parse().unwrap();
        assert!(path.is_within("/var/log") && path.is_within("/") && !path.is_within("/var/lo"));
        assert_eq!(path.parent().unwrap().as_str(), "/var/log");
        assert_eq!("/var".parse::<TreePath>().unwrap().parent(), Some(TreePath::root()));
        assert_eq!(TreePath::root().parent(), None);
    }

    proptest::proptest! {
        #[test]
        fn never_leaves_the_root(text in ".{0,40}") {
            if let Ok(path) = of_member(&text) {
                proptest::prop_assert!(path.as_str().starts_with('/') && !path.as_str().split('/').any(|part| part == ".."));
            }
        }
    }
}
