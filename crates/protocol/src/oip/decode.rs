//! An inference request: a JSON object, then the binary data of those inputs that have a
//! `binary_data_size`, in the order of the inputs.
//!
//! Fields may come in any order. One that the protocol does not know is skipped, one that comes twice
//! is an error, and an optional one that is `null` counts as left out.

use std::ops::Range;

use bytes::Bytes;
use outhaul_types::{
    Classification, DataType, InferRequest, Name, NamedTensor, Parameters, RequestedOutput, Shape,
    Tensor, UnknownDataType, VersionChoice,
};
use smallvec::SmallVec;

use super::OutputFormat;
use super::elements::{DataError, read_tensor};
use super::parameters::{InputParameters, OutputParameters, read_input, read_output, read_request};
use super::reader::{Place, Reader};
use crate::error::excerpt;
use crate::{DecodeLimits, FieldProblem, ProtocolError, TensorProblem, raw};

/// The longest name of a tensor, in bytes: names are repeated in errors and logs.
const LONGEST_NAME: usize = 1024;

/// The model that a request's path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The model, as the caller wrote it.
    pub model: Name,
    /// The version asked for.
    pub version: VersionChoice,
}

/// A request, and how its answer is to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodedInfer {
    /// The request.
    pub request: InferRequest,
    /// Which outputs were asked for as binary data.
    pub format: OutputFormat,
}

/// Reads the body of an inference request. `json_length` is the header
/// `Inference-Header-Content-Length`; without it the whole body is JSON.
///
/// Inputs in binary form share `body` and are not copied.
///
/// # Errors
///
/// Fails with the first thing that is wrong, by the name of its field or input.
pub fn decode_infer(
    body: Bytes,
    json_length: Option<usize>,
    target: Target,
    limits: &DecodeLimits,
) -> Result<DecodedInfer, ProtocolError> {
    let body_length = body.len();
    let (json, binary) = match json_length {
        None => (body, None),
        Some(length) if length <= body_length => (body.slice(..length), Some(body.slice(length..))),
        Some(json_length) => return Err(ProtocolError::HeaderLength { json_length, body_length }),
    };
    let text = std::str::from_utf8(&json)
        .map_err(|error| ProtocolError::NotUtf8 { offset: error.valid_up_to() })?;
    let mut decoder = Decoder { text, binary: binary.map(BinaryPart::new), limits };
    let decoded = decoder.request(target)?;
    match decoder.binary {
        Some(binary) if binary.left() > 0 => Err(ProtocolError::LeftOver { left: binary.left() }),
        _ => Ok(decoded),
    }
}

/// The bytes after the JSON, handed out from front to back.
pub(super) struct BinaryPart {
    bytes: Bytes,
}

impl BinaryPart {
    pub(super) fn new(bytes: Bytes) -> Self {
        BinaryPart { bytes }
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len()
    }

    fn take(&mut self, size: i64) -> Result<Bytes, TensorProblem> {
        let Ok(size) = usize::try_from(size) else {
            return Err(TensorProblem::NegativeBinarySize { size });
        };
        if size > self.left() {
            return Err(TensorProblem::BinaryTooLong { size, left: self.left() });
        }
        Ok(self.bytes.split_to(size))
    }
}

enum RequestField {
    Id,
    Parameters,
    Inputs,
    Outputs,
    Unknown,
}

impl RequestField {
    fn of(key: &str) -> Self {
        match key {
            "id" => RequestField::Id,
            "parameters" => RequestField::Parameters,
            "inputs" => RequestField::Inputs,
            "outputs" => RequestField::Outputs,
            _ => RequestField::Unknown,
        }
    }
}

enum TensorField {
    Name,
    DataType,
    Shape,
    Data,
    Parameters,
    Unknown,
}

impl TensorField {
    fn of(key: &str) -> Self {
        match key {
            "name" => TensorField::Name,
            "datatype" => TensorField::DataType,
            "shape" => TensorField::Shape,
            "data" => TensorField::Data,
            "parameters" => TensorField::Parameters,
            _ => TensorField::Unknown,
        }
    }
}

