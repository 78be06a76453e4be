//! Rows between GraphQL's values and tensors.

use std::borrow::Cow;

use apollo_compiler::response::JsonMap;
use apollo_compiler::response::serde_json_bytes::{Map, Value as JsonValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use half::{bf16, f16};
use outhaul_types::{Content, DataType, NamedTensor, Strings, Tensor, TensorData};

use super::failure::FieldFailure;
use super::model::FieldTypes;
use crate::Schema;

/// Writes rows as JSON by the names of the signature, for [`crate::rows::decode_instances`]. Rows of the
/// generic field are written as they are.
pub(crate) fn write_rows(rows: &[JsonValue], fields: &[FieldTypes]) -> Vec<u8> {
    let mut text = Vec::with_capacity(64 * rows.len());
    text.push(b'[');
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        match row {
            JsonValue::Object(members) if !fields.is_empty() => {
                write_renamed(&mut text, members, fields);
            }
            other => write(&mut text, other),
        }
    }
    text.push(b']');
    text
}

fn write_renamed(text: &mut Vec<u8>, members: &JsonMap, fields: &[FieldTypes]) {
    text.push(b'{');
    let mut between = false;
    for (key, value) in members {
        let key = key.as_str();
        // Only fields of the row's type come this far: the schema has been held against the query.
        let name = fields.iter().find(|field| field.field == key);
        let name = name.map_or(key, |field| field.name.as_str());
        if std::mem::replace(&mut between, true) {
            text.push(b',');
        }
        write(text, &JsonValue::from(name));
        text.push(b':');
        write(text, value);
    }
    text.push(b'}');
}

fn write(text: &mut Vec<u8>, value: &JsonValue) {
    serde_json::to_writer(text, value).expect("a JSON value can be written to memory");
}

/// What a row of an output may become.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A value of the output's own type, where bytes have no place.
    Typed,
    /// Any JSON value.
    Json,
}

/// Returns one row of an answer: the bare value where it has one output, else an object by name.
pub(crate) fn whole_row(
    outputs: &[NamedTensor],
    schema: &Schema<'_>,
    row: usize,
    rows: usize,
) -> Result<JsonValue, FieldFailure> {
    if let [only] = outputs {
        return row_value(only, content(&only.name, schema), Form::Json, (row, rows));
    }
    let mut members = Map::with_capacity(outputs.len());
    for output in outputs {
        let value = row_value(output, content(&output.name, schema), Form::Json, (row, rows))?;
        members.insert(output.name.as_str(), value);
    }
    Ok(JsonValue::Object(members))
}

/// Returns what an output means, by its name; the model's own outputs are tensors.
pub(crate) fn content(name: &str, schema: &Schema<'_>) -> Content {
    let index = schema.signature.output_index(name);
    let field = index.and_then(|index| schema.interface.outputs.get(index));
    field.map_or(Content::Tensor, |field| field.content)
}

/// Returns one row of an output, of as many rows as were sent.
///
/// # Errors
///
/// Fails where the output has no such rows, or holds what the form cannot.
pub(crate) fn row_value(
    output: &NamedTensor,
    content: Content,
    form: Form,
    (row, rows): (usize, usize),
) -> Result<JsonValue, FieldFailure> {
    let NamedTensor { name, tensor } = output;
    if tensor.shape().rows() != Some(rows) {
        let shape = tensor.shape();
        return Err(FieldFailure::unsupported(format!(
            "output '{name}' has shape {shape}, which has no row for each of the {rows} rows sent: \
             ask for whole tensors, /v2/models/{{model}}/infer"
        )));
    }
    let elements = Elements::of(tensor, content, form);
    let sizes = tensor.shape().row_shape();
    let step: usize = sizes.iter().product();
    let (value, _) = elements.nested(sizes, row * step).map_err(|problem| {
        FieldFailure::unsupported(format!("output '{name}' of row {row} {problem}"))
    })?;
    Ok(value)
}

