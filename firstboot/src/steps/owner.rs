//! Step `owner`: the first administrator, if the settings name one.
//!
//! The password is made here and is on the disk, for root alone, before the application hears of it; the account is made by the
//! application's own models in one transaction, administrator from the beginning. So a cut loses neither: the next pass finds the
//! account that has this password, or makes it. Only then the password goes to `/root/owner-password`.
//!
//! Made once: a marker names the owner that was made, and from then on the account is the instance's own business. Who was
//! demoted or deleted there stays so; only another name in the settings makes another owner. An account of that name that has
//! another password is somebody's, perhaps a stranger's who was quicker: the operator has to say that it may administer.
//!
//! It needs the world because newer tags look the mail address' domain up.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use fs_err as fs;

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::exec::{Output, Run, TIME_IS_UP};
use crate::settings::Owner;
use crate::steps::secrets;
use crate::{durable, passwd, sql};

/// The step.
pub const STEP: Step = Step {
    name: "owner",
    why: "the first administrator's account",
    needs: Needs::World,
    watch: engine::HOURLY,
    observe,
    apply,
};

/// Where the first password is found.
pub const PASSWORD_FILE: &str = "/root/owner-password";

/// The making has begun: name, mail address and password, a line each.
const BEGUN: &str = "owner-begun";
/// It has come to its end: the owner's name.
const MADE: &str = "owner-made";

/// How long one start of Rails may take on an emulated processor.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// How long nobody asks again after a refusal, unless the settings change.
const PAUSE: Duration = Duration::from_secs(15 * 60);

/// Begins the line in which one of the programs below says why not.
const REFUSED: &str = "refused: ";

/// Makes the account, or finds the one that has the password. Rake's tasks were replaced by tootctl in v2.6.0; the models take the same
/// at every tag, as far as they know the attribute. One line, because lines of programs are shown.
const MAKE: &str = "\
    name, password = ENV.fetch('USERNAME'), $stdin.gets.chomp; \
    known = User.joins(:account).where('accounts.domain IS NULL AND lower(accounts.username) = ?', name.downcase).to_a; \
    user = known.find { |one| one.valid_password?(password) }; \
    abort 'refused: there is such an account already' if known.any? && user.nil?; \
    unless user; \
    user = User.new(email: ENV.fetch('USER_EMAIL'), password: password, account_attributes: { username: name }); \
    wanted = { admin: true, confirmed_at: Time.now.utc, agreement: true, bypass_invite_request_check: true }; \
    wanted.each { |key, value| user.public_send(\"#{key}=\", value) if user.respond_to?(\"#{key}=\") }; \
    abort \"refused: #{user.errors.full_messages.join('; ')}\" unless user.save; \
    end; \
    user.update!(approved: true) if user.respond_to?(:approved=) && !user.approved";

/// Makes an account an administrator.
const PROMOTE: &str = "\
    name = ENV.fetch('USERNAME').downcase; \
    user = User.joins(:account).find_by('accounts.domain IS NULL AND lower(accounts.username) = ?', name); \
    abort 'refused: there is no such account on this instance: sign up first, then try again' unless user; \
    user.update!(admin: true); \
    user.update!(approved: true) if user.respond_to?(:approved=) && !user.approved";

/// An account that is being made: what is written down before the application hears of it.
#[derive(Debug, PartialEq, Eq)]
struct Begun {
    username: String,
    email: String,
    password: String,
}

/// The last refusal, in memory: each look costs a start of Rails, and most reasons end with other settings alone.
static REFUSAL: Mutex<Option<Refusal>> = Mutex::new(None);

struct Refusal {
    owner: Owner,
    at: Instant,
    why: String,
}

fn observe(context: &Context) -> Result<Observation> {
    let owner = context.settings()?.owner.as_ref();
    // Settings may have changed since: what was begun is brought to its end first.
    if let Some(begun) = Begun::read(context) {
        return Ok(Observation::Todo(format!("bring the account `{}` to its end", begun.username)));
    }
    let Some(owner) = owner.filter(|owner| !was_made(context, &owner.username)) else {
        return Ok(Observation::Done);
    };
    let name = &owner.username;
    Ok(match account(context, owner)? {
        None => match refused_lately(owner) {
            Some(why) => Observation::Waiting(why),
            None => Observation::Todo(format!("make the account `{name}`")),
        },
        // Somebody has decided that it may.
        Some(account) if account.is_admin => {
            Observation::Todo(format!("remember that `{name}` is an administrator"))
        }
        Some(account) => Observation::Waiting(format!(
            "there is an account `{name}` already, with {} mail address, which may be anybody's: type `appliance make-admin {name}` if it is \
             the owner's, or choose another `owner.username`",
            if account.has_mail { "the same" } else { "another" }
        )),
    })
}

