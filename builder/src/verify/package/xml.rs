//! A small XML tree out of a stranger's text: bounded in size, depth and number, without DTD, entities of its own or CDATA
//! surprises. Prefixes are kept apart from names; which namespace a prefix stands for is asked of the root alone.

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use super::shown;

/// Largest document, in bytes: real descriptors with long licences reach some 500 KB.
pub(super) const LIMIT: u64 = 4 << 20;
/// Deepest nesting.
const DEPTH: usize = 64;
/// Elements of a document.
const ELEMENTS: usize = 50_000;
/// Attributes of an element.
const ATTRIBUTES: usize = 128;

/// An element with all that it holds.
#[derive(Debug, Default)]
pub(super) struct Element {
    /// Its name with its prefix.
    pub(super) qualified: String,
    /// Its name without.
    pub(super) name: String,
    attributes: Vec<(String, String)>,
    pub(super) children: Vec<Element>,
    text: String,
}

impl Element {
    /// The value of an attribute by its name without prefix.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        let local = |key: &str| key.rsplit_once(':').map_or(key, |(_, local)| local) == name;
        self.attributes.iter().find(|(key, _)| local(key)).map(|(_, value)| value.as_str())
    }

    /// Its children of a name.
    pub(super) fn all<'e>(&'e self, name: &'e str) -> impl Iterator<Item = &'e Element> + 'e {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// Its first child of a name.
    pub(super) fn first(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text of its first child of a name; `None` where that is absent or empty.
    pub(super) fn text_of(&self, name: &str) -> Option<&str> {
        self.first(name).map(|child| child.text.trim()).filter(|text| !text.is_empty())
    }

    /// The namespace of its own name, as far as it declares that itself.
    pub(super) fn namespace(&self) -> Option<&str> {
        let key = match self.qualified.split_once(':') {
            Some((prefix, _)) => format!("xmlns:{prefix}"),
            None => "xmlns".to_owned(),
        };
        self.attributes.iter().find(|(found, _)| *found == key).map(|(_, value)| value.as_str())
    }

    /// Whether it may be ignored by who does not know it.
    pub(super) fn is_optional(&self) -> bool {
        self.attribute("required").is_some_and(|value| matches!(value.trim(), "false" | "0"))
    }
}

/// Reads a document. The error says what is wrong with it.
pub(super) fn parse(bytes: &[u8]) -> Result<Element, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not in UTF-8".to_owned())?;
    let mut reader = Reader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    reader.config_mut().expand_empty_elements = true;
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    let mut count = 0;
    loop {
        let event = reader.read_event().map_err(|error| located(&error.to_string(), &reader))?;
        match event {
            Event::Start(start) => {
                count += 1;
                if open.len() >= DEPTH || count > ELEMENTS {
                    return Err(located("it has too many elements, or they are nested too deep", &reader));
                }
                if open.is_empty() && root.is_some() {
                    return Err(located("it has a second root element", &reader));
                }
                open.push(element(&start).map_err(|reason| located(&reason, &reader))?);
            }
            Event::End(_) => {
                let done = open.pop().unwrap_or_default();
                match open.last_mut() {
                    Some(parent) => parent.children.push(done),
                    None => root = Some(done),
                }
            }
            Event::Text(text) => add(&mut open, &text.xml10_content()),
            Event::CData(text) => add(&mut open, &text.xml10_content()),
            Event::GeneralRef(reference) => {
                let letter =
                    reference.resolve_char_ref().map_err(|error| located(&error.to_string(), &reader))?;
                if let Some(letter) = letter {
                    add(&mut open, letter.encode_utf8(&mut [0; 4]));
                } else {
                    let name = reference.xml10_content();
                    let value = quick_xml::escape::resolve_predefined_entity(&name).ok_or_else(|| {
                        located(&format!("it has an entity `&{};` of its own", shown(&name)), &reader)
                    })?;
                    add(&mut open, value);
                }
            }
            Event::DocType(_) => {
                return Err(located("it has a DOCTYPE, which no reader of OVF follows", &reader));
            }
            Event::Eof => break,
            _ => {}
        }
    }
    match open.first() {
        Some(cut) => Err(format!("it ends within `{}`: it is cut short", shown(&cut.qualified))),
        None => root.ok_or_else(|| "it is empty".to_owned()),
    }
}

fn located(reason: &str, reader: &Reader<&[u8]>) -> String {
    format!("{} (byte {} of its XML)", shown(reason), reader.buffer_position())
}

fn add(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

fn element(start: &BytesStart<'_>) -> Result<Element, String> {
    let mut element = Element {
        qualified: start.name().as_ref().to_owned(),
        name: start.local_name().as_ref().to_owned(),
        ..Element::default()
    };
    // Looking for duplicates costs the square of their number: the limit comes first.
    for attribute in start.attributes().with_checks(false) {
        let attribute = attribute.map_err(|error| format!("an attribute is malformed: {error}"))?;
        let key = attribute.key.as_ref().to_owned();
        if element.attributes.len() >= ATTRIBUTES || element.attributes.iter().any(|(other, _)| *other == key)
        {
            return Err(format!("`{}` has an attribute twice, or too many", shown(&element.qualified)));
        }
        let value = attribute
            .normalized_value(XmlVersion::Implicit1_0)
            .map_err(|error| format!("the value of an attribute is malformed: {error}"))?;
        element.attributes.push((key, value.into_owned()));
    }
    Ok(element)
}
