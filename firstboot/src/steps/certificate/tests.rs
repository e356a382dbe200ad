//! What is in force decides what is done.

use super::STEP;
use super::attempts::{Attempts, DAY, HOUR};
use super::authority::forget_failures;
use super::plan::folder;
use crate::acme::Failure;
use crate::context::Context;
use crate::context::tests::scratch_context;
use crate::engine::Observation;
use crate::settings::Settings;
use crate::tls::certificate::now;
use crate::tls::moment::Moment;
use crate::tls::{selfsigned, store};

const DOMAIN: &str = "v6don.example.net";
const PRODUCTION: &str = "https://acme-v02.api.letsencrypt.org/directory";

fn context_with(tls: &str) -> (tempfile::TempDir, Context) {
    let (guard, mut context) = scratch_context();
    let text = format!("schema = 1\ndomain = \"{DOMAIN}\"\n{tls}");
    context.settings = Some(Settings::parse("test", &text).unwrap());
    (guard, context)
}

fn install(context: &Context, source: &str, start: i64, life: i64) {
    let start = now().unwrap() + start;
    let (chain, key) = selfsigned::make(DOMAIN, start, start + life).unwrap();
    store::install(context, DOMAIN, &chain, &key, source).unwrap();
}

#[test]
fn a_certificate_of_the_future_is_waited_for_and_not_ordered_again() {
    let (_guard, context) = context_with("");
    install(&context, PRODUCTION, 2 * HOUR, 90 * DAY);
    let seen = (STEP.observe)(&context).unwrap();
    assert!(matches!(&seen, Observation::Waiting(text) if text.contains("the clock is behind")), "{seen:?}");
}

#[test]
fn what_is_in_force_decides() {
    let none = "Todo(\"no certificate from `https://acme-v02.api.letsencrypt.org/directory` yet\")";
    let no_staging =
        "Todo(\"no certificate from `https://acme-staging-v02.api.letsencrypt.org/directory` yet\")";
    let own = "Todo(\"the settings want a certificate of our own\")";
    for (tls, source, life, expected) in [
        ("", PRODUCTION, 1000, "Done"),
        ("", PRODUCTION, 140, "Todo(\"the certificate runs out soon\")"),
        ("", PRODUCTION, 50, "Todo(\"the certificate has run out\")"),
        ("", store::SELF_SIGNED, 1000, none),
        ("", store::MANUAL, 1000, none),
        ("[acme]\ndirectory = \"staging\"", PRODUCTION, 1000, no_staging),
        ("[tls]\nmode = \"selfsigned\"", store::SELF_SIGNED, 1000, "Done"),
        ("[tls]\nmode = \"selfsigned\"", PRODUCTION, 1000, own),
        ("[tls]\nmode = \"offload\"", PRODUCTION, 50, "Done"),
    ] {
        let (_guard, context) = context_with(tls);
        install(&context, source, -100, life);
        assert_eq!(format!("{:?}", (STEP.observe)(&context).unwrap()), expected, "{tls} {source} {life}");
    }
}

#[test]
fn a_failure_outlives_a_reboot_until_its_time_or_other_settings() {
    let (_guard, mut context) = context_with("");
    install(&context, store::SELF_SIGNED, -100, 1000);
    let folder = folder(&context);
    fs_err::create_dir_all(&folder).unwrap();
    let write = |shift: i64| {
        let failure = Failure { text: "it says no".to_owned(), is_refusal: true, ..Failure::default() };
        let now = Moment::now(&context.root).unwrap();
        let then = Moment { wall: now.wall + shift, boot: "earlier".to_owned(), uptime: 0 };
        let wish = format!("{DOMAIN} from {PRODUCTION}");
        Attempts::after(None, &wish, &failure, None, &then).write(&folder).unwrap();
    };
    let waits = |context: &Context| match (STEP.observe)(context).unwrap() {
        Observation::Waiting(text) => {
            assert!(text.starts_with("it says no; next try at 2"), "{text}");
            true
        }
        _ => false,
    };
    write(-60);
    assert!(waits(&context));
    write(-HOUR);
    assert!(!waits(&context), "its time has come");
    write(300 * DAY);
    assert!(!waits(&context), "one of the clocks was wrong, so the authority's is looked at");
    write(-60);
    let other = context_with("[acme]\ndirectory = \"staging\"").1.settings;
    let ours = std::mem::replace(&mut context.settings, other);
    assert!(!waits(&context), "another directory");
    context.settings = ours;
    assert!(waits(&context));
    forget_failures(&context).unwrap();
    assert!(!waits(&context), "the operator says so");
}

#[test]
fn a_certificate_that_was_already_signed_is_used_again() {
    let (_guard, context) = context_with("");
    install(&context, PRODUCTION, -100, 1000);
    let first = store::load(&context, DOMAIN).unwrap().certificate;
    install(&context, PRODUCTION, -100, 110);
    install(&context, store::SELF_SIGNED, -100, 1000);
    assert!(!store::reuse(&context, DOMAIN, "https://ca.example.net/", now().unwrap()).unwrap());
    assert!(store::reuse(&context, DOMAIN, PRODUCTION, now().unwrap()).unwrap());
    assert_eq!(store::load(&context, DOMAIN).unwrap().certificate, first, "not the one that runs out");
}
