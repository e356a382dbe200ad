//! Step `environment`: `.env.production`, what the application reads its settings from.
//!
//! Always the exact rendering of settings and secrets, in the order of v1.6.1's sample, readable by the application and root
//! alone. Both dotenv parsers read it alike (see [`crate::dotenv`]). Keys whose mere presence means "yes" to Mastodon
//! (`SMTP_TLS`, `SMTP_LOGIN`, …) are left out, not blank.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::Result;

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::facts::ImageFacts;
use crate::settings::{Database, Mail, Secret, Settings, SslMode, Verify};
use crate::steps::secrets::Secrets;
use crate::steps::units;
use crate::{dotenv, durable, passwd, sql, stamp, systemd};

/// The step.
pub const STEP: Step = Step {
    name: "environment",
    why: "the application's settings in `.env.production`",
    needs: Needs::Local,
    watch: engine::HOURLY,
    observe,
    apply,
};

/// The stamp of the settings that running services have read.
const STAMP: &str = "environment";

/// Readable by its group, which is the application's.
const MODE: u32 = 0o640;

fn observe(context: &Context) -> Result<Observation> {
    let wanted = rendered(context)?;
    let path = path(context);
    let group = passwd::user(context, &context.facts.application.user)?.gid;
    let Ok(meta) = path.symlink_metadata() else {
        return Ok(Observation::Todo(format!("`{}` does not exist", path.display())));
    };
    let is_guarded = meta.is_file() && meta.mode() & 0o7777 == MODE && meta.uid() == 0 && meta.gid() == group;
    let is_wanted = fs_err::read(&path).is_ok_and(|content| content == wanted.as_bytes());
    Ok(match (is_wanted, is_guarded) {
        (true, true) if stamp::holds(context, STAMP, wanted.as_bytes()) => Observation::Done,
        (true, true) => Observation::Todo("the services have not read their settings again yet".to_owned()),
        (false, _) => Observation::Todo(format!("`{}` differs from the settings", path.display())),
        (true, false) => Observation::Todo(format!("`{}` has another owner or mode", path.display())),
    })
}

fn apply(context: &Context) -> Result<()> {
    let group = passwd::user(context, &context.facts.application.user)?.gid;
    let text = rendered(context)?;
    durable::write(&path(context), text.as_bytes(), MODE, Some((0, group)))?;
    // They read the file once, at their start.
    units::NAMES.into_iter().filter(|unit| systemd::is_active(unit)).try_for_each(systemd::try_restart)?;
    stamp::put(context, STAMP, text.as_bytes())
}

fn path(context: &Context) -> PathBuf {
    context.path(&context.facts.application.root).join(".env.production")
}

fn rendered(context: &Context) -> Result<String> {
    render(&context.facts, context.settings()?, &Secrets::load(context)?)
}

/// What the application is given, by name.
pub(super) fn variables(context: &Context) -> Result<BTreeMap<String, String>> {
    let settings = context.settings()?;
    let pairs =
        sections(&context.facts, settings, &Secrets::load(context)?).into_iter().flat_map(|(_, pairs)| pairs);
    let mut variables: BTreeMap<String, String> = pairs.map(|(key, value)| (key.to_owned(), value)).collect();
    variables.extend(settings.extra_env.clone());
    Ok(variables)
}

fn render(facts: &ImageFacts, settings: &Settings, secrets: &Secrets) -> Result<String> {
    let mut text =
        "# Written by the appliance from its configuration; a change here is undone. See `appliance config`.\n".to_owned();
    for (title, pairs) in sections(facts, settings, secrets) {
        writeln!(text, "\n# {title}")?;
        for (key, value) in pairs.iter().filter(|(key, _)| !settings.extra_env.contains_key(*key)) {
            writeln!(text, "{}", dotenv::line(key, value)?)?;
        }
    }
    if !settings.extra_env.is_empty() {
        text.push_str("\n# From `extra-env`\n");
        for (key, value) in &settings.extra_env {
            writeln!(text, "{}", dotenv::line(key, value)?)?;
        }
    }
    Ok(text)
}

