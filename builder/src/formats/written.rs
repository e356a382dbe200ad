//! What we write: other programs and our own readers find the disk in it, twice the same, and nothing behind its end.

use std::io::Cursor;

use fs_err as fs;
use proptest::prelude::*;

use super::Identity;
use super::disk::Raw;
use super::qcow2::write::{Method, write as write_qcow2};
use super::testing::{Images, bytes, open, part, stream};
use super::tests::disk;
use super::vmdk::header::{SECTOR, u64_at};

fn qcow2(images: &Images, size: u64, method: Method) -> Vec<u8> {
    let mut target = Cursor::new(Vec::new());
    write_qcow2(&fs::File::open(images.path("disk.raw")).unwrap(), size, method, &mut target, |_| ())
        .unwrap();
    target.into_inner()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn others_read_what_we_write(wanted in disk()) {
        let images = Images::new();
        let raw = images.file("disk.raw", &wanted);
        let size = wanted.len() as u64;
        for method in [Method::Deflate(6), Method::Zstd(3)] {
            let image = qcow2(&images, size, method);
            prop_assert!(image == qcow2(&images, size, method));
            let path = images.file("image", &image);
            images.qemu_img("check -q -f qcow2 image");
            images.qemu_img("compare -q -f qcow2 -F raw image disk.raw");
            prop_assert!(bytes(open(part(&path).unwrap()).unwrap().as_mut()).unwrap() == wanted);
        }
        let image = stream(&wanted);
        prop_assert!(image == stream(&wanted));
        let path = images.file("image", &image);
        images.qemu_img("compare -q -f vmdk -F raw image disk.raw");
        prop_assert!(bytes(open(part(&path).unwrap()).unwrap().as_mut()).unwrap() == wanted);

        fs::copy(&raw, images.path("image")).unwrap();
        let file = fs::OpenOptions::new().read(true).write(true).open(images.path("image")).unwrap();
        super::vhd::close(&file, size, Identity::of(&file, size).unwrap(), 0).unwrap();
        images.qemu_img("compare -q -f vpc -F raw image disk.raw");
        let disk = super::vhd::without_footer(part(&images.path("image")).unwrap()).unwrap();
        prop_assert!(bytes(&mut Raw::open(disk).unwrap()).unwrap().starts_with(&wanted));
    }
}

#[test]
fn a_stream_ends_with_the_one_sector_that_says_so() {
    // The last grain compresses well, badly, not at all.
    for length in [10, 30_000, 65_536] {
        let mut disk = super::testing::Numbers(7).bytes(length);
        disk.resize(65_536, 0);
        let stream = stream(&disk);
        let sectors: Vec<&[u8]> = stream.chunks(512).collect();
        let [.., marker, footer, end] = sectors[..] else { panic!("too short") };
        assert_eq!(end, [0; 512]);
        assert_eq!(&footer[..4], b"KDMV");
        assert_eq!((marker[12], marker[0]), (3, 1));
        // Its directory is the last thing before, and is where it says.
        let directory = u64_at(footer, 56);
        assert_eq!((directory + 1) * SECTOR, (stream.len() - 3 * 512) as u64);
    }
}

#[test]
fn the_name_of_a_disk_is_that_of_its_content() {
    let name = |content: &[u8]| {
        let stream = stream(content);
        let text = String::from_utf8_lossy(&stream[512..2048]).into_owned();
        text.lines()
            .filter(|line| line.contains("CID") || line.contains("ContentID"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let mut disk = vec![0; 1 << 20];
    disk[5] = 1;
    let one = name(&disk);
    assert_eq!(one, name(&disk));
    disk[5] = 2;
    assert_ne!(one, name(&disk));
}
