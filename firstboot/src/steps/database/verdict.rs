//! What to do about a database: what is there decides, not what was done.

use super::content::{Content, Found};
use super::marker::Marker;

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Ready,
    /// It is good; say whose it is, in it and on this machine.
    Mark,
    /// Make it.
    Setup,
    /// It was given empty, or a load in place was cut.
    Load,
    /// The setup was cut between schema and seeds; only a hand can have left that.
    Seed,
    /// Data of an older version.
    Migrate,
    /// Another machine is at it.
    Wait(String),
    /// Hands off, and why.
    Refuse(String),
}

/// What counts beside the database itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances<'a> {
    /// The database's name.
    pub name: &'a str,
    /// This instance's domain.
    pub domain: &'a str,
    /// This machine's name in the marker.
    pub machine: &'a str,
    /// Newest migration that the image knows.
    pub expected: u64,
    /// The operator agrees to take over what is not beyond doubt this machine's.
    pub adopt: bool,
    /// The server is another machine.
    pub is_elsewhere: bool,
    /// This machine knows that the instance has its data there.
    pub is_noted: bool,
    /// Where the instance has its data, so that nothing empty is its beginning; and how to begin anew.
    pub home: Option<(&'a str, &'a str)>,
}

/// Decides.
pub(super) fn judge(found: &Found, around: &Circumstances) -> Verdict {
    let name = around.name;
    let refuse = |why: &str| Verdict::Refuse(format!("database `{name}` {why}"));
    match &found.marker {
        Marker::Unfinished(machine) => return unfinished(found, around, machine),
        Marker::Instance { domain, .. } if domain != around.domain => {
            return refuse(&format!(
                "is the one of the instance `{domain}`, and this is `{}`: correct `database.name`, or `domain` if this machine has no data yet",
                around.domain
            ));
        }
        Marker::Instance { machine, .. } if machine != around.machine && !around.adopt => {
            return refuse(&format!(
                "belongs to another machine (instance-id `{machine}`), whose secrets are not this one's: stop that one for good, bring its \
                `/var/lib/appliance/secrets` here, then write `database.adopt = true`"
            ));
        }
        Marker::None | Marker::Instance { .. } => {}
    }
    if let (Content::Absent | Content::Empty, Some((home, anew))) = (&found.content, around.home) {
        return refuse(&format!(
            "is not there or empty, but the instance has its data in {home}: correct the table `database` of the configuration, or bring the data \
            there (`pg_dump`, `pg_restore`); to begin anew, {anew}"
        ));
    }
    match found.content {
        Content::Empty if around.is_elsewhere => Verdict::Load,
        Content::Absent | Content::Empty => Verdict::Setup,
        Content::Shut(table) => refuse(&format!(
            "has a table `{table}` that its role may not read: give the role what is there (`REASSIGN OWNED BY … TO …`), or rename that database"
        )),
        Content::Unknown => {
            refuse("holds another program's tables: rename that database, and the appliance makes its own")
        }
        Content::Rails { version, superapps: Some(superapps), users: Some(users) } => {
            complete(&found.marker, around, version, superapps, users)
        }
        Content::Rails { .. } => refuse(
            "holds another Rails application's tables: rename that database, and the appliance makes its own",
        ),
    }
}

/// A database with this application's tables.
fn complete(marker: &Marker, around: &Circumstances, version: u64, superapps: u64, users: u64) -> Verdict {
    let Circumstances { name, expected, .. } = *around;
    let refuse = |why: &str| Verdict::Refuse(format!("database `{name}` {why}"));
    let is_ours = matches!(marker, Marker::Instance { machine, .. } if machine == around.machine);
    if version > expected {
        return refuse(&format!(
            "has version {version}, this image knows {expected}: the image is older than the data; boot the newer image again"
        ));
    }
    if let Some(why) = disputed(around, is_ours, users).filter(|_| !around.adopt) {
        return refuse(&why);
    }
    match (superapps, users) {
        _ if version < expected => Verdict::Migrate,
        (0, 0) => Verdict::Seed,
        (0, _) => refuse(
            "has users, but no row for the web client in `oauth_applications`: restore a backup, or run `rails db:seed` once by hand",
        ),
        // More than one row means that somebody seeded twice. The instance works with the first; taking one away is not ours to
        // decide.
        _ if is_ours && around.is_noted => Verdict::Ready,
        _ => Verdict::Mark,
    }
}

