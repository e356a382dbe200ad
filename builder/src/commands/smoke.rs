//! `imgbuild smoke`: boots an image, waits for its own verdict, checks it from outside.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{boot, context_without_project, say};
use crate::cli::{Boot, Global, Smoke};
use crate::error::Fault;
use crate::exec::Run;
use crate::qemu::record::{QUESTION, Record};
use crate::qemu::{Firmware, Verdict};
use crate::tools;

/// Used when the user gives none: nothing outside the host is needed, and both families are listened on, since QEMU's own network
/// forwards only IPv4.
const CONFIG: &str =
    "schema = 1\ndomain = \"smoke.test\"\n\n[web]\nlisten = \"dual\"\n\n[tls]\nmode = \"selfsigned\"\n";

/// Exits 0 only when the image is green and serves.
pub fn run(smoke: &Smoke, global: &Global) -> Result<()> {
    tools::require(&["curl"])?;
    let options = &smoke.boot;
    let context = context_without_project(global)?;
    let (config, domain) = match &options.config {
        Some(path) => boot::read_config(path).map(|(text, settings)| (text, settings.domain.to_string()))?,
        None => (CONFIG.to_owned(), "smoke.test".to_owned()),
    };
    let start = Instant::now();
    context.reporter.stage(1, 2, "boot");
    let mut running = boot::start(options, Some(&config), &context)?;
    let recorder = smoke.record.is_some().then(|| running.machine.record());
    context.reporter.doing(running.accelerator.name());
    let limit = Duration::from_secs(options.timeout);
    let report = running.machine.watch_verdict(Verdict::Green, limit, &running.ended, |report| {
        let steps = report.json["steps"].as_object();
        let done = steps.map_or(0, |steps| steps.values().filter(|state| *state == "done").count());
        context.reporter.progress(
            done as u64,
            steps.map_or(0, serde_json::Map::len) as u64,
            crate::report::Unit::Items,
        );
    });
    let green = start.elapsed();
    // A boot that failed has its record too: it shows where the time went.
    if let (Some(path), Some(recorder)) = (&smoke.record, recorder) {
        let age = running.machine.age().as_secs_f64();
        let answer = report.as_ref().ok().and_then(|_| running.machine.shell(QUESTION).ok());
        let blank = blank_record(options, running.accelerator.name());
        recorder.finish(blank, report.is_ok().then_some(age), answer.as_deref()).save(path)?;
    }
    // What a guest says that loses its machine is no verdict.
    let interrupted = || running.ended.load(Ordering::Relaxed);
    if interrupted() {
        return Err(boot::interrupted());
    }
    let report = report.map_err(|error| Fault::environment(format!("{error:#}")))?;
    context.reporter.stage_done("boot", green, false);
    context.reporter.stage(2, 2, "check");
    // The guest is emulated; a page may take seconds.
    let curl = |url: &str, port: (u16, u16)| {
        let resolve = format!("{domain}:{}:127.0.0.1", port.0);
        let connect = format!("{domain}:{}:{domain}:{}", port.1, port.0);
        Run::new(&context.log, "curl")
            .args([
                "-sS",
                "-k",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--max-time",
                "120",
                "--resolve",
                &resolve,
                "--connect-to",
                &connect,
                url,
            ])
            .capture()
    };
    let mut wrong = Vec::new();
    let wanted = [
        (format!("https://{domain}/about"), (running.https, 443), "200"),
        (format!("https://{domain}/api/v1/instance"), (running.https, 443), "200"),
        (format!("https://{domain}/api/v1/streaming/?stream=public"), (running.https, 443), "401"),
        (format!("http://{domain}/about"), (running.http, 80), "301"),
    ];
    for (url, port, status) in &wanted {
        if interrupted() {
            return Err(boot::interrupted());
        }
        match curl(url, *port) {
            Ok(got) if got.trim() == *status => {}
            Ok(got) => wrong.push(format!("{url} answered {}, not {status}", got.trim())),
            Err(error) => wrong.push(format!("{url} did not answer: {error:#}")),
        }
    }
    if interrupted() {
        return Err(boot::interrupted());
    }
    context.reporter.stage_done("check", start.elapsed().saturating_sub(green), false);
    if !wrong.is_empty() {
        let message = format!(
            "the image is green but does not serve: {}\n{}",
            wrong.join("; "),
            running.machine.serial_tail(50)
        );
        return Err(Fault::environment(message).into());
    }
    running.machine.stop().map_err(|error| Fault::environment(format!("{error:#}")))?;
    if global.json {
        return say(&serde_json::to_string_pretty(
            &serde_json::json!({ "seconds-to-green": green.as_secs_f64(), "report": report.json }),
        )?);
    }
    say(&format!("green after {:.0} s; {} answers from outside are right", green.as_secs_f64(), wanted.len()))
}

/// What is known of a boot before it began.
fn blank_record(options: &Boot, accelerator: &str) -> Record {
    Record {
        schema: 0,
        image: options.disk.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        accelerator: accelerator.to_owned(),
        firmware: if options.firmware == Firmware::Uefi { "uefi" } else { "bios" }.to_owned(),
        cpus: options.cpus,
        memory_mib: options.memory,
        green: None,
        phases: Vec::new(),
        steps: Vec::new(),
        units: Vec::new(),
        verdicts: Vec::new(),
    }
}
