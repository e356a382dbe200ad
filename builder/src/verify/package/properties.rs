//! The properties that a user fills in at import, and how they reach the guest.

use std::collections::BTreeSet;

use super::xml::Element;
use super::{Report, rules, shown};

/// Ways into the guest that vSphere has.
const TRANSPORTS: &[&str] = &["com.vmware.guestInfo", "iso"];

/// Applies the rules of every system's product sections.
pub(super) fn check(systems: &[&Element], report: &mut Report) {
    report.check(&rules::PROPERTIES);
    report.check(&rules::TRANSPORT);
    for system in systems {
        let mut keys = BTreeSet::new();
        for section in system.all("ProductSection") {
            let scope = |name| section.attribute(name).unwrap_or_default();
            for property in section.all("Property") {
                let key = property.attribute("key").unwrap_or_default();
                if key.is_empty() || !keys.insert((scope("class"), scope("instance"), key)) {
                    report.breaks(
                        &rules::PROPERTIES,
                        format!("a property has no key of its own: `{}`", shown(key)),
                    );
                }
                if let Some(wrong) = fault(property) {
                    report.breaks(&rules::PROPERTIES, format!("`{}` {wrong}", shown(key)));
                }
            }
        }
        if !keys.is_empty() {
            transport(system, report);
        }
    }
}

fn transport(system: &Element, report: &mut Report) {
    let ways: Vec<&str> = system
        .all("VirtualHardwareSection")
        .filter_map(|section| section.attribute("transport"))
        .flat_map(str::split_ascii_whitespace)
        .collect();
    if ways.is_empty() {
        report.breaks(&rules::TRANSPORT, "it has properties, and no `ovf:transport`");
    }
    for way in ways.iter().filter(|way| !TRANSPORTS.contains(way)) {
        report.breaks(&rules::TRANSPORT, format!("`{}` is no transport", shown(way)));
    }
}

/// What is wrong with one property.
fn fault(property: &Element) -> Option<String> {
    let kind = property.attribute("type").unwrap_or_default();
    let kind = kind.split(['(', ':']).next().unwrap_or_default().trim().to_ascii_lowercase();
    let kind = kind.as_str();
    let value = property.attribute("value").unwrap_or_default().trim();
    let password = property.attribute("password") == Some("true");
    if password && !matches!(kind, "string" | "password") {
        return Some(format!("is a password of the type `{}`", shown(kind)));
    }
    // Without a value the user must give one, or may leave it.
    let fits = value.is_empty()
        || match kind {
            "boolean" => ["true", "false"].iter().any(|word| value.eq_ignore_ascii_case(word)),
            "uint8" => value.parse::<u8>().is_ok(),
            "uint16" => value.parse::<u16>().is_ok(),
            "uint32" => value.parse::<u32>().is_ok(),
            "uint64" => value.parse::<u64>().is_ok(),
            "sint8" => value.parse::<i8>().is_ok(),
            "sint16" => value.parse::<i16>().is_ok(),
            "sint32" => value.parse::<i32>().is_ok(),
            "sint64" | "int" => value.parse::<i64>().is_ok(),
            "real32" | "real64" | "real" => value.parse::<f64>().is_ok(),
            _ => true,
        };
    let known = matches!(
        kind,
        "string" | "boolean" | "uint8" | "uint16" | "uint32" | "uint64" | "sint8" | "sint16" | "sint32" | "sint64" | "real32" | "real64"
        // VMware's own.
        | "int" | "real" | "ip" | "password" | "expression"
    );
    if !known {
        return Some(format!("is of the type `{}`", shown(kind)));
    }
    if !fits {
        return Some(format!("is a `{kind}` with the default `{}`", shown(value)));
    }
    let qualifiers = property.attribute("qualifiers").unwrap_or_default();
    let choices = qualifiers.split_once("ValueMap{").and_then(|(_, rest)| rest.split_once('}'));
    if let Some((choices, _)) = choices
        && !value.is_empty()
        && !choices.split(',').any(|choice| choice.trim().trim_matches('"') == value)
    {
        return Some(format!("has the default `{}`, which is none of its choices", shown(value)));
    }
    None
}