/// What was read of one input so far.
#[derive(Default)]
struct InputParts {
    name: Option<Name>,
    data_type: Option<Result<DataType, UnknownDataType>>,
    shape: Option<SmallVec<[i64; 8]>>,
    data: Data,
    parameters: Option<InputParameters>,
}

#[derive(Default)]
enum Data {
    #[default]
    Absent,
    /// It came before what says how to read it.
    Unread(Range<usize>),
    Read(Tensor),
}

impl InputParts {
    /// Returns how to read the data, where that is known already.
    fn known_type(
        &self,
        limits: &DecodeLimits,
    ) -> Option<Result<(DataType, Shape), TensorProblem>> {
        let (Some(_), Some(data_type), Some(dimensions)) =
            (&self.name, &self.data_type, &self.shape)
        else {
            return None;
        };
        let data_type = match data_type {
            Ok(data_type) => *data_type,
            Err(unknown) => return Some(Err(TensorProblem::UnknownDataType(unknown.clone()))),
        };
        Some(raw::shape(dimensions.iter().copied(), limits).map(|shape| (data_type, shape)))
    }

    fn error(&self, error: impl Into<DataError>) -> ProtocolError {
        match error.into() {
            DataError::Malformed(error) => error,
            DataError::Tensor(problem) => {
                ProtocolError::Input { input: self.name.clone().unwrap_or_default(), problem }
            }
        }
    }
}

pub(super) struct Decoder<'j> {
    pub(super) text: &'j str,
    pub(super) binary: Option<BinaryPart>,
    pub(super) limits: &'j DecodeLimits,
}