fn apply(context: &Context) -> Result<()> {
    let owner = context.settings()?.owner.as_ref();
    if let Some(begun) = Begun::read(context) {
        return finish(context, owner, &begun);
    }
    let Some(owner) = owner else { return Ok(()) };
    match account(context, owner)? {
        None => finish(context, Some(owner), &Begun::new(context, owner)?),
        Some(account) if account.is_admin => remember(context, &owner.username),
        Some(_) => Ok(()),
    }
}

impl Begun {
    /// Writes down what is begun.
    fn new(context: &Context, owner: &Owner) -> Result<Begun> {
        let password = secrets::hex::<16>()?;
        // As the application stores it.
        let (username, email) = (owner.username.clone(), owner.email.to_lowercase());
        let lines = format!("{username}\n{email}\n{password}\n");
        durable::write(&context.state().join(BEGUN), lines.as_bytes(), 0o600, None)?;
        Ok(Begun { username, email, password })
    }

    fn read(context: &Context) -> Option<Begun> {
        let text = fs::read_to_string(context.state().join(BEGUN)).ok()?;
        let lines: Vec<&str> = text.strip_suffix('\n')?.split('\n').collect();
        let [username, email, password] = lines[..] else { return None };
        let [username, email, password] = [username, email, password].map(str::to_owned);
        Some(Begun { username, email, password })
    }

    fn is(&self, owner: &Owner) -> bool {
        self.username == owner.username && self.email == owner.email.to_lowercase()
    }

    fn forget(context: &Context) -> Result<()> {
        durable::remove(&context.state().join(BEGUN))
    }
}

fn finish(context: &Context, owner: Option<&Owner>, begun: &Begun) -> Result<()> {
    let Begun { username, email, password } = begun;
    if was_made(context, username) {
        return Begun::forget(context);
    }
    let wanted = owner.filter(|owner| begun.is(owner));
    let there = Owner { username: username.clone(), email: email.clone() };
    if wanted.is_none() && account(context, &there)?.is_none() {
        return Begun::forget(context);
    }
    let variables = [("USERNAME", username.as_str()), ("USER_EMAIL", email.as_str())];
    let said = runner(context, MAKE, &variables, &format!("{password}\n"))?;
    if let Some(reason) = refusal(&said) {
        // Nobody has this password.
        Begun::forget(context)?;
        let why = format!("the account `{username}` was refused: {reason}");
        if let Some(owner) = wanted {
            let refusal = Refusal { owner: owner.clone(), at: Instant::now(), why: why.clone() };
            *REFUSAL.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
        }
        bail!(why);
    }
    ensure!(said.code == 0, "the account `{username}` could not be made: {}", failure(&said));
    durable::write(&context.path(PASSWORD_FILE), format!("{password}\n").as_bytes(), 0o600, None)?;
    remember(context, username)?;
    Begun::forget(context)
}

fn refused_lately(owner: &Owner) -> Option<String> {
    let refusal = REFUSAL.lock().unwrap_or_else(PoisonError::into_inner);
    let refusal = refusal.as_ref().filter(|refusal| refusal.owner == *owner && refusal.at.elapsed() < PAUSE);
    refusal.map(|refusal| refusal.why.clone())
}

fn was_made(context: &Context, username: &str) -> bool {
    let made = fs::read_to_string(context.state().join(MADE));
    made.is_ok_and(|made| made.trim().eq_ignore_ascii_case(username))
}

fn remember(context: &Context, username: &str) -> Result<()> {
    durable::write(&context.state().join(MADE), format!("{username}\n").as_bytes(), 0o644, None).map(drop)
}

/// Makes an existing account an administrator.
pub fn make_admin(context: &Context, username: &str) -> Result<()> {
    let said = runner(context, PROMOTE, &[("USERNAME", username)], "")?;
    let why = || refusal(&said).map_or_else(|| failure(&said), str::to_owned);
    ensure!(said.code == 0, "`{username}` is not an administrator: {}", why());
    Ok(())
}

/// Why one of our programs said no, in one line.
fn refusal(said: &Output) -> Option<&str> {
    said.stderr.lines().find_map(|line| line.strip_prefix(REFUSED)).filter(|_| said.code != 0)
}

