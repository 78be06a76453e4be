//! What is known of a value: the type of its elements, and which integers they can be.

use outhaul_types::DataType;

use crate::element::ElementType;
use crate::graph::{Initializer, ValueType, Values};

/// What is known of the elements of a tensor, or of the tensors of a sequence.
#[derive(Clone, Debug)]
pub(super) struct Fact {
    /// Their type; `None` where it could not be followed. FP32 stands for every type that is
    /// divided without danger, where it does not matter which it is.
    pub(super) data_type: Option<DataType>,
    /// The least integer among them. Of floats nothing is known.
    pub(super) low: i64,
    /// The largest.
    pub(super) high: i64,
    /// Whether one of them may be -1.
    pub(super) minus_one: bool,
}

impl Fact {
    /// Any value of a type.
    pub(super) fn of(data_type: DataType) -> Fact {
        Fact::any(Some(data_type))
    }

    /// Any value of a type, where that is known.
    pub(super) fn any(data_type: Option<DataType>) -> Fact {
        let (low, high) = ends(data_type);
        Fact { data_type, low, high, minus_one: low < 0 }
    }

    /// Anything.
    pub(super) fn unknown() -> Fact {
        Fact::any(None)
    }

    /// Floats, or small integers: what no division of is dangerous.
    pub(super) fn harmless() -> Fact {
        Fact::of(DataType::Fp32)
    }

    /// Truth values. Their bytes come from requests, which may hold others than 0 and 1.
    pub(super) fn boolean() -> Fact {
        Fact::of(DataType::Bool)
    }

    /// A dimension, a count or a position. Of a tensor without elements the other dimensions may be
    /// as large as the type allows.
    pub(super) fn extent() -> Fact {
        Fact { low: 0, minus_one: false, ..Fact::of(DataType::Int64) }
    }

    /// A result between two numbers, which wraps around where the type does not hold them.
    pub(super) fn computed(data_type: Option<DataType>, low: i128, high: i128) -> Fact {
        let (least, largest) = ends(data_type);
        match (i64::try_from(low), i64::try_from(high)) {
            (Ok(low), Ok(high)) if is_integer(data_type) && least <= low && high <= largest => {
                Fact { data_type, low, high, minus_one: low <= -1 && -1 <= high }
            }
            _ => Fact::any(data_type),
        }
    }

    /// A value that a file declares.
    pub(super) fn declared(value_type: Option<&ValueType>) -> Fact {
        match value_type {
            Some(ValueType::Tensor { element, .. }) => Fact::element(*element),
            _ => Fact::unknown(),
        }
    }

    /// Any value of an element type. Types that no request can carry are not divided as integers.
    pub(super) fn element(element: ElementType) -> Fact {
        match element.data_type() {
            Some(data_type) => Fact::of(data_type),
            None if element.is_known() => Fact::harmless(),
            None => Fact::unknown(),
        }
    }

    /// A constant tensor.
    pub(super) fn constant(tensor: &Initializer) -> Fact {
        let any = Fact::element(tensor.data_type);
        match &tensor.values {
            Some(Values::Ints(elements)) if !tensor.sparse => Fact::integers(any, elements),
            _ => any,
        }
    }

    /// Known integers of the type of `any`.
    pub(super) fn integers(any: Fact, elements: &[i64]) -> Fact {
        match (elements.iter().min(), elements.iter().max()) {
            (Some(&low), Some(&high)) if is_integer(any.data_type) => {
                Fact { low, high, minus_one: elements.contains(&-1), ..any }
            }
            _ => any,
        }
    }

    /// Either of two values, which share a type.
    pub(super) fn or(&self, other: &Fact) -> Fact {
        Fact {
            data_type: self.data_type.or(other.data_type),
            low: self.low.min(other.low),
            high: self.high.max(other.high),
            minus_one: self.minus_one || other.minus_one,
        }
    }

    /// The same, of which others tell the type.
    pub(super) fn typed(&self, data_type: Option<DataType>) -> Fact {
        let (low, high) = ends(data_type);
        Fact { data_type, low: self.low.max(low), high: self.high.min(high), ..*self }
    }

    /// The same with zeros among the elements.
    pub(super) fn or_zero(&self) -> Fact {
        Fact { low: self.low.min(0), high: self.high.max(0), ..self.clone() }
    }

    /// Returns whether an element may be the least of its type.
    pub(super) fn may_be_least(&self, data_type: Option<DataType>) -> bool {
        match data_type {
            Some(DataType::Int64) => self.low == i64::MIN,
            _ => self.low <= i64::from(i32::MIN),
        }
    }
}

/// Returns whether a type is one whose division the processor does in that type, and so traps.
/// Smaller ones are divided as INT32, which holds the result.
pub(super) fn is_divided_by_the_processor(data_type: Option<DataType>) -> bool {
    matches!(data_type, None | Some(DataType::Int32 | DataType::Int64))
}

/// Returns whether elements of this type are integers that fit 64 bits with a sign.
pub(super) fn is_integer(data_type: Option<DataType>) -> bool {
    use DataType::{Bool, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32};
    matches!(data_type, Some(Bool | Int8 | Int16 | Int32 | Int64 | Uint8 | Uint16 | Uint32))
}

/// Returns the least and the largest integer of a type.
fn ends(data_type: Option<DataType>) -> (i64, i64) {
    match data_type {
        Some(DataType::Bool | DataType::Uint8) => (0, i64::from(u8::MAX)),
        Some(DataType::Uint16) => (0, i64::from(u16::MAX)),
        Some(DataType::Uint32) => (0, i64::from(u32::MAX)),
        Some(DataType::Int8) => (i64::from(i8::MIN), i64::from(i8::MAX)),
        Some(DataType::Int16) => (i64::from(i16::MIN), i64::from(i16::MAX)),
        Some(DataType::Int32) => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    }
}
