//! The real nginx takes every kind of site, and answers as the article's does: headers, limits, errors, the operator's own directives.
//!
//! It runs in a network namespace of its own, as whoever runs the tests.

use std::path::Path;

use super::{SNIPPETS, WEBROOT, render, speaks_tls13};
use crate::context::tests::scratch_context;
use crate::settings::Settings;
use crate::tls::selfsigned;

const DOMAIN: &str = "v6don.example.net";

/// A site with all its paths below a folder, and nginx' own file around it.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new(rest: &str) -> Site {
        let (folder, mut context) = scratch_context();
        let at = |path: &str| folder.path().join(path.trim_start_matches('/'));
        let settings =
            Settings::parse("test", &format!("schema = 1\ndomain = \"{DOMAIN}\"\n{rest}")).unwrap();
        context.facts.application.root = at("live").display().to_string();
        let tls13 = speaks_tls13().unwrap();
        let mut text = render(&context.facts, &settings, tls13);
        for path in ["/etc/letsencrypt", WEBROOT, SNIPPETS, "/srv/media"] {
            text = text.replace(path, &at(path).display().to_string());
        }
        let live = at("/etc/letsencrypt/live").join(settings.site().as_str());
        for path in
            [live.clone(), at(WEBROOT), at(SNIPPETS), at("/srv/media"), at("live/public/packs"), at("tmp")]
        {
            fs_err::create_dir_all(path).unwrap();
        }
        let (chain, key) = selfsigned::make(settings.site().as_str(), 1_700_000_000, 4_000_000_000).unwrap();
        fs_err::write(live.join("fullchain.pem"), chain).unwrap();
        fs_err::write(live.join("privkey.pem"), key).unwrap();
        fs_err::write(at("site.conf"), text).unwrap();
        let temps = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temps = temps.map(|name| format!("{name}_temp_path {}/{name};\n", at("tmp").display())).concat();
        let main = format!(
            "user root root;\nmaster_process off;\npid {0}/nginx.pid;\nerror_log {0}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{temps}include {0}/site.conf;\n}}\n",
            folder.path().display()
        );
        fs_err::write(at("nginx.conf"), main).unwrap();
        Site { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a script in a network of its own.
    fn run(&self, script: &str) -> anyhow::Result<String> {
        let script = format!("set -e; cd {}; ip link set lo up; {script}", self.path().display());
        let args = ["--map-root-user", "--net", "sh", "-c", script.as_str()];
        testkit::run(Path::new("unshare"), &args.map(std::ffi::OsStr::new))
    }

    fn is_accepted(&self) -> anyhow::Result<String> {
        self.run("nginx -t -q -c $PWD/nginx.conf -e stderr")
    }

    /// What `curl` says to these requests while nginx runs.
    fn asked(&self, requests: &str) -> String {
        let script = format!(
            "nginx -c $PWD/nginx.conf -e stderr; trap 'kill $(cat nginx.pid)' EXIT; \
             ask() {{ rm -f body; curl -sk --noproxy '*' --max-time 20 --connect-to '::[::1]:' -o body -D - \"$@\" | sed 's/[ \\r]*$//' | grep -iE \
             '^(HTTP|cache-control|strict|location)' || echo 'no answer'; [ ! -e body ] || echo \"$(head -n 1 body)\"; }}; {requests}"
        );
        self.run(&script).unwrap()
    }
}

#[test]
fn every_kind_of_site_is_accepted() {
    let pem = "certificate = \"-----BEGIN CERTIFICATE-----\\nA\\n-----END CERTIFICATE-----\"\n\
        key = \"-----BEGIN PRIVATE KEY-----\\nA\\n-----END PRIVATE KEY-----\"\n";
    let long = format!("{}.{}.example", "a".repeat(60), "b".repeat(60));
    for listen in ["ipv6", "dual", "ipv4"] {
        let manual = format!("mode = \"manual\"\n{pem}");
        for tls in [
            "mode = \"acme\"",
            "challenge = \"tls-alpn-01\"",
            "mode = \"selfsigned\"",
            "mode = \"offload\"",
            "mode = \"offload\"\nproxies = [\"10.0.0.0/8\", \"2001:db8::/32\"]",
            &manual,
        ] {
            for more in [
                String::new(),
                format!("[instance]\nweb-domain = \"{long}\"\n"),
                "[media]\npath = \"/srv/media\"\nurl = \"/files\"\n".to_owned(),
                "[media]\npath = \"/srv/media\"\n".to_owned(),
            ] {
                let site = Site::new(&format!(
                    "[web]\nlisten = \"{listen}\"\nmax-body-mib = 80\n[tls]\n{tls}\n{more}"
                ));
                if let Err(error) = site.is_accepted() {
                    panic!("{listen}, {tls}, {more}: {error:#}");
                }
            }
        }
    }
}

#[test]
fn a_broken_snippet_is_refused_with_its_place() {
    let site = Site::new("");
    fs_err::write(site.path().join(&SNIPPETS[1..]).join("own.conf"), "no_such_word on;\n").unwrap();
    let error = format!("{:#}", site.is_accepted().unwrap_err());
    assert!(error.contains("\"no_such_word\"") && error.contains("own.conf:1"), "{error}");
}

/// Nothing stands behind nginx here: what the application would answer is nginx' own error page.
#[test]
fn the_site_answers_as_the_articles() {
    let site = Site::new("[web]\nmax-body-mib = 1\n[media]\npath = \"/srv/media\"\nurl = \"/files\"\n");
    for (path, text) in [
        ("live/public/500.html", "broken elephant"),
        ("live/public/packs/a.js", "pack"),
        ("live/public/sw.js", "worker"),
        ("live/public/robots.txt", "robots"),
        ("srv/media/a.png", "picture"),
        (&format!("{}/own.conf", &SNIPPETS[1..]), "location = /own { return 200 own; }\n"),
        (&format!("{}/.well-known/acme-challenge/token", &WEBROOT[1..]), "proof"),
    ] {
        let path = site.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }
    let said = site.asked(
        "for path in packs/a.js sw.js robots.txt files/a.png own about api/v1/streaming; do ask https://v6don.example.net/$path; done; \
         head -c 2000000 /dev/zero >big; ask --data-binary @big https://v6don.example.net/api/v1/media; \
         ask http://v6don.example.net/about; ask http://v6don.example.net/.well-known/acme-challenge/token; \
         ask https://other.example.net/",
    );
    insta::assert_snapshot!(said, @"
    HTTP/2 200
    cache-control: public, max-age=31536000, immutable
    strict-transport-security: max-age=31536000
    pack
    HTTP/2 200
    cache-control: public, max-age=0
    strict-transport-security: max-age=31536000
    worker
    HTTP/2 200
    strict-transport-security: max-age=31536000
    robots
    HTTP/2 200
    cache-control: public, max-age=31536000, immutable
    strict-transport-security: max-age=31536000
    picture
    HTTP/2 200
    strict-transport-security: max-age=31536000
    own
    HTTP/2 502
    strict-transport-security: max-age=31536000
    broken elephant
    HTTP/2 502
    strict-transport-security: max-age=31536000
    broken elephant
    HTTP/2 413
    strict-transport-security: max-age=31536000
    <html>
    HTTP/1.1 301 Moved Permanently
    Location: https://v6don.example.net/about
    <html>
    HTTP/1.1 200 OK
    proof
    no answer
    ");
}
