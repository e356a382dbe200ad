//! Where the configuration comes from: a fixed order of channels, of which the first full configuration wins and the others fill holes.
//!
//! What a channel gives is hostile until [`Settings::parse`] has accepted it: at most 1 MiB, UTF-8, regular files only, volumes
//! mounted read-only, single settings turned into the same TOML that everybody else writes. Three rules decide what becomes of it:
//!
//! - Key by key, a channel gives what those above it leave open, and every key remembers its channel ([`merge`]).
//! - What cannot be read (a damaged volume, a format of others) is a hole: it is named, and the other channels count. What can be read,
//!   is ours and is wrong stops first boot, unless a full configuration stands above it: a lower channel must not name the instance for
//!   ever because somebody mistyped a line in a higher one.
//! - What is stored in `/etc/appliance/config.toml` is never overwritten by a channel that says what it said before. Until there is a
//!   database, new words of a channel replace what it gave, and nothing that the operator edited: a first configuration with a wrong
//!   address would otherwise shut the machine for ever. With the database they only fill keys that the stored one lacks and no channel has stated before, once a boot; the domain is
//!   settled. A key that was stated before and is gone was removed by the operator.

mod cmdline;
mod disc;
mod foreign;
mod fw_cfg;
mod guestinfo;
mod imds;
mod medium;
mod merge;
mod ovf;
mod packed;
pub mod readers;
mod said;
mod smbios;
mod stored;
mod userdata;
mod volume;
mod words;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use self::foreign::{LIMIT, accept, read_bytes, read_offered};
use self::imds::Asked;
use self::merge::{Layer, Merged};
use self::said::{Said, Wrong};
use self::stored::Given;
use crate::durable;
use crate::settings::Settings;
use crate::steps::network;

pub use guestinfo::answer as answer_guestinfo;
pub use stored::PATH as STORED;

/// The domain that the database was made for; beside the database, on the data disk when there is one.
const SETTLED: &str = "/var/lib/appliance/domain";

/// The name of the web site that goes with it.
const SETTLED_SITE: &str = "/var/lib/appliance/site";

/// The mark of a boot in which the channels were looked at although the domain is settled.
const LOOKED: &str = "/run/appliance/channels-looked-at";

/// Minutes after which a silent channel is not asked again in such a boot.
const PATIENCE: u64 = 10;

/// A text that a channel gave, not yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// What the operator knows it as, such as `config.toml on the volume CIDATA`.
    pub source: String,
    /// The text, TOML if all is well.
    pub text: String,
}

/// The channels from outside, in order of precedence. Each reads below the root.
const CHANNELS: &[fn(&Path) -> Said] = &[
    |root| guestinfo::configuration(root).into(),
    |root| guestinfo::environment(root).into(),
    |root| disc::look(root).into(),
    volume::look,
    |root| fw_cfg::look(root).into(),
    |root| smbios::look(root).into(),
    |root| cmdline::look(root).into(),
    |root| imds::look(root).into(),
];

/// What the search through all channels found.
#[derive(Debug, Default)]
pub struct Search {
    /// The settings and their source; of several sources the one text that was made of them.
    pub found: Option<(Settings, Offer)>,
    /// Why nothing was found although something was offered, one message each.
    pub refused: Vec<String>,
    /// What may answer later, one message each.
    pub waiting: Vec<String>,
    /// What was passed over, one message each.
    pub notes: Vec<String>,
    /// The channel of each key.
    sources: BTreeMap<String, String>,
    /// To be stored with the text that was found; `None` when that is stored already.
    given: Option<Given>,
}

/// What all channels from outside offer.
#[derive(Default)]
struct Offered {
    layers: Vec<Layer>,
    refused: Vec<String>,
    waiting: Vec<String>,
    damaged: Vec<String>,
    notes: Vec<String>,
}

