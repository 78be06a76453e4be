//! Nested JSON lists to tensors, and back.
//!
//! Nothing is rounded or wrapped on the way in: a number that its datatype cannot hold is an error
//! that says where it stands, as in `X[0][2]`.

use std::fmt;

use half::{bf16, f16};
use outhaul::types::{
    DataType, Element, ModelSignature, NamedTensor, Shape, Strings, Tensor, TensorError,
};
use outhaul_repository::nearest;
use serde::Deserializer;
use serde::de::{MapAccess, Visitor};
use serde_json::Value as Json;

/// Why the input is not what the model takes.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    #[error("the input is not JSON of the form {{\"name\": [elements]}}")]
    NotJson(#[source] serde_json::Error),
    #[error("unknown input '{name}'; the model takes {expected}")]
    UnknownInput { name: String, expected: String },
    #[error("input '{0}' is given twice")]
    Twice(String),
    #[error("{place} has {found} where {first} has {expected}")]
    Ragged { place: String, found: String, first: String, expected: String },
    #[error("{place} is {found}, expected {expected}")]
    WrongElement { place: String, found: String, expected: &'static str },
    #[error("input '{name}' is no tensor")]
    NoTensor {
        name: String,
        #[source]
        source: TensorError,
    },
}

/// The input's members in order, none lost where a name comes twice.
struct Members(Vec<(String, Json)>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of inputs by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// Makes the tensors that the input spells out, with the datatypes of the signature.
pub(super) fn tensors(
    input: &[u8],
    signature: &ModelSignature,
) -> Result<Vec<NamedTensor>, InputError> {
    let Members(members) = serde_json::from_slice(input).map_err(InputError::NotJson)?;
    let mut tensors: Vec<NamedTensor> = Vec::new();
    for (name, value) in members {
        let Some(spec) = signature.inputs.iter().find(|spec| spec.name == name) else {
            return Err(unknown(name, signature));
        };
        if tensors.iter().any(|tensor| tensor.name == name) {
            return Err(InputError::Twice(name));
        }
        let tensor = tensor(&name, &value, spec.data_type)?;
        tensors.push(NamedTensor { name: spec.name.clone(), tensor });
    }
    Ok(tensors)
}

fn unknown(name: String, signature: &ModelSignature) -> InputError {
    let names: Vec<&str> = signature.inputs.iter().map(|spec| spec.name.as_str()).collect();
    let mut expected = signature
        .inputs
        .iter()
        .map(|spec| format!("'{}' ({} {})", spec.name, spec.data_type, spec.shape))
        .collect::<Vec<_>>()
        .join(", ");
    if let Some(nearest) = nearest(&name, names).filter(|_| signature.inputs.len() > 1) {
        expected.push_str(&format!("; did you mean '{nearest}'?"));
    }
    InputError::UnknownInput { name, expected }
}

/// Returns the same input with every tensor one dimension deeper, or `None` where it is not JSON.
pub(super) fn wrapped(input: &[u8]) -> Option<Vec<u8>> {
    let Members(members) = serde_json::from_slice(input).ok()?;
    let members = members.into_iter().map(|(name, value)| (name, Json::Array(vec![value])));
    serde_json::to_vec(&Json::Object(members.collect())).ok()
}

fn tensor(name: &str, value: &Json, data_type: DataType) -> Result<Tensor, InputError> {
    let mut shape = Vec::new();
    let mut innermost = value;
    while let Json::Array(items) = innermost {
        shape.push(items.len());
        match items.first() {
            Some(first) => innermost = first,
            None => break,
        }
    }
    let mut leaves = Leaves { name, shape: &shape, indices: Vec::new(), found: Vec::new() };
    leaves.collect(value)?;
    let found = leaves.found;
    elements(&found, Shape::new(shape.iter().copied()), data_type).map_err(|error| match error {
        ElementError::Wrong { position, expected } => {
            let place = place(name, &indices_of(position, &shape));
            InputError::WrongElement { place, found: shortened(found[position]), expected }
        }
        ElementError::NoTensor(source) => InputError::NoTensor { name: name.to_owned(), source },
    })
}

/// Walks nested lists and checks that all lists of a depth have one length.
struct Leaves<'a> {
    name: &'a str,
    shape: &'a [usize],
    indices: Vec<usize>,
    found: Vec<&'a Json>,
}

impl<'a> Leaves<'a> {
    fn collect(&mut self, value: &'a Json) -> Result<(), InputError> {
        let depth = self.indices.len();
        match (value, self.shape.get(depth)) {
            (Json::Array(items), Some(&length)) if items.len() == length => {
                for (index, item) in items.iter().enumerate() {
                    self.indices.push(index);
                    self.collect(item)?;
                    self.indices.pop();
                }
                Ok(())
            }
            (Json::Array(_), _) | (_, Some(_)) => Err(self.ragged(value)),
            (leaf, None) => {
                self.found.push(leaf);
                Ok(())
            }
        }
    }

    fn ragged(&self, value: &Json) -> InputError {
        let depth = self.indices.len();
        let extent = |length: usize| match length {
            1 => "1 element".to_owned(),
            _ => format!("{length} elements"),
        };
        let found = match value {
            Json::Array(items) => extent(items.len()),
            _ => "a single value".to_owned(),
        };
        let expected = match self.shape.get(depth) {
            Some(&length) => extent(length),
            None => "a single value".to_owned(),
        };
        let place_of = |indices: &[usize]| place(self.name, indices);
        let (place, first) = (place_of(&self.indices), place_of(&vec![0; depth]));
        InputError::Ragged { place, found, first, expected }
    }
}

fn place(name: &str, indices: &[usize]) -> String {
    let indices: String = indices.iter().map(|index| format!("[{index}]")).collect();
    format!("{name}{indices}")
}

fn indices_of(mut position: usize, shape: &[usize]) -> Vec<usize> {
    let mut indices: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&size| {
            let index = position % size.max(1);
            position /= size.max(1);
            index
        })
        .collect();
    indices.reverse();
    indices
}

