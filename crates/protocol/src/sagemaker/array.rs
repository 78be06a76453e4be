//! One array to a model's inputs.
//!
//! NumPy makes FP64 and INT64 of everything where nobody says otherwise, and few models take them. So
//! numbers become the model's type as those of JSON would: floats are rounded, whole numbers become
//! floats or other whole numbers where they fit. Floats never become whole numbers.

use bytes::Bytes;
use half::f16;
use outhaul_types::{
    DataType, Dimension, NamedTensor, ShapePattern, Tensor, TensorError, TensorSpec,
};
use smallvec::SmallVec;

use crate::rows::Inputs;
use crate::{DecodeLimits, ProtocolError, Schema, TensorProblem, npy};

/// Reads an array for a model with one input, or with one column `[rows]` for each of the array's.
///
/// # Errors
///
/// Fails where the body is no array, or none that the model can take.
pub(super) fn decode(
    body: &Bytes,
    model: &Schema<'_>,
    limits: &DecodeLimits,
) -> Result<Inputs, ProtocolError> {
    let array = npy::decode(body, limits)?;
    if let Some(rows) = array.shape().rows() {
        crate::rows::check_rows(rows, limits)?;
    }
    let specs = &model.signature.inputs;
    if let [only] = &specs[..] {
        return Ok(SmallVec::from_iter([named(only, converted(&array, only)?)]));
    }
    let is_column =
        |spec: &TensorSpec| matches!(&spec.shape, ShapePattern::Ranked(sizes) if sizes.len() == 1);
    match **array.shape() {
        [rows, columns] if columns == specs.len() && specs.iter().all(is_column) => {
            let parts = specs.iter().enumerate().map(|(column, spec)| {
                let part = column_of(&array, rows, columns, column);
                let part = part.map_err(|error| not_a_tensor(spec, error))?;
                Ok(named(spec, converted(&part, spec)?))
            });
            parts.collect()
        }
        _ => Err(ProtocolError::NotTaken {
            request: "this",
            name: "Content-Type: application/x-npy".to_owned(),
            reason: "the model takes neither one array nor as many columns as the array has",
        }),
    }
}

fn named(spec: &TensorSpec, tensor: Tensor) -> NamedTensor {
    NamedTensor { name: spec.name.clone(), tensor }
}

/// Copies one column of a table.
fn column_of(
    array: &Tensor,
    rows: usize,
    columns: usize,
    column: usize,
) -> Result<Tensor, TensorError> {
    let bytes = array.as_bytes().map_or(&[][..], |bytes| bytes);
    let size = array.data_type().size().unwrap_or(1);
    let cell = |row: usize| &bytes[(row * columns + column) * size..][..size];
    let cells: Vec<u8> = (0..rows).flat_map(|row| cell(row).iter().copied()).collect();
    Tensor::from_bytes(array.data_type(), [rows], cells.into())
}

/// Copies the numbers of a tensor into another type by `as`.
macro_rules! cast {
    ($tensor:expr, $to:ty, $($kind:ident => $from:ty),*) => {
        match $tensor.data_type() {
            $(DataType::$kind => $tensor.elements_of::<$from>().map(|elements| {
                elements.iter().map(|&element| element as $to).collect::<Vec<$to>>()
            }),)*
            _ => None,
        }
    };
}

/// Returns an array as the model's type and rank, or as it is where there is no way: then it is
/// refused with what was expected.
fn converted(array: &Tensor, spec: &TensorSpec) -> Result<Tensor, ProtocolError> {
    let shape = match &spec.shape {
        // A list of numbers is a column of one, where the model takes rows of one.
        ShapePattern::Ranked(sizes) => match (&**array.shape(), &sizes[..]) {
            (&[rows], [_, Dimension::Fixed(1)]) => [rows, 1].into(),
            (&[rows, 1], [_]) => [rows].into(),
            _ => array.shape().clone(),
        },
        ShapePattern::AnyRank => array.shape().clone(),
    };
    let made = match spec.data_type {
        same if same == array.data_type() => Some(array.clone().reshaped(shape)),
        DataType::Fp64 => as_f64(array).map(|numbers| Tensor::from_vec(shape, numbers)),
        DataType::Fp32 => {
            let numbers = as_f32(array);
            if let (Some(narrow), Some(wide)) = (&numbers, array.elements_of::<f64>()) {
                check_range(spec, narrow, &wide)?;
            }
            numbers.map(|numbers| Tensor::from_vec(shape, numbers))
        }
        DataType::Int64 => {
            let numbers = cast!(array, i64, Int8 => i8, Int16 => i16, Int32 => i32, Uint8 => u8,
                Uint16 => u16, Uint32 => u32);
            numbers.map(|numbers| Tensor::from_vec(shape, numbers))
        }
        DataType::Int32 => match array.elements_of::<i64>() {
            Some(wide) => Some(Tensor::from_vec(shape, narrowed(spec, &wide)?)),
            None => {
                let numbers =
                    cast!(array, i32, Int8 => i8, Int16 => i16, Uint8 => u8, Uint16 => u16);
                numbers.map(|numbers| Tensor::from_vec(shape, numbers))
            }
        },
        _ => None,
    };
    match made {
        None => Ok(array.clone()),
        Some(made) => made.map_err(|error| not_a_tensor(spec, error)),
    }
}

fn as_f64(array: &Tensor) -> Option<Vec<f64>> {
    if let Some(halves) = array.elements_of::<f16>() {
        return Some(halves.iter().map(|half| half.to_f64()).collect());
    }
    cast!(array, f64, Fp32 => f32, Int8 => i8, Int16 => i16, Int32 => i32, Int64 => i64,
        Uint8 => u8, Uint16 => u16, Uint32 => u32, Uint64 => u64)
}

fn as_f32(array: &Tensor) -> Option<Vec<f32>> {
    if let Some(halves) = array.elements_of::<f16>() {
        return Some(halves.iter().map(|half| half.to_f32()).collect());
    }
    cast!(array, f32, Fp64 => f64, Int8 => i8, Int16 => i16, Int32 => i32, Int64 => i64,
        Uint8 => u8, Uint16 => u16, Uint32 => u32, Uint64 => u64)
}

/// Refuses finite numbers that became infinite.
fn check_range(spec: &TensorSpec, narrow: &[f32], wide: &[f64]) -> Result<(), ProtocolError> {
    let mut both = narrow.iter().zip(wide).enumerate();
    match both.find(|(_, (narrow, wide))| narrow.is_infinite() && wide.is_finite()) {
        None => Ok(()),
        Some((index, (_, wide))) => Err(out_of_range(spec, index, wide.to_string())),
    }
}

fn narrowed(spec: &TensorSpec, wide: &[i64]) -> Result<Vec<i32>, ProtocolError> {
    let each = wide.iter().enumerate();
    each.map(|(index, &number)| {
        i32::try_from(number).map_err(|_| out_of_range(spec, index, number.to_string()))
    })
    .collect()
}

fn out_of_range(spec: &TensorSpec, index: usize, value: String) -> ProtocolError {
    let problem = TensorProblem::OutOfRange { index, value, data_type: spec.data_type };
    ProtocolError::Input { input: spec.name.clone(), problem }
}

fn not_a_tensor(spec: &TensorSpec, error: TensorError) -> ProtocolError {
    let problem = TensorProblem::NotATensor(error);
    ProtocolError::Input { input: spec.name.clone(), problem }
}
