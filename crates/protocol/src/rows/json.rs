//! A JSON text as a tree, for contracts whose bodies can only be read once the model is known.
//!
//! Numbers stay as they were written, so that each is rounded once, to the type it ends in, and no
//! whole number loses digits. Keys that come twice are an error: which of the two counts would be
//! anybody's guess. `NaN`, `Infinity` and `-Infinity` are numbers, as Python's `json` writes them.
//!
//! A value takes [`VALUE_BYTES`] bytes beside what it borrows, so a tree takes some twelve times the
//! text at most (`0,` is the worst).

use std::borrow::Cow;
use std::collections::HashSet;

use jiter::{Jiter, JiterError, LinePosition, Peek};

use crate::ProtocolError;
use crate::error::excerpt;

/// Lists and objects that may be inside of each other.
const DEEPEST: usize = 64;

/// Members of an object from which duplicates are looked for with a set.
const FEW_MEMBERS: usize = 16;

/// Memory of one value.
pub const VALUE_BYTES: usize = size_of::<JsonValue<'static>>();

const _: () = assert!(VALUE_BYTES <= 24);

/// A JSON value. Texts without escapes, and numbers, are slices of the body.
#[derive(Clone, Debug, PartialEq)]
pub enum JsonValue<'j> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number as it was written; `NaN`, `Infinity` and `-Infinity` too.
    Number(&'j str),
    /// A text.
    String(Cow<'j, str>),
    /// A list.
    List(Box<[JsonValue<'j>]>),
    /// An object, its members in the order they came. No key comes twice.
    Object(Box<[(Cow<'j, str>, JsonValue<'j>)]>),
}

impl<'j> JsonValue<'j> {
    /// Returns what kind of value it is, for errors: "a number", "null".
    pub const fn kind(&self) -> &'static str {
        match self {
            JsonValue::Null => "null",
            JsonValue::Bool(_) => "a boolean",
            JsonValue::Number(_) => "a number",
            JsonValue::String(_) => "a string",
            JsonValue::List(_) => "a list",
            JsonValue::Object(_) => "an object",
        }
    }

    /// Returns a member of an object.
    pub fn get(&self, key: &str) -> Option<&JsonValue<'j>> {
        self.as_object()?.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Returns the members of an object.
    pub fn as_object(&self) -> Option<&[(Cow<'j, str>, JsonValue<'j>)]> {
        match self {
            JsonValue::Object(members) => Some(members),
            _ => None,
        }
    }

    /// Returns the items of a list.
    pub fn as_list(&self) -> Option<&[JsonValue<'j>]> {
        match self {
            JsonValue::List(items) => Some(items),
            _ => None,
        }
    }

    /// Returns a text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            JsonValue::String(text) => Some(text),
            _ => None,
        }
    }

    /// Returns a boolean.
    pub const fn as_bool(&self) -> Option<bool> {
        match self {
            JsonValue::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// Returns a number, rounded to the nearest FP64.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            JsonValue::Number(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    /// Returns a whole number from 0, or `None` where it is none or too large.
    pub fn as_usize(&self) -> Option<usize> {
        match self {
            JsonValue::Number(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    /// Returns whether this is `null`.
    pub const fn is_null(&self) -> bool {
        matches!(self, JsonValue::Null)
    }
}

/// Reads a whole body.
///
/// # Errors
///
/// Fails where the body is not UTF-8, is no JSON (line and column are told), is nested more than 64
/// deep, or has an object with a key that comes twice.
pub fn parse_json(body: &[u8]) -> Result<JsonValue<'_>, ProtocolError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| ProtocolError::NotUtf8 { offset: error.valid_up_to() })?;
    // Signature of UTF-8 that some editors put in front.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser { text, jiter: Jiter::new(text.as_bytes()).with_allow_inf_nan() };
    let peek = parser.peek()?;
    let value = parser.value(peek, DEEPEST)?;
    parser.jiter.finish().map_err(|error| malformed(text, &error))?;
    Ok(value)
}

struct Parser<'j> {
    text: &'j str,
    jiter: Jiter<'j>,
}

impl<'j> Parser<'j> {
    fn peek(&mut self) -> Result<Peek, ProtocolError> {
        self.jiter.peek().map_err(|error| malformed(self.text, &error))
    }

    /// Reads the value that `peek` starts. It calls itself `depth` times at most.
    fn value(&mut self, peek: Peek, depth: usize) -> Result<JsonValue<'j>, ProtocolError> {
        let text = self.text;
        match peek {
            Peek::Null => {
                self.jiter.known_null().map_err(|error| malformed(text, &error))?;
                Ok(JsonValue::Null)
            }
            Peek::True | Peek::False => {
                let value = self.jiter.known_bool(peek);
                value.map(JsonValue::Bool).map_err(|error| malformed(text, &error))
            }
            Peek::String => match self.jiter.known_str() {
                Ok(value) => Ok(JsonValue::String(borrowed(text, value))),
                Err(error) => Err(malformed(text, &error)),
            },
            Peek::Array if depth > 0 => self.list(depth),
            Peek::Object if depth > 0 => self.object(depth),
            Peek::Array | Peek::Object => {
                Err(self.problem(format!("nested more than {DEEPEST} deep")))
            }
            _ if peek.is_num() => {
                let start = self.jiter.current_index();
                match self.jiter.known_number_bytes(peek) {
                    Ok(_) => Ok(JsonValue::Number(&text[start..self.jiter.current_index()])),
                    Err(error) => Err(malformed(text, &error)),
                }
            }
            _ => Err(self.problem("expected value".to_owned())),
        }
    }

    fn list(&mut self, depth: usize) -> Result<JsonValue<'j>, ProtocolError> {
        let text = self.text;
        let mut items = Vec::new();
        let mut next = self.jiter.known_array().map_err(|error| malformed(text, &error))?;
        while let Some(peek) = next {
            items.push(self.value(peek, depth - 1)?);
            next = self.jiter.array_step().map_err(|error| malformed(text, &error))?;
        }
        Ok(JsonValue::List(items.into_boxed_slice()))
    }

    fn object(&mut self, depth: usize) -> Result<JsonValue<'j>, ProtocolError> {
        let text = self.text;
        let mut members: Vec<(Cow<'j, str>, JsonValue<'j>)> = Vec::new();
        let mut seen = HashSet::new();
        let first = self.jiter.known_object();
        let mut key = first
            .map(|key| key.map(|key| borrowed(text, key)))
            .map_err(|error| malformed(text, &error))?;
        while let Some(name) = key {
            let twice = if members.len() < FEW_MEMBERS {
                members.iter().any(|(other, _)| *other == name)
            } else {
                if seen.is_empty() {
                    seen.extend(members.iter().map(|(other, _)| other.clone()));
                }
                !seen.insert(name.clone())
            };
            if twice {
                return Err(self.problem(format!("'{}' is given twice", excerpt(&name))));
            }
            let peek = self.peek()?;
            let value = self.value(peek, depth - 1)?;
            members.push((name, value));
            key = match self.jiter.next_key() {
                Ok(key) => key.map(|key| borrowed(text, key)),
                Err(error) => return Err(malformed(text, &error)),
            };
        }
        Ok(JsonValue::Object(members.into_boxed_slice()))
    }

    #[cold]
    fn problem(&self, problem: String) -> ProtocolError {
        let LinePosition { line, column } =
            LinePosition::find(self.text.as_bytes(), self.jiter.current_index());
        ProtocolError::Json { problem, line, column }
    }
}

