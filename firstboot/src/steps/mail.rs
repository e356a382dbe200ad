//! Step `mail`: whether the relay would take what the instance writes.
//!
//! Asked with the application's own variables, so that what is true here is true there. Nothing waits for it, and it knocks seldom: a
//! relay that has said yes to these settings is asked again after a day, also over reboots; one that says no at the pauses of the schedule
//! at first, then each three minutes, later each quarter of an hour. Other settings or `appliance retry` ask at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow};
use fs_err as fs;

use crate::context::Context;
use crate::engine::{self, Needs, Observation, Step};
use crate::smtp::{Dialogue, Encryption, Login, Mechanism, Refusal};
use crate::steps::environment;
use crate::{durable, stamp};

/// The step.
pub const STEP: Step = Step {
    name: "mail",
    why: "the relay takes what the instance writes",
    needs: Needs::World,
    watch: engine::HOURLY,
    observe,
    apply,
};

/// How long a yes counts, in seconds.
const DAY: u64 = 24 * 3600;
/// Of connecting; an answer has four times of it, because a relay may be slow on purpose.
const PATIENCE: Duration = Duration::from_secs(15);

/// What this process knows, and no other needs.
static MEMORY: Mutex<Memory> = Mutex::new(Memory { no: None, is_wished: false });

struct Memory {
    /// The last no.
    no: Option<No>,
    /// The operator wants the relay asked now, whatever it has said.
    is_wished: bool,
}

fn memory() -> MutexGuard<'static, Memory> {
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Clone)]
struct No {
    hash: String,
    why: String,
    tries: u32,
    at: Instant,
}

impl No {
    fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) >= pause(self.tries)
    }
}

/// How long a relay is left alone that has said no so many times. The schedule comes by each minute, so a little less than three minutes
/// and than fifteen. Some relays shut out who knocks with a wrong password too often.
fn pause(tries: u32) -> Duration {
    Duration::from_secs(match tries {
        0..3 => 0,
        3..10 => 170,
        10.. => 890,
    })
}

fn observe(context: &Context) -> Result<Observation> {
    if context.settings()?.mail.is_none() {
        return Ok(Observation::Done);
    }
    let question = Question::of(context)?;
    let memory = memory();
    if memory.is_wished {
        return Ok(Observation::Todo("the relay is to be asked again".to_owned()));
    }
    if was_accepted(context, &question.hash) {
        return Ok(Observation::Done);
    }
    Ok(match &memory.no {
        Some(no) if no.hash == question.hash && !no.is_due(Instant::now()) => {
            Observation::Waiting(no.why.clone())
        }
        _ => Observation::Todo("the relay was not asked today".to_owned()),
    })
}

fn apply(context: &Context) -> Result<()> {
    let question = Question::of(context)?;
    let result = question.dialogue.run();
    let mut memory = memory();
    memory.is_wished = false;
    match result {
        Ok(()) => {
            memory.no = None;
            let line = format!("{} {}\n", question.hash, seconds());
            durable::write(&accepted(context), line.as_bytes(), 0o600, None).map(drop)
        }
        Err(refusal) => {
            let before = memory.no.as_ref().filter(|no| no.hash == question.hash).map_or(0, |no| no.tries);
            let why = question.sentence(&refusal);
            memory.no = Some(No {
                hash: question.hash,
                why: why.clone(),
                tries: before.saturating_add(1),
                at: Instant::now(),
            });
            // An older yes counts no more, in no later boot either.
            durable::remove(&accepted(context))?;
            Err(anyhow!(why))
        }
    }
}

/// The next pass asks the relay, whatever it has said before.
pub fn ask_again() {
    *memory() = Memory { no: None, is_wished: true };
}

fn accepted(context: &Context) -> PathBuf {
    context.state().join("mail-accepted")
}

