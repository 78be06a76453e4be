//! A `TensorProto` to a tensor and back.

use std::borrow::Cow;

use bytes::Bytes;
use half::{bf16, f16};
use outhaul_types::{DataType, Element, Name, Shape, Strings, Tensor};

use super::TensorFlowError;
use super::pb::tensor_shape_proto::Dim;
use super::pb::{self, TensorProto, TensorShapeProto};
use crate::{DecodeLimits, ProtocolError, TensorProblem, raw};

/// The most bytes of one request that repeated elements may take. Beyond it, elements have to be sent:
/// what a request makes the server hold must be in proportion to what it sends.
const MAX_FILLED: usize = 1 << 20;

/// Reads the tensors of one request.
pub struct TensorReader<'a> {
    limits: &'a DecodeLimits,
    /// The bytes that may still be filled with repeated elements.
    fillable: usize,
}

impl<'a> TensorReader<'a> {
    /// Begins a request.
    pub fn new(limits: &'a DecodeLimits) -> Self {
        TensorReader { limits, fillable: MAX_FILLED }
    }

    /// Makes a tensor from its message, sharing the bytes of `tensor_content`. `input` names it in
    /// errors.
    ///
    /// # Errors
    ///
    /// Fails where type, shape and elements do not fit together.
    pub fn read(&mut self, input: &Name, message: TensorProto) -> Result<Tensor, TensorFlowError> {
        let (data_type, shape) = self.head(input, &message)?;
        let named =
            |problem| TensorFlowError::from(ProtocolError::Input { input: input.clone(), problem });
        let expected = raw::elements(&shape).map_err(named)?;
        let field = field_of(data_type);
        let (given, received) = match lengths(&message).into_iter().find(|(_, length)| *length > 0)
        {
            None if message.tensor_content.is_empty() && expected > 0 => {
                return Err(TensorFlowError::NoElements { input: input.clone(), field });
            }
            // The content, or nothing for an empty tensor.
            None => {
                let content = content(data_type, shape, message.tensor_content, self.limits);
                return content.map_err(named);
            }
            Some(given) => given,
        };
        if !message.tensor_content.is_empty() {
            return Err(TensorFlowError::ContentTwice { input: input.clone(), field: given });
        }
        if given != field {
            let (expected, received) = (field, given);
            return Err(named(TensorProblem::WrongContents { data_type, expected, received }));
        }
        if received > expected {
            return Err(named(TensorProblem::WrongCount { shape, expected, received }));
        }
        if received < expected {
            let last = message.string_val.last().map_or(0, Bytes::len);
            let size = data_type.size().unwrap_or(raw::SPAN + last);
            let fillable = self.fillable.checked_sub((expected - received).saturating_mul(size));
            self.fillable = fillable.ok_or_else(|| TensorFlowError::FilledTooFar {
                input: input.clone(),
                elements: expected,
                limit: MAX_FILLED,
            })?;
        }
        typed(data_type, shape, message).map_err(named)
    }

    /// Reads the type and the shape.
    fn head(
        &self,
        input: &Name,
        message: &TensorProto,
    ) -> Result<(DataType, Shape), TensorFlowError> {
        let number = message.dtype;
        let data_type = pb::DataType::try_from(number).ok().and_then(data_type);
        let data_type = data_type
            .ok_or_else(|| TensorFlowError::UnknownType { input: input.clone(), number })?;
        let shape = message.tensor_shape.as_ref();
        if shape.is_some_and(|shape| shape.unknown_rank) {
            return Err(TensorFlowError::UnknownRank { input: input.clone() });
        }
        let dimensions = shape.map(|shape| &shape.dim[..]).unwrap_or_default();
        let sizes = dimensions.iter().map(|dimension| dimension.size);
        match raw::shape(sizes, self.limits) {
            Ok(shape) => Ok((data_type, shape)),
            Err(problem) => Err(ProtocolError::Input { input: input.clone(), problem }.into()),
        }
    }
}

/// Makes a tensor of the bytes of `tensor_content`.
fn content(
    data_type: DataType,
    shape: Shape,
    bytes: Bytes,
    limits: &DecodeLimits,
) -> Result<Tensor, TensorProblem> {
    // TensorFlow puts strings there in a form of its own, for itself alone.
    if data_type == DataType::Bytes && !bytes.is_empty() {
        let (expected, received) = (field_of(data_type), "tensor_content");
        return Err(TensorProblem::WrongContents { data_type, expected, received });
    }
    raw::decode(data_type, shape, bytes, limits)
}

