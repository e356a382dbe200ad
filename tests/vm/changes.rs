//! What an operator changes on the machine that runs: in its stored configuration, as README says, and by copying it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use imgbuild::qemu::{Machine, MachineOptions, Verdict};
use testkit::lab::{INSTANCE_V4, INSTANCE_V6, OUTSIDE_V6};
use testkit::scenario::say;
use testkit::wait;

use crate::faults::{Fault, guest, serves};
use crate::site::{DOMAIN, Site, folder};

/// Long enough for services that start anew under emulation.
const LIMIT: Duration = Duration::from_secs(5 * 60);
/// A boot without KVM up to the question.
const BOOT: Duration = Duration::from_secs(8 * 60);

/// The mark that the lab's hypervisor gives the machine.
pub const HARDWARE: &str = "6d617374-6f64-4f6e-8001-000000000001";
/// What shuts port 80 like a provider.
const SHUT: &str = "tcp dport 80 drop";

/// The mark that it gives a copy.
const OTHER_HARDWARE: &str = "6d617374-6f64-4f6e-8002-000000000002";

/// Writes a key into a table of the stored configuration and lets it count.
fn configure(site: &mut Site, table: &str, key: &str, value: &str) -> Result<()> {
    let script = format!(
        "cd /etc/appliance && cp -p config.toml /root/config.before && sed -i '/^{key} = /d' config.toml && \
         {{ grep -qxF '[{table}]' config.toml || printf '\\n[{table}]\\n' >>config.toml; }} && \
         sed -i 's|^\\[{table}\\]$|&\\n{key} = {value}|' config.toml && appliance config check config.toml && appliance retry"
    );
    guest(site, &script).with_context(|| format!("writing `{key}` under `[{table}]`"))
}

/// Takes the change back.
pub fn restore(site: &mut Site) -> Result<()> {
    guest(site, "cp -p /root/config.before /etc/appliance/config.toml && appliance retry")
}

/// Waits until a script in the guest succeeds and the instance is well.
pub fn settles(site: &mut Site, what: &str, script: &str) -> Result<()> {
    comes(site, what, &format!("{script} && appliance status --json | grep -q '\"verdict\": *\"green\"'"))
}

/// Waits until a script in the guest succeeds.
pub fn comes(site: &mut Site, what: &str, script: &str) -> Result<()> {
    let script = format!("{script} && echo so");
    let machine = site.machine()?;
    wait::until(what, LIMIT, || {
        let said = machine.exec(&script)?;
        std::thread::sleep(Duration::from_secs(1));
        let is_so = said.stdout.ends_with("so\n");
        Ok(if is_so { Ok(()) } else { Err(format!("{}{}", said.stdout, said.stderr)) })
    })
}

/// The serial number of the certificate that visitors get, if it is the lab authority's.
fn serial(site: &Site) -> Result<String> {
    let response = site.lab()?.client()?.https(&testkit::client::Request::get("/about"))?.expect(200)?;
    let leaf = response.chain.first().context("the server sent no certificate")?;
    ensure!(leaf.issuer.contains("Pebble"), "the issuer is `{}`", leaf.issuer);
    Ok(leaf.serial.clone())
}

/// Where the provider shuts port 80, port 443 is enough.
pub fn name_is_proven_on_port_443(site: &mut Site) -> Result<()> {
    let before = serial(site)?;
    let proven = proves_on_port_443(site, &before);
    // In any case, because other checks follow.
    let opened = guest(
        site,
        &format!(
            "nft -a list chain inet appliance input | sed -n 's/.*{SHUT} # handle //p' | \
             xargs -r -n 1 nft delete rule inet appliance input handle"
        ),
    );
    let restored = restore(site);
    let renewed = proven?;
    opened?;
    restored?;
    say(&format!("certificate {before} was replaced by {renewed}, port 80 shut"));
    settles(site, "the former site", "! grep -rqs 127.0.0.1:488 /etc/nginx")?;
    ensure!(serial(site)? == renewed, "the change back cost another certificate");
    crate::web::http_redirects(site)
}

