//! What others write is read to the last byte; what nobody should write ends in one message.

use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use fs_err as fs;
use proptest::prelude::*;

use super::disk::{Raw, ReadDisk, to_raw};
use super::tar::first_member;
use super::testing::{Images, Numbers, bytes, open, part, stream};
use super::vmdk::header::{Header, SECTOR, u32_at};
use crate::error::exit_code;

/// What `qemu-img convert` is told.
const FORMATS: &[&str] = &[
    "-O vmdk -o subformat=monolithicSparse",
    "-O vmdk -o subformat=streamOptimized",
    "-O qcow2 -o compat=0.10",
    "-O qcow2 -o compat=0.10 -c",
    "-O qcow2 -o cluster_size=4k",
    "-O qcow2 -o cluster_size=512 -c",
    "-O qcow2 -o cluster_size=2M -c",
    "-O qcow2 -o compression_type=zstd -c",
    "-O qcow2 -o compression_type=zstd,cluster_size=4k -c",
    "-O qcow2 -o compression_type=zstd,cluster_size=2M -c",
    "-O qcow2 -o preallocation=metadata,lazy_refcounts=on",
];

/// A disk of some sectors, with pieces of what compresses well, what does not, and what is zero.
pub(super) fn disk() -> impl Strategy<Value = Vec<u8>> {
    let piece = (any::<prop::sample::Index>(), 1..200_000_usize, 0..3_u8);
    (1..12_000_usize, prop::collection::vec(piece, 0..8), any::<u64>()).prop_map(|(sectors, pieces, seed)| {
        let mut disk = vec![0; sectors * 512];
        let mut numbers = Numbers(seed);
        for (place, length, kind) in pieces {
            let start = place.index(disk.len());
            let end = disk.len().min(start + length);
            match kind {
                0 => disk[start..end].copy_from_slice(&numbers.bytes(end - start)),
                1 => disk[start..end]
                    .iter_mut()
                    .zip(b"some text, again and again ".iter().cycle())
                    .for_each(|(to, from)| *to = *from),
                _ => disk[start..end].fill(0),
            }
        }
        disk
    })
}

/// Reads all of a disk in every way that there is.
fn check(disk: &mut dyn ReadDisk, wanted: &[u8], images: &Images, name: &str) {
    assert_eq!(disk.size(), wanted.len() as u64, "{name}");
    assert!(bytes(disk).unwrap() == wanted, "{name}: read_at");
    let mut rest = wanted.to_vec();
    let mut offset = 0;
    while let Some(range) = disk.next_data(offset).unwrap() {
        assert!(range.start >= offset && range.end > range.start, "{name}: {range:?} from {offset}");
        offset = range.end;
        rest[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].fill(0);
    }
    assert!(rest.iter().all(|byte| *byte == 0), "{name}: next_data leaves data out");
    let copy = images.path("copy.raw");
    to_raw(disk, &copy).unwrap();
    assert!(fs::read(&copy).unwrap() == wanted, "{name}: to_raw");
    assert!(disk.read_at(disk.size() - 1, &mut [0; 2]).is_err(), "{name}: behind the end");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_others_write_is_read(wanted in disk()) {
        let images = Images::new();
        let raw = images.file("disk.raw", &wanted);
        check(&mut Raw::open(part(&raw).unwrap()).unwrap(), &wanted, &images, "raw");
        for format in FORMATS {
            let image = images.convert(format);
            check(open(part(&image).unwrap()).unwrap().as_mut(), &wanted, &images, format);
        }
    }

    #[test]
    fn a_stream_is_read_in_the_middle_of_a_tar(wanted in disk()) {
        let images = Images::new();
        images.file("disk.raw", &wanted);
        let stream = stream(&wanted);
        images.file("stream.vmdk", &stream);
        // That it is one is for another program to say.
        images.qemu_img("compare -f vmdk -F raw stream.vmdk disk.raw");
        let mut archive = tar::Builder::new(Vec::new());
        for (name, content) in [("a.ovf", &b"<Envelope/>"[..]), ("a-disk1.VMDK", &stream), ("b.vmdk", b"other")] {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, content).unwrap();
        }
        let archive = part(&images.file("a.ova", &archive.into_inner().unwrap())).unwrap();
        let member = first_member(&archive, |name| name.to_lowercase().ends_with(".vmdk")).unwrap().unwrap();
        prop_assert!(member.name().ends_with("a.ova`: its member `a-disk1.VMDK`"), "{}", member.name());
        check(open(member).unwrap().as_mut(), &wanted, &images, "in a tar");
    }
}

