//! Values, as JSON or as text, into a buffer of a tensor's type.
//!
//! Whole numbers must fit their type (`5.0` and `1e3` are whole); floats take any number that does not
//! overflow them, and `NaN`, `Infinity` and `-Infinity`, quoted too. Each is rounded once, from the
//! digits as they were written.

use std::ops::Range;

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};
use bytes::Bytes;
use half::{bf16, f16};
use outhaul_types::{Content, DataType, Element, Field, Shape, Strings, Tensor, TensorError};

use super::JsonValue;
use crate::error::excerpt;
use crate::oip::elements::{odd, whole_valued};

/// Base64 with or without padding, as clients differ in that.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// What is wrong with a value, continuing "row 3: 'age' ...".
pub(crate) type Problem = String;

/// Where the values of one input go.
pub(crate) trait Sink {
    /// Takes a value of a JSON text.
    fn json(&mut self, value: &JsonValue<'_>) -> Result<(), Problem>;
    /// Takes a value as text, such as a field of CSV.
    fn text(&mut self, text: &str) -> Result<(), Problem>;
    /// Takes the place of a value that is missing.
    fn missing(&mut self);
    /// Returns the tensor.
    fn finish(self: Box<Self>, shape: Shape) -> Result<Tensor, TensorError>;
}

/// Makes a sink for an input. `capacity` is a guess of its elements that the caller has bounded.
pub(crate) fn sink(data_type: DataType, field: &Field, capacity: usize) -> Box<dyn Sink> {
    let boolean = field.content == Content::Boolean;
    match data_type {
        DataType::Bool => Box::new(Bools(Vec::with_capacity(capacity))),
        DataType::Bytes => Box::new(Texts {
            buffer: Vec::new(),
            spans: Vec::with_capacity(capacity),
            content: field.content,
        }),
        DataType::Uint8 => numbers::<u8>(boolean, capacity),
        DataType::Uint16 => numbers::<u16>(boolean, capacity),
        DataType::Uint32 => numbers::<u32>(boolean, capacity),
        DataType::Uint64 => numbers::<u64>(boolean, capacity),
        DataType::Int8 => numbers::<i8>(boolean, capacity),
        DataType::Int16 => numbers::<i16>(boolean, capacity),
        DataType::Int32 => numbers::<i32>(boolean, capacity),
        DataType::Int64 => numbers::<i64>(boolean, capacity),
        DataType::Fp16 => numbers::<f16>(boolean, capacity),
        DataType::Bf16 => numbers::<bf16>(boolean, capacity),
        DataType::Fp32 => numbers::<f32>(boolean, capacity),
        DataType::Fp64 => numbers::<f64>(boolean, capacity),
    }
}

fn numbers<T: Number + Send>(boolean: bool, capacity: usize) -> Box<dyn Sink> {
    Box::new(Numbers::<T> { elements: Vec::with_capacity(capacity), boolean })
}

#[cold]
fn must_be(expected: &str, value: &JsonValue<'_>) -> Problem {
    match value {
        JsonValue::Number(digits) => format!("must be {expected}, got {}", excerpt(digits)),
        _ => format!("must be {expected}, got {}", value.kind()),
    }
}

#[cold]
fn must_be_text(expected: &str, text: &str) -> Problem {
    format!("must be {expected}, got '{}'", excerpt(text))
}

const BOOLEAN: &str = "true, false, 1 or 0";

fn boolean_of(value: &JsonValue<'_>) -> Result<bool, Problem> {
    match value {
        JsonValue::Bool(value) => Ok(*value),
        JsonValue::Number("0" | "0.0") => Ok(false),
        JsonValue::Number("1" | "1.0") => Ok(true),
        other => Err(must_be(BOOLEAN, other)),
    }
}

fn boolean_of_text(text: &str) -> Result<bool, Problem> {
    match text.trim() {
        "true" | "True" | "TRUE" | "1" | "1.0" => Ok(true),
        "false" | "False" | "FALSE" | "0" | "0.0" => Ok(false),
        other => Err(must_be_text(BOOLEAN, other)),
    }
}

struct Bools(Vec<u8>);

impl Sink for Bools {
    fn json(&mut self, value: &JsonValue<'_>) -> Result<(), Problem> {
        self.0.push(u8::from(boolean_of(value)?));
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), Problem> {
        self.0.push(u8::from(boolean_of_text(text)?));
        Ok(())
    }

