//! The manifest and the certificate of an OVA.
//!
//! A line that is understood though misspelt is one finding, not three: its digest is checked all the same.

use anyhow::Result;

use super::archive::Member;
use super::section::Section;
use super::{Report, Rule, rules, shown};

/// Largest manifest or certificate, in bytes.
const LIMIT: u64 = 1 << 20;

/// Rules that nothing without a manifest can break.
const OF_A_MANIFEST: &[Rule] = &[
    rules::MANIFEST_PLACE,
    rules::MANIFEST_SPELLING,
    rules::MANIFEST_MEMBERS,
    rules::MANIFEST_DIGESTS,
    rules::MANIFEST_SHA1,
    rules::CERTIFICATE,
];

/// A digest that manifests use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
}

/// One line as far as it is understood.
struct Line {
    algorithm: Algorithm,
    name: String,
    digest: String,
    /// Written to the letter.
    exact: bool,
}

/// Checks manifest and certificate against the members.
pub(super) fn check(file: &Section<'_>, members: &[Member], report: &mut Report) -> Result<()> {
    report.check(&rules::MANIFEST);
    let Some(manifest) = members.iter().find(|member| member.is("mf")) else {
        report.breaks(&rules::MANIFEST, "it has no manifest (`.mf`)");
        for rule in OF_A_MANIFEST {
            report.leave_out(rule);
        }
        return Ok(());
    };
    for rule in OF_A_MANIFEST {
        report.check(rule);
    }
    if let Some(certificate) = members.iter().find(|member| member.is("cert")) {
        report.check(&rules::CERTIFICATE);
        if let Some(wrong) = certificate_fault(text(file, certificate)?.as_deref(), manifest) {
            report.breaks(&rules::CERTIFICATE, format!("`{}` {wrong}", shown(&certificate.name)));
        }
    } else {
        report.leave_out(&rules::CERTIFICATE);
    }
    let Some(lines) = text(file, manifest)? else {
        report
            .breaks(&rules::MANIFEST_SPELLING, format!("`{}` is no text below 1 MiB", shown(&manifest.name)));
        return Ok(());
    };
    let mut left: Vec<&Member> =
        members.iter().filter(|member| !member.is("mf") && !member.is("cert")).collect();
    let mut understood = true;
    for text in lines.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        let Some(line) = parse(text) else {
            report.breaks(&rules::MANIFEST_SPELLING, format!("`{}` is no line of a manifest", shown(text)));
            understood = false;
            continue;
        };
        if !line.exact {
            let right = format!("{}(…)= …", name_of(line.algorithm));
            report.breaks(&rules::MANIFEST_SPELLING, format!("`{}` should be `{right}`", shown(text)));
        }
        if line.algorithm == Algorithm::Sha1 {
            report.breaks(&rules::MANIFEST_SHA1, format!("`{}` has a SHA-1", shown(&line.name)));
        }
        let Some(at) = left.iter().position(|member| member.name == line.name) else {
            let message =
                format!("it names `{}`, which is not in the archive or was named before", shown(&line.name));
            report.breaks(&rules::MANIFEST_MEMBERS, message);
            continue;
        };
        let member = left.remove(at);
        let content = file.part(member.offset, member.size);
        let found = content.map(|content| digest(&content, line.algorithm)).transpose()?;
        if found.is_some_and(|found| !found.eq_ignore_ascii_case(&line.digest)) {
            let message = format!("`{}` does not have the digest of the manifest", shown(&member.name));
            report.breaks(&rules::MANIFEST_DIGESTS, message);
        }
    }
    if !understood {
        // What such a line names, and whether rightly, nobody can say.
        report.skip(&[rules::MANIFEST_MEMBERS, rules::MANIFEST_DIGESTS]);
        return Ok(());
    }
    for member in left {
        report.breaks(&rules::MANIFEST_MEMBERS, format!("it does not name `{}`", shown(&member.name)));
    }
    Ok(())
}

fn text(file: &Section<'_>, member: &Member) -> Result<Option<String>> {
    if member.size > LIMIT {
        return Ok(None);
    }
    // OK: below the limit.
    let bytes = file.bytes(member.offset, usize::try_from(member.size).unwrap_or_default())?;
    Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()))
}

fn name_of(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Sha1 => "SHA1",
        Algorithm::Sha256 => "SHA256",
        Algorithm::Sha512 => "SHA512",
    }
}

/// `SHA256(name)= digest`, or what people write instead of it.
fn parse(text: &str) -> Option<Line> {
    let (algorithm, name, digest) = if let Some((head, digest)) = text.rsplit_once('=') {
        let (algorithm, name) = head.trim_end().strip_suffix(')')?.split_once('(')?;
        (algorithm.trim().to_ascii_uppercase(), name, digest.trim())
    } else {
        // As `sha256sum` writes it.
        let (digest, name) = text.split_once(' ')?;
        let algorithm = format!("SHA{}", digest.len() * 4);
        (algorithm, name.trim_start_matches([' ', '*']), digest)
    };
    let algorithm = match algorithm.as_str() {
        "SHA1" | "SHA-1" | "SHA160" => Algorithm::Sha1,
        "SHA256" | "SHA-256" | "SHA2-256" => Algorithm::Sha256,
        "SHA512" | "SHA-512" | "SHA2-512" => Algorithm::Sha512,
        _ => return None,
    };
    let length = match algorithm {
        Algorithm::Sha1 => 40,
        Algorithm::Sha256 => 64,
        Algorithm::Sha512 => 128,
    };
    if digest.len() != length || !digest.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let exact = text == format!("{}({name})= {digest}", name_of(algorithm));
    Some(Line { algorithm, name: name.to_owned(), digest: digest.to_owned(), exact })
}

fn digest(content: &Section<'_>, algorithm: Algorithm) -> Result<String> {
    match algorithm {
        Algorithm::Sha1 => digest_by::<sha1::Sha1>(content),
        Algorithm::Sha256 => digest_by::<sha2::Sha256>(content),
        Algorithm::Sha512 => digest_by::<sha2::Sha512>(content),
    }
}

fn digest_by<D: sha2::Digest>(content: &Section<'_>) -> Result<String> {
    let mut hash = D::new();
    content.each(|piece| {
        hash.update(piece);
        true
    })?;
    Ok(crate::store::hex(&hash.finalize()))
}

/// What is wrong with a certificate's file as a text.
fn certificate_fault(text: Option<&str>, manifest: &Member) -> Option<String> {
    let Some(text) = text else {
        return Some("is no text below 1 MiB".to_owned());
    };
    let first = text.lines().next().unwrap_or_default().trim_end();
    let signature = ["SHA1", "SHA256", "SHA512"]
        .iter()
        .find_map(|name| first.strip_prefix(name)?.strip_prefix(&format!("({})= ", manifest.name)));
    if !signature
        .is_some_and(|digits| digits.len() >= 128 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
    {
        return Some(format!("does not begin with `SHA256({})= ` and a signature", shown(&manifest.name)));
    }
    let body = text
        .split_once("-----BEGIN CERTIFICATE-----")
        .and_then(|(_, rest)| rest.split_once("-----END CERTIFICATE-----"))
        .map(|(body, _)| body.split_ascii_whitespace().collect::<String>());
    let decoded = body.and_then(|body| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(body).ok()
    });
    // A certificate is a DER sequence.
    decoded.is_none_or(|der| der.first() != Some(&0x30)).then(|| "holds no certificate in PEM".to_owned())
}
