//! A pull reader over one JSON text, with errors that name the field and the place.
//!
//! Values are asked for one at a time and go straight where they belong; nothing is kept of what
//! is skipped. Nesting is bounded: skipping stops at the parser's limit of 200 levels, and everything
//! else reads only as deep as the protocol is.

use std::ops::Range;

use jiter::{Jiter, JiterError, LinePosition, Peek};

use crate::error::excerpt;
use crate::{FieldProblem, ProtocolError};

/// A field of a request, as errors name it.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    Request(&'static str),
    Input(usize, &'static str),
    Output(usize, &'static str),
    Parameter(&'a str),
}

impl Place<'_> {
    #[cold]
    pub(super) fn error(self, problem: FieldProblem) -> ProtocolError {
        let field = match self {
            Place::Request(field) => field.into(),
            Place::Input(index, "") => format!("inputs[{index}]").into(),
            Place::Input(index, field) => format!("inputs[{index}].{field}").into(),
            Place::Output(index, "") => format!("outputs[{index}]").into(),
            Place::Output(index, field) => format!("outputs[{index}].{field}").into(),
            Place::Parameter(name) => format!("parameters.{}", excerpt(name)).into(),
        };
        ProtocolError::Field { field, problem }
    }
}

/// Reads one JSON text, or one value inside of it.
pub(super) struct Reader<'j> {
    /// The whole text, for line and column.
    text: &'j str,
    /// Where in `text` the parser's bytes start.
    base: usize,
    jiter: Jiter<'j>,
}

impl<'j> Reader<'j> {
    pub(super) fn new(text: &'j str) -> Self {
        Reader { text, base: 0, jiter: parser(text) }
    }

    /// Reads a value that [`Reader::skip_part`] passed over.
    pub(super) fn of_part(text: &'j str, part: Range<usize>) -> Self {
        Reader { text, base: part.start, jiter: parser(&text[part]) }
    }

    /// Returns where the next unread byte is.
    pub(super) fn position(&self) -> usize {
        self.base + self.jiter.current_index()
    }

    /// Returns an upper bound of the values that can follow: each takes at least two bytes.
    pub(super) fn values_left(&self) -> usize {
        (self.text.len() - self.position()) / 2 + 1
    }

    pub(super) fn peek(&mut self) -> Result<Peek, ProtocolError> {
        self.jiter.peek().map_err(|error| self.malformed(&error))
    }

    /// Opens an object and reads its first key, made into a value by `key`.
    pub(super) fn first_key<K>(
        &mut self,
        place: Place<'_>,
        key: impl Fn(&str) -> K,
    ) -> Result<Option<K>, ProtocolError> {
        let peek = self.peek()?;
        if peek != Peek::Object {
            return Err(self.wrong_type(place, "an object", peek));
        }
        match self.jiter.known_object() {
            Ok(text) => Ok(text.map(key)),
            Err(error) => Err(self.malformed(&error)),
        }
    }

    /// Reads the next key of the innermost object.
    pub(super) fn next_key<K>(
        &mut self,
        key: impl Fn(&str) -> K,
    ) -> Result<Option<K>, ProtocolError> {
        match self.jiter.next_key() {
            Ok(text) => Ok(text.map(key)),
            Err(error) => Err(self.malformed(&error)),
        }
    }

    /// Opens a list and peeks at its first value.
    pub(super) fn first_item(&mut self, place: Place<'_>) -> Result<Option<Peek>, ProtocolError> {
        let peek = self.peek()?;
        if peek != Peek::Array {
            return Err(self.wrong_type(place, "a list", peek));
        }
        self.known_list()
    }

    /// Opens the list that is known to follow.
    pub(super) fn known_list(&mut self) -> Result<Option<Peek>, ProtocolError> {
        self.jiter.known_array().map_err(|error| self.malformed(&error))
    }

    /// Peeks at the next value of the innermost list.
    pub(super) fn next_item(&mut self) -> Result<Option<Peek>, ProtocolError> {
        self.jiter.array_step().map_err(|error| self.malformed(&error))
    }

    /// Reads a `null` where there is one.
    pub(super) fn null(&mut self) -> Result<bool, ProtocolError> {
        if self.peek()? != Peek::Null {
            return Ok(false);
        }
        self.jiter.known_null().map_err(|error| self.malformed(&error))?;
        Ok(true)
    }

    pub(super) fn string(&mut self, place: Place<'_>) -> Result<&str, ProtocolError> {
        let peek = self.peek()?;
        if peek != Peek::String {
            return Err(self.wrong_type(place, "a string", peek));
        }
        // Split so that the error path may borrow again.
        let (text, base) = (self.text, self.base);
        self.jiter.known_str().map_err(|error| malformed(text, base, &error))
    }

