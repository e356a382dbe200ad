//! A qcow2's header by ourselves, its clusters by `qemu-img check`.
//!
//! The header comes first: a disk that refers to other files is never given to a program that would open them.

use std::path::Path;

use anyhow::Result;

use super::section::Section;
use super::{Report, rules};
use crate::context::Context;
use crate::exec::Run;

/// Largest disk that is opened, in bytes.
const LARGEST: u64 = 62 << 40;
/// Bits of incompatible features.
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED: u64 = 1 << 4;

/// Applies every rule. `path` is the same file, for `qemu-img`.
pub(super) fn check(file: &Section<'_>, path: &Path, context: &Context, report: &mut Report) -> Result<()> {
    if !header(file, report)? {
        report.skip(&[rules::QCOW2_CHECK]);
        return Ok(());
    }
    report.check(&rules::QCOW2_CHECK);
    let check = Run::new(&context.log, "qemu-img").args(["check", "-q", "-f", "qcow2"]).arg(path);
    // A disk that it cannot open ends it with 1, as its own errors do.
    if let Some(found) = check.judge(1..=3)? {
        report.breaks(&rules::QCOW2_CHECK, found);
    }
    Ok(())
}

/// The rules of the header; answers whether the rest may be looked at.
pub(super) fn header(file: &Section<'_>, report: &mut Report) -> Result<bool> {
    let rest = [rules::QCOW2_REFERENCES, rules::QCOW2_FEATURES, rules::QCOW2_READERS, rules::QCOW2_SNAPSHOTS];
    report.check(&rules::QCOW2_HEADER);
    let Some(head) = file.bytes(0, 72)? else {
        report.breaks(&rules::QCOW2_HEADER, "it is shorter than a header");
        report.skip(&rest);
        return Ok(false);
    };
    let version = be32(&head, 4);
    if !matches!(version, 2 | 3) {
        report.breaks(&rules::QCOW2_HEADER, format!("it is of version {version}"));
        report.skip(&rest);
        return Ok(false);
    }
    for rule in &rest {
        report.check(rule);
    }
    let mut sound = true;
    let mut wrong = |rule, message: String| {
        report.breaks(rule, message);
        sound = false;
    };
    let (cluster_bits, size) = (be32(&head, 20), be64(&head, 24));
    if !(9..=21).contains(&cluster_bits) || size > LARGEST {
        let message = format!("its clusters have 2^{cluster_bits} bytes, its disk {size}");
        wrong(&rules::QCOW2_HEADER, message);
    }
    if be32(&head, 32) != 0 {
        wrong(&rules::QCOW2_HEADER, format!("it is encrypted (method {})", be32(&head, 32)));
    }
    if be64(&head, 8) != 0 || be32(&head, 16) != 0 {
        wrong(&rules::QCOW2_REFERENCES, "it has a backing file: it refers to other files".to_owned());
    }
    let long = if version == 3 { file.bytes(72, 32)? } else { None };
    let mut young = Vec::new();
    if let Some(long) = &long {
        let (features, length) = (be64(long, 0), be32(long, 28));
        if length < 104 || !length.is_multiple_of(8) || length > 1 << 16 || be32(long, 24) > 6 {
            wrong(
                &rules::QCOW2_HEADER,
                format!("its header has {length} bytes, its reference counts 2^{} bits", be32(long, 24)),
            );
        }
        let kind = if length > 104 { file.bytes(104, 1)?.map_or(0, |byte| byte[0]) } else { 0 };
        if features & DATA_FILE != 0 {
            wrong(
                &rules::QCOW2_REFERENCES,
                "its data is in another file: it refers to other files".to_owned(),
            );
        }
        if features & CORRUPT != 0 {
            wrong(&rules::QCOW2_FEATURES, "it is marked corrupt".to_owned());
        }
        if features & DIRTY != 0 {
            wrong(
                &rules::QCOW2_FEATURES,
                "it is marked dirty: its reference counts were not written back".to_owned(),
            );
        }
        let unknown = features & !(DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED);
        if unknown != 0 || kind > 1 || (features & COMPRESSION != 0) != (kind != 0) {
            wrong(
                &rules::QCOW2_FEATURES,
                format!("it has the feature bits {features:#x} and compression type {kind}"),
            );
        }
        if kind == 1 {
            young.push("it is compressed by zstd: QEMU 5.1 or later reads it");
        }
        if features & EXTENDED != 0 {
            young.push("it has extended tables: QEMU 5.2 or later reads it");
        }
    } else if version == 3 {
        wrong(&rules::QCOW2_HEADER, "it is shorter than a header".to_owned());
    }
    for message in young {
        report.breaks(&rules::QCOW2_READERS, message);
    }
    if be32(&head, 60) != 0 {
        report.breaks(&rules::QCOW2_SNAPSHOTS, format!("it has {} snapshots", be32(&head, 60)));
    }
    Ok(sound)
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}
