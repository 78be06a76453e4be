//! What is known of a value before the model runs: its type, how large it can get, its rank.

use outhaul_onnx::{Initializer, ValueType, Values};
use outhaul_types::{DataType, ShapePattern};

/// The largest integer the engine is trusted with. `i32::MIN` is left out, so that a negation and
/// an absolute value stay inside.
pub(in crate::embedded) const LARGEST: u64 = i32::MAX as u64;

/// A factor up to this turns a tensor's extent into something still taken for an extent.
const SMALL_FACTOR: u64 = 1 << 16;

/// How large the elements of a value can be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Magnitude {
    /// At most this, either way.
    Within(u64),
    /// An expression of tensor dimensions. Those are below 2^31 because such a tensor would not fit
    /// into the engine anyway, and so are their products.
    Extent,
    /// A constant beyond 32 bits, which the engine holds as the nearest it has.
    Saturated,
    /// Anything.
    Any,
}

impl Magnitude {
    /// Either of two values.
    pub(super) fn or(self, other: Magnitude) -> Magnitude {
        use Magnitude::{Any, Extent, Saturated, Within};
        match (self, other) {
            (Saturated, _) | (_, Saturated) => Saturated,
            (Any, _) | (_, Any) => Any,
            (Within(left), Within(right)) => Within(left.max(right)),
            (Extent, Extent) => Extent,
            (Extent, Within(bound)) | (Within(bound), Extent) if bound <= SMALL_FACTOR => Extent,
            (Extent, Within(bound)) | (Within(bound), Extent) => Within(bound.max(LARGEST)),
        }
    }

    /// A sum or a difference.
    pub(super) fn plus(self, other: Magnitude) -> Magnitude {
        self.combined(other, u64::checked_add)
    }

    /// A product.
    pub(super) fn times(self, other: Magnitude) -> Magnitude {
        self.combined(other, u64::checked_mul)
    }

    /// A sum or product along a dimension.
    pub(super) fn accumulated(self) -> Magnitude {
        self.combined(Magnitude::Extent, |_, _| None)
    }

    fn combined(self, other: Magnitude, of: fn(u64, u64) -> Option<u64>) -> Magnitude {
        use Magnitude::{Any, Extent, Saturated, Within};
        match (self, other) {
            (Saturated | Any, _) | (_, Saturated | Any) => Any,
            (Within(left), Within(right)) => of(left, right).map_or(Any, Within),
            (Extent, Extent) => Extent,
            (Extent, Within(bound)) | (Within(bound), Extent) => {
                if bound <= SMALL_FACTOR {
                    Extent
                } else {
                    Any
                }
            }
        }
    }

    /// Returns whether the engine's 32 bits hold it.
    pub(super) fn fits(self) -> bool {
        match self {
            Magnitude::Within(bound) => bound <= LARGEST + 1,
            Magnitude::Extent => true,
            Magnitude::Saturated | Magnitude::Any => false,
        }
    }

    /// Returns whether it fits after arithmetic, where the asymmetric end is left out.
    pub(super) fn is_safe(self) -> bool {
        match self {
            Magnitude::Within(bound) => bound <= LARGEST,
            other => other.fits(),
        }
    }
}

/// What is known of one value.
#[derive(Clone, Debug)]
pub(super) struct Fact {
    /// The type that ONNX gives it; `None` where it could not be followed.
    pub(super) data_type: Option<DataType>,
    /// How large its elements get.
    pub(super) magnitude: Magnitude,
    /// The number of dimensions, where known.
    pub(super) rank: Option<usize>,
    /// A BOOL that may hold other numbers than 0 and 1, all of which but 0 mean true.
    pub(super) loose: bool,
    /// A quotient that the engine computes as a product with the reciprocal, so that it can miss by
    /// the last digit.
    pub(super) rough: bool,
    /// The elements of a small constant.
    pub(super) constant: Option<Values>,
}

impl Fact {
    /// A value of a type, of which nothing else is known.
    pub(super) fn of(data_type: DataType) -> Fact {
        Fact {
            data_type: Some(data_type),
            magnitude: widest(data_type),
            rank: None,
            loose: false,
            rough: false,
            constant: None,
        }
    }