fn shortened(value: &Json) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

enum ElementError {
    Wrong { position: usize, expected: &'static str },
    NoTensor(TensorError),
}

impl From<TensorError> for ElementError {
    fn from(error: TensorError) -> Self {
        ElementError::NoTensor(error)
    }
}

fn elements(found: &[&Json], shape: Shape, data_type: DataType) -> Result<Tensor, ElementError> {
    macro_rules! whole {
        ($rust:ty, $expected:literal) => {
            numbers(found, shape, $expected, |value| {
                let signed = value.as_i64().and_then(|number| <$rust>::try_from(number).ok());
                signed.or_else(|| value.as_u64().and_then(|number| number.try_into().ok()))
            })
        };
    }
    match data_type {
        DataType::Bool => {
            let bools = convert(found, "true or false", Json::as_bool)?;
            Ok(Tensor::from_bools(shape, bools)?)
        }
        DataType::Uint8 => whole!(u8, "a whole number from 0 to 255"),
        DataType::Uint16 => whole!(u16, "a whole number from 0 to 65535"),
        DataType::Uint32 => whole!(u32, "a whole number from 0 to 4294967295"),
        DataType::Uint64 => whole!(u64, "a whole number from 0 to 18446744073709551615"),
        DataType::Int8 => whole!(i8, "a whole number from -128 to 127"),
        DataType::Int16 => whole!(i16, "a whole number from -32768 to 32767"),
        DataType::Int32 => whole!(i32, "a whole number from -2147483648 to 2147483647"),
        DataType::Int64 => {
            whole!(i64, "a whole number from -9223372036854775808 to 9223372036854775807")
        }
        DataType::Fp16 => numbers(found, shape, "a number that FP16 can hold", |value| {
            finite_as_given(value, f16::from_f64, |half| half.is_finite())
        }),
        DataType::Bf16 => numbers(found, shape, "a number that BF16 can hold", |value| {
            finite_as_given(value, bf16::from_f64, |half| half.is_finite())
        }),
        DataType::Fp32 => numbers(found, shape, "a number that FP32 can hold", |value| {
            finite_as_given(value, |number| number as f32, |single| single.is_finite())
        }),
        DataType::Fp64 => numbers(found, shape, "a number", float),
        DataType::Bytes => {
            let strings: Strings = convert(found, "a string", Json::as_str)?.into_iter().collect();
            Ok(Tensor::from_strings(shape, strings)?)
        }
    }
}

fn convert<'a, T>(
    found: &[&'a Json],
    expected: &'static str,
    convert: impl Fn(&'a Json) -> Option<T>,
) -> Result<Vec<T>, ElementError> {
    let wrong = |position| ElementError::Wrong { position, expected };
    let values = found.iter().enumerate();
    values.map(|(position, value)| convert(value).ok_or_else(|| wrong(position))).collect()
}

fn numbers<T: Element + Send>(
    found: &[&Json],
    shape: Shape,
    expected: &'static str,
    number: impl Fn(&Json) -> Option<T>,
) -> Result<Tensor, ElementError> {
    Ok(Tensor::from_vec(shape, convert(found, expected, number)?)?)
}

fn float(value: &Json) -> Option<f64> {
    match value {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// Rounds to a narrower type as every reader of decimals does, but not to infinity.
fn finite_as_given<T>(
    value: &Json,
    narrow: impl Fn(f64) -> T,
    is_finite: impl Fn(&T) -> bool,
) -> Option<T> {
    let wide = float(value)?;
    let narrowed = narrow(wide);
    (is_finite(&narrowed) || !wide.is_finite()).then_some(narrowed)
}

/// Writes a tensor as nested lists. Numbers have the fewest digits that lead back to the same
/// element; bytes that are not UTF-8 are written as `{"b64": "..."}`.
pub(super) fn json(tensor: &Tensor) -> Json {
    fn all<T: Element>(tensor: &Tensor, write: impl Fn(T) -> Json) -> Vec<Json> {
        tensor
            .elements_of::<T>()
            .map(|all| all.iter().copied().map(write).collect())
            .unwrap_or_default()
    }
    let elements = match tensor.data_type() {
        DataType::Bool => {
            let bytes = tensor.as_bytes().map(|bytes| bytes.as_ref()).unwrap_or_default();
            bytes.iter().map(|&byte| Json::from(byte == 1)).collect()
        }
        DataType::Uint8 => all::<u8>(tensor, Json::from),
        DataType::Uint16 => all::<u16>(tensor, Json::from),
        DataType::Uint32 => all::<u32>(tensor, Json::from),
        DataType::Uint64 => all::<u64>(tensor, Json::from),
        DataType::Int8 => all::<i8>(tensor, Json::from),
        DataType::Int16 => all::<i16>(tensor, Json::from),
        DataType::Int32 => all::<i32>(tensor, Json::from),
        DataType::Int64 => all::<i64>(tensor, Json::from),
        DataType::Fp16 => all::<f16>(tensor, |half| float_json(&half.to_f32())),
        DataType::Bf16 => all::<bf16>(tensor, |half| float_json(&half.to_f32())),
        DataType::Fp32 => all::<f32>(tensor, |single| float_json(&single)),
        DataType::Fp64 => all::<f64>(tensor, |double| float_json(&double)),
        DataType::Bytes => {
            let strings = tensor.as_strings();
            strings.map(|strings| strings.iter().map(bytes_json).collect()).unwrap_or_default()
        }
    };
    nest(&mut elements.into_iter(), tensor.shape())
}

fn nest(elements: &mut impl Iterator<Item = Json>, shape: &[usize]) -> Json {
    match shape.split_first() {
        None => elements.next().unwrap_or(Json::Null),
        Some((&size, rest)) => (0..size).map(|_| nest(elements, rest)).collect(),
    }
}

/// The shortest decimal of the narrow type, read as an `f64`, prints as that decimal again.
fn float_json(number: &impl fmt::Display) -> Json {
    let text = number.to_string();
    match text.as_str() {
        "NaN" => Json::from("NaN"),
        "inf" => Json::from("Infinity"),
        "-inf" => Json::from("-Infinity"),
        decimal => decimal.parse::<f64>().map_or(Json::Null, Json::from),
    }
}

fn bytes_json(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => Json::from(text),
        Err(_) => serde_json::json!({ "b64": base64(bytes) }),
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let at = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            let is_padding = digit > group.len();
            text.push(if is_padding { '=' } else { char::from(DIGITS[value as usize]) });
        }
    }
    text
}

#[cfg(test)]
mod tests;