/// Why good tables are gone on with only when the operator agrees.
fn disputed(around: &Circumstances, is_ours: bool, users: u64) -> Option<String> {
    match around.home {
        Some((home, _)) if !around.is_elsewhere => Some(format!(
            "on this machine's own server is not the instance's any more, which has its data in {home}: write the table `database` of the \
            configuration again; to go on with what is here all the same, write `database.adopt = true`"
        )),
        // `pg_restore` fills the users late, and each table by itself.
        Some((home, _)) if users == 0 && !(is_ours && around.is_noted) => Some(format!(
            "has the instance's tables, but no users, and the instance has its data in {home}: if these are being brought here, wait until \
            `pg_restore` has ended; if this is all of it, write `database.adopt = true`"
        )),
        _ if users > 0 && !is_ours => Some(
            "has users, and this appliance has not made it: write `database.adopt = true` to go on with it as this instance's, or rename it"
                .to_owned(),
        ),
        _ => None,
    }
}

/// A load in place has begun, and nobody has said that it ended.
fn unfinished(found: &Found, around: &Circumstances, machine: &str) -> Verdict {
    let Circumstances { name, expected, .. } = *around;
    if machine != around.machine {
        return Verdict::Wait(format!(
            "another machine (instance-id `{machine}`) is filling database `{name}`; if that one is gone for good: `UPDATE appliance_instance SET machine = '{}'` there, and this one begins anew",
            around.machine
        ));
    }
    match found.content {
        Content::Rails { version, superapps: Some(1), users: Some(_) } if version == expected => {
            Verdict::Mark
        }
        _ if found.people > 0 => Verdict::Refuse(format!(
            "database `{name}` was never made complete, but has users or accounts: restore a backup, or empty it by hand"
        )),
        _ => Verdict::Load,
    }
}

#[cfg(test)]
mod tests {
    use super::super::content::{Content, Found};
    use super::super::marker::Marker;
    use super::{Circumstances, Verdict, judge};

    const HERE: Circumstances = Circumstances {
        name: "mastodon",
        domain: "a.example",
        machine: "me",
        expected: 20,
        adopt: false,
        is_elsewhere: false,
        is_noted: true,
        home: None,
    };
    const ELSEWHERE: Circumstances = Circumstances { is_elsewhere: true, ..HERE };

    fn check(around: &Circumstances, marker: &Marker, content: &Content, expected: Result<Verdict, &str>) {
        let people = if let Content::Rails { users: Some(users), .. } = content { *users } else { 0 };
        let found = Found { content: content.clone(), marker: marker.clone(), people };
        match (judge(&found, around), expected) {
            (Verdict::Refuse(why) | Verdict::Wait(why), Err(part)) => {
                assert!(why.contains(part), "{found:?}: {why}");
            }
            (verdict, Ok(expected)) => assert_eq!(verdict, expected, "{found:?} {around:?}"),
            (verdict, Err(part)) => panic!("{found:?}: {verdict:?}, expected a refusal with {part:?}"),
        }
    }

    fn rails(version: u64, superapps: Option<u64>, users: Option<u64>) -> Content {
        Content::Rails { version, superapps, users }
    }

    fn ours() -> Marker {
        instance("a.example", "me")
    }

    fn instance(domain: &str, machine: &str) -> Marker {
        Marker::Instance { domain: domain.to_owned(), machine: machine.to_owned() }
    }

    #[test]
    fn what_is_there_decides() {
        for around in [&HERE, &ELSEWHERE] {
            let check = |content: &Content, expected| check(around, &ours(), content, expected);
            check(&Content::Absent, Ok(Verdict::Setup));
            check(&Content::Unknown, Err("another program's tables"));
            check(&rails(20, None, Some(3)), Err("another Rails application's"));
            check(&rails(20, Some(1), None), Err("another Rails application's"));
            check(&rails(20, Some(1), Some(0)), Ok(Verdict::Ready));
            check(&rails(20, Some(1), Some(7)), Ok(Verdict::Ready));
            check(&rails(20, Some(2), Some(7)), Ok(Verdict::Ready));
            check(&rails(20, Some(0), Some(0)), Ok(Verdict::Seed));
            check(&rails(20, Some(0), Some(7)), Err("has users, but no row"));
            check(&rails(19, Some(1), Some(7)), Ok(Verdict::Migrate));
            check(&rails(21, Some(1), Some(7)), Err("older than the data"));
        }
        check(&HERE, &ours(), &Content::Empty, Ok(Verdict::Setup));
        check(&ELSEWHERE, &ours(), &Content::Empty, Ok(Verdict::Load));
    }

    #[test]
    fn a_database_that_is_not_ours_is_taken_over_only_with_agreement() {
        let agreed = Circumstances { adopt: true, ..ELSEWHERE };
        for users in [0, 7] {
            let content = rails(20, Some(1), Some(users));
            check(&agreed, &Marker::None, &content, Ok(Verdict::Mark));
        }
        check(&agreed, &Marker::None, &rails(19, Some(1), Some(7)), Ok(Verdict::Migrate));
        check(&ELSEWHERE, &Marker::None, &rails(20, Some(1), Some(0)), Ok(Verdict::Mark));
        check(&ELSEWHERE, &Marker::None, &rails(20, Some(1), Some(7)), Err("database.adopt = true"));
        check(&HERE, &Marker::None, &rails(19, Some(1), Some(7)), Err("database.adopt = true"));
        check(
            &agreed,
            &instance("b.example", "me"),
            &rails(20, Some(1), Some(7)),
            Err("the instance `b.example`"),
        );
    }