    /// A value of which nothing at all is known.
    pub(super) fn unknown() -> Fact {
        Fact { data_type: None, magnitude: Magnitude::Any, ..Fact::of(DataType::Fp32) }
    }

    /// A value that a file declares.
    pub(super) fn declared(value_type: Option<&ValueType>) -> Fact {
        match value_type {
            Some(ValueType::Tensor { element, shape }) => {
                let rank = match shape {
                    ShapePattern::AnyRank => None,
                    ShapePattern::Ranked(dimensions) => Some(dimensions.len()),
                };
                let fact = element.data_type().map_or_else(Fact::unknown, Fact::of);
                Fact { rank, ..fact }
            }
            _ => Fact::unknown(),
        }
    }

    /// A constant tensor.
    pub(super) fn constant(tensor: &Initializer) -> Fact {
        let fact = tensor.data_type.data_type().map_or_else(Fact::unknown, Fact::of);
        let magnitude = match &tensor.values {
            Some(Values::Ints(elements)) => largest_int(elements),
            Some(Values::Floats(elements)) => largest_float(elements),
            None => fact.magnitude,
        };
        let rank = Some(tensor.dims.len());
        Fact { magnitude, rank, constant: tensor.values.clone(), ..fact }
    }

    /// The same value under another magnitude.
    pub(super) fn within(self, magnitude: Magnitude) -> Fact {
        Fact { magnitude, ..self }
    }

    pub(super) fn ranked(self, rank: Option<usize>) -> Fact {
        Fact { rank, ..self }
    }

    /// Either of two values.
    pub(super) fn or(self, other: &Fact) -> Fact {
        Fact {
            data_type: self.data_type.or(other.data_type),
            magnitude: self.magnitude.or(other.magnitude),
            rank: if self.rank == other.rank { self.rank } else { None },
            loose: self.loose || other.loose,
            rough: self.rough || other.rough,
            constant: None,
        }
    }

    /// Returns the one element of a constant integer scalar.
    pub(super) fn int(&self) -> Option<i64> {
        match &self.constant {
            Some(Values::Ints(elements)) if elements.len() == 1 => Some(elements[0]),
            _ => None,
        }
    }

    /// Returns the elements of a constant list of floats.
    pub(super) fn floats(&self) -> Option<&[f32]> {
        match &self.constant {
            Some(Values::Floats(elements)) => Some(elements),
            _ => None,
        }
    }

    /// Returns the number of elements of a constant.
    pub(super) fn constant_len(&self) -> Option<usize> {
        match self.constant.as_ref()? {
            Values::Ints(elements) => Some(elements.len()),
            Values::Floats(elements) => Some(elements.len()),
        }
    }
}

/// What the type alone says. INT64 is what the engine checks of every request.
fn widest(data_type: DataType) -> Magnitude {
    match data_type {
        DataType::Bool => Magnitude::Within(1),
        DataType::Int8 => Magnitude::Within(1 << 7),
        DataType::Uint8 => Magnitude::Within(u64::from(u8::MAX)),
        DataType::Int32 => Magnitude::Within(LARGEST + 1),
        DataType::Int64 => Magnitude::Within(LARGEST),
        _ => Magnitude::Any,
    }
}

fn largest_int(elements: &[i64]) -> Magnitude {
    let inside = |&element: &i64| i32::try_from(element).is_ok();
    if elements.iter().all(inside) {
        Magnitude::Within(elements.iter().map(|element| element.unsigned_abs()).max().unwrap_or(0))
    } else {
        Magnitude::Saturated
    }
}

fn largest_float(elements: &[f32]) -> Magnitude {
    let largest = elements.iter().fold(0_f32, |largest, element| {
        if element.is_nan() { f32::INFINITY } else { largest.max(element.abs()) }
    });
    if largest <= LARGEST as f32 {
        Magnitude::Within(largest.ceil() as u64)
    } else {
        Magnitude::Any
    }
}
