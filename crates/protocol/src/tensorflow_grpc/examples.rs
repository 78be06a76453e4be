//! `tf.Example`s to tensors: one example a row, one feature an input.
//!
//! A feature's list holds the elements of its row. Numbers may come as either kind of list where the
//! model takes floats; whole numbers are never made of floats. A feature that an example does not have
//! comes from the context, and is a missing value where the model's input is a column that may have
//! some.

use std::collections::BTreeMap;

use bytes::Bytes;
use half::{bf16, f16};
use outhaul_types::{
    Content, DataType, Element, Field, ModelSignature, NamedTensor, Shape, ShapePattern, Strings,
    Tensor, TensorSpec,
};

use super::TensorFlowError;
use super::error::ExampleProblem;
use super::pb::feature::Kind;
use super::pb::serving::{Input, input};
use super::pb::{Example, Feature};
use crate::rows::{Given, Inputs, check_rows};
use crate::{DecodeLimits, ProtocolError, Schema, raw};

type Features = BTreeMap<String, Feature>;

/// Makes the model's inputs from examples, and returns them with the number of rows.
///
/// # Errors
///
/// Fails where there are too many examples or none, and with the first example that the model cannot
/// take, naming it and the feature.
pub fn decode_examples(
    input: Option<Input>,
    model: &Schema<'_>,
    limits: &DecodeLimits,
) -> Result<(Inputs, usize), TensorFlowError> {
    let (examples, context) = match input.and_then(|input| input.kind) {
        None => (Vec::new(), None),
        Some(input::Kind::ExampleList(list)) => (list.examples, None),
        Some(input::Kind::ExampleListWithContext(list)) => (list.examples, list.context),
    };
    if examples.is_empty() {
        return Err(TensorFlowError::NoExamples);
    }
    check_rows(examples.len(), limits)?;
    let rows: Vec<Features> = examples.into_iter().map(features).collect();
    let context = context.map(features).unwrap_or_default();
    let names = context.keys().chain(rows.iter().flat_map(Features::keys).take(limits.max_tensors));
    let given = Given::of_names(model, &names.map(String::as_str).collect::<Vec<_>>());
    known(&context, given.signature).map_err(TensorFlowError::Context)?;
    for (row, features) in rows.iter().enumerate() {
        let known = known(features, given.signature);
        known.map_err(|problem| TensorFlowError::Example { row, problem })?;
    }
    let mut inputs = Inputs::new();
    for (spec, field) in given.inputs() {
        let values = rows.iter().map(|features| {
            let feature = features.get(spec.name.as_str());
            let feature = feature.or_else(|| context.get(spec.name.as_str()));
            feature.and_then(|feature| feature.kind.as_ref()).map(Values::of)
        });
        let values: Vec<Option<Values<'_>>> = values.collect();
        if spec.optional && values.iter().all(Option::is_none) {
            continue;
        }
        let tensor = Column { spec, field, values }.tensor()?;
        inputs.push(NamedTensor { name: spec.name.clone(), tensor });
    }
    Ok((inputs, rows.len()))
}

fn features(example: Example) -> Features {
    example.features.unwrap_or_default().feature
}

/// Checks that the model has an input for each feature.
fn known(features: &Features, signature: &ModelSignature) -> Result<(), ExampleProblem> {
    match features.keys().find(|name| signature.input_index(name).is_none()) {
        None => Ok(()),
        Some(feature) => {
            let names = signature.inputs.iter().map(|spec| format!("'{}'", spec.name));
            let expected = names.collect::<Vec<_>>().join(", ");
            let feature = crate::error::excerpt(feature);
            Err(ExampleProblem::Unknown { feature, expected })
        }
    }
}

