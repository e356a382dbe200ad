//! The record of a boot: what happened when, in seconds since QEMU was started.
//!
//! Two witnesses: the serial line, every line of which gets the host's time as it arrives, and, once the instance is up, systemd in the
//! guest, which knows when each unit began and ended its start. The kernel's own stamps on the serial line join their clocks: a line
//! can arrive late but never early, so the smallest difference is the true one. Nothing that the guest says is believed to be
//! short, sane or even there.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::error::Fault;

/// The version of the file's format.
const SCHEMA: u32 = 1;
/// Largest file that is read as a record, in bytes.
const FILE_LIMIT: u64 = 16 << 20;
/// Longest line of the serial console that is looked at, in bytes.
const LINE_LIMIT: usize = 64 << 10;
/// Most entries of each list that are kept.
const ENTRIES: usize = 4000;
/// Latest time that is believed, in seconds: a year is longer than any boot, and the drawing divides by these.
const LATEST: f64 = 3.2e7;
/// Latest time that a guest's clock is believed, in microseconds: half of it, since power-on comes before its zero.
const LATEST_IN_GUEST: u64 = 16_000_000_000_000;
/// How often the serial log is looked at.
const INTERVAL: Duration = Duration::from_millis(20);
/// What is asked of the guest: the manager's own times, then those of every unit.
pub const QUESTION: &str = "systemctl show -p InitRDTimestampMonotonic -p UserspaceTimestampMonotonic -p FinishTimestampMonotonic; echo; \
    systemctl show '*' -p Id -p InactiveExitTimestampMonotonic -p ActiveEnterTimestampMonotonic";

/// A span of time on the way from power-on to the verdict, in seconds since power-on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Span {
    /// What happened.
    pub name: String,
    /// When it began.
    pub begin: f64,
    /// When it ended.
    pub end: f64,
    /// How it ended, where that is known: `done`, `waiting`, `broken`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// A moment, in seconds since power-on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Moment {
    /// What happened.
    pub name: String,
    /// When.
    pub at: f64,
}

/// One boot, as `imgbuild smoke --record` writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Record {
    /// Version of the format: 1.
    pub schema: u32,
    /// The disk's file name.
    pub image: String,
    /// KVM or TCG, in words.
    pub accelerator: String,
    /// `bios` or `uefi`.
    pub firmware: String,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// When the verdict became green; absent when it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub green: Option<f64>,
    /// Firmware, boot loader, kernel, initramfs, services: one after the other.
    pub phases: Vec<Span>,
    /// The steps of first boot, in the order in which they ended; a step that was tried twice is there twice.
    pub steps: Vec<Span>,
    /// Units of systemd, by the time their start began; empty when the guest could not be asked.
    pub units: Vec<Span>,
    /// Changes of the verdict.
    pub verdicts: Vec<Moment>,
}

impl Record {
    /// Reads a file that `--record` wrote.
    pub fn load(path: &Path) -> Result<Record> {
        let named = |what: &dyn std::fmt::Display| {
            Fault::user(format!("`{}` is no record of a boot: {what}", path.display()))
                .hint("make one with `imgbuild smoke DISK --record FILE`")
        };
        let length = fs::metadata(path).map_err(|error| Fault::user(error.to_string()))?.len();
        if length > FILE_LIMIT {
            return Err(named(&"it is larger than 16 MiB").into());
        }
        let text = fs::read_to_string(path).map_err(|error| named(&error))?;
        let record: Record = serde_json::from_str(&text).map_err(|error| named(&error))?;
        if record.schema != SCHEMA {
            return Err(
                named(&format!("its schema is {}, this imgbuild reads {SCHEMA}", record.schema)).into()
            );
        }
        let spans = || record.phases.iter().chain(&record.steps).chain(&record.units);
        let times = spans().flat_map(|span| [span.begin, span.end]);
        let all = times.chain(record.verdicts.iter().map(|moment| moment.at)).chain(record.green);
        if all.into_iter().any(|time| !(0.0..=LATEST).contains(&time))
            || spans().any(|span| span.end < span.begin)
        {
            return Err(named(&"a time in it is before power-on, or an end before its begin").into());
        }
        if [record.phases.len(), record.steps.len(), record.units.len(), record.verdicts.len()]
            .iter()
            .any(|count| *count > ENTRIES)
        {
            return Err(named(&format!("it has more than {ENTRIES} entries of one kind")).into());
        }
        Ok(record)
    }

