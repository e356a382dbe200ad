//! Lines of `.env.production` that Ruby's dotenv 2.2 and Node's dotenv 4.0 read as the same value.
//!
//! Rails and the streaming server read one file with two parsers: Ruby's knows escapes, `$` expansion and comments behind
//! values, Node's knows none of them and trims inside quotes. What both read alike is a plain word, or single quotes around a
//! text without quotes, backslashes and blanks at its ends; anything else is refused.

use thiserror::Error;

/// A value that cannot be written so that both parsers agree.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{key}` cannot be written to `.env.production`: {reason}; Ruby and Node would read it differently, so choose another value"
)]
pub struct Inexpressible {
    /// The variable.
    pub key: String,
    /// What about its value; never the value itself, which may be a password.
    pub reason: &'static str,
}

/// One line, without its end.
pub fn line(key: &str, value: &str) -> Result<String, Inexpressible> {
    if value.bytes().all(is_plain) {
        return Ok(format!("{key}={value}"));
    }
    match obstacle(value) {
        None => Ok(format!("{key}='{value}'")),
        Some(reason) => Err(Inexpressible { key: key.to_owned(), reason }),
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_./:@+=,-".contains(&byte)
}

fn obstacle(value: &str) -> Option<&'static str> {
    // U+FEFF is white space to JavaScript and to nobody else; U+2028 and U+2029 end a line there.
    let blank = |character: char| character.is_whitespace() || character == '\u{feff}';
    if value.contains('\'') {
        Some("its value has a single quote")
    } else if value.contains('\\') {
        Some("its value has a backslash")
    } else if value
        .contains(|character: char| character.is_control() || "\u{2028}\u{2029}".contains(character))
    {
        Some("its value has a line break or a control character")
    } else if value.starts_with(blank) || value.ends_with(blank) {
        Some("its value begins or ends with a blank")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::line;

    /// Ruby's `Dotenv::Parser` of 2.2.1, for one line: its expression and its `parse_value`; `None` is its FormatError.
    /// Variables and commands are not expanded: a value in which they would be counts as unreadable.
    fn ruby(text: &str) -> Option<(String, String)> {
        let expression = Regex::new(
            r#"(?x)\A\s*(?:export\s+)?([\w.]+)(?:\s*=\s*|:\s+?)('(?:\\'|[^'])*'|"(?:\\"|[^"])*"|[^\#\n]+)?\s*(?:\#.*)?\z"#,
        )
        .unwrap();
        let parts = expression.captures(text)?;
        let value = parts.get(2).map_or("", |value| value.as_str());
        let value =
            value.trim_matches(|character: char| character.is_ascii_whitespace() || character == '\0');
        for quote in ['\'', '"'] {
            if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
                let literal = quote == '\'' || !inner.contains(['\\', '$']);
                return literal.then(|| (parts[1].to_owned(), inner.to_owned()));
            }
        }
        (!value.contains(['\\', '$'])).then(|| (parts[1].to_owned(), value.to_owned()))
    }

    /// Node's dotenv 4.0.0, for one line.
    fn node(text: &str) -> Option<(String, String)> {
        let expression = Regex::new(r"^\s*([A-Za-z0-9_.\-]+)\s*=\s*([^\n\r\u{2028}\u{2029}]*)?\s*$").unwrap();
        let parts = expression.captures(text)?;
        let mut value = parts.get(2).map_or("", |value| value.as_str()).to_owned();
        if value.len() > 1 && value.starts_with('"') && value.ends_with('"') {
            value = value.replace("\\n", "\n");
        }
        let value = value.strip_prefix(['\'', '"']).unwrap_or(&value);
        let value = value.strip_suffix(['\'', '"']).unwrap_or(value);
        let value =
            value.trim_matches(|character: char| character.is_whitespace() || character == '\u{feff}');
        Some((parts[1].to_owned(), value.to_owned()))
    }

    fn both(key: &str, value: &str, text: &str) {
        let expected = Some((key.to_owned(), value.to_owned()));
        assert_eq!(ruby(text), expected, "Ruby reads {text:?}");
        assert_eq!(node(text), expected, "Node reads {text:?}");
    }

    #[test]
    fn values_are_written_as_plainly_as_possible() {
        for (value, expected) in [
            ("", "KEY="),
            ("/var/run/postgresql", "KEY=/var/run/postgresql"),
            ("Zm9v-_8=", "KEY=Zm9v-_8="),
            ("two words", "KEY='two words'"),
            ("pa$$w0rd#1", "KEY='pa$$w0rd#1'"),
            ("say \"hi\"", "KEY='say \"hi\"'"),
            ("\"", "KEY='\"'"),
            ("日本語", "KEY='日本語'"),
        ] {
            let text = line("KEY", value).unwrap();
            assert_eq!(text, expected);
            // A lone double quote is the one that Node's parser keeps only because single quotes stand around it.
            both("KEY", value, &text);
        }
    }

    #[test]
    fn what_they_read_differently_is_refused_with_the_key_but_without_the_value() {
        for value in
            ["it's", "a\\nb", "a\nb", "a\tb", " a", "a ", "a\u{a0}", "\u{feff}a", "a\u{2028}b", "'a'"]
        {
            let message = line("SMTP_PASSWORD", value).unwrap_err().to_string();
            assert!(message.starts_with("`SMTP_PASSWORD` cannot be written"), "{message}");
            assert!(value.len() < 3 || !message.contains(value), "{message}");
        }
    }

    proptest! {
        #[test]
        fn both_parsers_read_back_every_value_that_is_accepted(value in "\\PC{0,24}") {
            if let Ok(text) = line("KEY_1", &value) {
                both("KEY_1", &value, &text);
            }
        }

        #[test]
        fn the_characters_of_passwords_are_accepted(value in "[!-&(-\\[\\]-~]{1,40}") {
            both("KEY", &value, &line("KEY", &value).unwrap());
        }
    }
}