/// Returns the slice of the body that a text without escapes is; one with escapes is copied.
fn borrowed<'j>(body: &'j str, text: &str) -> Cow<'j, str> {
    let start = (text.as_ptr() as usize).wrapping_sub(body.as_ptr() as usize);
    let end = start.checked_add(text.len());
    match end.and_then(|end| body.get(start..end)) {
        // The parser hands out slices of what it was given, or of a buffer of its own.
        Some(part) if part.as_ptr() == text.as_ptr() => Cow::Borrowed(part),
        _ => Cow::Owned(text.to_owned()),
    }
}

#[cold]
fn malformed(text: &str, error: &JiterError) -> ProtocolError {
    let LinePosition { line, column } = LinePosition::find(text.as_bytes(), error.index);
    ProtocolError::Json { problem: error.error_type.to_string(), line, column }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_what_was_written() {
        let body = r#" {"a": [1, -2.5e3, NaN, 18446744073709551615], "b\n": {"c": null}, "d": "\u00e9", "e": true} "#;
        let value = parse_json(body.as_bytes()).unwrap();
        let numbers: Vec<_> = value.get("a").unwrap().as_list().unwrap().to_vec();
        let written = ["1", "-2.5e3", "NaN", "18446744073709551615"];
        assert_eq!(numbers, written.map(JsonValue::Number));
        assert!(value.get("b\n").unwrap().get("c").unwrap().is_null());
        assert_eq!(value.get("d").unwrap().as_str(), Some("\u{e9}"));
        assert_eq!(value.get("e").unwrap().as_bool(), Some(true));
        assert_eq!(value.get("f"), None);
    }

    #[test]
    fn texts_without_escapes_are_not_copied() {
        let value = parse_json(br#"{"key":"text","other":"a\tb"}"#).unwrap();
        let [(key, text), (_, escaped)] = value.as_object().unwrap() else { panic!("two members") };
        assert!(matches!(key, Cow::Borrowed("key")));
        assert!(matches!(text, JsonValue::String(Cow::Borrowed("text"))));
        assert_eq!(escaped.as_str(), Some("a\tb"));
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        let deep = "[".repeat(1_000_000);
        let many: String = (0..40).map(|n| format!("\"k{n}\":0,")).collect();
        let many = format!("{{{many}\"k7\":1}}");
        for (body, expected) in [
            ("", "malformed JSON: EOF while parsing a value at line 1 column 0"),
            ("[1,]", "malformed JSON: trailing comma at line 1 column 4"),
            ("[1] 2", "malformed JSON: trailing characters at line 1 column 5"),
            ("{\n\"a\":?}", "malformed JSON: expected value at line 2 column 5"),
            ("{\"a\":1,\"a\":2}", "malformed JSON: 'a' is given twice at line 1 column 12"),
            (&*deep, "malformed JSON: nested more than 64 deep at line 1 column 65"),
            (&*many, "malformed JSON: 'k7' is given twice"),
        ] {
            let error = parse_json(body.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let error = parse_json(b"{\"a\":\"\xc3\x28\"}").unwrap_err();
        assert_eq!(error.to_string(), "request is not UTF-8 at byte 6");
    }
}