/// A small disk whose tables and units are all used in some way.
fn small() -> Vec<u8> {
    let mut disk = vec![0; 300 * 1024];
    disk[..3000].copy_from_slice(&Numbers(1).bytes(3000));
    disk[70_000..140_000].fill(b'x');
    let end = disk.len();
    disk[end - 700..].fill(b'y');
    disk
}

/// Opens and reads what there is, at most some megabytes; what cannot be read must be the file's fault.
fn read_some(open: impl FnOnce() -> Result<Option<Box<dyn ReadDisk>>>) -> Result<()> {
    let Some(mut disk) = open()? else { return Ok(()) };
    let mut buffer = vec![0; 50_000];
    let mut offset = 0;
    for _ in 0..40 {
        let Some(range) = disk.next_data(offset)? else { break };
        let length = buffer.len().min(usize::try_from(range.end - range.start)?);
        disk.read_at(range.start, &mut buffer[..length])?;
        offset = range.start + length as u64;
    }
    let last = disk.size().saturating_sub(1);
    if disk.size() > 0 {
        disk.read_at(last, &mut buffer[..1])?;
    }
    Ok(())
}

/// Changes some bytes, or cuts off the end: where tables are more than anywhere else.
fn mutate(good: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bad = good.to_vec();
    // Places with something in them; of those the first sector is taken half the time.
    let used: Vec<usize> =
        (0..good.len()).step_by(8).filter(|at| good[*at..].iter().take(8).any(|byte| *byte != 0)).collect();
    for _ in 0..=numbers.below(3) {
        let near = if numbers.below(2) == 0 {
            numbers.below(128.min(good.len()))
        } else {
            used[numbers.below(used.len())]
        };
        let at = (near + numbers.below(8)).min(bad.len() - 1);
        let value = match numbers.below(6) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << numbers.below(64),
            3 => good.len() as u64 / [1, 512][numbers.below(2)],
            _ => numbers.next(),
        };
        let value = if numbers.below(2) == 0 { value.to_le_bytes() } else { value.to_be_bytes() };
        let count = [1, 1, 2, 4, 8][numbers.below(5)].min(bad.len() - at);
        bad[at..at + count].copy_from_slice(&value[..count]);
    }
    if numbers.below(10) == 0 {
        bad.truncate(numbers.below(bad.len()));
    }
    bad
}

fn survives(
    images: &Images,
    good: &[u8],
    rounds: u64,
    open: impl Fn(super::part::Part) -> Result<Option<Box<dyn ReadDisk>>>,
) {
    let path = images.file("bad", good);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let mut refused = 0;
    for round in 0..rounds {
        let bad = mutate(good, &mut Numbers(round));
        file.set_len(bad.len() as u64).unwrap();
        file.file().write_all_at(&bad, 0).unwrap();
        let start = Instant::now();
        if let Err(error) = read_some(|| open(part(&path)?)) {
            assert_eq!(exit_code(&error), 1, "round {round}: {error:#}");
            assert!(format!("{error:#}").contains("bad`"), "round {round}: {error:#}");
            refused += 1;
        }
        assert!(start.elapsed() < Duration::from_secs(3), "round {round} took {:?}", start.elapsed());
    }
    // Otherwise nothing was changed that matters.
    assert!(refused > rounds / 5, "only {refused} of {rounds} were refused");
}

#[test]
fn a_mutated_image_is_refused_or_read() {
    let images = Images::new();
    images.file("disk.raw", &small());
    survives(&images, &stream(&small()), 1500, |part| open(part).map(Some));
    for format in [FORMATS[0], FORMATS[1], FORMATS[4], FORMATS[5], FORMATS[8]] {
        let good = fs::read(images.convert(format)).unwrap();
        survives(&images, &good, 800, |part| open(part).map(Some));
    }
}

