//! The descriptor inside a VMDK: lines of `key=value` and one line for each extent.

use super::{Report, rules, shown};

/// Longest descriptor, in sectors; real ones take up to 20.
pub(super) const SECTORS: u64 = 256;
/// Content ids that VMware gives a meaning of their own: no parent, and a disk just made.
const NO_CONTENT: &[&str] = &["ffffffff", "fffffffe", "0", "00000000"];
/// What VMware's tools never are too old for.
const TOOLS_VERSION: &str = "2147483647";

/// Applies the rules of the descriptor; `sectors` is the header's capacity.
pub(super) fn check(bytes: &[u8], sectors: u64, label: &str, ide: bool, report: &mut Report) {
    for rule in [
        rules::VMDK_DESCRIPTOR,
        rules::VMDK_CAPACITY,
        rules::VMDK_CID,
        rules::VMDK_ADAPTER,
        rules::VMDK_TOOLS,
    ] {
        report.check(&rule);
    }
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..end]);
    let value = |name: &str| {
        text.lines().filter_map(|line| line.split_once('=')).find_map(|(key, value)| {
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
        })
    };
    let mut wrong = |rule, message: String| report.breaks(rule, format!("{label}{message}"));
    if !text.starts_with("# Disk DescriptorFile") {
        wrong(&rules::VMDK_DESCRIPTOR, "it does not begin with `# Disk DescriptorFile`".to_owned());
        return;
    }
    let kind = value("createType").unwrap_or_default();
    if kind != "streamOptimized" {
        wrong(&rules::VMDK_DESCRIPTOR, format!("its type is `{}`", shown(kind)));
    }
    let parent = value("parentCID").unwrap_or("ffffffff");
    if !parent.eq_ignore_ascii_case("ffffffff") || value("parentFileNameHint").is_some() {
        wrong(
            &rules::VMDK_DESCRIPTOR,
            format!("it has a parent: it refers to other files (`{}`)", shown(parent)),
        );
    }
    let extents: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<&str>>())
        .filter(|words| is_extent(words))
        .collect();
    if let [extent] = extents.as_slice() {
        let name = extent[3..].join(" ");
        let name = name.trim_matches('"');
        if extent[2] != "SPARSE" || name.is_empty() || name.contains(['/', '\\']) {
            wrong(&rules::VMDK_DESCRIPTOR, format!("its extent is `{}`", shown(&extent.join(" "))));
        }
        if extent[1].parse() != Ok(sectors) {
            let message = format!("the header has {sectors} sectors, the descriptor `{}`", shown(extent[1]));
            wrong(&rules::VMDK_CAPACITY, message);
        }
    } else {
        wrong(&rules::VMDK_DESCRIPTOR, format!("it has {} extents instead of one", extents.len()));
    }
    let id = value("CID").unwrap_or_default();
    let digits = (1..=8).contains(&id.len()) && id.bytes().all(|digit| digit.is_ascii_hexdigit());
    if !digits || NO_CONTENT.contains(&id.to_ascii_lowercase().as_str()) {
        wrong(&rules::VMDK_CID, format!("its content id is `{}`", shown(id)));
    }
    let adapter = value("ddb.adapterType").unwrap_or_default();
    if adapter != "lsilogic" && !(ide && adapter == "ide") {
        wrong(&rules::VMDK_ADAPTER, format!("its adapter type is `{}`", shown(adapter)));
    }
    if value("ddb.toolsInstallType") != Some("4") || value("ddb.toolsVersion") != Some(TOOLS_VERSION) {
        wrong(&rules::VMDK_TOOLS, "it does not say that the tools are the system's own".to_owned());
    }
}

fn is_extent(words: &[&str]) -> bool {
    words.len() >= 4 && matches!(words[0], "RW" | "RDONLY" | "NOACCESS")
}
