//! Channels in a folder that stands for a machine: who wins, who fills, what stays.

use super::readers::tests::structure;
use super::{STORED, adopt, look_again, read_offered, search, settle_domain};

const GOOD: &str = "schema = 1\ndomain = \"v6don.example.net\"\n";

fn machine(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = root.path().join(path.trim_start_matches('/'));
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
    }
    root
}

#[test]
fn a_channel_replaces_the_stored_configuration_until_the_domain_is_settled() {
    let root = machine(&[(super::fw_cfg::RAW, GOOD.as_bytes())]);
    assert!(adopt(root.path()).unwrap().found.is_some());
    let stored = root.path().join(STORED.trim_start_matches('/'));
    assert_eq!(fs_err::read_to_string(&stored).unwrap(), GOOD);
    let domain = || adopt(root.path()).unwrap().found.map(|(settings, _)| settings.domain.to_string());
    let offer = |text: &str| {
        fs_err::write(root.path().join(super::fw_cfg::RAW.trim_start_matches('/')), text).unwrap();
    };
    // The operator's own edit stays while the channel says what it said.
    fs_err::write(&stored, GOOD.replace("v6", "edited")).unwrap();
    assert_eq!(domain().unwrap(), "editeddon.example.net");
    offer("schema = 1\n");
    assert_eq!(domain().unwrap(), "editeddon.example.net", "what is not valid replaces nothing");
    offer(&GOOD.replace("v6", "v4"));
    assert_eq!(domain().unwrap(), "editeddon.example.net", "an edit stays");
    fs_err::remove_file(&stored).unwrap();
    assert_eq!(domain().unwrap(), "v4don.example.net");
    offer(&GOOD.replace("v6", "v5"));
    assert_eq!(domain().unwrap(), "v5don.example.net");
    // A file that fits to nothing does not lock everybody out.
    fs_err::write(&stored, "schema = 1\n").unwrap();
    assert!(domain().is_none());
    offer(&GOOD.replace("v6", "v4"));
    assert_eq!(domain().unwrap(), "v4don.example.net");
    settle_domain(root.path(), "v4don.example.net").unwrap();
    offer(GOOD);
    assert_eq!(domain().unwrap(), "v4don.example.net");
    fs_err::write(&stored, GOOD).unwrap();
    let search = search(root.path());
    assert!(search.found.is_none());
    assert!(search.refused[0].contains("`v4don.example.net` for ever"), "{:?}", search.refused);
}

const FW_CFG: &str = super::fw_cfg::RAW;
const SMBIOS: &str = "/sys/firmware/dmi/entries/11-0/raw";
const CMDLINE: &str = "/proc/cmdline";

fn put(root: &tempfile::TempDir, path: &str, content: &[u8]) {
    let path = root.path().join(path.trim_start_matches('/'));
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, content).unwrap();
}

fn stored(root: &tempfile::TempDir) -> String {
    fs_err::read_to_string(root.path().join(STORED.trim_start_matches('/'))).unwrap()
}

