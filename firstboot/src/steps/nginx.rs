//! Step `nginx`: the instance's site, with a certificate from its first second.
//!
//! Until an authority has signed one, the certificate is our own. A site file gets its name only after `nginx -t` accepted it,
//! and goes back to what it was if the whole configuration does not hold with it. Done is what is served on port 443, not what
//! lies on the disk.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use fs_err as fs;

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::exec::Run;
use crate::facts::ImageFacts;
use crate::settings::{Challenge, Listen, Settings, TlsMode};
use crate::steps::storage::guard;
use crate::tls::certificate::now;
use crate::tls::{probe, selfsigned, store};
use crate::{durable, http, stamp, systemd};

/// The step.
pub const STEP: Step = Step {
    name: "nginx",
    why: "the web server: HTTPS in front of web and streaming",
    needs: Needs::Local,
    watch: engine::MINUTELY,
    observe,
    apply,
};

/// Where the answers to an authority's challenges lie; nginx reads it.
pub const WEBROOT: &str = "/var/lib/letsencrypt/webroot";

/// Where HTTPS is taken from a socket of our own, which stands before port 443 while a name is proven by tls-alpn-01; the first line says
/// who the visitor is. A port that only root may have, or somebody else could be there first.
pub const INNER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 488);

const TEMPLATE: &str = include_str!("../../templates/mstdn.conf");
/// Port 80 when port 443 serves the instance.
const REDIRECT: &str = include_str!("../../templates/mstdn-redirect.conf");
/// Whom to believe when port 80 serves the instance.
const OFFLOAD: &str = include_str!("../../templates/mstdn-offload.conf");

/// Where the operator's own directives for the site lie, as `*.conf`; they belong into its server block.
pub const SNIPPETS: &str = "/etc/nginx/mstdn.d";

/// The site that nginx has taken last, where no certificate shows it.
const STAMP: &str = "nginx";

/// In seconds.
const DAY: i64 = 24 * 3600;

/// How long a start or a reload may take until the right certificate is served.
const START: Duration = Duration::from_secs(60);

fn observe(context: &Context) -> Result<Observation> {
    let settings = context.settings()?;
    let unit = &context.facts.nginx.unit;
    let todo = |text: String| Ok(Observation::Todo(text));
    let is_offloaded = settings.tls.mode == TlsMode::Offload;
    let pair = match usable_pair(context) {
        _ if is_offloaded => None,
        Ok(pair) => Some(pair),
        Err(error) => return todo(format!("{error:#}")),
    };
    let wanted = render(&context.facts, settings, speaks_tls13()?);
    if !fs::read(context.path(&context.facts.nginx.site)).is_ok_and(|found| found == wanted.as_bytes()) {
        return todo(format!("`{}` differs from the settings", context.facts.nginx.site));
    }
    if !guard::is_enabled(context, unit) || !systemd::is_active(unit) {
        return todo(format!("unit `{unit}` is not enabled and running"));
    }
    let Some(pair) = pair else {
        if !stamp::holds(context, STAMP, wanted.as_bytes()) {
            return todo("nginx has not taken the site yet".to_owned());
        }
        return match answers(settings) {
            Ok(()) => Ok(Observation::Done),
            Err(error) => todo(format!("{error:#}")),
        };
    };
    match serves(settings, &pair.certificate.der) {
        Ok(true) => Ok(Observation::Done),
        Ok(false) => todo("nginx serves another certificate than the one in force".to_owned()),
        Err(error) => todo(format!("{error:#}")),
    }
}

/// Whether nginx serves this leaf, wherever it is to serve.
fn serves(settings: &Settings, leaf: &[u8]) -> Result<bool> {
    let site = settings.site().as_str();
    let outer = probe::served(loopback(settings.web.listen, 443), site)?;
    Ok(outer == leaf && (!has_inner(settings) || probe::served_behind(INNER, site)? == leaf))
}

