//! The life of an account, from sign-up to a status that others see, through the same pages and interfaces as a browser and an app.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testkit::client::{Client, Cookies, Request};
use testkit::lab::INSTANCE_V4;

use crate::changes::{comes, restore, settles};
use crate::faults::guest;
use crate::site::{DOMAIN, Site, Visitor};

const USERNAME: &str = "alice";
const EMAIL: &str = "alice@lab.test";
const OWNER: &str = "bob";
const OWNERS_EMAIL: &str = "Bob@lab.test";
const PASSWORD: &str = "correct horse battery staple";
const STATUS: &str = "Hello from a machine that set itself up";
/// Wider than any thumbnail.
const PICTURE: &[u8] = include_bytes!("../data/picture.png");
/// Sidekiq, under emulation.
const LIMIT: Duration = Duration::from_secs(120);

pub fn sign_up(site: &mut Site) -> Result<()> {
    let client = site.lab()?.client()?;
    let mut cookies = Cookies::default();
    let fields = [
        ("user[account_attributes][username]", USERNAME),
        ("user[email]", EMAIL),
        ("user[password]", PASSWORD),
    ];
    submit(&client, &mut cookies, "/auth/sign_up", "/auth", &fields)?;
    let mail = site.lab()?.mailbox().wait_for(EMAIL, LIMIT)?;
    ensure!(mail.peer.contains(&INSTANCE_V4.to_string()), "the mail came from {}", mail.peer);
    site.visitor = Some(Visitor { cookies, ..Visitor::default() });
    Ok(())
}

pub fn activate(site: &mut Site) -> Result<()> {
    let client = site.lab()?.client()?;
    let mail = site.lab()?.mailbox().wait_for(EMAIL, LIMIT)?;
    let visitor = site.visitor()?;
    let request = sign_in(&client, EMAIL, PASSWORD)?;
    // Before the link is followed, the right password is not enough.
    client.https(&request)?.expect(401)?;
    let link = mail.link("/auth/confirmation?confirmation_token=")?;
    client.https(&Request::get(path_of(link)?))?.expect(302)?;
    let token = client.https(&request)?.expect(200)?.json()?;
    visitor.token =
        Some(token["access_token"].as_str().with_context(|| format!("no token in {token}"))?.to_owned());
    Ok(())
}

/// What an app of its own asks for in a user's name.
fn sign_in(client: &Client, email: &str, password: &str) -> Result<Request> {
    let app =
        [("client_name", "test"), ("redirect_uris", "urn:ietf:wg:oauth:2.0:oob"), ("scopes", "read write")];
    let app = client.https(&Request::post("/api/v1/apps").form(&app))?.expect(200)?.json()?;
    let field = |name: &str| app[name].as_str().with_context(|| format!("no `{name}` in {app}"));
    let grant = [
        ("grant_type", "password"),
        ("client_id", field("client_id")?),
        ("client_secret", field("client_secret")?),
        ("username", email),
        ("password", password),
        ("scope", "read write"),
    ];
    Ok(Request::post("/oauth/token").form(&grant))
}

/// The owner whom the settings name has the password of the file, and nobody else becomes an administrator by the settings.
pub fn owner_has_the_password(site: &mut Site) -> Result<()> {
    let table = format!("\\n[owner]\\nusername = \"{OWNER}\"\\nemail = \"{OWNERS_EMAIL}\"\\n");
    guest(
        site,
        &format!(
            "cd /etc/appliance && cp -p config.toml /root/config.before && printf '{table}' >>config.toml && appliance retry"
        ),
    )?;
    let shown = owner_signs_in(site);
    // In any case, because other checks follow.
    restore(site)?;
    shown
}

fn owner_signs_in(site: &mut Site) -> Result<()> {
    const MADE: &str = "test -e /var/lib/appliance/owner-made && ! test -e /var/lib/appliance/owner-begun";
    let client = site.lab()?.client()?;
    let read = |site: &mut Site| {
        site.machine()?.shell("stat -c %a /root/owner-password && cat /root/owner-password")
    };
    settles(site, "the owner's account", MADE)?;
    let first = read(site)?;
    let password = first.strip_prefix("600\n").context("others may read the owner's password")?.trim_end();
    client.https(&sign_in(&client, OWNERS_EMAIL, password)?)?.expect(200)?;

    // What a cut leaves that came between the account and the file.
    let begun = format!("{OWNER}\\n{password}\\n");
    guest(
        site,
        &format!(
            "cd /var/lib/appliance && (umask 077 && printf '{begun}' >owner-begun) && rm owner-made /root/owner-password && appliance retry"
        ),
    )?;
    settles(site, "the owner's password once more", MADE)?;
    ensure!(read(site)? == first, "the owner has got another password");

    // An account of that name that somebody else may have made.
    guest(
        site,
        &format!(
            "cd /tmp && runuser -u postgres -- psql -q -d mastodon -c \"UPDATE users SET admin = false WHERE email = lower('{OWNERS_EMAIL}')\" && \
             rm /var/lib/appliance/owner-made && appliance retry"
        ),
    )?;
    comes(
        site,
        "a question about somebody's account",
        &format!("appliance status | tr -s ' \\n' ' ' | grep -q 'appliance make-admin {OWNER}'"),
    )?;
    guest(site, &format!("appliance make-admin {OWNER} && appliance retry"))?;
    settles(site, "the operator's answer", MADE)
}