/// Makes a tensor of elements in the field of their type.
fn typed(data_type: DataType, shape: Shape, message: TensorProto) -> Result<Tensor, TensorProblem> {
    let count = raw::elements(&shape)?;
    let tensor = match data_type {
        DataType::Fp32 => Tensor::from_vec(shape, filled(message.float_val, count)),
        DataType::Fp64 => Tensor::from_vec(shape, filled(message.double_val, count)),
        DataType::Int64 => Tensor::from_vec(shape, filled(message.int64_val, count)),
        DataType::Int32 => Tensor::from_vec(shape, filled(message.int_val, count)),
        DataType::Uint32 => Tensor::from_vec(shape, filled(message.uint32_val, count)),
        DataType::Uint64 => Tensor::from_vec(shape, filled(message.uint64_val, count)),
        DataType::Int16 => Tensor::from_vec(shape, narrow::<i16>(message.int_val, count)?),
        DataType::Int8 => Tensor::from_vec(shape, narrow::<i8>(message.int_val, count)?),
        DataType::Uint16 => Tensor::from_vec(shape, narrow::<u16>(message.int_val, count)?),
        DataType::Uint8 => Tensor::from_vec(shape, narrow::<u8>(message.int_val, count)?),
        DataType::Bool => Tensor::from_bools(shape, filled(message.bool_val, count)),
        DataType::Fp16 => {
            let halves = bits(message.half_val, data_type)?.into_iter().map(f16::from_bits);
            Tensor::from_vec(shape, filled(halves.collect(), count))
        }
        DataType::Bf16 => {
            let halves = bits(message.half_val, data_type)?.into_iter().map(bf16::from_bits);
            Tensor::from_vec(shape, filled(halves.collect(), count))
        }
        DataType::Bytes => Tensor::from_strings(shape, strings(&message.string_val, count)),
    };
    tensor.map_err(raw::problem)
}

/// Repeats the last element until there are `count`.
fn filled<T: Clone>(mut elements: Vec<T>, count: usize) -> Vec<T> {
    if let Some(last) = elements.last().cloned() {
        elements.resize(count, last);
    }
    elements
}

/// Brings elements that travel as 32 bits into the smaller type that they are said to have.
fn narrow<N: Element + TryFrom<i32>>(
    elements: Vec<i32>,
    count: usize,
) -> Result<Vec<N>, TensorProblem> {
    let narrowed = |(index, element): (usize, i32)| {
        N::try_from(element).map_err(|_| out_of_range(index, element, N::DATA_TYPE))
    };
    let elements = elements.into_iter().enumerate().map(narrowed).collect::<Result<_, _>>()?;
    Ok(filled(elements, count))
}

/// Reads the bit patterns of `half_val`.
fn bits(elements: Vec<i32>, data_type: DataType) -> Result<Vec<u16>, TensorProblem> {
    let bits = |(index, element): (usize, i32)| {
        u16::try_from(element).map_err(|_| out_of_range(index, element, data_type))
    };
    elements.into_iter().enumerate().map(bits).collect()
}

fn out_of_range(index: usize, element: i32, data_type: DataType) -> TensorProblem {
    TensorProblem::OutOfRange { index, value: element.to_string(), data_type }
}

/// Puts strings into one buffer; the last one lies there once, however often it is repeated.
fn strings(strings: &[Bytes], count: usize) -> Strings {
    let mut buffer = Vec::with_capacity(strings.iter().map(Bytes::len).sum());
    let mut spans = Vec::with_capacity(count);
    for string in strings {
        let start = buffer.len();
        buffer.extend_from_slice(string);
        spans.push(start..buffer.len());
    }
    let spans = filled(spans, count);
    Strings::from_spans(buffer.into(), spans).expect("every span was just written")
}

/// Returns the element type of TensorFlow's type.
fn data_type(data_type: pb::DataType) -> Option<DataType> {
    match data_type {
        pb::DataType::DtInvalid => None,
        pb::DataType::DtFloat => Some(DataType::Fp32),
        pb::DataType::DtDouble => Some(DataType::Fp64),
        pb::DataType::DtInt32 => Some(DataType::Int32),
        pb::DataType::DtUint8 => Some(DataType::Uint8),
        pb::DataType::DtInt16 => Some(DataType::Int16),
        pb::DataType::DtInt8 => Some(DataType::Int8),
        pb::DataType::DtString => Some(DataType::Bytes),
        pb::DataType::DtInt64 => Some(DataType::Int64),
        pb::DataType::DtBool => Some(DataType::Bool),
        pb::DataType::DtBfloat16 => Some(DataType::Bf16),
        pb::DataType::DtUint16 => Some(DataType::Uint16),
        pb::DataType::DtHalf => Some(DataType::Fp16),
        pb::DataType::DtUint32 => Some(DataType::Uint32),
        pb::DataType::DtUint64 => Some(DataType::Uint64),
    }
}

