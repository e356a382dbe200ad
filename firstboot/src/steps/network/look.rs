//! One look at the network of this machine, through `ip`, the resolver's file, and where an address cannot be used the kernel's log.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::Result;
use fs_err as fs;

use super::Wish;
use super::seen::{self, Address, Seen, Taken};
use crate::context::Context;
use crate::exec::Run;

/// How far back the kernel's log counts: an address that was taken an hour ago says nothing of one that is missing now. Longer than
/// the pause between two activations, each of which makes the kernel say it again.
const SINCE: &str = "--since=-5min";

/// `Err` says that the interface's cable is out.
pub(super) fn has_carrier(context: &Context, interface: &str) -> Result<(), String> {
    let carrier = fs::read_to_string(context.path(&format!("/sys/class/net/{interface}/carrier")));
    if carrier.is_ok_and(|carrier| carrier.trim() == "0") {
        return Err(format!("no link on `{interface}`: connect the virtual machine's network adapter"));
    }
    Ok(())
}

/// Looks at what is there of a wish. Old `ip` has no JSON worth the name.
pub(super) fn look(context: &Context, wish: &Wish) -> Result<Seen> {
    let show = |arguments: &[&str]| Run::new("ip", arguments).text();
    let mut seen = Seen {
        addresses: seen::addresses(&show(&["-o", "address", "show", "dev", &wish.interface])?),
        ipv6_route: !show(&["-6", "route", "show", "default"])?.trim().is_empty(),
        ipv4_route: !show(&["-4", "route", "show", "default"])?.trim().is_empty(),
        resolver: seen::has_resolver(
            &fs::read_to_string(context.path("/etc/resolv.conf")).unwrap_or_default(),
        ),
        taken: Vec::new(),
    };
    if seen::is_lame(&wish.network, &seen) {
        // Only for the words: without the log the address cannot be used either.
        let log = Run::new("journalctl", &["--dmesg", SINCE, "--no-pager", "--quiet", "--output", "cat"]);
        seen.taken = taken(&log.text().unwrap_or_default(), &wish.interface);
    }
    Ok(seen)
}

/// The machine's addresses that reach beyond the link; none when they cannot be read.
pub fn global_addresses() -> Vec<IpAddr> {
    let shown = Run::new("ip", &["-o", "address", "show"]).text().unwrap_or_default();
    let usable = |seen: &Address| seen.global && !seen.tentative && !seen.duplicate;
    seen::addresses(&shown).into_iter().filter(usable).map(|seen| seen.ip).collect()
}

/// The addresses of an interface that the kernel has found at another machine, as its log says. NetworkManager takes such an address
/// away and may set it again, so nothing else tells it from one that is on its way.
fn taken(log: &str, interface: &str) -> Vec<Taken> {
    let line = |line: &str| {
        let (before, after) = line.split_once("IPv6 duplicate address ")?;
        if before.trim_end().strip_suffix(':')?.split_whitespace().last()? != interface {
            return None;
        }
        let mut words = after.split_whitespace();
        let ip: Ipv6Addr = words.next()?.parse().ok()?;
        // Old kernels do not say by whom.
        let by = (words.next() == Some("used")).then(|| words.nth(1)).flatten().map(str::to_owned);
        Some(Taken { ip: ip.into(), by })
    };
    log.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::taken;
    use crate::steps::network::seen::Taken;

    #[test]
    fn the_kernels_log_names_an_address_that_is_taken() {
        let log = "\
audit: ens160: IPv6 duplicate address
IPv6: ens192: IPv6 duplicate address 2001:db8::7 used by 52:54:00:00:00:07 detected!
IPv6: ens160: IPv6 duplicate address 2001:db8:fc89:100::101 used by 52:54:00:12:34:56 detected!
ens160: IPv6 duplicate address 2001:db8::5 detected!
IPv6: ens160: IPv6 duplicate address what used by 52:54:00:12:34:56 detected!
";
        let by = |ip: &str, by: Option<&str>| Taken { ip: ip.parse().unwrap(), by: by.map(str::to_owned) };
        assert_eq!(
            taken(log, "ens160"),
            [by("2001:db8:fc89:100::101", Some("52:54:00:12:34:56")), by("2001:db8::5", None)]
        );
        assert!(taken(log, "ens1").is_empty());
    }
}
