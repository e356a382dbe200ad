//! The image's rulesets, read and put in force in a network of its own, and what the application's user reaches there.

use super::{Extent, Seen, iptables, judge, nftables};
use crate::engine::Observation;
use crate::exec::Run;

const NFTABLES: &str = include_str!("../../../../overlays/debian/root/etc/nftables.conf");
const IPTABLES: &str = include_str!("../../../../overlays/centos7/root/etc/sysconfig/iptables");
const IP6TABLES: &str = include_str!("../../../../overlays/centos7/root/etc/sysconfig/ip6tables");
const USER: &str = include_str!("../../../../overlays/mastodon/overlay.toml");

/// The application's user in every image.
const UID: u32 = 991;

#[test]
fn the_switch_goes_by_what_the_kernel_has() {
    use Extent::{All, None, Some};
    for (wanted, rules, services, is_done) in [
        (true, All, All, true),
        (true, Some, All, false),
        (true, None, All, false),
        (true, All, Some, false),
        (true, None, None, false),
        (false, None, None, true),
        (false, Some, None, false),
        (false, All, None, false),
        (false, None, Some, true),
    ] {
        let seen = Seen { rules, services };
        assert_eq!(judge(wanted, seen) == Observation::Done, is_done, "{wanted} {seen:?}");
    }
}

#[test]
fn the_images_rules_are_the_ones_that_this_step_knows() {
    assert!(
        USER.contains(&format!("name = \"mastodon\"\nuid = {UID}\n")),
        "the rules name the user by number"
    );
    assert!(nftables::has_table(NFTABLES, nftables::TABLE));
    assert!(nftables::has_wall(NFTABLES, UID));
    assert!(!nftables::has_wall(NFTABLES, UID + 1));
    for (text, rule) in [IPTABLES, IP6TABLES].into_iter().zip(iptables::rules(UID)) {
        assert!(iptables::leads_to_chain(text));
        assert!(text.lines().any(|line| line == rule), "{rule}");
    }
}

/// Runs a script as root in a network of its own; `None` where this machine lets nobody make one, or lacks the program.
fn alone(program: &str, script: &str, stdin: &str) -> Option<String> {
    let user: &[&str] =
        if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-auto", "--map-root-user"] };
    let inside = |script: &str| {
        Run::new("unshare", &[user, &["--net", "--", "bash", "-c", script]].concat()).stdin(stdin).output()
    };
    if !inside(&format!("command -v {program} && ip link set lo up")).is_ok_and(|output| output.code == 0) {
        eprintln!("skipped: there is no `{program}` here, or no network of one's own");
        return None;
    }
    let output = inside(&format!("set -e\nip link set lo up\n{script}")).unwrap();
    assert_eq!(output.code, 0, "{program}: {}{}", output.stdout, output.stderr);
    Some(output.stdout)
}

/// Who gets how far to the metadata. Nobody listens there: who gets through is refused by the address itself.
const REACH: &str = "
ip address add 169.254.169.254/32 dev lo
ip -6 address add fd00:ec2::254/128 dev lo nodad
for user in 0 33 991; do
    for address in 169.254.169.254 fd00:ec2::254 127.0.0.1; do
        said=$(setpriv --reuid $user --clear-groups bash -c \"exec 3<>/dev/tcp/$address/80\" 2>&1 || true)
        case \"$said\" in *'Connection refused'*) echo $user $address through ;; *) echo $user $address walled ;; esac
    done
done
";

const REACHED: &str = "\
0 169.254.169.254 through
0 fd00:ec2::254 through
0 127.0.0.1 through
33 169.254.169.254 through
33 fd00:ec2::254 through
33 127.0.0.1 through
991 169.254.169.254 walled
991 fd00:ec2::254 walled
991 127.0.0.1 through
";

#[test]
fn nftables_walls_the_application_off_with_the_firewall_on_and_off() {
    if let Some(said) = alone("nft", &format!("nft -f -{REACH}"), NFTABLES) {
        assert_eq!(said, REACHED);
    }
    // The wall alone, twice, beside the rules of somebody else.
    let script = format!(
        "nft add table inet other\nrules=$(cat)\nnft -f - <<<\"$rules\"\nnft -f - <<<\"$rules\"\n\
         nft list table inet other >/dev/null{REACH}"
    );
    if let Some(said) = alone("nft", &script, &nftables::wall_text(UID)) {
        assert_eq!(said, REACHED);
    }
}

#[test]
fn the_kernel_gives_the_wall_back_as_it_is_looked_for() {
    if let Some(ruleset) = alone("nft", "nft -f -\nnft list ruleset", NFTABLES) {
        assert!(nftables::has_wall(&ruleset, UID), "{ruleset}");
        assert!(nftables::has_table(&ruleset, nftables::TABLE), "{ruleset}");
    }
}

#[test]
fn iptables_walls_the_application_off() {
    let both = format!("{IPTABLES}%%%{IP6TABLES}");
    let script = format!(
        "rules=$(cat)\niptables-restore --test <<<\"${{rules%%\\%\\%\\%*}}\"\niptables-restore <<<\"${{rules%%\\%\\%\\%*}}\"\n\
         ip6tables-restore --test <<<\"${{rules##*\\%\\%\\%}}\"\nip6tables-restore <<<\"${{rules##*\\%\\%\\%}}\"\n\
         {REACH}iptables -w -S INPUT\n\
         rule='{}'\niptables -w -C $rule\niptables -w -D $rule\n! iptables -w -C $rule 2>/dev/null\niptables -w -I $rule\niptables -w -C $rule",
        iptables::rules(UID)[0].trim_start_matches("-A ")
    );
    if let Some(said) = alone("iptables-restore", &script, &both) {
        let rules = said.strip_prefix(REACHED).unwrap_or_else(|| panic!("{said}"));
        assert!(iptables::leads_to_chain(rules), "{rules}");
    }
}
