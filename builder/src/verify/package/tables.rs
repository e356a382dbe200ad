//! Grain tables and the directory of a VMDK, compared with the grains that the stream really has.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::section::Section;
use crate::formats::vmdk::header::{FLAG_ZERO_GRAINS, Header, SECTOR, TABLE_ENTRIES, u32_at};

/// Bytes of a table.
const TABLE: usize = TABLE_ENTRIES as usize * 4;

/// What a comparison finds: the message for the rule of tables.
pub(super) type Compared = std::result::Result<(), String>;

/// The state of the comparison.
pub(super) struct Tables {
    /// Entries of the directory.
    count: u64,
    /// Sectors before the first grain may begin.
    overhead: u64,
    /// The largest entry that points at nothing: 0 is a hole, and 1 a grain of zeros where the header says that there are such.
    nothing: u32,
    /// The directory, where it is in front.
    front: Option<Vec<u32>>,
    /// The table whose grains are coming: its index and the sector of each grain.
    open: Option<(u64, Vec<u32>)>,
    /// Tables that are done, in order: index (none for an empty one) and, in a stream, sector.
    done: Vec<(Option<u64>, u64)>,
    /// Where the directory was found in the stream, in sectors.
    directory: Option<u64>,
    /// Grains are not in order, so that tables cannot be compared.
    disorder: bool,
}

impl Tables {
    /// For a header that was checked.
    pub(super) fn new(header: &Header) -> Self {
        Tables {
            count: header.capacity.div_ceil(header.grain_sectors).div_ceil(u64::from(TABLE_ENTRIES)),
            overhead: header.overhead,
            nothing: u32::from(header.flags & FLAG_ZERO_GRAINS != 0),
            front: None,
            open: None,
            done: Vec::new(),
            directory: None,
            disorder: false,
        }
    }

    /// Sectors that the directory takes.
    pub(super) fn directory_sectors(&self) -> u64 {
        (self.count * 4).div_ceil(SECTOR)
    }

    /// Where the stream has its directory, in sectors.
    pub(super) fn directory_at(&self) -> Option<u64> {
        self.directory
    }

    /// From now on nothing is compared.
    pub(super) fn disorder(&mut self) {
        self.disorder = true;
    }

    /// Reads the directory of a disk that has it in front.
    pub(super) fn load_directory(&mut self, file: &Section<'_>, sector: u64) -> Result<Compared> {
        let length = usize::try_from(self.count * 4).unwrap_or_default();
        let within = sector > 0 && sector.saturating_add(self.directory_sectors()) <= self.overhead;
        let content = if within { file.bytes(sector.saturating_mul(SECTOR), length)? } else { None };
        // Without a directory every table counts as missing once; that is said here.
        self.disorder = content.is_none();
        self.front = content.map(|content| numbers(&content));
        Ok(if self.disorder {
            Err(format!("the directory at sector {sector} is not before the first grain"))
        } else {
            Ok(())
        })
    }

    /// A grain of the stream: its number on the disk, and its sector in the file.
    pub(super) fn grain(&mut self, number: u64, sector: u64, file: &Section<'_>) -> Result<Compared> {
        if self.disorder {
            return Ok(Ok(()));
        }
        let index = number / u64::from(TABLE_ENTRIES);
        let slot = usize::try_from(number % u64::from(TABLE_ENTRIES)).unwrap_or_default();
        let mut compared = Ok(());
        if self.open.as_ref().is_some_and(|(open, _)| *open != index) {
            compared =
                if self.front.is_some() { self.compare_in_front(file)? } else { Err(self.unannounced()) };
        }
        let (_, slots) = self.open.get_or_insert_with(|| (index, vec![0; TABLE_ENTRIES as usize]));
        slots[slot] = u32::try_from(sector).unwrap_or(u32::MAX);
        Ok(compared)
    }

    fn unannounced(&mut self) -> String {
        let index = self.open.take().map_or(0, |(index, _)| index);
        self.done.push((Some(index), u64::MAX));
        format!("no table follows the grains of table {index}")
    }

