//! A streamOptimized VMDK from its first byte to its last, as vSphere reads it: as a stream, tables compared on the way.
//!
//! Both arrangements are known: tables after their grains with the directory and a footer at the end, and (as qemu-img and VMware's
//! converter write) all of them in front. Memory is bounded by the directory; a grain that does not inflate ends nothing.

use anyhow::Result;

use super::section::Section;
use super::tables::Tables;
use super::{Report, Rule, rules, vmdk_text};
use crate::formats::vmdk::header::{
    AT_END, Announced, FLAG_COMPRESSED, FLAG_MARKERS, FLAG_NEWLINES, FLAG_REDUNDANT, Header, SECTOR,
    TABLE_ENTRIES, u32_at, u64_at,
};

/// Largest disk of vSphere, in sectors: 62 TiB.
const LARGEST: u64 = 62 << 31;
/// Largest grain that is inflated, in sectors.
const LARGEST_GRAIN: u64 = 2048;

/// Applies every rule of a disk and answers its size in bytes; `None` when it cannot be walked. `label` goes before each finding; `ide` says that it hangs on a controller for IDE disks.
pub(super) fn check(file: &Section<'_>, label: &str, ide: bool, report: &mut Report) -> Result<Option<u64>> {
    report.check(&rules::VMDK_HEADER);
    let Some(header) = file.sector(0)?.and_then(|sector| Header::parse(&sector)) else {
        let message = "it does not begin with the header of a sparse VMDK";
        report.breaks(&rules::VMDK_HEADER, format!("{label}{message}"));
        report.skip(&rules::VMDK[1..]);
        return Ok(None);
    };
    let readable = examine_header(&header, label, report);
    report.check(&rules::VMDK_REDUNDANT);
    if header.flags & FLAG_REDUNDANT != 0 {
        report.breaks(&rules::VMDK_REDUNDANT, format!("{label}it has a second directory"));
    }
    embedded(file, &header, label, ide, report)?;
    if !readable {
        report.skip(&[rules::VMDK_GRAINS, rules::VMDK_TABLES, rules::VMDK_FOOTER, rules::VMDK_END]);
        return Ok(None);
    }
    for rule in [rules::VMDK_GRAINS, rules::VMDK_TABLES, rules::VMDK_FOOTER, rules::VMDK_END] {
        report.check(&rule);
    }
    let mut walk = Walk {
        file,
        label,
        report,
        tables: Tables::new(&header),
        last: None,
        footer: false,
        inflated: vec![0; bytes(header.grain_sectors)],
        decompressor: libdeflater::Decompressor::new(),
        header: &header,
    };
    walk.run()?;
    Ok(Some(header.capacity.saturating_mul(SECTOR)))
}

/// Answers whether the rest can be followed.
fn examine_header(header: &Header, label: &str, report: &mut Report) -> bool {
    let mut wrong = |message: String| report.breaks(&rules::VMDK_HEADER, format!("{label}{message}"));
    let mut readable = true;
    if header.version != 3 {
        wrong(format!("it is of version {}", header.version));
    }
    if header.flags & FLAG_NEWLINES == 0 {
        wrong("it has no line-end bytes, which tell of a transfer as text".to_owned());
    }
    if header.flags & FLAG_COMPRESSED == 0 || header.flags & FLAG_MARKERS == 0 || header.compression != 1 {
        wrong("it is no stream: its grains are not compressed, or have no markers".to_owned());
        readable = false;
    }
    if header.unclean {
        wrong("it was not closed by the machine that had it open".to_owned());
    }
    let grain = header.grain_sectors;
    if !grain.is_power_of_two()
        || !(16..=LARGEST_GRAIN).contains(&grain)
        || header.table_entries != TABLE_ENTRIES
    {
        wrong(format!("its grains have {grain} sectors, its tables {} entries", header.table_entries));
        readable = false;
    }
    if !(1..=LARGEST).contains(&header.capacity) {
        wrong(format!("it claims {} sectors", header.capacity));
        readable = false;
    }
    readable
}