    /// Writes it.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("writing the record as JSON")?;
        crate::atomic::write(path, format!("{text}\n").as_bytes())
            .with_context(|| format!("writing the record `{}`", path.display()))
    }
}

/// What the serial line has shown so far.
#[derive(Debug, Default)]
struct Seen {
    /// First output of all: of the boot loader, or of UEFI before it.
    first: Option<f64>,
    /// The boot loader's first line, where the firmware spoke before it.
    loader: Option<f64>,
    /// When the kernel's clock stood at zero.
    kernel: Option<f64>,
    /// The kernel's stamp when it started the initramfs.
    initramfs: Option<f64>,
    /// When systemd greeted.
    systemd: Option<f64>,
    steps: Vec<Span>,
    verdicts: Vec<Moment>,
}

impl Seen {
    fn bytes(&mut self, now: f64) {
        self.first.get_or_insert(now);
    }

    fn line(&mut self, text: &str, now: f64) {
        if self.loader.is_none() && (text.contains("GNU GRUB") || text.contains("Booting `")) {
            self.loader = Some(now);
        }
        if let Some((stamp, rest)) = kernel_stamp(text) {
            let zero = (now - stamp).max(0.0);
            self.kernel = Some(self.kernel.map_or(zero, |before| before.min(zero)));
            if self.initramfs.is_none() && rest.contains("Run /init as init process") {
                self.initramfs = Some(stamp);
            }
        }
        if self.systemd.is_none() && (text.contains("systemd[1]: systemd ") || text.contains("Welcome to ")) {
            self.systemd = Some(now);
        }
        if let Some(span) = step(text, now).filter(|_| self.steps.len() < ENTRIES) {
            self.steps.push(span);
        }
        if let Some(name) = verdict(text)
            && self.verdicts.len() < ENTRIES
            && self.verdicts.last().is_none_or(|last| last.name != name)
        {
            self.verdicts.push(Moment { name: name.to_owned(), at: now });
        }
    }
}

/// `[    1.234567] text`: the stamp and the text. A line may begin in the middle of another.
fn kernel_stamp(text: &str) -> Option<(f64, &str)> {
    let (stamp, rest) = text.strip_prefix('[')?.split_once(']')?;
    let stamp = stamp.trim_start();
    let is_stamp = stamp.len() < 16 && stamp.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let stamp: f64 = stamp.parse().ok().filter(|_| is_stamp && stamp.contains('.'))?;
    Some((stamp, rest))
}

/// `appliance: done    storage (42.1 s)`: what a step's work was, begun that long before the line came.
fn step(text: &str, now: f64) -> Option<Span> {
    let (_, rest) = text.split_once("appliance: ")?;
    let mut words = rest.split_whitespace();
    let state = words.next().filter(|word| ["done", "waiting", "broken"].contains(word))?;
    let name = words.next()?.trim_end_matches(':');
    let seconds: f64 =
        words.next()?.strip_prefix('(')?.parse().ok().filter(|seconds| (0.0..1e6).contains(seconds))?;
    words.next().filter(|word| word.starts_with("s)"))?;
    Some(Span {
        name: name.chars().take(64).collect(),
        begin: (now - seconds).max(0.0),
        end: now,
        state: Some(state.to_owned()),
    })
}

fn verdict(text: &str) -> Option<&'static str> {
    let (_, rest) = text.split_once("APPLIANCE-VERDICT {\"verdict\":\"")?;
    ["green", "amber", "red"].into_iter().find(|word| rest.starts_with(&format!("{word}\"")))
}

/// Watches a serial log in a thread of its own; dropped, it ends the thread.
pub struct Recorder {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

impl Recorder {
    /// `powered` is when QEMU was started.
    pub fn start(serial: PathBuf, powered: Instant) -> Recorder {
        let end = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&end);
        let thread = std::thread::spawn(move || watch(&serial, powered, &flag));
        Recorder { end, thread: Some(thread) }
    }

