//! Step `owner`: the first administrator, if the settings name one.
//!
//! Made by the application's own tasks in one start of Rails. The random password that the task prints goes to
//! `/root/owner-password`, readable by root alone. A cut between the two loses the password, never the account: the owner then
//! uses "forgot password".
//!
//! Made once: a marker names the owner that was made, and from then on the account is the instance's own business. Who was
//! demoted or deleted there stays so; only another name in the settings makes another owner.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use fs_err as fs;

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::exec::Run;
use crate::settings::Owner;
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

/// How long one start of Rails may take on an emulated processor.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// What the task prints before the password, at every tag that has it.
const PASSWORD_LABEL: &str = "random password generated for the user:";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Account {
    Absent,
    User,
    Admin,
}

fn observe(context: &Context) -> Result<Observation> {
    let Some(owner) = &context.settings()?.owner else { return Ok(Observation::Done) };
    if was_made(context, owner) {
        return Ok(Observation::Done);
    }
    Ok(match account(context, owner)? {
        Account::Admin => Observation::Todo(format!("remember that `{}` was made", owner.username)),
        Account::User => Observation::Todo(format!("`{}` is not an administrator yet", owner.username)),
        Account::Absent => Observation::Todo(format!("`{}` does not exist yet", owner.username)),
    })
}

fn apply(context: &Context) -> Result<()> {
    let Some(owner) = &context.settings()?.owner else { return Ok(()) };
    match account(context, owner)? {
        Account::Admin => recover_password(context)?,
        Account::User => {
            recover_password(context)?;
            make_admin(context, &owner.username)?;
        }
        Account::Absent => add(context, owner)?,
    }
    remember(context, owner)
}

fn marker(context: &Context) -> PathBuf {
    context.state().join("owner-made")
}

fn was_made(context: &Context, owner: &Owner) -> bool {
    fs::read_to_string(marker(context)).is_ok_and(|made| made.trim().eq_ignore_ascii_case(&owner.username))
}

fn remember(context: &Context, owner: &Owner) -> Result<()> {
    durable::write(&marker(context), format!("{}\n", owner.username).as_bytes(), 0o644, None).map(drop)
}

/// Makes an existing account an administrator, by the application's own task.
pub fn make_admin(context: &Context, username: &str) -> Result<()> {
    let said = rake(context, &["mastodon:make_admin"], &[("USERNAME", username)], "")?.text()?;
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
    let output = rake(context, &tasks, &variables, &answers)?.output()?;
    // First of all the password: whatever failed after it, the account exists.
    match password(&output.stdout) {
        Some(password) => {
            durable::write(&context.path(PASSWORD_FILE), format!("{password}\n").as_bytes(), 0o600, None)?;
        }
        None => bail!("the account `{}` was refused: {}", owner.username, reason(&output.stdout)),
    }
    if output.code != 0 {
        bail!("the account `{}` is not complete: {}", owner.username, output.stderr.trim());
    }
    Ok(())
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

fn rake(context: &Context, tasks: &[&str], variables: &[(&str, &str)], answers: &str) -> Result<Run> {
    let facts = &context.facts.application;
    let mut args = vec!["exec", "rake"];
    args.extend_from_slice(tasks);
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

fn account(context: &Context, owner: &Owner) -> Result<Account> {
    let query = format!(
        "SELECT users.admin FROM users JOIN accounts ON accounts.id = users.account_id \
        WHERE accounts.domain IS NULL AND lower(accounts.username) = lower({});",
        sql::literal(&owner.username)
    );
    let rows = sql::rows(context, sql::instance(context), &query)?;
    Ok(match rows.first().and_then(|row| row.first()).map(String::as_str) {
        None => Account::Absent,
        Some("t") => Account::Admin,
        Some(_) => Account::User,
    })
}

#[cfg(test)]
mod tests {
    use super::{STEP, password, reason, remember};
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
        remember(&context, &owner).unwrap();
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
