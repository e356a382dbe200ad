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
    assert!(settings.acme.agree_terms && settings.firewall);
    assert!(settings.mail.is_none() && settings.owner.is_none());
}

#[test]
fn the_example_is_valid_and_survives_being_shown() {
    let settings = Settings::parse("example", Settings::example()).unwrap();
    assert_eq!(settings.hostname(), "sns-v6.example.net");
    assert_eq!(settings.mail.as_ref().unwrap().verification(), Verify::None);
    let mut shown = Settings::parse("shown", &settings.redacted()).unwrap();
    assert_eq!(shown.extra_env["RAILS_LOG_LEVEL"], "(redacted)");
    shown.extra_env.clone_from(&settings.extra_env);
    assert_eq!(shown, settings);
}

#[test]
fn the_example_names_every_key() {
    // The reader lists what it knows when it is given what it does not know.
    for table in [
        "",
        "instance",
        "media",
        "media.s3",
        "media.swift",
        "streaming",
        "sidekiq",
        "network",
        "network.ipv6",
        "network.ipv4",
        "web",
        "tls",
        "acme",
        "database",
        "mail",
        "owner",
        "ssh",
    ] {
        let header = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
        let message = refused_with(&format!("{header}no-such-key = 1"));
        let known = message.split_once(", expected ").unwrap().1;
        for key in known.split('`').skip(1).step_by(2) {
            let is_named = Settings::example().lines().any(|line| {
                let line = line.trim_start_matches("# ");
                line.starts_with(&format!("{key} = "))
                    || line.starts_with(&format!("[{key}"))
                    || line.starts_with(&format!("[{table}.{key}]"))
            });
            assert!(is_named, "`{key}` of `{table}`");
        }
    }
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
fn secrets_are_not_shown_in_refusals_either() {
    let mail = "[mail]\nrelay = \"relay.example\"\nfrom = \"words@example.net\"\nlogin = \"words\"\n";
    for lines in [
        "password = 48151623",
        "password = 4815.1623",
        "password = [48151623]",
        "password = { a = 48151623 }",
        "password = 48151623a",
    ] {
        let message = refused_with(&format!("{mail}{lines}"));
        assert!(!message.contains("4815") && message.contains("line"), "{message}");
    }
    for lines in [
        "extra-env = { PIN = 48151623 }",
        "extra-env = { PIN = \"48\\\\151623\" }",
        "extra-env = \"4815, expected 1623\"",
        "mail = \"me:48151623@relay\"",
        "ssh = 48151623",
    ] {
        let message = refused_with(lines);
        assert!(!message.contains("48"), "{message}");
    }
    insta::assert_snapshot!(refused_with(&format!("{mail}password = 48151623")), @"`config.toml` line 7, column 12: this value must be text (it may be a password, so it is not shown): put it between double quotes");
    insta::assert_snapshot!(refused_with("extra-env = { PIN = 48151623 }"), @"`config.toml` line 3, column 21: this value must be text (it may be a password, so it is not shown): put it between double quotes");
}

#[test]
fn what_first_boot_could_not_write_down_is_refused() {
    let mail = "[mail]\nrelay = \"relay.example\"\nfrom = \"words@example.net\"\n";
    insta::assert_snapshot!(refused_with(&format!("{mail}login = \"words\"\npassword = \"it's\"")), @"`config.toml` key `mail.password`: `SMTP_PASSWORD` cannot be written to `.env.production`: its value has a single quote; Ruby and Node would read it differently, so choose another value");
    insta::assert_snapshot!(refused_with(&format!("{mail}login = \"a\\\\words\"\npassword = \"x\"")), @"`config.toml` key `mail.login`: `SMTP_LOGIN` cannot be written to `.env.production`: its value has a backslash; Ruby and Node would read it differently, so choose another value");
    insta::assert_snapshot!(refused_with("extra-env = { DB_NAME = \"other\" }"), @"`config.toml` key `extra-env`: the appliance itself decides `DB_NAME`: remove it");
    insta::assert_snapshot!(refused_with("extra-env = { S3_KEY = \"it's\" }"), @"`config.toml` key `extra-env`: `S3_KEY` cannot be written to `.env.production`: its value has a single quote; Ruby and Node would read it differently, so choose another value");
    let long = format!("{}.{}.example", "a".repeat(40), "b".repeat(40));
    assert!(refused(&format!("schema = 1\ndomain = \"{long}\"\n")).contains("key `hostname`: "));
    assert!(refused_with(&format!("hostname = \"{long}\"")).contains("key `hostname`: "));
    Settings::parse("test", &format!("schema = 1\ndomain = \"{long}\"\nhostname = \"sns\"\n")).unwrap();
}

#[test]
fn mistakes_of_the_whole_file_are_named() {
    insta::assert_snapshot!(refused(""), @"`config.toml`: missing field `schema`; add `schema = 1` as the first line");
    insta::assert_snapshot!(refused("schema = 1\n"), @r#"`config.toml`: missing field `domain`; add the instance's name, such as `domain = "social.example.net"`"#);
    insta::assert_snapshot!(refused("schema = 2\ndomain = \"a.example\"\n"), @"`config.toml` line 1, column 10: this appliance reads `schema = 1`, not 2: use a newer appliance, or write 1");
    insta::assert_snapshot!(refused("domain = \"a.example\"\n"), @"`config.toml`: missing field `schema`; add `schema = 1` as the first line");
    insta::assert_snapshot!(refused("schema = 1\ndomain = a.example\n"), @"`config.toml` line 2, column 10: string values must be quoted, expected literal string; put the value between double quotes");
    insta::assert_snapshot!(refused_with("hostnam = \"a\""), @"`config.toml` line 3, column 1: unknown field `hostnam`, expected one of `schema`, `domain`, `hostname`, `firewall`, `on-clone`, `extra-env`, `instance`, `media`, `streaming`, `sidekiq`, `network`, `web`, `tls`, `acme`, `database`, `mail`, `owner`, `ssh`; correct the spelling, or remove the line");
    insta::assert_snapshot!(refused_with("domain = \"b.example\""), @"`config.toml` line 3, column 1: duplicate key; remove one of the two");
}

#[test]
fn mistakes_in_one_value_are_named() {
    insta::assert_snapshot!(refused("schema = 1\ndomain = \"https://a.example/\"\n"), @"`config.toml` line 2, column 10: `https://a.example/` begins with `https://`: write the bare name `a.example`");
    insta::assert_snapshot!(refused("schema = 1\ndomain = \"a.example \"\n"), @"`config.toml` line 2, column 10: `a.example ` has a space before or after the name: remove it");
    insta::assert_snapshot!(refused("schema = 1\ndomain = 3\n"), @"`config.toml` line 2, column 10: invalid type: integer, expected a string; see `appliance config example`");
    insta::assert_snapshot!(refused_with("[network]\ndns = [\"2001:db8::53\", \"dns.example\"]"), @"`config.toml` line 4, column 24: invalid IP address syntax; write an address such as `2001:db8::53` or `192.0.2.53`");
    insta::assert_snapshot!(refused_with("[network]\ninterface = \"a b\""), @"`config.toml` line 4, column 13: `a b` is neither an interface's name such as `ens160` nor a MAC such as `00:50:56:a7:00:01`");
    insta::assert_snapshot!(refused_with("[network.ipv6]\naddresses = [\"2001:db8::g/64\"]"), @"`config.toml` line 4, column 13: `2001:db8::g/64` is not an IPv6 address with prefix length, such as `2001:db8::101/128`");
    insta::assert_snapshot!(refused_with("[network.ipv4]\nmethod = \"statc\""), @"`config.toml` line 4, column 10: unknown variant `statc`, expected one of `dhcp`, `static`, `off`; use one of these");
    insta::assert_snapshot!(refused_with("[network.ipv4]\ngateway = \"192.168.100.999\""), @"`config.toml` line 4, column 11: invalid IPv4 address syntax; write an address such as `2001:db8::53` or `192.0.2.53`");
    insta::assert_snapshot!(refused_with("[acme]\ndirectory = \"letsencrypt\""), @"`config.toml` line 4, column 13: `letsencrypt` is not a directory: write `production`, `staging` or an `https://` URL");
    insta::assert_snapshot!(refused_with("[acme]\nca = \"/etc/ca.pem\""), @"`config.toml` line 4, column 6: this is not a PEM certificate: paste the whole file, from `-----BEGIN CERTIFICATE-----` to `-----END CERTIFICATE-----`");
    insta::assert_snapshot!(refused_with("[mail]\nrelay = \"192.168.100.25:25\"\nfrom = \"words@example.net\""), @"`config.toml` line 4, column 9: `192.168.100.25:25` contains `:`: a name has letters, digits, hyphens and dots only; the port has a key of its own, `port`");
    insta::assert_snapshot!(refused_with("[mail]\nrelay = \"192.168.100.25\""), @"`config.toml` line 3, column 1: missing field `from`; add it, or leave out the whole table");
    insta::assert_snapshot!(refused_with("[mail]\nrelay = \"relay\"\nfrom = \"words\""), @"`config.toml` line 5, column 8: `words` is not a mail address such as `admin@example.net`");
    insta::assert_snapshot!(refused_with("[owner]\nusername = \"@alice\"\nemail = \"alice@example.net\""), @"`config.toml` line 4, column 12: `@alice` cannot be an account's name: use 1 to 30 letters, digits and underscores, without `@` and domain");
    insta::assert_snapshot!(refused_with("[ssh]\nauthorized-keys = [\"alice\"]"), @"`config.toml` line 4, column 19: `alice` does not begin a public key: take the one line of the file that ends in `.pub`");
}

#[test]
fn contradictions_are_named() {
    insta::assert_snapshot!(refused_with("[network.ipv6]\nmethod = \"static\""), @r#"`config.toml` key `network.ipv6.addresses`: `method = "static"` needs at least one address"#);
    insta::assert_snapshot!(refused_with("[network.ipv6]\ngateway = \"2001:db8::1\""), @r#"`config.toml` key `network.ipv6.gateway`: a gateway goes with `method = "static"` only: remove one of them"#);
    insta::assert_snapshot!(refused_with("[network.ipv4]\naddresses = [\"192.168.100.154/24\"]"), @r#"`config.toml` key `network.ipv4.method`: addresses and gateway go with `method = "static"`: write that, or remove them"#);
    insta::assert_snapshot!(refused_with("[network.ipv6]\nmethod = \"off\""), @r#"`config.toml` key `web.listen`: the web server listens on IPv6 only, but IPv6 is off: write `listen = "ipv4"`"#);
    insta::assert_snapshot!(
        refused_with("[network]\ndns = [\"192.0.2.53\"]\n[network.ipv4]\nmethod = \"off\""),
        @"`config.toml` key `network.dns`: `192.0.2.53` cannot be reached, because its address family is off: give another resolver"
    );
    insta::assert_snapshot!(refused_with("[acme]\nagree-terms = false"), @r#"`config.toml` key `acme.agree-terms`: no certificate can be ordered without agreement to the terms: write true, or `[tls] mode = "selfsigned"`"#);
    insta::assert_snapshot!(
        refused_with("[mail]\nrelay = \"relay\"\nfrom = \"words@example.net\"\nlogin = \"words\""),
        @"`config.toml` key `mail.login`: `login` and `password` go together: give both or neither"
    );
    insta::assert_snapshot!(refused_with("extra-env = { locale = \"ja\" }"), @"`config.toml` key `extra-env`: `locale` cannot be a variable's name: use capital letters, digits and underscores");
    insta::assert_snapshot!(refused_with("extra-env = { MOTD = \"\"\"a\nb\"\"\" }"), @"`config.toml` key `extra-env`: the value of `MOTD` has a line break or control character: it must be one line");
}

#[test]
fn what_mastodon_cannot_be_told_is_refused() {
    let mail = "[mail]\nrelay = \"relay\"\nfrom = \"words@example.net\"\n";
    let login = "login = \"words\"\npassword = \"x\"\n";
    let s3 = "[media.s3]\nbucket = \"v6don\"\naccess-key-id = \"a\"\nsecret-access-key = \"b\"\n";
    let swift = "[media.swift]\nusername = \"a\"\npassword = \"b\"\ntenant = \"c\"\ncontainer = \"d\"\n\
        auth-url = \"https://a.example\"\nobject-url = \"https://b.example\"\n";
    insta::assert_snapshot!(refused_with("[instance]\nweb-domain = \"v6don.example.net\""), @"`config.toml` key `instance.web-domain`: it is the domain itself: leave it out, it is for a web site under another name");
    insta::assert_snapshot!(refused_with("[instance]\nalternate-domains = [\"a.example\", \"v6don.example.net\"]"), @"`config.toml` key `instance.alternate-domains`: `v6don.example.net` is a name of the instance anyway: remove it");
    insta::assert_snapshot!(refused_with("[instance]\nemail-domains-denied = [\"a.example\"]\nemail-domains-allowed = [\"a.example\"]"), @"`config.toml` key `instance.email-domains-denied`: `a.example` is in `email-domains-allowed`, too: remove it from one of them");
    insta::assert_snapshot!(refused_with("[instance]\nlocale = \"japanese\""), @r#"`config.toml` line 4, column 10: "japanese" is no language: write its code, such as `ja`, `pt-BR` or `zh-TW`"#);
    insta::assert_snapshot!(refused_with("[instance]\ncdn-host = \"http://cdn.example.net\""), @r#"`config.toml` line 4, column 12: "http://cdn.example.net" does not begin with `https://`: write a URL such as `https://files.example.net`"#);
    insta::assert_snapshot!(refused_with("[streaming]\nbase-url = \"wss://a.example/\""), @r#"`config.toml` line 4, column 12: "wss://a.example/" has a path, which is put there by Mastodon: write `wss://a.example`"#);
    insta::assert_snapshot!(refused_with("[streaming]\nworkers = 0"), @"`config.toml` line 4, column 11: 0 is out of range: write a number from 1 to 16");
    insta::assert_snapshot!(refused_with("[sidekiq]\nsplit = true\nconcurrency = 25"), @"`config.toml` key `sidekiq.concurrency`: web (10), background jobs (100) and streaming (10) together want 120 connections to the database, which has 90 for them: write a smaller number");
    insta::assert_snapshot!(refused_with("[streaming]\nworkers = 9"), @"`config.toml` key `streaming.workers`: web (10), background jobs (10) and streaming (90) together want 110 connections to the database, which has 90 for them: write a smaller number");
    insta::assert_snapshot!(refused_with("[web]\nmax-body-mib = 70000"), @"`config.toml` line 4, column 16: 70000 is out of range: write a number from 0 to 65535");
    insta::assert_snapshot!(refused_with(&format!("{mail}auth-method = \"cram_md5\"")), @r#"`config.toml` key `mail.auth-method`: it needs `login` and `password`: give them, or write "none""#);
    insta::assert_snapshot!(refused_with(&format!("{mail}{login}auth-method = \"none\"")), @r#"`config.toml` key `mail.auth-method`: "none" and a login contradict each other: remove one of them"#);
    insta::assert_snapshot!(refused_with(&format!("{mail}ca-file = \"relay.pem\"")), @r#"`config.toml` line 6, column 11: "relay.pem" is not a whole path of letters, digits and any of `._-+@`, without a `/` at its end: write one such as `/etc/ssl/certs/ca-certificates.crt`"#);
    insta::assert_snapshot!(refused_with("[media]\nurl = \"/files\""), @"`config.toml` key `media.url`: it goes with `path`, the folder that is found there: give both");
    insta::assert_snapshot!(refused_with("[media]\npath = \"/home/mastodon/media\""), @"`config.toml` line 4, column 8: `/home/mastodon/media` is no place to keep media in: choose one such as `/srv/mastodon`");
    insta::assert_snapshot!(refused_with("[media]\npath = \"/srv/a\"\nurl = \"/api\""), @"`config.toml` line 5, column 7: `/api` is something else on the web site: write one such as `/files`");
    insta::assert_snapshot!(refused_with("[media.s3]\nregion = \"eu-central-1\""), @"`config.toml` line 3, column 1: missing field `bucket`; add it, or leave out the whole table");
    insta::assert_snapshot!(refused_with(s3), @"`config.toml` key `media.s3.region`: give the bucket's region, or the `hostname` of a store that is not Amazon's");
    insta::assert_snapshot!(refused_with(&format!("{s3}region = \"a\"\nendpoint = \"https://a.example\"")), @"`config.toml` key `media.s3.hostname`: with an `endpoint` it says where browsers find the files: give it, mostly the host of the endpoint");
    insta::assert_snapshot!(refused_with(&format!("{s3}region = \"a\"\nsignature-version = \"s3\"")), @"`config.toml` key `media.s3.signature-version`: it goes with an `endpoint` only: remove one of them");
    insta::assert_snapshot!(refused_with(&format!("{s3}region = \"a\"\ncloudfront-host = \"https://a.example\"")), @"`config.toml` line 8, column 19: `https://a.example` begins with `https://`: write the bare name of the host");
    insta::assert_snapshot!(refused_with(&format!("{s3}region = \"a\"\n{swift}")), @"`config.toml` key `media.swift`: there is `[media.s3]`, too: media is kept in one place, so remove one of them");
    insta::assert_snapshot!(refused_with(&format!("[media]\npath = \"/srv/a\"\n{swift}")), @"`config.toml` key `media.path`: it is for media on this machine, but an object store is given: remove one of them");
    insta::assert_snapshot!(refused_with("extra-env = { SMTP_TLS = \"False\" }"), @"`config.toml` key `extra-env`: to Mastodon `SMTP_TLS` means yes with any value, this one too: remove it");
    insta::assert_snapshot!(refused_with(&format!("extra-env = {{ A = \"{}\" }}", "a".repeat(70_000))), @"`config.toml` key `extra-env`: `A` would have more than 65536 bytes: make it shorter");
    for (table, key, value) in [(s3, "media.s3.secret-access-key", "b"), (swift, "media.swift.password", "b")]
    {
        let hard = table.replacen(&format!("= \"{value}\"\n"), "= \"it's hunter2\"\n", 1) + "region = \"a\"";
        let message = refused_with(&hard);
        assert!(message.starts_with(&format!("`config.toml` key `{key}`: ")), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn the_web_site_may_have_a_name_of_its_own() {
    let settings = Settings::parse("test", SMALLEST).unwrap();
    assert_eq!(settings.site(), &settings.domain);
    let text = format!("{SMALLEST}[instance]\nweb-domain = \"social.example.net\"\n");
    let settings = Settings::parse("test", &text).unwrap();
    assert_eq!((settings.site().as_str(), settings.hostname()), ("social.example.net", "v6don.example.net"));
}
