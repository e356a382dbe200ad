//! The way of settings through their trial, as far as no program is needed to see it.

use super::trial::{Record, Refused, Trial};
use super::{Good, Next, Owner, Situation, decide, forgive, next, observe};
use crate::context::Context;
use crate::context::tests::scratch_context;
use crate::engine::Observation;
use crate::settings::Settings;
use crate::tls::moment::{self, Moment};

fn settings(network: &str) -> Settings {
    Settings::parse("test", &format!("schema = 1\ndomain = \"a.example\"\n{network}")).unwrap()
}

const BEFORE: &str =
    "[network.ipv4]\nmethod = \"static\"\naddresses = [\"192.0.2.5/24\"]\ngateway = \"192.0.2.1\"\n";
const AFTER: &str =
    "[network.ipv4]\nmethod = \"static\"\naddresses = [\"192.0.2.5/24\"]\ngateway = \"192.0.2.99\"\n";

/// A machine with one interface, on which the settings `BEFORE` have worked.
fn machine() -> (tempfile::TempDir, Context) {
    let (guard, mut context) = scratch_context();
    for (name, content) in [("type", "1\n"), ("ifindex", "2\n"), ("carrier", "1\n")] {
        let path = context.path(&format!("/sys/class/net/ens160/{name}"));
        fs_err::create_dir_all(path.parent().unwrap().join("device")).unwrap();
        fs_err::write(path, content).unwrap();
    }
    let boot = context.path("/proc/sys/kernel/random/boot_id");
    fs_err::create_dir_all(boot.parent().unwrap()).unwrap();
    fs_err::write(boot, "one\n").unwrap();
    context.settings = Some(settings(BEFORE));
    situation(&context).wanted_profile.write(&context).unwrap();
    let good = Good {
        interface: "ens160".to_owned(),
        network: settings(BEFORE).network,
        ipv6_route: true,
        ipv4_route: true,
    };
    Record { good: Some(good), ..Record::default() }.write(&context.root).unwrap();
    (guard, context)
}

fn situation(context: &Context) -> Situation {
    Situation::of(context).unwrap().unwrap()
}

#[test]
fn a_trial_ends_after_a_minute_and_not_before() {
    let lack = || Some("no route".to_owned());
    let back = Some(Next::RollBack("no route".to_owned()));
    let activate = Some(Next::Activate("activate the profile `appliance`".to_owned()));
    for (trial, is_in_force, expected) in [
        (None, true, None),
        (None, false, activate.clone()),
        (Some((None, None)), true, activate.clone()),
        (Some((None, lack())), false, activate.clone()),
        (Some((Some(5), lack())), false, activate),
        (Some((Some(60), lack())), false, back.clone()),
        (Some((Some(60), lack())), true, back),
        (Some((Some(600), None)), true, None),
    ] {
        assert_eq!(decide(trial.clone(), is_in_force), expected, "{trial:?} {is_in_force}");
    }
    let Some(Next::Observe(Observation::Waiting(text))) = decide(Some((Some(18), lack())), true) else {
        panic!("it must wait")
    };
    assert_eq!(text, "no route; if that stays so, the former settings come back in 42 s");
}

#[test]
fn refused_settings_stay_refused_until_they_change_or_the_operator_asks() {
    let (guard, mut context) = machine();
    assert!(situation(&context).former.is_none(), "what works is not on trial");
    context.settings = Some(settings(AFTER));
    let tried = situation(&context);
    assert!(tried.fallback().is_some() && !tried.is_refused);
    assert_eq!(
        next(&context, &tried).unwrap(),
        Next::Activate(format!("write the profile `{}`", tried.wanted_profile.guest))
    );
    tried.wanted_profile.write(&context).unwrap();

    // The record of the refusal is written first; whatever is cut behind it, the former profile is what comes next.
    let hash = tried.wanted_profile.hash();
    let refused = Refused {
        hash: hash.clone(),
        boot: moment::boot(&context.root),
        changes: super::trial::changes(&tried.former.as_ref().unwrap().0, &tried.wanted.network, "ens160"),
        lack: "no answer on `ens160` from the gateway `192.0.2.99`".to_owned(),
    };
    assert_eq!(refused.changes, ["network.ipv4.gateway = \"192.0.2.99\""]);
    Record { refused: Some(refused), trial: None, ..tried.record }.write(&context.root).unwrap();
    let back = situation(&context);
    assert!(back.is_refused && back.fallback().is_none());
    let (wish, profile) = back.target();
    assert_eq!(wish.network, settings(BEFORE).network);
    assert_eq!(profile.owner(&context), Owner::Ours);
    profile.write(&context).unwrap();
    assert_eq!(situation(&context).target().1.owner(&context), Owner::Current);

    forgive(guard.path()).unwrap();
    assert!(!situation(&context).is_refused);
    context.settings = Some(settings(&AFTER.replace(".99", ".98")));
    assert!(situation(&context).fallback().is_some());
    context.settings = Some(settings(BEFORE));
    assert!(situation(&context).former.is_none());
}

