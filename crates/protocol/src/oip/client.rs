//! The other side: writing a request to a server that speaks the protocol, and reading its answer.
//!
//! Tensors travel as binary data both ways. An answer is read as strictly as a request is: it is foreign
//! input, whoever sent it. What is meant for people or for other clients (timings, parameters) is skipped.

use bytes::Bytes;
use outhaul_types::{InferRequest, Name, NamedTensor, Parameter, RequestedOutput, TensorData};
use smallvec::SmallVec;

use super::decode::{BinaryPart, Decoder, once, read_name};
use super::encode::{write_float, write_integer, write_list, write_string};
use super::parameters::BINARY_DATA_OUTPUT;
use super::reader::{Place, Reader};
use crate::{DecodeLimits, FieldProblem, ProtocolError, TensorProblem, raw};

/// The body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedRequest {
    /// The value of the header `Inference-Header-Content-Length`.
    pub json_length: usize,
    /// The body.
    pub body: Bytes,
}

impl EncodedRequest {
    /// The body's content type.
    pub const CONTENT_TYPE: &'static str = "application/octet-stream";
}

/// What a server answered to an inference request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DecodedAnswer {
    /// The model that answered, as the server calls it.
    pub model: Option<Name>,
    /// Its version, as the server calls it.
    pub version: Option<Name>,
    /// The outputs, in the server's order.
    pub outputs: SmallVec<[NamedTensor; 2]>,
}

/// Why bytes are no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum AnswerError {
    #[error("answer is not UTF-8 at byte {offset}")]
    NotUtf8 { offset: usize },
    #[error(
        "header Inference-Header-Content-Length is {json_length}, but the body has {body_length} \
         bytes"
    )]
    HeaderLength { json_length: usize, body_length: usize },
    #[error("output '{output}' {problem}")]
    Output { output: Name, problem: TensorProblem },
    #[error("'{field}' {problem}")]
    Field { field: String, problem: FieldProblem },
    #[error("answer has more than {limit} outputs")]
    TooMany { limit: usize },
    #[error("body has {left} bytes left over after the binary data of its outputs")]
    LeftOver { left: usize },
    #[error(transparent)]
    Malformed(ProtocolError),
}

impl From<ProtocolError> for AnswerError {
    /// Outputs are read as inputs are, so errors call them that.
    fn from(error: ProtocolError) -> Self {
        match error {
            ProtocolError::Input { input, problem } => {
                AnswerError::Output { output: input, problem }
            }
            ProtocolError::Field { field, problem } => {
                let field = match field.strip_prefix("inputs") {
                    Some(rest) => format!("outputs{rest}"),
                    None => field.into_owned(),
                };
                AnswerError::Field { field, problem }
            }
            ProtocolError::TooMany { limit, .. } => AnswerError::TooMany { limit },
            error => AnswerError::Malformed(error),
        }
    }
}

/// Writes a request: all inputs as binary data, all outputs wanted so.
pub fn encode_request(request: &InferRequest) -> EncodedRequest {
    let binary: usize = request.inputs.iter().map(|input| raw::encoded_size(&input.tensor)).sum();
    let mut out = Vec::with_capacity(256 + 128 * request.inputs.len() + binary);
    out.push(b'{');
    if let Some(id) = &request.id {
        out.extend_from_slice(b"\"id\":");
        write_string(&mut out, id);
        out.push(b',');
    }
    write_parameters(&mut out, request);
    out.extend_from_slice(b",\"inputs\":");
    write_list(&mut out, request.inputs.iter(), write_input);
    if !request.outputs.is_empty() {
        out.extend_from_slice(b",\"outputs\":");
        write_list(&mut out, request.outputs.iter(), write_requested);
    }
    out.push(b'}');
    let json_length = out.len();
    for input in &request.inputs {
        raw::encode(&input.tensor, &mut out);
    }
    EncodedRequest { json_length, body: out.into() }
}

fn write_parameters(out: &mut Vec<u8>, request: &InferRequest) {
    out.extend_from_slice(b"\"parameters\":{\"binary_data_output\":true");
    // A gRPC request may carry a parameter of this name.
    let others = request.parameters.iter().filter(|(name, _)| *name != BINARY_DATA_OUTPUT);
    for (name, value) in others {
        out.push(b',');
        write_string(out, name);
        out.push(b':');
        match value {
            Parameter::Bool(true) => out.extend_from_slice(b"true"),
            Parameter::Bool(false) => out.extend_from_slice(b"false"),
            Parameter::Int(number) => write_integer(out, *number),
            Parameter::Float(number) => write_float(out, *number, number.is_finite()),
            Parameter::String(text) => write_string(out, text),
        }
    }
    out.push(b'}');
}

