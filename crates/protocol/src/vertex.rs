//! Vertex AI's contract of custom containers: `instances` in, `predictions` out.
//!
//! `parameters` are the caller's words to a model that reads them; none here does. Those that would
//! change the answer are refused, since an answer that ignores them is wrong; others are skipped.
//!
//! The contract: <https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements>

use outhaul_types::{InferRequest, InferResponse};
use serde_json::json;

use crate::error::excerpt;
use crate::rows::{JsonValue, RowError, RowWriter, decode_instances, parse_json};
use crate::{DecodeLimits, ProtocolError, Schema};

/// Parameters that ask for another answer, without regard to case and underscores.
const NOT_IGNORED: [&str; 7] = [
    "topk",
    "maxpredictions",
    "confidencethreshold",
    "threshold",
    "candidatecount",
    "temperature",
    "dimension",
];

/// Reads a body and returns the number of its rows beside the request.
///
/// # Errors
///
/// Fails with the first thing that is wrong, by its row and field, and where a parameter asks for what
/// cannot be given.
pub fn decode(
    body: &[u8],
    schema: &Schema<'_>,
    limits: &DecodeLimits,
) -> Result<(InferRequest, usize), ProtocolError> {
    let body = parse_json(body)?;
    let problem =
        |problem: String| ProtocolError::from(RowError { problem, ..RowError::default() });
    if body.as_object().is_none() {
        return Err(problem(format!("the request must be an object, got {}", body.kind())));
    }
    let Some(rows) = body.get("instances") else {
        return Err(problem("the request has no 'instances'".to_owned()));
    };
    if body.get("inputs").is_some() {
        let both =
            "the request has both 'instances' and 'inputs': this contract takes 'instances' alone";
        return Err(problem(both.to_owned()));
    }
    check_parameters(body.get("parameters"))?;
    let inputs = decode_instances(rows, schema, limits)?;
    Ok((InferRequest::new(schema.name, inputs), rows.as_list().map_or(0, <[_]>::len)))
}

fn check_parameters(parameters: Option<&JsonValue<'_>>) -> Result<(), ProtocolError> {
    let error = |field: String, problem: String| {
        Err(RowError { field: Some(field), problem, ..RowError::default() }.into())
    };
    let members = match parameters {
        None | Some(JsonValue::Null) => return Ok(()),
        Some(JsonValue::Object(members)) => members,
        Some(other) => {
            let problem = format!("must be an object, got {}", other.kind());
            return error("parameters".to_owned(), problem);
        }
    };
    for (name, value) in members {
        let plain: String = name.chars().filter(|letter| *letter != '_').collect();
        if !value.is_null() && NOT_IGNORED.contains(&&*plain.to_ascii_lowercase()) {
            let problem = "is not taken: what the model answers is declared beside it".to_owned();
            return error(format!("parameters.{}", excerpt(name)), problem);
        }
    }
    Ok(())
}

/// Writes the answer to a request of so many rows.
///
/// # Errors
///
/// Fails where the model's outputs cannot be told row by row.
pub fn encode(
    rows: usize,
    responses: &[InferResponse],
    schema: &Schema<'_>,
) -> Result<Vec<u8>, ProtocolError> {
    let writer = RowWriter::new(responses, schema)?;
    writer.expect_rows(rows)?;
    let mut out = Vec::with_capacity(256);
    writer.write(&mut out, b"{\"predictions\":[", b",", b"]}");
    Ok(out)
}

/// Writes an error in the form of Google's APIs, which Vertex AI hands on to the caller.
pub fn error_body(status: u16, message: &str) -> Vec<u8> {
    let word = match status {
        400 | 413 | 415 | 431 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        405 => "UNIMPLEMENTED",
        409 => "FAILED_PRECONDITION",
        429 => "RESOURCE_EXHAUSTED",
        408 | 504 => "DEADLINE_EXCEEDED",
        503 => "UNAVAILABLE",
        _ => "INTERNAL",
    };
    let error = json!({ "code": status, "message": message, "status": word });
    json!({ "error": error }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use outhaul_types::{DataType, Tensor};

    use super::*;
    use crate::rows::tests::{Model, answer, spec};

    #[test]
    fn instances_become_predictions() {
        let model = Model::of([spec("X", DataType::Fp32, &[-1, 2])]);
        let body = br#"{"instances":[[1,2],{"X":[3,4]}],"parameters":{"user":"me","top_k":null}}"#;
        let (request, rows) = decode(body, &model.schema(), &DecodeLimits::default()).unwrap();
        assert_eq!((request.inputs.len(), rows), (1, 2));
        let answers = [answer(vec![("y", Tensor::from_vec([2], vec![1_i64, 2]).unwrap())])];
        let written = encode(rows, &answers, &model.schema()).unwrap();
        assert_eq!(written, br#"{"predictions":[1,2]}"#);
        assert_eq!(
            encode(3, &answers, &model.schema()).unwrap_err().to_string(),
            "output 'y' has shape [2] where the answer has 3 rows, so it cannot be told row by row: ask \
             for whole tensors"
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let model = Model::of([spec("X", DataType::Fp32, &[-1, 2])]);
        for (body, expected) in [
            ("[]", "the request must be an object, got a list"),
            ("{}", "the request has no 'instances'"),
            ("{\"instances\":[[1,2]],\"inputs\":[[1,2]]}", "the request has both 'instances' and"),
            ("{\"instances\":[]}", "request has no rows"),
            ("{\"instances\":[[1]]}", "row 0: 'X' has 1 value where the model takes 2"),
            (
                "{\"instances\":[[1,2]],\"parameters\":{\"top_k\":5}}",
                "'parameters.top_k' is not taken: what the model answers is declared beside it",
            ),
            (
                "{\"instances\":[[1,2]],\"parameters\":{\"confidenceThreshold\":0.5}}",
                "'parameters.confidenceThreshold' is not taken",
            ),
            (
                "{\"instances\":[[1,2]],\"parameters\":5}",
                "'parameters' must be an object, got a number",
            ),
        ] {
            let error = decode(body.as_bytes(), &model.schema(), &DecodeLimits::default());
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with(expected), "{body}: {error}");
        }
    }

    #[test]
    fn errors_are_those_of_googles_apis() {
        assert_eq!(
            String::from_utf8(error_body(400, "row 0 is \"bad\"")).unwrap(),
            r#"{"error":{"code":400,"message":"row 0 is \"bad\"","status":"INVALID_ARGUMENT"}}"#
        );
    }
}
