//! The `data` of one tensor: JSON values straight into a buffer of the declared type.
//!
//! What is accepted: one flat list, or lists nested exactly as the shape says; for a scalar also the
//! bare value. Whole numbers must fit their type. Floating-point types take any number that does not
//! overflow them, and `NaN`, `Infinity` and `-Infinity`, bare or quoted. FP16 and BF16 are rounded to
//! nearest even from the nearest FP64. `BOOL` takes `true`, `false`, `1` and `0`; `BYTES` takes
//! strings.
//!
//! Buffers grow with what is read: a shape that promises more than the text can hold reserves no more
//! than the text could fill.

use std::ops::Range;

use bytes::Bytes;
use half::{bf16, f16};
use jiter::Peek;
use outhaul_types::{DataType, Element, Shape, Strings, Tensor};

use super::reader::{Reader, kind};
use crate::error::excerpt;
use crate::{DecodeLimits, ProtocolError, TensorProblem, raw};

/// Why data could not be read: the text is no JSON, or its values do not make the tensor.
pub(super) enum DataError {
    Malformed(ProtocolError),
    Tensor(TensorProblem),
}

impl From<ProtocolError> for DataError {
    fn from(error: ProtocolError) -> Self {
        DataError::Malformed(error)
    }
}

impl From<TensorProblem> for DataError {
    fn from(problem: TensorProblem) -> Self {
        DataError::Tensor(problem)
    }
}

/// Reads the next value as the elements of a tensor.
pub(super) fn read_tensor(
    reader: &mut Reader<'_>,
    data_type: DataType,
    shape: Shape,
    limits: &DecodeLimits,
) -> Result<Tensor, DataError> {
    let expected = raw::elements(&shape)?;
    let element_size = data_type.size().unwrap_or(raw::SPAN);
    if expected > limits.max_tensor_bytes / element_size {
        return Err(TensorProblem::OverLimit { limit: limits.max_tensor_bytes }.into());
    }
    let capacity = expected.min(reader.values_left());
    match data_type {
        DataType::Bool => {
            let mut bools = Bools(Vec::with_capacity(capacity));
            walk(reader, &mut bools, &shape, expected)?;
            let bytes = Bytes::from(bools.0);
            Ok(Tensor::from_bytes(DataType::Bool, shape, bytes).map_err(raw::problem)?)
        }
        DataType::Bytes => {
            let mut texts = Texts { buffer: Vec::new(), spans: Vec::with_capacity(capacity) };
            walk(reader, &mut texts, &shape, expected)?;
            let strings = Strings::from_spans(texts.buffer.into(), texts.spans)
                .expect("each span is what was just appended");
            Ok(Tensor::from_strings(shape, strings).map_err(raw::problem)?)
        }
        DataType::Uint8 => numbers::<u8>(reader, shape, expected, capacity),
        DataType::Uint16 => numbers::<u16>(reader, shape, expected, capacity),
        DataType::Uint32 => numbers::<u32>(reader, shape, expected, capacity),
        DataType::Uint64 => numbers::<u64>(reader, shape, expected, capacity),
        DataType::Int8 => numbers::<i8>(reader, shape, expected, capacity),
        DataType::Int16 => numbers::<i16>(reader, shape, expected, capacity),
        DataType::Int32 => numbers::<i32>(reader, shape, expected, capacity),
        DataType::Int64 => numbers::<i64>(reader, shape, expected, capacity),
        DataType::Fp16 => numbers::<f16>(reader, shape, expected, capacity),
        DataType::Bf16 => numbers::<bf16>(reader, shape, expected, capacity),
        DataType::Fp32 => numbers::<f32>(reader, shape, expected, capacity),
        DataType::Fp64 => numbers::<f64>(reader, shape, expected, capacity),
    }
}

fn numbers<T: Number + Send>(
    reader: &mut Reader<'_>,
    shape: Shape,
    expected: usize,
    capacity: usize,
) -> Result<Tensor, DataError> {
    let mut numbers = Numbers::<T>(Vec::with_capacity(capacity));
    walk(reader, &mut numbers, &shape, expected)?;
    Ok(Tensor::from_vec(shape, numbers.0).map_err(raw::problem)?)
}

/// Reads the next value, flat or nested, into `sink`, which then holds `expected` elements.
fn walk(
    reader: &mut Reader<'_>,
    sink: &mut impl Sink,
    shape: &Shape,
    expected: usize,
) -> Result<(), DataError> {
    match reader.peek()? {
        Peek::Array => match reader.known_list()? {
            Some(Peek::Array) => nested(reader, sink, shape, 0, Some(Peek::Array))?,
            first => flat(reader, sink, shape, expected, first)?,
        },
        scalar if shape.is_empty() => sink.push(reader, scalar)?,
        other => match kind(other) {
            Some(received) => {
                return Err(TensorProblem::NotAList { shape: shape.clone(), received }.into());
            }
            None => return Err(reader.not_a_value().into()),
        },
    }
    Ok(())
}