/// The elements of a tensor, each to be a JSON value.
enum Elements<'a> {
    Bool(&'a [u8]),
    Unsigned(Box<dyn Fn(usize) -> u64 + 'a>),
    Signed(Box<dyn Fn(usize) -> i64 + 'a>),
    Single(Box<dyn Fn(usize) -> f32 + 'a>),
    Double(Cow<'a, [f64]>),
    Texts(&'a Strings, Content, Form),
}

macro_rules! at {
    ($tensor:ident, $rust:ty, $wide:ty) => {{
        let elements = $tensor.elements_of::<$rust>().unwrap_or_default();
        Box::new(move |index: usize| <$wide>::from(elements[index]))
    }};
}

impl<'a> Elements<'a> {
    fn of(tensor: &'a Tensor, content: Content, form: Form) -> Self {
        let bytes = match tensor.data() {
            TensorData::Strings(strings) => return Elements::Texts(strings, content, form),
            TensorData::Fixed(bytes) => bytes,
        };
        match tensor.data_type() {
            DataType::Uint8 => Elements::Unsigned(at!(tensor, u8, u64)),
            DataType::Uint16 => Elements::Unsigned(at!(tensor, u16, u64)),
            DataType::Uint32 => Elements::Unsigned(at!(tensor, u32, u64)),
            DataType::Uint64 => Elements::Unsigned(at!(tensor, u64, u64)),
            DataType::Int8 => Elements::Signed(at!(tensor, i8, i64)),
            DataType::Int16 => Elements::Signed(at!(tensor, i16, i64)),
            DataType::Int32 => Elements::Signed(at!(tensor, i32, i64)),
            DataType::Int64 => Elements::Signed(at!(tensor, i64, i64)),
            DataType::Fp16 => Elements::Single(at!(tensor, f16, f32)),
            DataType::Bf16 => Elements::Single(at!(tensor, bf16, f32)),
            DataType::Fp32 => Elements::Single(at!(tensor, f32, f32)),
            DataType::Fp64 => Elements::Double(tensor.elements_of::<f64>().unwrap_or_default()),
            // `BYTES` is never of fixed size; the elements of `BOOL` are single bytes.
            DataType::Bool | DataType::Bytes => Elements::Bool(bytes),
        }
    }

    /// Returns the value that begins at an element, nested by these sizes, and where the next begins.
    fn nested(&self, sizes: &[usize], at: usize) -> Result<(JsonValue, usize), String> {
        let Some((&size, inner)) = sizes.split_first() else {
            return Ok((self.element(at)?, at + 1));
        };
        let mut items = Vec::with_capacity(size);
        let mut at = at;
        for _ in 0..size {
            let (item, next) = self.nested(inner, at)?;
            items.push(item);
            at = next;
        }
        Ok((JsonValue::Array(items), at))
    }

    fn element(&self, index: usize) -> Result<JsonValue, String> {
        match self {
            Elements::Bool(bytes) => Ok((bytes[index] != 0).into()),
            Elements::Unsigned(element) => Ok(element(index).into()),
            Elements::Signed(element) => Ok(element(index).into()),
            Elements::Single(element) => {
                // The shortest decimal of the FP32 value, as the other contracts write it.
                let value = element(index);
                finite(value.to_string().parse().unwrap_or(f64::from(value)))
            }
            Elements::Double(elements) => finite(elements[index]),
            Elements::Texts(strings, content, form) => {
                text(strings.get(index).unwrap_or_default(), *content, *form)
            }
        }
    }
}

fn finite(value: f64) -> Result<JsonValue, String> {
    match value.is_finite() {
        true => Ok(value.into()),
        false => Err(format!("holds {value}, which GraphQL has no number for: ask /v2 or /v1")),
    }
}

fn text(bytes: &[u8], content: Content, form: Form) -> Result<JsonValue, String> {
    match std::str::from_utf8(bytes) {
        Ok(json) if content == Content::Json => serde_json::from_str(json)
            .map_err(|_| "holds a text that is no JSON, which it should be".to_owned()),
        _ if content == Content::Image && form == Form::Typed => Ok(STANDARD.encode(bytes).into()),
        Ok(text) if content != Content::Image => Ok(text.into()),
        _ if form == Form::Json => {
            let mut members = Map::new();
            members.insert("b64", JsonValue::from(STANDARD.encode(bytes)));
            Ok(JsonValue::Object(members))
        }
        _ => Err("holds bytes that are no UTF-8: ask for it by predict_json".to_owned()),
    }
}
