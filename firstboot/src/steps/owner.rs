//! Step `owner`: the first administrator, if the settings name one.
//!
//! Made by the application's own tasks in one start of Rails. The random password that the task prints goes to
//! `/root/owner-password`, readable by root alone. That the making has begun is on the disk before, so after a cut that lost the
//! password the account gets another one, which nobody can have used. An account that was there before keeps its own.
//!
//! Made once: a marker names the owner that was made, and from then on the account is the instance's own business. Who was
//! demoted or deleted there stays so; only another name in the settings makes another owner. Strangers may have signed up by then: an
//! account of that name with another mail address is nobody's administrator.

use std::time::Duration;

use anyhow::{Result, bail};
use fs_err as fs;

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::exec::Run;
use crate::settings::Owner;
use crate::steps::secrets;
use crate::{durable, passwd, sql};

/// The step.
pub const STEP: Step = Step {
    name: "owner",
    why: "the first administrator's account",
    needs: Needs::Local,
    watch: engine::HOURLY,
    observe,
    apply,
};

/// Where the first password is found.
pub const PASSWORD_FILE: &str = "/root/owner-password";

/// Markers, each with the owner's name: the making has begun, and it has come to its end.
const BEGUN: &str = "owner-begun";
const MADE: &str = "owner-made";

/// How long one start of Rails may take on an emulated processor.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// What the task prints before the password, at every tag that has it.
const PASSWORD_LABEL: &str = "random password generated for the user:";

/// Sets a password that it reads. The tables of both models are the same at every tag.
const SET_PASSWORD: &str = "User.joins(:account).find_by!(accounts: { username: ENV.fetch('USERNAME'), domain: nil })\
    .update!(password: $stdin.gets.chomp)";

/// The account that has the owner's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Account {
    is_admin: bool,
    /// And the owner's mail address.
    has_mail: bool,
}

fn observe(context: &Context) -> Result<Observation> {
    let Some(owner) = &context.settings()?.owner else { return Ok(Observation::Done) };
    if was_made(context, owner) {
        return Ok(Observation::Done);
    }
    Ok(match account(context, owner)? {
        Some(account) if account.is_admin => {
            Observation::Todo(format!("remember that `{}` was made", owner.username))
        }
        Some(account) if account.has_mail => {
            Observation::Todo(format!("`{}` is not an administrator yet", owner.username))
        }
        Some(_) => Observation::Waiting(format!(
            "the account `{}` has another mail address than `owner.email`: write its own there, choose another `owner.username`, or \
             type `appliance make-admin {}` if it may administer this instance",
            owner.username, owner.username
        )),
        None => Observation::Todo(format!("`{}` does not exist yet", owner.username)),
    })
}

fn apply(context: &Context) -> Result<()> {
    let Some(owner) = &context.settings()?.owner else { return Ok(()) };
    match account(context, owner)? {
        None => {
            note(context, BEGUN, owner)?;
            add(context, owner)?;
        }
        Some(account) if account.has_mail && is_noted(context, BEGUN, owner) => complete(context, owner)?,
        // Somebody has decided that it may.
        Some(account) if account.is_admin => {}
        Some(account) if account.has_mail => make_admin(context, &owner.username)?,
        Some(_) => return Ok(()),
    }
    if is_noted(context, BEGUN, owner) {
        return durable::rename(&context.state().join(BEGUN), &context.state().join(MADE));
    }
    note(context, MADE, owner)?;
    // Of another one, whose account was refused.
    durable::remove(&context.state().join(BEGUN))
}

fn was_made(context: &Context, owner: &Owner) -> bool {
    is_noted(context, MADE, owner)
}

fn is_noted(context: &Context, marker: &str, owner: &Owner) -> bool {
    let noted = fs::read_to_string(context.state().join(marker));
    noted.is_ok_and(|noted| noted.trim().eq_ignore_ascii_case(&owner.username))
}

fn note(context: &Context, marker: &str, owner: &Owner) -> Result<()> {
    let line = format!("{}\n", owner.username);
    durable::write(&context.state().join(marker), line.as_bytes(), 0o644, None).map(drop)
}

/// Makes an existing account an administrator, by the application's own task.
pub fn make_admin(context: &Context, username: &str) -> Result<()> {
    let said = rails(context, "rake", &["mastodon:make_admin"], &[("USERNAME", username)], "")?.text()?;
    // The task ends well even when it found nobody.
    if said.contains("could not be found") {
        bail!("there is no account `{username}` on this instance: sign up first, then try again");
    }
    Ok(())
}