/// The stored configuration, unless a channel has a newer one that may replace it. A stored configuration that is not valid is not
/// replaced by what the channel said before: nothing must silently undo what the operator edited. Changes nothing.
pub fn search(root: &Path) -> Search {
    let stored = match stored::look(root) {
        Ok(stored) => stored,
        Err(error) => return Search { refused: vec![format!("{error:#}")], ..Search::default() },
    };
    let settled = settled_domain(root);
    let given = Given::read(root, stored.as_ref().map(|stored| stored.text.as_str()));
    let Some(stored) = stored else { return newest(&offered(root), settled.as_deref()) };
    let kept = kept(&stored, given.as_ref(), settled.as_deref());
    if settled.is_some() {
        return kept;
    }
    let offered = offered(root);
    let newest = newest(&offered, None);
    let newest_text = newest.found.as_ref().map(|(_, offer)| &offer.text);
    match &given {
        Some(given) if newest_text.is_some() && given.is_news(&offered.layers) => {
            renewed(newest, &offered, &stored, given)
        }
        // What is remembered was lost, and it can be told what it was.
        None if newest_text == Some(&stored.text) => newest,
        _ => {
            let given = given.unwrap_or_else(Given::of_operator);
            filled(kept, &offered, given, None)
        }
    }
}

/// Searches, and stores what a channel gave: the commit point of the configuration.
pub fn adopt(root: &Path) -> Result<Search> {
    let mut search = search(root);
    let looked = root.join(&LOOKED[1..]);
    let mut is_last_look = false;
    if settled_domain(root).is_some() && search.found.is_some() && !looked.exists() {
        let offered = offered(root);
        // What may answer later is worth another look, but not for ever: looking may mean mounting.
        is_last_look = offered.waiting.is_empty() || minutes_up(root) >= PATIENCE;
        let text = search.found.as_ref().map(|(_, offer)| offer.text.as_str());
        let settled = settled_domain(root);
        search = match search.given.clone().or_else(|| Given::read(root, text)) {
            Some(given) => filled(search, &offered, given, settled.as_deref()),
            None => baseline(search, &offered),
        };
    }
    if let Some(((_, offer), given)) = search.found.as_ref().zip(search.given.as_ref()) {
        stored::store(root, &offer.text, given)?;
    }
    // Last, so that what goes wrong above is tried again.
    if is_last_look {
        durable::write(&looked, b"", 0o644, None)?;
    }
    if search.found.is_none() && !search.waiting.is_empty() {
        search.notes.extend(network::raise(root));
    }
    Ok(search)
}

/// How long the machine has been up.
fn minutes_up(root: &Path) -> u64 {
    let text = fs_err::read_to_string(root.join("proc/uptime")).unwrap_or_default();
    text.split('.').next().and_then(|seconds| seconds.parse::<u64>().ok()).map_or(0, |seconds| seconds / 60)
}

/// Makes the next pass look at the channels again, also when the domain is settled.
pub fn look_again(root: &Path) -> Result<()> {
    durable::remove(&root.join(&LOOKED[1..]))
}

/// What every channel from outside offers, one line each, without any value.
pub fn survey(root: &Path) -> String {
    let offered = offered(root);
    let settled = settled_domain(root);
    let mut lines = Vec::new();
    for layer in &offered.layers {
        let source = &layer.offer.source;
        let keys: Vec<&str> = layer.leaves.keys().map(String::as_str).collect();
        let mut line = match layer.domain() {
            Some(domain) if layer.is_full => format!("{source}: valid, for the instance `{domain}`"),
            _ => format!("{source}: a part: {}", keys.join(", ")),
        };
        let domain = layer.domain();
        if let Some(settled) =
            settled.as_deref().filter(|settled| domain.is_some_and(|said| said != *settled))
        {
            line.push_str(&format!("; nothing of it is taken: this instance is `{settled}` for ever"));
        }
        lines.push(line);
    }
    if !offered.layers.is_empty() && !offered.layers.iter().any(|layer| layer.is_full) {
        lines.push(match together(&offered.layers, &mut Vec::new()) {
            Ok((settings, _)) => format!("together they are valid, for the instance `{}`", settings.domain),
            Err(reason) => format!("together: {reason}"),
        });
    }
    lines.extend([offered.refused, offered.damaged, offered.waiting, offered.notes].concat());
    if lines.is_empty() { "nothing\n".to_owned() } else { format!("{}\n", lines.join("\n")) }
}

impl Search {
    /// Where the configuration comes from, as comments of TOML: one line, or one for each key when several channels gave it.
    pub fn origin(&self) -> String {
        let Some((_, offer)) = &self.found else { return String::new() };
        let mut givers: Vec<&str> = self.sources.values().map(String::as_str).collect();
        givers.sort_unstable();
        givers.dedup();
        if givers.len() < 2 {
            return format!("# from {}\n", givers.first().unwrap_or(&offer.source.as_str()));
        }
        let lines = self.sources.iter().map(|(path, source)| format!("# {path}: from {source}\n"));
        lines.collect::<Vec<_>>().concat()
    }
}

