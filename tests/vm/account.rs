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
    guest(site, "cp -p /etc/appliance/config.toml /root/config.before")?;
    let shown = owner_signs_in(site);
    // In any case, because other checks follow.
    let restored = restore(site);
    shown?;
    restored
}

fn owner_signs_in(site: &mut Site) -> Result<()> {
    const STATE: &str = "/var/lib/appliance";
    let made = format!("test -e {STATE}/owner-made && ! test -e {STATE}/owner-begun");
    let client = site.lab()?.client()?;
    let read = |site: &mut Site| {
        site.machine()?.shell("stat -c %a /root/owner-password && cat /root/owner-password")
    };
    let begin = |password: &str| {
        let lines = format!("{OWNER}\\n{}\\n{password}\\n", OWNERS_EMAIL.to_lowercase());
        format!("(umask 077 && printf '{lines}' >{STATE}/owner-begun) && rm {STATE}/owner-made")
    };
    let table = format!("\\n[owner]\\nusername = \"{OWNER}\"\\nemail = \"{OWNERS_EMAIL}\"\\n");
    guest(site, &format!("printf '{table}' >>/etc/appliance/config.toml && appliance retry"))?;
    settles(site, "the owner's account", &made)?;
    let first = read(site)?;
    let password = first.strip_prefix("600\n").context("others may read the owner's password")?.trim_end();
    client.https(&sign_in(&client, OWNERS_EMAIL, password)?)?.expect(200)?;

    // What a cut leaves that came between the account and the file.
    guest(site, &format!("{} && rm /root/owner-password && appliance retry", begin(password)))?;
    settles(site, "the owner's password once more", &made)?;
    ensure!(read(site)? == first, "the owner has got another password");

    // An account of that name that somebody was quicker to make, with a password of his own.
    let sql = format!("UPDATE users SET admin = false WHERE email = lower('{OWNERS_EMAIL}') RETURNING admin");
    let sql = format!("cd /tmp && runuser -u postgres -- psql -qAt -d mastodon -c \"{sql}\"");
    guest(site, &format!("{sql} && {} && appliance retry", begin("somebody-elses")))?;
    comes(
        site,
        "a question about somebody's account",
        &format!(
            "! test -e {STATE}/owner-begun && appliance status | grep -q 'appliance make-admin {OWNER}'"
        ),
    )?;
    let admin = "SELECT count(*) FROM users WHERE admin";
    let admin = format!(
        "cd /tmp && runuser -u postgres -- psql -qAt -d mastodon -c \"{admin} AND email = lower('{OWNERS_EMAIL}')\""
    );
    ensure!(site.machine()?.shell(&admin)? == "0\n", "somebody was made an administrator");
    Ok(())
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