    /// Reads the string that is known to follow.
    pub(super) fn known_string(&mut self) -> Result<&str, ProtocolError> {
        let (text, base) = (self.text, self.base);
        self.jiter.known_str().map_err(|error| malformed(text, base, &error))
    }

    pub(super) fn boolean(&mut self, place: Place<'_>) -> Result<bool, ProtocolError> {
        let peek = self.peek()?;
        match peek {
            Peek::True | Peek::False => self.known_boolean(peek),
            _ => Err(self.wrong_type(place, "true or false", peek)),
        }
    }

    /// Reads the boolean that is known to follow.
    pub(super) fn known_boolean(&mut self, peek: Peek) -> Result<bool, ProtocolError> {
        self.jiter.known_bool(peek).map_err(|error| self.malformed(&error))
    }

    pub(super) fn integer(&mut self, place: Place<'_>) -> Result<i64, ProtocolError> {
        const EXPECTED: &str = "a whole number";
        let peek = self.peek()?;
        if !peek.is_num() {
            return Err(self.wrong_type(place, EXPECTED, peek));
        }
        let digits = self.known_number(peek)?;
        digits.parse().map_err(|_| {
            let received = excerpt(digits);
            place.error(FieldProblem::OutOfRange { expected: EXPECTED.into(), received })
        })
    }

    /// Reads the number that is known to follow and returns how it was written.
    pub(super) fn known_number(&mut self, peek: Peek) -> Result<&'j str, ProtocolError> {
        let start = self.position();
        match self.jiter.known_number_bytes(peek) {
            Ok(_) => Ok(&self.text[start..self.position()]),
            Err(error) => Err(self.malformed(&error)),
        }
    }

    /// Reads the number that is known to follow, rounded to the nearest FP64.
    pub(super) fn known_float(&mut self, peek: Peek) -> Result<f64, ProtocolError> {
        self.jiter.known_float(peek).map_err(|error| self.malformed(&error))
    }

    /// Returns what was read since `start`, a [`Reader::position`].
    pub(super) fn since(&self, start: usize) -> &'j str {
        &self.text[start..self.position()]
    }

    /// Passes over one value of any kind.
    pub(super) fn skip(&mut self) -> Result<(), ProtocolError> {
        self.jiter.next_skip().map_err(|error| self.malformed(&error))
    }

    /// Passes over one value of any kind and returns where it is.
    pub(super) fn skip_part(&mut self) -> Result<Range<usize>, ProtocolError> {
        self.peek()?;
        let start = self.position();
        self.skip()?;
        Ok(start..self.position())
    }

    /// Checks that nothing follows.
    pub(super) fn finish(&mut self) -> Result<(), ProtocolError> {
        self.jiter.finish().map_err(|error| self.malformed(&error))
    }

    #[cold]
    pub(super) fn wrong_type(
        &self,
        place: Place<'_>,
        expected: &'static str,
        peek: Peek,
    ) -> ProtocolError {
        let LinePosition { line, column } =
            LinePosition::find(self.text.as_bytes(), self.position());
        match kind(peek) {
            Some(received) => {
                place.error(FieldProblem::WrongType { expected, received, line, column })
            }
            None => ProtocolError::Json { problem: "expected value".to_owned(), line, column },
        }
    }

    /// Says that no value can start with what follows.
    #[cold]
    pub(super) fn not_a_value(&self) -> ProtocolError {
        let LinePosition { line, column } =
            LinePosition::find(self.text.as_bytes(), self.position());
        ProtocolError::Json { problem: "expected value".to_owned(), line, column }
    }

    #[cold]
    fn malformed(&self, error: &JiterError) -> ProtocolError {
        malformed(self.text, self.base, error)
    }
}

fn parser(text: &str) -> Jiter<'_> {
    Jiter::new(text.as_bytes()).with_allow_inf_nan()
}

#[cold]
fn malformed(text: &str, base: usize, error: &JiterError) -> ProtocolError {
    let LinePosition { line, column } = LinePosition::find(text.as_bytes(), base + error.index);
    ProtocolError::Json { problem: error.error_type.to_string(), line, column }
}

/// Returns what kind of value starts so, or `None` where none does.
pub(super) fn kind(peek: Peek) -> Option<&'static str> {
    match peek {
        Peek::Null => Some("null"),
        Peek::True | Peek::False => Some("a boolean"),
        Peek::String => Some("a string"),
        Peek::Array => Some("a list"),
        Peek::Object => Some("an object"),
        _ if peek.is_num() => Some("a number"),
        _ => None,
    }
}