#[test]
fn there_is_no_way_back_to_an_interface_that_is_gone_nor_from_another_boot() {
    let (_guard, mut context) = machine();
    context.settings = Some(settings(AFTER));
    let tried = situation(&context);
    let refused = Refused {
        hash: tried.wanted_profile.hash(),
        boot: "another".to_owned(),
        changes: Vec::new(),
        lack: "no route".to_owned(),
    };
    Record { refused: Some(refused), ..tried.record }.write(&context.root).unwrap();
    assert!(!situation(&context).is_refused, "the machine may be elsewhere now");

    let folder = context.path("/sys/class/net");
    fs_err::rename(folder.join("ens160"), folder.join("ens192")).unwrap();
    let moved = situation(&context);
    assert_eq!(moved.wanted.interface, "ens192");
    assert!(moved.former.is_none());
}

#[test]
fn the_operator_reads_what_was_refused_why_and_what_to_do() {
    let (_guard, mut context) = machine();
    context.settings = Some(settings(AFTER));
    let hash = situation(&context).wanted_profile.hash();
    let refused = Refused {
        hash,
        boot: moment::boot(&context.root),
        changes: vec!["network.ipv4.gateway = \"192.0.2.99\"".to_owned()],
        lack: "no answer on `ens160` from the gateway `192.0.2.99`".to_owned(),
    };
    Record { refused: Some(refused), ..Record::read(&context.root) }.write(&context.root).unwrap();
    fs_err::write(context.path("/sys/class/net/ens160/carrier"), "0\n").unwrap();
    let Observation::Waiting(text) = observe(&context).unwrap() else { panic!("it must wait") };
    insta::assert_snapshot!(text, @r#"new settings were refused (network.ipv4.gateway = "192.0.2.99"): what was wrong 60 s after their activation: no answer on `ens160` from the gateway `192.0.2.99`; the former ones are in force, and now: no link on `ens160`: connect the virtual machine's network adapter; correct `[network]` in the configuration, or let `appliance retry` try the same ones again"#);
}

#[test]
fn an_edited_profile_is_never_on_trial() {
    let (_guard, mut context) = machine();
    let guest = situation(&context).wanted_profile.guest;
    fs_err::write(context.path(&guest), "[connection]\nid=mine\n").unwrap();
    fs_err::write(context.path("/sys/class/net/ens160/carrier"), "0\n").unwrap();
    context.settings = Some(settings(AFTER));
    let changed = situation(&context);
    assert!(matches!(next(&context, &changed).unwrap(), Next::Observe(Observation::Waiting(_))));
    super::apply(&context).unwrap();
    assert_eq!(Record::read(&context.root).trial, None);
}

#[test]
fn a_trial_begins_anew_with_each_boot() {
    let (_guard, context) = machine();
    let begun = Moment::now(&context.root).unwrap();
    let record =
        Record { trial: Some(Trial { hash: "a".to_owned(), begun: begun.clone() }), ..Record::default() };
    let later = begun.plus(std::time::Duration::from_secs(70));
    assert_eq!(record.age("a", &later), Some(70));
    assert_eq!(record.age("b", &later), None);
    assert_eq!(record.age("a", &Moment { boot: "two".to_owned(), ..later.clone() }), None);

    // A boot activates by itself what is there.
    let record = Record { activated: Some(begun), ..Record::default() };
    assert_eq!(record.activated_for(&later), 70);
    assert_eq!(record.activated_for(&Moment { boot: "two".to_owned(), uptime: 20, ..later }), 20);
}
