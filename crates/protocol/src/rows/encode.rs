//! Answers as predictions, one a row, or as whole tensors.
//!
//! Strings are written as text where they are UTF-8 and as `{"b64": "..."}` where they are not; so is
//! every string of an output that is a picture or whose name ends in `_bytes`, which is TensorFlow
//! Serving's rule. Outputs that hold JSON are written as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use half::{bf16, f16};
use outhaul_types::{
    Content, DataType, Element, InferResponse, NamedTensor, Shape, Strings, Tensor, TensorData,
};

use crate::oip::encode::{JsonFloat, write_float, write_integer, write_string};
use crate::{ProtocolError, Schema};

/// Writes the rows of answers, one after the other.
pub struct RowWriter<'a> {
    /// The outputs of each answer and the number of its rows.
    parts: Vec<(usize, Vec<Output<'a>>)>,
    rows: usize,
}

struct Output<'a> {
    name: &'a str,
    shape: &'a Shape,
    /// Elements of one row.
    step: usize,
    write: Write<'a>,
}

/// Writes one element.
pub(crate) type Write<'a> = Box<dyn Fn(&mut Vec<u8>, usize) + 'a>;

impl<'a> RowWriter<'a> {
    /// Looks at the outputs of answers.
    ///
    /// # Errors
    ///
    /// Fails where the outputs of one answer differ in their number of rows.
    pub fn new(responses: &'a [InferResponse], schema: &Schema<'_>) -> Result<Self, ProtocolError> {
        let mut parts = Vec::with_capacity(responses.len());
        let mut all = 0;
        for response in responses {
            let mut rows = None;
            let mut outputs = Vec::with_capacity(response.outputs.len());
            for output in &response.outputs {
                let shape = output.tensor.shape();
                let wanted = *rows.get_or_insert(shape.rows().unwrap_or(1));
                if shape.rows() != Some(wanted) {
                    let (output, shape) = (output.name.clone(), shape.clone());
                    return Err(ProtocolError::OutputRows { output, shape, rows: wanted });
                }
                outputs.push(Output {
                    name: &output.name,
                    shape,
                    step: output.tensor.len().checked_div(wanted).unwrap_or(0),
                    write: writer(output, schema),
                });
            }
            let rows = rows.unwrap_or(0);
            all += rows;
            parts.push((rows, outputs));
        }
        Ok(RowWriter { parts, rows: all })
    }

    /// Returns the number of rows of all answers.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Checks that there is an answer for each row of the request.
    ///
    /// # Errors
    ///
    /// Fails where the model answers with another number of rows.
    pub fn expect_rows(&self, rows: usize) -> Result<(), ProtocolError> {
        match self.parts.iter().find_map(|(_, outputs)| outputs.first()) {
            Some(output) if self.rows != rows => Err(ProtocolError::OutputRows {
                output: output.name.into(),
                shape: output.shape.clone(),
                rows,
            }),
            _ => Ok(()),
        }
    }

    /// Writes each row's prediction, what stands before the first, between two and after the last given
    /// by the caller.
    pub fn write(&self, out: &mut Vec<u8>, before: &[u8], between: &[u8], after: &[u8]) {
        out.extend_from_slice(before);
        let mut first = true;
        for (rows, outputs) in &self.parts {
            for row in 0..*rows {
                if !std::mem::take(&mut first) {
                    out.extend_from_slice(between);
                }
                write_row(out, outputs, row);
            }
        }
        out.extend_from_slice(after);
    }
}

fn write_row(out: &mut Vec<u8>, outputs: &[Output<'_>], row: usize) {
    let value = |out: &mut Vec<u8>, output: &Output<'_>| {
        write_nested(out, output.shape.row_shape(), row * output.step, &output.write);
    };
    if let [only] = outputs {
        return value(out, only);
    }
    out.push(b'{');
    for (index, output) in outputs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, output.name);
        out.push(b':');
        value(out, output);
    }
    out.push(b'}');
}

/// Writes the elements of some dimensions from `start` on and returns where they end. It calls itself
/// once for each dimension.
fn write_nested(out: &mut Vec<u8>, sizes: &[usize], start: usize, write: &Write<'_>) -> usize {
    let [size, inner @ ..] = sizes else {
        write(out, start);
        return start + 1;
    };
    let mut at = start;
    out.push(b'[');
    // A list of empty lists could be of any length.
    let size = if inner.contains(&0) { 0 } else { *size };
    for index in 0..size {
        if index > 0 {
            out.push(b',');
        }
        at = write_nested(out, inner, at, write);
    }
    out.push(b']');
    at
}