/// Looks at all channels. What is wrong below a full configuration is not needed, and stops nothing.
fn offered(root: &Path) -> Offered {
    let mut offered = Offered::default();
    let mut is_full = false;
    let mut domain: Option<String> = None;
    for look in CHANNELS {
        let said = look(root);
        let mut wrong = said.wrong;
        for offer in said.offers {
            match merge::layer(offer) {
                Ok(layer) => {
                    domain = domain.or(layer.domain().map(str::to_owned));
                    // One of another instance is passed over, so it stands above nothing.
                    is_full |= layer.is_full && layer.domain() == domain.as_deref();
                    offered.layers.push(layer);
                }
                Err(reason) => wrong.push(reason),
            }
        }
        let (place, other) = (&mut offered.refused, &mut offered.notes);
        let place = if is_full { other } else { place };
        place.extend(wrong);
        for message in said.damaged {
            // Two channels go through guestinfo, and what is wrong with it is wrong for both.
            if !offered.damaged.contains(&message) {
                offered.damaged.push(message);
            }
        }
        offered.waiting.extend(said.waiting);
        offered.notes.extend(said.notes);
    }
    offered
}

/// The configuration that the channels make together, to be stored.
fn newest(offered: &Offered, settled: Option<&str>) -> Search {
    let mut search = Search {
        refused: offered.refused.clone(),
        waiting: offered.waiting.clone(),
        notes: offered.notes.clone(),
        ..Search::default()
    };
    if search.refused.is_empty() && !offered.layers.is_empty() {
        match together(&offered.layers, &mut search.notes) {
            Ok((settings, merged)) => search.take(settings, &merged, &offered.layers, settled),
            Err(reason) => search.refused.push(reason),
        }
    }
    let place = if search.found.is_some() { &mut search.notes } else { &mut search.refused };
    place.extend(offered.damaged.iter().cloned());
    search
}

/// Puts the layers together. One of another instance is passed over: its password and its keys belong to that. So is one below the first
/// full configuration that does not fit to those above it.
fn together(layers: &[Layer], notes: &mut Vec<String>) -> Result<(Settings, Merged), String> {
    let domain = layers.iter().find_map(Layer::domain);
    let (layers, others): (Vec<Layer>, Vec<Layer>) =
        layers.iter().cloned().partition(|layer| domain.is_none() || layer.is_for(domain));
    notes.extend(others.iter().filter_map(|layer| foreign_domain(layer, domain?, None)));
    let full = layers.iter().position(|layer| layer.is_full).map_or(layers.len(), |first| first + 1);
    let (needed, rest) = layers.split_at(full);
    let mut merged = Merged::of(needed);
    let mut settings = merged.settle()?;
    for layer in rest {
        let mut more = merged.clone();
        layer.leaves.iter().for_each(|(path, value)| more.fill(path, value, &layer.offer.source));
        match more.settle() {
            Ok(better) => (settings, merged) = (better, more),
            Err(reason) => notes.push(format!("{reason}: nothing of `{}` is taken", layer.offer.source)),
        }
    }
    Ok((settings, merged))
}

impl Search {
    /// What the channels had to say beside their offers.
    fn hear(&mut self, offered: &Offered) {
        self.waiting.clone_from(&offered.waiting);
        self.notes.extend([&offered.refused[..], &offered.damaged, &offered.notes].concat());
    }

    /// Takes a configuration that keeps to the domain, if that is settled.
    fn take(&mut self, settings: Settings, merged: &Merged, layers: &[Layer], settled: Option<&str>) {
        let source = merged.givers().join(", ");
        if let Some(refusal) =
            frozen(settings.domain.as_str(), merged.sources.get("domain").unwrap_or(&source), settled)
        {
            self.refused.push(refusal);
            return;
        }
        // The text of one channel is stored as it is, with its comments.
        let whole = layers.iter().find(|layer| layer.offer.source == source && layer.leaves == merged.values);
        let text = whole.map_or_else(|| merged.render().0, |layer| layer.offer.text.clone());
        let mut given = Given::default();
        given.note(layers, merged);
        self.given = Some(given);
        self.sources.clone_from(&merged.sources);
        self.found = Some((settings, Offer { source, text }));
    }
}

