//! From a message to a request.

use bytes::Bytes;
use outhaul_types::{
    Classification, DataType, Element, InferRequest, Name, NamedTensor, Parameter, Parameters,
    RequestedOutput, Shape, Strings, Tensor,
};

use super::pb::infer_parameter::ParameterChoice;
use super::pb::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use super::pb::{InferParameter, InferTensorContents, ModelInferRequest};
use crate::{DecodeLimits, FieldProblem, ProtocolError, TensorProblem, raw};

/// The parameter by which a tensor is said to lie in shared memory.
const SHARED_MEMORY: &str = "shared_memory_region";

/// The parameter of an output that asks for its top classes.
const CLASSIFICATION: &str = "classification";

/// Makes a request from its message, sharing the bytes of raw contents.
///
/// # Errors
///
/// Fails where a tensor is not what its shape and datatype call for, where contents are missing or
/// too many, and where the request asks for what is not supported. See the [module](super) for how
/// raw bytes and typed contents are told apart.
pub fn decode_infer(
    request: ModelInferRequest,
    limits: &DecodeLimits,
) -> Result<InferRequest, ProtocolError> {
    if request.model_name.is_empty() {
        return Err(ProtocolError::field("model_name", FieldProblem::Empty));
    }
    for (what, length) in
        [("inputs", request.inputs.len()), ("requested outputs", request.outputs.len())]
    {
        if length > limits.max_tensors {
            return Err(ProtocolError::TooMany { what, limit: limits.max_tensors });
        }
    }
    let version = request.model_version.parse().map_err(|_| {
        let expected = "a whole number, a label, or empty for the latest";
        out_of_range("model_version", expected, &request.model_version)
    })?;
    let mut raw_contents = RawContents::new(request.raw_input_contents, &request.inputs)?;
    let inputs = request
        .inputs
        .into_iter()
        .map(|input| {
            let raw = raw_contents.next_for(&input);
            decode_input(input, raw, limits)
        })
        .collect::<Result<_, _>>()?;
    let outputs = request.outputs.into_iter().map(decode_output).collect::<Result<_, _>>()?;
    Ok(InferRequest {
        id: (!request.id.is_empty()).then(|| request.id.into()),
        model: request.model_name.into(),
        version,
        inputs,
        outputs,
        parameters: decode_parameters(request.parameters)?,
    })
}

/// The raw entries of a request, and which inputs they belong to.
struct RawContents {
    entries: std::vec::IntoIter<Bytes>,
    /// Whether inputs with typed contents have an entry too, which then counts.
    for_every_input: bool,
}

impl RawContents {
    fn new(entries: Vec<Bytes>, inputs: &[InferInputTensor]) -> Result<Self, ProtocolError> {
        let for_every_input = entries.len() == inputs.len();
        if !for_every_input && !entries.is_empty() {
            let untyped = inputs.iter().filter(|input| input.contents.is_none()).count();
            if entries.len() != untyped {
                let expected = if untyped == inputs.len() {
                    format!("one entry for each of the {untyped} inputs")
                } else {
                    format!(
                        "one entry for each of the {} inputs, or for each of the {untyped} \
                         without contents",
                        inputs.len()
                    )
                };
                let received = format!("{} entries", entries.len());
                return Err(out_of_range("raw_input_contents", expected, &received));
            }
        }
        Ok(RawContents { entries: entries.into_iter(), for_every_input })
    }

    fn next_for(&mut self, input: &InferInputTensor) -> Option<Bytes> {
        if self.for_every_input || input.contents.is_none() { self.entries.next() } else { None }
    }
}