fn was_accepted(context: &Context, hash: &str) -> bool {
    let text = fs::read_to_string(accepted(context)).unwrap_or_default();
    let time = text
        .trim()
        .split_once(' ')
        .filter(|(known, _)| *known == hash)
        .and_then(|(_, time)| time.parse().ok());
    // A yes of the future is one of a clock that was wrong.
    time.is_some_and(|time: u64| seconds().checked_sub(time).is_some_and(|age| age < DAY))
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// What is asked, and the hash of all that the answer depends on.
struct Question {
    dialogue: Dialogue,
    hash: String,
}

impl Question {
    fn of(context: &Context) -> Result<Question> {
        let variables = environment::variables(context)?;
        let owner = context.settings()?.owner.as_ref().map(|owner| owner.email.as_str());
        Question::from(&variables, owner)
    }

    /// By the variables, as v1.6.1's `production.rb` reads them: one that is there and not blank is "yes", whatever it says.
    fn from(variables: &BTreeMap<String, String>, owner: Option<&str>) -> Result<Question> {
        let value =
            |key: &str| variables.get(key).map(|value| value.trim()).filter(|value| !value.is_empty());
        let relay = value("SMTP_SERVER").context("`SMTP_SERVER` is missing")?;
        let port = value("SMTP_PORT").unwrap_or("25");
        let from = bare(value("SMTP_FROM_ADDRESS").context("`SMTP_FROM_ADDRESS` is missing")?);
        let to = owner.map_or_else(
            || format!("postmaster@{}", from.rsplit('@').next().unwrap_or_default()),
            ToOwned::to_owned,
        );
        let mechanism = match value("SMTP_AUTH_METHOD").unwrap_or("plain") {
            "none" => None,
            "plain" => Some(Mechanism::Plain),
            "login" => Some(Mechanism::Login),
            _ => Some(Mechanism::Other),
        };
        let login = match (value("SMTP_LOGIN"), variables.get("SMTP_PASSWORD"), mechanism) {
            (Some(user), Some(password), Some(mechanism)) => {
                Some(Login { user: user.to_owned(), password: password.clone(), mechanism })
            }
            _ => None,
        };
        let ca = value("SMTP_CA_FILE")
            .filter(|path| *path != "none")
            .map(|path| {
                fs::read_to_string(path)
                    .context("reading `mail.ca-file`: put the file there, readable by everybody")
            })
            .transpose()?;
        let encryption = if value("SMTP_TLS").is_some() { Encryption::Implicit } else { Encryption::Offered };
        let helo = value("SMTP_DOMAIN").or(value("LOCAL_DOMAIN")).unwrap_or("localhost");
        let said: Vec<String> = variables
            .iter()
            .filter(|(key, _)| key.starts_with("SMTP_"))
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let hash = stamp::hash(format!("{}\n{helo}\n{to}\n{ca:?}", said.join("\n")).as_bytes());
        let dialogue = Dialogue {
            relay: relay.to_owned(),
            port: port.parse().with_context(|| format!("reading `SMTP_PORT`: `{port}` is no port"))?,
            helo: helo.to_owned(),
            encryption,
            verify: value("SMTP_OPENSSL_VERIFY_MODE") != Some("none"),
            ca,
            login,
            from: from.to_owned(),
            to,
            patience: PATIENCE,
        };
        Ok(Question { dialogue, hash })
    }

    /// The relay's words, and what the operator can do.
    fn sentence(&self, refusal: &Refusal) -> String {
        let Dialogue { relay, port, from, to, login, .. } = &self.dialogue;
        let place = if relay.contains(':') { format!("[{relay}]:{port}") } else { format!("{relay}:{port}") };
        let remedy = match refusal {
            Refusal::Unknown(_) => "correct `mail.relay`, or `network.dns` if the name is right".to_owned(),
            Refusal::Ipv4Only(_) => {
                "give this machine an IPv4 address (`network.ipv4`), or take a relay that has IPv6".to_owned()
            }
            Refusal::Unreachable(_) => {
                "correct `mail.relay` and `mail.port`, or open the way to it: many providers shut port 25 and leave 587 open".to_owned()
            }
            Refusal::Broken(_) | Refusal::Foreign(_) => {
                "look at what listens there; a port that is encrypted from the first byte (465) needs `SMTP_TLS` in `extra-env`".to_owned()
            }
            Refusal::Tls(_) => {
                "correct the relay's certificate, or write `mail.verify = \"none\"` if it is in the same house".to_owned()
            }
            Refusal::Reply { verb: "AUTH", words } if words.starts_with("50") => {
                "it takes no login of this kind here: take `mail.login` and `mail.password` out, or use its port for logins (587)".to_owned()
            }
            Refusal::Reply { verb: "AUTH", .. } => "correct `mail.login` and `mail.password`".to_owned(),
            Refusal::Reply { words, .. } if words.starts_with('4') => {
                "it puts it off, and is asked again; look into its log if this lasts".to_owned()
            }
            Refusal::Reply { verb: "MAIL FROM", .. } => {
                format!("let the sender `{from}` use it, or write another address to `mail.from`")
            }
            Refusal::Reply { verb: "RCPT TO", .. } if login.is_none() => {
                format!("let it take mail from this machine's addresses to `{to}`, or give `mail.login` and `mail.password`")
            }
            Refusal::Reply { .. } => "look into its log".to_owned(),
        };
        format!("the relay `{place}` does not take mail: {refusal}; {remedy}")
    }
}

/// The address in `Name <address>`.
fn bare(text: &str) -> &str {
    text.rsplit_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or(text, |(address, _)| address)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use super::{DAY, No, Question, accepted, seconds, was_accepted};
    use crate::context::tests::scratch_context;
    use crate::smtp::{Encryption, Mechanism, Refusal};

    fn question(pairs: &[(&str, &str)], owner: Option<&str>) -> Question {
        let mut variables: BTreeMap<String, String> =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        for (key, value) in [
            ("SMTP_SERVER", "192.0.2.25"),
            ("SMTP_FROM_ADDRESS", "Words <words@example.net>"),
            ("LOCAL_DOMAIN", "a.example"),
        ] {
            variables.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
        Question::from(&variables, owner).unwrap()
    }

    #[test]
    fn the_applications_own_variables_are_asked_with() {
        let dialogue =
            question(&[("SMTP_AUTH_METHOD", "none"), ("SMTP_OPENSSL_VERIFY_MODE", "none")], None).dialogue;
        assert_eq!((dialogue.port, dialogue.helo.as_str(), dialogue.verify), (25, "a.example", false));
        assert_eq!(
            (dialogue.from.as_str(), dialogue.to.as_str()),
            ("words@example.net", "postmaster@example.net")
        );
        assert!(dialogue.login.is_none() && dialogue.encryption == Encryption::Offered);
        let pairs = [
            ("SMTP_PORT", "465"),
            ("SMTP_TLS", "false"),
            ("SMTP_LOGIN", "me"),
            ("SMTP_PASSWORD", "p w"),
            ("SMTP_AUTH_METHOD", "login"),
        ];
        let dialogue = question(&pairs, Some("alice@example.net")).dialogue;
        assert_eq!(dialogue.to, "alice@example.net");
        assert_eq!(dialogue.encryption, Encryption::Implicit, "the word `false` is a yes");
        assert_eq!(dialogue.login.unwrap().mechanism, Mechanism::Login);
    }

    #[test]
    fn every_refusal_names_the_remedy() {
        let one = question(&[], Some("alice@example.net"));
        let reply = |verb, words: &str| Refusal::Reply { verb, words: words.to_owned() };
        insta::assert_snapshot!(one.sentence(&reply("RCPT TO", "554 relay access denied")), @"the relay `192.0.2.25:25` does not take mail: it answers RCPT TO with `554 relay access denied`; let it take mail from this machine's addresses to `alice@example.net`, or give `mail.login` and `mail.password`");
        insta::assert_snapshot!(one.sentence(&reply("AUTH", "535 wrong")), @"the relay `192.0.2.25:25` does not take mail: it answers AUTH with `535 wrong`; correct `mail.login` and `mail.password`");
        insta::assert_snapshot!(one.sentence(&Refusal::Ipv4Only("192.0.2.25".to_owned())), @"the relay `192.0.2.25:25` does not take mail: it has IPv4 addresses only (192.0.2.25), and this machine has no way to them; give this machine an IPv4 address (`network.ipv4`), or take a relay that has IPv6");
    }

    #[test]
    fn a_yes_counts_for_a_day_and_a_no_for_minutes() {
        let (_guard, context) = scratch_context();
        let put = |time: u64| {
            fs_err::create_dir_all(context.state()).unwrap();
            fs_err::write(accepted(&context), format!("abc {time}\n")).unwrap();
            was_accepted(&context, "abc")
        };
        assert!(!was_accepted(&context, "abc"));
        assert!(put(seconds()) && put(seconds() - DAY + 60));
        assert!(!put(seconds() - DAY) && !put(seconds() + 3600));
        assert!(!was_accepted(&context, "def"));

        let now = Instant::now();
        let no = |tries| No { hash: String::new(), why: String::new(), tries, at: now };
        let later = |seconds| now + Duration::from_secs(seconds);
        assert!(no(2).is_due(now) && !no(3).is_due(later(120)) && no(3).is_due(later(176)));
        assert!(!no(10).is_due(later(840)) && no(10).is_due(later(900)));
    }
}
