//! A call for embeddings and its answer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use outhaul_types::{
    Content, Dimension, InferRequest, InferResponse, Name, NamedTensor, RequestedOutput,
    ShapePattern, Task, Tensor, TensorSpec,
};

use super::input::{Input, Place, grouped, no_tokens};
use super::{check_task, given, positive, wrong_type};
use crate::error::excerpt;
use crate::oip::encode::{write_float, write_integer, write_string};
use crate::rows::{JsonValue, parse_json};
use crate::{FieldProblem, ProtocolError, Schema};

/// The model's own input of token ids.
const TOKEN_IDS: &str = "input_ids";

/// How vectors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Lists of numbers.
    Float,
    /// Base64 of FP32, little-endian. OpenAI's own clients ask for it.
    Base64,
}

/// What must be kept of a call to write its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddingsFormat {
    encoding: Encoding,
    /// Only the first so many numbers are wanted.
    dimensions: Option<usize>,
    /// Where the vector of each input is found.
    places: Vec<Place>,
    /// The tokens that the caller sent, where it did.
    tokens: Option<usize>,
}

/// A call, read.
#[derive(Clone, Debug)]
pub struct DecodedEmbeddings {
    /// One for texts; for tokens one for each length of an input, or several where they are many.
    pub requests: Vec<InferRequest>,
    /// How the answer is wanted.
    pub format: EmbeddingsFormat,
}

/// Reads a call for embeddings.
///
/// # Errors
///
/// Fails where the body is no such call, or the model gives no embeddings.
pub fn decode_embeddings(
    body: &[u8],
    model: &Schema<'_>,
) -> Result<DecodedEmbeddings, ProtocolError> {
    let body = parse_json(body)?;
    if body.as_object().is_none() {
        return Err(wrong_type("body", "an object", &body));
    }
    check_task(model, Task::Embedding, "/v1/embeddings")?;
    let output = output(model)?;
    let encoding = encoding(&body)?;
    let dimensions = positive(&body, "dimensions")?;
    if let (Some(wanted), Some(most)) = (dimensions, length(output)) {
        check_dimensions(wanted, most)?;
    }
    let input = match body.get("input") {
        None => return Err(ProtocolError::missing("input")),
        Some(input) => Input::read(input)?,
    };
    let (tensors, places, tokens) = match input {
        Input::Texts(texts) => {
            let name = text_input(model)?;
            let count = texts.len();
            let tensor = Tensor::from_strings([count], texts).expect("as many as the shape says");
            let places = (0..count).map(|row| (0, row)).collect();
            (vec![NamedTensor { name, tensor }], places, None)
        }
        Input::Tokens(tokens) => {
            let count = tokens.iter().map(Vec::len).sum();
            let ids = token_input(model)?;
            let (tensors, places) = grouped(&tokens, ids.data_type, &ids.name)?;
            (tensors, places, Some(count))
        }
    };
    let request = |tensor| InferRequest {
        outputs: vec![RequestedOutput { name: output.name.clone(), classification: None }],
        ..InferRequest::new(model.name, [tensor])
    };
    let requests = tensors.into_iter().map(request).collect();
    let format = EmbeddingsFormat { encoding, dimensions, places, tokens };
    Ok(DecodedEmbeddings { requests, format })
}

fn encoding(body: &JsonValue<'_>) -> Result<Encoding, ProtocolError> {
    const EXPECTED: &str = "'float' or 'base64'";
    match given(body, "encoding_format") {
        None => Ok(Encoding::Float),
        Some(JsonValue::String(text)) => match &**text {
            "float" => Ok(Encoding::Float),
            "base64" => Ok(Encoding::Base64),
            other => {
                let received = format!("'{}'", excerpt(other));
                let problem = FieldProblem::OutOfRange { expected: EXPECTED.into(), received };
                Err(ProtocolError::field("encoding_format", problem))
            }
        },
        Some(other) => Err(wrong_type("encoding_format", EXPECTED, other)),
    }
}

/// Returns the output that holds the vectors.
fn output<'s>(model: &Schema<'s>) -> Result<&'s TensorSpec, ProtocolError> {
    let fields = model.interface.outputs.iter();
    let place = fields.enumerate().find(|(_, field)| field.content == Content::Embedding);
    let output = place.and_then(|(place, _)| model.signature.outputs.get(place));
    output.ok_or(ProtocolError::NotTaken {
        request: "an embeddings",
        name: "model".to_owned(),
        reason: "the model has no output of embeddings",
    })
}

/// Returns the length of the vectors, where the signature tells.
fn length(output: &TensorSpec) -> Option<usize> {
    match &output.shape {
        ShapePattern::Ranked(dimensions) => match dimensions.last() {
            Some(Dimension::Fixed(length)) => Some(*length),
            _ => None,
        },
        ShapePattern::AnyRank => None,
    }
}

