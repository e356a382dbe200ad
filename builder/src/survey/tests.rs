//! A small image, surveyed, compared and drawn. What ext4 says is checked against a reader that shares no code with ours.

use std::path::{Path, PathBuf};

use fs_err as fs;

use super::catalogue::Catalogue;
use super::difference::{Change, Difference, Side};
use super::ext4::{FileSystem, Kind};
use super::source::Source;
use super::{Root, Survey, html, text};
use crate::context::Context;
use crate::disk::layout::Layout;
use crate::disk::{Ids, gpt};
use crate::exec::Run;
use crate::qemu::record::{Moment, Record, Span};
use crate::store::Key;
use crate::view::View;

const MIB: u64 = 1 << 20;
/// What is markup in a page and steers a terminal.
const HOSTILE: &str = "a<script>alert('1')<b>&\"\u{1b}[31m";

/// What a test changes in the image.
#[derive(Clone, Copy, PartialEq)]
enum Variant {
    First,
    Second,
}

fn add(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_uid(70_000);
    tar.append_data(&mut header, path, content).unwrap();
}

fn link(tar: &mut tar::Builder<Vec<u8>>, path: &str, target: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    tar.append_link(&mut header, path, target).unwrap();
}

fn folders(tar: &mut tar::Builder<Vec<u8>>, paths: &[&str]) {
    for path in paths {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o755);
        tar.append_data(&mut header, path, std::io::empty()).unwrap();
    }
}