    /// Another machine has other secrets: logins, second factors and push subscriptions of its users would end.
    #[test]
    fn another_machines_database_is_taken_over_only_with_agreement() {
        let agreed = Circumstances { adopt: true, ..ELSEWHERE };
        let others = instance("a.example", "you");
        for users in [0, 7] {
            let content = rails(20, Some(1), Some(users));
            check(&ELSEWHERE, &others, &content, Err("another machine (instance-id `you`)"));
            check(&agreed, &others, &content, Ok(Verdict::Mark));
        }
        check(&ELSEWHERE, &others, &rails(19, Some(1), Some(7)), Err("`/var/lib/appliance/secrets`"));
        check(&ELSEWHERE, &others, &Content::Empty, Err("stop that one for good"));
        check(&agreed, &others, &Content::Empty, Ok(Verdict::Load));
        check(&agreed, &others, &rails(19, Some(1), Some(7)), Ok(Verdict::Migrate));
    }

    #[test]
    fn what_this_machine_does_not_know_as_its_own_is_noted() {
        for around in [HERE, ELSEWHERE] {
            let unaware = Circumstances { is_noted: false, ..around };
            check(&unaware, &ours(), &rails(20, Some(1), Some(0)), Ok(Verdict::Mark));
            check(&unaware, &ours(), &rails(20, Some(1), Some(7)), Ok(Verdict::Mark));
        }
    }

    #[test]
    fn a_load_in_place_goes_on_where_it_is_safe() {
        let (mine, others) = (Marker::Unfinished("me".to_owned()), Marker::Unfinished("you".to_owned()));
        check(&ELSEWHERE, &mine, &Content::Empty, Ok(Verdict::Load));
        check(&ELSEWHERE, &mine, &Content::Unknown, Ok(Verdict::Load));
        check(&ELSEWHERE, &mine, &rails(20, Some(0), Some(0)), Ok(Verdict::Load));
        check(&ELSEWHERE, &mine, &rails(20, Some(1), Some(0)), Ok(Verdict::Mark));
        check(&ELSEWHERE, &mine, &rails(19, Some(1), Some(2)), Err("never made complete"));
        check(&ELSEWHERE, &others, &Content::Unknown, Err("another machine (instance-id `you`)"));
    }

    #[test]
    fn an_instance_is_not_begun_anew_beside_its_data() {
        let moved = Circumstances { home: Some(("this machine's own server", "…")), ..ELSEWHERE };
        check(&moved, &Marker::None, &Content::Empty, Err("pg_dump"));
        check(&moved, &Marker::None, &Content::Absent, Err("pg_dump"));
        let mine = Marker::Unfinished("me".to_owned());
        check(&moved, &mine, &Content::Empty, Ok(Verdict::Load));
        let returned = Circumstances { home: Some(("database `a` at `b`", "…")), ..HERE };
        check(&returned, &ours(), &Content::Absent, Err("its data in database `a` at `b`"));
    }

    #[test]
    fn older_or_half_restored_data_is_not_served_beside_the_instances_own() {
        let home = Some(("database `a` at `b`", "…"));
        let returned = Circumstances { home, is_noted: false, ..HERE };
        for (version, users) in [(20, 7), (20, 0), (19, 7)] {
            let content = rails(version, Some(1), Some(users));
            check(&returned, &ours(), &content, Err("its data in database `a` at `b`: write the table"));
        }
        let agreed = Circumstances { adopt: true, ..returned };
        check(&agreed, &ours(), &rails(20, Some(1), Some(7)), Ok(Verdict::Mark));

        let moved = Circumstances { home, is_noted: false, ..ELSEWHERE };
        for marker in [Marker::None, ours()] {
            for (version, superapps) in [(20, 1), (20, 0), (19, 1)] {
                let half = rails(version, Some(superapps), Some(0));
                check(&moved, &marker, &half, Err("until `pg_restore` has ended"));
            }
        }
        check(&moved, &ours(), &rails(20, Some(1), Some(7)), Ok(Verdict::Mark));
        let agreed = Circumstances { adopt: true, ..moved };
        check(&agreed, &Marker::None, &rails(20, Some(1), Some(0)), Ok(Verdict::Mark));
        // Where it has always been, an instance may be without users.
        let known = Circumstances { home, ..ELSEWHERE };
        check(&known, &ours(), &rails(20, Some(1), Some(0)), Ok(Verdict::Ready));
    }
}
