//! Azure Machine Learning's online endpoints: `POST /score`, whose body every scoring script decides
//! for itself. The forms that are common are taken: those of MLflow models (`input_data`,
//! `dataframe_split`, `dataframe_records`, `inputs`, `instances`), `{"data": [...]}` of scoring scripts,
//! and bare lists. The answer is a list of predictions, one a row.
//!
//! The form of MLflow models: <https://learn.microsoft.com/azure/machine-learning/how-to-deploy-mlflow-models>

use std::borrow::Cow;

use outhaul_types::{InferRequest, InferResponse};
use serde_json::json;

use crate::error::excerpt;
use crate::rows::{
    Inputs, JsonValue, RowError, decode_columns, decode_instances, encode_rows, names, parse_json,
};
use crate::{DecodeLimits, ProtocolError, Schema};

/// The keys under which data may come.
const KEYS: [&str; 6] =
    ["input_data", "data", "inputs", "instances", "dataframe_split", "dataframe_records"];

/// Reads a body.
///
/// # Errors
///
/// Fails with the first thing that is wrong, by its row and field, and where the body is of none of the
/// forms or of two.
pub fn decode(
    body: &[u8],
    schema: &Schema<'_>,
    limits: &DecodeLimits,
) -> Result<InferRequest, ProtocolError> {
    let body = parse_json(body)?;
    let inputs = match &body {
        JsonValue::List(_) => decode_instances(&body, schema, limits)?,
        JsonValue::Object(members) => {
            let mut given = members.iter().filter(|(key, _)| KEYS.contains(&&**key));
            let (key, data) = match (given.next(), given.next()) {
                (Some((key, data)), None) => (key, data),
                (Some((first, _)), Some((second, _))) => {
                    return Err(problem(format!("the request has both '{first}' and '{second}'")));
                }
                (None, _) => {
                    return Err(problem(format!(
                        "the request has none of {}",
                        KEYS.map(|key| format!("'{key}'")).join(", ")
                    )));
                }
            };
            check_params(body.get("params"))?;
            of_form(key, data, schema, limits)?
        }
        other => {
            let kind = other.kind();
            return Err(problem(format!("the request must be an object or a list, got {kind}")));
        }
    };
    Ok(InferRequest::new(schema.name, inputs))
}

#[cold]
fn problem(problem: String) -> ProtocolError {
    RowError { problem, ..RowError::default() }.into()
}

#[cold]
fn field(field: &str, problem: String) -> ProtocolError {
    RowError { field: Some(field.to_owned()), problem, ..RowError::default() }.into()
}

/// Refuses MLflow's parameters of a prediction: no model here reads them.
fn check_params(params: Option<&JsonValue<'_>>) -> Result<(), ProtocolError> {
    match params {
        Some(JsonValue::Object(members)) if !members.is_empty() => {
            let name = format!("params.{}", excerpt(&members[0].0));
            Err(field(&name, "is not taken: models here have no parameters".to_owned()))
        }
        _ => Ok(()),
    }
}

fn of_form(
    key: &str,
    data: &JsonValue<'_>,
    schema: &Schema<'_>,
    limits: &DecodeLimits,
) -> Result<Inputs, ProtocolError> {
    match (key, data) {
        ("input_data" | "dataframe_split" | "data", JsonValue::Object(_))
            if data.get("data").is_some() && schema.signature.input_index("data").is_none() =>
        {
            of_split(key, data, schema, limits)
        }
        ("dataframe_split", _) => Err(field(key, "must be an object with 'data'".to_owned())),
        ("instances" | "dataframe_records", _) => decode_instances(data, schema, limits),
        ("inputs", JsonValue::List(_)) => decode_instances(data, schema, limits),
        // Whole columns by name.
        (_, JsonValue::Object(_)) => decode_columns(data, schema, limits),
        _ => decode_instances(data, schema, limits),
    }
}

