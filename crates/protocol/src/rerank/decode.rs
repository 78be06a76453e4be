//! A call to rerank.

use std::ops::Range;

use outhaul_types::{
    DataType, InferRequest, Name, NamedTensor, RequestedOutput, Strings, Task, Tensor,
};

use super::{Form, MAX_TEXTS};
use crate::openai::{check_task, given, positive, wrong_type};
use crate::rows::{JsonValue, parse_json};
use crate::{FieldProblem, ProtocolError, Schema};

/// The outer inputs and the output of a reranking model.
const QUERY: &str = "query";
const TEXT: &str = "text";
const SCORE: &str = "score";
/// The model's own output, where it has one of this name.
const RAW: &str = "logits";

/// What must be kept of a call to write its answer.
#[derive(Clone, Debug)]
pub struct RerankFormat {
    pub(super) form: Form,
    /// Only the best so many.
    pub(super) most: Option<usize>,
    /// The texts, where the answer is to repeat them.
    pub(super) texts: Option<Strings>,
    /// The output that the score is read from.
    pub(super) output: Name,
    /// What the answer is known by.
    pub(super) id: Name,
}

/// A call, read.
#[derive(Clone, Debug)]
pub struct DecodedRerank {
    /// What is asked of the model.
    pub request: InferRequest,
    /// How the answer is wanted.
    pub format: RerankFormat,
}

/// Reads a call to rerank, whose answer is to be known by `id`.
///
/// # Errors
///
/// Fails where the body is no such call, or the model does not rerank.
pub fn decode_rerank(
    body: &[u8],
    model: &Schema<'_>,
    id: Name,
) -> Result<DecodedRerank, ProtocolError> {
    let body = parse_json(body)?;
    if body.as_object().is_none() {
        return Err(wrong_type("body", "an object", &body));
    }
    let form = match (given(&body, "documents"), given(&body, "texts")) {
        (Some(_), _) => Form::Documents,
        (None, Some(_)) => Form::Texts,
        (None, None) => return Err(ProtocolError::missing("documents")),
    };
    refuse(&body, form)?;
    check_task(model, Task::Rerank, "/v1/rerank")?;
    let query = match body.get("query") {
        None => return Err(ProtocolError::missing("query")),
        Some(JsonValue::String(text)) if text.is_empty() => return Err(empty("query")),
        Some(JsonValue::String(text)) => text,
        Some(other) => return Err(wrong_type("query", "a string", other)),
    };
    let texts = texts(&body, form)?;
    let (most, repeat) = match form {
        Form::Documents => (positive(&body, "top_n")?, flag(&body, "return_documents")?),
        Form::Texts => (None, flag(&body, "return_text")?),
    };
    let output = match form == Form::Texts && flag(&body, "raw_scores")? {
        true => raw_output(model)?,
        false => Name::const_new(SCORE),
    };
    let count = texts.len();
    let tensor = |name, strings| NamedTensor {
        name: Name::const_new(name),
        tensor: Tensor::from_strings([count], strings).expect("as many as the shape says"),
    };
    let queries = repeated(query, count);
    let request = InferRequest {
        outputs: vec![RequestedOutput { name: output.clone(), classification: None }],
        ..InferRequest::new(model.name, [tensor(QUERY, queries), tensor(TEXT, texts.clone())])
    };
    let format = RerankFormat { form, most, texts: repeat.then_some(texts), output, id };
    Ok(DecodedRerank { request, format })
}

/// Refuses what would be half understood.
fn refuse(body: &JsonValue<'_>, form: Form) -> Result<(), ProtocolError> {
    let refused = match form {
        Form::Documents if given(body, "texts").is_some() => {
            ("texts", "'documents' is given too, and only one of the two can be")
        }
        Form::Documents if given(body, "rank_fields").is_some() => {
            ("rank_fields", "a document is ranked by its 'text'")
        }
        Form::Documents | Form::Texts => return Ok(()),
    };
    let (name, reason) = (refused.0.to_owned(), refused.1);
    Err(ProtocolError::NotTaken { request: "a rerank", name, reason })
}

fn texts(body: &JsonValue<'_>, form: Form) -> Result<Strings, ProtocolError> {
    let field = match form {
        Form::Documents => "documents",
        Form::Texts => "texts",
    };
    let items = match given(body, field) {
        Some(JsonValue::List(items)) => items,
        Some(other) => return Err(wrong_type(field, "a list", other)),
        None => return Err(ProtocolError::missing(field)),
    };
    if items.is_empty() {
        return Err(empty(field));
    }
    if items.len() > MAX_TEXTS {
        return Err(ProtocolError::TooMany { what: "texts", limit: MAX_TEXTS });
    }
    let each = items.iter().enumerate().map(|(index, item)| match (item, form) {
        (JsonValue::String(text), _) => Ok(&**text),
        (JsonValue::Object(_), Form::Documents) => match item.get("text") {
            Some(JsonValue::String(text)) => Ok(&**text),
            Some(other) => Err(wrong_type(format!("{field}[{index}].text"), "a string", other)),
            None => Err(ProtocolError::missing(format!("{field}[{index}].text"))),
        },
        (other, Form::Documents) => {
            Err(wrong_type(format!("{field}[{index}]"), "a string or an object with 'text'", other))
        }
        (other, Form::Texts) => Err(wrong_type(format!("{field}[{index}]"), "a string", other)),
    });
    each.collect()
}

fn flag(body: &JsonValue<'_>, key: &'static str) -> Result<bool, ProtocolError> {
    match given(body, key) {
        None => Ok(false),
        Some(JsonValue::Bool(value)) => Ok(*value),
        Some(other) => Err(wrong_type(key, "true or false", other)),
    }
}

/// Returns the model's own output, which is the score before it is made to lie between 0 and 1.
fn raw_output(model: &Schema<'_>) -> Result<Name, ProtocolError> {
    let outputs = model.interface.inner.as_ref().map_or(&[][..], |inner| &inner.outputs);
    let found = match outputs {
        [only] => Some(only),
        many => many.iter().find(|output| output.name == RAW),
    };
    let found = found.filter(|output| output.data_type == DataType::Fp32);
    found.map(|output| output.name.clone()).ok_or(ProtocolError::NotTaken {
        request: "a rerank",
        name: "raw_scores".to_owned(),
        reason: "the model has no output of FP32 that must be the score",
    })
}

/// Returns a text so many times, holding it once.
fn repeated(text: &str, count: usize) -> Strings {
    let whole: Range<usize> = 0..text.len();
    let bytes = text.as_bytes().to_vec().into();
    Strings::from_spans(bytes, vec![whole; count]).expect("the span is the whole text")
}

fn empty(field: &'static str) -> ProtocolError {
    ProtocolError::field(field, FieldProblem::Empty)
}