impl Decoder<'_> {
    fn request(&mut self, target: Target) -> Result<DecodedInfer, ProtocolError> {
        let mut reader = Reader::new(self.text);
        let mut id: Option<Option<Name>> = None;
        let mut inputs = None;
        let mut outputs = None;
        let mut parameters: Option<(Parameters, Option<bool>)> = None;
        let mut key = reader.first_key(Place::Request("request"), RequestField::of)?;
        while let Some(field) = key {
            match field {
                RequestField::Id => {
                    let value = read_id(&mut reader)?;
                    once(&mut id, value, Place::Request("id"))?;
                }
                RequestField::Parameters => {
                    let value = read_request(&mut reader)?;
                    once(&mut parameters, value, Place::Request("parameters"))?;
                }
                RequestField::Inputs => {
                    // Before reading: a second list would take binary data again.
                    if inputs.is_some() {
                        return Err(Place::Request("inputs").error(FieldProblem::Duplicate));
                    }
                    inputs = Some(self.inputs(&mut reader)?);
                }
                RequestField::Outputs => {
                    let value = self.outputs(&mut reader)?;
                    once(&mut outputs, value, Place::Request("outputs"))?;
                }
                RequestField::Unknown => reader.skip()?,
            }
            key = reader.next_key(RequestField::of)?;
        }
        reader.finish()?;
        let inputs = inputs.ok_or_else(|| ProtocolError::missing("inputs"))?;
        let (outputs, named) = outputs.unwrap_or_default();
        let (parameters, binary_by_default) = parameters.unwrap_or_default();
        let request = InferRequest {
            id: id.flatten(),
            model: target.model,
            version: target.version,
            inputs,
            outputs,
            parameters,
        };
        let binary_by_default = binary_by_default.unwrap_or(false);
        Ok(DecodedInfer { request, format: OutputFormat { binary_by_default, named } })
    }

    /// Reads the list of `inputs`; an answer's `outputs` are written alike.
    pub(super) fn inputs(
        &mut self,
        reader: &mut Reader<'_>,
    ) -> Result<SmallVec<[NamedTensor; 2]>, ProtocolError> {
        let mut inputs = SmallVec::new();
        let mut next = reader.first_item(Place::Request("inputs"))?;
        while next.is_some() {
            if inputs.len() == self.limits.max_tensors {
                return Err(ProtocolError::TooMany { what: "inputs", limit: inputs.len() });
            }
            let parts = self.input_parts(reader, inputs.len())?;
            inputs.push(self.input(parts, inputs.len())?);
            next = reader.next_item()?;
        }
        Ok(inputs)
    }

    /// Reads one object of `inputs`, its data too where it comes after name, type and shape.
    fn input_parts(
        &mut self,
        reader: &mut Reader<'_>,
        index: usize,
    ) -> Result<InputParts, ProtocolError> {
        let mut parts = InputParts::default();
        let mut key = reader.first_key(Place::Input(index, ""), TensorField::of)?;
        while let Some(field) = key {
            match field {
                TensorField::Name => {
                    let place = Place::Input(index, "name");
                    let value = read_name(reader, place)?;
                    once(&mut parts.name, value, place)?;
                }
                TensorField::DataType => {
                    let place = Place::Input(index, "datatype");
                    let value = reader.string(place)?.parse();
                    once(&mut parts.data_type, value, place)?;
                }
                TensorField::Shape => {
                    let place = Place::Input(index, "shape");
                    let value = self.dimensions(reader, place)?;
                    once(&mut parts.shape, value, place)?;
                }
                TensorField::Data => {
                    if !matches!(parts.data, Data::Absent) {
                        return Err(Place::Input(index, "data").error(FieldProblem::Duplicate));
                    }
                    parts.data = self.data(reader, &parts)?;
                }
                TensorField::Parameters => {
                    let value = read_input(reader, index)?;
                    once(&mut parts.parameters, value, Place::Input(index, "parameters"))?;
                }
                TensorField::Unknown => reader.skip()?,
            }
            key = reader.next_key(TensorField::of)?;
        }
        Ok(parts)
    }

    fn data(&self, reader: &mut Reader<'_>, parts: &InputParts) -> Result<Data, ProtocolError> {
        match parts.known_type(self.limits) {
            None => Ok(Data::Unread(reader.skip_part()?)),
            Some(Err(problem)) => Err(parts.error(problem)),
            Some(Ok((data_type, shape))) => {
                let tensor = read_tensor(reader, data_type, shape, self.limits);
                tensor.map(Data::Read).map_err(|error| parts.error(error))
            }
        }
    }

    /// Makes a tensor of what one object of `inputs` held.
    fn input(&mut self, mut parts: InputParts, index: usize) -> Result<NamedTensor, ProtocolError> {
        let missing = |field| Place::Input(index, field).error(FieldProblem::Missing);
        if parts.name.is_none() {
            return Err(missing("name"));
        }
        let binary_size = parts.parameters.take().unwrap_or_default().binary_data_size;
        let data = std::mem::take(&mut parts.data);
        if let Data::Read(tensor) = data {
            return match binary_size {
                Some(_) => Err(parts.error(TensorProblem::DataTwice)),
                None => Ok(NamedTensor { name: parts.name.unwrap_or_default(), tensor }),
            };
        }
        let (data_type, shape) = match parts.known_type(self.limits) {
            Some(known) => known.map_err(|problem| parts.error(problem))?,
            None if parts.data_type.is_none() => return Err(missing("datatype")),
            None => return Err(missing("shape")),
        };
        let tensor = match (data, binary_size) {
            (Data::Unread(part), None) => {
                let mut reader = Reader::of_part(self.text, part);
                read_tensor(&mut reader, data_type, shape, self.limits)
            }
            (Data::Absent, Some(size)) => {
                self.binary_tensor(data_type, shape, size).map_err(DataError::from)
            }
            (Data::Absent, None) => Err(TensorProblem::NoData.into()),
            (_, Some(_)) => Err(TensorProblem::DataTwice.into()),
            (Data::Read(tensor), None) => Ok(tensor),
        };
        let tensor = tensor.map_err(|error| parts.error(error))?;
        Ok(NamedTensor { name: parts.name.unwrap_or_default(), tensor })
    }

    fn binary_tensor(
        &mut self,
        data_type: DataType,
        shape: Shape,
        size: i64,
    ) -> Result<Tensor, TensorProblem> {
        let binary = self.binary.as_mut().ok_or(TensorProblem::NoBinaryData)?;
        let bytes = binary.take(size)?;
        raw::decode(data_type, shape, bytes, self.limits)
    }

    fn dimensions(
        &self,
        reader: &mut Reader<'_>,
        place: Place<'_>,
    ) -> Result<SmallVec<[i64; 8]>, ProtocolError> {
        let mut dimensions = SmallVec::new();
        let mut next = reader.first_item(place)?;
        while next.is_some() {
            if dimensions.len() == self.limits.max_rank {
                let limit = self.limits.max_rank;
                return Err(place.error(FieldProblem::OutOfRange {
                    expected: format!("a list of at most {limit} dimensions").into(),
                    received: "more".to_owned(),
                }));
            }
            dimensions.push(reader.integer(place)?);
            next = reader.next_item()?;
        }
        Ok(dimensions)
    }

    /// Reads `outputs`: what is wanted, and in which form where the caller said so.
    fn outputs(&self, reader: &mut Reader<'_>) -> Result<NamedOutputs, ProtocolError> {
        let mut outputs = Vec::new();
        let mut forms = SmallVec::new();
        if reader.null()? {
            return Ok((outputs, forms));
        }
        let mut next = reader.first_item(Place::Request("outputs"))?;
        while next.is_some() {
            if outputs.len() == self.limits.max_tensors {
                return Err(ProtocolError::TooMany { what: "outputs", limit: outputs.len() });
            }
            let (name, parameters) = read_output_object(reader, outputs.len())?;
            if let Some(binary) = parameters.binary_data {
                forms.push((name.clone(), binary));
            }
            let classification = parameters.classes.map(|count| Classification { count });
            outputs.push(RequestedOutput { name, classification });
            next = reader.next_item()?;
        }
        Ok((outputs, forms))
    }
}

