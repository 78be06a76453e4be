//! `classify` and `regress`: examples by feature name, and the classes or the value of each.

use std::borrow::Cow;

use outhaul_types::{InferResponse, Name, RequestedOutput};

use super::{Verb, field, problem};
use crate::oip::encode::{write_float, write_string};
use crate::rows::{Inputs, JsonValue, RowError, check_rows, decode_instances, takes_one_value};
use crate::tensorflow_grpc::{Classes, Form, TensorFlowError, Value};
use crate::{DecodeLimits, ProtocolError, Schema};

/// Where in a model's outputs the answer lies.
#[derive(Debug)]
pub(super) enum Answered {
    Classes(Classes),
    Value(Value),
}

impl Answered {
    /// Finds it, or says that the model is of another kind.
    pub(super) fn find(verb: Verb, schema: &Schema<'_>) -> Result<Self, ProtocolError> {
        let found = match verb {
            Verb::Classify => Classes::find(schema).map(Answered::Classes),
            Verb::Predict | Verb::Regress => Value::find(schema).map(Answered::Value),
        };
        found.map_err(refused)
    }

    pub(super) fn outputs(&self) -> Vec<RequestedOutput> {
        let requested = |name: &Name| RequestedOutput { name: name.clone(), classification: None };
        match self {
            Answered::Classes(classes) => classes.outputs().into_iter().map(requested).collect(),
            Answered::Value(value) => value.outputs().into_iter().map(requested).collect(),
        }
    }

    /// Writes the results under both names that they go by: the API's description says `result`, the
    /// server itself says `results`.
    pub(super) fn write(
        &self,
        responses: &[InferResponse],
        rows: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let mut results = Vec::new();
        for response in responses {
            match self {
                Answered::Classes(classes) => {
                    let written = classes.write(response, rows).map_err(refused)?;
                    for row in written.classifications {
                        results.extend_from_slice(if results.is_empty() { b"[" } else { b",[" });
                        for (index, class) in row.classes.iter().enumerate() {
                            results.extend_from_slice(if index == 0 { b"[" } else { b",[" });
                            write_string(&mut results, &class.label);
                            results.push(b',');
                            write_float(&mut results, class.score, class.score.is_finite());
                            results.push(b']');
                        }
                        results.push(b']');
                    }
                }
                Answered::Value(value) => {
                    let written = value.write(response, rows).map_err(refused)?;
                    for row in written.regressions {
                        if !results.is_empty() {
                            results.push(b',');
                        }
                        write_float(&mut results, row.value, row.value.is_finite());
                    }
                }
            }
        }
        for part in [&b"{\"results\":["[..], &results, b"],\"result\":[", &results, b"]}"] {
            out.extend_from_slice(part);
        }
        Ok(())
    }
}

fn refused(error: TensorFlowError) -> ProtocolError {
    ProtocolError::TensorFlow(Box::new(error))
}

/// Reads `examples`, each completed by `context`, and returns how many there are.
pub(super) fn decode_examples(
    body: &JsonValue<'_>,
    schema: &Schema<'_>,
    limits: &DecodeLimits,
) -> Result<(Inputs, usize), ProtocolError> {
    let examples = match body.get("examples") {
        None => return Err(problem("the request has no 'examples'".to_owned())),
        Some(JsonValue::List(examples)) => examples,
        Some(other) => {
            return Err(field("examples", format!("must be a list, got {}", other.kind())));
        }
    };
    let context = match body.get("context") {
        None | Some(JsonValue::Null) => &[][..],
        Some(JsonValue::Object(features)) => features,
        Some(other) => {
            return Err(field("context", format!("must be an object, got {}", other.kind())));
        }
    };
    check_rows(examples.len(), limits)?;
    check_context(context, examples.len(), schema)?;
    let mut rows = Vec::with_capacity(examples.len());
    for (row, example) in examples.iter().enumerate() {
        let JsonValue::Object(features) = example else {
            let problem = format!("must be an object, got {}", example.kind());
            return Err(RowError::of_row(row, problem).into());
        };
        let most = schema.signature.inputs.len();
        if let Some((name, _)) = features.get(most) {
            let problem = format!("has more than {most} features, among them '{name}'");
            return Err(RowError::of_row(row, problem).into());
        }
        let shared = context.iter().filter(|(name, _)| features.iter().all(|(own, _)| own != name));
        let all = features.iter().chain(shared);
        rows.push(JsonValue::Object(all.map(|feature| unwrapped(feature, schema)).collect()));
    }
    let rows = JsonValue::List(rows.into());
    let count = examples.len();
    Ok((decode_instances(&rows, schema, limits)?, count))
}

/// The most values that the context may come to once each example has its own copy.
const MOST_SHARED: usize = 1 << 20;

/// Checks what every example will get a copy of, before it gets one.
fn check_context(
    context: &[(Cow<'_, str>, JsonValue<'_>)],
    examples: usize,
    schema: &Schema<'_>,
) -> Result<(), ProtocolError> {
    for (name, value) in context {
        if schema.signature.input_index(name).is_none() {
            let problem = format!("has the feature '{name}', which the model does not take");
            return Err(field("context", problem));
        }
        let values = match value {
            JsonValue::List(items) => items.len(),
            _ => 1,
        };
        let nested = is_nested(value) && !matches!(value, JsonValue::List(_))
            || matches!(value, JsonValue::List(items) if items.iter().any(is_nested));
        if nested || values.saturating_mul(examples) > MOST_SHARED {
            let problem = format!(
                "has {values} values of '{name}' for each of {examples} examples: write them into \
                 the examples"
            );
            return Err(field("context", problem));
        }
    }
    Ok(())
}

/// Whether a value holds others, but for `{"b64": ...}`.
fn is_nested(value: &JsonValue<'_>) -> bool {
    match value {
        JsonValue::List(_) => true,
        JsonValue::Object(members) => members.iter().any(|(name, _)| name != "b64"),
        _ => false,
    }
}

/// Returns a feature, its list taken off where the model takes one value: features are lists.
fn unwrapped<'j>(
    (name, value): &(Cow<'j, str>, JsonValue<'j>),
    schema: &Schema<'_>,
) -> (Cow<'j, str>, JsonValue<'j>) {
    let index = schema.signature.input_index(name);
    let one = index.is_some_and(|index| takes_one_value(&schema.signature.inputs[index].shape));
    match value {
        JsonValue::List(items) if one && items.len() == 1 => (name.clone(), items[0].clone()),
        value => (name.clone(), value.clone()),
    }
}
