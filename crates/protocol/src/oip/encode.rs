//! The answer to an inference request: one JSON object, then the binary data of those outputs that
//! were asked for so, in the order of the outputs.
//!
//! The JSON is appended by hand to one buffer: names come from models and may hold anything, so every
//! string is escaped; numbers are written without going through text of their own.

use std::time::Duration;

use bytes::Bytes;
use half::{bf16, f16};
use outhaul_types::{
    DataType, Element, InferResponse, NamedTensor, Strings, Tensor, TensorData, Timings,
};

use super::OutputFormat;
use crate::{ProtocolError, raw};

/// The body of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedInfer {
    /// The value of the header `Inference-Header-Content-Length`, where binary data follows the
    /// JSON.
    pub json_length: Option<usize>,
    /// The body.
    pub body: Bytes,
}

/// Writes an answer, its outputs in the forms that the request asked for.
///
/// `parameters` of the answer hold how its time was spent, in microseconds, and the rows of the batch
/// that it was part of.
///
/// # Errors
///
/// Fails where a `BYTES` output that is wanted as JSON is not UTF-8.
pub fn encode_infer(
    response: &InferResponse,
    format: &OutputFormat,
) -> Result<EncodedInfer, ProtocolError> {
    let mut out = Vec::with_capacity(size_hint(response, format));
    out.extend_from_slice(b"{\"model_name\":");
    write_string(&mut out, response.model.as_str());
    out.extend_from_slice(b",\"model_version\":\"");
    write_integer(&mut out, response.version.0);
    out.push(b'"');
    if let Some(id) = &response.id {
        out.extend_from_slice(b",\"id\":");
        write_string(&mut out, id);
    }
    write_timings(&mut out, &response.timings);
    out.extend_from_slice(b",\"outputs\":[");
    let mut any_binary = false;
    for (index, output) in response.outputs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        any_binary |= write_output(&mut out, output, format)?;
    }
    out.extend_from_slice(b"]}");
    let json_length = any_binary.then_some(out.len());
    if any_binary {
        for output in response.outputs.iter().filter(|output| format.is_binary(&output.name)) {
            raw::encode(&output.tensor, &mut out);
        }
    }
    Ok(EncodedInfer { json_length, body: out.into() })
}

/// Returns about how long the body gets; growing the buffer once is cheap where this is too low.
fn size_hint(response: &InferResponse, format: &OutputFormat) -> usize {
    let outputs = response.outputs.iter().map(|output| {
        let tensor = &output.tensor;
        let data = match (format.is_binary(&output.name), tensor.data_type()) {
            (true, _) => raw::encoded_size(tensor),
            (false, DataType::Bytes) => tensor.byte_size() + 4 * tensor.len(),
            (false, DataType::Fp64) => 20 * tensor.len(),
            (false, DataType::Fp32 | DataType::Fp16 | DataType::Bf16) => 13 * tensor.len(),
            (false, _) => 6 * tensor.len(),
        };
        128 + output.name.len() + data
    });
    256 + outputs.sum::<usize>()
}

/// Writes one element of `outputs` and returns whether its data is to follow the JSON.
fn write_output(
    out: &mut Vec<u8>,
    output: &NamedTensor,
    format: &OutputFormat,
) -> Result<bool, ProtocolError> {
    let tensor = &output.tensor;
    out.extend_from_slice(b"{\"name\":");
    write_string(out, &output.name);
    out.extend_from_slice(b",\"datatype\":\"");
    out.extend_from_slice(tensor.data_type().name().as_bytes());
    out.extend_from_slice(b"\",\"shape\":");
    write_list(out, tensor.shape().iter(), |out, &size| write_integer(out, size));
    let binary = format.is_binary(&output.name);
    if binary {
        out.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
        write_integer(out, raw::encoded_size(tensor));
        out.push(b'}');
    } else {
        out.extend_from_slice(b",\"data\":");
        write_data(out, tensor).map_err(|index| {
            let output = output.name.clone();
            ProtocolError::OutputNotUtf8 { output, index }
        })?;
    }
    out.push(b'}');
    Ok(binary)
}

