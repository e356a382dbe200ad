//! Contradictions between settings that each alone would be fine, and values that first boot could not write down.

pub(crate) mod application;

use super::{Challenge, Ipv4Method, Ipv6Method, Listen, Settings, TlsMode};

/// Environment variables that first boot alone decides: another value would lose data or lock people out.
const OURS: [&str; 26] = [
    "DATABASE_URL",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "REDIS_HOST",
    "REDIS_PORT",
    "REDIS_URL",
    "REDIS_DB",
    "REDIS_NAMESPACE",
    "REDIS_PASSWORD",
    "SOCKET",
    "BIND",
    // They have settings of their own, which other steps go by.
    "WEB_DOMAIN",
    "PAPERCLIP_ROOT_PATH",
    "PAPERCLIP_ROOT_URL",
    "DB_HOST",
    "DB_USER",
    "DB_NAME",
    "DB_PASS",
    "DB_PORT",
    "LOCAL_DOMAIN",
    "LOCAL_HTTPS",
    "PAPERCLIP_SECRET",
    "SECRET_KEY_BASE",
    "OTP_SECRET",
    "VAPID_PRIVATE_KEY",
    "VAPID_PUBLIC_KEY",
];

/// The kernel takes no longer name of a machine.
const LONGEST_HOSTNAME: usize = 64;

/// The first contradiction: the key to change, and what is wrong with it.
pub(super) fn contradiction(settings: &Settings) -> Option<(&'static str, String)> {
    let found = |key, message: &str| Some((key, message.to_owned()));
    if settings.hostname().len() > LONGEST_HOSTNAME {
        let name = settings.hostname();
        return Some((
            "hostname",
            format!(
                "`{name}` is longer than the {LONGEST_HOSTNAME} characters that a machine's name may have: give a shorter `hostname`"
            ),
        ));
    }
    let (ipv6, ipv4) = (&settings.network.ipv6, &settings.network.ipv4);
    match ipv6.method {
        Ipv6Method::Static if ipv6.addresses.is_empty() => {
            return found("network.ipv6.addresses", "`method = \"static\"` needs at least one address");
        }
        Ipv6Method::Auto | Ipv6Method::Off if ipv6.gateway.is_some() => {
            return found(
                "network.ipv6.gateway",
                "a gateway goes with `method = \"static\"` only: remove one of them",
            );
        }
        Ipv6Method::Off if !ipv6.addresses.is_empty() => {
            return found(
                "network.ipv6.addresses",
                "addresses were given, but `method = \"off\"`: remove one of them",
            );
        }
        _ => {}
    }
    match ipv4.method {
        Ipv4Method::Static if ipv4.addresses.is_empty() => {
            return found("network.ipv4.addresses", "`method = \"static\"` needs at least one address");
        }
        Ipv4Method::Dhcp | Ipv4Method::Off if !ipv4.addresses.is_empty() || ipv4.gateway.is_some() => {
            return found(
                "network.ipv4.method",
                "addresses and gateway go with `method = \"static\"`: write that, or remove them",
            );
        }
        _ => {}
    }
    let resolver_without_family = settings.network.dns.iter().find(|resolver| {
        resolver.is_ipv6() && ipv6.method == Ipv6Method::Off
            || resolver.is_ipv4() && ipv4.method == Ipv4Method::Off
    });
    if let Some(resolver) = resolver_without_family {
        return Some((
            "network.dns",
            format!(
                "`{resolver}` cannot be reached, because its address family is off: give another resolver"
            ),
        ));
    }
    match settings.web.listen {
        Listen::Ipv6 if ipv6.method == Ipv6Method::Off => {
            return found(
                "web.listen",
                "the web server listens on IPv6 only, but IPv6 is off: write `listen = \"ipv4\"`",
            );
        }
        Listen::Ipv4 if ipv4.method == Ipv4Method::Off => {
            return found(
                "web.listen",
                "the web server listens on IPv4 only, but IPv4 is off: write `listen = \"ipv6\"`",
            );
        }
        _ => {}
    }
    if let Some((key, message)) = certificate(settings) {
        return found(key, message);
    }
    if let Some(found) = super::database::contradiction(&settings.database) {
        return Some(found);
    }
    application::contradiction(settings)
}

/// The first contradiction about the certificate.
fn certificate(settings: &Settings) -> Option<(&'static str, &'static str)> {
    let tls = &settings.tls;
    if settings.tls.mode == TlsMode::Acme && !settings.acme.agree_terms {
        return Some((
            "acme.agree-terms",
            "no certificate can be ordered without agreement to the terms: write true, or `[tls] mode = \"selfsigned\"`",
        ));
    }
    if tls.certificate.is_some() != tls.key.is_some() {
        return Some(("tls.certificate", "`certificate` and `key` go together: give both or neither"));
    }
    if tls.certificate.is_some() && tls.mode != TlsMode::Manual {
        return Some((
            "tls.certificate",
            "a certificate was given, but `mode` is not \"manual\": change one of them",
        ));
    }
    if (tls.challenge == Challenge::Dns01) != tls.dns_hook.is_some() {
        return Some((
            "tls.dns-hook",
            "`challenge = \"dns-01\"` and `dns-hook`, the program that changes the zone, go together: give both or neither",
        ));
    }
    if tls.challenge != Challenge::Http01 && tls.mode != TlsMode::Acme {
        return Some(("tls.challenge", "a challenge goes with `mode = \"acme\"` only: change one of them"));
    }
    if !tls.proxies.is_empty() && tls.mode != TlsMode::Offload {
        return Some(("tls.proxies", "proxies go with `mode = \"offload\"` only: change one of them"));
    }
    None
}
