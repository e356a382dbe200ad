//! Which marks count, when the operator is asked, and what each answer leaves.

use super::{Answer, READY, SECRETS, apply, observe, reply, swapped, usable};
use crate::context::Context;
use crate::context::tests::scratch_context;
use crate::engine::Observation;
use crate::exec::Run;
use crate::settings::Settings;
use crate::steps::identity;

const FIRST: &str = "4c4c4544-0042-3510-8054-b4c04f4a3232";
const SECOND: &str = "564d8c1e-7a52-43f0-9d1b-22aa10c0ffee";

fn put(context: &Context, path: &str, text: &str) {
    let path = context.path(path);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, text).unwrap();
}

fn set_mark(context: &Context, mark: &str) {
    put(context, "/sys/class/dmi/id/product_uuid", &format!("{mark}\n"));
}

/// An instance that was set up on `FIRST`.
fn instance() -> (tempfile::TempDir, Context) {
    let (guard, context) = scratch_context();
    put(&context, "/etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    put(&context, &format!("/{SECRETS}/otp-secret"), "secret\n");
    put(&context, &format!("/{READY}"), "");
    fs_err::create_dir_all(context.path("/etc/ssh")).unwrap();
    set_mark(&context, FIRST);
    assert!(matches!(observe(&context).unwrap(), Observation::Todo(_)));
    apply(&context).unwrap();
    assert_eq!(observe(&context).unwrap(), Observation::Done);
    (guard, context)
}

fn settings(on_clone: &str) -> Settings {
    Settings::parse("test", &format!("schema = 1\ndomain = \"a.example\"\non-clone = \"{on_clone}\"\n"))
        .unwrap()
}

#[test]
fn placeholders_are_no_marks() {
    for text in [
        "00000000-0000-0000-0000-000000000000",
        "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
        "fefefefe-fefe-fefe-fefe-fefefefefefe",
        "03000200-0400-0500-0006-000700080009",
        "12345678-1234-5678-90AB-CDDEEFAABBCC",
        "Not Settable",
        "Not Present",
        "To be filled by O.E.M.",
        "4c4c4544-0042-3510-8054-b4c04f4a323",
        "4c4c4544-0042-3510-8054-b4c04f4a323é",
        "",
    ] {
        assert_eq!(usable(text), None, "{text}");
    }
    assert_eq!(usable(&format!("{}\n", FIRST.to_uppercase())).as_deref(), Some(FIRST));
}

#[test]
fn nobody_is_asked_without_a_reason() {
    let (_guard, context) = instance();
    // A new system disk: the state stays, the machine-id is another.
    put(&context, "/etc/machine-id", "ffff456789abcdef0123456789abcdef\n");
    assert_eq!(observe(&context).unwrap(), Observation::Done);
    // Firmware tables of a newer version, or of none.
    assert_eq!(swapped(FIRST), "44454c4c-4200-1035-8054-b4c04f4a3232");
    for mark in [swapped(FIRST), "Not Settable".to_owned(), String::new()] {
        set_mark(&context, &mark);
        assert_eq!(observe(&context).unwrap(), Observation::Done, "{mark}");
    }
    assert!(reply(&context.root, Answer::New).unwrap_err().to_string().contains("nothing to answer"));
}

#[test]
fn a_copy_waits_for_an_answer_and_its_services_with_it() {
    let (_guard, mut context) = instance();
    set_mark(&context, SECOND);
    let Observation::Waiting(text) = observe(&context).unwrap() else { panic!("it must ask") };
    insta::assert_snapshot!(text, @r#"this is not the machine that the instance was set up on (hardware `4c4c4544-0042-3510-8054-b4c04f4a3232`, now `564d8c1e-7a52-43f0-9d1b-22aa10c0ffee`): all its disks came from another machine: it is a copy, or was restored as a whole. The instance is not started before you answer: `appliance identity keep` if this machine takes the place of the former one, which must never run again; `appliance identity new` if both stay, for a machine-id and SSH host keys of its own. Either way it keeps secrets, domain and database, so two of one domain must not both reach the internet. Without a login, give `on-clone = "keep"` or `"new"` by any channel of the configuration"#);
    put(&context, "/etc/machine-id", "ffff456789abcdef0123456789abcdef\n");
    let Observation::Waiting(text) = observe(&context).unwrap() else { panic!("it must ask") };
    assert!(text.contains("its data disk came from another machine"), "{text}");
    assert!(super::is_open(&context) && super::is_released(&context));
    super::hold(&context).unwrap();
    assert!(!super::is_released(&context));

    // The settings answer too, for every copy; what was replied goes before them.
    context.settings = Some(settings("keep"));
    assert!(matches!(observe(&context).unwrap(), Observation::Todo(text) if text.contains("take the place")));
    reply(&context.root, Answer::New).unwrap();
    assert!(matches!(observe(&context).unwrap(), Observation::Todo(text) if text.contains("of its own")));
    assert!(!super::is_open(&context));
    // An answer is for one machine.
    context.settings = Some(settings("ask"));
    set_mark(&context, "a0000000-7a52-43f0-9d1b-22aa10c0ffee");
    assert!(matches!(observe(&context).unwrap(), Observation::Waiting(_)));
}

fn has_ssh_keygen() -> bool {
    Run::new("ssh-keygen", &["-l", "-f", "/dev/null"]).output().is_ok_and(|output| output.code != 127)
}

#[test]
fn keep_changes_nothing_and_new_makes_what_must_be_unique() {
    if !has_ssh_keygen() {
        eprintln!("skipped: there is no ssh-keygen here");
        return;
    }
    let (_guard, context) = instance();
    (identity::STEP.apply)(&context).unwrap();
    let read = |path: &str| fs_err::read(context.path(path)).unwrap();
    let own = || ["/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_rsa_key"].map(read);
    let before = own();

    set_mark(&context, SECOND);
    assert!(matches!((identity::STEP.observe)(&context).unwrap(), Observation::Todo(_)), "services are held");
    (identity::STEP.apply)(&context).unwrap();
    assert_eq!((identity::STEP.observe)(&context).unwrap(), Observation::Done);
    reply(&context.root, Answer::Keep).unwrap();
    apply(&context).unwrap();
    assert_eq!(observe(&context).unwrap(), Observation::Done);
    assert_eq!(own(), before);

    set_mark(&context, FIRST);
    reply(&context.root, Answer::New).unwrap();
    apply(&context).unwrap();
    assert_eq!(observe(&context).unwrap(), Observation::Done);
    assert_eq!((identity::STEP.observe)(&context).unwrap(), Observation::Done);
    for (old, new) in before.iter().zip(own()) {
        assert_ne!(*old, new);
    }
    assert_eq!(read(&format!("/{SECRETS}/otp-secret")), b"secret\n");

    // What was no instance yet is not asked.
    fs_err::remove_dir_all(context.path(SECRETS)).unwrap();
    set_mark(&context, SECOND);
    assert!(matches!(observe(&context).unwrap(), Observation::Todo(_)));
}