    /// Ends the watch and puts the record together. `answer` is what the guest said to [`QUESTION`], `green` the time of the verdict.
    pub fn finish(mut self, mut blank: Record, green: Option<f64>, answer: Option<&str>) -> Record {
        self.end.store(true, Ordering::Relaxed);
        let seen = self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        blank.schema = SCHEMA;
        blank.green = green;
        complete(&mut blank, seen, &answer.map(Answer::parse).unwrap_or_default());
        blank
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

fn watch(serial: &Path, powered: Instant, end: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let (mut offset, mut line) = (0, Vec::new());
    let mut buffer = vec![0; 64 << 10];
    loop {
        // Once more after the end was asked for: what came before it belongs to the record.
        let last = end.load(Ordering::Relaxed);
        let now = powered.elapsed().as_secs_f64();
        let read = |offset: u64, buffer: &mut [u8]| -> std::io::Result<usize> {
            let mut file = fs::File::open(serial)?;
            file.seek(SeekFrom::Start(offset))?;
            file.read(buffer)
        };
        // QEMU makes the file; until then there is nothing to see.
        while let Ok(count @ 1..) = read(offset, &mut buffer) {
            offset += count as u64;
            seen.bytes(now);
            for byte in &buffer[..count] {
                if *byte == b'\n' {
                    seen.line(String::from_utf8_lossy(&line).trim_end(), now);
                    line.clear();
                } else if line.len() < LINE_LIMIT {
                    line.push(*byte);
                }
            }
        }
        if last {
            return seen;
        }
        std::thread::sleep(INTERVAL);
    }
}

/// What systemd said, in seconds of the kernel's clock.
#[derive(Debug, Default)]
struct Answer {
    initrd: Option<f64>,
    userspace: Option<f64>,
    finish: Option<f64>,
    units: Vec<(String, f64, f64)>,
}

impl Answer {
    fn parse(text: &str) -> Answer {
        let mut answer = Answer::default();
        for block in text.split("\n\n") {
            let fields: BTreeMap<&str, &str> =
                block.lines().filter_map(|line| line.split_once('=')).collect();
            // Zero is systemd's word for never.
            let seconds = |key: &str| {
                let micros: u64 =
                    fields.get(key)?.parse().ok().filter(|micros| (1..LATEST_IN_GUEST).contains(micros))?;
                Some(Duration::from_micros(micros).as_secs_f64())
            };
            answer.initrd = answer.initrd.or_else(|| seconds("InitRDTimestampMonotonic"));
            answer.userspace = answer.userspace.or_else(|| seconds("UserspaceTimestampMonotonic"));
            answer.finish = answer.finish.or_else(|| seconds("FinishTimestampMonotonic"));
            let unit = fields.get("Id").zip(seconds("InactiveExitTimestampMonotonic"));
            if let Some(((id, begin), end)) = unit.zip(seconds("ActiveEnterTimestampMonotonic"))
                && end >= begin
                && answer.units.len() < ENTRIES
            {
                answer.units.push((id.chars().take(256).collect(), begin, end));
            }
        }
        answer.units.sort_by(|a, b| a.1.total_cmp(&b.1).then_with(|| a.0.cmp(&b.0)));
        answer
    }
}

/// Joins the two witnesses.
fn complete(record: &mut Record, seen: Seen, answer: &Answer) {
    let millis = |time: f64| (time.max(0.0) * 1000.0).round() / 1000.0;
    let last = seen.verdicts.last().map_or(0.0, |moment| moment.at);
    let end = record.green.unwrap_or(last).max(last);
    let zero = seen.kernel;
    let on_host = |stamp: f64| zero.map(|zero| zero + stamp);
    let userspace = answer.userspace.and_then(on_host).or(seen.systemd);
    // What begins where; a phase ends where the next one begins.
    let begins = [
        ("firmware", Some(0.0)),
        ("boot loader", seen.loader.or(seen.first)),
        ("kernel", zero),
        ("initramfs", seen.initramfs.or(answer.initrd).and_then(on_host)),
        ("services", userspace),
        ("first boot after the last service", answer.finish.and_then(on_host)),
    ];
    let known: Vec<(&str, f64)> =
        begins.into_iter().filter_map(|(name, begin)| Some((name, begin?))).collect();
    let mut floor = 0.0_f64;
    for (index, (name, begin)) in known.iter().enumerate() {
        let begin = begin.max(floor);
        let until = known.get(index + 1).map_or(end, |(_, next)| *next).max(begin);
        if until > begin {
            record.phases.push(Span {
                name: (*name).to_owned(),
                begin: millis(begin),
                end: millis(until),
                state: None,
            });
        }
        floor = until;
    }
    let rounded = |span: Span| Span { begin: millis(span.begin), end: millis(span.end), ..span };
    record.green = record.green.map(millis);
    record.steps = seen.steps.into_iter().map(rounded).collect();
    record.verdicts =
        seen.verdicts.into_iter().map(|moment| Moment { at: millis(moment.at), ..moment }).collect();
    if let Some(zero) = zero {
        record.units = answer
            .units
            .iter()
            .map(|(name, begin, end)| Span {
                name: name.clone(),
                begin: millis(zero + begin),
                end: millis(zero + end),
                state: None,
            })
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blank() -> Record {
        Record {
            schema: SCHEMA,
            image: "x.qcow2".to_owned(),
            accelerator: "TCG".to_owned(),
            firmware: "bios".to_owned(),
            cpus: 2,
            memory_mib: 2048,
            green: None,
            phases: Vec::new(),
            steps: Vec::new(),
            units: Vec::new(),
            verdicts: Vec::new(),
        }
    }

    #[test]
    fn two_witnesses_make_one_record() {
        let mut seen = Seen::default();
        seen.bytes(1.0);
        for (at, line) in [
            (1.2, "  Booting `Debian'"),
            // The first lines come late, when the console is up; the later one tells the truth.
            (9.0, "[    0.000000] Linux version 6.1"),
            (9.5, "[    5.500000] Run /init as init process"),
            (20.0, "Welcome to Debian GNU/Linux 12!"),
            (30.0, "[  OK  ] appliance: done    storage (4.5 s)"),
            (31.0, "APPLIANCE-VERDICT {\"verdict\":\"red\",\"steps\":{}}"),
            (32.0, "appliance: waiting certificate: no answer"),
            (33.0, "APPLIANCE-VERDICT {\"verdict\":\"red\",\"steps\":{}}"),
            (40.0, "APPLIANCE-VERDICT {\"verdict\":\"green\",\"steps\":{}}"),
        ] {
            seen.line(line, at);
        }
        let answer = "InitRDTimestampMonotonic=0\nUserspaceTimestampMonotonic=14000000\nFinishTimestampMonotonic=30000000\n\n\
            Id=b.service\nInactiveExitTimestampMonotonic=16000000\nActiveEnterTimestampMonotonic=18000000\n\n\
            Id=never.service\nInactiveExitTimestampMonotonic=0\nActiveEnterTimestampMonotonic=0\n\n\
            Id=odd.service\nInactiveExitTimestampMonotonic=9\nActiveEnterTimestampMonotonic=8\n\n\
            Id=a.service\nInactiveExitTimestampMonotonic=15000000\nActiveEnterTimestampMonotonic=99999999999999999999\n";
        let mut record = Record { green: Some(40.0), ..blank() };
        complete(&mut record, seen, &Answer::parse(answer));
        let phases: Vec<_> =
            record.phases.iter().map(|span| (span.name.as_str(), span.begin, span.end)).collect();
        assert_eq!(
            phases,
            [
                ("firmware", 0.0, 1.2),
                ("boot loader", 1.2, 4.0),
                ("kernel", 4.0, 9.5),
                ("initramfs", 9.5, 18.0),
                ("services", 18.0, 34.0),
                ("first boot after the last service", 34.0, 40.0),
            ]
        );
        assert_eq!(record.units.len(), 1);
        assert_eq!((record.units[0].begin, record.units[0].end), (20.0, 22.0));
        assert_eq!(record.steps.len(), 1);
        assert_eq!((record.steps[0].begin, record.steps[0].state.as_deref()), (25.5, Some("done")));
        assert_eq!(record.verdicts.iter().map(|moment| moment.at).collect::<Vec<_>>(), [31.0, 40.0]);
    }

    #[test]
    fn a_record_is_read_back_and_a_damaged_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boot.json");
        let mut record = blank();
        record.phases.push(Span { name: "kernel".to_owned(), begin: 1.0, end: 2.0, state: None });
        record.save(&path).unwrap();
        assert_eq!(Record::load(&path).unwrap(), record);
        record.phases[0].end = 0.5;
        record.save(&path).unwrap();
        let error = Record::load(&path).unwrap_err();
        assert!(error.to_string().contains("an end before its begin"), "{error}");
        assert_eq!(crate::error::exit_code(&error), 1);
        fs::write(&path, "{}").unwrap();
        assert!(Record::load(&path).unwrap_err().to_string().contains("is no record of a boot"));
    }

    #[test]
    fn a_log_is_followed_while_it_grows() {
        use std::io::Write as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial.log");
        let recorder = Recorder::start(path.clone(), Instant::now());
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(b"appliance: done    sto").unwrap();
        std::thread::sleep(3 * INTERVAL);
        file.write_all(b"rage (0.1 s)\r\nAPPLIANCE-VERDICT {\"verdict\":\"amber\"}\r\n").unwrap();
        let record = recorder.finish(blank(), None, None);
        assert_eq!((record.steps[0].name.as_str(), record.verdicts[0].name.as_str()), ("storage", "amber"));
    }
}
