//! Whole tensors by input name: the column format.

use outhaul_types::{Field, NamedTensor, TensorSpec};
use smallvec::SmallVec;

use super::fill::base64_of;
use super::walk::Filling;
use super::{Given, Inputs, JsonValue, RowError, names, unknown};
use crate::{DecodeLimits, ProtocolError, Schema};

/// Reads whole tensors by what the model takes: an object by input name, or the tensor itself where
/// that leaves nothing open.
///
/// # Errors
///
/// Fails with the first thing that is wrong, as [`decode_instances`](super::decode_instances) does.
pub fn decode_columns(
    inputs: &JsonValue<'_>,
    schema: &Schema<'_>,
    limits: &DecodeLimits,
) -> Result<Inputs, ProtocolError> {
    let given = Given::of(schema, inputs);
    let specs: Vec<(&TensorSpec, &Field)> = given.inputs().collect();
    let members = match inputs {
        JsonValue::Object(members)
            if base64_of(inputs).is_none() || given.signature.input_index("b64").is_some() =>
        {
            members
        }
        whole => {
            let mut required = specs.iter().filter(|(spec, _)| !spec.optional || specs.len() == 1);
            let (Some((spec, field)), None) = (required.next(), required.next()) else {
                let (names, kind) = (names(given.signature), whole.kind());
                let problem = format!("the inputs must be an object with {names}, got {kind}");
                return Err(RowError { problem, ..RowError::default() }.into());
            };
            return Ok(tensor(spec, field, whole, limits)?.into_iter().collect());
        }
    };
    let mut tensors = SmallVec::new();
    for (key, value) in members {
        let Some(index) = given.signature.input_index(key) else {
            return Err(unknown(None, key, given.signature));
        };
        let (spec, field) = specs[index];
        if !value.is_null() {
            tensors.extend(tensor(spec, field, value, limits)?);
        }
    }
    for (spec, _) in specs.iter().filter(|(spec, _)| !spec.optional) {
        if !tensors.iter().any(|given: &NamedTensor| given.name == spec.name) {
            let field = Some(spec.name.to_string());
            let problem = format!("is missing; the model takes {}", names(given.signature));
            return Err(RowError { field, problem, ..RowError::default() }.into());
        }
    }
    Ok(tensors)
}

fn tensor(
    spec: &TensorSpec,
    field: &Field,
    value: &JsonValue<'_>,
    limits: &DecodeLimits,
) -> Result<Option<NamedTensor>, ProtocolError> {
    let rows = value.as_list().map_or(1, <[_]>::len);
    let mut filling = Filling::new(spec, field, rows, limits)?;
    let rows = filling.whole(value)?;
    filling.finish(rows)
}
