//! The picture of a boot: what ran when, one line each, on one axis of seconds.

use super::html::{Writer, escape};
use super::shown;
use crate::qemu::record::{Record, Span};

/// Units that are drawn: those that took longest to start.
const UNITS: usize = 14;
/// Lines of one group that are drawn.
const LINES: usize = 80;
/// Marks on the axis, at most.
const TICKS: f64 = 8.0;

/// Draws a record. The bars' places are per cent of the whole time.
pub fn draw(record: &Record, out: &mut Writer) {
    let spans = record.phases.iter().chain(&record.steps);
    let last = spans.map(|span| span.end).chain(record.green).fold(0.0, f64::max);
    if last <= 0.0 {
        return;
    }
    let percent = |time: f64| (time / last * 100.0).clamp(0.0, 100.0);
    let step = tick(last);
    let word = match record.green {
        Some(green) => format!("green {} after power-on", seconds(green)),
        None => "it did not become green".to_owned(),
    };
    out.raw("<section id=\"boot\"><h2>Boot</h2>\n");
    let machine =
        [record.firmware.as_str(), record.accelerator.as_str()].map(|text| escape(&shown(text.as_bytes())));
    let cpus = record.cpus;
    out.raw(&format!(
        "<p class=\"lead\"><b>{word}</b> on {cpus} virtual CPU{}, {} MiB, {}, {}; <span class=\"muted\">{}</span></p>\n",
        if cpus == 1 { "" } else { "s" },
        record.memory_mib,
        machine[0],
        machine[1],
        escape(&shown(record.image.as_bytes()))
    ));
    let green = record.green.map(|green| format!(";--at:{:.2}%", percent(green))).unwrap_or_default();
    let class = if record.green.is_some() { "timeline has-green" } else { "timeline" };
    out.raw(&format!("<div class=\"{class}\" style=\"--step:{:.4}%{green}\">\n", percent(step)));
    axis(last, step, record.green, &percent, out);
    group("machine", "phase", record.phases.iter(), &percent, out);
    group("first boot", "step", record.steps.iter(), &percent, out);
    let mut units: Vec<&Span> = record
        .units
        .iter()
        .filter(|unit| {
            [".service", ".mount"].iter().any(|kind| unit.name.ends_with(kind))
                && unit.begin < last
                && unit.end - unit.begin >= 0.1
        })
        .collect();
    units.sort_by(|a, b| (b.end - b.begin).total_cmp(&(a.end - a.begin)));
    units.truncate(UNITS);
    units.sort_by(|a, b| a.begin.total_cmp(&b.begin));
    group("units that took longest to start", "unit", units.into_iter(), &percent, out);
    out.raw("</div></section>\n");
}

fn axis(last: f64, step: f64, green: Option<f64>, percent: &dyn Fn(f64) -> f64, out: &mut Writer) {
    out.raw("<div class=\"line axis\" aria-hidden=\"true\"><span></span><span class=\"track\">");
    let mut time = 0.0;
    while time < last - step * 0.6 {
        out.raw(&format!("<i style=\"left:{:.3}%\">{}</i>", percent(time), mark(time)));
        time += step;
    }
    if let Some(green) = green {
        out.raw(&format!("<i class=\"at\" style=\"left:{:.3}%\">green</i>", percent(green)));
    }
    out.raw("</span><span></span></div>\n");
}

/// Spans with one name share a line: a step may be tried more than once.
fn group<'a>(
    title: &str,
    class: &str,
    spans: impl Iterator<Item = &'a Span>,
    percent: &dyn Fn(f64) -> f64,
    out: &mut Writer,
) {
    let mut lines: Vec<(&str, Vec<&Span>)> = Vec::new();
    for span in spans {
        match lines.iter().position(|(name, _)| *name == span.name) {
            Some(at) => lines[at].1.push(span),
            None if lines.len() < LINES => lines.push((&span.name, vec![span])),
            None => {}
        }
    }
    if lines.is_empty() {
        return;
    }
    out.raw(&format!("<h3>{}</h3>\n", escape(title)));
    for (name, spans) in lines {
        let name = escape(&shown(name.as_bytes()));
        let state = spans.last().and_then(|span| span.state.as_deref()).filter(|state| *state != "done");
        let state_text = state
            .map(|state| format!(" <small>{}</small>", escape(&shown(state.as_bytes()))))
            .unwrap_or_default();
        out.raw(&format!("<div class=\"line\"><span class=\"label\" title=\"{name}\">{name}{state_text}</span><span class=\"track\">"));
        let mut sum = 0.0;
        for span in &spans {
            sum += span.end - span.begin;
            let kind = match span.state.as_deref() {
                None | Some("done") => "",
                Some("waiting") => " waiting",
                Some(_) => " broken",
            };
            out.raw(&format!(
                "<i class=\"bar {class}{kind}\" style=\"left:{:.3}%;width:{:.3}%\" title=\"{name}: {} to {}\"></i>",
                percent(span.begin),
                percent(span.end) - percent(span.begin),
                seconds(span.begin),
                seconds(span.end)
            ));
        }
        out.raw(&format!("</span><span class=\"time\">{}</span></div>\n", seconds(sum)));
    }
}

/// The distance of marks: at most [`TICKS`] of them.
fn tick(last: f64) -> f64 {
    let steps = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];
    steps.into_iter().find(|step| last / step <= TICKS).unwrap_or(last / TICKS)
}

/// A mark on the axis: `45 s`, `2:30 min`.
fn mark(time: f64) -> String {
    if time < 60.0 {
        return if time.fract() < 0.01 { format!("{time:.0} s") } else { format!("{time:.1} s") };
    }
    let minutes = (time / 60.0).floor();
    match time - minutes * 60.0 {
        rest if rest < 0.5 => format!("{minutes:.0} min"),
        rest => format!("{minutes:.0}:{rest:02.0} min"),
    }
}

/// A time with its unit: `0.41 s`, `42.1 s`, `3 min 34 s`.
pub fn seconds(time: f64) -> String {
    if time < 9.995 {
        format!("{time:.2} s")
    } else if time < 119.95 {
        format!("{time:.1} s")
    } else {
        let whole = time.round();
        let minutes = (whole / 60.0).floor();
        format!("{minutes:.0} min {:.0} s", whole - minutes * 60.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!([seconds(0.4), seconds(42.12), seconds(213.6)], ["0.40 s", "42.1 s", "3 min 34 s"]);
        assert_eq!([mark(45.0), mark(60.0), mark(90.0)], ["45 s", "1 min", "1:30 min"]);
        for last in [0.05, 3.0, 214.0, 1800.0, 3.1e7] {
            assert!((1.0..=8.0).contains(&(last / tick(last)).floor().max(1.0)), "{last}");
        }
    }
}