/// The stored configuration with the channels' new words, before there is a database. What the operator changed, added or removed stays
/// so; every other key is taken anew, and one whose channel is silent now stays. Where that fits together in no way, the channels' words
/// count alone: they are the way to correct a configuration that locks everybody out.
fn renewed(mut newest: Search, offered: &Offered, stored: &Offer, given: &Given) -> Search {
    let own = leaves_of(stored);
    let sources = given.sources(&own);
    let removed = given.removed(&own);
    let part = |source: &str, is_in: &dyn Fn(&str) -> bool| Layer {
        offer: Offer { source: source.to_owned(), text: String::new() },
        leaves: own
            .iter()
            .filter(|(path, _)| is_in(path))
            .map(|(path, value)| (path.clone(), value.clone()))
            .collect(),
        is_full: false,
    };
    let is_from = |path: &str, source: &str| sources.get(path).is_some_and(|giver| giver == source);
    let edited = part(STORED, &|path| is_from(path, STORED));
    let edits: Vec<String> = edited.leaves.keys().chain(&removed).cloned().collect();
    let mut layers = vec![edited];
    for layer in &offered.layers {
        let mut layer = layer.clone();
        layer.leaves.retain(|path, _| !removed.contains(path));
        layers.push(layer);
    }
    // Of a channel that is silent now, or passed over, unless its instance has been given up.
    let domain = layers.iter().find_map(Layer::domain);
    if domain.is_none() || domain == own.get("domain").and_then(toml::Value::as_str) {
        let speaks =
            |source: &str| layers.iter().any(|layer| layer.offer.source == source && layer.is_for(domain));
        let mut silent: Vec<&String> = sources.values().filter(|source| !speaks(source)).collect();
        silent.sort_unstable();
        silent.dedup();
        let silent: Vec<Layer> =
            silent.into_iter().map(|source| part(source, &|path| is_from(path, source))).collect();
        layers.extend(silent);
    }
    let mut notes = Vec::new();
    let (settings, merged) = match together(&layers, &mut notes) {
        Ok(made) => made,
        Err(reason) => {
            newest.notes.push(format!(
                "what was edited in `{STORED}` does not fit to what the channels say now, and is gone: {reason}"
            ));
            return newest;
        }
    };
    if newest.found.as_ref().is_some_and(|(_, offer)| leaves_of(offer) == merged.values) {
        return newest;
    }
    let mut search = Search::default();
    search.hear(offered);
    search.notes.extend(notes);
    if !edits.is_empty() {
        search.notes.push(format!(
            "`{}` stays as it was edited in `{STORED}`; remove that file to take what the channels say",
            edits.join("`, `")
        ));
    }
    // Where nothing but new keys came, the rest of the text is the operator's as it is.
    let is_more = own.iter().all(|(path, value)| merged.values.get(path) == Some(value));
    let text = if is_more {
        let mut holes = merged.clone();
        holes.values.retain(|path, _| !own.contains_key(path));
        merge::add(&stored.text, &own, &holes)
    } else {
        merged.render().0
    };
    let mut renewed = Given::default();
    renewed.note(&offered.layers, &merged);
    let is_kept = |path: &str| edits.iter().any(|edit| edit == path);
    renewed.keep(given, is_kept);
    search.given = Some(renewed);
    search.sources.clone_from(&merged.sources);
    search.found = Some((settings, Offer { source: STORED.to_owned(), text }));
    search
}

/// The stored configuration as it is.
fn kept(stored: &Offer, given: Option<&Given>, settled: Option<&str>) -> Search {
    let mut search = Search::default();
    match Settings::parse(&stored.source, &stored.text) {
        Ok(settings) => {
            let refusal = frozen(settings.domain.as_str(), &stored.source, settled);
            if refusal.is_none() {
                search.sources = given.cloned().unwrap_or_default().sources(&leaves_of(stored));
                search.found = Some((settings, stored.clone()));
            }
            search.refused.extend(refusal);
        }
        Err(error) => search.refused.push(error.to_string()),
    }
    search
}

fn leaves_of(stored: &Offer) -> merge::Leaves {
    toml::from_str(&stored.text).map(|table| merge::leaves(&table)).unwrap_or_default()
}

