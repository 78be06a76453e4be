//! A number of a column as an element of the model's tensor.
//!
//! Invariant: an element stands for exactly the number it was made of, up to the rounding of floats. A
//! column's numbers are FP64, which tells whole numbers apart below 2^53; those beyond are refused
//! for integers, since the neighbour of an identifier is another identifier.

use half::{bf16, f16};
use outhaul_types::{DataType, Element, Shape, Tensor};

/// The first whole number that FP64 does not tell from the next one.
const FIRST_INEXACT: f64 = 9_007_199_254_740_992.0;

/// An element that a number can become.
pub(super) trait Cell: Copy + Default {
    /// Converts a number, or returns `None` where the type does not hold it.
    fn of(number: f64) -> Option<Self>;

    /// Makes a tensor of as many cells as its shape calls for.
    fn tensor(shape: Shape, cells: Vec<Self>) -> Tensor;
}

macro_rules! whole {
    ($($kind:ty),*) => {
        $(impl Cell for $kind {
            fn of(number: f64) -> Option<Self> {
                // Casts saturate, so what comes back equal was whole and in range. NaN never does.
                let cell = number as $kind;
                (cell as f64 == number && number.abs() < FIRST_INEXACT).then_some(cell)
            }

            fn tensor(shape: Shape, cells: Vec<Self>) -> Tensor {
                of_elements(shape, cells)
            }
        })*
    };
}

macro_rules! float {
    ($($kind:ty: $convert:expr),*) => {
        $(impl Cell for $kind {
            fn of(number: f64) -> Option<Self> {
                let cell = $convert(number);
                // Infinity is a number to models, but not what a finite number may turn into.
                (cell.is_finite() || !number.is_finite()).then_some(cell)
            }

            fn tensor(shape: Shape, cells: Vec<Self>) -> Tensor {
                of_elements(shape, cells)
            }
        })*
    };
}

whole!(u8, u16, u32, u64, i8, i16, i32, i64);
float!(f16: f16::from_f64, bf16: bf16::from_f64, f32: |number| number as f32, f64: |number: f64| number);

/// A `BOOL` element.
#[derive(Clone, Copy, Default)]
pub(super) struct Truth(bool);

impl Cell for Truth {
    fn of(number: f64) -> Option<Self> {
        match number {
            0.0 => Some(Truth(false)),
            1.0 => Some(Truth(true)),
            _ => None,
        }
    }

    fn tensor(shape: Shape, cells: Vec<Self>) -> Tensor {
        let truths = cells.into_iter().map(|Truth(truth)| truth);
        Tensor::from_bools(shape, truths).expect("a pack has as many cells as its shape")
    }
}

fn of_elements<T: Element + Send>(shape: Shape, cells: Vec<T>) -> Tensor {
    Tensor::from_vec(shape, cells).expect("a pack has as many cells as its shape")
}

/// Returns whether a type holds a number; `BYTES` holds none.
pub(super) fn holds(data_type: DataType, number: f64) -> bool {
    match data_type {
        DataType::Bool => Truth::of(number).is_some(),
        DataType::Uint8 => u8::of(number).is_some(),
        DataType::Uint16 => u16::of(number).is_some(),
        DataType::Uint32 => u32::of(number).is_some(),
        DataType::Uint64 => u64::of(number).is_some(),
        DataType::Int8 => i8::of(number).is_some(),
        DataType::Int16 => i16::of(number).is_some(),
        DataType::Int32 => i32::of(number).is_some(),
        DataType::Int64 => i64::of(number).is_some(),
        DataType::Fp16 => f16::of(number).is_some(),
        DataType::Bf16 => bf16::of(number).is_some(),
        DataType::Fp32 => f32::of(number).is_some(),
        DataType::Fp64 => f64::of(number).is_some(),
        DataType::Bytes => false,
    }
}

/// Says what a type takes, for somebody who sent something else.
pub(super) fn rule(data_type: DataType) -> &'static str {
    match data_type {
        DataType::Bool => "must be true or false",
        DataType::Uint8 => "must be a whole number from 0 to 255",
        DataType::Uint16 => "must be a whole number from 0 to 65535",
        DataType::Uint32 => "must be a whole number from 0 to 4294967295",
        DataType::Uint64 => "must be a whole number from 0 to 9007199254740991",
        DataType::Int8 => "must be a whole number from -128 to 127",
        DataType::Int16 => "must be a whole number from -32768 to 32767",
        DataType::Int32 => "must be a whole number from -2147483648 to 2147483647",
        DataType::Int64 => "must be a whole number from -9007199254740991 to 9007199254740991",
        DataType::Fp16 => "must be a number from -65504 to 65504, as FP16 holds them",
        DataType::Bf16 | DataType::Fp32 => "must be a number from -3.4e38 to 3.4e38",
        DataType::Fp64 => "must be a number",
        DataType::Bytes => "must be a text",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_holds_what_it_can_tell_apart_and_nothing_else() {
        struct Case(DataType, &'static [f64], &'static [f64]);
        const NAN: f64 = f64::NAN;
        const INFINITE: f64 = f64::INFINITY;
        let cases = [
            Case(DataType::Bool, &[0.0, -0.0, 1.0], &[2.0, 0.5, -1.0, NAN]),
            Case(DataType::Uint8, &[0.0, 255.0], &[-1.0, 256.0, 0.5, NAN, INFINITE]),
            Case(DataType::Int8, &[-128.0, 127.0], &[-129.0, 128.0, 1e300]),
            Case(DataType::Int32, &[-2147483648.0, 2147483647.0], &[2147483648.0, NAN]),
            Case(
                DataType::Int64,
                &[9_007_199_254_740_991.0, -9_007_199_254_740_991.0],
                &[9_007_199_254_740_992.0, 9.3e18, -9.3e18, -INFINITE],
            ),
            Case(DataType::Uint64, &[9_007_199_254_740_991.0], &[-1.0, 1.9e19]),
            Case(DataType::Fp16, &[65504.0, 1e-9, NAN, INFINITE], &[65520.0, -1e9]),
            Case(DataType::Bf16, &[3e38, NAN], &[3.4e38, 1e39]),
            Case(DataType::Fp32, &[3.4e38, 1e-60, 0.1, NAN, -INFINITE], &[3.5e38]),
            Case(DataType::Fp64, &[1e308, NAN, INFINITE], &[]),
            Case(DataType::Bytes, &[], &[1.0]),
        ];
        for Case(data_type, held, refused) in cases {
            for &number in held {
                assert!(holds(data_type, number), "{data_type} {number}");
            }
            for &number in refused {
                assert!(!holds(data_type, number), "{data_type} {number}");
            }
        }
    }
}