/// The list of one feature.
#[derive(Clone, Copy)]
enum Values<'a> {
    Floats(&'a [f32]),
    Integers(&'a [i64]),
    Strings(&'a [Bytes]),
}

impl<'a> Values<'a> {
    fn of(kind: &'a Kind) -> Self {
        match kind {
            Kind::FloatList(list) => Values::Floats(&list.value),
            Kind::Int64List(list) => Values::Integers(&list.value),
            Kind::BytesList(list) => Values::Strings(&list.value),
        }
    }

    fn len(self) -> usize {
        match self {
            Values::Floats(values) => values.len(),
            Values::Integers(values) => values.len(),
            Values::Strings(values) => values.len(),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Values::Floats(_) => "float_list",
            Values::Integers(_) => "int64_list",
            Values::Strings(_) => "bytes_list",
        }
    }
}

/// Returns the kind of list that holds a type, in the words of an error.
const fn list_of(data_type: DataType) -> &'static str {
    match data_type {
        DataType::Bytes => "bytes_list",
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => {
            "float_list or int64_list"
        }
        _ => "int64_list",
    }
}

/// One input, with what each row says of it.
struct Column<'a> {
    spec: &'a TensorSpec,
    field: &'a Field,
    values: Vec<Option<Values<'a>>>,
}