fn flat(
    reader: &mut Reader<'_>,
    sink: &mut impl Sink,
    shape: &Shape,
    expected: usize,
    first: Option<Peek>,
) -> Result<(), DataError> {
    let mut received = 0;
    let mut next = first;
    while let Some(peek) = next {
        if received == expected {
            received += count_rest(reader)?;
            break;
        }
        sink.push(reader, peek)?;
        received += 1;
        next = reader.next_item()?;
    }
    if received == expected {
        Ok(())
    } else {
        Err(TensorProblem::WrongCount { shape: shape.clone(), expected, received }.into())
    }
}

/// Reads the items of a list at `depth` (the outermost is 0), whose first one is peeked at. It calls
/// itself once for each dimension at most.
fn nested(
    reader: &mut Reader<'_>,
    sink: &mut impl Sink,
    shape: &Shape,
    depth: usize,
    first: Option<Peek>,
) -> Result<(), DataError> {
    let expected = shape.get(depth).copied().unwrap_or(0);
    let holds_lists = depth + 1 < shape.len();
    let mut received = 0;
    let mut next = first;
    while let Some(peek) = next {
        let is_list = peek == Peek::Array;
        if is_list != holds_lists {
            let received = if is_list { "a list" } else { "an element" };
            let shape = shape.clone();
            return Err(TensorProblem::WrongNesting { shape, depth: depth + 1, received }.into());
        }
        if received == expected {
            received += count_rest(reader)?;
            break;
        }
        if is_list {
            let first = reader.known_list()?;
            nested(reader, sink, shape, depth + 1, first)?;
        } else {
            sink.push(reader, peek)?;
        }
        received += 1;
        next = reader.next_item()?;
    }
    if received == expected {
        Ok(())
    } else {
        let (shape, depth) = (shape.clone(), depth + 1);
        Err(TensorProblem::Ragged { shape, depth, expected, received }.into())
    }
}

/// Counts the remaining items of a list, so that the error can say how many came.
#[cold]
fn count_rest(reader: &mut Reader<'_>) -> Result<usize, ProtocolError> {
    let mut count = 0;
    loop {
        reader.skip()?;
        count += 1;
        if reader.next_item()?.is_none() {
            return Ok(count);
        }
    }
}