fn embedded(file: &Section<'_>, header: &Header, label: &str, ide: bool, report: &mut Report) -> Result<()> {
    let (at, sectors) = (header.descriptor_offset, header.descriptor_sectors);
    let within = at > 0 && (1..=vmdk_text::SECTORS).contains(&sectors) && at < LARGEST;
    let text = if within { file.bytes(at * SECTOR, bytes(sectors))? } else { None };
    if let Some(text) = text {
        vmdk_text::check(&text, header.capacity, label, ide, report);
    } else {
        report.check(&rules::VMDK_DESCRIPTOR);
        let message =
            format!("{label}its {sectors} sectors of descriptor at sector {at} are not in the file");
        report.breaks(&rules::VMDK_DESCRIPTOR, message);
        report.skip(&[rules::VMDK_CAPACITY, rules::VMDK_CID, rules::VMDK_ADAPTER, rules::VMDK_TOOLS]);
    }
    Ok(())
}

/// Bytes of a number of sectors that was checked against a limit.
fn bytes(sectors: u64) -> usize {
    usize::try_from(sectors * SECTOR).unwrap_or_default()
}

struct Walk<'w, 's> {
    file: &'w Section<'s>,
    header: &'w Header,
    label: &'w str,
    report: &'w mut Report,
    tables: Tables,
    /// Sector of the disk where the last grain began.
    last: Option<u64>,
    footer: bool,
    inflated: Vec<u8>,
    decompressor: libdeflater::Decompressor,
}

impl Walk<'_, '_> {
    fn wrong(&mut self, rule: &Rule, message: impl std::fmt::Display) {
        self.report.breaks(rule, format!("{}{message}", self.label));
    }

    fn run(&mut self) -> Result<()> {
        let in_front = self.header.gd_offset != AT_END;
        if in_front && let Err(message) = self.tables.load_directory(self.file, self.header.gd_offset)? {
            self.wrong(&rules::VMDK_TABLES, message);
        }
        let mut at = self.header.overhead.saturating_mul(SECTOR);
        let end = loop {
            let Some(sector) = self.file.sector(at)? else {
                break at;
            };
            let (value, size, kind) = (u64_at(&sector, 0), u32_at(&sector, 8), u32_at(&sector, 12));
            if size > 0 {
                match self.grain(at, value, size)? {
                    Some(next) => at = next,
                    None => return Ok(()),
                }
            } else if kind == Announced::EndOfStream as u32 {
                if sector != [0; 512] {
                    self.wrong(
                        &rules::VMDK_END,
                        format!("its end-of-stream sector at byte {at} is not empty"),
                    );
                }
                break at;
            } else if let Some(next) = self.announced(at, value, kind)? {
                at = next;
            } else {
                return Ok(());
            }
        };
        if in_front {
            if let Err(message) = self.tables.finish_in_front(self.file)? {
                self.wrong(&rules::VMDK_TABLES, message);
            }
            self.report.leave_out(&rules::VMDK_FOOTER);
        } else if !self.footer {
            self.wrong(&rules::VMDK_FOOTER, "the header says that a footer follows, and none does");
        }
        self.end(end)
    }

    /// After the last part: one empty sector, and no byte more.
    fn end(&mut self, at: u64) -> Result<()> {
        let left = self.file.length().saturating_sub(at);
        if left < SECTOR {
            self.wrong(
                &rules::VMDK_END,
                format!("it ends after its last grain or table (byte {at}) without an end-of-stream sector"),
            );
        } else if left > SECTOR {
            let rest = self.file.part(at + SECTOR, left - SECTOR);
            let what = if rest.map(|rest| rest.is_zero()).transpose()? == Some(true) {
                "zero bytes"
            } else {
                "bytes"
            };
            self.wrong(
                &rules::VMDK_END,
                format!("{} {what} follow its end-of-stream sector at byte {at}", left - SECTOR),
            );
        }
        Ok(())
    }

