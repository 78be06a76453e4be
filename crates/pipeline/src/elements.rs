//! Tensors as a condition sees them: lists in lists, a bounded number of elements.

use cel::Value;
use half::{bf16, f16};
use outhaul_types::{DataType, Tensor};

/// The most elements that one condition may look at.
pub const MOST_ELEMENTS: usize = 4096;

/// The most bytes of strings among them.
pub const MOST_BYTES: usize = 64 * 1024;

/// A condition would look at more than one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum TooMuch {
    #[error("it would look at more than {MOST_ELEMENTS} elements")]
    Elements,
    #[error("it would look at more than {MOST_BYTES} bytes of strings")]
    Bytes,
}

/// How much one condition may still look at.
pub(crate) struct Room {
    elements: usize,
    bytes: usize,
}

impl Default for Room {
    fn default() -> Self {
        Room { elements: MOST_ELEMENTS, bytes: MOST_BYTES }
    }
}

/// Makes a tensor a value: a number or string where it has no dimensions, else a list by rows.
pub(crate) fn value_of(tensor: &Tensor, room: &mut Room) -> Result<Value, TooMuch> {
    room.elements = room.elements.checked_sub(tensor.len()).ok_or(TooMuch::Elements)?;
    // A shape with a zero in it may have any number of rows that hold nothing.
    let lists = tensor
        .shape()
        .iter()
        .take_while(|&&size| size > 0)
        .try_fold(1_usize, |all, &size| all.checked_mul(size));
    if lists.is_none_or(|lists| lists > MOST_ELEMENTS) {
        return Err(TooMuch::Elements);
    }
    let flat = flat(tensor, room)?;
    Ok(nested(tensor.shape(), &mut flat.into_iter()))
}

fn nested(shape: &[usize], elements: &mut impl Iterator<Item = Value>) -> Value {
    match shape {
        [] => elements.next().unwrap_or(Value::Null),
        [rows, inner @ ..] => {
            let rows: Vec<Value> = (0..*rows).map(|_| nested(inner, elements)).collect();
            Value::List(rows.into())
        }
    }
}

fn flat(tensor: &Tensor, room: &mut Room) -> Result<Vec<Value>, TooMuch> {
    /// A match over all types with one conversion each.
    macro_rules! values {
        ($rust:ty, $value:expr) => {{
            let elements = tensor.elements_of::<$rust>();
            elements
                .iter()
                .flat_map(|elements| elements.iter())
                .map(|&element| $value(element))
                .collect()
        }};
    }
    Ok(match tensor.data_type() {
        DataType::Bool => {
            let bytes = tensor.as_bytes().into_iter().flatten();
            bytes.map(|&byte| Value::Bool(byte != 0)).collect()
        }
        DataType::Uint8 => values!(u8, |e| Value::Int(i64::from(e))),
        DataType::Uint16 => values!(u16, |e| Value::Int(i64::from(e))),
        DataType::Uint32 => values!(u32, |e| Value::Int(i64::from(e))),
        DataType::Uint64 => values!(u64, Value::UInt),
        DataType::Int8 => values!(i8, |e| Value::Int(i64::from(e))),
        DataType::Int16 => values!(i16, |e| Value::Int(i64::from(e))),
        DataType::Int32 => values!(i32, |e| Value::Int(i64::from(e))),
        DataType::Int64 => values!(i64, Value::Int),
        DataType::Fp16 => values!(f16, |e: f16| Value::Float(e.to_f64())),
        DataType::Bf16 => values!(bf16, |e: bf16| Value::Float(e.to_f64())),
        DataType::Fp32 => values!(f32, |e| Value::Float(f64::from(e))),
        DataType::Fp64 => values!(f64, Value::Float),
        DataType::Bytes => strings(tensor, room)?,
    })
}

fn strings(tensor: &Tensor, room: &mut Room) -> Result<Vec<Value>, TooMuch> {
    let Some(strings) = tensor.as_strings() else { return Ok(Vec::new()) };
    let each = (0..tensor.len()).filter_map(|index| strings.get(index)).map(|bytes| {
        room.bytes = room.bytes.checked_sub(bytes.len()).ok_or(TooMuch::Bytes)?;
        Ok(match std::str::from_utf8(bytes) {
            Ok(text) => Value::String(text.to_owned().into()),
            Err(_) => Value::Bytes(bytes.to_vec().into()),
        })
    });
    each.collect()
}
