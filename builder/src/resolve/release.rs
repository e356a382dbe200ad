//! Debian's `InRelease`: the date and the digests of the package indexes.
//!
//! The signature is checked by apt inside mmdebstrap; here the file only decides whether the store's tree is still right.

use sha2::{Digest as _, Sha256};

use crate::store::hex;

/// The parts that are used.
#[derive(Debug, PartialEq, Eq)]
pub struct Release {
    /// The field `Date`, in seconds since 1970.
    pub date: u64,
    /// Digest and path of every index.
    files: Vec<(String, String)>,
}

impl Release {
    /// Reads the fields `Date` and `SHA256`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let date =
            text.lines().find_map(|line| line.strip_prefix("Date: ")).ok_or("it has no field `Date`")?;
        let date = parse_date(date).ok_or_else(|| format!("its date `{date}` cannot be read"))?;
        let mut files = Vec::new();
        for line in text.lines().skip_while(|line| *line != "SHA256:").skip(1) {
            let Some(entry) = line.strip_prefix(' ') else { break };
            let mut words = entry.split_whitespace();
            if let (Some(digest), Some(_), Some(path)) = (words.next(), words.next(), words.next()) {
                files.push((digest.to_owned(), path.to_owned()));
            }
        }
        if files.is_empty() {
            Err("it lists no SHA-256 digests".to_owned())
        } else {
            Ok(Release { date, files })
        }
    }

    /// SHA-256 of a file below the suite's folder.
    pub fn digest(&self, wanted: &str) -> Option<&str> {
        self.files.iter().find(|(_, path)| path == wanted).map(|(digest, _)| digest.as_str())
    }

    /// SHA-256 over the digests of the components' package indexes for amd64 and all.
    pub fn indexes(&self, components: &[String]) -> String {
        let mut hash = Sha256::new();
        for component in components {
            for architecture in ["amd64", "all"] {
                let wanted = format!("{component}/binary-{architecture}/Packages");
                for (digest, _) in self.files.iter().filter(|(_, path)| *path == wanted) {
                    hash.update(digest.as_bytes());
                }
            }
        }
        hex(&hash.finalize())
    }
}

/// `Sat, 09 Aug 2025 09:03:21 UTC` as seconds since 1970.
fn parse_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, time, "UTC" | "GMT" | "+0000"] = words[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let parts: Vec<u64> = time.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [hour, minute, second] = parts[..] else { return None };
    if !(1970..3000).contains(&year) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970 by the civil calendar, years counted from March so that the leap day is the last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(parse_date("Thu, 01 Jan 1970 00:00:00 UTC"), Some(0));
        assert_eq!(parse_date("Sat, 09 Aug 2025 09:03:21 UTC"), Some(1_754_730_201));
        assert_eq!(parse_date("Thu, 29 Feb 2024 12:00:00 UTC"), Some(1_709_208_000));
        for wrong in ["", "yesterday", "Sat, 99 Aug 2025 09:03:21 UTC", "Sat, 09 Aug 2025 09:03 UTC"] {
            assert_eq!(parse_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_the_named_components_count() {
        let text = |other: &str| {
            format!(
                "Date: Thu, 01 Jan 1970 00:00:00 UTC\nSHA256:\n aa 1 main/binary-amd64/Packages\n {other} 1 contrib/binary-amd64/Packages\n-----"
            )
        };
        let main = ["main".to_owned()];
        let one = Release::parse(&text("bb")).unwrap();
        assert_eq!(one.indexes(&main), Release::parse(&text("cc")).unwrap().indexes(&main));
        assert_ne!(one.indexes(&main), one.indexes(&["contrib".to_owned()]));
        assert!(Release::parse("<html>").is_err());
    }
}
