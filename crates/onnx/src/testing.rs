//! Models for tests, written as text and encoded by hand, so that no test trusts the reader to
//! check itself.
//!
//! ```text
//! in x [batch,4]             an input; `in x i[batch]` has INT64 elements; [?] is a nameless size
//! out y [batch,3]
//! const w f[4,3]             floats, all 0.5; `const s i[2] = 0,-1` gives values
//! h = MatMul(x, w)
//! y = com.microsoft.Gelu(h) axis=-1 perm=[1,0] mode="linear"
//! ```

use crate::model::OnnxModel;
use crate::{OnnxError, parse};
use bytes::Bytes;
use std::path::Path;

/// Encodes a field that holds bytes.
pub(crate) fn field(number: u64, contents: impl AsRef<[u8]>) -> Vec<u8> {
    let contents = contents.as_ref();
    let mut bytes = varint(number << 3 | 2);
    bytes.extend(varint(contents.len() as u64));
    bytes.extend_from_slice(contents);
    bytes
}

/// Encodes a field that holds an integer.
pub(crate) fn int(number: u64, value: i64) -> Vec<u8> {
    [varint(number << 3), varint(value.cast_unsigned())].concat()
}

pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A `TensorProto` with raw data.
pub(crate) fn tensor(name: &str, data_type: i64, dims: &[i64], raw: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = dims.iter().flat_map(|&dim| int(1, dim)).collect();
    bytes.extend(int(2, data_type));
    bytes.extend(field(8, name));
    bytes.extend(field(9, raw));
    bytes
}

/// A `ValueInfoProto` of a tensor.
pub(crate) fn value_info(name: &str, element: i64, dims: &[&str]) -> Vec<u8> {
    let dims = dims.iter().flat_map(|&dim| {
        let contents = match (dim, dim.parse::<i64>()) {
            ("?", _) => Vec::new(),
            (_, Ok(size)) => int(1, size),
            (name, Err(_)) => field(2, name),
        };
        field(1, contents)
    });
    let shape: Vec<u8> = dims.collect();
    let tensor_type = [int(1, element), field(2, shape)].concat();
    [field(1, name), field(2, field(1, tensor_type))].concat()
}

/// A `ModelProto` around the fields of a graph.
pub(crate) fn model(graph: &[u8], opset: i64) -> Vec<u8> {
    let mut bytes = [int(1, 8), field(2, "test"), field(7, graph)].concat();
    for domain in ["", "ai.onnx.ml", "com.microsoft", "com.example"] {
        bytes.extend(field(8, [field(1, domain), int(2, opset)].concat()));
    }
    bytes
}

/// Encodes the fields of a graph.
pub(crate) fn graph(text: &str) -> Vec<u8> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).flat_map(line).collect()
}

fn line(line: &str) -> Vec<u8> {
    let (first, rest) = line.split_once(' ').unwrap();
    match first {
        "in" => field(11, declared(rest)),
        "out" => field(12, declared(rest)),
        "const" => field(5, constant(rest)),
        _ => field(1, node(line)),
    }
}

/// Splits `name f[a,b] = 1,2`.
fn parts(text: &str) -> (&str, i64, Vec<&str>, Option<&str>) {
    let (name, rest) = text.split_once(' ').unwrap();
    let (shape, values) = match rest.split_once('=') {
        Some((shape, values)) => (shape.trim(), Some(values.trim())),
        None => (rest.trim(), None),
    };
    let element = match shape.chars().next().unwrap() {
        'i' => 7,
        'b' => 9,
        _ => 1,
    };
    let dims = shape.trim_start_matches(['i', 'f', 'b']).trim_matches(['[', ']']);
    let dims = if dims.is_empty() { Vec::new() } else { dims.split(',').collect() };
    (name, element, dims, values)
}

fn declared(text: &str) -> Vec<u8> {
    let (name, element, dims, _) = parts(text);
    value_info(name, element, &dims)
}

fn constant(text: &str) -> Vec<u8> {
    let (name, element, dims, values) = parts(text);
    let dims: Vec<i64> = dims.iter().map(|dim| dim.parse().unwrap()).collect();
    let count: i64 = dims.iter().product();
    let values = values.map(|values| values.split(',').collect::<Vec<&str>>());
    let value = |index: i64, default: &str| {
        let index = usize::try_from(index).unwrap();
        values.as_ref().map_or(default.to_owned(), |values| values[index].trim().to_owned())
    };
    let raw: Vec<u8> = match element {
        7 => (0..count).flat_map(|i| value(i, "1").parse::<i64>().unwrap().to_le_bytes()).collect(),
        9 => (0..count).map(|i| value(i, "0").parse().unwrap()).collect(),
        _ => {
            (0..count).flat_map(|i| value(i, "0.5").parse::<f32>().unwrap().to_le_bytes()).collect()
        }
    };
    tensor(name, element, &dims, &raw)
}

/// Encodes `a,b = domain.Op(x, y) axis=1`.
pub(crate) fn node(line: &str) -> Vec<u8> {
    let (outputs, call) = line.split_once(" = ").unwrap();
    let (operator, rest) = call.split_once('(').unwrap();
    let (inputs, attributes) = rest.split_once(')').unwrap();
    let (domain, operator) = operator.rsplit_once('.').unwrap_or(("", operator));
    let mut bytes = Vec::new();
    if !inputs.trim().is_empty() {
        bytes.extend(inputs.split(',').flat_map(|name| field(1, name.trim())));
    }
    bytes.extend(outputs.split(',').flat_map(|name| field(2, name.trim())));
    bytes.extend(field(4, operator));
    bytes.extend(field(7, domain));
    bytes.extend(attributes.split_whitespace().flat_map(|text| field(5, attribute(text))));
    bytes
}

fn attribute(text: &str) -> Vec<u8> {
    let (name, value) = text.split_once('=').unwrap();
    let mut bytes = field(1, name);
    if let Some(list) = value.strip_prefix('[') {
        let list = list.trim_end_matches(']').split(',').filter(|item| !item.is_empty());
        bytes.extend(list.flat_map(|item| int(8, item.parse().unwrap())));
        bytes.extend(int(20, 7));
    } else if let Some(string) = value.strip_prefix('"') {
        bytes.extend(field(4, string.trim_end_matches('"')));
        bytes.extend(int(20, 3));
    } else {
        bytes.extend(int(3, value.parse().unwrap()));
        bytes.extend(int(20, 2));
    }
    bytes
}

/// Reads a model written as text.
pub(crate) fn read_text(text: &str, opset: i64) -> Result<OnnxModel, OnnxError> {
    parse(Bytes::from(model(&graph(text), opset)), Path::new("test.onnx"))
}
