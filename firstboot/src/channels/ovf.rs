//! The OVF environment: the document in which a hypervisor hands over the properties that somebody filled in when he deployed the
//! OVA, and their way into a configuration.
//!
//! It is read without believing it: at most 1 MiB, no declarations of its own (hence no entities but the five of XML), bounded
//! depth and number of elements, no property twice. What it says of the platform and of other machines is passed over. No message
//! holds a value, since any may be a password.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow, bail};
use quick_xml::XmlVersion;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::name::{Namespace, NamespaceResolver, ResolveResult};
use quick_xml::reader::NsReader;

use super::{LIMIT, Offer, Wrong};
use crate::settings::Settings;
use crate::settings::schema::{self, FIELDS, Field};

const NAMESPACE: &str = "http://schemas.dmtf.org/ovf/environment/1";
/// vSphere's documents have four levels.
const DEEPEST: usize = 32;
/// A machine among a hundred others, all with our properties, has less than half of them.
const MOST_ELEMENTS: usize = 10_000;
/// Ours have two.
const MOST_ATTRIBUTES: usize = 32;

/// The configuration that the document's properties are; `None` when they are none of ours, or say nothing.
pub(super) fn offer(source: &str, document: &str) -> Result<Option<Offer>> {
    let properties = read(document).map_err(|reason| anyhow!("{source}: {reason}"))?;
    let text = ours(&properties).and_then(|properties| schema::to_toml(&properties));
    let text = text.map_err(|reason| anyhow!(Wrong(format!("{source}: {reason}"))))?;
    let Some(text) = text else { return Ok(None) };
    // The operator has never seen these lines: he is told of the property.
    if let Err(error) = Settings::parse(source, &text)
        && !error.is_gap()
        && let Some(key) = error.line().and_then(|line| schema::key_at(&text, line))
    {
        bail!(Wrong(format!("{source}: property `{key}`: {}", error.message())));
    }
    Ok(Some(Offer { source: source.to_owned(), text }))
}

/// The properties by our names, without class and instance of the product section that they were declared in.
fn ours(properties: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    let known: BTreeSet<String> = FIELDS.iter().map(Field::key).collect();
    let mut found = BTreeMap::new();
    for (key, value) in properties {
        if known.contains(key) {
            found.insert(key.clone(), value.clone());
        }
    }
    let plain: BTreeSet<String> = found.keys().cloned().collect();
    for (full, value) in properties {
        // `class.key`, `key.instance` or `class.key.instance`; a class may have dots, too.
        let mut parts = full.rsplitn(3, '.');
        let (last, before) = (parts.next(), parts.next());
        let Some(key) = [last, before].into_iter().flatten().find(|part| known.contains(*part)) else {
            continue;
        };
        if key == full || plain.contains(key) {
            continue;
        }
        if found.insert(key.to_owned(), value.clone()).is_some_and(|other| other != *value) {
            return Err(format!("property `{key}` is there for two products, with different values"));
        }
    }
    Ok(found)
}

/// All properties of this machine by their full names. An error is what is wrong, without any value.
fn read(document: &str) -> Result<BTreeMap<String, String>, String> {
    if document.len() as u64 > LIMIT {
        return Err("it is larger than 1 MiB: this cannot be an OVF environment".to_owned());
    }
    let document = document.trim_start_matches('\u{feff}');
    let document = document.trim_end_matches(|end: char| end == '\0' || end.is_whitespace());
    let mut xml = NsReader::from_str(document);
    xml.config_mut().expand_empty_elements = true;
    let mut reading = Reading::default();
    loop {
        let at = xml.buffer_position();
        // The reader's own messages may show what is near the fault.
        let (namespace, event) = xml
            .read_resolved_event()
            .map_err(|_| format!("it is no well-formed XML (near byte {at}): deploy the machine again"))?;
        let is_ovf = is_ovf(&namespace);
        if matches!(event, Event::Eof) {
            return reading.finish();
        }
        reading.see(&event, is_ovf, xml.resolver()).map_err(|reason| format!("{reason} (near byte {at})"))?;
    }
}