fn tree(variant: Variant) -> Vec<u8> {
    let (first, mut tar) = (variant == Variant::First, tar::Builder::new(Vec::new()));
    let tar = &mut tar;
    folders(tar, &["etc", "etc/systemd", "etc/systemd/system", "etc/systemd/system/multi-user.target.wants"]);
    folders(tar, &["usr", "usr/bin", "usr/share", "var", "var/lib", "var/lib/dpkg", "var/lib/dpkg/info"]);
    add(tar, "etc/os-release", 0o644, b"PRETTY_NAME=\"Small 1\"\n");
    add(tar, "etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
    add(tar, "etc/shadow", 0o600, b"root:*:1::::::\n");
    let version = if first { "1.22" } else { "1.24" };
    let status = format!(
        "Package: nginx\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\nPackage: {HOSTILE}\nStatus: install ok installed\nVersion: 1\n"
    );
    add(tar, "var/lib/dpkg/status", 0o644, status.as_bytes());
    add(tar, "var/lib/dpkg/info/nginx.list", 0o644, b"/.\n/bin\n/bin/tool\n");
    link(tar, "bin", "usr/bin");
    let mut tool: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
    if !first {
        tool[150_000] ^= 1;
    }
    add(tar, "usr/bin/tool", if first { 0o4755 } else { 0o755 }, &tool);
    // mke2fs gives the file what its last name says, so that name says the same.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Link);
    header.set_size(0);
    header.set_mode(if first { 0o4755 } else { 0o755 });
    header.set_uid(70_000);
    tar.append_link(&mut header, "usr/bin/twin", "usr/bin/tool").unwrap();
    let mut hole = vec![0; 4 << 20];
    hole[(3 << 20) + 5] = 1;
    add(tar, "usr/share/hole", 0o644, &hole);
    add(tar, &format!("usr/share/{HOSTILE}"), 0o644, &[1; 9000]);
    link(tar, &format!("usr/share/{}", "long".repeat(9)), &"target/".repeat(14));
    if first {
        link(tar, "etc/systemd/system/multi-user.target.wants/nginx.service", "/lib/nginx.service");
        folders(tar, &["usr/many"]);
        for number in 0..400 {
            add(tar, &format!("usr/many/a-name-that-fills-a-block-of-the-folder-{number}"), 0o644, b"x");
        }
    }
    std::mem::replace(tar, tar::Builder::new(Vec::new())).into_inner().unwrap()
}

/// A whole disk, and where its root lies.
fn image(folder: &Path, variant: Variant, context: &Context) -> (PathBuf, Layout) {
    let name = if variant == Variant::First { "first" } else { "second" };
    let (raw, archive) = (folder.join(format!("{name}.raw")), folder.join(format!("{name}.tar")));
    let layout = Layout::plan(160 * MIB, 34 * MIB).unwrap();
    fs::write(&archive, tree(variant)).unwrap();
    fs::File::create(&raw).unwrap().set_len(160 * MIB).unwrap();
    let options = format!("offset={},root_owner=0:0", layout.root.offset());
    Run::new(&context.log, "mke2fs")
        .env("MKE2FS_CONFIG", "/dev/null")
        .args(["-t", "ext4", "-F", "-q", "-b", "4096", "-I", "256"])
        .args(["-O", "none,has_journal,ext_attr,dir_index,filetype,extent,flex_bg,sparse_super,64bit"])
        .args(["-U", "11111111-2222-4333-8444-555555555555", "-E", &options, "-d"])
        .arg(&archive)
        .arg(&raw)
        .arg((layout.root.bytes() / 4096).to_string())
        .run()
        .unwrap();
    gpt::write(&raw, &layout, &Ids::derive(&Key::of("test", 1, &[]))).unwrap();
    (raw, layout)
}

fn side(path: &Path, context: &Context) -> Side {
    Side::read(View::open(path, context).unwrap(), path).unwrap()
}

#[test]
fn a_survey_says_what_another_reader_says_and_more() {
    let folder = tempfile::tempdir().unwrap();
    let context = Context::for_tests(&folder.path().join("store"));
    let (raw, _) = image(folder.path(), Variant::First, &context);
    let view = View::open(&raw, &context).unwrap();
    let root = Root::read(&view, &raw).unwrap();
    let mut theirs = Vec::new();
    view.walk("/", &mut |node| {
        let metadata = &node.metadata;
        let length = if metadata.is_dir() { 0 } else { metadata.len() };
        theirs.push((node.path.clone(), metadata.mode(), metadata.uid(), length));
        Ok(())
    })
    .unwrap();
    let mut ours: Vec<_> = root
        .catalogue
        .each()
        .skip(1)
        .map(|(entry, inode)| {
            let length = if inode.kind == Kind::Folder { 0 } else { inode.size };
            (String::from_utf8_lossy(&entry.path).into_owned(), inode.mode, inode.uid, length)
        })
        .collect();
    theirs.sort();
    ours.sort();
    assert_eq!(ours, theirs);
    assert!(ours.len() > 420, "{}", ours.len());

    let survey = Survey::of(&view, &root, &raw).unwrap();
    let tool = root.catalogue.find("/usr/bin/tool").unwrap();
    assert_eq!((tool.links, tool.allocated, tool.uid), (2, 200_704, 70_000));
    assert_eq!(survey.files.shared, 200_704);
    let hole = root.catalogue.find("/usr/share/hole").unwrap();
    assert!(hole.size == 4 << 20 && hole.allocated < 64 << 10, "{hole:?}");
    let rights: Vec<_> = survey.privileged.iter().map(|one| (one.path.as_str(), one.mode.as_str())).collect();
    assert_eq!(rights, [("/usr/bin/tool", "4755"), ("/usr/bin/twin", "4755")]);
    // The list says `/bin/tool`, and `/bin` is a link.
    let nginx = survey.packages.iter().find(|package| package.name == "nginx").unwrap();
    assert_eq!((nginx.version.as_str(), nginx.bytes), ("1.22", Some(200_704)));
    assert_eq!(survey.units[0].wanted_by, ["multi-user.target"]);
    let used = survey.partitions[2].file_system.as_ref().unwrap().used;
    assert!((survey.files.allocated..160 * MIB).contains(&used), "{used}");
    let long = root.catalogue.find(&format!("/usr/share/{}", "long".repeat(9))).unwrap();
    assert_eq!(root.catalogue.target(long.number), Some("target/".repeat(14).as_bytes()));

    let shown = text::survey(&survey, true);
    for line in [
        "Small 1",
        "  root ",
        "1 unit enabled",
        "  nginx.service",
        "1 account, none can log in by password",
        "2 packages, largest first",
    ] {
        assert!(shown.contains(line), "no `{line}` in\n{shown}");
    }
    assert!(!shown.contains('\u{1b}'), "{shown}");
    // A screen has 50 lines or fewer, and what is long is not all shown.
    assert!(text::survey(&survey, false).lines().count() < 45);
    page_is_sound(&survey);
}

fn page_is_sound(survey: &Survey) {
    let span =
        |name: &str, begin, end| Span { name: name.to_owned(), begin, end, state: Some(HOSTILE.to_owned()) };
    let record = Record {
        schema: 1,
        image: HOSTILE.to_owned(),
        accelerator: HOSTILE.to_owned(),
        firmware: "bios".to_owned(),
        cpus: 2,
        memory_mib: 2048,
        green: Some(9.0),
        phases: vec![span("kernel", 0.0, 3.0)],
        steps: vec![span(HOSTILE, 3.0, 4.0), span(HOSTILE, 5.0, 9.0)],
        units: vec![span(&format!("{HOSTILE}.service"), 3.0, 4.0)],
        verdicts: vec![Moment { name: "green".to_owned(), at: 9.0 }],
    };
    let page = html::page(survey, Some(&record));
    assert!(
        !page.contains("<script>alert") && !page.contains("<b>&\""),
        "markup of the image is in the page"
    );
    assert!(
        page.contains("a&lt;script&gt;alert(&#39;1&#39;)&lt;b&gt;&amp;&quot;"),
        "the names are not in the page"
    );
    let requests = page.replace("xmlns=\"http://www.w3.org/1999/xhtml\"", "");
    for request in ["http:", "https:", "url(", "@import", " src=", "//fonts"] {
        assert!(!requests.contains(request), "the page has `{request}`");
    }
    let mut reader = quick_xml::Reader::from_str(&page);
    let mut elements = 0;
    loop {
        use quick_xml::events::Event;
        match reader.read_event().expect("the page is well-formed") {
            Event::Start(tag) | Event::Empty(tag) => {
                elements += 1;
                assert!(tag.attributes().all(|attribute| attribute.is_ok()), "attributes of {tag:?}");
            }
            Event::Eof => break,
            _ => {}
        }
    }
    assert!(elements > 100, "{elements}");
}

#[test]
fn two_images_differ_in_what_was_changed_and_in_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let context = Context::for_tests(&folder.path().join("store"));
    let (first, _) = image(folder.path(), Variant::First, &context);
    let (second, _) = image(folder.path(), Variant::Second, &context);
    let qcow2 = folder.path().join("first.qcow2");
    Run::new(&context.log, "qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2", "-c"])
        .arg(&first)
        .arg(&qcow2)
        .run()
        .unwrap();
    let same = Difference::between(&mut side(&first, &context), &mut side(&qcow2, &context)).unwrap();
    assert!(same.is_none() && same.sizes.is_empty(), "{}", text::difference(&same, true));
    assert!(text::difference(&same, false).contains("\nno difference: 3 partitions, 2 packages, "));

    let found = Difference::between(&mut side(&first, &context), &mut side(&second, &context)).unwrap();
    assert!(!found.is_none() && found.partitions.is_empty());
    let [package] = &found.packages[..] else { panic!("{:?}", found.packages) };
    assert_eq!((package.before.as_deref(), package.after.as_deref()), (Some("1.22"), Some("1.24")));
    assert_eq!((found.units.len(), found.units[0].change), (1, Change::Removed));
    let files: Vec<String> = found
        .files
        .iter()
        .filter(|file| !file.inside)
        .map(|file| format!("{:?} {} {} {}", file.change, file.path, file.below, file.what.join(", ")))
        .collect();
    // The folder is the largest: 400 files take 400 blocks, and its own names some more.
    assert_eq!(
        files,
        [
            "Removed /usr/many 400 ",
            "Changed /usr/bin/tool 0 mode 4755 -> 0755, content from byte 150000",
            "Changed /usr/bin/twin 0 mode 4755 -> 0755, content from byte 150000",
            "Changed /var/lib/dpkg/status 0 content from byte 76",
            "Removed /etc/systemd/system/multi-user.target.wants/nginx.service 0 ",
        ]
    );
    assert!(text::difference(&found, false).contains("~ nginx                            1.22 -> 1.24"));
}

