//! What the settings say in `.env.production`: the one list that the step `environment` writes and that validation looks through, so
//! that nothing lands in the file which was not checked first.
//!
//! A variable whose mere presence means "yes" to Mastodon (`SMTP_TLS`, `SMTP_LOGIN`, `SINGLE_USER_MODE`, …) is in it only when yes
//! is meant, and one whose default is wanted is not in it at all: the tag knows its defaults better.

use super::{Domain, Encryption, Mail, Permission, Protocol, S3, Settings, Signature, Swift, Verify};

/// One line of the file.
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its value; may be a secret.
    pub value: String,
    /// The setting that says it, such as `mail.password`.
    pub key: &'static str,
}

/// The variables that belong together, under a heading.
pub struct Section {
    /// The heading.
    pub title: &'static str,
    /// The variables, at least one.
    pub variables: Vec<Variable>,
}

/// Collects one section.
struct Lines(Vec<Variable>);

impl Lines {
    fn put(&mut self, name: &'static str, key: &'static str, value: &(impl ToString + ?Sized)) {
        self.0.push(Variable { name, value: value.to_string(), key });
    }

    fn maybe(&mut self, name: &'static str, key: &'static str, value: Option<&impl ToString>) {
        if let Some(value) = value {
            self.put(name, key, value);
        }
    }

    fn domains(&mut self, name: &'static str, key: &'static str, domains: &[Domain], between: &str) {
        if !domains.is_empty() {
            self.put(name, key, &domains.iter().map(Domain::as_str).collect::<Vec<_>>().join(between));
        }
    }
}

