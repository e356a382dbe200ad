//! A survey as one page that needs nothing else: no request, no font, no script of others. The picture stands without scripts; ours
//! only zooms, sorts and filters.
//!
//! Every text of an image is hostile: it goes through [`escape`], into text and quoted attributes alone, and the page's own policy
//! forbids every script but the one whose digest it names.

use base64::Engine as _;
use sha2::Digest as _;

use super::text::{count, size};
use super::{Password, Survey, shown, timeline, treemap};
use crate::qemu::record::Record;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// A page that is being written.
#[derive(Default)]
pub struct Writer(String);

impl Writer {
    /// Adds markup. Texts in it were escaped by the caller.
    pub fn raw(&mut self, markup: &str) {
        self.0.push_str(markup);
    }
}

/// A text as it may stand between tags and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Line breaks of a tooltip; others were made visible before.
            '\n' => out.push_str("&#10;"),
            letter if letter.is_control() => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

/// A text of the image: nothing in it is hidden, nothing is markup.
fn text(text: &str) -> String {
    escape(&shown(text.as_bytes()))
}

/// The page.
pub fn page(survey: &Survey, record: Option<&Record>) -> String {
    let mut out = Writer::default();
    let title = text(survey.title.as_deref().unwrap_or(&survey.system));
    // In XML a script's text must not look like markup.
    let script = format!("/*<![CDATA[*/\n{SCRIPT}/*]]>*/");
    let digest = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(&script));
    out.raw(&format!(
        "<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\"><head><meta charset=\"utf-8\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <link rel=\"icon\" href=\"data:,\"/>\n<title>{title}</title>\n<style>\n{STYLE}</style></head><body><main>\n"
    ));
    head(survey, record, &title, &mut out);
    disk(survey, &mut out);
    map(survey, &mut out);
    if let Some(record) = record {
        timeline::draw(record, &mut out);
    }
    packages(survey, &mut out);
    units(survey, &mut out);
    rights(survey, &mut out);
    out.raw(&format!("</main><footer>made by imgbuild {} from <b>{}</b></footer>\n<script>{script}</script></body></html>\n", env!("CARGO_PKG_VERSION"), text(&survey.file.name)));
    out.0
}

fn head(survey: &Survey, record: Option<&Record>, title: &str, out: &mut Writer) {
    let kind = format!("{:?}", survey.file.kind).to_lowercase();
    out.raw(&format!(
        "<header><p class=\"over\">{} · {kind}</p><h1>{title}</h1><p class=\"muted\">{}</p></header>\n<dl class=\"tiles\">\n",
        text(&survey.file.name),
        text(&survey.system)
    ));
    let file = if survey.file.allocated < survey.file.apparent / 2 {
        (size(survey.file.allocated), format!("taken by a {kind} file of {}", size(survey.file.apparent)))
    } else {
        (size(survey.file.apparent), format!("{kind} file"))
    };
    let names = |kind| survey.files.names.get(&kind).copied().unwrap_or(0);
    let sized = survey.packages.iter().any(|package| package.bytes.is_some());
    let owned: u64 = survey.packages.iter().filter_map(|package| package.bytes).fold(0, u64::saturating_add);
    let mut tiles = vec![
        (file.0, file.1),
        (size(survey.files.allocated), format!("{} files in it", count(names(super::ext4::Kind::File)))),
        (
            count(survey.packages.len() as u64),
            if sized { format!("packages with {}", size(owned)) } else { "packages".to_owned() },
        ),
        (count(survey.units.len() as u64), "units enabled".to_owned()),
    ];
    if let Some(green) = record.and_then(|record| record.green) {
        tiles.push((timeline::seconds(green), "from power-on to green".to_owned()));
    }
    for (value, what) in tiles {
        out.raw(&format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(&what), escape(&value)));
    }
    out.raw("</dl>\n");
    let tag = survey.tag.as_ref().map(|tag| ("Mastodon", tag.as_str()));
    let software = survey.software.iter().map(|software| (software.name, software.version.as_str()));
    let all: Vec<_> = tag.into_iter().chain(software).collect();
    if !all.is_empty() {
        out.raw("<ul class=\"software\">\n");
        for (name, version) in all {
            out.raw(&format!("<li><b>{}</b> {}</li>\n", text(name), text(version)));
        }
        out.raw("</ul>\n");
    }
}

fn disk(survey: &Survey, out: &mut Writer) {
    out.raw("<section id=\"disk\"><h2>Disk</h2><div class=\"scroll\"><table class=\"plain\"><thead><tr><th>partition</th><th class=\"n\">size</th><th class=\"n\">used</th><th class=\"n\">free</th><th class=\"wide\">filled</th></tr></thead><tbody>\n");
    for partition in &survey.partitions {
        let system = partition.file_system.as_ref();
        let cell = |bytes: Option<u64>| bytes.map_or_else(|| "–".to_owned(), size);
        let filled = system.map_or_else(String::new, |system| {
            let part = percent(system.used, system.used.saturating_add(system.free));
            format!(
                "<span class=\"meter\" title=\"{part:.0} % used\"><i style=\"width:{part:.2}%\"></i></span>"
            )
        });
        let kind = system.map(|system| format!(", {}", system.kind)).unwrap_or_default();
        out.raw(&format!(
            "<tr><td>{} <small>{}{kind}</small></td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"wide\">{filled}</td></tr>\n",
            text(&partition.name),
            escape(partition.purpose),
            size(partition.bytes),
            cell(system.map(|system| system.used)),
            cell(system.map(|system| system.free)),
        ));
    }
    out.raw("</tbody></table></div></section>\n");
}