    fn missing(&mut self) {
        self.0.push(0);
    }

    fn finish(self: Box<Self>, shape: Shape) -> Result<Tensor, TensorError> {
        Tensor::from_bytes(DataType::Bool, shape, Bytes::from(self.0))
    }
}

struct Texts {
    buffer: Vec<u8>,
    spans: Vec<Range<usize>>,
    content: Content,
}

impl Texts {
    fn push(&mut self, bytes: &[u8]) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        self.spans.push(start..self.buffer.len());
    }

    fn push_base64(&mut self, text: &str) -> Result<(), Problem> {
        let start = self.buffer.len();
        let url_safe = text.bytes().any(|byte| matches!(byte, b'-' | b'_'));
        let engine = if url_safe { &URL_SAFE } else { &STANDARD };
        engine.decode_vec(text, &mut self.buffer).map_err(|error| {
            let error = error.to_string();
            format!("is not Base64: {}", lower(error.trim_end_matches('.')))
        })?;
        let is_text = matches!(
            self.content,
            Content::Text | Content::Category | Content::Date | Content::Label | Content::Json
        );
        if is_text && std::str::from_utf8(&self.buffer[start..]).is_err() {
            return Err("is not UTF-8 once its Base64 is decoded".to_owned());
        }
        self.spans.push(start..self.buffer.len());
        Ok(())
    }
}

/// Makes another crate's text fit into a clause.
fn lower(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_lowercase);
    first.chain(letters).collect()
}

/// Returns the text of `{"b64": "..."}`.
pub(crate) fn base64_of<'a>(value: &'a JsonValue<'_>) -> Option<&'a str> {
    match value {
        JsonValue::Object(members) => match &members[..] {
            [(key, JsonValue::String(text))] if key == "b64" => Some(text),
            _ => None,
        },
        _ => None,
    }
}

impl Sink for Texts {
    fn json(&mut self, value: &JsonValue<'_>) -> Result<(), Problem> {
        const EXPECTED: &str = "a string or {\"b64\": \"...\"}";
        if let Some(text) = base64_of(value) {
            return self.push_base64(text);
        }
        match value {
            // No picture is UTF-8, so a plain string can only be meant as Base64.
            JsonValue::String(text) if self.content == Content::Image => {
                let data_url = text.starts_with("data:").then(|| text.split_once(";base64,"));
                self.push_base64(data_url.flatten().map_or(&**text, |(_, data)| data))
            }
            JsonValue::String(text) => {
                self.push(text.as_bytes());
                Ok(())
            }
            other if self.content == Content::Tensor || self.content == Content::Image => {
                Err(must_be(EXPECTED, other))
            }
            other => Err(must_be("a string", other)),
        }
    }

    fn text(&mut self, text: &str) -> Result<(), Problem> {
        match self.content {
            Content::Image => self.push_base64(text.trim()),
            _ => {
                self.push(text.as_bytes());
                Ok(())
            }
        }
    }

    fn missing(&mut self) {
        self.push(b"");
    }

    fn finish(self: Box<Self>, shape: Shape) -> Result<Tensor, TensorError> {
        let strings = Strings::from_spans(self.buffer.into(), self.spans)
            .expect("each span is what was just appended");
        Tensor::from_strings(shape, strings)
    }
}

struct Numbers<T> {
    elements: Vec<T>,
    /// Whether they stand for true and false.
    boolean: bool,
}

impl<T: Number + Send> Sink for Numbers<T> {
    fn json(&mut self, value: &JsonValue<'_>) -> Result<(), Problem> {
        let number = match value {
            _ if self.boolean => T::of_bool(boolean_of(value)?),
            JsonValue::Number(digits) => T::read(digits)?,
            JsonValue::String(text) if T::IS_FLOAT && is_word(text) => T::read(text)?,
            other => return Err(must_be(T::EXPECTED, other)),
        };
        self.elements.push(number);
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), Problem> {
        let number = match self.boolean {
            true => T::of_bool(boolean_of_text(text)?),
            false => T::read(text)?,
        };
        self.elements.push(number);
        Ok(())
    }

    fn missing(&mut self) {
        self.elements.push(T::MISSING);
    }