/// Everything, in the order of v1.6.1's sample; the services, the domain and the secrets of the machine are not settings.
pub fn sections(settings: &Settings) -> Vec<Section> {
    type Fill = fn(&Settings, &mut Lines);
    let all: [(&'static str, Fill); 6] = [
        ("Other names of the instance", names),
        ("Registrations and language", registrations),
        ("E-mail", mail),
        ("Media", media),
        ("Streaming", streaming),
        ("Advanced", advanced),
    ];
    let sections = all.into_iter().map(|(title, fill)| {
        let mut lines = Lines(Vec::new());
        fill(settings, &mut lines);
        Section { title, variables: lines.0 }
    });
    sections.filter(|section| !section.variables.is_empty()).collect()
}

fn names(settings: &Settings, lines: &mut Lines) {
    let instance = &settings.instance;
    lines.maybe("WEB_DOMAIN", "instance.web-domain", instance.web_domain.as_ref());
    lines.domains("ALTERNATE_DOMAINS", "instance.alternate-domains", &instance.alternate_domains, ",");
    lines.maybe("CDN_HOST", "instance.cdn-host", instance.cdn_host.as_ref());
}

fn registrations(settings: &Settings, lines: &mut Lines) {
    let instance = &settings.instance;
    if instance.single_user {
        lines.put("SINGLE_USER_MODE", "instance.single-user", &true);
    }
    // Mastodon makes a regular expression of these two.
    let (denied, allowed) = (&instance.email_domains_denied, &instance.email_domains_allowed);
    lines.domains("EMAIL_DOMAIN_BLACKLIST", "instance.email-domains-denied", denied, "|");
    lines.domains("EMAIL_DOMAIN_WHITELIST", "instance.email-domains-allowed", allowed, "|");
    lines.maybe("DEFAULT_LOCALE", "instance.locale", instance.locale.as_ref());
}

fn mail(settings: &Settings, lines: &mut Lines) {
    let Some(mail) = &settings.mail else {
        lines.put("SMTP_FROM_ADDRESS", "domain", &format!("notifications@{}", settings.domain));
        return;
    };
    relay(mail, lines);
}

fn relay(mail: &Mail, lines: &mut Lines) {
    lines.put("SMTP_SERVER", "mail.relay", &mail.relay);
    lines.put("SMTP_PORT", "mail.port", &mail.port);
    // Without a login the two keys must be absent: to some versions a blank login is still a login.
    if let (Some(login), Some(password)) = (&mail.login, &mail.password) {
        lines.put("SMTP_LOGIN", "mail.login", login);
        lines.put("SMTP_PASSWORD", "mail.password", password.expose());
    }
    lines.put("SMTP_FROM_ADDRESS", "mail.from", &mail.from);
    lines.maybe("SMTP_DOMAIN", "mail.helo", mail.helo.as_ref());
    lines.put("SMTP_AUTH_METHOD", "mail.auth-method", mail.authentication().word());
    lines.maybe("SMTP_CA_FILE", "mail.ca-file", mail.ca_file.as_ref());
    // STARTTLS cannot be switched off in v1.6.1, so a relay with a certificate of its own needs `none`.
    let verify = match mail.verification() {
        Verify::None => "none",
        Verify::Peer => "peer",
    };
    lines.put("SMTP_OPENSSL_VERIFY_MODE", "mail.verify", verify);
    if mail.encryption == Encryption::Tls {
        lines.put("SMTP_TLS", "mail.encryption", &true);
    }
}

fn media(settings: &Settings, lines: &mut Lines) {
    let media = &settings.media;
    lines.maybe("PAPERCLIP_ROOT_PATH", "media.path", media.path.as_ref());
    lines.maybe("PAPERCLIP_ROOT_URL", "media.url", media.url.as_ref());
    if let Some(bucket) = &media.s3 {
        s3(bucket, lines);
    }
    if let Some(container) = &media.swift {
        swift(container, lines);
    }
}

fn s3(s3: &S3, lines: &mut Lines) {
    lines.put("S3_ENABLED", "media.s3", &true);
    lines.put("S3_BUCKET", "media.s3.bucket", &s3.bucket);
    lines.put("AWS_ACCESS_KEY_ID", "media.s3.access-key-id", s3.access_key_id.expose());
    lines.put("AWS_SECRET_ACCESS_KEY", "media.s3.secret-access-key", s3.secret_access_key.expose());
    lines.maybe("S3_REGION", "media.s3.region", s3.region.as_ref());
    let protocol = match s3.protocol {
        Protocol::Https => "https",
        Protocol::Http => "http",
    };
    lines.put("S3_PROTOCOL", "media.s3.protocol", protocol);
    lines.maybe("S3_HOSTNAME", "media.s3.hostname", s3.hostname.as_ref());
    lines.maybe("S3_ENDPOINT", "media.s3.endpoint", s3.endpoint.as_ref());
    let signature = s3.signature_version.map(|version| match version {
        Signature::V4 => "v4",
        Signature::S3 => "s3",
    });
    lines.maybe("S3_SIGNATURE_VERSION", "media.s3.signature-version", signature.as_ref());
    let permission = s3.permission.map(|permission| match permission {
        Permission::Private => "private",
        Permission::PublicRead => "public-read",
        Permission::AuthenticatedRead => "authenticated-read",
        Permission::BucketOwnerRead => "bucket-owner-read",
        Permission::BucketOwnerFullControl => "bucket-owner-full-control",
    });
    lines.maybe("S3_PERMISSION", "media.s3.permission", permission.as_ref());
    lines.maybe("S3_CLOUDFRONT_HOST", "media.s3.cloudfront-host", s3.cloudfront_host.as_ref());
}

fn swift(swift: &Swift, lines: &mut Lines) {
    lines.put("SWIFT_ENABLED", "media.swift", &true);
    lines.put("SWIFT_USERNAME", "media.swift.username", &swift.username);
    lines.put("SWIFT_TENANT", "media.swift.tenant", &swift.tenant);
    lines.put("SWIFT_PASSWORD", "media.swift.password", swift.password.expose());
    lines.put("SWIFT_AUTH_URL", "media.swift.auth-url", &swift.auth_url);
    lines.put("SWIFT_CONTAINER", "media.swift.container", &swift.container);
    lines.put("SWIFT_OBJECT_URL", "media.swift.object-url", &swift.object_url);
    lines.maybe("SWIFT_REGION", "media.swift.region", swift.region.as_ref());
    lines.maybe("SWIFT_DOMAIN_NAME", "media.swift.domain-name", swift.domain_name.as_ref());
    lines.put("SWIFT_CACHE_TTL", "media.swift.cache-ttl", &swift.cache_ttl);
}

fn streaming(settings: &Settings, lines: &mut Lines) {
    lines.maybe("STREAMING_API_BASE_URL", "streaming.base-url", settings.streaming.base_url.as_ref());
    lines.put("STREAMING_CLUSTER_NUM", "streaming.workers", &settings.streaming.workers);
}

fn advanced(settings: &Settings, lines: &mut Lines) {
    if !settings.instance.prepared_statements {
        lines.put("PREPARED_STATEMENTS", "instance.prepared-statements", &false);
    }
}
