//! Example requests, from a model's sample or made up from its signature.

use outhaul_types::{Content, DataType, Dimension, Field, NamedTensor, ShapePattern, TensorSpec};
use serde_json::{Value, json};

use super::model::has_rows;
use crate::rows::{decode_instances, parse_json};
use crate::{DecodeLimits, Schema};

/// The most elements that an example spells out.
const MOST: usize = 256;

/// A white picture of one pixel: PNG in Base64.
const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC";

/// Returns rows to show, one or few: the model's own sample where it is rows that the model takes, else
/// one that is made up. `None` where the model has no rows, or its rows are too large to be read.
pub fn sample_rows(model: &Schema<'_>) -> Option<Value> {
    if !has_rows(model) {
        return None;
    }
    let declared = model.interface.sample.as_deref().filter(|text| tensors(model, text).is_some());
    match declared {
        Some(text) => serde_json::from_str(text).ok(),
        None => made_up(model),
    }
}

/// Returns the tensors of rows, or `None` where they are not what the model takes.
fn tensors(model: &Schema<'_>, rows: &str) -> Option<Vec<NamedTensor>> {
    let rows = parse_json(rows.as_bytes()).ok()?;
    let inputs = decode_instances(&rows, model, &DecodeLimits::default()).ok()?.into_vec();
    // Rows that are read need not be as many as the model takes. Its own tensors are no example.
    model.signature.bind(inputs.clone()).is_ok().then_some(inputs)
}

/// Returns the same request in the Open Inference Protocol; `None` where it has pictures, which the
/// JSON of that protocol has no form for.
pub(super) fn infer_request(model: &Schema<'_>) -> Option<Value> {
    if model.interface.inputs.iter().any(|field| field.content == Content::Image) {
        return None;
    }
    let rows = sample_rows(model)?;
    let list = rows.as_array()?;
    let text = rows.to_string();
    let inputs: Option<Vec<Value>> = tensors(model, &text)?
        .iter()
        .map(|NamedTensor { name, tensor }| {
            let single = model.signature.inputs.len() == 1;
            let value = |row: &Value| match row.get(name.as_str()) {
                Some(value) => Some(value.clone()),
                // A bare value is that of the only input.
                None => (single && !row.is_object()).then(|| row.clone()),
            };
            let data: Option<Vec<Value>> = list.iter().map(value).collect();
            let data = data.filter(|data| data.iter().all(|value| !value.is_null()))?;
            Some(json!({
                "name": name.as_str(),
                "datatype": tensor.data_type().name(),
                "shape": tensor.shape().to_vec(),
                "data": data.into_iter().map(|value| plain(value, tensor.data_type())).collect::<Vec<_>>(),
            }))
        })
        .collect();
    Some(json!({ "inputs": inputs? }))
}

/// Truth values of columns are numbers for the protocol.
fn plain(value: Value, data_type: DataType) -> Value {
    match (value, data_type) {
        (Value::Bool(truth), data_type) if data_type.is_float() => {
            json!(f64::from(u8::from(truth)))
        }
        (value, _) => value,
    }
}

fn made_up(model: &Schema<'_>) -> Option<Value> {
    let mut row = serde_json::Map::new();
    let unknown = Field::default();
    let meanings = model.interface.inputs.iter().chain(std::iter::repeat(&unknown));
    for (spec, meaning) in model.signature.inputs.iter().zip(meanings) {
        if spec.optional && meaning.content == Content::Tensor {
            continue;
        }
        row.insert(spec.name.to_string(), value(spec, meaning)?);
    }
    let rows = json!(vec![row; rows_wanted(model)]);
    tensors(model, &rows.to_string()).is_some().then_some(rows)
}

/// Returns how many rows the model takes at least: one, unless its file says another number.
fn rows_wanted(model: &Schema<'_>) -> usize {
    let fixed = |spec: &TensorSpec| match &spec.shape {
        ShapePattern::Ranked(dimensions) if !spec.optional => dimensions.first()?.size(),
        _ => None,
    };
    model.signature.inputs.iter().find_map(fixed).unwrap_or(1).min(MOST)
}

fn value(spec: &TensorSpec, meaning: &Field) -> Option<Value> {
    let ShapePattern::Ranked(dimensions) = &spec.shape else { return None };
    let sizes: Vec<usize> =
        dimensions.iter().skip(1).map(|size: &Dimension| size.size().unwrap_or(1)).collect();
    let elements = sizes.iter().try_fold(1_usize, |product, &size| product.checked_mul(size))?;
    if elements > MOST {
        return None;
    }
    let first = || meaning.choices.as_ref().and_then(|choices| choices.first().cloned());
    let element = match (meaning.content, spec.data_type) {
        (Content::Image, _) => json!(PIXEL),
        (Content::Category | Content::Label, _) => json!(first()?),
        (Content::Boolean, _) | (_, DataType::Bool) => json!(true),
        (Content::Date, _) => json!("2026-01-31"),
        (Content::Text, _) => json!("A text to try."),
        (_, DataType::Bytes) => json!("text"),
        (_, data_type) if data_type.is_float() => json!(1.0),
        (_, _) => json!(1),
    };
    Some(sizes.iter().rev().fold(element, |inner, &size| json!(vec![inner; size])))
}