/// Writes the elements as one flat list, or fails with the position of a string that is not UTF-8.
fn write_data(out: &mut Vec<u8>, tensor: &Tensor) -> Result<(), usize> {
    let bytes = match tensor.data() {
        TensorData::Strings(strings) => return write_texts(out, strings),
        TensorData::Fixed(bytes) => bytes,
    };
    match tensor.data_type() {
        DataType::Bool => write_list(out, bytes.iter(), |out, &byte| {
            out.extend_from_slice(if byte == 0 { b"false" } else { b"true" });
        }),
        DataType::Uint8 => write_numbers(out, tensor, write_integer::<u8>),
        DataType::Uint16 => write_numbers(out, tensor, write_integer::<u16>),
        DataType::Uint32 => write_numbers(out, tensor, write_integer::<u32>),
        DataType::Uint64 => write_numbers(out, tensor, write_integer::<u64>),
        DataType::Int8 => write_numbers(out, tensor, write_integer::<i8>),
        DataType::Int16 => write_numbers(out, tensor, write_integer::<i16>),
        DataType::Int32 => write_numbers(out, tensor, write_integer::<i32>),
        DataType::Int64 => write_numbers(out, tensor, write_integer::<i64>),
        DataType::Fp16 => write_numbers(out, tensor, |out, value: f16| {
            write_float(out, value.to_f32(), value.is_finite());
        }),
        DataType::Bf16 => write_numbers(out, tensor, |out, value: bf16| {
            write_float(out, value.to_f32(), value.is_finite());
        }),
        DataType::Fp32 => write_numbers(out, tensor, |out, value: f32| {
            write_float(out, value, value.is_finite());
        }),
        DataType::Fp64 => write_numbers(out, tensor, |out, value: f64| {
            write_float(out, value, value.is_finite());
        }),
        // Its elements are never of fixed size.
        DataType::Bytes => out.extend_from_slice(b"[]"),
    }
    Ok(())
}

fn write_numbers<T: Element>(out: &mut Vec<u8>, tensor: &Tensor, write: fn(&mut Vec<u8>, T)) {
    let elements = tensor.elements_of::<T>().unwrap_or_default();
    write_list(out, elements.iter(), |out, &element| write(out, element));
}

fn write_texts(out: &mut Vec<u8>, strings: &Strings) -> Result<(), usize> {
    out.push(b'[');
    for (index, string) in strings.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, std::str::from_utf8(string).map_err(|_| index)?);
    }
    out.push(b']');
    Ok(())
}

pub(super) fn write_list<T>(
    out: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
    write: impl Fn(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

pub(crate) fn write_integer<N: itoa::Integer>(out: &mut Vec<u8>, number: N) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A float that can tell what JSON has no number for.
pub(crate) trait JsonFloat: zmij::Float + Copy {
    fn word(self) -> &'static [u8];
}

macro_rules! json_floats {
    ($($rust:ty),*) => {
        $(impl JsonFloat for $rust {
            fn word(self) -> &'static [u8] {
                if self.is_nan() {
                    b"NaN"
                } else if self > 0.0 {
                    b"Infinity"
                } else {
                    b"-Infinity"
                }
            }
        })*
    };
}

json_floats!(f32, f64);

pub(crate) fn write_float<F: JsonFloat>(out: &mut Vec<u8>, value: F, is_finite: bool) {
    if is_finite {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        out.extend_from_slice(value.word());
    }
}

fn write_timings(out: &mut Vec<u8>, timings: &Timings) {
    out.extend_from_slice(b",\"parameters\":{");
    if !timings.load.is_zero() {
        out.extend_from_slice(b"\"load_us\":");
        write_microseconds(out, timings.load);
        out.push(b',');
    }
    if !timings.transform.is_zero() {
        out.extend_from_slice(b"\"transform_us\":");
        write_microseconds(out, timings.transform);
        out.push(b',');
    }
    out.extend_from_slice(b"\"queue_us\":");
    write_microseconds(out, timings.queue);
    out.extend_from_slice(b",\"assemble_us\":");
    write_microseconds(out, timings.assemble);
    out.extend_from_slice(b",\"compute_us\":");
    write_microseconds(out, timings.compute);
    out.extend_from_slice(b",\"split_us\":");
    write_microseconds(out, timings.split);
    out.extend_from_slice(b",\"batch_rows\":");
    write_integer(out, timings.batch_rows);
    out.push(b'}');
}

/// Writes a duration to a tenth of a microsecond: small models take few.
fn write_microseconds(out: &mut Vec<u8>, duration: Duration) {
    let tenths = duration.as_nanos() / 100;
    // Saturates after 58,000 years.
    let tenths = u64::try_from(tenths).unwrap_or(u64::MAX);
    write_integer(out, tenths / 10);
    out.push(b'.');
    write_integer(out, tenths % 10);
}

/// Writes a string with what JSON needs escaped.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..0x20 => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[written..at]);
        if escape.is_empty() {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        } else {
            out.extend_from_slice(escape);
        }
        written = at + 1;
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}