/// Whether visitors may come by [`INNER`].
fn has_inner(settings: &Settings) -> bool {
    settings.tls.mode == TlsMode::Acme && settings.tls.challenge == Challenge::TlsAlpn01
}

fn apply(context: &Context) -> Result<()> {
    let settings = context.settings()?;
    let unit = &context.facts.nginx.unit;
    let is_offloaded = settings.tls.mode == TlsMode::Offload;
    if !is_offloaded && usable_pair(context).is_err() {
        install_self_signed(context)?;
    }
    durable::folder(&context.path(WEBROOT))?;
    durable::folder(&context.path(SNIPPETS))?;
    let site = render(&context.facts, settings, speaks_tls13()?);
    put_site(context, &site)?;
    guard::enable(context, unit)?;
    if is_offloaded { take_site(context, &site) } else { take(context) }
}

/// Lets nginx take a site without a certificate, and waits until it answers.
fn take_site(context: &Context, site: &str) -> Result<()> {
    let unit = &context.facts.nginx.unit;
    start_or_reload(unit)?;
    let start = Instant::now();
    while let Err(error) = answers(context.settings()?) {
        if start.elapsed() > START {
            bail!("nginx runs, but {error:#}; `journalctl --unit {unit}` shows its last lines");
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    stamp::put(context, STAMP, site.as_bytes())
}

/// Whether nginx answers on port 80 at all; whether the instance behind it is well is for the step `units` to see.
fn answers(settings: &Settings) -> Result<()> {
    let address = loopback(settings.web.listen, 80);
    http::get(address, settings.site().as_str(), "/", Duration::from_secs(10)).map(drop)
}

fn start_or_reload(unit: &str) -> Result<()> {
    if systemd::is_active(unit) { systemd::reload(unit) } else { systemd::start(unit) }
}

/// Makes a certificate of our own and puts it in force.
pub fn install_self_signed(context: &Context) -> Result<()> {
    let domain = context.settings()?.site().as_str();
    let now = sane_now(context)?;
    let (chain, key) = selfsigned::make(domain, now - DAY, now + 365 * DAY)?;
    store::install(context, domain, &chain, &key, store::SELF_SIGNED)
}

/// Lets nginx take what lies on the disk, started or not, and waits until it serves the certificate in force.
pub fn take(context: &Context) -> Result<()> {
    let settings = context.settings()?;
    let unit = &context.facts.nginx.unit;
    start_or_reload(unit)?;
    let wanted = store::load(context, settings.site().as_str())?.certificate.der;
    let start = Instant::now();
    loop {
        match serves(settings, &wanted) {
            Ok(true) => return Ok(()),
            result if start.elapsed() > START => {
                let cause = result
                    .err()
                    .map_or("it serves another certificate".to_owned(), |error| format!("{error:#}"));
                bail!("nginx runs, but {cause}; `journalctl --unit {unit}` shows its last lines");
            }
            _ => std::thread::sleep(Duration::from_millis(300)),
        }
    }
}

/// An address of this machine on which nginx answers.
pub fn loopback(listen: Listen, port: u16) -> SocketAddr {
    match listen {
        Listen::Ipv6 | Listen::Dual => SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port),
        Listen::Ipv4 => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
    }
}

/// Every address of the families that nginx answers on, and a port that is free.
pub fn anywhere(listen: Listen) -> SocketAddr {
    match listen {
        Listen::Ipv6 | Listen::Dual => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
        Listen::Ipv4 => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
    }
}

/// The pair in force, if nginx can serve it. One from an authority serves even when it has run out, since what it has been
/// replaced with by then is no better; the step `certificate` renews it.
fn usable_pair(context: &Context) -> Result<store::Pair> {
    let pair = store::load(context, context.settings()?.site().as_str())?;
    let now = sane_now(context)?;
    if pair.certificate.is_self_signed
        && (!pair.certificate.is_valid_at(now) || pair.certificate.is_due_at(now))
    {
        bail!("the certificate of our own runs out");
    }
    Ok(pair)
}

/// Now, but never before the image was built: a clock that was not set yet must not make certificates that nobody accepts.
fn sane_now(context: &Context) -> Result<i64> {
    let built = i64::try_from(context.facts.epoch).context("reading the image's epoch")?;
    Ok(now()?.max(built))
}

/// Gives the site file its content, but only one that nginx accepts.
fn put_site(context: &Context, text: &str) -> Result<()> {
    let site = context.path(&context.facts.nginx.site);
    let previous = fs::read(&site).ok().filter(|previous| previous != text.as_bytes());
    let scratch = context.path("/run/appliance/nginx");
    let candidate = scratch.join("site.conf");
    // Alone first: a broken site then never lies where nginx would find it at the next boot. Without the operator's directives, which may
    // need what stands in other files of his; all together is looked at below.
    let alone = text.replace(&format!("include {SNIPPETS}/*.conf;"), "");
    durable::write(&candidate, alone.as_bytes(), 0o644, None)?;
    let main = format!(
        "pid {0}/nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{ access_log off; include {1}; }}\n",
        scratch.display(),
        candidate.display()
    );
    let path = scratch.join("nginx.conf");
    durable::write(&path, main.as_bytes(), 0o644, None)?;
    Run::new("nginx", &["-t", "-q", "-c", &path.to_string_lossy()])
        .text()
        .context("checking the site alone")?;

    durable::write(&site, text.as_bytes(), 0o644, None)?;
    let Err(error) = Run::new("nginx", &["-t", "-q"]).text() else { return Ok(()) };
    if let Some(previous) = previous {
        durable::write(&site, &previous, 0o644, None)?;
    } else {
        durable::remove(&site)?;
    }
    Err(error.context("nginx does not accept the site beside its other files; it was taken back"))
}

fn speaks_tls13() -> Result<bool> {
    let output = Run::new("nginx", &["-V"]).output()?;
    Ok(is_tls13_known(&output.stderr))
}

/// Whether this nginx knows the word `TLSv1.3` (1.13) and its OpenSSL the protocol (1.1.1).
fn is_tls13_known(said: &str) -> bool {
    let version = |marker: &str| -> Option<Vec<u32>> {
        let rest = said.split_once(marker)?.1;
        let end = rest
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .unwrap_or(rest.len());
        rest[..end].split('.').map(|number| number.parse().ok()).collect()
    };
    version("nginx/").is_some_and(|version| version >= vec![1, 13, 0])
        && version("OpenSSL ").is_some_and(|version| version >= vec![1, 1, 1])
}

fn render(facts: &ImageFacts, settings: &Settings, tls13: bool) -> String {
    let (domain, listen) = (settings.site().as_str(), settings.web.listen);
    let protocols = if tls13 { "TLSv1.2 TLSv1.3" } else { "TLSv1.2" };
    // The protocol of a socket is settled before the name is known, so the default server needs the same lines.
    let tls = [
        format!("ssl_protocols {protocols};"),
        "ssl_ciphers HIGH:!MEDIUM:!LOW:!aNULL:!NULL:!SHA;".to_owned(),
        "ssl_prefer_server_ciphers on;".to_owned(),
        "ssl_session_cache shared:SSL:10m;".to_owned(),
        format!("ssl_certificate {};", store::chain_path(domain)),
        format!("ssl_certificate_key {};", store::key_path(domain)),
    ]
    .join("\n    ");
    // nginx's table of names has rows of 64 bytes unless told otherwise.
    let hash = if domain.len() > 40 { "server_names_hash_bucket_size 512;\n" } else { "" };
    let public = format!("{}/public", facts.application.root);
    let has_inner = has_inner(settings);
    let secure = |words: &str, is_default| {
        let outer = listens(listen, 443, &format!(" {words}"), is_default);
        if has_inner { format!("{outer}\n    listen {INNER} {words} proxy_protocol;") } else { outer }
    };
    let visitors = if has_inner {
        format!(
            "\n    set_real_ip_from {};\n    real_ip_header proxy_protocol;\n    port_in_redirect off;",
            INNER.ip()
        )
    } else {
        String::new()
    };
    let text = if settings.tls.mode == TlsMode::Offload {
        let trust = |prefix| format!("{prefix} 1;");
        let balancers: Vec<String> = settings.tls.proxies.iter().map(trust).collect();
        TEMPLATE
            .replace("{{front}}", OFFLOAD)
            .replace("{{anybody}}", if balancers.is_empty() { "1" } else { "0" })
            .replace("{{balancers}}", &balancers.join("\n    "))
            .replace("{{https-default}}", "")
            .replace("{{tls-default}}", "")
            .replace("{{others}}", HEALTH)
            .replace("{{https}}", &listens(listen, 80, "", false))
            .replace("{{tls}}", ONLY_HTTPS)
            .replace("{{scheme}}", "$visitors_scheme")
    } else {
        TEMPLATE
            .replace("{{front}}", REDIRECT)
            .replace("{{https-default}}", &secure("ssl http2 default_server", true))
            .replace("{{tls-default}}", &tls)
            .replace("{{others}}", "return 444;")
            .replace("{{https}}", &secure("ssl http2", false))
            .replace("{{tls}}", &format!("{tls}{visitors}"))
            .replace("{{scheme}}", "https")
    };
    let limit = match settings.web.max_body_mib {
        0 => "0".to_owned(),
        mebibytes => format!("{mebibytes}m"),
    };
    text.replace("{{hash}}", hash)
        .replace("{{limit}}", &limit)
        .replace("{{media}}", &media(settings))
        .replace("{{snippets}}", SNIPPETS)
        .replace("{{http-default}}", &listens(listen, 80, " default_server", true))
        .replace("{{http}}", &listens(listen, 80, "", false))
        .replace("{{webroot}}", WEBROOT)
        .replace("{{public}}", &public)
        .replace("{{domain}}", domain)
}

/// The location of media that is not kept below the application; nothing when somebody else serves it.
fn media(settings: &Settings) -> String {
    let media = &settings.media;
    let url = media.url.as_deref().unwrap_or("/system");
    match &media.path {
        Some(path) if url.starts_with('/') => MEDIA.replace("{{url}}", url).replace("{{path}}", path),
        _ => String::new(),
    }
}

/// Before all expressions, whose folders are the application's own.
const MEDIA: &str = "\
    location ^~ {{url}}/ {
        alias {{path}}/;
        add_header Cache-Control \"public, max-age=31536000, immutable\";
        add_header Strict-Transport-Security \"max-age=31536000\" always;
    }

