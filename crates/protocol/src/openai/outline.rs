//! What a body says of itself before its model is known, found without keeping anything of it: this
//! is read on the thread that serves the connection, however long the body is.

use jiter::{Jiter, JiterResult, Peek};
use outhaul_types::Name;

use super::{given, wrong_type};
use crate::rows::{JsonValue, parse_json};
use crate::{FieldProblem, ProtocolError};

/// The members of a body that say what to do with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The model that it names, where it names one.
    pub model: Option<Name>,
    /// Whether there are `documents`.
    pub has_documents: bool,
    /// Whether there are `texts`.
    pub has_texts: bool,
}

/// Reads the outline of a body.
///
/// # Errors
///
/// Fails where the body is no JSON object, or the model's name is no text.
pub fn outline(body: &[u8]) -> Result<Outline, ProtocolError> {
    if let Ok(Some(outline)) = skim(body) {
        return Ok(outline);
    }
    // Reading it whole tells what is wrong, and where.
    let body = parse_json(body)?;
    match (&body, given(&body, "model")) {
        (JsonValue::Object(_), Some(JsonValue::String(_))) => {
            Err(ProtocolError::field("model", FieldProblem::Empty))
        }
        (JsonValue::Object(_), Some(model)) => Err(wrong_type("model", "a string", model)),
        (JsonValue::Object(_), None) => Err(ProtocolError::missing("model")),
        _ => Err(wrong_type("body", "an object", &body)),
    }
}

/// Reads the members that count and passes over the others. `None` where the model is named by no
/// text.
fn skim(body: &[u8]) -> JiterResult<Option<Outline>> {
    const SIGNATURE: &[u8] = b"\xef\xbb\xbf";
    let body = body.strip_prefix(SIGNATURE).unwrap_or(body);
    let mut jiter = Jiter::new(body).with_allow_inf_nan();
    let mut outline = Outline::default();
    let mut member = jiter.next_object()?.map(Member::of);
    while let Some(named) = member {
        let peek = jiter.peek()?;
        let is_given = peek != Peek::Null;
        match named {
            Member::Model if peek == Peek::String => match jiter.known_str()? {
                "" => return Ok(None),
                name => outline.model = Some(Name::from(name)),
            },
            Member::Model if is_given => return Ok(None),
            other => {
                outline.has_documents |= other == Member::Documents && is_given;
                outline.has_texts |= other == Member::Texts && is_given;
                jiter.known_skip(peek)?;
            }
        }
        member = jiter.next_key()?.map(Member::of);
    }
    jiter.finish()?;
    Ok(Some(outline))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    Model,
    Documents,
    Texts,
    Other,
}

impl Member {
    fn of(key: &str) -> Self {
        match key {
            "model" => Member::Model,
            "documents" => Member::Documents,
            "texts" => Member::Texts,
            _ => Member::Other,
        }
    }
}