#[test]
fn damage_ends_in_an_error_and_not_in_a_panic() {
    use std::os::unix::fs::FileExt as _;
    let folder = tempfile::tempdir().unwrap();
    let context = Context::for_tests(&folder.path().join("store"));
    let (raw, layout) = image(folder.path(), Variant::First, &context);
    let whole = fs::read(&raw).unwrap();
    let start = usize::try_from(layout.root.offset()).unwrap();
    let root = &whole[start..start + usize::try_from(layout.root.bytes()).unwrap()];
    // Superblock, group descriptors, the inodes in use, and every folder's block with one of its names.
    let table = u32::from_le_bytes(root[4096 + 8..4096 + 12].try_into().unwrap()) as usize * 4096;
    let mut tables = vec![1024..1024 + 0x160, 4096..4096 + 64, table..table + 450 * 256];
    let name: &[u8] = b"a-name-that-fills";
    let folders = (0..root.len())
        .step_by(4096)
        .filter(|at| root[*at..*at + 4096].windows(name.len()).any(|text| text == name));
    tables.extend(folders.map(|at| at..at + 4096));
    assert!(tables.len() > 5, "{tables:?}");
    let part = folder.path().join("part");
    fs::write(&part, root).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&part).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (mut errors, mut sound) = (0, 0);
    for _ in 0..600 {
        let table = &tables[usize::try_from(random()).unwrap() % tables.len()];
        let at = (table.start + usize::try_from(random()).unwrap() % (table.len() - 4)) as u64;
        let bytes = random().to_le_bytes();
        let count = 1 + usize::try_from(random() % 4).unwrap();
        file.file().write_all_at(&bytes[..count], at).unwrap();
        let read = FileSystem::open(Source::of_file(&part).unwrap())
            .and_then(|mut system| Catalogue::read(&mut system).map(drop));
        if read.is_err() {
            errors += 1;
        } else {
            sound += 1;
        }
        let place = usize::try_from(at).unwrap();
        file.file().write_all_at(&root[place..place + count], at).unwrap();
    }
    assert!(errors > 50 && sound > 50, "{errors} errors, {sound} sound");
}

#[test]
fn what_steers_a_terminal_is_shown_as_a_number() {
    assert_eq!(super::shown("naïve ✓".as_bytes()), "naïve ✓");
    assert_eq!(super::shown(b"a\x1b[31m\n\xff"), "a\\u{1b}[31m\\u{a}\\xff");
    assert_eq!(super::shown("gpj\u{202e}exe".as_bytes()), "gpj\\u{202e}exe");
}

#[test]
fn the_name_of_a_system() {
    assert_eq!(super::pretty_name("ID=x\nPRETTY_NAME=\"CentOS Linux 7 (Core)\"\n"), "CentOS Linux 7 (Core)");
    assert_eq!(super::pretty_name(""), "unknown system");
}