fn check_dimensions(wanted: usize, most: usize) -> Result<(), ProtocolError> {
    if wanted <= most {
        return Ok(());
    }
    let expected = format!("at most {most}, the length of the model's vectors").into();
    let problem = FieldProblem::OutOfRange { expected, received: wanted.to_string() };
    Err(ProtocolError::field("dimensions", problem))
}

fn text_input(model: &Schema<'_>) -> Result<Name, ProtocolError> {
    let mut fields = model.interface.inputs.iter().zip(&model.signature.inputs);
    let found = fields.find(|(field, _)| field.content == Content::Text);
    found.map(|(_, spec)| spec.name.clone()).ok_or(ProtocolError::NotTaken {
        request: "an embeddings",
        name: "input".to_owned(),
        reason: "the model takes no texts",
    })
}

fn token_input<'s>(model: &Schema<'s>) -> Result<&'s TensorSpec, ProtocolError> {
    let inner = model.interface.inner.as_ref().ok_or_else(no_tokens)?;
    inner.inputs.iter().find(|spec| spec.name == TOKEN_IDS).ok_or_else(no_tokens)
}

/// Writes the answers to all requests of one call, in their order.
///
/// # Errors
///
/// Fails where more dimensions are wanted than the vectors have and the signature did not tell, or an
/// answer is not what the signature promises.
pub fn encode_embeddings(
    format: &EmbeddingsFormat,
    responses: &[InferResponse],
    model: &Schema<'_>,
) -> Result<Bytes, ProtocolError> {
    let name = &output(model)?.name;
    let answers = responses.iter().map(|response| Vectors::of(response, name));
    let answers = answers.collect::<Result<Vec<_>, _>>()?;
    let bytes: usize = answers.iter().map(|answer| answer.elements.len() * 13).sum();
    let mut out = Vec::with_capacity(bytes + format.places.len() * 64 + 256);
    out.extend_from_slice(b"{\"object\":\"list\",\"data\":[");
    let mut vector = Vec::new();
    for (index, &(answer, row)) in format.places.iter().enumerate() {
        let whole = answers.get(answer).and_then(|answer| answer.row(row));
        let whole = whole.ok_or_else(|| unfit(name, "a vector for each input"))?;
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"object\":\"embedding\",\"index\":");
        write_integer(&mut out, index);
        out.extend_from_slice(b",\"embedding\":");
        vector.clear();
        vector.extend_from_slice(whole);
        if let Some(dimensions) = format.dimensions {
            check_dimensions(dimensions, vector.len())?;
            shorten(&mut vector, dimensions);
        }
        write_vector(&mut out, &vector, format.encoding);
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"model\":");
    write_string(&mut out, model.name);
    let texts = || responses.iter().filter_map(|response| response.tokens).sum();
    write_usage(&mut out, format.tokens.unwrap_or_else(texts));
    out.push(b'}');
    Ok(out.into())
}

/// The vectors of one answer.
struct Vectors<'r> {
    elements: std::borrow::Cow<'r, [f32]>,
    length: usize,
}

impl<'r> Vectors<'r> {
    fn of(response: &'r InferResponse, name: &Name) -> Result<Self, ProtocolError> {
        let tensor = response.output(name);
        let elements = tensor.and_then(|tensor| tensor.elements_of::<f32>());
        match (tensor.map(|tensor| &**tensor.shape()), elements) {
            (Some(&[_, length]), Some(elements)) => Ok(Vectors { elements, length }),
            _ => Err(unfit(name, "FP32 [batch, dimensions]")),
        }
    }

    fn row(&self, row: usize) -> Option<&[f32]> {
        let start = row.checked_mul(self.length)?;
        self.elements.get(start..start.checked_add(self.length)?)
    }
}

fn unfit(output: &Name, expected: &'static str) -> ProtocolError {
    ProtocolError::OutputUnfit { output: output.clone(), expected }
}

/// Keeps the first numbers of a vector and gives what is left length 1, as OpenAI does. Vectors of
/// zeros stay as they are.
fn shorten(vector: &mut Vec<f32>, dimensions: usize) {
    vector.truncate(dimensions);
    let square: f64 = vector.iter().map(|&number| f64::from(number) * f64::from(number)).sum();
    let norm = square.sqrt();
    if norm > 0.0 {
        for number in vector {
            *number = (f64::from(*number) / norm) as f32;
        }
    }
}

fn write_vector(out: &mut Vec<u8>, vector: &[f32], encoding: Encoding) {
    match encoding {
        Encoding::Float => {
            out.push(b'[');
            for (index, &number) in vector.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_float(out, number, number.is_finite());
            }
            out.push(b']');
        }
        Encoding::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            out.push(b'"');
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.push(b'"');
        }
    }
}

/// Writes `,"usage": {...}`.
pub(crate) fn write_usage(out: &mut Vec<u8>, tokens: usize) {
    out.extend_from_slice(b",\"usage\":{\"prompt_tokens\":");
    write_integer(out, tokens);
    out.extend_from_slice(b",\"total_tokens\":");
    write_integer(out, tokens);
    out.push(b'}');
}
