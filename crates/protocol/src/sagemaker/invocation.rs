//! One call of `/invocations` and its answer.

use bytes::Bytes;
use outhaul_types::{
    Content, DataType, Field, InferRequest, InferResponse, Name, NamedTensor, RequestedOutput,
    Shape, ShapePattern, Strings, Tensor, TensorSpec, VersionChoice,
};
use smallvec::SmallVec;

use super::media::triton;
use super::{Accepted, ContentType, array};
use crate::oip::{OutputFormat, Target, decode_infer, encode_infer};
use crate::rows::{Inputs, JsonValue, RowWriter, decode_columns, decode_instances, encode_columns};
use crate::rows::{RowError, encode_rows, parse_json};
use crate::{DecodeLimits, ProtocolError, Schema, csv, npy};

/// What must be kept of a call to write its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct InvocationFormat {
    form: Form,
    /// The rows that must be answered, where the form has rows.
    rows: Option<usize>,
}

#[derive(Clone, Debug, PartialEq)]
enum Form {
    /// `{"predictions": [...]}`
    Rows,
    /// `{"outputs": ...}`
    Columns,
    /// As the Open Inference Protocol has it.
    Oip(OutputFormat),
    /// A prediction a line.
    JsonLines(&'static str),
    Csv {
        header: bool,
    },
    Npy,
}

/// A call, read.
#[derive(Clone, Debug)]
pub struct DecodedInvocation {
    /// What is asked of the model.
    pub request: InferRequest,
    /// How the answer is wanted.
    pub format: InvocationFormat,
}

/// An answer and its media type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The value of `Content-Type`.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
}

/// Reads a call. `outputs` are those that the caller names beside the body, where it does.
///
/// # Errors
///
/// Fails where the body is not what its type says or nothing that the model takes, and where the answer
/// that is wanted cannot hold what the model gives.
pub fn decode_invocation(
    body: &Bytes,
    (content_type, accepted): (ContentType, Accepted),
    outputs: &[Name],
    model: &Schema<'_>,
    limits: &DecodeLimits,
) -> Result<DecodedInvocation, ProtocolError> {
    let (mut request, own) = match content_type {
        ContentType::Json => json(body, model, limits)?,
        ContentType::Triton(length) => oip(body, Some(length), model, limits)?,
        ContentType::JsonLines(name) => {
            (of_inputs(model, lines(body, model, limits)?), Form::JsonLines(name))
        }
        ContentType::Csv => {
            (of_inputs(model, csv::decode(body, model, limits)?), Form::Csv { header: false })
        }
        ContentType::Npy => (of_inputs(model, array::decode(body, model, limits)?), Form::Npy),
        ContentType::Text | ContentType::Image | ContentType::Bytes => {
            (of_inputs(model, one_value(body, content_type, model)?), Form::Rows)
        }
    };
    if request.outputs.is_empty() {
        let wanted = |name: &Name| RequestedOutput { name: name.clone(), classification: None };
        request.outputs = outputs.iter().map(wanted).collect();
    }
    // Inputs that came as rows have one for each.
    let rows = match own {
        Form::Rows | Form::JsonLines(_) | Form::Csv { .. } => {
            request.inputs.first().and_then(|input| input.tensor.shape().rows())
        }
        Form::Columns | Form::Oip(_) | Form::Npy => None,
    };
    let form = match (accepted, own) {
        (Accepted::Any, Form::Npy) if fits_array(&request, model).is_err() => Form::Rows,
        (Accepted::Any, own) | (Accepted::Json, own @ (Form::Columns | Form::Oip(_))) => own,
        (Accepted::Json, _) => Form::Rows,
        (Accepted::JsonLines(name), _) => Form::JsonLines(name),
        (Accepted::Csv { header }, _) => Form::Csv { header },
        (Accepted::Npy, _) => {
            fits_array(&request, model)?;
            Form::Npy
        }
    };
    Ok(DecodedInvocation { request, format: InvocationFormat { form, rows } })
}

fn of_inputs(model: &Schema<'_>, inputs: Inputs) -> InferRequest {
    InferRequest { inputs, ..InferRequest::new(model.name, []) }
}

