//! Answers as lines: a column for each value of a row.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outhaul_types::{InferResponse, NamedTensor, Strings};

use crate::rows::{Write, writer};
use crate::{ProtocolError, Schema};

/// Writes a header and a line for each row. An output of several values a row becomes as many columns,
/// called after it and the class or the place: `probabilities_setosa`, `embedding_0`.
///
/// # Errors
///
/// Fails where an output has no rows, or another number of them than the others.
pub fn encode(
    responses: &[InferResponse],
    schema: &Schema<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ProtocolError> {
    if let Some(first) = responses.first() {
        let rows = rows_of(first)?;
        let mut separator: &[u8] = b"";
        for output in &first.outputs {
            let columns = output.tensor.len().checked_div(rows).unwrap_or(0);
            let one_value = output.tensor.shape().len() == 1;
            let index = schema.signature.output_index(&output.name);
            let field = index.and_then(|index| schema.interface.outputs.get(index));
            let choices = field.and_then(|field| field.choices.as_ref());
            for column in 0..columns {
                out.extend_from_slice(separator);
                separator = b",";
                let class = choices.filter(|choices| choices.len() == columns);
                match class.map(|choices| &choices[column]) {
                    _ if one_value => write_field(out, &output.name),
                    Some(class) => write_field(out, &format!("{}_{class}", output.name)),
                    None => write_field(out, &format!("{}_{column}", output.name)),
                }
            }
        }
        out.push(b'\n');
    }
    encode_lines(responses, schema, out)
}

/// Writes a line for each row, without a header.
///
/// # Errors
///
/// Fails where an output has no rows, or another number of them than the others.
pub fn encode_lines(
    responses: &[InferResponse],
    schema: &Schema<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ProtocolError> {
    for response in responses {
        let rows = rows_of(response)?;
        let columns: Vec<_> = response
            .outputs
            .iter()
            .map(|output| {
                let step = output.tensor.len().checked_div(rows).unwrap_or(0);
                (step, element_writer(output, schema))
            })
            .collect();
        for row in 0..rows {
            let mut separator: &[u8] = b"";
            for (step, write) in &columns {
                for element in row * step..(row + 1) * step {
                    out.extend_from_slice(separator);
                    separator = b",";
                    write(out, element);
                }
            }
            out.push(b'\n');
        }
    }
    Ok(())
}

fn rows_of(response: &InferResponse) -> Result<usize, ProtocolError> {
    let first = response.outputs.first();
    let rows = first.map_or(0, |output| output.tensor.shape().rows().unwrap_or(1));
    match response.outputs.iter().find(|output| output.tensor.shape().rows() != Some(rows)) {
        None => Ok(rows),
        Some(output) => Err(ProtocolError::OutputRows {
            output: output.name.clone(),
            shape: output.tensor.shape().clone(),
            rows,
        }),
    }
}

fn element_writer<'a>(output: &'a NamedTensor, schema: &Schema<'_>) -> Write<'a> {
    match output.tensor.as_strings() {
        None => writer(output, schema),
        Some(strings) => Box::new(|out, index| write_string(out, strings, index)),
    }
}

fn write_string(out: &mut Vec<u8>, strings: &Strings, index: usize) {
    let string = strings.get(index).unwrap_or_default();
    match std::str::from_utf8(string) {
        Ok(text) => write_field(out, text),
        Err(_) => out.extend_from_slice(STANDARD.encode(string).as_bytes()),
    }
}

/// Writes a text, in quotes where it would not read back without.
fn write_field(out: &mut Vec<u8>, text: &str) {
    // Alone on its line, an empty field would be no line at all for most readers.
    let is_plain = |byte| !matches!(byte, b',' | b'"' | b'\n' | b'\r');
    if !text.is_empty() && text.bytes().all(is_plain) {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}
