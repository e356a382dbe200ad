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

use std::time::Duration;

use anyhow::{Result, bail};
use fs_err as fs;

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::exec::{Output, Run};
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

/// The making has begun: the owner's name, and the password on the next line.
const BEGUN: &str = "owner-begun";
/// It has come to its end: the owner's name.
const MADE: &str = "owner-made";

/// How long one start of Rails may take on an emulated processor.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Begins the line in which one of the programs below says why not.
const REFUSED: &str = "refused: ";

/// Makes the account, or finds the one that has the password. Rake's tasks were replaced by tootctl in v2.6.0; the models take the same
/// at every tag, as far as they know the attribute. One line, because lines of programs are shown.
const MAKE: &str = "\
    name, password = ENV.fetch('USERNAME'), $stdin.gets.chomp; \
    user = User.joins(:account).find_by('accounts.domain IS NULL AND lower(accounts.username) = ?', name.downcase); \
    abort 'refused: there is such an account already' if user && !user.valid_password?(password); \
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
    user.update!(admin: true)";

fn observe(context: &Context) -> Result<Observation> {
    let Some(owner) = &context.settings()?.owner else { return Ok(Observation::Done) };
    let name = &owner.username;
    let begun = begun(context, owner);
    if was_made(context, owner) {
        return Ok(match begun {
            Some(_) => Observation::Todo("forget the password, which is in its file".to_owned()),
            None => Observation::Done,
        });
    }
    Ok(match is_admin(context, name)? {
        _ if begun.is_some() => Observation::Todo(format!("make the account `{name}`")),
        None => Observation::Todo(format!("make the account `{name}`")),
        // Somebody has decided that it may.
        Some(true) => Observation::Todo(format!("remember that `{name}` is an administrator")),
        Some(false) => Observation::Waiting(format!(
            "there is an account `{name}` already, which may be anybody's: type `appliance make-admin {name}` if it is the owner's, \
             or choose another `owner.username`"
        )),
    })
}

fn apply(context: &Context) -> Result<()> {
    let Some(owner) = &context.settings()?.owner else { return Ok(()) };
    let begun = begun(context, owner);
    if !was_made(context, owner) {
        match (begun, is_admin(context, &owner.username)?) {
            (None, Some(true)) => {}
            (None, Some(false)) => return Ok(()),
            (begun, _) => make(context, owner, begun)?,
        }
        let line = format!("{}\n", owner.username);
        durable::write(&context.state().join(MADE), line.as_bytes(), 0o644, None)?;
    }
    forget(context)
}

fn was_made(context: &Context, owner: &Owner) -> bool {
    let made = fs::read_to_string(context.state().join(MADE));
    made.is_ok_and(|made| made.trim().eq_ignore_ascii_case(&owner.username))
}

/// The password that the owner's account has or is to have, while it is made.
fn begun(context: &Context, owner: &Owner) -> Option<String> {
    let text = fs::read_to_string(context.state().join(BEGUN)).ok()?;
    let (name, password) = text.split_once('\n')?;
    let password = password.strip_suffix('\n').filter(|password| !password.is_empty())?;
    (name == owner.username).then(|| password.to_owned())
}

fn forget(context: &Context) -> Result<()> {
    durable::remove(&context.state().join(BEGUN))
}

fn make(context: &Context, owner: &Owner, begun: Option<String>) -> Result<()> {
    let password = if let Some(password) = begun {
        password
    } else {
        let password = secrets::hex::<16>()?;
        let lines = format!("{}\n{password}\n", owner.username);
        durable::write(&context.state().join(BEGUN), lines.as_bytes(), 0o600, None)?;
        password
    };
    // As the application stores it.
    let email = owner.email.to_lowercase();
    let variables = [("USERNAME", owner.username.as_str()), ("USER_EMAIL", email.as_str())];
    let said = runner(context, MAKE, &variables, &format!("{password}\n"))?;
    if let Some(reason) = refusal(&said) {
        // Nobody has this password.
        forget(context)?;
        bail!("the account `{}` was refused: {reason}", owner.username);
    }
    if said.code != 0 {
        bail!("the account `{}` could not be made: {}", owner.username, said.stderr.trim());
    }
    durable::write(&context.path(PASSWORD_FILE), format!("{password}\n").as_bytes(), 0o600, None).map(drop)
}

/// Makes an existing account an administrator.
pub fn make_admin(context: &Context, username: &str) -> Result<()> {
    let said = runner(context, PROMOTE, &[("USERNAME", username)], "")?;
    if let Some(reason) = refusal(&said) {
        bail!("`{username}`: {reason}");
    }
    if said.code != 0 {
        bail!("`{username}` could not be made an administrator: {}", said.stderr.trim());
    }
    Ok(())
}

/// Why one of our programs said no, in one line.
fn refusal(said: &Output) -> Option<&str> {
    said.stderr.lines().find_map(|line| line.strip_prefix(REFUSED)).filter(|_| said.code != 0)
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

/// Whether the account of that name is an administrator's; `None` without one.
fn is_admin(context: &Context, username: &str) -> Result<Option<bool>> {
    let query = format!(
        "SELECT users.admin FROM users JOIN accounts ON accounts.id = users.account_id \
        WHERE accounts.domain IS NULL AND lower(accounts.username) = lower({});",
        sql::literal(username)
    );
    let rows = sql::rows(context, sql::instance(context), &query)?;
    Ok(rows.first().and_then(|row| row.first()).map(|is_admin| is_admin == "t"))
}

#[cfg(test)]
mod tests {
    use super::{BEGUN, MADE, STEP, begun, refusal};
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
    fn a_password_is_the_owners_it_was_made_for() {
        let (_guard, mut context) = scratch_context();
        let (alice, bob) = (settle(&mut context, "alice"), settle(&mut context, "bob"));
        let known = |text: &str, owner: &Owner| {
            fs_err::write(context.state().join(BEGUN), text).unwrap();
            begun(&context, owner)
        };
        assert_eq!(known("alice\n0123\n", &alice).as_deref(), Some("0123"));
        assert_eq!(known("alice\n0123\n", &bob), None);
        for damaged in ["", "alice", "alice\n", "alice\n\n", "alice\n0123"] {
            assert_eq!(known(damaged, &alice), None, "{damaged:?}");
        }
    }

    #[test]
    fn a_refusal_gives_its_reasons() {
        let said = |code, stderr: &str| Output { code, stdout: String::new(), stderr: stderr.to_owned() };
        let refused = said(1, "warning: something\nrefused: Email has already been taken\n");
        assert_eq!(refusal(&refused), Some("Email has already been taken"));
        assert_eq!(refusal(&said(1, "no database")), None);
    }
}
