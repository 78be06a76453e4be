//! The bodies of multi-model endpoints: models that come and go by name and folder.

use bytes::Bytes;

use crate::oip::encode::write_string;
use crate::openai::{given, wrong_type};
use crate::rows::{JsonValue, parse_json};
use crate::{FieldProblem, ProtocolError};

/// Models on one page of the list.
const PAGE: usize = 500;

/// A model to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddModel {
    /// What it is called from then on.
    pub name: String,
    /// The folder that it lies in.
    pub url: String,
}

/// A model in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedModel {
    /// What it is called.
    pub name: String,
    /// Where it lies; empty where that is not known.
    pub url: String,
}

/// Reads the body of `POST /models`.
///
/// # Errors
///
/// Fails where it does not name a model and a folder.
pub fn decode_add(body: &[u8]) -> Result<AddModel, ProtocolError> {
    let body = parse_json(body)?;
    if body.as_object().is_none() {
        return Err(wrong_type("body", "an object", &body));
    }
    Ok(AddModel { name: text(&body, "model_name")?, url: text(&body, "url")? })
}

fn text(body: &JsonValue<'_>, key: &'static str) -> Result<String, ProtocolError> {
    match given(body, key) {
        None => Err(ProtocolError::missing(key)),
        Some(JsonValue::String(text)) if text.is_empty() => {
            Err(ProtocolError::field(key, FieldProblem::Empty))
        }
        Some(JsonValue::String(text)) => Ok(text.to_string()),
        Some(other) => Err(wrong_type(key, "a string", other)),
    }
}

/// Writes the answer to `GET /models`: the models after `token`, which is the name of the last one of
/// the page before. `models` are in order of their names.
pub fn list_models(models: &[ListedModel], token: Option<&str>) -> Bytes {
    let start = token.map_or(0, |token| models.partition_point(|model| *model.name <= *token));
    let rest = &models[start..];
    let page = &rest[..rest.len().min(PAGE)];
    let mut out = b"{\"models\":[".to_vec();
    for (index, model) in page.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_model(&mut out, model);
    }
    out.push(b']');
    if let (Some(last), true) = (page.last(), page.len() < rest.len()) {
        out.extend_from_slice(b",\"nextPageToken\":");
        write_string(&mut out, &last.name);
    }
    out.push(b'}');
    out.into()
}

/// Writes the answer to `GET /models/{name}`.
pub fn describe_model(model: &ListedModel) -> Bytes {
    let mut out = Vec::new();
    write_model(&mut out, model);
    out.into()
}

fn write_model(out: &mut Vec<u8>, model: &ListedModel) {
    out.extend_from_slice(b"{\"modelName\":");
    write_string(out, &model.name);
    out.extend_from_slice(b",\"modelUrl\":");
    write_string(out, &model.url);
    out.push(b'}');
}
