//! The bytes of one tensor as they travel: little-endian and row-major, `BYTES` elements each behind
//! a four-byte length. HTTP's binary extension and gRPC's raw contents are alike in this.
//!
//! Fixed-size elements are not copied: the tensor shares the buffer that came in.

use bytes::Bytes;
use outhaul_types::{DataType, Shape, Strings, Tensor, TensorData, TensorError};

use crate::{DecodeLimits, TensorProblem};

/// Bytes of the length before each `BYTES` element.
const LENGTH: usize = 4;

/// Memory that one `BYTES` element takes beside its bytes.
pub(crate) const SPAN: usize = size_of::<std::ops::Range<usize>>();

/// Makes a shape from dimensions that a caller declared.
pub(crate) fn shape(
    dimensions: impl ExactSizeIterator<Item = i64>,
    limits: &DecodeLimits,
) -> Result<Shape, TensorProblem> {
    if dimensions.len() > limits.max_rank {
        return Err(TensorProblem::TooManyDimensions { limit: limits.max_rank });
    }
    let mut negative = None;
    let shape = Shape::new(dimensions.enumerate().map(|(dimension, size)| {
        usize::try_from(size).unwrap_or_else(|_| {
            negative.get_or_insert((dimension, size));
            0
        })
    }));
    match negative {
        Some((dimension, size)) => Err(TensorProblem::NegativeDimension { dimension, size }),
        None => Ok(shape),
    }
}

/// Returns the number of elements of a shape.
pub(crate) fn elements(shape: &Shape) -> Result<usize, TensorProblem> {
    shape.elements().ok_or_else(|| TensorProblem::TooLarge { shape: shape.clone() })
}

/// Makes a tensor from its raw bytes.
pub(crate) fn decode(
    data_type: DataType,
    shape: Shape,
    bytes: Bytes,
    limits: &DecodeLimits,
) -> Result<Tensor, TensorProblem> {
    if bytes.len() > limits.max_tensor_bytes {
        return Err(TensorProblem::OverLimit { limit: limits.max_tensor_bytes });
    }
    let result = match data_type {
        DataType::Bytes => {
            let expected = elements(&shape)?;
            let strings = decode_strings(bytes, expected, limits)?;
            if strings.len() != expected {
                let received = strings.len();
                return Err(TensorProblem::WrongCount { shape, expected, received });
            }
            Tensor::from_strings(shape, strings)
        }
        _ => Tensor::from_bytes(data_type, shape, bytes),
    };
    result.map_err(problem)
}

/// Reads length-prefixed strings until `bytes` ends. The spans are reserved by what can lie in
/// `bytes`, never by the declared count alone.
fn decode_strings(
    bytes: Bytes,
    expected: usize,
    limits: &DecodeLimits,
) -> Result<Strings, TensorProblem> {
    let at_most = expected.min(bytes.len() / LENGTH);
    if at_most > limits.max_tensor_bytes / SPAN {
        return Err(TensorProblem::OverLimit { limit: limits.max_tensor_bytes });
    }
    let mut spans = Vec::with_capacity(at_most);
    let mut at = 0;
    while at < bytes.len() {
        let index = spans.len();
        if index == expected {
            let left = bytes.len() - at;
            return Err(TensorProblem::StringsLeftOver { left, elements: expected });
        }
        let Some(prefix) = bytes[at..].first_chunk::<LENGTH>() else {
            return Err(TensorProblem::StringCut { index });
        };
        at += LENGTH;
        let length = u32::from_le_bytes(*prefix) as usize;
        let left = bytes.len() - at;
        if length > left {
            return Err(TensorProblem::StringTooLong { index, length, left });
        }
        spans.push(at..at + length);
        at += length;
    }
    Ok(Strings::from_spans(bytes, spans).expect("every span was checked against the buffer"))
}

/// Says what [`TensorError`] says, as a problem of an input.
pub(crate) fn problem(error: TensorError) -> TensorProblem {
    match error {
        TensorError::TooLarge(shape) => TensorProblem::TooLarge { shape },
        TensorError::WrongSize { data_type, shape, expected, received } => {
            TensorProblem::WrongSize { data_type, shape, expected, received }
        }
        TensorError::WrongCount { shape, expected, received } => {
            TensorProblem::WrongCount { shape, expected, received }
        }
        TensorError::NotBool { index, value } => TensorProblem::WrongElement {
            index,
            value: value.to_string(),
            expected: "0 or 1 for a BOOL",
        },
        TensorError::WrongType { .. } | TensorError::CannotConcatenate { .. } => {
            TensorProblem::NotATensor(error)
        }
    }
}

/// Returns how many bytes [`encode`] appends.
pub(crate) fn encoded_size(tensor: &Tensor) -> usize {
    match tensor.data() {
        TensorData::Fixed(bytes) => bytes.len(),
        TensorData::Strings(strings) => strings.byte_size() + LENGTH * strings.len(),
    }
}

/// Appends a tensor's raw bytes.
pub(crate) fn encode(tensor: &Tensor, out: &mut Vec<u8>) {
    match tensor.data() {
        TensorData::Fixed(bytes) => out.extend_from_slice(bytes),
        TensorData::Strings(strings) => {
            for string in strings.iter() {
                // A body of 4 GiB is far beyond what any limit lets in or out.
                let length = u32::try_from(string.len()).expect("a string of less than 4 GiB");
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(string);
            }
        }
    }
}
