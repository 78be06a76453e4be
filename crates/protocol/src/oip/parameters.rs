//! The free-form `parameters` of a request, an input and an output.
//!
//! A request keeps every parameter that is not about the wire. Parameters of an input or output that
//! the protocol does not know are skipped. Those that ask for shared memory are refused, since
//! ignoring them would answer from data that was never sent.

use jiter::Peek;
use outhaul_types::{Parameter, Parameters};

use super::reader::{Place, Reader};
use crate::error::excerpt;
use crate::{FieldProblem, ProtocolError};

/// Request parameter: the form of outputs that do not name theirs.
pub(super) const BINARY_DATA_OUTPUT: &str = "binary_data_output";

/// What the parameters of an input say.
#[derive(Default)]
pub(super) struct InputParameters {
    /// The bytes that this input takes of the binary data.
    pub(super) binary_data_size: Option<i64>,
}

/// What the parameters of a requested output say.
#[derive(Default)]
pub(super) struct OutputParameters {
    /// Whether the output is wanted as binary data.
    pub(super) binary_data: Option<bool>,
    /// How many classes are wanted.
    pub(super) classes: Option<usize>,
}

enum TensorParameter {
    BinaryDataSize,
    BinaryData,
    Classification,
    SharedMemory,
    Other,
}

impl TensorParameter {
    fn of(key: &str) -> Self {
        match key {
            "binary_data_size" => TensorParameter::BinaryDataSize,
            "binary_data" => TensorParameter::BinaryData,
            "classification" => TensorParameter::Classification,
            _ if key.starts_with("shared_memory_") => TensorParameter::SharedMemory,
            _ => TensorParameter::Other,
        }
    }
}

/// Reads a request's parameters and, apart from them, `binary_data_output`.
pub(super) fn read_request(
    reader: &mut Reader<'_>,
) -> Result<(Parameters, Option<bool>), ProtocolError> {
    let mut parameters = Parameters::new();
    let mut binary = None;
    if reader.null()? {
        return Ok((parameters, binary));
    }
    let mut key = reader.first_key(Place::Request("parameters"), str::to_owned)?;
    while let Some(name) = key {
        let place = Place::Parameter(&name);
        if name == BINARY_DATA_OUTPUT {
            let wanted = reader.boolean(place)?;
            if binary.replace(wanted).is_some() {
                return Err(place.error(FieldProblem::Duplicate));
            }
        } else {
            let value = read_value(reader, place)?;
            if parameters.contains_key(&name) {
                return Err(place.error(FieldProblem::Duplicate));
            }
            parameters.insert(name, value);
        }
        key = reader.next_key(str::to_owned)?;
    }
    Ok((parameters, binary))
}

fn read_value(reader: &mut Reader<'_>, place: Place<'_>) -> Result<Parameter, ProtocolError> {
    let peek = reader.peek()?;
    match peek {
        Peek::True | Peek::False => Ok(Parameter::Bool(reader.known_boolean(peek)?)),
        Peek::String => Ok(Parameter::String(reader.known_string()?.to_owned())),
        _ if peek.is_num() => {
            let number = reader.known_number(peek)?;
            let digits = number.strip_prefix('-').unwrap_or(number);
            let value = if digits.bytes().all(|byte| byte.is_ascii_digit()) {
                number.parse().ok().map(Parameter::Int)
            } else {
                number.parse().ok().map(Parameter::Float)
            };
            value.ok_or_else(|| {
                let expected = "a number that fits 64 bits".into();
                place.error(FieldProblem::OutOfRange { expected, received: excerpt(number) })
            })
        }
        _ => Err(reader.wrong_type(place, "a boolean, a number or a string", peek)),
    }
}

/// Reads the parameters of the input at `index`.
pub(super) fn read_input(
    reader: &mut Reader<'_>,
    index: usize,
) -> Result<InputParameters, ProtocolError> {
    let mut parameters = InputParameters::default();
    if reader.null()? {
        return Ok(parameters);
    }
    let mut key = reader.first_key(Place::Input(index, "parameters"), TensorParameter::of)?;
    while let Some(parameter) = key {
        match parameter {
            TensorParameter::BinaryDataSize => {
                let place = Place::Input(index, "parameters.binary_data_size");
                if parameters.binary_data_size.replace(reader.integer(place)?).is_some() {
                    return Err(place.error(FieldProblem::Duplicate));
                }
            }
            TensorParameter::SharedMemory => {
                let what = format!("'inputs[{index}]'");
                return Err(ProtocolError::SharedMemory { what });
            }
            _ => reader.skip()?,
        }
        key = reader.next_key(TensorParameter::of)?;
    }
    Ok(parameters)
}

/// Reads the parameters of the requested output at `index`.
pub(super) fn read_output(
    reader: &mut Reader<'_>,
    index: usize,
) -> Result<OutputParameters, ProtocolError> {
    let mut parameters = OutputParameters::default();
    if reader.null()? {
        return Ok(parameters);
    }
    let mut key = reader.first_key(Place::Output(index, "parameters"), TensorParameter::of)?;
    while let Some(parameter) = key {
        match parameter {
            TensorParameter::BinaryData => {
                let place = Place::Output(index, "parameters.binary_data");
                if parameters.binary_data.replace(reader.boolean(place)?).is_some() {
                    return Err(place.error(FieldProblem::Duplicate));
                }
            }
            TensorParameter::Classification => {
                let place = Place::Output(index, "parameters.classification");
                if parameters.classes.replace(read_classes(reader, place)?).is_some() {
                    return Err(place.error(FieldProblem::Duplicate));
                }
            }
            TensorParameter::SharedMemory => {
                let what = format!("'outputs[{index}]'");
                return Err(ProtocolError::SharedMemory { what });
            }
            _ => reader.skip()?,
        }
        key = reader.next_key(TensorParameter::of)?;
    }
    Ok(parameters)
}

fn read_classes(reader: &mut Reader<'_>, place: Place<'_>) -> Result<usize, ProtocolError> {
    let count = reader.integer(place)?;
    match usize::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => {
            let expected = "a number of classes of at least 1".into();
            Err(place.error(FieldProblem::OutOfRange { expected, received: count.to_string() }))
        }
    }
}