fn add(context: &Context, owner: &Owner) -> Result<()> {
    let tasks = ["mastodon:add_user", "mastodon:confirm_email", "mastodon:make_admin"];
    let variables = [("USER_EMAIL", owner.email.as_str()), ("USERNAME", owner.username.as_str())];
    let answers = format!("{}\n{}\ny\n", owner.email, owner.username);
    let output = rails(context, "rake", &tasks, &variables, &answers)?.output()?;
    // First of all the password: whatever failed after it, the account exists.
    match password(&output.stdout) {
        Some(password) => keep_password(context, password)?,
        None => bail!("the account `{}` was refused: {}", owner.username, reason(&output.stdout)),
    }
    if output.code != 0 {
        bail!("the account `{}` is not complete: {}", owner.username, output.stderr.trim());
    }
    Ok(())
}

fn keep_password(context: &Context, password: &str) -> Result<()> {
    durable::write(&context.path(PASSWORD_FILE), format!("{password}\n").as_bytes(), 0o600, None).map(drop)
}

/// What a cut has kept from being done for an account that we have begun.
fn complete(context: &Context, owner: &Owner) -> Result<()> {
    recover_password(context)?;
    let username = ("USERNAME", owner.username.as_str());
    if !context.path(PASSWORD_FILE).exists() {
        let password = secrets::hex::<16>()?;
        let line = format!("{password}\n");
        rails(context, "rails", &["runner", SET_PASSWORD], &[username], &line)?.text()?;
        keep_password(context, &password)?;
    }
    let tasks = ["mastodon:confirm_email", "mastodon:make_admin"];
    rails(context, "rake", &tasks, &[("USER_EMAIL", &owner.email), username], "")?.text().map(drop)
}

/// A cut may have come between the password's content and the file's name: what is whole gets its name, all else goes.
fn recover_password(context: &Context) -> Result<()> {
    let path = context.path(PASSWORD_FILE);
    let scratch = durable::scratch(&path);
    let is_whole = fs::read(&scratch).is_ok_and(|content| content.ends_with(b"\n"));
    if is_whole && !path.exists() {
        durable::sync_file(&scratch)?;
        return durable::rename(&scratch, &path);
    }
    durable::erase(&scratch)
}

fn password(said: &str) -> Option<&str> {
    said.lines().find_map(|line| line.split_once(PASSWORD_LABEL)).map(|(_, password)| password.trim())
}

/// What the task says behind its questions: one line for every field that is wrong.
fn reason(said: &str) -> String {
    let lines: Vec<&str> = said.lines().skip(1).map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "the task said nothing".to_owned() } else { lines.join("; ") }
}

fn rails(
    context: &Context,
    program: &str,
    words: &[&str],
    variables: &[(&str, &str)],
    answers: &str,
) -> Result<Run> {
    let facts = &context.facts.application;
    let mut args = vec!["exec", program];
    args.extend_from_slice(words);
    let mut run = Run::as_user(&facts.user, &facts.bundle, &args)
        .env("HOME", &passwd::user(context, &facts.user)?.home)
        .env("RAILS_ENV", "production")
        .folder(&facts.root)
        .limit(LIMIT)
        .stdin(answers);
    for (key, value) in variables {
        run = run.env(key, value);
    }
    Ok(run)
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
    use super::{MADE, STEP, note, password, reason};
    use crate::context::tests::scratch_context;
    use crate::engine::Observation;
    use crate::settings::Settings;

    const QUESTIONS: &str =
        "Enter email: Enter username: Create user and send them confirmation mail [y/N]: \n";

    #[test]
    fn the_password_is_found_among_the_questions() {
        let said = format!(
            "{QUESTIONS}User added and confirmation mail sent to user's email address.\n\
            Here is the random password generated for the user: 0123abcd\n\na@example.net confirmed\n"
        );
        assert_eq!(password(&said), Some("0123abcd"));
    }

    #[test]
    fn an_owner_is_made_once() {
        let (_guard, mut context) = scratch_context();
        let settings = |name: &str| {
            let text = format!(
                "schema = 1\ndomain = \"a.example\"\n[owner]\nusername = \"{name}\"\nemail = \"a@example.net\"\n"
            );
            Settings::parse("test", &text).unwrap()
        };
        context.settings = Some(settings("alice"));
        let owner = context.settings.as_ref().and_then(|settings| settings.owner.clone()).unwrap();
        note(&context, MADE, &owner).unwrap();
        // No database answers here: what was made is not looked at again.
        assert_eq!((STEP.observe)(&context).unwrap(), Observation::Done);
        context.settings = Some(settings("bob"));
        assert!((STEP.observe)(&context).is_err());
    }

    #[test]
    fn a_refusal_gives_its_reasons() {
        let said = format!(
            "{QUESTIONS}Following errors occured while creating new user:\nemail: has already been taken\n\n"
        );
        assert_eq!(password(&said), None);
        assert_eq!(
            reason(&said),
            "Following errors occured while creating new user:; email: has already been taken"
        );
        assert_eq!(reason(""), "the task said nothing");
    }
}
