//! XML of repositories, element by element, in bounded memory. Namespaces are not looked at: the metadata's element names
//! are unambiguous without their prefixes.

use std::borrow::Cow;
use std::io::{BufRead, BufReader, Read};

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use super::text::shown;

/// Longest tag or piece of text, in bytes: descriptions of packages reach some 30 KiB.
const LONGEST: usize = 1 << 20;
/// Deepest path, in bytes of its text.
const DEEPEST: usize = 256;

/// Sees the elements of a document. A path is the names from the root, such as `metadata/package/name`.
pub(super) trait Visitor {
    /// An element begins. Answers whether its text is wanted.
    fn open(&mut self, path: &str, attributes: &Attributes<'_>) -> Result<bool, String>;
    /// An element ends; `text` is empty unless it was wanted.
    fn close(&mut self, path: &str, text: &str) -> Result<(), String>;
}

/// The attributes of one element.
pub(super) struct Attributes<'a>(&'a BytesStart<'a>);

impl<'a> Attributes<'a> {
    /// Calls `each` with the name, without its prefix, and the value of every attribute.
    pub(super) fn each(
        &self,
        mut each: impl FnMut(&str, Cow<'a, str>) -> Result<(), String>,
    ) -> Result<(), String> {
        // Looking for duplicates costs the square of their number, which a stranger chooses.
        for attribute in self.0.attributes().with_checks(false) {
            let attribute = attribute.map_err(|error| format!("an attribute is malformed: {error}"))?;
            let value = attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(|error| format!("the value of an attribute is malformed: {error}"))?;
            each(attribute.key.local_name().as_ref(), value)?;
        }
        Ok(())
    }

    /// The value of one attribute.
    pub(super) fn get(&self, name: &str) -> Result<Option<String>, String> {
        let mut found = None;
        self.each(|key, value| {
            if key == name {
                found = Some(value.into_owned());
            }
            Ok(())
        })?;
        Ok(found)
    }
}

/// Walks a document whose root is `root`, of at most `limit` bytes. A message ends with the byte at which the reader stood.
pub(super) fn walk(
    reader: impl Read,
    root: &str,
    limit: u64,
    visitor: &mut impl Visitor,
) -> Result<(), String> {
    let meter =
        Meter { inner: BufReader::with_capacity(1 << 16, reader), total: 0, limit, piece: 0, refused: None };
    let mut xml = Reader::from_reader(meter);
    xml.config_mut().expand_empty_elements = true;
    let mut document = Document {
        root,
        path: String::new(),
        ends: Vec::new(),
        text: String::new(),
        wanted: false,
        rooted: false,
    };
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        xml.get_mut().piece = 0;
        let outcome = match xml.read_event_into(&mut buffer) {
            Ok(Event::Eof) => return document.finish(),
            Ok(event) => document.see(event, visitor),
            Err(error) => Err(match xml.get_mut().refused.take() {
                Some(reason) => reason,
                None => error.to_string(),
            }),
        };
        outcome.map_err(|reason| format!("{reason} (byte {} of its XML)", xml.buffer_position()))?;
    }
}

/// Where the walk stands.
struct Document<'r> {
    root: &'r str,
    path: String,
    /// Lengths of `path` before each open element.
    ends: Vec<usize>,
    text: String,
    wanted: bool,
    /// Whether there was an element at all.
    rooted: bool,
}

impl Document<'_> {
    fn see(&mut self, event: Event<'_>, visitor: &mut impl Visitor) -> Result<(), String> {
        match event {
            Event::Start(start) => {
                self.ends.push(self.path.len());
                if !self.path.is_empty() {
                    self.path.push('/');
                }
                self.path.push_str(start.local_name().as_ref());
                if self.ends.len() == 1 && self.path != self.root {
                    return Err(format!(
                        "it is a `{}`, not the `{}` of a repository",
                        shown(&self.path),
                        self.root
                    ));
                }
                if self.path.len() > DEEPEST {
                    return Err("its elements are nested too deep".to_owned());
                }
                self.rooted = true;
                self.text.clear();
                self.wanted = visitor.open(&self.path, &Attributes(&start))?;
            }
            Event::End(_) => {
                visitor.close(&self.path, &self.text)?;
                self.path.truncate(self.ends.pop().unwrap_or(0));
                self.text.clear();
                self.wanted = false;
            }
            Event::Text(text) if self.wanted => self.append(&text.xml10_content())?,
            Event::GeneralRef(reference) if self.wanted => {
                if let Some(letter) = reference.resolve_char_ref().map_err(|error| error.to_string())? {
                    self.append(letter.encode_utf8(&mut [0; 4]))?;
                } else {
                    let name = reference.xml10_content();
                    let value = quick_xml::escape::resolve_predefined_entity(&name)
                        .ok_or_else(|| format!("it has an entity `&{};` of its own", shown(&name)))?;
                    self.append(value)?;
                }
            }
            Event::CData(_) | Event::DocType(_) => {
                return Err(
                    "it has a CDATA section or a DOCTYPE, which no repository's metadata has".to_owned()
                );
            }
            _ => {}
        }
        Ok(())
    }

    fn append(&mut self, text: &str) -> Result<(), String> {
        if self.text.len() + text.len() > LONGEST {
            return Err(format!("a text in `{}` is longer than {LONGEST} bytes", shown(&self.path)));
        }
        self.text.push_str(text);
        Ok(())
    }

    fn finish(&self) -> Result<(), String> {
        if !self.ends.is_empty() {
            return Err(format!("it ends within `{}`: it is cut short", shown(&self.path)));
        }
        if self.rooted { Ok(()) } else { Err("it is empty".to_owned()) }
    }
}

/// Counts what is read: quick-xml itself would buffer a piece of any length.
struct Meter<R> {
    inner: BufReader<R>,
    total: u64,
    limit: u64,
    piece: usize,
    refused: Option<String>,
}

impl<R: Read> Read for Meter<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> BufRead for Meter<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        let refused = if self.piece > LONGEST {
            format!("a piece of it is longer than {LONGEST} bytes")
        } else if self.total > self.limit {
            format!("it is larger than {} MiB", self.limit >> 20)
        } else {
            return self.inner.fill_buf();
        };
        self.refused = Some(refused);
        Err(std::io::Error::other("refused"))
    }

    fn consume(&mut self, count: usize) {
        self.piece += count;
        self.total += count as u64;
        self.inner.consume(count);
    }
}
