//! What good settings become, and what each foreseen mistake is told.

use super::{Ipv4Method, Ipv6Method, Listen, Settings, TlsMode, Verify};

const SMALLEST: &str = "schema = 1\ndomain = \"v6don.example.net\"\n";

fn refused(text: &str) -> String {
    Settings::parse("config.toml", text).unwrap_err().to_string()
}

fn refused_with(lines: &str) -> String {
    refused(&format!("{SMALLEST}{lines}\n"))
}

#[test]
fn the_smallest_settings_have_the_articles_defaults() {
    let settings = Settings::parse("config.toml", SMALLEST).unwrap();
    assert_eq!(settings.hostname(), "v6don.example.net");
    assert_eq!(settings.network.ipv6.method, Ipv6Method::Auto);
    assert_eq!(settings.network.ipv4.method, Ipv4Method::Dhcp);
    assert_eq!(settings.web.listen, Listen::Ipv6);
    assert_eq!(settings.tls.mode, TlsMode::Acme);
    assert!(settings.acme.agree_terms);
    assert!(settings.mail.is_none() && settings.owner.is_none());
}

#[test]
fn the_example_is_valid_and_survives_being_shown() {
    let settings = Settings::parse("example", Settings::example()).unwrap();
    assert_eq!(settings.hostname(), "sns-v6.example.net");
    assert_eq!(settings.mail.as_ref().unwrap().verify, Verify::Peer);
    let mut shown = Settings::parse("shown", &settings.redacted()).unwrap();
    assert_eq!(shown.extra_env["DEFAULT_LOCALE"], "(redacted)");
    shown.extra_env.clone_from(&settings.extra_env);
    assert_eq!(shown, settings);
}

#[test]
fn secrets_are_not_shown() {
    let text = format!(
        "{SMALLEST}extra-env = {{ AWS_SECRET_ACCESS_KEY = \"hunter2\" }}\n[mail]\nrelay = \"relay.example\"\n\
         from = \"words@example.net\"\nlogin = \"words\"\npassword = \"hunter2\"\n"
    );
    let settings = Settings::parse("config.toml", &text).unwrap();
    assert_eq!(settings.mail.as_ref().unwrap().password.as_ref().unwrap().expose(), "hunter2");
    assert!(!format!("{settings:?}{}", settings.redacted()).contains("hunter2"));
}

#[test]
fn mistakes_of_the_whole_file_are_named() {
    insta::assert_snapshot!(refused(""), @"");
    insta::assert_snapshot!(refused("schema = 1\n"), @"");
    insta::assert_snapshot!(refused("schema = 2\ndomain = \"a.example\"\n"), @"");
    insta::assert_snapshot!(refused("domain = \"a.example\"\n"), @"");
    insta::assert_snapshot!(refused("schema = 1\ndomain = a.example\n"), @"");
    insta::assert_snapshot!(refused_with("hostnam = \"a\""), @"");
    insta::assert_snapshot!(refused_with("domain = \"b.example\""), @"");
}

#[test]
fn mistakes_in_one_value_are_named() {
    insta::assert_snapshot!(refused("schema = 1\ndomain = \"https://a.example/\"\n"), @"");
    insta::assert_snapshot!(refused("schema = 1\ndomain = \"a.example \"\n"), @"");
    insta::assert_snapshot!(refused("schema = 1\ndomain = 3\n"), @"");
    insta::assert_snapshot!(refused_with("[network]\ndns = [\"2001:db8::53\", \"dns.example\"]"), @"");
    insta::assert_snapshot!(refused_with("[network]\ninterface = \"a b\""), @"");
    insta::assert_snapshot!(refused_with("[network.ipv6]\naddresses = [\"2001:db8::g/64\"]"), @"");
    insta::assert_snapshot!(refused_with("[network.ipv4]\nmethod = \"statc\""), @"");
    insta::assert_snapshot!(refused_with("[network.ipv4]\ngateway = \"192.168.100.999\""), @"");
    insta::assert_snapshot!(refused_with("[acme]\ndirectory = \"letsencrypt\""), @"");
    insta::assert_snapshot!(refused_with("[acme]\nca = \"/etc/ca.pem\""), @"");
    insta::assert_snapshot!(refused_with("[mail]\nrelay = \"192.168.100.25:25\"\nfrom = \"words@example.net\""), @"");
    insta::assert_snapshot!(refused_with("[mail]\nrelay = \"192.168.100.25\""), @"");
    insta::assert_snapshot!(refused_with("[mail]\nrelay = \"relay\"\nfrom = \"words\""), @"");
    insta::assert_snapshot!(refused_with("[owner]\nusername = \"@alice\"\nemail = \"alice@example.net\""), @"");
    insta::assert_snapshot!(refused_with("[ssh]\nauthorized-keys = [\"alice\"]"), @"");
}

#[test]
fn contradictions_are_named() {
    insta::assert_snapshot!(refused_with("[network.ipv6]\nmethod = \"static\""), @"");
    insta::assert_snapshot!(refused_with("[network.ipv6]\ngateway = \"2001:db8::1\""), @"");
    insta::assert_snapshot!(refused_with("[network.ipv4]\naddresses = [\"192.168.100.154/24\"]"), @"");
    insta::assert_snapshot!(refused_with("[network.ipv6]\nmethod = \"off\""), @"");
    insta::assert_snapshot!(refused_with("[acme]\nagree-terms = false"), @"");
    insta::assert_snapshot!(
        refused_with("[mail]\nrelay = \"relay\"\nfrom = \"words@example.net\"\nlogin = \"words\""),
        @""
    );
    insta::assert_snapshot!(refused_with("extra-env = { locale = \"ja\" }"), @"");
    insta::assert_snapshot!(refused_with("extra-env = { MOTD = \"\"\"a\nb\"\"\" }"), @"");
}