";

/// Behind a load balancer, which asks by address whether the instance is well.
const HEALTH: &str = "location = /health {
        proxy_set_header Host {{domain}};
        proxy_set_header X-Forwarded-Proto https;
        proxy_pass http://127.0.0.1:3000/api/v1/instance;
    }

    location / {
        return 444;
    }";

/// Behind a load balancer, for visitors who came to it without HTTPS.
const ONLY_HTTPS: &str = "if ($visitors_scheme != https) {
        return 301 https://$host$request_uri;
    }";

/// The `listen` lines of a server. Options of the socket may be said once only, so the default server says them.
fn listens(listen: Listen, port: u16, words: &str, is_default: bool) -> String {
    let ipv6_only = if is_default { " ipv6only=on" } else { "" };
    let ipv6 = format!("listen [::]:{port}{words}{ipv6_only};");
    let ipv4 = format!("listen {port}{words};");
    match listen {
        Listen::Ipv6 => ipv6,
        Listen::Dual => format!("{ipv4}\n    {ipv6}"),
        Listen::Ipv4 => ipv4,
    }
}

#[cfg(test)]
mod accepted;

#[cfg(test)]
mod tests {
    use super::{is_tls13_known, render};
    use crate::context::tests::scratch_context;
    use crate::settings::Settings;