/// What went wrong, in one line: Ruby says it first, and then where.
fn failure(said: &Output) -> String {
    match said.code {
        TIME_IS_UP => format!("Rails was not done after {} s", LIMIT.as_secs()),
        code => {
            format!("exit code {code}: {}", said.stderr.trim().lines().next().unwrap_or("it said nothing"))
        }
    }
}

/// Runs a program of ours in the application.
fn runner(context: &Context, program: &str, variables: &[(&str, &str)], answers: &str) -> Result<Output> {
    let facts = &context.facts.application;
    let mut run = Run::as_user(&facts.user, &facts.bundle, &["exec", "rails", "runner", program])
        .env("HOME", &passwd::user(context, &facts.user)?.home)
        .env("RAILS_ENV", "production")
        .folder(&facts.root)
        .limit(LIMIT)
        .stdin(answers);
    for (key, value) in variables {
        run = run.env(key, value);
    }
    run.output()
}

/// The account that has the owner's name.
struct Account {
    is_admin: bool,
    /// And the owner's mail address.
    has_mail: bool,
}

fn account(context: &Context, owner: &Owner) -> Result<Option<Account>> {
    let query = format!(
        "SELECT users.admin, lower(users.email) = lower({}) FROM users JOIN accounts ON accounts.id = users.account_id \
        WHERE accounts.domain IS NULL AND lower(accounts.username) = lower({});",
        sql::literal(&owner.email),
        sql::literal(&owner.username)
    );
    let rows = sql::rows(context, sql::instance(context), &query)?;
    let is_true = |row: &[String], column: usize| row.get(column).is_some_and(|value| value == "t");
    Ok(rows.first().map(|row| Account { is_admin: is_true(row, 0), has_mail: is_true(row, 1) }))
}

#[cfg(test)]
mod tests {
    use super::{BEGUN, Begun, MADE, STEP, failure, refusal};
    use crate::context::Context;
    use crate::context::tests::scratch_context;
    use crate::engine::Observation;
    use crate::exec::Output;
    use crate::settings::{Owner, Settings};

    fn settle(context: &mut Context, name: &str) -> Owner {
        fs_err::create_dir_all(context.state()).unwrap();
        let text = format!(
            "schema = 1\ndomain = \"a.example\"\n[owner]\nusername = \"{name}\"\nemail = \"a@example.net\"\n"
        );
        context.settings = Some(Settings::parse("test", &text).unwrap());
        context.settings.as_ref().and_then(|settings| settings.owner.clone()).unwrap()
    }

    #[test]
    fn an_owner_is_made_once() {
        let (_guard, mut context) = scratch_context();
        settle(&mut context, "alice");
        fs_err::write(context.state().join(MADE), "alice\n").unwrap();
        // No database answers here: what was made is not looked at again.
        assert_eq!((STEP.observe)(&context).unwrap(), Observation::Done);
        settle(&mut context, "bob");
        assert!((STEP.observe)(&context).is_err());
    }

    #[test]
    fn what_was_begun_is_whole_or_not_there() {
        let (_guard, mut context) = scratch_context();
        let owner = settle(&mut context, "alice");
        let begun = Begun::new(&context, &owner).unwrap();
        assert_eq!(Begun::read(&context).unwrap(), begun);
        assert!(begun.is(&owner) && begun.password.len() == 32);
        // Whatever the settings say now, it is brought to its end.
        context.settings.as_mut().unwrap().owner = None;
        assert!(matches!((STEP.observe)(&context).unwrap(), Observation::Todo(_)));
        for damaged in ["", "alice", "alice\na@example.net\n", "alice\na@example.net\n0123"] {
            fs_err::write(context.state().join(BEGUN), damaged).unwrap();
            assert_eq!(Begun::read(&context), None, "{damaged:?}");
        }
    }

    #[test]
    fn a_refusal_gives_its_reasons() {
        let said = |code, stderr: &str| Output { code, stdout: String::new(), stderr: stderr.to_owned() };
        let refused = said(1, "warning: something\nrefused: Email has already been taken\n");
        assert_eq!(refusal(&refused), Some("Email has already been taken"));
        let failed = said(1, "config.rb:1:in `x': no database (PG::Error)\n\tfrom a\n\tfrom b\n");
        assert_eq!(refusal(&failed), None);
        assert_eq!(failure(&failed), "exit code 1: config.rb:1:in `x': no database (PG::Error)");
    }
}
