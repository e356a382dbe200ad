//! The fault table: what goes wrong in a house and in the world, one after the other, on the machine that is green. Each is named on
//! the console with its cause, and heals by itself when the cause goes.
//!
//! What a certificate authority can answer is in the tests of first boot (`firstboot/tests/acme/faults.rs`), what a database server
//! can, in `firstboot/tests/database`.

use std::net::Ipv6Addr;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use imgbuild::qemu::Verdict;
use testkit::lab::{INSTANCE_V6, Server};
use testkit::scenario::say;

use crate::site::{DOMAIN, Site};

/// Long enough for an emulated machine with services that start anew; what it took is printed.
const LIMIT: Duration = Duration::from_secs(4 * 60);
/// What is observed is above the login prompt no later than this.
const NAMED: Duration = Duration::from_secs(10);
/// An address of the lab's prefix that nobody has.
const NOBODY: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xfc89, 0x100, 0, 0, 0, 0x999);

pub type Act = fn(&mut Site) -> Result<()>;

/// One thing that goes wrong.
pub struct Fault {
    /// The step that must name it.
    pub step: &'static str,
    /// What the console must say, among other words.
    pub words: &'static [&'static str],
    /// Makes it.
    pub cause: Act,
    /// What must be so while it lasts.
    pub meanwhile: Option<Act>,
    /// Takes the cause away, and does nothing else.
    pub heal: Act,
}

impl Fault {
    /// Lets it happen to the green machine, and waits until it is named.
    fn strike(&self, site: &mut Site) -> Result<()> {
        (self.cause)(site).context("making the fault")?;
        let begun = Instant::now();
        let is_named = |why: &serde_json::Value| {
            let text = why["why"].as_str().unwrap_or_default();
            why["step"] == self.step && self.words.iter().all(|word| text.contains(word))
        };
        let machine = site.machine()?;
        let report = machine
            .wait_report(LIMIT, &AtomicBool::new(false), |report| {
                report.json["waiting"].as_array().is_some_and(|all| all.iter().any(is_named))
            })
            .with_context(|| format!("waiting for step `{}` to say {:?}", self.step, self.words))?;
        let took = begun.elapsed().as_secs_f64();
        let all = report.json["waiting"].as_array().into_iter().flatten();
        let why = all.filter(|why| is_named(why)).find_map(|why| why["why"].as_str()).unwrap_or_default();
        say(&format!("{:?}, named after {took:.1} s: {}: {why}", report.verdict, self.step));
        // It is written after the report.
        let observed = Instant::now();
        let says_all = |prompt: &str| self.words.iter().all(|word| prompt.contains(word));
        let mut prompt = machine.shell("cat /etc/issue")?;
        while !says_all(&prompt) && observed.elapsed() < NAMED {
            std::thread::sleep(Duration::from_millis(500));
            prompt = machine.shell("cat /etc/issue")?;
        }
        ensure!(
            says_all(&prompt),
            "{} s after it was observed the text above the login prompt does not say {:?}: {prompt}",
            NAMED.as_secs(),
            self.words
        );
        self.meanwhile.map_or(Ok(()), |meanwhile| meanwhile(site))
    }

    /// The whole: the cause is taken away also when it was not named, because other checks follow.
    pub fn show(&self, site: &mut Site) -> Result<()> {
        let struck = self.strike(site);
        (self.heal)(site).context("taking the cause away")?;
        let begun = Instant::now();
        let healed = site.machine()?.wait_verdict(Verdict::Green, LIMIT);
        struck?;
        healed.context("it does not heal by itself")?;
        say(&format!("green {:.1} s after the cause was gone", begun.elapsed().as_secs_f64()));
        Ok(())
    }
}

pub fn guest(site: &mut Site, command: &str) -> Result<()> {
    site.machine()?.shell(command).map(drop)
}

fn lab(site: &mut Site) -> Result<&mut testkit::lab::Lab> {
    site.lab.as_mut().context("there is no lab: first boot was not reached")
}

/// The instance answers from outside, whoever has signed its certificate.
pub fn serves(site: &mut Site) -> Result<()> {
    let page = site.lab()?.page_of_anybody("/about")?;
    ensure!(page.contains("<html"), "`/about` is no page: {page}");
    Ok(())
}

pub fn link(site: &mut Site) -> Result<()> {
    Fault {
        step: "network",
        words: &["no link"],
        cause: |site| site.machine()?.set_link(false),
        meanwhile: None,
        heal: |site| site.machine()?.set_link(true),
    }
    .show(site)
}

pub fn router_advertisement(site: &mut Site) -> Result<()> {
    Fault {
        step: "network",
        words: &["no router advertisement"],
        cause: |site| {
            lab(site)?.silence(Server::Router);
            // What it has announced lasts for a while.
            site.machine()?.set_link(false)?;
            site.machine()?.set_link(true)
        },
        meanwhile: None,
        heal: |site| lab(site)?.revive(Server::Router),
    }
    .show(site)
}

pub fn duplicate_address(site: &mut Site) -> Result<()> {
    Fault {
        step: "network",
        words: &["duplicate address", "2001:db8:fc89:100::101"],
        cause: |site| {
            // Addresses are checked when the link comes up, unless it was away for a moment only.
            site.machine()?.set_link(false)?;
            site.lab()?.occupy_address(true)?;
            std::thread::sleep(Duration::from_secs(10));
            site.machine()?.set_link(true)
        },
        meanwhile: None,
        heal: |site| site.lab()?.occupy_address(false),
    }
    .show(site)
}