type Pairs = Vec<(&'static str, String)>;

fn sections(facts: &ImageFacts, settings: &Settings, secrets: &Secrets) -> Vec<(&'static str, Pairs)> {
    let mut services = vec![
        // A name, because Rails builds a URL from it and an IPv6 literal would make a bad one.
        ("REDIS_HOST", "localhost".to_owned()),
        ("REDIS_PORT", "6379".to_owned()),
    ];
    services.extend(database(facts, &settings.database));
    let mut federation = vec![("LOCAL_DOMAIN", settings.domain.to_string())];
    if facts.application.local_https {
        federation.push(("LOCAL_HTTPS", "true".to_owned()));
    }
    let mut keys = Vec::new();
    if facts.application.paperclip_secret {
        keys.push(("PAPERCLIP_SECRET", secrets.paperclip.expose().to_owned()));
    }
    keys.push(("SECRET_KEY_BASE", secrets.session.expose().to_owned()));
    keys.push(("OTP_SECRET", secrets.otp.expose().to_owned()));
    let push = vec![
        ("VAPID_PRIVATE_KEY", secrets.vapid_private.expose().to_owned()),
        ("VAPID_PUBLIC_KEY", secrets.vapid_public.expose().to_owned()),
    ];
    let mail = match &settings.mail {
        Some(mail) => relay(mail),
        None => vec![("SMTP_FROM_ADDRESS", format!("notifications@{}", settings.domain))],
    };
    vec![
        ("Service dependencies", services),
        ("Federation: part of every account's address, for ever", federation),
        ("Application secrets", keys),
        ("VAPID keys, which identify the instance to push services", push),
        ("E-mail", mail),
        ("Streaming", vec![("STREAMING_CLUSTER_NUM", "1".to_owned())]),
    ]
}

fn database(facts: &ImageFacts, database: &Database) -> Pairs {
    let Some(host) = &database.host else {
        return vec![
            // The Unix socket: PostgreSQL knows the role by the user of the process, so there is no password.
            ("DB_HOST", facts.postgresql.socket.clone()),
            ("DB_USER", facts.application.user.clone()),
            ("DB_NAME", database.name.clone()),
            ("DB_PASS", String::new()),
            ("DB_PORT", "5432".to_owned()),
        ];
    };
    let password = database.password.as_ref().map_or("", Secret::expose);
    let mut pairs = vec![
        ("DB_HOST", host.clone()),
        ("DB_USER", database.user.clone()),
        ("DB_NAME", database.name.clone()),
        ("DB_PASS", password.to_owned()),
        ("DB_PORT", database.port.to_string()),
    ];
    // No variable of Mastodon's: Rails' libpq reads it, and so does `pg` of Node, to which `prefer` means `require`.
    if database.sslmode != SslMode::Prefer {
        pairs.push(("PGSSLMODE", database.sslmode.word().to_owned()));
    }
    if database.ca.is_some() {
        pairs.push(("PGSSLROOTCERT", sql::CA_FILE.to_owned()));
    }
    pairs
}

fn relay(mail: &Mail) -> Pairs {
    let mut pairs = vec![("SMTP_SERVER", mail.relay.clone()), ("SMTP_PORT", mail.port.to_string())];
    let method = if let (Some(login), Some(password)) = (&mail.login, &mail.password) {
        pairs.push(("SMTP_LOGIN", login.clone()));
        pairs.push(("SMTP_PASSWORD", password.expose().to_owned()));
        "plain"
    } else {
        // Without a login the two keys must be absent: a blank login is still a login.
        "none"
    };
    pairs.push(("SMTP_FROM_ADDRESS", mail.from.clone()));
    pairs.push(("SMTP_AUTH_METHOD", method.to_owned()));
    // STARTTLS cannot be switched off in v1.6.1, so a relay with a certificate of its own needs `none`.
    let verify = match mail.verification() {
        Verify::None => "none",
        Verify::Peer => "peer",
    };
    pairs.push(("SMTP_OPENSSL_VERIFY_MODE", verify.to_owned()));
    pairs
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::context::tests::scratch_context;
    use crate::settings::{Secret, Settings};
    use crate::steps::secrets::Secrets;

    fn rendered(settings: &str) -> String {
        let (_guard, context) = scratch_context();
        let settings =
            Settings::parse("test", &format!("schema = 1\ndomain = \"v6don.example.net\"\n{settings}"))
                .unwrap();
        let secrets = Secrets {
            paperclip: Secret::new("aa"),
            session: Secret::new("bb"),
            otp: Secret::new("cc"),
            vapid_private: Secret::new("dd-_="),
            vapid_public: Secret::new("ee-_="),
        };
        render(&context.facts, &settings, &secrets).unwrap()
    }

    #[test]
    fn the_articles_settings_give_the_articles_file() {
        let settings =
            "[mail]\nrelay = \"192.168.100.25\"\nfrom = \"words@example.net\"\nverify = \"none\"\n";
        insta::assert_snapshot!(rendered(settings), @r"
        # Written by the appliance from its configuration; a change here is undone. See `appliance config`.

        # Service dependencies
        REDIS_HOST=localhost
        REDIS_PORT=6379
        DB_HOST=/var/run/postgresql
        DB_USER=mastodon
        DB_NAME=mastodon
        DB_PASS=
        DB_PORT=5432

        # Federation: part of every account's address, for ever
        LOCAL_DOMAIN=v6don.example.net
        LOCAL_HTTPS=true

        # Application secrets
        PAPERCLIP_SECRET=aa
        SECRET_KEY_BASE=bb
        OTP_SECRET=cc

        # VAPID keys, which identify the instance to push services
        VAPID_PRIVATE_KEY=dd-_=
        VAPID_PUBLIC_KEY=ee-_=

        # E-mail
        SMTP_SERVER=192.168.100.25
        SMTP_PORT=25
        SMTP_FROM_ADDRESS=words@example.net
        SMTP_AUTH_METHOD=none
        SMTP_OPENSSL_VERIFY_MODE=none

        # Streaming
        STREAMING_CLUSTER_NUM=1
        ");
    }

    #[test]
    fn a_database_elsewhere_brings_its_keys() {
        let text = rendered(
            "[database]\nhost = \"db.example.net\"\nport = 5433\nname = \"social\"\nuser = \"app\"\npassword = \"p w\"\nsslmode = \"require\"\n",
        );
        for line in [
            "DB_HOST=db.example.net",
            "DB_USER=app",
            "DB_NAME=social",
            "DB_PASS='p w'",
            "DB_PORT=5433",
            "PGSSLMODE=require",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(!rendered("[database]\nhost = \"db.example.net\"\n").contains("PGSSLMODE"));
    }

    #[test]
    fn a_login_brings_its_keys_and_extra_keys_replace() {
        let settings = "extra-env = { SMTP_AUTH_METHOD = \"login\", SINGLE_USER_MODE = \"true\" }\n\
            [mail]\nrelay = \"relay.example.net\"\nport = 587\nfrom = \"words@example.net\"\nlogin = \"me\"\npassword = \"p w\"\n";
        let text = rendered(settings);
        for line in ["SMTP_PORT=587", "SMTP_LOGIN=me", "SMTP_PASSWORD='p w'", "SINGLE_USER_MODE=true"] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        let methods: Vec<&str> = text.lines().filter(|line| line.starts_with("SMTP_AUTH_METHOD")).collect();
        assert_eq!(methods, ["SMTP_AUTH_METHOD=login"]);
    }
}