/// Writes the predictions of all answers as one list: bare values where answers have one output, else
/// objects by output name.
///
/// # Errors
///
/// Fails where an output has no rows, or another number of them than the others.
pub fn encode_rows(
    responses: &[InferResponse],
    schema: &Schema<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ProtocolError> {
    RowWriter::new(responses, schema)?.write(out, b"[", b",", b"]");
    Ok(())
}

/// Writes whole tensors as nested lists: the tensor itself where answers have one output, else an object
/// by output name. The rows of several answers are joined.
///
/// # Errors
///
/// Fails where the answers' outputs cannot be joined.
pub fn encode_columns(
    responses: &[InferResponse],
    schema: &Schema<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ProtocolError> {
    let Some(first) = responses.first() else {
        out.extend_from_slice(b"[]");
        return Ok(());
    };
    let single = first.outputs.len() == 1;
    if !single {
        out.push(b'{');
    }
    for (index, output) in first.outputs.iter().enumerate() {
        let parts = responses.iter().filter_map(|response| response.output(&output.name));
        let parts: Vec<&Tensor> = parts.collect();
        let tensor = Tensor::concatenate_rows(&parts).map_err(|error| ProtocolError::Input {
            input: output.name.clone(),
            problem: crate::raw::problem(error),
        })?;
        let whole = NamedTensor { name: output.name.clone(), tensor };
        if !single {
            if index > 0 {
                out.push(b',');
            }
            write_string(out, &whole.name);
            out.push(b':');
        }
        write_nested(out, whole.tensor.shape(), 0, &writer(&whole, schema));
    }
    if !single {
        out.push(b'}');
    }
    Ok(())
}

/// Returns what writes one element of an output as JSON.
pub(crate) fn writer<'a>(output: &'a NamedTensor, schema: &Schema<'_>) -> Write<'a> {
    let tensor = &output.tensor;
    let bytes = match tensor.data() {
        TensorData::Strings(strings) => return texts(strings, output, schema),
        TensorData::Fixed(bytes) => bytes,
    };
    match tensor.data_type() {
        DataType::Bool => Box::new(|out, index| {
            let truth = bytes.get(index).is_some_and(|&byte| byte != 0);
            out.extend_from_slice(if truth { b"true" } else { b"false" });
        }),
        DataType::Uint8 => numbers(tensor, write_integer::<u8>),
        DataType::Uint16 => numbers(tensor, write_integer::<u16>),
        DataType::Uint32 => numbers(tensor, write_integer::<u32>),
        DataType::Uint64 => numbers(tensor, write_integer::<u64>),
        DataType::Int8 => numbers(tensor, write_integer::<i8>),
        DataType::Int16 => numbers(tensor, write_integer::<i16>),
        DataType::Int32 => numbers(tensor, write_integer::<i32>),
        DataType::Int64 => numbers(tensor, write_integer::<i64>),
        DataType::Fp16 => numbers(tensor, |out, value: f16| float(out, value.to_f32())),
        DataType::Bf16 => numbers(tensor, |out, value: bf16| float(out, value.to_f32())),
        DataType::Fp32 => numbers(tensor, |out, value: f32| float(out, value)),
        DataType::Fp64 => numbers(tensor, |out, value: f64| float(out, value)),
        // Its elements are never of fixed size.
        DataType::Bytes => Box::new(|_, _| {}),
    }
}

fn float<F: JsonFloat + Into<f64>>(out: &mut Vec<u8>, value: F) {
    write_float(out, value, value.into().is_finite());
}

fn numbers<T: Element>(tensor: &Tensor, write: fn(&mut Vec<u8>, T)) -> Write<'_> {
    let elements = tensor.elements_of::<T>().unwrap_or_default();
    Box::new(move |out, index| {
        if let Some(&element) = elements.get(index) {
            write(out, element);
        }
    })
}

fn texts<'a>(strings: &'a Strings, output: &NamedTensor, schema: &Schema<'_>) -> Write<'a> {
    let content = content(&output.name, schema);
    let bytes = content == Content::Image || output.name.ends_with("_bytes");
    Box::new(move |out, index| {
        let string = strings.get(index).unwrap_or_default();
        match std::str::from_utf8(string) {
            Ok(json) if content == Content::Json => out.extend_from_slice(json.as_bytes()),
            Ok(text) if !bytes => write_string(out, text),
            _ => {
                out.extend_from_slice(b"{\"b64\":\"");
                out.extend_from_slice(STANDARD.encode(string).as_bytes());
                out.extend_from_slice(b"\"}");
            }
        }
    })
}

/// Returns what an output means, by its name; the model's own outputs are tensors.
fn content(name: &str, schema: &Schema<'_>) -> Content {
    let index = schema.signature.output_index(name);
    let field = index.and_then(|index| schema.interface.outputs.get(index));
    field.map_or(Content::Tensor, |field| field.content)
}
