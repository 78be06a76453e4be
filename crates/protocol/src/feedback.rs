//! `POST /v1/feedback`: what became of predictions, `{"id": "...", "reward": 0.7}`,
//! `{"id": "...", "label": "positive"}`, or many of them under `feedback`.
//!
//! Invariant: a body is taken whole or not at all; the first item that breaks a rule is named by its place.
//! Whether a prediction of that id exists is not known here.

use std::borrow::Cow;

use outhaul_types::{Feedback, FeedbackAnswer, ModelName, Name, Outcome};

use crate::error::excerpt;
use crate::rows::{JsonValue, parse_json};
use crate::{FieldProblem, ProtocolError};

/// The most outcomes of one call.
pub const MAX_FEEDBACK: usize = 10_000;

/// The most bytes of an id or a label.
pub const MAX_FEEDBACK_TEXT: usize = 256;

/// Reads a body.
///
/// # Errors
///
/// Fails with the first thing that is wrong, by its place: an id or label that is missing, empty or longer than
/// [`MAX_FEEDBACK_TEXT`], a reward that is no number from 0 to 1, both or neither of `reward` and `label`, a key
/// that is none of ours, more than [`MAX_FEEDBACK`] items.
pub fn decode(body: &[u8]) -> Result<Vec<Feedback>, ProtocolError> {
    let body = parse_json(body)?;
    let Some(list) = body.get("feedback") else { return Ok(vec![item(&body, "")?]) };
    if let Some((name, _)) = members(&body, "request")?.iter().find(|(key, _)| key != "feedback") {
        return Err(not_taken("a feedback", name, "a list of feedback stands alone"));
    }
    let items = match list {
        JsonValue::List(items) if items.is_empty() => {
            return Err(ProtocolError::field("feedback", FieldProblem::Empty));
        }
        JsonValue::List(items) => items,
        other => return Err(wrong("feedback".to_owned(), "a list", other)),
    };
    if items.len() > MAX_FEEDBACK {
        return Err(ProtocolError::TooMany { what: "items of feedback", limit: MAX_FEEDBACK });
    }
    let place = |index: usize| format!("feedback[{index}]");
    items.iter().enumerate().map(|(index, value)| item(value, &place(index))).collect()
}

/// Writes the answer.
pub fn encode(answer: &FeedbackAnswer) -> Vec<u8> {
    serde_json::to_vec(answer).expect("texts and whole numbers are JSON")
}

/// Reads one item. `place` is where it stands in the body, empty for the body itself.
fn item(value: &JsonValue<'_>, place: &str) -> Result<Feedback, ProtocolError> {
    let named = if place.is_empty() { "request" } else { place };
    let at = |key: &str| match place {
        "" => key.to_owned(),
        place => format!("{place}.{key}"),
    };
    let (mut id, mut route, mut reward, mut label) = (None, None, None, None);
    for (key, value) in members(value, named)? {
        match &**key {
            "id" => id = Some(text(value, at(key))?),
            "route" if value.is_null() => {}
            "route" => route = Some(route_of(value, at(key))?),
            "reward" => reward = Some(reward_of(value, at(key))?),
            "label" => label = Some(label_of(value, at(key))?),
            other => {
                let reason = "an item has 'id', 'route', and 'reward' or 'label'";
                return Err(not_taken("a feedback", &at(&excerpt(other)), reason));
            }
        }
    }
    let outcome = match (reward, label) {
        (Some(reward), None) => Outcome::Reward(reward),
        (None, Some(label)) => Outcome::Label(label),
        (None, None) => return Err(ProtocolError::missing(at("reward"))),
        (Some(_), Some(_)) => {
            let reason = "give 'reward' or 'label', one of them";
            return Err(not_taken("a feedback", &at("label"), reason));
        }
    };
    let id = id.ok_or_else(|| ProtocolError::missing(at("id")))?;
    Ok(Feedback { id, route, outcome })
}

fn members<'v, 'j>(
    value: &'v JsonValue<'j>,
    place: &str,
) -> Result<&'v [(Cow<'j, str>, JsonValue<'j>)], ProtocolError> {
    value.as_object().ok_or_else(|| wrong(place.to_owned(), "an object", value))
}

fn text(value: &JsonValue<'_>, place: String) -> Result<Name, ProtocolError> {
    match value.as_str() {
        Some(text) => bounded(text, place),
        None => Err(wrong(place, "a string", value)),
    }
}

/// A label is compared as text, so that a model's class `1` is met by `1` and by `"1"`.
fn label_of(value: &JsonValue<'_>, place: String) -> Result<Name, ProtocolError> {
    match value {
        JsonValue::String(text) => bounded(text, place),
        JsonValue::Number(digits) => bounded(digits, place),
        JsonValue::Bool(value) => Ok(if *value { "true".into() } else { "false".into() }),
        other => Err(wrong(place, "a string, a number, or true or false", other)),
    }
}

fn bounded(text: &str, place: String) -> Result<Name, ProtocolError> {
    if text.is_empty() {
        return Err(ProtocolError::field(place, FieldProblem::Empty));
    }
    if text.len() > MAX_FEEDBACK_TEXT || text.contains('\0') {
        let expected = format!("a text of at most {MAX_FEEDBACK_TEXT} bytes without NUL").into();
        let received = format!("'{}'", excerpt(text));
        return Err(ProtocolError::field(place, FieldProblem::OutOfRange { expected, received }));
    }
    Ok(text.into())
}