pub fn redis(site: &mut Site) -> Result<()> {
    Fault {
        step: "redis",
        words: &["redis-server.service"],
        cause: |site| guest(site, "systemctl mask --runtime --now redis-server.service"),
        meanwhile: None,
        heal: |site| guest(site, "systemctl unmask --runtime redis-server.service"),
    }
    .show(site)
}

pub fn postgresql(site: &mut Site) -> Result<()> {
    Fault {
        step: "postgresql",
        words: &["postgresql@15-main.service"],
        cause: |site| guest(site, "systemctl mask --runtime --now postgresql@15-main.service"),
        meanwhile: None,
        heal: |site| guest(site, "systemctl unmask --runtime postgresql@15-main.service"),
    }
    .show(site)
}

pub fn disk(site: &mut Site) -> Result<()> {
    Fault {
        step: "space",
        words: &["the data disk is full", "larger"],
        cause: |site| {
            guest(
                site,
                "fallocate -l $(df --output=avail -B1 /var/lib/appliance | tail -n 1) /var/lib/appliance/filler",
            )
        },
        meanwhile: None,
        heal: |site| guest(site, "rm /var/lib/appliance/filler"),
    }
    .show(site)
}

pub fn relay(site: &mut Site) -> Result<()> {
    Fault {
        step: "mail",
        words: &["554", "relay access denied"],
        cause: |site| {
            lab(site)?.refuse_mail()?;
            // A relay that took mail today is not asked again today.
            guest(site, "appliance retry")
        },
        meanwhile: Some(serves),
        heal: |site| lab(site)?.revive(Server::Relay),
    }
    .show(site)
}

/// A volume that cannot be read is said so, and what is stored goes on.
pub fn config_volume(site: &mut Site) -> Result<()> {
    let volume = crate::site::folder().join("volume.img");
    let whole = fs_err::read(&volume)?;
    let mut broken = whole.clone();
    // All but the first sector, which says what file system it is.
    broken[512..].fill(0xa5);
    fs_err::write(&volume, &broken)?;
    let machine = site.machine()?;
    let said = machine.shell("appliance retry && sleep 20; appliance diagnose");
    fs_err::write(&volume, &whole)?;
    let said = said?;
    let line = said.lines().find(|line| line.contains("the volume CIDATA")).unwrap_or_default();
    say(line);
    ensure!(line.contains("damaged"), "the damaged volume is not named: {said}");
    machine.wait_verdict(Verdict::Green, LIMIT)?;
    serves(site)
}

/// Without its certificate the instance serves with its own, whatever keeps the authority from signing another; each obstacle is
/// named, and the last one's end is enough.
pub fn certificate(site: &mut Site) -> Result<()> {
    const STEP: &str = "certificate";
    let heal: Act = |site| lab(site)?.revive(Server::Resolver);
    // Each comes before the one above it goes, so that nothing is signed in between.
    let obstacles = [
        Fault {
            step: STEP,
            words: &["2001:db8:fc89:100::999"],
            cause: |site| {
                site.lab()?.zone().set_aaaa(DOMAIN, NOBODY)?;
                // Also what it would put in force again without asking anybody.
                guest(
                    site,
                    "cd /etc/letsencrypt && rm -r live/v6don.lab.test archive/v6don.lab.test && appliance retry",
                )
            },
            meanwhile: Some(serves),
            heal,
        },
        Fault {
            step: STEP,
            words: &["CAA", "forbid"],
            cause: |site| {
                // Nobody: the lab's authority does not say which name in such records is its own.
                site.lab()?.zone().set_issuer(DOMAIN, Some(";"))?;
                site.lab()?.zone().set_aaaa(DOMAIN, INSTANCE_V6)
            },
            meanwhile: Some(serves),
            heal,
        },
        Fault {
            step: STEP,
            words: &["http://v6don.lab.test", "could not be fetched", "port 80"],
            cause: |site| {
                guest(site, "nft insert rule inet appliance input tcp dport 80 reject with tcp reset")?;
                site.lab()?.zone().set_issuer(DOMAIN, None)
            },
            meanwhile: Some(serves),
            heal,
        },
        Fault {
            step: STEP,
            words: &["clock"],
            cause: |site| guest(site, "date --set '+10 years' && systemctl restart nftables.service"),
            meanwhile: None,
            heal,
        },
        Fault {
            step: STEP,
            words: &["no DNS answer for `v6don.lab.test`"],
            cause: |site| {
                lab(site)?.silence(Server::Resolver);
                guest(site, "date --set '-10 years'")
            },
            meanwhile: Some(serves),
            heal,
        },
    ];
    let result = obstacles.iter().try_for_each(|fault| {
        fault.strike(site).with_context(|| format!("obstacle {}", fault.words.join(", ")))
    });
    heal(site)?;
    let healed = site.machine()?.wait_verdict(Verdict::Green, LIMIT);
    result?;
    healed.context("the certificate is not ordered by itself")?;
    crate::web::about_has_the_issued_chain(site)
}
