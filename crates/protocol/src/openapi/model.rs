//! What one model takes and gives.

use outhaul_types::{Content, DataType, Dimension, Field, ShapePattern, TensorSpec};
use serde_json::json;
use utoipa::openapi::KnownFormat;

use super::shape::Need::{May, Must};
use super::shape::{
    Shape, any_of, anything, base64, boolean, closed, count, counted_in, described, filled, float,
    integer, list, list_of, named, nullable, object, one_of, string, within,
};
use crate::Schema;
use crate::graphql::describe_field;

/// Returns the name of a model's schema of this kind.
pub(super) fn name_of(model: &Schema<'_>, kind: &str) -> String {
    format!("{}_{kind}", model.name)
}

/// Returns whether rows can be told of the model: no input or output is one value for all rows.
pub(super) fn has_rows(model: &Schema<'_>) -> bool {
    let scalar = |spec: &TensorSpec| matches!(&spec.shape, ShapePattern::Ranked(dimensions) if dimensions.is_empty());
    let sides = [&model.signature.inputs, &model.signature.outputs];
    sides.into_iter().all(|specs| !specs.is_empty() && !specs.iter().any(scalar))
}

/// Returns all schemas of a model by name.
pub(super) fn schemas(model: &Schema<'_>) -> Vec<(String, Shape)> {
    let name = |kind| name_of(model, kind);
    let mut schemas = vec![
        (name("InferRequest"), infer_request(model)),
        (name("InferResponse"), infer_response(model)),
    ];
    if has_rows(model) {
        schemas.extend([
            (name("Row"), row(model)),
            (name("Prediction"), prediction(model)),
            (name("Instances"), of_rows(model, "instances", "Row")),
            (name("Predictions"), of_rows(model, "predictions", "Prediction")),
        ]);
    }
    schemas
}

fn of_rows(model: &Schema<'_>, key: &str, kind: &str) -> Shape {
    object([(key, filled(named(&name_of(model, kind))), Must)])
}

/// Inputs or outputs with what they mean.
fn fields<'a>(
    specs: &'a [TensorSpec],
    meanings: &'a [Field],
) -> impl Iterator<Item = (&'a TensorSpec, &'a Field)> {
    const UNKNOWN: &Field = &Field { content: Content::Tensor, choices: None, unit: None };
    specs.iter().zip(meanings.iter().chain(std::iter::repeat(UNKNOWN)))
}

fn row(model: &Schema<'_>) -> Shape {
    let members = fields(&model.signature.inputs, &model.interface.inputs);
    let members: Vec<_> = members
        .map(|(spec, meaning)| {
            let value = value(spec, meaning, true);
            let (value, need) = match spec.optional {
                true => (nullable(value), May),
                false => (value, Must),
            };
            (spec.name.as_str(), described(value, &describe_field(spec, meaning)), need)
        })
        .collect();
    described(closed(members), &format!("A row for {}.", model.name))
}

/// A bare value where the model has one output, else an object by name.
fn prediction(model: &Schema<'_>) -> Shape {
    let outputs = fields(&model.signature.outputs, &model.interface.outputs);
    let mut members: Vec<_> = outputs
        .map(|(spec, meaning)| {
            let value = described(value(spec, meaning, false), &describe_field(spec, meaning));
            (spec.name.as_str(), value, Must)
        })
        .collect();
    if members.len() == 1 {
        return members.remove(0).1;
    }
    described(object(members), &format!("What {} says of a row.", model.name))
}

/// One row of an input or output.
fn value(spec: &TensorSpec, meaning: &Field, is_input: bool) -> Shape {
    let element = element(spec, meaning, is_input);
    let ShapePattern::Ranked(dimensions) = &spec.shape else {
        return anything();
    };
    let row = dimensions.get(1..).unwrap_or(&[]);
    let nested = row.iter().rev().fold(element.clone(), |inner, size| list_of(inner, size.size()));
    // A row of one value may be sent without its list.
    match is_input && !row.is_empty() && row.iter().all(|size| size.size() == Some(1)) {
        true => any_of([element, nested]),
        false => nested,
    }
}