    fn rendered(domain: &str, listen: &str) -> String {
        rendered_with(domain, &format!("[web]\nlisten = \"{listen}\"\n"))
    }

    fn rendered_with(domain: &str, rest: &str) -> String {
        let (_guard, context) = scratch_context();
        let settings =
            Settings::parse("test", &format!("schema = 1\ndomain = \"{domain}\"\nhostname = \"a\"\n{rest}"));
        let text = render(&context.facts, &settings.unwrap(), true);
        assert!(!text.contains("{{") && !text.contains("}}"), "{text}");
        text
    }

    #[test]
    fn behind_a_load_balancer_port_80_is_the_instance() {
        let anybody = rendered_with("v6don.example.net", "[tls]\nmode = \"offload\"\n");
        let some = "[tls]\nmode = \"offload\"\nproxies = [\"10.0.0.0/8\", \"2001:db8::/32\"]\n";
        let some = rendered_with("v6don.example.net", some);
        for text in [&anybody, &some] {
            assert!(!text.contains("443") && !text.contains("ssl"), "{text}");
            assert_eq!(text.matches("X-Forwarded-Proto $visitors_scheme;").count(), 2);
            assert_eq!(text.matches("listen [::]:80").count(), 2);
        }
        assert!(
            anybody.contains("default 1;")
                && some.contains("default 0;\n    10.0.0.0/8 1;\n    2001:db8::/32 1;")
        );
    }

