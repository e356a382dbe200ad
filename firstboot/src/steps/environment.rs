//! Step `environment`: `.env.production`, what the application reads its settings from.
//!
//! Always the exact rendering of settings and secrets, in the order of v1.6.1's sample, readable by the application and root
//! alone. Both dotenv parsers read it alike (see [`crate::dotenv`]). Keys whose mere presence means "yes" to Mastodon
//! (`SMTP_TLS`, `SMTP_LOGIN`, …) are left out, not blank. What the settings say is listed in
//! [`crate::settings::variables`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::exec::Run;
use crate::facts::ImageFacts;
use crate::passwd::{self, User};
use crate::settings::{Database, Secret, Settings, SslMode, variables};
use crate::steps::secrets::Secrets;
use crate::steps::{clone, units};
use crate::{channels, dotenv, durable, sql, stamp, systemd};

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
    for look in [other_site, unknown_locale, closed_media_folder] {
        if let Some(problem) = look(context)? {
            return Ok(Observation::Broken(problem));
        }
    }
    let wanted = rendered(context)?;
    if let Some(folder) = missing_media_folder(context)? {
        return Ok(Observation::Todo(format!("`{}` does not exist", folder.display())));
    }
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
    let User { uid, gid: group, .. } = passwd::user(context, &context.facts.application.user)?;
    if let Some(folder) = missing_media_folder(context)? {
        if let Some(parent) = folder.parent() {
            durable::folder(parent)?;
        }
        // A cut leaves it empty; with something in it, it is the operator's, and stays.
        let scratch = durable::scratch(&folder);
        if scratch.symlink_metadata().is_ok() {
            durable::remove_empty_folder(&scratch)
                .with_context(|| format!("`media.path`: `{}` is in the way: move it", scratch.display()))?;
        }
        durable::folder_with(&folder, 0o755, Some((uid, group)))?;
    }
    let (path, text) = (path(context), rendered(context)?);
    // The step `database` has not said yes to another one: until it has, what runs ends here instead of writing into it.
    if path.is_file() && place(&String::from_utf8_lossy(&fs_err::read(&path)?)) != place(&text) {
        clone::hold(context)?;
    }
    durable::write(&path, text.as_bytes(), MODE, Some((0, group)))?;
    // They read the file once, at their start.
    units::ALL.into_iter().filter(|unit| systemd::is_active(unit)).try_for_each(systemd::try_restart)?;
    stamp::put(context, STAMP, text.as_bytes())
}

/// What is wrong with the web site's name: every account of the world knows this instance by the former one.
fn other_site(context: &Context) -> Result<Option<String>> {
    let site = context.settings()?.site();
    let settled = channels::settled_site(&context.root).filter(|settled| settled != site.as_str());
    Ok(settled.map(|settled| {
        format!(
            "`instance.web-domain`: it makes the web site `{site}`, but this instance's is `{settled}` for ever: put it back"
        )
    }))
}

/// What is wrong with the operator's folder for media: one that is not the application's would make every upload fail.
fn closed_media_folder(context: &Context) -> Result<Option<String>> {
    let user = &context.facts.application.user;
    let Some(path) = &context.settings()?.media.path else { return Ok(None) };
    let is_open = || Run::as_user(user, "test", &["-w", path]).succeeds();
    let is_closed = context.is_machine() && context.path(path).is_dir() && !is_open();
    Ok(is_closed.then(|| {
        format!("`media.path`: user `{user}` cannot write into `{path}`: mount its disk, then `chown {user}: {path}`")
    }))
}

/// What is wrong with the language: with one that the application does not have, every page would be an error.
fn unknown_locale(context: &Context) -> Result<Option<String>> {
    let folder = context.path(&context.facts.application.root).join("config/locales");
    let Some(locale) = context.settings()?.instance.locale.as_ref().filter(|_| folder.is_dir()) else {
        return Ok(None);
    };
    if folder.join(format!("{locale}.yml")).is_file() {
        return Ok(None);
    }
    let mut known = Vec::new();
    for entry in fs_err::read_dir(&folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        known.extend(name.strip_suffix(".yml").filter(|name| !name.contains('.')).map(str::to_owned));
    }
    known.sort();
    Ok(Some(format!(
        "`instance.locale`: {} has no language `{locale}`; choose one of {}",
        context.facts.tag,
        known.join(", ")
    )))
}

