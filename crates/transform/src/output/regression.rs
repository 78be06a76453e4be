//! A number with a unit, one a row.
//!
//! FP64 stays FP64; FP16, BF16 and FP32 become FP32. The sum is made in FP64, so that a scale costs
//! no digits.

use std::borrow::Cow;

use outhaul_types::{
    Content, DataType, Dimension, Field, Name, RegressionOutput, ShapePattern, Tensor, TensorSpec,
    Tensors,
};
use smallvec::smallvec;

use super::Context;
use super::pick::{floats, output_at, pick_ranked};
use crate::build::Built;
use crate::{BuildError, OutputSide, Part, TransformError};

const KEY: &str = "output.output";

struct Values {
    /// The model's output.
    index: usize,
    output: Name,
    scale: f64,
    offset: f64,
}

pub(super) fn build(
    spec: &RegressionOutput,
    context: &Context<'_>,
) -> Result<Built<dyn OutputSide>, BuildError> {
    let index = pick_ranked(context, spec.output.as_ref(), &[], &[1, 2], KEY)?;
    let inner = &context.inner.outputs[index];
    if let ShapePattern::Ranked(dimensions) = &inner.shape
        && let [_, Dimension::Fixed(values)] = dimensions.as_slice()
        && *values != 1
    {
        return Err(BuildError::Unfit {
            key: KEY,
            name: inner.name.clone(),
            data_type: inner.data_type,
            shape: inner.shape.clone(),
            problem: format!("gives {values} numbers a row; use kind \"tensors\" for several"),
        });
    }
    for (key, number) in [("output.scale", spec.scale), ("output.offset", spec.offset)] {
        if !number.is_finite() {
            let problem = "must be a finite number".to_owned();
            return Err(BuildError::Declared { key, problem });
        }
    }
    let data_type = match inner.data_type {
        DataType::Fp64 => DataType::Fp64,
        _ => DataType::Fp32,
    };
    let outer = TensorSpec {
        name: spec.name.clone(),
        data_type,
        shape: ShapePattern::ranked([Dimension::Any]),
        optional: false,
    };
    let field = Field { unit: spec.unit.as_deref().map(Name::from), ..Field::of(Content::Number) };
    let (output, scale, offset) = (inner.name.clone(), spec.scale, spec.offset);
    let side = Values { index, output, scale, offset };
    Ok(Built { side: Box::new(side), specs: vec![outer], fields: vec![field] })
}

impl OutputSide for Values {
    fn finish(&self, part: &Part, outputs: &[Tensor]) -> Result<Tensors, TransformError> {
        let values = output_at(outputs, self.index, &self.output)?;
        let rows = part.rows.len();
        let is_flat = match &values.shape()[..] {
            [all] | [all, 1] => *all == rows,
            _ => false,
        };
        let misfit = |problem| TransformError::Output { output: self.output.clone(), problem };
        if !is_flat {
            let problem = format!(
                "has shape {}, expected one number for each of {rows} rows",
                values.shape()
            );
            return Err(misfit(problem));
        }
        let is_as_given = self.scale == 1.0 && self.offset == 0.0;
        let converted = match values.data_type() {
            DataType::Fp32 | DataType::Fp64 if is_as_given => values.clone().reshaped([rows]),
            DataType::Fp64 => {
                let values: Cow<'_, [f64]> = values.elements_of::<f64>().unwrap_or_default();
                Tensor::from_vec([rows], values.iter().map(|&value| self.value(value)).collect())
            }
            _ => {
                let values = floats(values, &self.output)?;
                let value = |&value: &f32| self.value(f64::from(value)) as f32;
                Tensor::from_vec([rows], values.iter().map(value).collect())
            }
        };
        converted.map(|tensor| smallvec![tensor]).map_err(|error| misfit(error.to_string()))
    }
}

impl Values {
    fn value(&self, given: f64) -> f64 {
        given * self.scale + self.offset
    }
}

#[cfg(test)]
mod tests {
    use half::f16;
    use outhaul_types::ModelSignature;

    use super::*;