type NamedOutputs = (Vec<RequestedOutput>, SmallVec<[(Name, bool); 2]>);

fn read_output_object(
    reader: &mut Reader<'_>,
    index: usize,
) -> Result<(Name, OutputParameters), ProtocolError> {
    let mut name = None;
    let mut parameters = None;
    let mut key = reader.first_key(Place::Output(index, ""), TensorField::of)?;
    while let Some(field) = key {
        match field {
            TensorField::Name => {
                let place = Place::Output(index, "name");
                let value = read_name(reader, place)?;
                once(&mut name, value, place)?;
            }
            TensorField::Parameters => {
                let value = read_output(reader, index)?;
                once(&mut parameters, value, Place::Output(index, "parameters"))?;
            }
            _ => reader.skip()?,
        }
        key = reader.next_key(TensorField::of)?;
    }
    match name {
        Some(name) => Ok((name, parameters.unwrap_or_default())),
        None => Err(Place::Output(index, "name").error(FieldProblem::Missing)),
    }
}

/// Reads the request's id; an empty one, which some clients send, is none.
fn read_id(reader: &mut Reader<'_>) -> Result<Option<Name>, ProtocolError> {
    if reader.null()? {
        return Ok(None);
    }
    let id = reader.string(Place::Request("id"))?;
    Ok((!id.is_empty()).then(|| id.into()))
}

pub(super) fn read_name(reader: &mut Reader<'_>, place: Place<'_>) -> Result<Name, ProtocolError> {
    let name = reader.string(place)?;
    if name.is_empty() {
        return Err(place.error(FieldProblem::Empty));
    }
    if name.len() > LONGEST_NAME {
        return Err(place.error(FieldProblem::OutOfRange {
            expected: format!("at most {LONGEST_NAME} bytes long").into(),
            received: excerpt(name),
        }));
    }
    Ok(name.into())
}

/// Keeps a field's value unless there is one already.
pub(super) fn once<T>(
    slot: &mut Option<T>,
    value: T,
    place: Place<'_>,
) -> Result<(), ProtocolError> {
    if slot.is_some() {
        return Err(place.error(FieldProblem::Duplicate));
    }
    *slot = Some(value);
    Ok(())
}