    fn finish(self: Box<Self>, shape: Shape) -> Result<Tensor, TensorError> {
        Tensor::from_vec(shape, self.elements)
    }
}

fn is_word(text: &str) -> bool {
    matches!(text, "NaN" | "Infinity" | "-Infinity")
}

/// An element type that is read from digits.
trait Number: Element {
    const EXPECTED: &'static str;
    const IS_FLOAT: bool;
    /// What stands for a missing value: not a number, where there is such a thing.
    const MISSING: Self;

    fn of_bool(value: bool) -> Self;
    /// Reads a number as JSON writes it. Text around which there are blanks is read too.
    fn read(digits: &str) -> Result<Self, Problem>;
}

macro_rules! whole_numbers {
    ($($rust:ty),*) => {
        $(impl Number for $rust {
            const EXPECTED: &'static str = "a whole number";
            const IS_FLOAT: bool = false;
            const MISSING: Self = 0;

            fn of_bool(value: bool) -> Self {
                value.into()
            }

            #[inline]
            fn read(digits: &str) -> Result<Self, Problem> {
                match digits.parse() {
                    Ok(value) => Ok(value),
                    Err(_) => unusual_whole(digits.trim(), Self::DATA_TYPE)?
                        .try_into()
                        .map_err(|_| out_of_range(digits, Self::DATA_TYPE)),
                }
            }
        })*
    };
}

whole_numbers!(u8, u16, u32, u64, i8, i16, i32, i64);

/// Reads a whole number that is written with a fraction, an exponent or blanks around it.
#[cold]
fn unusual_whole(text: &str, data_type: DataType) -> Result<i128, Problem> {
    if let Ok(value) = text.parse::<i128>() {
        return Ok(value);
    }
    if let Some(value) = whole_valued(text) {
        return Ok(value.into());
    }
    let digits = text.trim_start_matches(['-', '+']);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(out_of_range(text, data_type));
    }
    match text.parse::<f64>() {
        Ok(_) => Err(format!("must be a whole number, got {}", excerpt(text))),
        Err(_) => Err(must_be_text("a whole number", text)),
    }
}

#[cold]
fn out_of_range(digits: &str, data_type: DataType) -> Problem {
    format!("is {}, which is out of range for {data_type}", excerpt(digits.trim()))
}

macro_rules! floats {
    ($($rust:ty: $zero:expr, $one:expr, $parse:expr);* $(;)?) => {
        $(impl Number for $rust {
            const EXPECTED: &'static str = "a number";
            const IS_FLOAT: bool = true;
            const MISSING: Self = <$rust>::NAN;

            fn of_bool(value: bool) -> Self {
                if value { $one } else { $zero }
            }

            #[inline]
            fn read(digits: &str) -> Result<Self, Problem> {
                let parse: fn(&str) -> Option<$rust> = $parse;
                match parse(digits) {
                    Some(value) if value.is_finite() => Ok(value),
                    _ => {
                        let trimmed = digits.trim();
                        let value = parse(trimmed).map(|value| (value, value.is_finite()));
                        unusual_float(trimmed, value, Self::DATA_TYPE)
                    }
                }
            }
        })*
    };
}

floats! {
    f64: 0.0, 1.0, |digits| digits.parse().ok();
    // From the digits, so that it is rounded once.
    f32: 0.0, 1.0, |digits| digits.parse().ok();
    f16: f16::ZERO, f16::ONE, |digits| digits.parse().ok().map(|wide| f16::from_f32(odd(wide)));
    bf16: bf16::ZERO, bf16::ONE, |digits| digits.parse().ok().map(|wide| bf16::from_f32(odd(wide)));
}

/// Settles what is no finite number as it stands: a word, an overflow, blanks around it, or no number
/// at all. `value` is what was read, and whether it is finite.
#[cold]
fn unusual_float<T>(
    text: &str,
    value: Option<(T, bool)>,
    data_type: DataType,
) -> Result<T, Problem> {
    match value {
        None => Err(must_be_text("a number", text)),
        // A word (`NaN`, `inf`) ends in a letter; what overflowed ends in a digit or a point.
        Some((value, finite))
            if finite || text.ends_with(|end: char| end.is_ascii_alphabetic()) =>
        {
            Ok(value)
        }
        Some(_) => Err(out_of_range(text, data_type)),
    }
}