/// Returns TensorFlow's type of an element type.
pub(super) const fn dtype(data_type: DataType) -> pb::DataType {
    match data_type {
        DataType::Bool => pb::DataType::DtBool,
        DataType::Uint8 => pb::DataType::DtUint8,
        DataType::Uint16 => pb::DataType::DtUint16,
        DataType::Uint32 => pb::DataType::DtUint32,
        DataType::Uint64 => pb::DataType::DtUint64,
        DataType::Int8 => pb::DataType::DtInt8,
        DataType::Int16 => pb::DataType::DtInt16,
        DataType::Int32 => pb::DataType::DtInt32,
        DataType::Int64 => pb::DataType::DtInt64,
        DataType::Fp16 => pb::DataType::DtHalf,
        DataType::Bf16 => pb::DataType::DtBfloat16,
        DataType::Fp32 => pb::DataType::DtFloat,
        DataType::Fp64 => pb::DataType::DtDouble,
        DataType::Bytes => pb::DataType::DtString,
    }
}

/// Returns the field that holds elements of a type.
const fn field_of(data_type: DataType) -> &'static str {
    match data_type {
        DataType::Fp32 => "float_val",
        DataType::Fp64 => "double_val",
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Uint8 | DataType::Uint16 => {
            "int_val"
        }
        DataType::Int64 => "int64_val",
        DataType::Uint32 => "uint32_val",
        DataType::Uint64 => "uint64_val",
        DataType::Bool => "bool_val",
        DataType::Fp16 | DataType::Bf16 => "half_val",
        DataType::Bytes => "string_val",
    }
}

/// Returns how many elements each field holds.
fn lengths(message: &TensorProto) -> [(&'static str, usize); 9] {
    [
        ("float_val", message.float_val.len()),
        ("double_val", message.double_val.len()),
        ("int_val", message.int_val.len()),
        ("string_val", message.string_val.len()),
        ("int64_val", message.int64_val.len()),
        ("bool_val", message.bool_val.len()),
        ("half_val", message.half_val.len()),
        ("uint32_val", message.uint32_val.len()),
        ("uint64_val", message.uint64_val.len()),
    ]
}

/// Makes the message of a tensor, its elements in the field of their type.
pub fn encode_tensor(tensor: &Tensor) -> TensorProto {
    let dimension = |&size: &usize| Dim { size: size as i64, name: String::new() };
    let dim = tensor.shape().iter().map(dimension).collect();
    let mut message = TensorProto {
        dtype: dtype(tensor.data_type()).into(),
        tensor_shape: Some(TensorShapeProto { dim, unknown_rank: false }),
        ..TensorProto::default()
    };
    match tensor.data_type() {
        DataType::Fp32 => message.float_val = elements(tensor).into_owned(),
        DataType::Fp64 => message.double_val = elements(tensor).into_owned(),
        DataType::Int32 => message.int_val = elements(tensor).into_owned(),
        DataType::Int64 => message.int64_val = elements(tensor).into_owned(),
        DataType::Uint32 => message.uint32_val = elements(tensor).into_owned(),
        DataType::Uint64 => message.uint64_val = elements(tensor).into_owned(),
        DataType::Int16 => message.int_val = widened(tensor, |element: i16| element.into()),
        DataType::Int8 => message.int_val = widened(tensor, |element: i8| element.into()),
        DataType::Uint16 => message.int_val = widened(tensor, |element: u16| element.into()),
        DataType::Uint8 => message.int_val = widened(tensor, |element: u8| element.into()),
        DataType::Fp16 => message.half_val = widened(tensor, |half: f16| half.to_bits().into()),
        DataType::Bf16 => message.half_val = widened(tensor, |half: bf16| half.to_bits().into()),
        DataType::Bool => {
            let bytes = tensor.as_bytes().map(|bytes| &bytes[..]).unwrap_or_default();
            message.bool_val = bytes.iter().map(|&byte| byte != 0).collect();
        }
        DataType::Bytes => {
            let strings = tensor.as_strings().into_iter().flat_map(Strings::iter);
            message.string_val = strings.map(Bytes::copy_from_slice).collect();
        }
    }
    message
}

fn elements<T: Element>(tensor: &Tensor) -> Cow<'_, [T]> {
    tensor.elements_of().expect("the type was looked at")
}

fn widened<T: Element>(tensor: &Tensor, widen: impl Fn(T) -> i32) -> Vec<i32> {
    elements::<T>(tensor).iter().map(|&element| widen(element)).collect()
}