fn route_of(value: &JsonValue<'_>, place: String) -> Result<ModelName, ProtocolError> {
    let Some(text) = value.as_str() else { return Err(wrong(place, "a string", value)) };
    ModelName::new(text).map_err(|_| {
        let received = format!("'{}'", excerpt(text));
        let expected = "the name of a route".into();
        ProtocolError::field(place, FieldProblem::OutOfRange { expected, received })
    })
}

fn reward_of(value: &JsonValue<'_>, place: String) -> Result<f64, ProtocolError> {
    let JsonValue::Number(digits) = value else { return Err(wrong(place, "a number", value)) };
    match digits.parse::<f64>() {
        Ok(reward) if (0.0..=1.0).contains(&reward) => Ok(reward),
        _ => {
            let received = excerpt(digits);
            let expected = "a number from 0 to 1".into();
            Err(ProtocolError::field(place, FieldProblem::OutOfRange { expected, received }))
        }
    }
}

#[cold]
fn wrong(place: String, expected: &'static str, received: &JsonValue<'_>) -> ProtocolError {
    let received = received.kind().to_owned();
    ProtocolError::field(place, FieldProblem::OutOfRange { expected: expected.into(), received })
}

#[cold]
fn not_taken(request: &'static str, name: &str, reason: &'static str) -> ProtocolError {
    ProtocolError::NotTaken { request, name: excerpt(name), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reward(id: &str, reward: f64) -> Feedback {
        Feedback { id: id.into(), route: None, outcome: Outcome::Reward(reward) }
    }

    fn label(id: &str, label: &str) -> Feedback {
        Feedback { id: id.into(), route: None, outcome: Outcome::Label(label.into()) }
    }

    #[test]
    fn feedback_is_read() {
        struct Case(&'static str, Vec<Feedback>);
        let routed = Feedback { route: ModelName::new("reviews").ok(), ..reward("a", 1.0) };
        for Case(body, expected) in [
            Case(r#"{"id": "a", "reward": 0.7}"#, vec![reward("a", 0.7)]),
            Case(r#"{"reward": 0, "id": "a", "route": null}"#, vec![reward("a", 0.0)]),
            Case(r#"{"id": "a", "route": "reviews", "reward": 1}"#, vec![routed]),
            Case(r#"{"id": "a", "label": "positive"}"#, vec![label("a", "positive")]),
            Case(r#"{"id": "a", "label": 2}"#, vec![label("a", "2")]),
            Case(r#"{"id": "a", "label": true}"#, vec![label("a", "true")]),
            Case(
                r#"{"feedback": [{"id": "a", "reward": 1e-3}, {"id": "é", "label": false}]}"#,
                vec![reward("a", 0.001), label("é", "false")],
            ),
        ] {
            assert_eq!(decode(body.as_bytes()).unwrap(), expected, "{body}");
        }
    }

    #[test]
    fn what_breaks_a_rule_is_named_by_its_place() {
        let long = "x".repeat(257);
        let long = format!(r#"{{"id": "{long}", "reward": 1}}"#);
        let many = format!(r#"{{"feedback": [{}0]}}"#, "0,".repeat(MAX_FEEDBACK));
        for (body, expected) in [
            ("[]", "'request' must be an object, got a list"),
            ("{", "malformed JSON"),
            ("{}", "'reward' is missing"),
            (r#"{"id": "a"}"#, "'reward' is missing"),
            (r#"{"reward": 1}"#, "'id' is missing"),
            (r#"{"id": "", "reward": 1}"#, "'id' must not be empty"),
            (r#"{"id": 7, "reward": 1}"#, "'id' must be a string, got a number"),
            (r#"{"id": "a\u0000", "reward": 1}"#, "'id' must be a text of at most 256 bytes"),
            (&long, "'id' must be a text of at most 256 bytes"),
            (r#"{"id": "a", "reward": 1.1}"#, "'reward' must be a number from 0 to 1, got 1.1"),
            (r#"{"id": "a", "reward": -0.1}"#, "'reward' must be a number from 0 to 1, got -0.1"),
            (r#"{"id": "a", "reward": NaN}"#, "'reward' must be a number from 0 to 1, got NaN"),
            (r#"{"id": "a", "reward": "1"}"#, "'reward' must be a number, got a string"),
            (r#"{"id": "a", "label": null}"#, "'label' must be a string, a number, or true"),
            (r#"{"id": "a", "label": "b", "reward": 1}"#, "'label' of a feedback request is not"),
            (r#"{"id": "a", "route": "a/b", "reward": 1}"#, "'route' must be the name of a route"),
            (r#"{"id": "a", "score": 1}"#, "'score' of a feedback request is not supported"),
            (r#"{"feedback": []}"#, "'feedback' must not be empty"),
            (r#"{"feedback": {}}"#, "'feedback' must be a list, got an object"),
            (r#"{"feedback": [], "id": "a"}"#, "'id' of a feedback request is not supported"),
            (
                r#"{"feedback": [{"id": "a", "reward": 1}, {"id": "b", "reward": 2}]}"#,
                "'feedback[1].reward' must be a number from 0 to 1, got 2",
            ),
            (r#"{"feedback": [3]}"#, "'feedback[0]' must be an object, got a number"),
            (&many, "request has more than 10000 items of feedback"),
        ] {
            let error = decode(body.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{body:.80}: {error}");
        }
    }

    #[test]
    fn the_answer_is_written() {
        let answer = FeedbackAnswer {
            joined: 2,
            replaced: 1,
            duplicate: vec!["b".into()],
            unknown: vec!["\"".into()],
        };
        let text = String::from_utf8(encode(&answer)).unwrap();
        assert_eq!(text, r#"{"joined":2,"replaced":1,"duplicate":["b"],"unknown":["\""]}"#);
    }
}