fn decode_input(
    input: InferInputTensor,
    raw: Option<Bytes>,
    limits: &DecodeLimits,
) -> Result<NamedTensor, ProtocolError> {
    if input.name.is_empty() {
        return Err(ProtocolError::field("name of an input", FieldProblem::Empty));
    }
    if input.parameters.contains_key(SHARED_MEMORY) {
        return Err(ProtocolError::SharedMemory { what: format!("input '{}'", input.name) });
    }
    let name = Name::from(input.name);
    let tensor =
        input.datatype.parse().map_err(TensorProblem::UnknownDataType).and_then(|data_type| {
            let shape = raw::shape(input.shape.into_iter(), limits)?;
            match (raw, input.contents) {
                (Some(bytes), _) => raw::decode(data_type, shape, bytes, limits),
                (None, Some(contents)) => decode_contents(data_type, shape, contents),
                // Nothing is what an empty tensor holds.
                (None, None) if raw::elements(&shape)? == 0 => {
                    raw::decode(data_type, shape, Bytes::new(), limits)
                }
                (None, None) => Err(TensorProblem::NoContents),
            }
        });
    match tensor {
        Ok(tensor) => Ok(NamedTensor { name, tensor }),
        Err(problem) => Err(ProtocolError::Input { input: name, problem }),
    }
}

/// Makes a tensor from typed contents. 64-bit and 32-bit floating-point elements are not copied.
fn decode_contents(
    data_type: DataType,
    shape: Shape,
    contents: InferTensorContents,
) -> Result<Tensor, TensorProblem> {
    check_fields(data_type, &contents)?;
    let tensor = match data_type {
        DataType::Bool => Tensor::from_bools(shape, contents.bool_contents),
        DataType::Uint8 => Tensor::from_vec(shape, narrow::<_, u8>(contents.uint_contents)?),
        DataType::Uint16 => Tensor::from_vec(shape, narrow::<_, u16>(contents.uint_contents)?),
        DataType::Uint32 => Tensor::from_vec(shape, contents.uint_contents),
        DataType::Uint64 => Tensor::from_vec(shape, contents.uint64_contents),
        DataType::Int8 => Tensor::from_vec(shape, narrow::<_, i8>(contents.int_contents)?),
        DataType::Int16 => Tensor::from_vec(shape, narrow::<_, i16>(contents.int_contents)?),
        DataType::Int32 => Tensor::from_vec(shape, contents.int_contents),
        DataType::Int64 => Tensor::from_vec(shape, contents.int64_contents),
        DataType::Fp32 => Tensor::from_vec(shape, contents.fp32_contents),
        DataType::Fp64 => Tensor::from_vec(shape, contents.fp64_contents),
        DataType::Bytes => {
            Tensor::from_strings(shape, contents.bytes_contents.iter().collect::<Strings>())
        }
        DataType::Fp16 | DataType::Bf16 => return Err(TensorProblem::RawOnly { data_type }),
    };
    tensor.map_err(raw::problem)
}

/// Checks that contents lie in the field of their datatype and in no other.
fn check_fields(data_type: DataType, contents: &InferTensorContents) -> Result<(), TensorProblem> {
    let Some(expected) = field_of(data_type) else {
        return Err(TensorProblem::RawOnly { data_type });
    };
    let fields = [
        ("bool_contents", contents.bool_contents.is_empty()),
        ("int_contents", contents.int_contents.is_empty()),
        ("int64_contents", contents.int64_contents.is_empty()),
        ("uint_contents", contents.uint_contents.is_empty()),
        ("uint64_contents", contents.uint64_contents.is_empty()),
        ("fp32_contents", contents.fp32_contents.is_empty()),
        ("fp64_contents", contents.fp64_contents.is_empty()),
        ("bytes_contents", contents.bytes_contents.is_empty()),
    ];
    match fields.into_iter().find(|&(field, is_empty)| !is_empty && field != expected) {
        Some((received, _)) => Err(TensorProblem::WrongContents { data_type, expected, received }),
        None => Ok(()),
    }
}

