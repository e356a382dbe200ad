//! What a visitor's browser sees, over IPv6 from another computer.

use anyhow::{Context as _, Result, ensure};
use testkit::client::{Request, Upgrade};

use crate::site::{DOMAIN, Site};

pub fn about_has_the_issued_chain(site: &mut Site) -> Result<()> {
    // The client trusts the lab's authority alone: an answer means that the whole chain was sent and is right.
    let response = site.lab()?.client()?.https(&Request::get("/about"))?.expect(200)?;
    let own = response.chain.first().context("the server sent no certificate")?;
    ensure!(own.issuer.contains("Pebble"), "the issuer is `{}`", own.issuer);
    ensure!(response.chain.len() > 1, "the intermediate certificate was not sent");
    let transport = response.header("Strict-Transport-Security").unwrap_or_default();
    ensure!(transport.contains("max-age=31536000"), "Strict-Transport-Security: `{transport}`");
    Ok(())
}

pub fn http_redirects(site: &mut Site) -> Result<()> {
    let response = site.lab()?.client()?.http(&Request::get("/about?x=1"))?.expect(301)?;
    let location = response.header("Location").unwrap_or_default();
    ensure!(location == format!("https://{DOMAIN}/about?x=1"), "Location: `{location}`");
    Ok(())
}

pub fn instance_api(site: &mut Site) -> Result<()> {
    let instance = site.lab()?.client()?.https(&Request::get("/api/v1/instance"))?.expect(200)?.json()?;
    ensure!(instance["uri"] == DOMAIN, "the server's own name leaked into the instance's: {instance}");
    ensure!(
        instance["urls"]["streaming_api"] == format!("wss://{DOMAIN}"),
        "address of the streaming API: {instance}"
    );
    Ok(())
}

pub fn websocket_needs_a_token(site: &mut Site) -> Result<()> {
    match site.lab()?.client()?.websocket("/api/v1/streaming/?stream=public")? {
        Upgrade::Status(401) => Ok(()),
        other => anyhow::bail!("401 was expected, not {other:?}"),
    }
}