/// Reads a table as pandas writes it with `orient="split"`: names of columns once, then lists of
/// values. Where no column is an input and the model takes rows of as many numbers, their order counts.
fn of_split(
    key: &str,
    split: &JsonValue<'_>,
    schema: &Schema<'_>,
    limits: &DecodeLimits,
) -> Result<Inputs, ProtocolError> {
    let data = split.get("data").unwrap_or(&JsonValue::Null);
    let Some(rows) = data.as_list() else {
        return Err(field(&format!("{key}.data"), format!("must be a list, got {}", data.kind())));
    };
    let columns = match split.get("columns") {
        None | Some(JsonValue::Null) => return decode_instances(data, schema, limits),
        Some(JsonValue::List(columns)) => columns,
        Some(other) => {
            let name = format!("{key}.columns");
            return Err(field(&name, format!("must be a list, got {}", other.kind())));
        }
    };
    let mut named: Vec<&str> = Vec::with_capacity(columns.len());
    for column in columns {
        let Some(name) = column.as_str() else {
            let name = format!("{key}.columns");
            return Err(field(&name, format!("must hold strings, got {}", column.kind())));
        };
        if named.contains(&name) {
            let name = excerpt(name);
            return Err(field(&format!("{key}.columns"), format!("holds '{name}' twice")));
        }
        named.push(name);
    }
    let inner = schema.interface.inner.as_ref();
    let is_input = |name: &&&str| {
        schema.signature.input_index(name).is_some()
            || inner.is_some_and(|inner| inner.input_index(name).is_some())
    };
    if !named.iter().any(|name| is_input(&name)) && takes_width(schema, named.len()) {
        return decode_instances(data, schema, limits);
    }
    if let Some(unknown) = named.iter().find(|name| !is_input(name)) {
        let names = names(schema.signature);
        let problem = format!("is no column of this model, which takes {names}");
        return Err(field(&excerpt(unknown), problem));
    }
    let mut objects = Vec::with_capacity(rows.len().min(limits.max_rows));
    for (row, values) in rows.iter().enumerate().take(limits.max_rows) {
        let Some(values) = values.as_list() else {
            let problem = format!("must be a list of {}, got {}", named.len(), values.kind());
            return Err(RowError::of_row(row, problem).into());
        };
        if values.len() != named.len() {
            let (given, wanted) = (values.len(), named.len());
            let problem = format!("has {given} values where the table has {wanted} columns");
            return Err(RowError::of_row(row, problem).into());
        }
        let members = named.iter().zip(values);
        let members = members.map(|(name, value)| (Cow::Borrowed(*name), value.clone()));
        objects.push(JsonValue::Object(members.collect()));
    }
    crate::rows::check_rows(rows.len(), limits)?;
    decode_instances(&JsonValue::List(objects.into()), schema, limits)
}

/// Returns whether the model has one input whose rows are so many values.
fn takes_width(schema: &Schema<'_>, width: usize) -> bool {
    match &schema.signature.inputs[..] {
        [only] => match &only.shape {
            outhaul_types::ShapePattern::AnyRank => false,
            outhaul_types::ShapePattern::Ranked(dimensions) => match &dimensions[..] {
                [_, columns] => columns.size().is_none_or(|size| size == width),
                _ => false,
            },
        },
        _ => false,
    }
}

/// Writes the answer: a list of predictions.
///
/// # Errors
///
/// Fails where the model's outputs cannot be told row by row.
pub fn encode(responses: &[InferResponse], schema: &Schema<'_>) -> Result<Vec<u8>, ProtocolError> {
    let mut out = Vec::with_capacity(256);
    encode_rows(responses, schema, &mut out)?;
    Ok(out)
}

