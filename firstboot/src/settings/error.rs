//! Why settings were refused: one sentence with the place, the cause and the remedy.

/// One refusal. Its text begins with the name of the source and the place in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{source_name}`{place}: {message}")]
pub struct SettingsError {
    source_name: String,
    place: String,
    line: Option<usize>,
    key: Option<&'static str>,
    message: String,
}

impl SettingsError {
    /// A refusal by the TOML reader or by the type of one value: the place is a line and a column.
    pub(super) fn from_toml(source_name: &str, text: &str, error: &toml::de::Error) -> Self {
        let message = without_value(&error.message().trim_end().replace('\n', ", "));
        // An empty span at the start is what the reader gives for a key that is not there at all.
        let position = match error.span() {
            Some(span) if !message.starts_with("missing field") || span.start > 0 => {
                Some(position(text, span.start))
            }
            _ => None,
        };
        let place = position.map(|(line, column)| format!(" line {line}, column {column}"));
        let remedy = remedy(&message);
        SettingsError {
            source_name: source_name.to_owned(),
            place: place.unwrap_or_default(),
            line: position.map(|(line, _)| line),
            key: None,
            message: format!("{message}{remedy}"),
        }
    }

    /// A contradiction between two settings: the place is a key.
    pub(super) fn at_key(source_name: &str, key: &'static str, message: String) -> Self {
        SettingsError {
            source_name: source_name.to_owned(),
            place: format!(" key `{key}`"),
            line: None,
            key: Some(key),
            message,
        }
    }

    /// The line that is refused, from 1; `None` when something is missing or two settings contradict each other.
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// The key of two settings that contradict each other, such as `mail.login`.
    pub fn key(&self) -> Option<&'static str> {
        self.key
    }

    /// Whether further settings could mend it: something is missing, or contradicts another setting. A text without its version is
    /// of no version.
    pub fn is_gap(&self) -> bool {
        self.key.is_some()
            || self.message.starts_with("missing field")
                && !self.message.starts_with("missing field `schema`")
    }

    /// Cause and remedy, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// The reader's message for a value of the wrong type, without the value: it may be a password in the wrong place, and the
/// message is shown on the console. The kind of the value stays.
fn without_value(message: &str) -> String {
    const START: &str = "invalid type: ";
    match message.strip_prefix(START).and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((found, expected)) => {
            let kind = found.split([' ', '`', '"']).next().unwrap_or_default();
            format!("{START}{kind}, expected {expected}")
        }
        None => message.to_owned(),
    }
}

/// Line and column, both from 1, of a byte of the text.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// What to do about a message that the TOML reader wrote; our own messages carry their remedy.
fn remedy(message: &str) -> &'static str {
    match message {
        "missing field `schema`" => "; add `schema = 1` as the first line",
        "missing field `domain`" => "; add the instance's name, such as `domain = \"social.example.net\"`",
        _ if message.starts_with("missing field") => "; add it, or leave out the whole table",
        _ if message.starts_with("unknown field") => "; correct the spelling, or remove the line",
        "duplicate key" => "; remove one of the two",
        _ if message.ends_with("address syntax") => {
            "; write an address such as `2001:db8::53` or `192.0.2.53`"
        }
        _ if message.starts_with("string values must be quoted") => "; put the value between double quotes",
        _ if message.starts_with("unknown variant") => "; use one of these",
        _ if message.starts_with("invalid type") => "; see `appliance config example`",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::position;

    #[test]
    fn positions_count_from_one_and_in_characters() {
        for (text, byte, expected) in
            [("", 0, (1, 1)), ("a\nb", 2, (2, 1)), ("é = 1", 3, (1, 3)), ("short", 99, (1, 6))]
        {
            assert_eq!(position(text, byte), expected, "{text:?} at {byte}");
        }
    }
}