/// Shuts port 80 and brings another certificate; its serial number.
fn proves_on_port_443(site: &mut Site, before: &str) -> Result<String> {
    guest(site, &format!("nft insert rule inet appliance input {SHUT}"))?;
    let shut = site.lab()?.client()?.http(&testkit::client::Request::get("/about"));
    ensure!(shut.is_err(), "port 80 is not shut");
    configure(site, "tls", "challenge", "\"tls-alpn-01\"")?;
    settles(site, "nginx' listener behind the answer", "grep -rqs 127.0.0.1:488 /etc/nginx")?;
    visitor_behind_the_answer(site)?;
    // Another account too: an authority remembers for a while what this one has proven.
    guest(
        site,
        &format!(
            "rm -r /etc/letsencrypt/live/{DOMAIN} /etc/letsencrypt/archive/{DOMAIN} /var/lib/appliance/acme/account-* && appliance retry"
        ),
    )?;
    let renewed = wait::until("another certificate of the authority", LIMIT, || {
        std::thread::sleep(Duration::from_secs(2));
        Ok(serial(site)
            .map_err(|error| format!("{error:#}"))
            .and_then(|now| if now == before { Err("the former one is served".to_owned()) } else { Ok(now) }))
    })?;
    let rules = site.machine()?.shell("nft list ruleset; ls /run/appliance")?;
    ensure!(
        rules.contains("appliance_challenge")
            && !rules.contains("dnat to")
            && !rules.contains("port-443-led-away"),
        "port 443 was not led away, or still is: {rules}"
    );
    Ok(renewed)
}

/// nginx knows a visitor who is handed on by the address in the line before.
fn visitor_behind_the_answer(site: &mut Site) -> Result<()> {
    let ruby = format!(
        "plain = TCPSocket.new(%q(127.0.0.1), 488); plain.write(%Q(PROXY TCP6 {OUTSIDE_V6} {INSTANCE_V6} 50443 443\\r\\n)); \
         secret = OpenSSL::SSL::SSLSocket.new(plain); secret.hostname = %q({DOMAIN}); secret.connect; \
         secret.write(%Q(GET /about?handed-on HTTP/1.0\\r\\nHost: {DOMAIN}\\r\\n\\r\\n)); puts secret.read.lines.first"
    );
    let said = site.machine()?.shell(&format!(
        "ruby -rsocket -ropenssl -e '{ruby}' && grep handed-on /var/log/nginx/access.log | tail -n 1"
    ))?;
    ensure!(said.starts_with("HTTP/1.1 200"), "the visitor was answered: {said}");
    ensure!(said.contains(&format!("\n{OUTSIDE_V6} ")), "nginx took the visitor for somebody else: {said}");
    Ok(())
}

/// One process for each queue, and back to one for all.
pub fn sidekiq_is_split_and_joined(site: &mut Site) -> Result<()> {
    const QUEUES: [&str; 4] = ["default", "mailers", "pull", "push"];
    let each =
        QUEUES.map(|queue| format!("systemctl is-active -q mastodon-sidekiq@{queue}.service")).join(" && ");
    let split = configure(site, "sidekiq", "split", "true").and_then(|()| {
        let script = format!("{each} && ! systemctl is-active -q mastodon-sidekiq.service");
        settles(site, "one process for each queue", &script)
    });
    // What they say of themselves.
    let said = site
        .machine()?
        .shell("for process in $(redis-cli smembers processes); do redis-cli hget $process info; done");
    let restored = restore(site);
    split?;
    restored?;
    let said = said?;
    for queue in QUEUES {
        ensure!(said.contains(&format!("\"queues\":[\"{queue}\"")), "no process for `{queue}`: {said}");
    }
    // That it works again is for the check after this one to see: it takes an emulated machine a minute.
    let joined =
        format!("systemctl is-active -q mastodon-sidekiq.service && ! {{ {}; }}", each.replace("&&", "||"));
    comes(site, "one process for all queues", &joined)
}

/// A gateway that nobody has: the former settings come back, and the instance goes on.
pub fn wrong_gateway_is_taken_back(site: &mut Site) -> Result<()> {
    Fault {
        step: "network",
        words: &["were refused", "192.168.100.77"],
        cause: |site| configure(site, "network.ipv4", "gateway", "\"192.168.100.77\""),
        meanwhile: Some(|site| {
            let routes = site.machine()?.shell("ip -4 route show default")?;
            ensure!(routes.is_empty(), "the refused gateway is still in force: {routes}");
            serves(site)
        }),
        heal: restore,
    }
    .show(site)
}