fn write_input(out: &mut Vec<u8>, input: &NamedTensor) {
    let tensor = &input.tensor;
    out.extend_from_slice(b"{\"name\":");
    write_string(out, &input.name);
    out.extend_from_slice(b",\"datatype\":\"");
    out.extend_from_slice(tensor.data_type().name().as_bytes());
    out.extend_from_slice(b"\",\"shape\":");
    write_list(out, tensor.shape().iter(), |out, &size| write_integer(out, size));
    out.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
    write_integer(out, raw::encoded_size(tensor));
    out.extend_from_slice(b"}}");
}

fn write_requested(out: &mut Vec<u8>, output: &RequestedOutput) {
    out.extend_from_slice(b"{\"name\":");
    write_string(out, &output.name);
    out.extend_from_slice(b",\"parameters\":{\"binary_data\":true");
    if let Some(classification) = output.classification {
        out.extend_from_slice(b",\"classification\":");
        write_integer(out, classification.count);
    }
    out.extend_from_slice(b"}}");
}

enum AnswerField {
    Model,
    Version,
    Outputs,
    Unknown,
}

impl AnswerField {
    fn of(key: &str) -> Self {
        match key {
            "model_name" => AnswerField::Model,
            "model_version" => AnswerField::Version,
            "outputs" => AnswerField::Outputs,
            _ => AnswerField::Unknown,
        }
    }
}

/// Reads the body of an answer. `json_length` is the header `Inference-Header-Content-Length`; without it the
/// whole body is JSON.
///
/// Outputs in binary form share `body` and are not copied.
///
/// # Errors
///
/// Fails with the first thing that is wrong, by the name of its field or output.
pub fn decode_answer(
    body: Bytes,
    json_length: Option<usize>,
    limits: &DecodeLimits,
) -> Result<DecodedAnswer, AnswerError> {
    let body_length = body.len();
    let (json, binary) = match json_length {
        None => (body, None),
        Some(length) if length <= body_length => (body.slice(..length), Some(body.slice(length..))),
        Some(json_length) => return Err(AnswerError::HeaderLength { json_length, body_length }),
    };
    let text = std::str::from_utf8(&json)
        .map_err(|error| AnswerError::NotUtf8 { offset: error.valid_up_to() })?;
    let mut decoder = Decoder { text, binary: binary.map(BinaryPart::new), limits };
    let answer = read_answer(&mut decoder)?;
    match decoder.binary {
        Some(binary) if binary.left() > 0 => Err(AnswerError::LeftOver { left: binary.left() }),
        _ => Ok(answer),
    }
}

fn read_answer(decoder: &mut Decoder<'_>) -> Result<DecodedAnswer, ProtocolError> {
    let mut reader = Reader::new(decoder.text);
    let (mut model, mut version, mut outputs) = (None, None, None);
    let mut key = reader.first_key(Place::Request("answer"), AnswerField::of)?;
    while let Some(field) = key {
        match field {
            AnswerField::Model => {
                let place = Place::Request("model_name");
                let value = read_optional(&mut reader, place)?;
                once(&mut model, value, place)?;
            }
            AnswerField::Version => {
                let place = Place::Request("model_version");
                let value = read_optional(&mut reader, place)?;
                once(&mut version, value, place)?;
            }
            AnswerField::Outputs => {
                // Before reading: a second list would take binary data again.
                if outputs.is_some() {
                    return Err(Place::Request("outputs").error(FieldProblem::Duplicate));
                }
                outputs = Some(decoder.inputs(&mut reader)?);
            }
            AnswerField::Unknown => reader.skip()?,
        }
        key = reader.next_key(AnswerField::of)?;
    }
    reader.finish()?;
    let outputs = outputs.ok_or_else(|| ProtocolError::missing("outputs"))?;
    Ok(DecodedAnswer { model: model.flatten(), version: version.flatten(), outputs })
}

/// Reads a name that may be `null` or left empty.
fn read_optional(reader: &mut Reader<'_>, place: Place<'_>) -> Result<Option<Name>, ProtocolError> {
    if reader.null()? {
        return Ok(None);
    }
    match read_name(reader, place) {
        Ok(name) => Ok(Some(name)),
        Err(ProtocolError::Field { problem: FieldProblem::Empty, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether all elements of a request can be written: a string of 4 GiB has no length that fits.
pub fn is_sendable(request: &InferRequest) -> bool {
    request.inputs.iter().all(|input| match input.tensor.data() {
        TensorData::Fixed(_) => true,
        TensorData::Strings(strings) => u32::try_from(strings.byte_size()).is_ok(),
    })
}

#[cfg(test)]
mod tests;