/// The stored configuration of a settled machine that does not know any more what its channels have stated: nothing is added, since what
/// the operator removed would come back. What is offered now counts as stated, once every channel has been heard.
fn baseline(mut search: Search, offered: &Offered) -> Search {
    search.hear(offered);
    if [&offered.waiting, &offered.damaged, &offered.refused].iter().all(|silent| silent.is_empty()) {
        let mut given = Given::of_operator();
        for layer in &offered.layers {
            given.pass(layer.leaves.keys().map(|path| (path.as_str(), layer.offer.source.as_str())));
        }
        search.given = Some(given);
    }
    search
}

/// The stored configuration with what channels add to it: keys that it lacks, and that no channel has stated before.
fn filled(mut search: Search, offered: &Offered, mut given: Given, settled: Option<&str>) -> Search {
    search.hear(offered);
    let Some((settings, stored)) = search.found.clone() else { return search };
    let mut text = stored.text.clone();
    let mut own = leaves_of(&stored);
    for layer in &offered.layers {
        if let Some(reason) = foreign_domain(layer, settings.domain.as_str(), settled) {
            search.notes.push(reason);
            continue;
        }
        let mut holes = Merged::default();
        for (path, value) in &layer.leaves {
            if !own.contains_key(path) && !given.knows(path) {
                holes.fill(path, value, &layer.offer.source);
            }
        }
        if holes.values.is_empty() {
            continue;
        }
        let more = merge::add(&text, &own, &holes);
        let keys = holes.values.keys().map(String::as_str).collect::<Vec<_>>().join("`, `");
        match Settings::parse(STORED, &more) {
            Ok(settings) => {
                search.notes.push(format!("`{keys}` added to `{STORED}` from {}", layer.offer.source));
                given.note(std::slice::from_ref(layer), &holes);
                search.sources.extend(holes.sources.clone());
                own.extend(holes.values);
                search.found = Some((settings, Offer { source: STORED.to_owned(), text: more.clone() }));
                search.given = Some(given.clone());
                text = more;
            }
            Err(error) => search.notes.push(format!(
                "{}: `{keys}` would be added to `{STORED}`, but does not fit there: {}",
                layer.offer.source,
                error.message()
            )),
        }
    }
    search
}

/// Why nothing of a layer is taken, if it is another instance's.
fn foreign_domain(layer: &Layer, domain: &str, settled: Option<&str>) -> Option<String> {
    let said = layer.domain().filter(|said| *said != domain)?;
    let source = &layer.offer.source;
    Some(match frozen(said, source, settled) {
        Some(reason) => format!("{reason}; nothing of it is taken"),
        None => format!(
            "{source}: key `domain`: it says `{}`, but the configuration in force is for `{domain}`: nothing of it is taken",
            said.escape_debug()
        ),
    })
}

/// Why a domain is not this instance's, if it is not.
fn frozen(domain: &str, source: &str, settled: Option<&str>) -> Option<String> {
    let settled = settled.filter(|settled| *settled != domain)?;
    Some(format!(
        "{source}: key `domain`: it says `{}`, but this instance is `{settled}` for ever, because every account carries that name; write \
         `{settled}` again, or start another instance on a blank data disk",
        domain.escape_debug()
    ))
}

/// The domain of the database; `None` until there is one.
pub fn settled_domain(root: &Path) -> Option<String> {
    let domain = fs_err::read_to_string(root.join(&SETTLED[1..])).ok()?;
    Some(domain.trim().to_owned())
}

/// The web site's name that is settled.
pub fn settled_site(root: &Path) -> Option<String> {
    let text = fs_err::read_to_string(root.join(&SETTLED_SITE[1..])).ok()?;
    Some(text.trim().to_owned())
}

/// Settles the web site's name.
pub fn settle_site(root: &Path, site: &str) -> Result<()> {
    durable::write(&root.join(&SETTLED_SITE[1..]), format!("{site}\n").as_bytes(), 0o644, None).map(drop)
}

/// Settles the domain, at the latest when the database gets its name.
pub fn settle_domain(root: &Path, domain: &str) -> Result<()> {
    durable::write(&root.join(&SETTLED[1..]), format!("{domain}\n").as_bytes(), 0o644, None).map(drop)
}

#[cfg(test)]
mod tests;