#[test]
fn several_channels_make_one_configuration() {
    let root = machine(&[
        (FW_CFG, b"schema = 1\nhostname = \"top\"\n"),
        (
            SMBIOS,
            &structure(&[
                b"mastodon.hostname=middle",
                b"mastodon.mail.password=hunter2",
                b"mastodon.mail.login=words",
            ]),
        ),
        (
            CMDLINE,
            b"ro mastodon.domain=a.example mastodon.mail.relay=192.0.2.25 mastodon.mail.from=a@a.example\n",
        ),
    ]);
    insta::assert_snapshot!(super::survey(root.path()), @"
    QEMU's fw_cfg entry opt/org.mastodon/config: a part: hostname
    SMBIOS type 11: a part: hostname, mail.login, mail.password
    the kernel command line: valid, for the instance `a.example`
    ");
    let search = adopt(root.path()).unwrap();
    let (settings, _) = search.found.as_ref().unwrap();
    assert_eq!((settings.domain.as_str(), settings.hostname()), ("a.example", "top"));
    let origin = search.origin();
    assert!(!origin.contains("hunter2"), "{origin}");
    insta::assert_snapshot!(origin, @"
    # domain: from the kernel command line
    # hostname: from QEMU's fw_cfg entry opt/org.mastodon/config
    # mail.from: from the kernel command line
    # mail.login: from SMBIOS type 11
    # mail.password: from SMBIOS type 11
    # mail.relay: from the kernel command line
    ");
    // The stored text is the same configuration, and its keys are still known by their channels.
    let again = super::search(root.path());
    assert_eq!(again.origin(), origin);
    assert!(again.given.is_none(), "nothing is left to be stored");
    put(&root, STORED, stored(&root).replace("\"top\"", "\"mine\"").as_bytes());
    let edited = super::search(root.path()).origin();
    assert!(edited.contains("# hostname: from /etc/appliance/config.toml\n"), "{edited}");
    // News of a lower channel, for a key that a higher one has.
    put(
        &root,
        CMDLINE,
        b"mastodon.hostname=low mastodon.domain=b.example mastodon.mail.relay=192.0.2.25 mastodon.mail.from=a@a.example\n",
    );
    let (settings, _) = adopt(root.path()).unwrap().found.unwrap();
    assert_eq!((settings.domain.as_str(), settings.hostname()), ("b.example", "mine"));
}

#[test]
fn edits_stay_when_a_channel_has_news_before_there_is_a_database() {
    let full =
        format!("{GOOD}hostname = \"top\"\nmail = {{ relay = \"192.0.2.25\", from = \"a@a.example\" }}\n");
    let root = machine(&[
        (FW_CFG, full.as_bytes()),
        (SMBIOS, &structure(&[b"mastodon.network.search=example", b"mastodon.web.listen=dual"])),
    ]);
    adopt(root.path()).unwrap();
    // One key edited, one added, one removed.
    let edited = stored(&root).replace("\"top\"", "\"mine\"").replace("web.listen", "# web.listen");
    put(&root, STORED, format!("{edited}acme.email = \"b@a.example\"\n").as_bytes());
    let before = stored(&root);
    adopt(root.path()).unwrap();
    assert_eq!(stored(&root), before, "the same words change nothing");
    // A channel that has said nothing yet: its keys come in, and the rest of the text is as it was.
    put(&root, CMDLINE, b"mastodon.hostname=low mastodon.network.dns=192.0.2.53\n");
    let search = adopt(root.path()).unwrap();
    let text = stored(&root);
    assert!(
        text.contains("dns = [\"192.0.2.53\"]  # the kernel command line") && text.contains("# web.listen"),
        "{text}"
    );
    assert_eq!(search.found.as_ref().unwrap().0.hostname(), "mine");
    let note = "`acme.email`, `hostname`, `web.listen` stays as it was edited";
    assert!(search.notes.iter().any(|note_| note_.starts_with(note)), "{:?}", search.notes);
    let origin = super::search(root.path()).origin();
    assert!(origin.contains("# hostname: from /etc/appliance/config.toml\n"), "{origin}");
    assert!(origin.contains("# network.search: from SMBIOS type 11\n"), "{origin}");
    // What was not edited follows its channel, what a channel takes back goes, what is of a silent one stays.
    fs_err::remove_file(root.path().join(&SMBIOS[1..])).unwrap();
    put(&root, CMDLINE, b"quiet\n");
    put(&root, FW_CFG, format!("{GOOD}hostname = \"other\"\n").as_bytes());
    let (settings, _) = adopt(root.path()).unwrap().found.unwrap();
    assert_eq!(settings.hostname(), "mine");
    let text = stored(&root);
    assert!(!text.contains("mail.relay") && !text.contains("dual"), "{text}");
    assert!(text.contains("network.search = [\"example\"]") && text.contains("b@a.example"), "{text}");
}

#[test]
fn nothing_is_taken_of_another_instance() {
    let other = b"mastodon.domain=b.example mastodon.hostname=sns mastodon.network.search=b.example\n";
    let root = machine(&[(FW_CFG, GOOD.as_bytes()), (CMDLINE, other)]);
    let search = adopt(root.path()).unwrap();
    assert_eq!(stored(&root), GOOD);
    insta::assert_snapshot!(search.notes.join("\n"), @"the kernel command line: key `domain`: it says `b.example`, but the configuration in force is for `v6don.example.net`: nothing of it is taken");
    // Nor does it excuse what is wrong below it, where it does not count itself.
    let root = machine(&[
        (FW_CFG, b"schema = 1\ndomain = \"a.example\"\n[mail]\nlogin = \"a\"\n"),
        (SMBIOS, &structure(&[b"mastodon.domain=b.example"])),
        (CMDLINE, b"mastodon.hostnam=a\n"),
    ]);
    assert!(super::search(root.path()).refused[0].contains("`hostnam`"));
}

#[test]
fn a_settled_machine_that_forgot_its_channels_adds_nothing() {
    let part = structure(&[b"mastodon.network.search=example"]);
    let root = machine(&[(STORED, GOOD.as_bytes()), (SMBIOS, &part[..4])]);
    settle_domain(root.path(), "v6don.example.net").unwrap();
    let given = "/etc/appliance/given.json";
    put(&root, given, b"{\"damaged");
    let boot = || {
        look_again(root.path()).unwrap();
        adopt(root.path()).unwrap();
        stored(&root)
    };
    // A channel that cannot be heard may have stated anything.
    assert_eq!(boot(), GOOD);
    put(&root, SMBIOS, &part);
    assert_eq!(boot(), GOOD);
    assert_eq!(boot(), GOOD, "what was offered then counts as stated");
    put(&root, SMBIOS, &structure(&[b"mastodon.network.search=net", b"mastodon.hostname=sns"]));
    assert_eq!(boot(), format!("hostname = \"sns\"  # SMBIOS type 11\n{GOOD}"));
    // What cannot be stored is tried again in the same boot.
    look_again(root.path()).unwrap();
    fs_err::remove_file(root.path().join(&given[1..])).unwrap();
    put(&root, &format!("{given}/in-the-way"), b"");
    assert!(adopt(root.path()).is_err());
    assert!(!root.path().join(&super::LOOKED[1..]).exists());
}

#[test]
fn a_wrong_channel_stops_those_below_it_and_none_above() {
    let typo = structure(&[b"mastodon.hostnam=a"]);
    let root = machine(&[(SMBIOS, &typo), (CMDLINE, b"mastodon.domain=a.example\n")]);
    let wrong = search(root.path());
    assert!(wrong.found.is_none());
    assert!(wrong.refused[0].starts_with("SMBIOS type 11: unknown key `hostnam`"), "{:?}", wrong.refused);
    // What cannot be read is a hole, and named.
    put(&root, SMBIOS, &typo[..4]);
    let hole = search(root.path());
    assert_eq!(hole.found.unwrap().0.domain.as_str(), "a.example");
    assert!(hole.notes[0].contains("the table of the firmware is damaged"), "{:?}", hole.notes);
    // Nothing but what cannot be read: that is why there is nothing.
    put(&root, CMDLINE, b"quiet\n");
    assert!(search(root.path()).refused[0].contains("damaged"));
    // Below a full configuration nobody needs what is wrong.
    put(&root, SMBIOS, &typo);
    put(&root, FW_CFG, GOOD.as_bytes());
    let full = search(root.path());
    assert!(full.found.is_some() && full.refused.is_empty());
    assert!(full.notes[0].contains("unknown key `hostnam`"), "{:?}", full.notes);
    // A filler that contradicts the full one is passed over as a whole.
    put(&root, SMBIOS, &structure(&[b"mastodon.hostname=a", b"mastodon.network.ipv4.gateway=192.0.2.1"]));
    let full = search(root.path());
    assert_eq!(full.found.unwrap().1.text, GOOD);
    assert!(
        full.notes[0].contains("key `network.ipv4.method`") && full.notes[0].contains("SMBIOS"),
        "{:?}",
        full.notes
    );
}

#[test]
fn holes_of_a_settled_machine_are_filled_once() {
    let commented = format!("# mine\n{GOOD}");
    let root = machine(&[
        (FW_CFG, commented.as_bytes()),
        (SMBIOS, &structure(&[b"mastodon.network.search=example"])),
    ]);
    adopt(root.path()).unwrap();
    settle_domain(root.path(), "v6don.example.net").unwrap();
    let boot = || {
        look_again(root.path()).unwrap();
        adopt(root.path()).unwrap()
    };
    let before = stored(&root);
    assert!(boot().notes.is_empty());
    assert_eq!(stored(&root), before, "the same words change nothing");
    // The operator removes a key that a channel goes on stating: it stays removed.
    let without: Vec<&str> = before.split_inclusive('\n').filter(|line| !line.contains("search")).collect();
    let without = without.concat();
    put(&root, STORED, without.as_bytes());
    boot();
    assert_eq!(stored(&root), without);
    // A key that nobody has stated before is a hole, one that is there is not; the domain is for ever.
    put(&root, SMBIOS, &structure(&[b"mastodon.domain=b.example", b"mastodon.hostname=other"]));
    let mut notes = boot().notes;
    assert_eq!(stored(&root), without);
    put(&root, SMBIOS, &structure(&[b"mastodon.hostname=sns", b"mastodon.network.search=net"]));
    let search = boot();
    notes.extend(search.notes);
    assert_eq!(stored(&root), format!("hostname = \"sns\"  # SMBIOS type 11\n{without}"));
    assert_eq!(search.found.unwrap().0.domain.as_str(), "v6don.example.net");
    insta::assert_snapshot!(notes.join("\n"), @"
    SMBIOS type 11: key `domain`: it says `b.example`, but this instance is `v6don.example.net` for ever, because every account carries that name; write `v6don.example.net` again, or start another instance on a blank data disk; nothing of it is taken
    `hostname` added to `/etc/appliance/config.toml` from SMBIOS type 11
    ");
    put(&root, SMBIOS, &structure(&[b"mastodon.hostname=other"]));
    boot();
    assert!(stored(&root).contains("\"sns\""), "what is stored is not overwritten");
    // Only once a boot, since looking may mean mounting.
    put(&root, SMBIOS, &structure(&[b"mastodon.web.listen=dual"]));
    adopt(root.path()).unwrap();
    assert!(!stored(&root).contains("dual"));
    boot();
    assert!(stored(&root).contains("[web]\nlisten = \"dual\"  # SMBIOS type 11\n"), "{}", stored(&root));
}

#[test]
fn a_file_of_the_operators_own_is_filled_and_never_replaced() {
    let own = format!("# by hand\n{GOOD}");
    let root = machine(&[(STORED, own.as_bytes()), (CMDLINE, b"mastodon.hostname=sns\n")]);
    adopt(root.path()).unwrap();
    assert_eq!(stored(&root), format!("hostname = \"sns\"  # the kernel command line\n{own}"));
    put(&root, CMDLINE, b"mastodon.domain=c.example mastodon.hostname=other\n");
    let search = adopt(root.path()).unwrap();
    assert_eq!(search.found.unwrap().0.domain.as_str(), "v6don.example.net");
    assert!(stored(&root).contains("\"sns\""));
}

#[test]
fn every_offer_is_surveyed() {
    assert_eq!(super::survey(machine(&[]).path()), "nothing\n");
    let root = machine(&[(super::fw_cfg::RAW, GOOD.as_bytes())]);
    let expected =
        "QEMU's fw_cfg entry opt/org.mastodon/config: valid, for the instance `v6don.example.net`\n";
    assert_eq!(super::survey(root.path()), expected);
    let root = machine(&[(super::fw_cfg::RAW, b"schema = 1\n")]);
    assert!(super::survey(root.path()).contains("missing field `domain`"));
}

#[test]
fn a_broken_stored_configuration_ends_the_search() {
    let root = machine(&[(STORED, b"schema = 1\n"), (super::fw_cfg::RAW, GOOD.as_bytes())]);
    let search = search(root.path());
    assert!(search.found.is_none());
    assert!(search.refused[0].contains("missing field `domain`"), "{:?}", search.refused);
}

#[test]
fn hostile_files_are_refused() {
    let large = vec![b'#'; 1024 * 1024 + 1];
    for (content, expected) in [
        (&b"text"[..], Ok(true)),
        (b"", Ok(false)),
        (b" \n", Ok(false)),
        (b"null", Ok(false)),
        (b"\0\0", Ok(false)),
        (b"\xff\xfe", Err("not UTF-8")),
        (&large, Err("larger than 1 MiB")),
    ] {
        let root = machine(&[("file", content)]);
        match (read_offered(&root.path().join("file"), "the file"), expected) {
            (Ok(text), Ok(present)) => assert_eq!(text.is_some(), present, "{content:?}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (result, _) => panic!("{result:?} for {} bytes", content.len()),
        }
    }
    let root = machine(&[("secret", b"text")]);
    std::os::unix::fs::symlink("secret", root.path().join("link")).unwrap();
    assert!(read_offered(&root.path().join("link"), "the link").is_err());
    assert!(read_offered(root.path(), "the folder").is_err());
    assert!(read_offered(&root.path().join("absent"), "the absent").unwrap().is_none());
}