/// The firewall off and on again: what is behind it opens and closes, and the wall around the cloud's metadata stays.
pub fn firewall_is_switched(site: &mut Site) -> Result<()> {
    const STREAMING: u16 = 4000;
    // Over IPv4: streaming listens there alone. SSH is let in either way.
    let reaches = |site: &Site, port| -> Result<bool> {
        Ok(site.lab()?.client_to(INSTANCE_V4.into())?.connect(port).is_ok())
    };
    ensure!(reaches(site, 22)? && !reaches(site, STREAMING)?, "before: SSH is shut, or streaming is open");
    guest(
        site,
        "cd /etc/appliance && cp -p config.toml /root/config.before && sed -i '/^firewall = /d; 1i firewall = false' config.toml && \
         appliance config check config.toml && appliance retry",
    )?;
    let off = comes(
        site,
        "the firewall to be off, and the wall to stand",
        "! nft list table inet appliance 2>/dev/null && nft list table inet appliance_metadata | grep -q 169.254.169.254",
    );
    let opened = reaches(site, STREAMING);
    restore(site)?;
    off?;
    ensure!(opened?, "the firewall is off, and streaming is not reached");
    settles(site, "the firewall to be on", "nft list table inet appliance")?;
    ensure!(
        reaches(site, 22)? && !reaches(site, STREAMING)?,
        "afterwards: SSH is shut, or streaming is open"
    );
    Ok(())
}

/// On other hardware the machine asks what it is before it is an instance again, and is what it was after the answer.
pub fn copy_asks_before_it_serves(site: &mut Site) -> Result<()> {
    const GIB: u64 = 1 << 30;
    let bytes = |machine: &mut Machine| -> Result<u64> {
        let said = machine.shell("df --output=size -B1 /var/lib/appliance | tail -n 1")?;
        said.trim().parse().with_context(|| format!("reading the size of the data disk: {said}"))
    };
    let options = site.options.clone().context("there is no machine: it did not boot")?;
    let before = bytes(site.machine()?)?;
    site.machine.take().context("there is no machine: it did not boot")?.stop()?;
    // And the hypervisor gave the data disk another GiB.
    testkit::run(
        "qemu-img".as_ref(),
        &["resize", "-q", "-f", "qcow2"]
            .map(std::ffi::OsStr::new)
            .into_iter()
            .chain([folder().join("data.qcow2").as_os_str(), "+1G".as_ref()])
            .collect::<Vec<_>>(),
    )?;
    let options = MachineOptions { uuid: Some(OTHER_HARDWARE.to_owned()), ..options };
    let machine = site.machine.insert(Machine::start(&options, &folder())?);
    let asks = |why: &serde_json::Value| {
        let text = why["why"].as_str().unwrap_or_default();
        why["step"] == "clone" && text.contains(HARDWARE) && text.contains(OTHER_HARDWARE)
    };
    machine
        .wait_report(BOOT, &std::sync::atomic::AtomicBool::new(false), |report| {
            report.json["waiting"].as_array().is_some_and(|all| all.iter().any(asks))
                && report.json["steps"]["ssh"] == "done"
        })
        .context("waiting for the question what this machine is")?;
    let prompt = machine.shell("cat /etc/issue")?;
    ensure!(prompt.contains("appliance identity keep"), "the prompt does not ask: {prompt}");
    let running =
        machine.exec("systemctl is-active mastodon-web mastodon-streaming mastodon-sidekiq")?.stdout;
    ensure!(!running.lines().any(|state| state == "active"), "services run before the answer: {running}");
    ensure!(serves(site).is_err(), "the instance serves before the answer");
    let machine = site.machine()?;
    machine.shell("appliance identity keep")?;
    machine.wait_verdict(Verdict::Green, LIMIT)?;
    let after = bytes(machine)?;
    // Less what an ext4 file system needs for itself.
    ensure!(after > before + GIB / 10 * 9, "the data disk had {before} bytes and has {after}");
    crate::web::about_has_the_issued_chain(site)
}