#[test]
fn a_mutated_archive_is_refused_or_read() {
    let images = Images::new();
    let mut archive = tar::Builder::new(Vec::new());
    // Names too long for one header, in the way of GNU and in that of POSIX.
    let content = vec![7; 3000];
    for mut header in [tar::Header::new_gnu(), tar::Header::new_ustar()] {
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, format!("{}.txt", "n".repeat(90)), &content[..]).unwrap();
    }
    archive.append_pax_extensions([("path", &[b'p'; 300][..]), ("comment", b"none")]).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(3000);
    archive.append_data(&mut header, format!("{}.vmdk", "n".repeat(200)), &content[..]).unwrap();
    let good = archive.into_inner().unwrap();
    survives(&images, &good, 3000, |part| {
        let member = first_member(&part, |name| name.ends_with(".vmdk"))?;
        member.map(|member| Ok(Box::new(Raw::open(member)?) as Box<dyn ReadDisk>)).transpose()
    });
}

#[test]
fn members_are_found_by_names_of_every_length() {
    let images = Images::new();
    let find = |archive: tar::Builder<Vec<u8>>, wanted: &str| {
        let archive = part(&images.file("a.tar", &archive.into_inner().unwrap())).unwrap();
        let member = first_member(&archive, |name| name == wanted).unwrap().unwrap();
        bytes(&mut Raw::open(member).unwrap()).unwrap()
    };
    let long = format!("{}/{}.vmdk", "folder".repeat(20), "name".repeat(20));
    for mut header in [tar::Header::new_ustar(), tar::Header::new_gnu()] {
        header.set_size(5);
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_data(&mut header.clone(), "other.vmdk", &b"other"[..]).unwrap();
        archive.append_data(&mut header, &long, &b"found"[..]).unwrap();
        assert_eq!(find(archive, &long), b"found");
    }
    // The name of the extended header counts, and its size.
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_pax_extensions([("path", &b"posix.vmdk"[..]), ("size", b"5")]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(5);
    archive.append_data(&mut header, "short", &b"found"[..]).unwrap();
    assert_eq!(find(archive, "posix.vmdk"), b"found");
}

/// What is said of a file, without its path.
fn said(images: &Images, name: &str) -> String {
    let error = open(part(&images.path(name)).unwrap()).err().map_or("it was opened".to_owned(), |error| {
        assert_eq!(exit_code(&error), 1, "{error:#}");
        error.to_string()
    });
    error.replace(&format!("`{}` ", images.path(name).display()), "")
}

#[test]
fn what_is_no_disk_by_itself_is_refused() {
    let images = Images::new();
    images.file("disk.raw", &small());
    images.qemu_img("create -q -f qcow2 -b disk.raw -F raw backing.qcow2");
    images.qemu_img("create -q -f qcow2 -o data_file=data.raw external.qcow2 1M");
    images.qemu_img("create -q -f qcow2 -o extended_l2=on subclusters.qcow2 1M");
    // What `qemu-img` takes seconds to make, or does not make: by the header alone.
    let plain = fs::read(images.convert("-O qcow2")).unwrap();
    for (name, at, bit) in [("luks", 35, 2), ("corrupt", 79, 2), ("unknown", 78, 1), ("zstd", 79, 8)] {
        let mut bytes = plain.clone();
        bytes[at] |= bit;
        images.file(&format!("{name}.qcow2"), &bytes);
    }
    images.qemu_img("convert -f raw -O vmdk disk.raw parent.vmdk");
    images.qemu_img("create -q -f vmdk -b parent.vmdk -F vmdk child.vmdk");
    images.qemu_img("convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse disk.raw split.vmdk");
    let other = "is not a disk by itself: it refers to other files";
    for (name, wanted) in [
        ("backing.qcow2", format!("{other} (it holds only what differs from a backing file)")),
        ("external.qcow2", format!("{other} (its clusters lie in a data file)")),
        ("subclusters.qcow2", "has subclusters (extended_l2), which are not read here".to_owned()),
        ("luks.qcow2", "is encrypted".to_owned()),
        (
            "corrupt.qcow2",
            "is damaged: it is marked as corrupt; `qemu-img check -r all` may repair a copy of it".to_owned(),
        ),
        ("unknown.qcow2", "has features that are unknown (bits 0x100)".to_owned()),
        ("zstd.qcow2", "is damaged: its feature bits contradict its compression type".to_owned()),
        ("child.vmdk", format!("{other} (it holds only what differs from a parent)")),
        ("split-s001.vmdk", "is not a disk by itself: it is one of several files of a disk".to_owned()),
    ] {
        assert_eq!(said(&images, name), wanted, "{name}");
    }
}

#[test]
fn a_header_cannot_ask_for_more_than_there_is() {
    let images = Images::new();
    let good = stream(&small());
    let huge = Header { capacity: u64::MAX, ..Header::stream(600, 20) };
    for (name, header, wanted) in [
        ("huge", huge, "claims to be larger than 4 TiB"),
        (
            "large",
            Header { capacity: 8 << 30, ..Header::stream(600, 20) },
            "is damaged: it has no footer before its last sector, or one that contradicts the header; it may have been cut off",
        ),
        (
            "grains",
            Header { grain_sectors: 3, ..Header::stream(600, 20) },
            "is damaged: its grains are said to have 3 sectors",
        ),
        (
            "tables",
            Header {
                gd_offset: 1,
                capacity: 8 << 30,
                grain_sectors: 8,
                table_entries: 1,
                ..Header::stream(600, 20)
            },
            "is damaged: its grain directory has 4294967296 bytes, more than 16777216",
        ),
    ] {
        let mut bad = good.clone();
        bad[..512].copy_from_slice(&header.to_bytes());
        images.file(name, &bad);
        assert_eq!(said(&images, name), wanted, "{name}");
    }
    images.file("short", &good[..good.len() - 100]);
    assert!(said(&images, "short").contains("it may have been cut off"));
}

#[test]
fn units_that_are_used_again_and_again_are_noticed() {
    let images = Images::new();
    let mut wanted = vec![0; 64 << 20];
    wanted[..65536].fill(b'x');
    let mut bad = stream(&wanted);
    // Every grain of the first 32 MiB is the first one; its marker says so only of that.
    let footer = bad[bad.len() - 1024..].first_chunk().and_then(Header::parse).unwrap();
    let directory = usize::try_from(footer.gd_offset * SECTOR).unwrap();
    let table = u32_at(&bad, directory) as usize * 512;
    for entry in bad[table..table + 2048].chunks_mut(4) {
        entry.copy_from_slice(&128_u32.to_le_bytes());
    }
    images.file("aliased.vmdk", &bad);
    let mut disk = open(part(&images.path("aliased.vmdk")).unwrap()).unwrap();
    let error = disk.read_at(65536, &mut [0]).unwrap_err().to_string();
    assert!(error.contains("says that it is of sector 0, not 128"), "{error}");

    images.file("disk.raw", &wanted);
    let mut bad = fs::read(images.convert("-O qcow2 -c -o cluster_size=2M")).unwrap();
    let header = super::qcow2::header::Header::parse(&bad).unwrap();
    let l1 = usize::try_from(header.l1_offset).unwrap();
    let l2 = usize::try_from(super::qcow2::header::u64_at(&bad, l1) & super::qcow2::header::OFFSET).unwrap();
    let entry: [u8; 8] = bad[l2..l2 + 8].try_into().unwrap();
    for other in bad[l2..l2 + 2048].chunks_mut(8) {
        other.copy_from_slice(&entry);
    }
    // The file is long enough for what it claims, in bytes of its own tables: it is read, and its copy is what it says.
    images.file("aliased.qcow2", &bad);
    let mut disk = open(part(&images.path("aliased.qcow2")).unwrap()).unwrap();
    let mut buffer = [0; 2];
    disk.read_at(2 << 20, &mut buffer).unwrap();
    assert_eq!(&buffer, b"xx");
    let error = to_raw(&Claims(disk), &images.path("copy.raw")).unwrap_err().to_string();
    assert!(error.contains("claims to hold more data than its length has room for"), "{error}");
}

/// A disk whose file has room for one unit.
struct Claims(Box<dyn ReadDisk>);

impl ReadDisk for Claims {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_at(&mut self, offset: u64, target: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, target)
    }
    fn next_data(&mut self, offset: u64) -> Result<Option<std::ops::Range<u64>>> {
        self.0.next_data(offset)
    }
    fn most_data(&self) -> u64 {
        2 << 20
    }
    fn name(&self) -> &str {
        self.0.name()
    }
    fn twin(&self) -> Box<dyn ReadDisk> {
        Box::new(Claims(self.0.twin()))
    }
}