    /// Reads one grain; answers where the next part begins, `None` where the walk cannot go on.
    fn grain(&mut self, at: u64, sector: u64, size: u32) -> Result<Option<u64>> {
        let grain = self.header.grain_sectors;
        let place = format!("the grain of sector {sector}, at byte {at},");
        if sector >= self.header.capacity || !sector.is_multiple_of(grain) {
            self.wrong(&rules::VMDK_GRAINS, format!("{place} lies outside the disk or between grains"));
            return Ok(self.give_up());
        }
        // Deflate never makes more of a grain than a few bytes; twice as much is no grain.
        if u64::from(size) > 2 * grain * SECTOR {
            self.wrong(&rules::VMDK_GRAINS, format!("{place} claims {size} bytes"));
            return Ok(self.give_up());
        }
        let Some(packed) = self.file.bytes(at + 12, size as usize)? else {
            self.wrong(&rules::VMDK_GRAINS, format!("{place} is cut short"));
            return Ok(self.give_up());
        };
        let wanted = (self.header.capacity - sector).min(grain);
        match self.decompressor.zlib_decompress(&packed, &mut self.inflated) {
            // A last grain beyond the disk's end may be whole or cut.
            Ok(count) if count == self.inflated.len() || count == bytes(wanted) => {}
            Ok(count) => self.wrong(&rules::VMDK_GRAINS, format!("{place} inflates to {count} bytes")),
            Err(error) => self.wrong(&rules::VMDK_GRAINS, format!("{place} does not inflate: {error}")),
        }
        if self.last.is_some_and(|last| sector <= last) {
            self.wrong(
                &rules::VMDK_GRAINS,
                format!("{place} comes after that of sector {}", self.last.unwrap_or(0)),
            );
            self.tables.disorder();
        }
        self.last = Some(sector);
        if let Err(message) = self.tables.grain(sector / grain, at / SECTOR, self.file)? {
            self.wrong(&rules::VMDK_TABLES, message);
        }
        Ok(Some((at + 12 + u64::from(size)).next_multiple_of(SECTOR)))
    }

    /// The rest cannot be read; nothing is said of rules that it may break.
    fn give_up(&mut self) -> Option<u64> {
        self.report.skip(&[rules::VMDK_TABLES, rules::VMDK_FOOTER, rules::VMDK_END]);
        None
    }

    /// Reads what a marker announces.
    fn announced(&mut self, marker: u64, sectors: u64, kind: u32) -> Result<Option<u64>> {
        let at = marker + SECTOR;
        let known = [Announced::Table, Announced::Directory, Announced::Footer];
        let Some(kind) = known.into_iter().find(|known| *known as u32 == kind) else {
            self.wrong(
                &rules::VMDK_GRAINS,
                format!("there is neither a grain nor a marker at byte {marker}"),
            );
            return Ok(self.give_up());
        };
        let expected = match kind {
            Announced::Table => u64::from(TABLE_ENTRIES) * 4 / SECTOR,
            Announced::Directory => self.tables.directory_sectors(),
            _ => 1,
        };
        let content = if sectors == expected { self.file.bytes(at, bytes(sectors))? } else { None };
        let Some(content) = content else {
            let message = format!(
                "the part announced at byte {marker} has {sectors} sectors instead of {expected}, or is cut short"
            );
            self.wrong(&rules::VMDK_TABLES, message);
            return Ok(self.give_up());
        };
        if self.footer {
            self.wrong(&rules::VMDK_FOOTER, format!("something follows the footer at byte {marker}"));
        }
        match kind {
            Announced::Table => {
                if let Err(message) = self.tables.table(&content, at / SECTOR) {
                    self.wrong(&rules::VMDK_TABLES, message);
                }
            }
            Announced::Directory => {
                if let Err(message) = self.tables.directory(&content, at / SECTOR) {
                    self.wrong(&rules::VMDK_TABLES, message);
                }
            }
            _ => self.compare_footer(&content),
        }
        Ok(Some(at + sectors * SECTOR))
    }

    fn compare_footer(&mut self, content: &[u8]) {
        self.footer = true;
        let sector: [u8; 512] = content.try_into().unwrap_or([0; 512]);
        let Some(footer) = Header::parse(&sector) else {
            self.wrong(&rules::VMDK_FOOTER, "its footer is no header");
            return;
        };
        let directory = footer.gd_offset;
        if (Header { gd_offset: self.header.gd_offset, ..footer }) != *self.header {
            self.wrong(&rules::VMDK_FOOTER, "its footer differs from the header");
        } else if self.tables.directory_at() != Some(directory) {
            self.wrong(
                &rules::VMDK_FOOTER,
                format!("its footer looks for the directory at sector {directory}, where it is not"),
            );
        }
    }
}