/// Returns the field that holds elements of a datatype, or `None` where there is none.
const fn field_of(data_type: DataType) -> Option<&'static str> {
    match data_type {
        DataType::Bool => Some("bool_contents"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => Some("int_contents"),
        DataType::Int64 => Some("int64_contents"),
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => Some("uint_contents"),
        DataType::Uint64 => Some("uint64_contents"),
        DataType::Fp32 => Some("fp32_contents"),
        DataType::Fp64 => Some("fp64_contents"),
        DataType::Bytes => Some("bytes_contents"),
        DataType::Fp16 | DataType::Bf16 => None,
    }
}

/// Brings elements that travel as 32 bits into the smaller type that they are said to have.
fn narrow<W, N>(elements: Vec<W>) -> Result<Vec<N>, TensorProblem>
where
    W: Copy + ToString,
    N: Element + TryFrom<W>,
{
    let narrowed = |(index, element): (usize, W)| {
        N::try_from(element).map_err(|_| TensorProblem::OutOfRange {
            index,
            value: element.to_string(),
            data_type: N::DATA_TYPE,
        })
    };
    elements.into_iter().enumerate().map(narrowed).collect()
}

fn decode_output(output: InferRequestedOutputTensor) -> Result<RequestedOutput, ProtocolError> {
    let InferRequestedOutputTensor { name, mut parameters } = output;
    if name.is_empty() {
        return Err(ProtocolError::field("name of an output", FieldProblem::Empty));
    }
    if parameters.contains_key(SHARED_MEMORY) {
        return Err(ProtocolError::SharedMemory { what: format!("output '{name}'") });
    }
    let classification = match parameters.remove(CLASSIFICATION) {
        None => None,
        Some(value) => match decode_parameter(CLASSIFICATION, value)? {
            Parameter::Int(count @ 1..) => usize::try_from(count).ok(),
            other => {
                let expected = "a whole number of at least 1";
                return Err(out_of_range(CLASSIFICATION, expected, &text(&other)));
            }
        },
    }
    .map(|count| Classification { count });
    Ok(RequestedOutput { name: name.into(), classification })
}

fn decode_parameters(
    parameters: impl IntoIterator<Item = (String, InferParameter)>,
) -> Result<Parameters, ProtocolError> {
    let decoded = |(name, value): (String, InferParameter)| {
        decode_parameter(&name, value).map(|parameter| (name, parameter))
    };
    parameters.into_iter().map(decoded).collect()
}

fn decode_parameter(name: &str, value: InferParameter) -> Result<Parameter, ProtocolError> {
    match value.parameter_choice {
        Some(ParameterChoice::BoolParam(value)) => Ok(Parameter::Bool(value)),
        Some(ParameterChoice::Int64Param(value)) => Ok(Parameter::Int(value)),
        Some(ParameterChoice::StringParam(value)) => Ok(Parameter::String(value)),
        Some(ParameterChoice::DoubleParam(value)) => Ok(Parameter::Float(value)),
        Some(ParameterChoice::Uint64Param(value)) => {
            i64::try_from(value).map(Parameter::Int).map_err(|_| {
                let expected = "a whole number below 2^63";
                out_of_range(shown(name), expected, &value.to_string())
            })
        }
        None => Err(ProtocolError::missing(format!("value of parameter {}", shown(name)))),
    }
}

fn text(parameter: &Parameter) -> String {
    match parameter {
        Parameter::Bool(value) => value.to_string(),
        Parameter::Int(value) => value.to_string(),
        Parameter::Float(value) => value.to_string(),
        Parameter::String(value) => format!("\"{}\"", shown(value)),
    }
}

/// Returns the start of a caller's text, short enough for a message.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

fn out_of_range(
    field: impl Into<std::borrow::Cow<'static, str>>,
    expected: impl Into<std::borrow::Cow<'static, str>>,
    received: &str,
) -> ProtocolError {
    let received = shown(received);
    ProtocolError::field(field, FieldProblem::OutOfRange { expected: expected.into(), received })
}