    fn signature(data_type: DataType, sizes: &[i64]) -> ModelSignature {
        let size = |&size: &i64| usize::try_from(size).map_or(Dimension::Any, Dimension::Fixed);
        let shape = ShapePattern::ranked(sizes.iter().map(size));
        let output = TensorSpec { name: "y".into(), data_type, shape, optional: false };
        ModelSignature { inputs: Vec::new(), outputs: vec![output] }
    }

    fn built(
        spec: &RegressionOutput,
        inner: &ModelSignature,
    ) -> Result<Built<dyn OutputSide>, String> {
        build(spec, &Context { inner, tokenizer: None }).map_err(|error| error.to_string())
    }

    fn part(rows: usize) -> Part {
        Part { inputs: Default::default(), rows: (0..rows).collect(), encodings: Vec::new() }
    }

    #[test]
    fn a_value_is_scaled_and_moved_in_its_own_precision() {
        let spec = RegressionOutput {
            name: "price".into(),
            unit: Some("EUR".to_owned()),
            scale: 2.0,
            offset: 0.1,
            ..RegressionOutput::default()
        };
        let given = [1.0_f64, -3.5, f64::NAN, f64::INFINITY];
        let single: Vec<f32> = given.iter().map(|&value| value as f32).collect();
        let half: Vec<f16> = given.iter().map(|&value| f16::from_f64(value)).collect();
        let cases = [
            Tensor::from_vec([4, 1], single.clone()).unwrap(),
            Tensor::from_vec([4], half).unwrap(),
        ];
        for given in cases {
            let inner = signature(given.data_type(), &[-1, 1][..given.shape().len()]);
            let built = built(&spec, &inner).unwrap();
            assert_eq!(
                (&*built.specs[0].name, built.specs[0].data_type),
                ("price", DataType::Fp32)
            );
            assert_eq!(built.fields[0].unit.as_deref(), Some("EUR"));
            let finished = built.side.finish(&part(4), &[given]).unwrap();
            let values = finished[0].as_slice::<f32>().unwrap();
            assert_eq!(values[..2], [2.1, -6.9]);
            assert!(values[2].is_nan() && values[3] == f32::INFINITY);
        }
        let inner = signature(DataType::Fp64, &[-1]);
        let double = Tensor::from_vec([4], given.to_vec()).unwrap();
        let built = built(&spec, &inner).unwrap();
        assert_eq!(built.specs[0].data_type, DataType::Fp64);
        let finished = built.side.finish(&part(4), &[double]).unwrap();
        assert_eq!(finished[0].as_slice::<f64>().unwrap()[..2], [2.1, -6.9]);
    }

    #[test]
    fn without_scale_and_offset_nothing_is_copied() {
        let given = Tensor::from_vec([2, 1], vec![1.5_f32, 2.5]).unwrap();
        let inner = signature(DataType::Fp32, &[-1, 1]);
        let built = built(&RegressionOutput::default(), &inner).unwrap();
        let finished = built.side.finish(&part(2), std::slice::from_ref(&given)).unwrap();
        assert_eq!(finished[0].shape()[..], [2]);
        assert_eq!(finished[0].as_bytes().unwrap().as_ptr(), given.as_bytes().unwrap().as_ptr());
        let error = built.side.finish(&part(3), &[given]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the model's output 'y' has shape [2,1], expected one number for each of 3 rows"
        );
    }

    #[test]
    fn what_is_no_one_number_a_row_is_refused() {
        let usual = RegressionOutput::default();
        let error = built(&usual, &signature(DataType::Fp32, &[-1, 3])).err().unwrap();
        assert!(error.ends_with("which gives 3 numbers a row; use kind \"tensors\" for several"));
        let error = built(&usual, &signature(DataType::Int64, &[-1])).err().unwrap();
        assert!(error.contains("finds no output of floats"), "{error}");
        let spec = RegressionOutput { scale: f64::NAN, ..usual };
        let error = built(&spec, &signature(DataType::Fp32, &[-1])).err().unwrap();
        assert_eq!(error, "transform.output.scale must be a finite number");
    }
}
