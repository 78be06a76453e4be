//! Tensors on their way into `rten` and back.
//!
//! Invariant: no value changes on the way. FP32, INT32, INT8 and UINT8 are lent without a copy,
//! where the buffer is aligned; INT64 and BOOL become INT32, and an INT64 that does not fit is an
//! error.

use std::borrow::Cow;

use bytemuck::Pod;
use outhaul_types::{DataType, Element, Shape, Tensor, TensorData, TensorSpec};
use rten::{Value, ValueOrView, ValueView};
use rten_tensor::prelude::*;

use super::exactness::LARGEST;
use super::{NAME, OTHER};
use crate::RunError;

/// The elements of one input in a type that the engine has.
pub(super) enum Lent<'a> {
    F32(Cow<'a, [f32]>),
    I32(Cow<'a, [i32]>),
    I8(Cow<'a, [i8]>),
    U8(&'a [u8]),
}

/// Takes the elements of an input, narrowing those that must be.
pub(super) fn lend<'a>(spec: &TensorSpec, tensor: &'a Tensor) -> Result<Lent<'a>, RunError> {
    let elements = match tensor.data_type() {
        DataType::Fp32 => typed(tensor).map(Lent::F32),
        DataType::Int32 => typed(tensor).map(Lent::I32),
        DataType::Int8 => typed(tensor).map(Lent::I8),
        DataType::Uint8 => tensor.as_bytes().map(|bytes| Lent::U8(bytes)),
        DataType::Int64 => match typed::<i64>(tensor) {
            Some(wide) => Some(Lent::I32(Cow::Owned(narrowed(spec, &wide)?))),
            None => None,
        },
        DataType::Bool => tensor
            .as_bytes()
            .map(|bytes| Lent::I32(bytes.iter().map(|&byte| i32::from(byte)).collect())),
        _ => None,
    };
    // Loading refuses the other types.
    elements.ok_or_else(|| failed(format!("input '{}' of {}", spec.name, tensor.data_type())))
}

fn typed<T: Element + Pod>(tensor: &Tensor) -> Option<Cow<'_, [T]>> {
    match tensor.data() {
        TensorData::Fixed(_) => tensor.elements_of::<T>(),
        TensorData::Strings(_) => None,
    }
}

/// Narrows INT64. The loop has no exit, so that it compiles to vector instructions.
fn narrowed(spec: &TensorSpec, elements: &[i64]) -> Result<Vec<i32>, RunError> {
    let range = -(LARGEST as i64)..=LARGEST as i64;
    let mut fit = true;
    let narrow: Vec<i32> = elements
        .iter()
        .map(|element| {
            fit &= range.contains(element);
            *element as i32
        })
        .collect();
    if fit {
        return Ok(narrow);
    }
    let index = elements.iter().position(|element| !range.contains(element)).unwrap_or(0);
    Err(RunError::Unsupported {
        engine: NAME,
        reason: format!(
            "it holds INT64 in 32 bits, and element {index} of input '{}' is {}",
            spec.name, elements[index]
        ),
        instead: Some(OTHER),
    })
}

impl<'a> Lent<'a> {
    /// Returns the value for `rten`: a view where the elements are borrowed, and a tensor of its
    /// own, which it may overwrite, where they are a copy.
    pub(super) fn into_value(self, shape: &Shape) -> Result<ValueOrView<'a>, RunError> {
        match self {
            Lent::F32(Cow::Borrowed(elements)) => view(shape, elements),
            Lent::F32(Cow::Owned(elements)) => owned(shape, elements),
            Lent::I32(Cow::Borrowed(elements)) => view(shape, elements),
            Lent::I32(Cow::Owned(elements)) => owned(shape, elements),
            Lent::I8(Cow::Borrowed(elements)) => view(shape, elements),
            Lent::I8(Cow::Owned(elements)) => owned(shape, elements),
            Lent::U8(elements) => view(shape, elements),
        }
    }
}