impl Column<'_> {
    fn tensor(&self) -> Result<Tensor, TensorFlowError> {
        let shape = self.shape()?;
        let tensor = match self.spec.data_type {
            DataType::Bytes => Tensor::from_strings(shape, self.strings()?),
            DataType::Fp32 => Tensor::from_vec(shape, self.floats(|value| value, f32::NAN)?),
            DataType::Fp64 => Tensor::from_vec(shape, self.doubles()?),
            DataType::Fp16 => Tensor::from_vec(shape, self.floats(f16::from_f32, f16::NAN)?),
            DataType::Bf16 => Tensor::from_vec(shape, self.floats(bf16::from_f32, bf16::NAN)?),
            DataType::Int64 => Tensor::from_vec(shape, self.integers::<i64>()?),
            DataType::Int32 => Tensor::from_vec(shape, self.integers::<i32>()?),
            DataType::Int16 => Tensor::from_vec(shape, self.integers::<i16>()?),
            DataType::Int8 => Tensor::from_vec(shape, self.integers::<i8>()?),
            DataType::Uint64 => Tensor::from_vec(shape, self.integers::<u64>()?),
            DataType::Uint32 => Tensor::from_vec(shape, self.integers::<u32>()?),
            DataType::Uint16 => Tensor::from_vec(shape, self.integers::<u16>()?),
            DataType::Uint8 => Tensor::from_vec(shape, self.integers::<u8>()?),
            DataType::Bool => Tensor::from_bools(shape, self.bools()?),
        };
        tensor.map_err(|error| {
            let (input, problem) = (self.spec.name.clone(), raw::problem(error));
            ProtocolError::Input { input, problem }.into()
        })
    }

    /// Finds the tensor's shape: as many rows as examples, and in each as many elements as every example
    /// has.
    fn shape(&self) -> Result<Shape, TensorFlowError> {
        let (input, pattern) = (&self.spec.name, &self.spec.shape);
        let no_rows =
            || TensorFlowError::NotOfRows { input: input.clone(), shape: pattern.clone() };
        let ShapePattern::Ranked(dimensions) = pattern else { return Err(no_rows()) };
        let Some((_, of_row)) = dimensions.split_first() else { return Err(no_rows()) };
        let fixed = of_row.iter().filter_map(|dimension| dimension.size());
        let fixed: usize = fixed.fold(1, usize::saturating_mul);
        let open = of_row.iter().filter(|dimension| dimension.size().is_none()).count();
        let width = match open {
            0 => fixed,
            1 => self.values.iter().flatten().next().map_or(0, |values| values.len()),
            _ => return Err(no_rows()),
        };
        for (row, values) in self.values.iter().enumerate() {
            let Some(values) = values else { continue };
            let (feature, received) = (input.clone(), values.len());
            let problem = if open == 0 && received != fixed {
                let expected = fixed.to_string();
                ExampleProblem::WrongCount { feature, expected, received }
            } else if open == 1 && received.checked_rem(fixed) != Some(0) {
                let expected = format!("a multiple of {fixed}");
                ExampleProblem::WrongCount { feature, expected, received }
            } else if received != width {
                ExampleProblem::Ragged { feature, expected: width, received }
            } else {
                continue;
            };
            return Err(TensorFlowError::Example { row, problem });
        }
        let size = |dimension: &outhaul_types::Dimension| {
            dimension.size().unwrap_or_else(|| width.checked_div(fixed).unwrap_or(0))
        };
        Ok(Shape::new([self.values.len()].into_iter().chain(of_row.iter().map(size))))
    }

    fn example(&self, row: usize, problem: ExampleProblem) -> TensorFlowError {
        TensorFlowError::Example { row, problem }
    }

    fn missing(&self, row: usize) -> TensorFlowError {
        let (feature, data_type) = (self.spec.name.clone(), self.spec.data_type);
        self.example(row, ExampleProblem::Missing { feature, data_type })
    }

    fn wrong_kind(&self, row: usize, received: Values<'_>) -> TensorFlowError {
        let (expected, received) = (list_of(self.spec.data_type), received.name());
        let feature = self.spec.name.clone();
        self.example(row, ExampleProblem::WrongKind { feature, expected, received })
    }

    fn out_of_range(&self, row: usize, value: i64) -> TensorFlowError {
        let (feature, data_type) = (self.spec.name.clone(), self.spec.data_type);
        self.example(row, ExampleProblem::OutOfRange { feature, value, data_type })
    }

    /// Whether a row may leave the value out.
    fn may_miss(&self) -> bool {
        let content = self.field.content;
        self.spec.optional && (content.is_column() || content == Content::Text)
    }

    fn strings(&self) -> Result<Strings, TensorFlowError> {
        let mut strings: Vec<&[u8]> = Vec::new();
        for (row, values) in self.values.iter().enumerate() {
            match values {
                Some(Values::Strings(values)) => strings.extend(values.iter().map(|s| &s[..])),
                Some(other) => return Err(self.wrong_kind(row, *other)),
                None if self.may_miss() => strings.push(&[]),
                None => return Err(self.missing(row)),
            }
        }
        Ok(strings.into_iter().collect())
    }

    /// Collects numbers row by row. `None` of a conversion is a whole number that the type cannot hold
    /// exactly.
    fn numbers<T: Copy>(
        &self,
        of_float: Option<impl Fn(f32) -> T>,
        of_integer: impl Fn(i64) -> Option<T>,
        missing: Option<T>,
    ) -> Result<Vec<T>, TensorFlowError> {
        let mut numbers = Vec::new();
        for (row, values) in self.values.iter().enumerate() {
            match (values, &of_float) {
                (Some(Values::Floats(values)), Some(of_float)) => {
                    numbers.extend(values.iter().map(|&value| of_float(value)));
                }
                (Some(Values::Integers(values)), _) => {
                    for &value in *values {
                        let number = of_integer(value);
                        numbers.push(number.ok_or_else(|| self.out_of_range(row, value))?);
                    }
                }
                (Some(other), _) => return Err(self.wrong_kind(row, *other)),
                (None, _) => {
                    let missing = missing.filter(|_| self.may_miss());
                    numbers.push(missing.ok_or_else(|| self.missing(row))?);
                }
            }
        }
        Ok(numbers)
    }

    fn doubles(&self) -> Result<Vec<f64>, TensorFlowError> {
        // In 128 bits, where what was rounded up beyond 64 is seen.
        let same = |double: f64, value: i64| double as i128 == i128::from(value);
        let exact = |value: i64| Some(value as f64).filter(|double| same(*double, value));
        self.numbers(Some(f64::from), exact, Some(f64::NAN))
    }

    fn floats<T: Element>(
        &self,
        of_float: impl Fn(f32) -> T + Copy,
        missing: T,
    ) -> Result<Vec<T>, TensorFlowError> {
        let same = |float: f32, value: i64| float as i128 == i128::from(value);
        let exact = |value: i64| Some(value as f32).filter(|float| same(*float, value));
        let of_integer = |value| exact(value).map(of_float);
        self.numbers(Some(of_float), of_integer, Some(missing))
    }

    fn integers<T: Element + TryFrom<i64>>(&self) -> Result<Vec<T>, TensorFlowError> {
        self.numbers(None::<fn(f32) -> T>, |value| T::try_from(value).ok(), None)
    }

    fn bools(&self) -> Result<Vec<bool>, TensorFlowError> {
        let of_integer = |value| match value {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        };
        self.numbers(None::<fn(f32) -> bool>, of_integer, None)
    }
}
