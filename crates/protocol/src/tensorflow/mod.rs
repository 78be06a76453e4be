//! TensorFlow Serving's REST API: rows (`instances`), whole tensors (`inputs`), classification and
//! regression of examples, metadata and status.
//!
//! Paths are read by [`Path`], bodies by [`decode`]. What KServe v1 and OpenAI's clients ask of the same
//! paths stands in the same bodies: KServe's predictions are the row format, and the description of a
//! model ([`model_status`]) holds what each of the three looks for.
//!
//! Where it differs from TensorFlow Serving: whole numbers are taken where the model takes floats and
//! floats that are whole where it takes integers; a row of several inputs may be a list in the
//! signature's order; errors say more. Fields that the API does not know are skipped, as it does.
//!
//! The API: <https://www.tensorflow.org/tfx/serving/api_rest>. gRPC is in [`crate::tensorflow_grpc`].

mod describe;
mod examples;
mod path;
#[cfg(test)]
mod tests;

use outhaul_types::{InferRequest, InferResponse};

pub use describe::{error_body, model_error_body, model_list, model_metadata, model_status};
pub use path::{Path, PathError, Question, Verb};

use self::examples::{Answered, decode_examples};
use crate::rows::{
    JsonValue, RowError, RowWriter, decode_columns, decode_instances, encode_columns, parse_json,
};
use crate::tensorflow_grpc::SIGNATURE;
use crate::{DecodeLimits, ProtocolError, Schema};

/// A request, and how its answer is written.
#[derive(Debug)]
pub struct Decoded {
    /// The request. Its model is the one that the path named.
    pub request: InferRequest,
    /// How its answer is written.
    pub format: Format,
}

/// How an answer is written.
#[derive(Debug)]
pub struct Format(Form);

#[derive(Debug)]
enum Form {
    /// `predictions`, one for each of so many rows.
    Rows(usize),
    /// `outputs`, whole tensors.
    Columns,
    /// `results`, one for each of so many rows.
    Examples(Answered, usize),
}

/// Reads the body of a prediction.
///
/// # Errors
///
/// Fails with the first thing that is wrong, by its row and field; where both or none of `instances` and
/// `inputs` are given, where another signature than `serving_default` is asked for, and where a
/// classification is asked of a model that is none.
pub fn decode(
    verb: Verb,
    body: &[u8],
    schema: &Schema<'_>,
    limits: &DecodeLimits,
) -> Result<Decoded, ProtocolError> {
    let body = parse_json(body)?;
    let Some(_) = body.as_object() else {
        return Err(problem(format!("the request must be an object, got {}", body.kind())));
    };
    check_signature(&body)?;
    let (inputs, outputs, form) = match verb {
        Verb::Predict => match (body.get("instances"), body.get("inputs")) {
            (Some(_), Some(_)) => {
                let both =
                    "the request has both 'instances' and 'inputs': send rows or whole tensors";
                return Err(problem(both.to_owned()));
            }
            (None, None) => {
                return Err(problem("the request has neither 'instances' nor 'inputs'".to_owned()));
            }
            (Some(rows), None) => {
                let count = rows.as_list().map_or(0, <[_]>::len);
                (decode_instances(rows, schema, limits)?, Vec::new(), Form::Rows(count))
            }
            (None, Some(tensors)) => {
                (decode_columns(tensors, schema, limits)?, Vec::new(), Form::Columns)
            }
        },
        Verb::Classify | Verb::Regress => {
            let answered = Answered::find(verb, schema)?;
            let (inputs, rows) = decode_examples(&body, schema, limits)?;
            (inputs, answered.outputs(), Form::Examples(answered, rows))
        }
    };
    let request = InferRequest { outputs, ..InferRequest::new(schema.name, inputs) };
    Ok(Decoded { request, format: Format(form) })
}

/// Writes the answer to a prediction.
///
/// # Errors
///
/// Fails where the model's outputs cannot be told in the form of the request, such as row by row.
pub fn encode(
    format: &Format,
    responses: &[InferResponse],
    schema: &Schema<'_>,
) -> Result<Vec<u8>, ProtocolError> {
    let mut out = Vec::with_capacity(256);
    match &format.0 {
        Form::Rows(rows) => {
            let writer = RowWriter::new(responses, schema)?;
            writer.expect_rows(*rows)?;
            writer.write(&mut out, b"{\"predictions\":[", b",", b"]}");
        }
        Form::Columns => {
            out.extend_from_slice(b"{\"outputs\":");
            encode_columns(responses, schema, &mut out)?;
            out.push(b'}');
        }
        Form::Examples(answered, rows) => answered.write(responses, *rows, &mut out)?,
    }
    Ok(out)
}

/// Checks `signature_name`: a model has one signature.
fn check_signature(body: &JsonValue<'_>) -> Result<(), ProtocolError> {
    match body.get("signature_name") {
        None | Some(JsonValue::Null) => Ok(()),
        Some(JsonValue::String(name)) if name.is_empty() || name == SIGNATURE => Ok(()),
        Some(JsonValue::String(name)) => {
            let name = crate::error::excerpt(name);
            Err(field(
                "signature_name",
                format!("is '{name}', but models have '{SIGNATURE}' alone"),
            ))
        }
        Some(other) => {
            Err(field("signature_name", format!("must be a string, got {}", other.kind())))
        }
    }
}

#[cold]
fn problem(problem: String) -> ProtocolError {
    RowError { problem, ..RowError::default() }.into()
}

#[cold]
fn field(name: &str, problem: String) -> ProtocolError {
    RowError { field: Some(name.to_owned()), problem, ..RowError::default() }.into()
}