    #[test]
    fn the_families_are_those_of_the_settings() {
        for (listen, expected) in [
            (
                "ipv6",
                "listen [::]:80 default_server ipv6only=on;|listen [::]:443 ssl http2 default_server ipv6only=on;|listen [::]:80;|listen [::]:443 ssl http2;",
            ),
            (
                "ipv4",
                "listen 80 default_server;|listen 443 ssl http2 default_server;|listen 80;|listen 443 ssl http2;",
            ),
            (
                "dual",
                "listen 80 default_server;|listen [::]:80 default_server ipv6only=on;|listen 443 ssl http2 default_server;|listen [::]:443 ssl http2 default_server ipv6only=on;|listen 80;|listen [::]:80;|listen 443 ssl http2;|listen [::]:443 ssl http2;",
            ),
        ] {
            let text = rendered("v6don.example.net", listen);
            let lines: Vec<&str> =
                text.lines().map(str::trim).filter(|line| line.starts_with("listen ")).collect();
            assert_eq!(lines.join("|"), expected);
        }
    }

    #[test]
    fn the_site_is_the_articles() {
        let text = rendered("v6don.example.net", "ipv6");
        for line in [
            "server_name v6don.example.net;",
            "root /home/mastodon/live/public;",
            "proxy_pass http://127.0.0.1:3000;",
            "proxy_pass http://127.0.0.1:4000;",
            "ssl_certificate /etc/letsencrypt/live/v6don.example.net/fullchain.pem;",
            "return 301 https://$host$request_uri;",
            "client_max_body_size 0;",
        ] {
            assert!(text.lines().any(|found| found.trim() == line), "{line}");
        }
        assert_eq!(text.matches("Strict-Transport-Security").count(), 3);
        let long = rendered(&format!("{}.example.net", "a".repeat(60)), "ipv6");
        assert!(long.contains("server_names_hash_bucket_size 512;") && !text.contains("hash_bucket"));
    }

    #[test]
    fn old_servers_are_not_offered_tls13() {
        for (said, expected) in [
            (
                "nginx version: nginx/1.22.1\nbuilt with OpenSSL 3.0.8 7 Feb 2023 (running with OpenSSL 3.0.20)",
                true,
            ),
            ("nginx version: nginx/1.12.2\nbuilt with OpenSSL 1.0.2k-fips  26 Jan 2017", false),
            ("nginx version: nginx/1.26.1\nbuilt with OpenSSL 1.0.2k-fips  26 Jan 2017", false),
            ("nginx version: nginx/1.26.1\nbuilt with OpenSSL 1.1.1w  11 Sep 2023", true),
            ("", false),
        ] {
            assert_eq!(is_tls13_known(said), expected, "{said}");
        }
    }
}