/// Reads JSON in any of its forms.
fn json(
    body: &Bytes,
    model: &Schema<'_>,
    limits: &DecodeLimits,
) -> Result<(InferRequest, Form), ProtocolError> {
    let value = parse_json(body)?;
    if value.as_list().is_some() {
        return Ok((of_inputs(model, decode_instances(&value, model, limits)?), Form::Rows));
    }
    match (value.get("instances"), value.get("inputs")) {
        (Some(_), Some(_)) => Err(ProtocolError::NotTaken {
            request: "this",
            name: "inputs".to_owned(),
            reason: "'instances' is given too, and only one of the two can be",
        }),
        (Some(rows), None) => {
            Ok((of_inputs(model, decode_instances(rows, model, limits)?), Form::Rows))
        }
        (None, Some(inputs)) if is_oip(inputs) => oip(body, None, model, limits),
        (None, Some(inputs)) => {
            Ok((of_inputs(model, decode_columns(inputs, model, limits)?), Form::Columns))
        }
        (None, None) if value.as_object().is_some() => Err(ProtocolError::missing("instances")),
        (None, None) => {
            let problem = format!(
                "the body must be a list of rows, or an object with 'instances' or 'inputs', got {}",
                value.kind()
            );
            Err(RowError { problem, ..RowError::default() }.into())
        }
    }
}

/// Whether these are the inputs of a request of the Open Inference Protocol: tensors by name and type.
fn is_oip(inputs: &JsonValue<'_>) -> bool {
    let is_tensor = |input: &JsonValue<'_>| {
        ["name", "datatype", "shape"].iter().all(|key| input.get(key).is_some())
    };
    inputs.as_list().and_then(|inputs| inputs.first()).is_some_and(is_tensor)
}

fn oip(
    body: &Bytes,
    json_length: Option<usize>,
    model: &Schema<'_>,
    limits: &DecodeLimits,
) -> Result<(InferRequest, Form), ProtocolError> {
    let target = Target { model: model.name.into(), version: VersionChoice::Latest };
    let decoded = decode_infer(body.clone(), json_length, target, limits)?;
    Ok((decoded.request, Form::Oip(decoded.format)))
}

/// Reads a row a line. Empty lines count for nothing.
fn lines(body: &Bytes, model: &Schema<'_>, limits: &DecodeLimits) -> Result<Inputs, ProtocolError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| ProtocolError::NotUtf8 { offset: error.valid_up_to() })?;
    let (mut rows, mut numbers) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let number = index + 1;
        let row = parse_json(line.as_bytes()).map_err(|error| match error {
            ProtocolError::Json { problem, column, .. } => {
                ProtocolError::Json { problem, line: number, column }
            }
            other => other,
        })?;
        rows.push(row);
        numbers.push(number as u64);
    }
    let rows = JsonValue::List(rows.into_boxed_slice());
    decode_instances(&rows, model, limits).map_err(|error| match error {
        ProtocolError::Row(mut error) => {
            error.line = error.row.and_then(|row| numbers.get(row).copied());
            ProtocolError::Row(error)
        }
        other => other,
    })
}

/// Takes the whole body for the one value of the one row.
fn one_value(
    body: &Bytes,
    content_type: ContentType,
    model: &Schema<'_>,
) -> Result<Inputs, ProtocolError> {
    let not_taken = |reason| ProtocolError::NotTaken {
        request: "this",
        name: "Content-Type".to_owned(),
        reason,
    };
    let fields = model.interface.inputs.iter().map(Some).chain(std::iter::repeat(None));
    let mut required = model.signature.inputs.iter().zip(fields).filter(|(spec, _)| !spec.optional);
    let (Some((spec, field)), None) = (required.next(), required.next()) else {
        return Err(not_taken("the model takes several inputs: send rows"));
    };
    if spec.data_type != DataType::Bytes {
        return Err(not_taken("the model takes numbers: send rows or an array"));
    }
    let content = field.map_or(Content::Tensor, |field: &Field| field.content);
    match (content_type, content) {
        (ContentType::Text, Content::Image) => return Err(not_taken("the model takes a picture")),
        (ContentType::Image, Content::Text | Content::Category | Content::Date) => {
            return Err(not_taken("the model takes a text"));
        }
        (ContentType::Text, _) => {
            std::str::from_utf8(body)
                .map_err(|error| ProtocolError::NotUtf8 { offset: error.valid_up_to() })?;
        }
        _ => {}
    }
    let rank = match &spec.shape {
        ShapePattern::Ranked(sizes) => sizes.len(),
        ShapePattern::AnyRank => 1,
    };
    let whole = std::iter::once(0..body.len()).collect();
    let value = Strings::from_spans(body.clone(), whole);
    let value = value.expect("the span is the whole body");
    let tensor = Tensor::from_strings(Shape::new(std::iter::repeat_n(1, rank)), value)
        .expect("ones make one element");
    Ok(SmallVec::from_iter([NamedTensor { name: spec.name.clone(), tensor }]))
}

