//! The field `input` in its four forms.

use outhaul_types::{DataType, Name, NamedTensor, Strings, Tensor};

use super::{MAX_INPUTS, wrong_type};
use crate::error::excerpt;
use crate::rows::JsonValue;
use crate::{FieldProblem, ProtocolError};

/// Rows of tokens that go into one request: what a model runs together by default. A request beyond it
/// would run as a whole, however large.
const ROWS_TOGETHER: usize = 32;

const FORMS: &str = "a string, a list of strings, a list of token ids or a list of lists of them";

/// What is to be embedded.
pub(super) enum Input {
    /// Texts in order.
    Texts(Strings),
    /// Token ids of each input in order.
    Tokens(Vec<Vec<i32>>),
}

impl Input {
    pub(super) fn read(input: &JsonValue<'_>) -> Result<Self, ProtocolError> {
        let items = match input {
            JsonValue::String(text) if text.is_empty() => return Err(empty("input".to_owned())),
            JsonValue::String(text) => return Ok(Input::Texts(Strings::from_iter([&**text]))),
            JsonValue::List(items) => items,
            other => return Err(wrong_type("input", FORMS, other)),
        };
        match items.first() {
            None => Err(empty("input".to_owned())),
            Some(JsonValue::Number(_)) => Ok(Input::Tokens(vec![tokens("input", items)?])),
            Some(_) if items.len() > MAX_INPUTS => {
                Err(ProtocolError::TooMany { what: "inputs", limit: MAX_INPUTS })
            }
            Some(JsonValue::String(_)) => texts(items).map(Input::Texts),
            Some(JsonValue::List(_)) => {
                let each = items.iter().enumerate().map(|(index, item)| match item {
                    JsonValue::List(ids) => tokens(&place("input", index), ids),
                    other => Err(wrong_type(place("input", index), "a list of token ids", other)),
                });
                each.collect::<Result<_, _>>().map(Input::Tokens)
            }
            Some(other) => Err(wrong_type("input[0]", "a string, a list or a number", other)),
        }
    }
}

fn texts(items: &[JsonValue<'_>]) -> Result<Strings, ProtocolError> {
    let each = items.iter().enumerate().map(|(index, item)| match item.as_str() {
        Some("") => Err(empty(place("input", index))),
        Some(text) => Ok(text),
        None => Err(wrong_type(place("input", index), "a string", item)),
    });
    each.collect()
}

fn tokens(field: &str, ids: &[JsonValue<'_>]) -> Result<Vec<i32>, ProtocolError> {
    if ids.is_empty() {
        return Err(empty(field.to_owned()));
    }
    let each = ids.iter().enumerate().map(|(index, id)| {
        let JsonValue::Number(digits) = id else {
            return Err(wrong_type(place(field, index), "a token id", id));
        };
        digits.parse().ok().filter(|id: &i32| *id >= 0).ok_or_else(|| {
            let received = excerpt(digits);
            let problem = FieldProblem::OutOfRange { expected: "a token id".into(), received };
            ProtocolError::field(place(field, index), problem)
        })
    });
    each.collect()
}

fn place(field: &str, index: usize) -> String {
    format!("{field}[{index}]")
}

fn empty(field: String) -> ProtocolError {
    ProtocolError::field(field, FieldProblem::Empty)
}

/// Inputs of tokens that have one length.
struct Group<'t> {
    length: usize,
    rows: Vec<&'t [i32]>,
}

/// Where the vector of an input is found: in which answer, and which of its rows.
pub(super) type Place = (usize, usize);

/// Makes a tensor `[rows, tokens]` of the given type of all inputs that have one length, and returns
/// where each input has gone.
pub(super) fn grouped(
    inputs: &[Vec<i32>],
    data_type: DataType,
    name: &Name,
) -> Result<(Vec<NamedTensor>, Vec<Place>), ProtocolError> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut places = Vec::with_capacity(inputs.len());
    for input in inputs {
        let open =
            |group: &Group<'_>| group.length == input.len() && group.rows.len() < ROWS_TOGETHER;
        let index = match groups.iter().position(open) {
            Some(index) => index,
            None => {
                groups.push(Group { length: input.len(), rows: Vec::new() });
                groups.len() - 1
            }
        };
        places.push((index, groups[index].rows.len()));
        groups[index].rows.push(input);
    }
    let tensors = groups.iter().map(|group| {
        let shape = [group.rows.len(), group.length];
        let ids = group.rows.iter().flat_map(|row| row.iter().copied());
        let tensor = match data_type {
            DataType::Int64 => Tensor::from_vec(shape, ids.map(i64::from).collect()),
            DataType::Int32 => Tensor::from_vec(shape, ids.collect::<Vec<i32>>()),
            _ => return Err(no_tokens()),
        };
        let tensor = tensor.expect("every row has the length of its group");
        Ok(NamedTensor { name: name.clone(), tensor })
    });
    Ok((tensors.collect::<Result<_, _>>()?, places))
}

/// Says that a model cannot be given token ids.
pub(super) fn no_tokens() -> ProtocolError {
    ProtocolError::NotTaken {
        request: "an embeddings",
        name: "input".to_owned(),
        reason: "the model takes no token ids, send texts",
    }
}