/// The folder that media shall be kept in, if it is not there. One that is there is the operator's, owner and mode included.
fn missing_media_folder(context: &Context) -> Result<Option<PathBuf>> {
    let folder = context.settings()?.media.path.as_ref().map(|path| context.path(path));
    Ok(folder.filter(|folder| !folder.is_dir()))
}

fn path(context: &Context) -> PathBuf {
    context.path(&context.facts.application.root).join(".env.production")
}

/// The lines that say which database it is.
fn place(text: &str) -> Vec<&str> {
    let says = |line: &&str| ["DB_HOST=", "DB_PORT=", "DB_NAME="].iter().any(|start| line.starts_with(start));
    text.lines().filter(says).collect()
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
    let mut sections = vec![
        ("Service dependencies", services),
        ("Federation: part of every account's address, for ever", federation),
        ("Application secrets", keys),
        ("VAPID keys, which identify the instance to push services", push),
    ];
    sections.extend(variables::sections(settings).into_iter().map(|section| {
        let pairs = section.variables.into_iter().map(|variable| (variable.name, variable.value));
        (section.title, pairs.collect())
    }));
    sections
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

#[cfg(test)]
mod round_trip;

#[cfg(test)]
mod tests {
    use super::render;
    use crate::context::tests::scratch_context;
    use crate::settings::{Secret, Settings};
    use crate::steps::secrets::Secrets;

    pub(super) fn secrets() -> Secrets {
        Secrets {
            paperclip: Secret::new("aa"),
            session: Secret::new("bb"),
            otp: Secret::new("cc"),
            vapid_private: Secret::new("dd-_="),
            vapid_public: Secret::new("ee-_="),
        }
    }

    fn rendered(settings: &str) -> String {
        let (_guard, context) = scratch_context();
        let settings =
            Settings::parse("test", &format!("schema = 1\ndomain = \"v6don.example.net\"\n{settings}"))
                .unwrap();
        render(&context.facts, &settings, &secrets()).unwrap()
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

    /// Everything that v1.6.1's sample knows beyond that; what means "yes" by being there is there only when yes is meant.
    #[test]
    fn every_key_of_the_sample_can_be_said() {
        let names = |settings: &str| -> Vec<String> {
            let text = rendered(settings);
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.filter_map(|line| line.split_once('=')).map(|(name, _)| name.to_owned()).collect()
        };
        let everything = "[instance]\nweb-domain = \"a.example\"\nalternate-domains = [\"b.example\", \"c.example\"]\n\
            single-user = true\nlocale = \"ja\"\nemail-domains-denied = [\"d.example\", \"e.example\"]\n\
            email-domains-allowed = [\"f.example\"]\ncdn-host = \"https://g.example\"\nprepared-statements = false\n\
            [streaming]\nworkers = 2\nbase-url = \"wss://h.example\"\n\
            [mail]\nrelay = \"relay\"\nport = 465\nfrom = \"words@example.net\"\nlogin = \"me\"\npassword = \"p\"\n\
            auth-method = \"cram_md5\"\nencryption = \"tls\"\nhelo = \"i.example\"\nca-file = \"/etc/ca.pem\"\n";
        let s3 = "[media.s3]\nbucket = \"don\"\nregion = \"a\"\naccess-key-id = \"b\"\nsecret-access-key = \"c\"\n\
            endpoint = \"https://d.example\"\nhostname = \"e.example:9000\"\nprotocol = \"http\"\nsignature-version = \"s3\"\n\
            permission = \"bucket-owner-full-control\"\ncloudfront-host = \"f.example\"\n";
        let swift = "[media.swift]\nusername = \"a\"\npassword = \"b\"\ntenant = \"c\"\ncontainer = \"d\"\n\
            auth-url = \"https://a.example/v3\"\nobject-url = \"https://b.example\"\nregion = \"e\"\ndomain-name = \"f\"\n";
        let folder = "[media]\npath = \"/srv/media\"\nurl = \"/files\"\n";
        let text = rendered(&format!("{everything}{s3}"));
        insta::assert_snapshot!(text.split_once("# Other names of the instance\n").unwrap().1, @"
        WEB_DOMAIN=a.example
        ALTERNATE_DOMAINS=b.example,c.example
        CDN_HOST=https://g.example

        # Registrations and language
        SINGLE_USER_MODE=true
        EMAIL_DOMAIN_BLACKLIST='d.example|e.example'
        EMAIL_DOMAIN_WHITELIST=f.example
        DEFAULT_LOCALE=ja

        # E-mail
        SMTP_SERVER=relay
        SMTP_PORT=465
        SMTP_LOGIN=me
        SMTP_PASSWORD=p
        SMTP_FROM_ADDRESS=words@example.net
        SMTP_DOMAIN=i.example
        SMTP_AUTH_METHOD=cram_md5
        SMTP_CA_FILE=/etc/ca.pem
        SMTP_OPENSSL_VERIFY_MODE=peer
        SMTP_TLS=true

        # Media
        S3_ENABLED=true
        S3_BUCKET=don
        AWS_ACCESS_KEY_ID=b
        AWS_SECRET_ACCESS_KEY=c
        S3_REGION=a
        S3_PROTOCOL=http
        S3_HOSTNAME=e.example:9000
        S3_ENDPOINT=https://d.example
        S3_SIGNATURE_VERSION=s3
        S3_PERMISSION=bucket-owner-full-control
        S3_CLOUDFRONT_HOST=f.example

        # Streaming
        STREAMING_API_BASE_URL=wss://h.example
        STREAMING_CLUSTER_NUM=2

        # Advanced
        PREPARED_STATEMENTS=false
        ");
        let stores = [rendered(swift), rendered(folder)]
            .map(|text| text.split_once("# Media\n").unwrap().1.to_owned());
        insta::assert_snapshot!(stores.concat(), @"
        SWIFT_ENABLED=true
        SWIFT_USERNAME=a
        SWIFT_TENANT=c
        SWIFT_PASSWORD=b
        SWIFT_AUTH_URL=https://a.example/v3
        SWIFT_CONTAINER=d
        SWIFT_OBJECT_URL=https://b.example
        SWIFT_REGION=e
        SWIFT_DOMAIN_NAME=f
        SWIFT_CACHE_TTL=60

        # Streaming
        STREAMING_CLUSTER_NUM=1
        PAPERCLIP_ROOT_PATH=/srv/media
        PAPERCLIP_ROOT_URL=/files

        # Streaming
        STREAMING_CLUSTER_NUM=1
        ");
        // The sample's keys, by what a plain configuration lacks.
        let plain = names("");
        for name in [
            "SINGLE_USER_MODE",
            "SMTP_TLS",
            "SMTP_LOGIN",
            "S3_ENABLED",
            "SWIFT_ENABLED",
            "PREPARED_STATEMENTS",
        ] {
            assert!(!plain.iter().any(|found| found == name), "{name}");
        }
    }

    #[test]
    fn a_language_that_the_application_does_not_have_is_named() {
        let (_guard, mut context) = scratch_context();
        let text = "schema = 1\ndomain = \"a.example\"\n[instance]\nlocale = \"tlh\"\n";
        context.settings = Some(Settings::parse("test", text).unwrap());
        assert_eq!(super::unknown_locale(&context).unwrap(), None, "the stand-in has no languages at all");
        let folder = context.path("/home/mastodon/live/config/locales");
        fs_err::create_dir_all(&folder).unwrap();
        for name in ["ja.yml", "en.yml", "doorkeeper.ja.yml"] {
            fs_err::write(folder.join(name), "").unwrap();
        }
        let problem = super::unknown_locale(&context).unwrap().unwrap();
        insta::assert_snapshot!(problem, @"`instance.locale`: v1.6.1 has no language `tlh`; choose one of en, ja");
        fs_err::write(folder.join("tlh.yml"), "").unwrap();
        assert_eq!(super::unknown_locale(&context).unwrap(), None);
    }
}