fn view<'a, T>(shape: &Shape, elements: &'a [T]) -> Result<ValueOrView<'a>, RunError>
where
    ValueView<'a>: From<rten_tensor::TensorView<'a, T>>,
{
    ValueView::from_shape(&shape[..], elements)
        .map(ValueOrView::from)
        .map_err(|error| failed(error.to_string()))
}

fn owned<'a, T>(shape: &Shape, elements: Vec<T>) -> Result<ValueOrView<'a>, RunError>
where
    Value: From<rten_tensor::Tensor<T>>,
{
    rten_tensor::Tensor::try_from_data(&shape[..], elements)
        .map(|tensor| Value::from(tensor).into())
        .map_err(|error| failed(error.to_string()))
}

/// Returns an output in the type that the signature declares.
pub(super) fn returned(spec: &TensorSpec, value: Value) -> Result<Tensor, RunError> {
    let shape = Shape::from(&value.shape()[..]);
    let tensor = match (spec.data_type, value) {
        (DataType::Fp32, Value::FloatTensor(tensor)) => Tensor::from_vec(shape, tensor.into_data()),
        (DataType::Int32, Value::Int32Tensor(tensor)) => {
            Tensor::from_vec(shape, tensor.into_data())
        }
        (DataType::Int8, Value::Int8Tensor(tensor)) => Tensor::from_vec(shape, tensor.into_data()),
        (DataType::Uint8, Value::UInt8Tensor(tensor)) => {
            Tensor::from_vec(shape, tensor.into_data())
        }
        (DataType::Int64, Value::Int32Tensor(tensor)) => {
            let wide: Vec<i64> = tensor.into_data().into_iter().map(i64::from).collect();
            Tensor::from_vec(shape, wide)
        }
        // A loose BOOL holds other numbers than 0 and 1.
        (DataType::Bool, Value::Int32Tensor(tensor)) => {
            let truths: Vec<bool> =
                tensor.into_data().into_iter().map(|truth| truth != 0).collect();
            Tensor::from_bools(shape, truths)
        }
        (declared, other) => {
            return Err(failed(format!(
                "output '{}' came as {}, declared is {declared}",
                spec.name,
                other.dtype()
            )));
        }
    };
    tensor.map_err(|error| failed(format!("output '{}': {error}", spec.name)))
}

pub(super) fn failed(reason: String) -> RunError {
    RunError::Failed { engine: NAME, reason }
}

#[cfg(test)]
mod tests {
    use outhaul_types::ShapePattern;

    use super::*;

    fn spec(data_type: DataType) -> TensorSpec {
        TensorSpec { name: "x".into(), data_type, shape: ShapePattern::AnyRank, optional: false }
    }

    #[test]
    fn an_int64_beyond_32_bits_is_refused_by_name() {
        let wide = Tensor::from_vec([3], vec![1_i64, -2, 1 << 31]).unwrap();
        let Err(error) = lend(&spec(DataType::Int64), &wide) else { panic!("2^31 was taken") };
        assert_eq!(
            error.to_string(),
            "engine 'embedded' cannot answer this request exactly: it holds INT64 in 32 bits, and \
             element 2 of input 'x' is 2147483648; engine 'onnxruntime' can"
        );
        let ends = Tensor::from_vec([2], vec![i64::from(i32::MAX), -i64::from(i32::MAX)]).unwrap();
        assert!(matches!(
            lend(&spec(DataType::Int64), &ends),
            Ok(Lent::I32(elements)) if *elements == [i32::MAX, -i32::MAX]
        ));
    }

    #[test]
    fn an_output_has_the_declared_type() {
        let value = || Value::from(rten_tensor::Tensor::from_data(&[3], vec![0, 7, -1]));
        let bools = returned(&spec(DataType::Bool), value()).unwrap();
        assert_eq!(bools, Tensor::from_bools([3], [false, true, true]).unwrap());
        let wide = returned(&spec(DataType::Int64), value()).unwrap();
        assert_eq!(wide, Tensor::from_vec([3], vec![0_i64, 7, -1]).unwrap());
        assert!(returned(&spec(DataType::Fp32), value()).is_err());
    }
}