/// Writes an error in the form of Azure's APIs.
pub fn error_body(status: u16, message: &str) -> Vec<u8> {
    let code = match status {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        408 => "RequestTimeout",
        409 => "Conflict",
        413 => "PayloadTooLarge",
        415 => "UnsupportedMediaType",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "GatewayTimeout",
        500.. => "InternalServerError",
        _ => "BadRequest",
    };
    json!({ "error": { "code": code, "message": message } }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use outhaul_types::DataType;

    use super::*;
    use crate::rows::tests::{Model, input, spec};

    fn read(model: &Model, body: &str) -> Result<Inputs, String> {
        let decoded = decode(body.as_bytes(), &model.schema(), &DecodeLimits::default());
        decoded.map(|request| request.inputs).map_err(|error| error.to_string())
    }

    #[test]
    fn every_form_is_read() {
        let packed = Model::of([spec("X", DataType::Fp32, &[-1, 2])]);
        for body in [
            "[[1,2],[3,4]]",
            r#"{"data":[[1,2],[3,4]]}"#,
            r#"{"data":{"data":[[1,2],[3,4]]}}"#,
            r#"{"inputs":[[1,2],[3,4]]}"#,
            r#"{"inputs":{"X":[[1,2],[3,4]]}}"#,
            r#"{"instances":[{"X":[1,2]},{"X":[3,4]}]}"#,
            r#"{"dataframe_records":[{"X":[1,2]},{"X":[3,4]}]}"#,
            r#"{"input_data":[[1,2],[3,4]],"params":{}}"#,
            r#"{"input_data":{"data":[[1,2],[3,4]]}}"#,
            r#"{"input_data":{"columns":["a","b"],"index":[0,1],"data":[[1,2],[3,4]]}}"#,
            r#"{"dataframe_split":{"columns":["X"],"data":[[[1,2]],[[3,4]]]}}"#,
        ] {
            let inputs = read(&packed, body).unwrap_or_else(|error| panic!("{body}: {error}"));
            assert_eq!(input(&inputs, "X").as_slice::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0]);
        }
        for body in [
            r#"{"input_data":{"columns":["city","age","member"],"data":[["Oslo",41,true]]}}"#,
            r#"{"input_data":{"city":["Oslo"],"age":[41],"member":[1]}}"#,
            r#"{"data":[{"city":"Oslo","age":41,"member":true}]}"#,
        ] {
            let inputs = read(&Model::people(), body).unwrap();
            assert_eq!(input(&inputs, "age").as_slice::<f64>().unwrap(), [41.0], "{body}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let people = Model::people();
        for (body, expected) in [
            ("5", "the request must be an object or a list, got a number"),
            (
                "{}",
                "the request has none of 'input_data', 'data', 'inputs', 'instances', 'dataframe",
            ),
            (r#"{"instances":[1],"inputs":[1]}"#, "the request has both 'instances' and 'inputs'"),
            (r#"{"data":[1],"params":{"t":1}}"#, "'params.t' is not taken"),
            (r#"{"dataframe_split":[]}"#, "'dataframe_split' must be an object with 'data'"),
            (r#"{"input_data":{"data":5}}"#, "'input_data.data' must be a list, got a number"),
            (r#"{"input_data":{"columns":5,"data":[]}}"#, "'input_data.columns' must be a list"),
            (
                r#"{"input_data":{"columns":[5],"data":[]}}"#,
                "'input_data.columns' must hold strings",
            ),
            (
                r#"{"input_data":{"columns":["age","age"],"data":[]}}"#,
                "'input_data.columns' holds 'age' twice",
            ),
            (
                r#"{"input_data":{"columns":["age","colour"],"data":[[1,2]]}}"#,
                "'colour' is no column of this model, which takes 'age', 'height', 'city', 'member'",
            ),
            (
                r#"{"input_data":{"columns":["age","city"],"data":[[1,"Oslo"],[1]]}}"#,
                "row 1 has 1 values where the table has 2 columns",
            ),
            (
                r#"{"input_data":{"columns":["age","city"],"data":[[1,"Oslo"]]}}"#,
                "row 0: 'member' is missing",
            ),
            (r#"{"input_data":{"columns":["age"],"data":[]}}"#, "request has no rows"),
            (r#"{"data":[]}"#, "request has no rows"),
        ] {
            let error = read(&people, body).unwrap_err();
            assert!(error.starts_with(expected), "{body}: {error}");
        }
        let many = format!(
            "{{\"input_data\":{{\"columns\":[\"age\"],\"data\":[{}[0]]}}}}",
            "[0],".repeat(99_999)
        );
        assert!(read(&people, &many).unwrap_err().starts_with("request has 100000 rows"));
    }

    #[test]
    fn errors_are_those_of_azures_apis() {
        assert_eq!(
            String::from_utf8(error_body(404, "no")).unwrap(),
            r#"{"error":{"code":"NotFound","message":"no"}}"#
        );
    }
}