fn element(spec: &TensorSpec, meaning: &Field, is_input: bool) -> Shape {
    let choices = || meaning.choices.iter().flat_map(|choices| choices.iter().map(String::as_str));
    let element = match (meaning.content, spec.data_type) {
        (Content::Image, _) => {
            any_of([base64("image/*"), object([("b64", base64("image/*"), Must)])])
        }
        (Content::Json, _) => anything(),
        (Content::Boolean, _) | (_, DataType::Bool) => boolean(),
        (Content::Category, _) if meaning.choices.is_some() && is_input => one_of(choices()),
        (Content::Label, DataType::Bytes) if meaning.choices.is_some() => one_of(choices()),
        (Content::Tensor, DataType::Bytes) if is_input => {
            any_of([string(), object([("b64", base64("application/octet-stream"), Must)])])
        }
        (_, DataType::Bytes) => string(),
        (_, data_type) => elements(data_type),
    };
    match &meaning.unit {
        Some(unit) => counted_in(element, unit),
        None => element,
    }
}

/// A number of a type.
fn elements(data_type: DataType) -> Shape {
    match data_type {
        DataType::Bool => boolean(),
        DataType::Uint8 => within(json!(0), Some(json!(u8::MAX))),
        DataType::Uint16 => within(json!(0), Some(json!(u16::MAX))),
        DataType::Uint32 => within(json!(0), Some(json!(u32::MAX))),
        DataType::Uint64 => count(),
        DataType::Int8 => within(json!(i8::MIN), Some(json!(i8::MAX))),
        DataType::Int16 => within(json!(i16::MIN), Some(json!(i16::MAX))),
        DataType::Int32 => within(json!(i32::MIN), Some(json!(i32::MAX))),
        DataType::Int64 => integer(),
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 => float(KnownFormat::Float),
        DataType::Fp64 => float(KnownFormat::Double),
        DataType::Bytes => string(),
    }
}

fn infer_request(model: &Schema<'_>) -> Shape {
    let inputs = fields(&model.signature.inputs, &model.interface.inputs);
    let tensors = inputs.map(|(spec, meaning)| tensor(spec, meaning));
    let names = model.signature.outputs.iter().map(|spec| spec.name.as_str());
    let requested = object([("name", one_of(names), Must)]);
    object([
        ("id", string(), May),
        ("inputs", filled(one_or_any(tensors.collect())), Must),
        ("outputs", described(list(requested), "Those wanted; all where none is named."), May),
    ])
}

fn infer_response(model: &Schema<'_>) -> Shape {
    let outputs = fields(&model.signature.outputs, &model.interface.outputs);
    let tensors = outputs.map(|(spec, meaning)| tensor(spec, meaning));
    object([
        ("id", string(), May),
        ("model_name", one_of([model.name]), Must),
        ("model_version", string(), Must),
        ("outputs", list(one_or_any(tensors.collect())), Must),
    ])
}

fn one_or_any(mut shapes: Vec<Shape>) -> Shape {
    match shapes.len() {
        1 => shapes.remove(0),
        _ => any_of(shapes),
    }
}

fn tensor(spec: &TensorSpec, meaning: &Field) -> Shape {
    let size = |dimension: &Dimension| match dimension.size() {
        Some(size) => size.to_string(),
        None => "any".to_owned(),
    };
    let (sizes, rank) = match &spec.shape {
        ShapePattern::AnyRank => ("any shape".to_owned(), None),
        ShapePattern::Ranked(dimensions) => {
            let sizes: Vec<String> = dimensions.iter().map(size).collect();
            (format!("[{}]", sizes.join(", ")), Some(dimensions.len()))
        }
    };
    let described_shape = described(list_of(count(), rank), &sizes);
    let data = described(list(anything()), "Flat, or nested as the shape says.");
    let shape = object([
        ("name", one_of([spec.name.as_str()]), Must),
        ("datatype", one_of([spec.data_type.name()]), Must),
        ("shape", described_shape, Must),
        ("data", data, May),
    ]);
    described(shape, &describe_field(spec, meaning))
}
