//! XML documents as text: elements, attributes, escaping, two blanks a level. What is written is well-formed whatever the values
//! are: characters that XML 1.0 has no place for are left out.

/// A document in the making.
pub(super) struct Xml {
    text: String,
    depth: usize,
}

impl Xml {
    /// The declaration alone.
    pub(super) fn new() -> Self {
        Xml { text: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned(), depth: 0 }
    }

    /// An element with others inside.
    pub(super) fn within(
        &mut self,
        name: &str,
        attributes: &[(&str, &str)],
        content: impl FnOnce(&mut Self),
    ) {
        self.begin(name, attributes);
        self.text.push_str(">\n");
        self.depth += 1;
        content(self);
        self.depth -= 1;
        self.indent();
        self.text.push_str(&format!("</{name}>\n"));
    }

    /// An element with text inside.
    pub(super) fn leaf(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) {
        self.begin(name, attributes);
        self.text.push_str(&format!(">{}</{name}>\n", escape(text, false)));
    }

    /// An element with nothing inside.
    pub(super) fn empty(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.begin(name, attributes);
        self.text.push_str("/>\n");
    }

    /// A comment; two hyphens, which would end it, become one.
    pub(super) fn comment(&mut self, text: &str) {
        self.indent();
        let text = escape(text, false).replace("--", "-");
        self.text.push_str(&format!("<!-- {text} -->\n"));
    }

    /// The whole document.
    pub(super) fn finish(self) -> String {
        self.text
    }

    fn begin(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.indent();
        self.text.push_str(&format!("<{name}"));
        for (key, value) in attributes {
            self.text.push_str(&format!(" {key}=\"{}\"", escape(value, true)));
        }
    }

    fn indent(&mut self) {
        self.text.extend(std::iter::repeat_n("  ", self.depth));
    }
}

fn escape(text: &str, attribute: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' if attribute => escaped.push_str("&quot;"),
            // A reader would turn these into blanks.
            '\t' | '\n' | '\r' if attribute => escaped.push_str(&format!("&#{};", u32::from(character))),
            '\t' | '\n' => escaped.push(character),
            '\r' | '\u{fffe}' | '\u{ffff}' => {}
            character if character.is_ascii_control() => {}
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_values_are_it_is_well_formed() {
        let mut xml = Xml::new();
        xml.within("a", &[("b", "\"1\n<&'\u{1}")], |xml| {
            xml.leaf("c", &[], "]]> \"two\"\r\nlines\u{ffff}");
            xml.comment("not -- the end");
            xml.empty("d", &[]);
        });
        let text = xml.finish();
        insta::assert_snapshot!(text, @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <a b="&quot;1&#10;&lt;&amp;'">
          <c>]]&gt; "two"
        lines</c>
          <!-- not - the end -->
          <d/>
        </a>
        "#);
        let mut reader = quick_xml::Reader::from_str(&text);
        while reader.read_event().unwrap() != quick_xml::events::Event::Eof {}
    }
}