fn is_ovf(namespace: &ResolveResult<'_>) -> bool {
    matches!(namespace, ResolveResult::Bound(Namespace(name)) if *name == NAMESPACE)
}

/// Where the reader stands, and what it has found.
#[derive(Default)]
struct Reading {
    depth: usize,
    elements: usize,
    /// Within a `PropertySection` of this machine; those of others lie within an `Entity`.
    in_section: bool,
    properties: BTreeMap<String, String>,
}

impl Reading {
    fn see(&mut self, event: &Event<'_>, is_ovf: bool, resolver: &NamespaceResolver) -> Result<(), String> {
        match event {
            Event::Start(start) => self.open(start, is_ovf, resolver),
            Event::End(_) => {
                self.depth = self.depth.saturating_sub(1);
                self.in_section &= self.depth >= 2;
                Ok(())
            }
            Event::DocType(_) => Err("it has a DOCTYPE, which no OVF environment has".to_owned()),
            Event::GeneralRef(reference) if !is_known(reference) => {
                Err("it has an entity that XML does not know".to_owned())
            }
            Event::Text(text) if self.depth == 0 && !text.xml10_content().trim().is_empty() => {
                Err("there is text outside of it".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn open(
        &mut self,
        start: &BytesStart<'_>,
        is_ovf: bool,
        resolver: &NamespaceResolver,
    ) -> Result<(), String> {
        self.depth += 1;
        self.elements += 1;
        if self.depth > DEEPEST || self.elements > MOST_ELEMENTS {
            return Err("it has too many elements, or they are nested too deep".to_owned());
        }
        let name = start.local_name();
        match (self.depth, name.as_ref()) {
            (1, "Environment") if is_ovf && self.elements == 1 => Ok(()),
            (1, _) if self.elements > 1 => Err("there is an element outside of it".to_owned()),
            (1, _) => Err(format!("it is no OVF environment: its root is no `Environment` of {NAMESPACE}")),
            (2, name) => {
                self.in_section = is_ovf && name == "PropertySection";
                Ok(())
            }
            (3, "Property") if is_ovf && self.in_section => self.property(start, resolver),
            _ => Ok(()),
        }
    }

    fn property(&mut self, start: &BytesStart<'_>, resolver: &NamespaceResolver) -> Result<(), String> {
        let mut key = None;
        let mut value = None;
        // The reader's search for duplicates costs the square of their number, which a stranger chooses.
        for (index, attribute) in start.attributes().with_checks(false).enumerate() {
            if index == MOST_ATTRIBUTES {
                return Err("a property has too many attributes".to_owned());
            }
            let attribute = attribute.map_err(|_| "an attribute of a property is malformed".to_owned())?;
            let (namespace, name) = resolver.resolve_attribute(attribute.key);
            let place = match name.as_ref() {
                "key" if is_ovf(&namespace) => &mut key,
                "value" if is_ovf(&namespace) => &mut value,
                _ => continue,
            };
            let text = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|_| {
                "the value of an attribute is malformed: it may hold an unknown entity".to_owned()
            })?;
            if place.replace(text.into_owned()).is_some() {
                return Err("a property has its key or its value twice".to_owned());
            }
        }
        let key = key.ok_or("a property has no key")?;
        if self.properties.contains_key(&key) {
            let field = FIELDS.iter().map(Field::key).find(|name| *name == key);
            let name = field.map_or_else(String::new, |name| format!(" `{name}`"));
            return Err(format!("a property{name} is there twice: deploy the machine again"));
        }
        self.properties.insert(key, value.unwrap_or_default());
        Ok(())
    }

    fn finish(self) -> Result<BTreeMap<String, String>, String> {
        if self.elements == 0 {
            return Err("there is no element in it".to_owned());
        }
        if self.depth > 0 {
            return Err("it is cut short".to_owned());
        }
        Ok(self.properties)
    }
}

/// Whether a reference in a text means something without any declaration.
fn is_known(reference: &BytesRef<'_>) -> bool {
    match reference.resolve_char_ref() {
        Ok(Some(_)) => true,
        Ok(None) => quick_xml::escape::resolve_predefined_entity(&reference.xml10_content()).is_some(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests;