pub fn make_admin(site: &mut Site) -> Result<()> {
    let client = site.lab()?.client()?;
    let visitor = site.visitor()?;
    let fields = [("user[email]", EMAIL), ("user[password]", PASSWORD)];
    submit(&client, &mut visitor.cookies, "/auth/sign_in", "/auth/sign_in", &fields)?;
    let settings = Request::get("/admin/settings/edit").cookies(&visitor.cookies);
    client.https(&settings)?.expect(302)?;
    let said = site.machine()?.shell(&format!("appliance make-admin {USERNAME}"))?;
    ensure!(said.contains(&format!("`{USERNAME}` is an administrator now")), "make-admin said: {said}");
    client.https(&settings)?.expect(200)?;
    Ok(())
}

pub fn upload(site: &mut Site) -> Result<()> {
    let client = site.lab()?.client()?;
    let visitor = site.visitor()?;
    let request = Request::post("/api/v1/media").token(visitor.token()?).upload(
        "file",
        "picture.png",
        "image/png",
        PICTURE,
    );
    let media = client.https(&request)?.expect(200)?.json()?;
    let fetch = |name: &str| -> Result<Vec<u8>> {
        let url = media[name].as_str().with_context(|| format!("no `{name}` in {media}"))?;
        Ok(client.https(&Request::get(path_of(url)?))?.expect(200)?.body)
    };
    ensure!(fetch("url")? == PICTURE, "the picture came back changed");
    let (width, whole) = (png_width(&fetch("preview_url")?)?, png_width(PICTURE)?);
    ensure!(width < whole, "the thumbnail is {width} pixels wide, the picture {whole}");
    visitor.media = Some(media["id"].as_str().with_context(|| format!("no `id` in {media}"))?.to_owned());
    Ok(())
}

pub fn status_on_the_websocket(site: &mut Site) -> Result<()> {
    let client = site.lab()?.client()?;
    let visitor = site.visitor()?;
    let token = visitor.token()?;
    let path = format!("/api/v1/streaming/?stream=public&access_token={token}");
    let mut socket = client.websocket(&path)?.expect_open()?;
    let media = visitor.media.as_deref().context("there is no picture: its upload did not succeed")?;
    let fields = [("status", STATUS), ("media_ids[]", media)];
    client.https(&Request::post("/api/v1/statuses").token(token).form(&fields))?.expect(200)?;
    let message = socket.wait("the status", LIMIT, |text| text.contains(STATUS))?;
    ensure!(message.contains("\"update\""), "the message is no update: {message}");
    visitor.status = Some(STATUS.to_owned());
    Ok(())
}

/// Fills a form of a page in, with the token that protects it, and wants to be sent on.
fn submit(
    client: &Client,
    cookies: &mut Cookies,
    page: &str,
    action: &str,
    fields: &[(&str, &str)],
) -> Result<()> {
    let form = client.https(&Request::get(page).cookies(cookies))?.expect(200)?;
    cookies.update(&form);
    let text = form.text();
    let token = text.split("name=\"csrf-token\" content=\"").nth(1).and_then(|rest| rest.split('"').next());
    let mut all =
        vec![("authenticity_token", token.with_context(|| format!("`{page}` has no token for its form"))?)];
    all.extend_from_slice(fields);
    let answer = client.https(&Request::post(action).cookies(cookies).form(&all))?.expect(302)?;
    cookies.update(&answer);
    Ok(())
}

/// The path of a URL of this instance.
fn path_of(url: &str) -> Result<&str> {
    let path = url.strip_prefix("https://").and_then(|rest| rest.strip_prefix(DOMAIN));
    path.with_context(|| format!("`{url}` does not lead to https://{DOMAIN}"))
}

fn png_width(bytes: &[u8]) -> Result<u32> {
    ensure!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"), "{} bytes that are no PNG", bytes.len());
    let width = bytes.get(16..20).context("a PNG without a head")?;
    Ok(u32::from_be_bytes(width.try_into()?))
}