/// Checks that the answer is one array of numbers.
fn fits_array(request: &InferRequest, model: &Schema<'_>) -> Result<(), ProtocolError> {
    let outputs = &model.signature.outputs;
    let named = |name: &Name| {
        let inner = model.interface.inner.iter().flat_map(|inner| &inner.outputs);
        outputs.iter().chain(inner).find(|spec| spec.name == *name)
    };
    let only: Option<&TensorSpec> = match (&request.outputs[..], &outputs[..]) {
        // That there is no such output is told by whoever looks for it.
        ([one], _) => match named(&one.name) {
            Some(spec) => Some(spec),
            None => return Ok(()),
        },
        ([], [one]) => Some(one),
        _ => None,
    };
    let reason = match only {
        Some(spec) if spec.data_type != DataType::Bytes => return Ok(()),
        Some(_) => "the model's output is text",
        None => {
            "the model has several outputs: name one in X-Amzn-SageMaker-Custom-Attributes, \
             output=NAME"
        }
    };
    let name = "Accept: application/x-npy".to_owned();
    Err(ProtocolError::NotTaken { request: "this", name, reason })
}

/// Writes the answer to a call.
///
/// # Errors
///
/// Fails where the model's outputs cannot be told in the form that is wanted.
pub fn encode_invocation(
    format: &InvocationFormat,
    responses: &[InferResponse],
    model: &Schema<'_>,
) -> Result<Encoded, ProtocolError> {
    let mut out = Vec::new();
    if let Some(rows) = format.rows {
        RowWriter::new(responses, model)?.expect_rows(rows)?;
    }
    let accepted = match &format.form {
        Form::Rows => {
            out.extend_from_slice(b"{\"predictions\":");
            encode_rows(responses, model, &mut out)?;
            out.push(b'}');
            Accepted::Json
        }
        Form::Columns => {
            out.extend_from_slice(b"{\"outputs\":");
            encode_columns(responses, model, &mut out)?;
            out.push(b'}');
            Accepted::Json
        }
        Form::JsonLines(name) => {
            RowWriter::new(responses, model)?.write(&mut out, b"", b"\n", b"\n");
            Accepted::JsonLines(name)
        }
        &Form::Csv { header } => {
            let encode = if header { csv::encode } else { csv::encode_lines };
            encode(responses, model, &mut out)?;
            Accepted::Csv { header }
        }
        Form::Npy => {
            let mut outputs = responses.iter().flat_map(|response| &response.outputs);
            if let Some(output) = outputs.next() {
                out = npy::encode(&output.tensor)?;
            }
            Accepted::Npy
        }
        Form::Oip(format) => return encode_oip(format, responses),
    };
    Ok(Encoded { content_type: accepted.media().to_owned(), body: out.into() })
}

fn encode_oip(
    format: &OutputFormat,
    responses: &[InferResponse],
) -> Result<Encoded, ProtocolError> {
    let Some(response) = responses.first() else { return Err(ProtocolError::NoRows) };
    let encoded = encode_infer(response, format)?;
    let content_type = match encoded.json_length {
        Some(length) => triton(length),
        None => Accepted::Json.media().to_owned(),
    };
    Ok(Encoded { content_type, body: encoded.body })
}