    /// Compares the open table with the one in front.
    fn compare_in_front(&mut self, file: &Section<'_>) -> Result<Compared> {
        let (Some((index, slots)), Some(front)) = (self.open.take(), &self.front) else {
            return Ok(Ok(()));
        };
        let entry = usize::try_from(index).ok().and_then(|index| front.get(index)).copied().unwrap_or(0);
        self.done.push((Some(index), u64::from(entry)));
        Ok(match self.table_in_front(file, entry)? {
            Some(table) => self.same(&table, &slots, index),
            None => Err(format!("the directory has no table {index}, though grains of it follow")),
        })
    }

    fn table_in_front(&self, file: &Section<'_>, entry: u32) -> Result<Option<Vec<u32>>> {
        let sector = u64::from(entry);
        if sector == 0 || sector + (TABLE as u64 / SECTOR) > self.overhead {
            return Ok(None);
        }
        Ok(file.bytes(sector * SECTOR, TABLE)?.map(|bytes| numbers(&bytes)))
    }

    /// After the last grain of a disk with its tables in front: the rest of them must be empty.
    pub(super) fn finish_in_front(&mut self, file: &Section<'_>) -> Result<Compared> {
        if self.disorder {
            return Ok(Ok(()));
        }
        if let Err(message) = self.compare_in_front(file)? {
            return Ok(Err(message));
        }
        let Some(front) = &self.front else { return Ok(Ok(())) };
        let mut seen = self.done.iter().filter_map(|(index, _)| *index).peekable();
        for (index, entry) in (0_u64..).zip(front) {
            if seen.next_if_eq(&index).is_some() || *entry == 0 {
                continue;
            }
            match self.table_in_front(file, *entry)? {
                Some(table) if table.iter().all(|slot| *slot <= self.nothing) => {}
                Some(_) => return Ok(Err(format!("table {index} names grains that the stream has not"))),
                None => {
                    return Ok(Err(format!(
                        "the directory has table {index} at sector {entry}, where none can be"
                    )));
                }
            }
        }
        Ok(Ok(()))
    }

    /// A table in the stream.
    pub(super) fn table(&mut self, content: &[u8], sector: u64) -> Compared {
        if self.disorder || self.front.is_some() {
            return Ok(());
        }
        let table = numbers(content);
        if let Some((index, slots)) = self.open.take() {
            self.done.push((Some(index), sector));
            self.same(&table, &slots, index)
        } else {
            self.done.push((None, sector));
            let empty = table.iter().all(|slot| *slot <= self.nothing);
            if empty {
                Ok(())
            } else {
                Err(format!("the table at sector {sector} follows no grains, and names some"))
            }
        }
    }

    /// The directory in the stream.
    pub(super) fn directory(&mut self, content: &[u8], sector: u64) -> Compared {
        let before = self.directory.replace(sector);
        if before.is_some() {
            return Err(format!("a second directory is at sector {sector}"));
        }
        if self.disorder || self.front.is_some() {
            return Ok(());
        }
        if self.open.is_some() {
            return Err(self.unannounced());
        }
        // Of a table without grains only the place is known.
        let placed: BTreeMap<u64, u64> =
            self.done.iter().filter_map(|(index, place)| Some(((*index)?, *place))).collect();
        let empty: BTreeSet<u64> =
            self.done.iter().filter(|(index, _)| index.is_none()).map(|(_, place)| *place).collect();
        for (index, entry) in (0..self.count).zip(numbers(content)) {
            let entry = u64::from(entry);
            match placed.get(&index) {
                Some(place) if entry == *place => {}
                None if entry == 0 || empty.contains(&entry) => {}
                Some(place) => {
                    return Err(format!(
                        "the directory has table {index} at sector {entry}, and it is at {place}"
                    ));
                }
                None => {
                    return Err(format!("the directory has table {index} at sector {entry}, where none is"));
                }
            }
        }
        Ok(())
    }

    /// Compares a table with the places of its grains.
    fn same(&self, table: &[u32], slots: &[u32], index: u64) -> Compared {
        let nothing = |entry: u32| entry <= self.nothing;
        let same = |said: u32, is: u32| said == is || (nothing(said) && nothing(is));
        match table.iter().zip(slots).position(|(said, is)| !same(*said, *is)) {
            None => Ok(()),
            Some(slot) => Err(format!(
                "table {index} has its grain {slot} at sector {}, and the stream has it at {}",
                table[slot], slots[slot]
            )),
        }
    }
}

fn numbers(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|chunk| u32_at(chunk, 0)).collect()
}