fn map(survey: &Survey, out: &mut Writer) {
    out.raw("<section id=\"sizes\"><h2>Where the bytes are</h2>\n<p class=\"crumbs\" aria-live=\"polite\"><span class=\"muted\">");
    out.raw(&format!(
        "{} on the image's disk; holes count nothing, hard links once",
        size(survey.sizes.bytes)
    ));
    out.raw("</span></p>\n<div class=\"map\">");
    treemap::draw(&survey.sizes, out);
    out.raw("</div>\n<ul class=\"legend\">\n");
    let sums = treemap::by_purpose(&survey.sizes);
    for ((class, words), bytes) in treemap::PURPOSES.iter().zip(sums).filter(|(_, bytes)| *bytes > 0) {
        out.raw(&format!("<li><i class=\"{class}\"></i>{} <b>{}</b></li>\n", escape(words), size(bytes)));
    }
    out.raw("</ul></section>\n");
}

fn packages(survey: &Survey, out: &mut Writer) {
    if survey.packages.is_empty() {
        return;
    }
    let mut packages: Vec<_> = survey.packages.iter().collect();
    packages.sort_by_key(|package| std::cmp::Reverse(package.bytes));
    let largest = packages[0].bytes;
    let column = if largest.is_some() {
        "<th class=\"n\" data-sort=\"n\">size</th><th class=\"wide\"></th>"
    } else {
        ""
    };
    out.raw(&format!(
        "<section id=\"packages\"><h2>{} packages</h2>\n<div class=\"scroll tall\" tabindex=\"0\"><table class=\"sortable\"><thead><tr><th data-sort=\"t\">package</th><th data-sort=\"t\">version</th>{column}</tr></thead><tbody>\n",
        count(packages.len() as u64)
    ));
    for package in packages {
        let sized = package.bytes.map(|bytes| {
            let part = percent(bytes, largest.unwrap_or(0));
            format!("<td class=\"n\" data-n=\"{bytes}\">{}</td><td class=\"wide\"><span class=\"meter thin\"><i style=\"width:{part:.2}%\"></i></span></td>", size(bytes))
        });
        let empty = if largest.is_some() {
            "<td class=\"n\" data-n=\"0\">–</td><td class=\"wide\"></td>"
        } else {
            ""
        };
        out.raw(&format!(
            "<tr><td>{}</td><td class=\"version\">{}</td>{}</tr>\n",
            text(&package.name),
            text(&package.version),
            sized.unwrap_or_else(|| empty.to_owned())
        ));
    }
    out.raw("</tbody></table></div></section>\n");
}

fn units(survey: &Survey, out: &mut Writer) {
    if survey.units.is_empty() {
        return;
    }
    out.raw(&format!("<div class=\"columns\"><section id=\"units\"><h2>{} units enabled</h2>\n<div class=\"scroll tall\" tabindex=\"0\"><table class=\"plain\"><thead><tr><th>unit</th><th>wanted by</th></tr></thead><tbody>\n", count(survey.units.len() as u64)));
    for unit in &survey.units {
        out.raw(&format!(
            "<tr><td>{}</td><td class=\"muted\">{}</td></tr>\n",
            text(&unit.name),
            text(&unit.wanted_by.join(" "))
        ));
    }
    out.raw("</tbody></table></div></section>\n");
}

fn rights(survey: &Survey, out: &mut Writer) {
    // The other half of the columns that `units` opened.
    if survey.units.is_empty() {
        out.raw("<div class=\"columns\">");
    }
    let open: Vec<String> = survey
        .accounts
        .iter()
        .filter(|account| account.password != Password::Locked)
        .map(|account| text(&account.name))
        .collect();
    let passwords = if open.is_empty() {
        "none of them can log in by password".to_owned()
    } else {
        format!("by password: <b>{}</b>", open.join(", "))
    };
    out.raw(&format!(
        "<section id=\"rights\"><h2>Rights</h2>\n<p>{} accounts, {passwords}. {} programs have more rights than who starts them:</p>\n<div class=\"scroll tall\" tabindex=\"0\"><table class=\"plain\"><thead><tr><th>program</th><th>rights</th><th class=\"n\">mode</th></tr></thead><tbody>\n",
        count(survey.accounts.len() as u64),
        count(survey.privileged.len() as u64)
    ));
    for program in &survey.privileged {
        out.raw(&format!(
            "<tr><td>{}</td><td class=\"muted\">{}</td><td class=\"n\">{}</td></tr>\n",
            text(&program.path),
            text(&program.rights.join(" ")),
            escape(&program.mode)
        ));
    }
    out.raw("</tbody></table></div></section></div>\n");
}

fn percent(part: u64, whole: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a picture has fewer points than a float has digits")]
    let share = part as f64 / whole.max(1) as f64 * 100.0;
    share.clamp(0.0, 100.0)
}
