//! Epoch, version, release: which of two builds of a package is newer, exactly as rpm 4.11 says (`lib/rpmvercmp.c`).

use std::cmp::Ordering;
use std::fmt;

/// `[epoch:]version[-release]`. Two are equal when rpm says so: `1.0` equals `1.00`.
#[derive(Debug, Clone)]
pub struct Evr {
    /// 0 when the package has none.
    pub epoch: u32,
    /// Upstream's version.
    pub version: String,
    /// The packager's number; empty when a dependency names none.
    pub release: String,
}

impl Evr {
    /// Reads `[epoch:]version[-release]`.
    pub fn parse(text: &str) -> Self {
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) if !epoch.is_empty() && epoch.bytes().all(|c| c.is_ascii_digit()) => {
                (epoch.parse().unwrap_or(0), rest)
            }
            _ => (0, text),
        };
        let (version, release) = rest.split_once('-').unwrap_or((rest, ""));
        Evr { epoch, version: version.to_owned(), release: release.to_owned() }
    }

    /// The order that a dependency sees: a release that one of them does not name is no difference.
    pub fn compare_as_dependency(&self, other: &Evr) -> Ordering {
        let order =
            self.epoch.cmp(&other.epoch).then_with(|| compare_versions(&self.version, &other.version));
        if self.release.is_empty() || other.release.is_empty() {
            return order;
        }
        order.then_with(|| compare_versions(&self.release, &other.release))
    }
}

impl Ord for Evr {
    fn cmp(&self, other: &Self) -> Ordering {
        self.epoch
            .cmp(&other.epoch)
            .then_with(|| compare_versions(&self.version, &other.version))
            .then_with(|| compare_versions(&self.release, &other.release))
    }
}

impl PartialOrd for Evr {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Evr {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Evr {}

impl fmt::Display for Evr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.epoch > 0 {
            write!(out, "{}:", self.epoch)?;
        }
        out.write_str(&self.version)?;
        if self.release.is_empty() { Ok(()) } else { write!(out, "-{}", self.release) }
    }
}

/// `rpmvercmp`: runs of digits compare as numbers, runs of letters as text, digits are newer than letters, `~` is older than the end.
pub fn compare_versions(one: &str, two: &str) -> Ordering {
    let (mut one, mut two) = (one.as_bytes(), two.as_bytes());
    let is_separator = |c: &u8| !c.is_ascii_alphanumeric() && *c != b'~';
    loop {
        one = &one[one.iter().take_while(|c| is_separator(c)).count()..];
        two = &two[two.iter().take_while(|c| is_separator(c)).count()..];
        match (one.first(), two.first()) {
            (Some(b'~'), Some(b'~')) => {
                (one, two) = (&one[1..], &two[1..]);
                continue;
            }
            (Some(b'~'), _) => return Ordering::Less,
            (_, Some(b'~')) | (Some(_), None) => return Ordering::Greater,
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), Some(_)) => {}
        }
        let digits = one[0].is_ascii_digit();
        let same_kind = |c: &u8| if digits { c.is_ascii_digit() } else { c.is_ascii_alphabetic() };
        let (a, rest_one) = one.split_at(one.iter().take_while(|c| same_kind(c)).count());
        let (b, rest_two) = two.split_at(two.iter().take_while(|c| same_kind(c)).count());
        if b.is_empty() {
            return if digits { Ordering::Greater } else { Ordering::Less };
        }
        let order = if digits {
            let (a, b) = (without_zeros(a), without_zeros(b));
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        } else {
            a.cmp(b)
        };
        if order != Ordering::Equal {
            return order;
        }
        (one, two) = (rest_one, rest_two);
    }
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    &digits[digits.iter().take_while(|c| **c == b'0').count()..]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of rpm's own `tests/rpmvercmp.at`, and some of el7.
    #[test]
    fn versions_in_rpms_order() {
        use Ordering::{Equal, Greater, Less};
        for (one, two, order) in [
            ("1.0", "1.0", Equal),
            ("1.0", "2.0", Less),
            ("2.0.1", "2.0.1a", Less),
            ("5.5p1", "5.5p10", Less),
            ("10xyz", "10.1xyz", Less),
            ("xyz10", "xyz10.1", Less),
            ("xyz.4", "8", Less),
            ("xyz.4", "2", Less),
            ("5.5p2", "5.6p1", Less),
            ("6.5p1", "5.6p1", Greater),
            ("6.0.rc1", "6.0", Greater),
            ("10b2", "10a1", Greater),
            ("1.0aa", "1.0a", Greater),
            ("10.0001", "10.0039", Less),
            ("4.999.9", "5.0", Less),
            ("20101121", "20101122", Less),
            ("2_0", "2.0", Equal),
            ("a+", "a_", Equal),
            ("+a", "_a", Equal),
            ("1.0~rc1", "1.0", Less),
            ("1.0~rc1", "1.0~rc2", Less),
            ("1.0~rc1~git123", "1.0~rc1", Less),
            ("1.05", "1.5", Equal),
            ("326.el7_9.3", "326.el7_9", Greater),
            ("1160.119.1.el7", "1160.24.1.el7", Greater),
            ("0.87.0.2.el7.centos.14", "0.86.el7.centos", Greater),
        ] {
            assert_eq!(compare_versions(one, two), order, "{one} and {two}");
            assert_eq!(compare_versions(two, one), order.reverse(), "{two} and {one}");
        }
    }

    #[test]
    fn epochs_and_missing_releases() {
        assert!(Evr::parse("1:0.9") > Evr::parse("2.0-1"));
        assert_eq!(Evr::parse("0:2.17-317.el7"), Evr::parse("2.17-317.el7"));
        assert_eq!(Evr::parse("2.17").compare_as_dependency(&Evr::parse("2.17-317.el7")), Ordering::Equal);
        assert_eq!(Evr::parse("1:2.17-3").to_string(), "1:2.17-3");
    }

    proptest::proptest! {
        #[test]
        fn the_order_is_total(a in "[0-9a-z.~_+-]{0,8}", b in "[0-9a-z.~_+-]{0,8}", c in "[0-9a-z.~_+-]{0,8}") {
            proptest::prop_assert_eq!(compare_versions(&a, &b), compare_versions(&b, &a).reverse());
            if compare_versions(&a, &b).is_le() && compare_versions(&b, &c).is_le() {
                proptest::prop_assert!(compare_versions(&a, &c).is_le());
            }
        }
    }
}
