//! What to do about a database: what is there decides, not what was done.

use super::content::{Content, Found};
use super::marker::Marker;

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Ready,
    /// It is good; say whose it is.
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
    /// The operator agrees to take a database with users over.
    pub adopt: bool,
    /// The server is another machine.
    pub is_elsewhere: bool,
    /// Where the instance has its data, so that nothing empty is its beginning; and how to begin anew.
    pub home: Option<(&'a str, &'a str)>,
}

/// Decides.
pub(super) fn judge(found: &Found, around: &Circumstances) -> Verdict {
    let Circumstances { name, expected, .. } = *around;
    let refuse = |why: &str| Verdict::Refuse(format!("database `{name}` {why}"));
    match &found.marker {
        Marker::Unfinished(machine) => return unfinished(found, around, machine),
        Marker::Instance(domain) if domain != around.domain => {
            return refuse(&format!(
                "is the one of the instance `{domain}`, and this is `{}`: correct `database.name`, or `domain` if this machine has no data yet",
                around.domain
            ));
        }
        Marker::None | Marker::Instance(_) => {}
    }
    let is_ours = found.marker != Marker::None;
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
        Content::Rails { superapps: None, .. } | Content::Rails { users: None, .. } => refuse(
            "holds another Rails application's tables: rename that database, and the appliance makes its own",
        ),
        Content::Rails { version, .. } if version > expected => Verdict::Refuse(format!(
            "database `{name}` has version {version}, this image knows {expected}: the image is older than the data; boot the newer image again"
        )),
        Content::Rails { users: Some(1..), .. } if !is_ours && !around.adopt => refuse(
            "has users, and this appliance has not made it: write `database.adopt = true` to go on with it as this instance's, or rename it",
        ),
        Content::Rails { version, .. } if version < expected => Verdict::Migrate,
        Content::Rails { superapps: Some(0), users: Some(0), .. } => Verdict::Seed,
        Content::Rails { superapps: Some(0), .. } => refuse(
            "has users, but no row for the web client in `oauth_applications`: restore a backup, or run `rails db:seed` once by hand",
        ),
        // More than one row means that somebody seeded twice. The instance works with the first; taking one away is not ours to
        // decide.
        Content::Rails { .. } if is_ours => Verdict::Ready,
        Content::Rails { .. } => Verdict::Mark,
    }
}

/// A load in place has begun, and nobody has said that it ended.
fn unfinished(found: &Found, around: &Circumstances, machine: &str) -> Verdict {
    let Circumstances { name, expected, .. } = *around;
    if machine != around.machine {
        return Verdict::Wait(format!(
            "another machine (instance-id `{machine}`) is filling database `{name}`; if that one is gone: `DROP TABLE appliance_instance` there, and this one begins anew"
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
        Marker::Instance("a.example".to_owned())
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
        let other = Marker::Instance("b.example".to_owned());
        check(&agreed, &other, &rails(20, Some(1), Some(7)), Err("the instance `b.example`"));
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
        check(&returned, &ours(), &rails(20, Some(1), Some(7)), Ok(Verdict::Ready));
    }
}