/// Where elements go.
trait Sink {
    /// Reads one value that `peek` starts.
    fn push(&mut self, reader: &mut Reader<'_>, peek: Peek) -> Result<(), DataError>;
}

struct Bools(Vec<u8>);

impl Sink for Bools {
    fn push(&mut self, reader: &mut Reader<'_>, peek: Peek) -> Result<(), DataError> {
        const EXPECTED: &str = "true, false, 1 or 0";
        let value = match peek {
            Peek::True | Peek::False => reader.known_boolean(peek)?,
            _ if peek.is_num() => match reader.known_number(peek)? {
                "0" => false,
                "1" => true,
                number => return Err(wrong_element(self.0.len(), excerpt(number), EXPECTED)),
            },
            _ => return Err(wrong_kind(reader, self.0.len(), peek, EXPECTED)),
        };
        self.0.push(u8::from(value));
        Ok(())
    }
}

struct Texts {
    buffer: Vec<u8>,
    spans: Vec<Range<usize>>,
}

impl Sink for Texts {
    fn push(&mut self, reader: &mut Reader<'_>, peek: Peek) -> Result<(), DataError> {
        if peek != Peek::String {
            return Err(wrong_kind(reader, self.spans.len(), peek, "a string"));
        }
        let start = self.buffer.len();
        self.buffer.extend_from_slice(reader.known_string()?.as_bytes());
        self.spans.push(start..self.buffer.len());
        Ok(())
    }
}

struct Numbers<T>(Vec<T>);

impl<T: Number> Sink for Numbers<T> {
    #[inline]
    fn push(&mut self, reader: &mut Reader<'_>, peek: Peek) -> Result<(), DataError> {
        let number = T::read(reader, peek, self.0.len())?;
        self.0.push(number);
        Ok(())
    }
}

/// An element type that JSON numbers are read into.
trait Number: Element {
    /// Reads the value that `peek` starts. `index` is for the error.
    fn read(reader: &mut Reader<'_>, peek: Peek, index: usize) -> Result<Self, DataError>;
}

macro_rules! whole_numbers {
    ($($rust:ty),*) => {
        $(impl Number for $rust {
            #[inline]
            fn read(reader: &mut Reader<'_>, peek: Peek, index: usize) -> Result<Self, DataError> {
                if !peek.is_num() {
                    return Err(wrong_kind(reader, index, peek, "a whole number"));
                }
                let number = reader.known_number(peek)?;
                match number.parse() {
                    Ok(value) => Ok(value),
                    Err(_) => whole_valued(number)
                        .and_then(|value| value.try_into().ok())
                        .ok_or_else(|| not_whole(number, index, Self::DATA_TYPE)),
                }
            }
        })*
    };
}

whole_numbers!(u8, u16, u32, u64, i8, i16, i32, i64);

/// Returns the value of a number that is whole though written with a fraction or an exponent, such
/// as `5.0` or `1e3`; `None` from where FP64 no longer holds every whole number.
#[cold]
pub(crate) fn whole_valued(number: &str) -> Option<i64> {
    const EXACT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
    let value: f64 = number.parse().ok()?;
    (value.fract() == 0.0 && value.abs() < EXACT).then_some(value as i64)
}

#[cold]
fn not_whole(number: &str, index: usize, data_type: DataType) -> DataError {
    let digits = number.strip_prefix('-').unwrap_or(number);
    let value = excerpt(number);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) || whole_valued(number).is_some() {
        TensorProblem::OutOfRange { index, value, data_type }.into()
    } else {
        wrong_element(index, value, "a whole number")
    }
}

macro_rules! floats {
    ($($rust:ty: $narrow:expr),* $(,)?) => {
        $(impl Number for $rust {
            #[inline]
            fn read(reader: &mut Reader<'_>, peek: Peek, index: usize) -> Result<Self, DataError> {
                if !peek.is_num() {
                    return Ok($narrow(quoted(reader, peek, index)?));
                }
                let start = reader.position();
                let wide = reader.known_float(peek)?;
                let narrow: $rust = $narrow(wide);
                if narrow.is_finite() && !is_midpoint(wide, Self::DATA_TYPE) {
                    return Ok(narrow);
                }
                let number = reader.since(start);
                if narrow.is_finite() {
                    return Ok(number.parse().unwrap_or(narrow));
                }
                if number.ends_with(|letter: char| letter.is_ascii_alphabetic()) {
                    return Ok(narrow);
                }
                let (value, data_type) = (excerpt(number), Self::DATA_TYPE);
                Err(TensorProblem::OutOfRange { index, value, data_type }.into())
            }
        })*
    };
}

floats! {
    f64: |wide: f64| wide,
    f32: |wide: f64| wide as f32,
    f16: |wide: f64| f16::from_f32(odd(wide)),
    bf16: |wide: f64| bf16::from_f32(odd(wide)),
}

/// Returns whether an FP64 may lie halfway between two FP32 values, where rounding it again could
/// differ from rounding the number as it was written. Such numbers are read a second time.
#[inline]
fn is_midpoint(wide: f64, data_type: DataType) -> bool {
    const TAIL: u32 = f64::MANTISSA_DIGITS - f32::MANTISSA_DIGITS;
    let tail = wide.to_bits() & ((1 << TAIL) - 1);
    data_type == DataType::Fp32
        && (tail == 1 << (TAIL - 1) || (wide.abs() < f64::from(f32::MIN_POSITIVE) && wide != 0.0))
}

/// Rounds to FP32 so that rounding once more, to a type with at least two bits fewer, gives what
/// rounding once would have: an inexact result gets an odd last bit ("round to odd", Boldo and
/// Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
pub(crate) fn odd(wide: f64) -> f32 {
    let nearest = wide as f32;
    let back = f64::from(nearest);
    if back == wide || nearest.is_nan() || nearest.to_bits() & 1 == 1 {
        return nearest;
    }
    let away_from_zero = wide.abs() > back.abs();
    // The magnitude grows with the bits, so this is the neighbour on the other side of `wide`.
    let bits = if away_from_zero { nearest.to_bits() + 1 } else { nearest.to_bits() - 1 };
    f32::from_bits(bits)
}

/// Reads the strings that stand for values that JSON has no number for.
#[cold]
fn quoted(reader: &mut Reader<'_>, peek: Peek, index: usize) -> Result<f64, DataError> {
    const EXPECTED: &str = "a number";
    if peek != Peek::String {
        return Err(wrong_kind(reader, index, peek, EXPECTED));
    }
    match reader.known_string()? {
        "NaN" => Ok(f64::NAN),
        "Infinity" => Ok(f64::INFINITY),
        "-Infinity" => Ok(f64::NEG_INFINITY),
        text => Err(wrong_element(index, format!("the string \"{}\"", excerpt(text)), EXPECTED)),
    }
}

#[cold]
fn wrong_kind(reader: &Reader<'_>, index: usize, peek: Peek, expected: &'static str) -> DataError {
    match kind(peek) {
        Some(received) => wrong_element(index, received.to_owned(), expected),
        None => reader.not_a_value().into(),
    }
}

#[cold]
fn wrong_element(index: usize, value: String, expected: &'static str) -> DataError {
    TensorProblem::WrongElement { index, value, expected }.into()
}
