//! Which of the model's outputs a task reads, and its elements as FP32.
//!
//! A choice is made once, at load, and whatever is wrong with it is an error there. What a model then
//! gives is checked against its own file by the engine, but a file may leave types and ranks open, so
//! [`floats`] and [`dimensions`] check again at each answer.

use std::borrow::Cow;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use outhaul_types::{DataType, Name, ShapePattern, Tensor, TensorSpec};

use super::Context;
use crate::{BuildError, TransformError};

/// Returns the index of the output of floats that is declared or, where none is, of the first one of
/// a preferred name or else of the only one there is. It has one of the numbers of dimensions in
/// `ranks`, as far as the model's file tells; an empty list allows any.
///
/// # Errors
///
/// Fails where the declared one is missing or does not fit, where several could be meant, and where
/// there is none.
pub(super) fn pick_ranked(
    context: &Context<'_>,
    declared: Option<&Name>,
    preferred: &[&str],
    ranks: &[usize],
    key: &'static str,
) -> Result<usize, BuildError> {
    let outputs = &context.inner.outputs;
    let named = match declared {
        Some(name) => Some(context.inner.output_index(name).ok_or_else(|| {
            let (name, expected) = (name.clone(), listed(outputs.iter()));
            BuildError::Unknown { key, name, expected }
        })?),
        None => preferred.iter().find_map(|name| context.inner.output_index(name)),
    };
    if let Some(index) = named {
        check(&outputs[index], ranks, key)?;
        return Ok(index);
    }
    let fits = |spec: &TensorSpec| spec.data_type.is_float() && rank_fits(spec, ranks);
    let mut fitting = outputs.iter().enumerate().filter(|(_, spec)| fits(spec));
    match (fitting.next(), fitting.next()) {
        (Some((index, _)), None) => Ok(index),
        (None, _) => {
            let problem = format!(
                "finds no output of floats{} in the model, which has {}",
                of_ranks(ranks),
                listed(outputs.iter())
            );
            Err(BuildError::Declared { key, problem })
        }
        (Some(_), Some(_)) => {
            let candidates = outputs.iter().filter(|spec| fits(spec));
            let problem = format!("must say which of {} is meant", listed(candidates));
            Err(BuildError::Declared { key, problem })
        }
    }
}

/// Fails where an output does not hold floats or has another number of dimensions.
fn check(spec: &TensorSpec, ranks: &[usize], key: &'static str) -> Result<(), BuildError> {
    let problem = if !spec.data_type.is_float() {
        "does not hold floats".to_owned()
    } else if !rank_fits(spec, ranks) {
        format!("is not one{}", of_ranks(ranks))
    } else {
        return Ok(());
    };
    Err(BuildError::Unfit {
        key,
        name: spec.name.clone(),
        data_type: spec.data_type,
        shape: spec.shape.clone(),
        problem,
    })
}

fn rank_fits(spec: &TensorSpec, ranks: &[usize]) -> bool {
    match &spec.shape {
        ShapePattern::AnyRank => true,
        ShapePattern::Ranked(dimensions) => ranks.is_empty() || ranks.contains(&dimensions.len()),
    }
}

/// Returns the size of an output's dimension where the model's file fixes it; `from_end` counts from
/// the innermost, which is 0.
pub(super) fn fixed_size(spec: &TensorSpec, from_end: usize) -> Option<usize> {
    match &spec.shape {
        ShapePattern::AnyRank => None,
        ShapePattern::Ranked(dimensions) => dimensions.iter().rev().nth(from_end)?.size(),
    }
}

/// Returns the elements of an output as FP32; nothing is copied where they are that already.
///
/// # Errors
///
/// Fails where the elements are no floats.
pub(super) fn floats<'t>(
    tensor: &'t Tensor,
    output: &Name,
) -> Result<Cow<'t, [f32]>, TransformError> {
    let elements = match tensor.data_type() {
        DataType::Fp32 => tensor.elements_of::<f32>(),
        DataType::Fp16 => {
            tensor.elements_of::<f16>().map(|halves| Cow::Owned(halves.as_ref().to_f32_vec()))
        }
        DataType::Bf16 => {
            tensor.elements_of::<bf16>().map(|halves| Cow::Owned(halves.as_ref().to_f32_vec()))
        }
        // Scores of more than seven digits are noise; callers get FP32 whatever the model computes in.
        DataType::Fp64 => tensor
            .elements_of::<f64>()
            .map(|doubles| Cow::Owned(doubles.iter().map(|&double| double as f32).collect())),
        _ => None,
    };
    elements.ok_or_else(|| {
        let problem = format!("holds {}, not floats", tensor.data_type());
        TransformError::Output { output: output.clone(), problem }
    })
}

/// Returns the dimensions of an output that must have `N` of them and `rows` rows.
///
/// # Errors
///
/// Fails where the model gave another shape.
pub(super) fn dimensions<const N: usize>(
    tensor: &Tensor,
    output: &Name,
    rows: usize,
) -> Result<[usize; N], TransformError> {
    let shape: Option<[usize; N]> = tensor.shape().as_ref().try_into().ok();
    shape.filter(|shape| shape.first().is_none_or(|&first| first == rows)).ok_or_else(|| {
        let problem =
            format!("has shape {} for {rows} rows, expected {N} dimensions", tensor.shape());
        TransformError::Output { output: output.clone(), problem }
    })
}

/// Returns the model's outputs, by index, of one answer.
///
/// # Errors
///
/// Fails where the model gave fewer outputs than its file promises.
pub(super) fn output_at<'t>(
    outputs: &'t [Tensor],
    index: usize,
    output: &Name,
) -> Result<&'t Tensor, TransformError> {
    outputs.get(index).ok_or_else(|| TransformError::Output {
        output: output.clone(),
        problem: "is missing".to_owned(),
    })
}

fn of_ranks(ranks: &[usize]) -> String {
    let ranks: Vec<String> = ranks.iter().map(usize::to_string).collect();
    if ranks.is_empty() {
        String::new()
    } else {
        format!(" with {} dimensions", ranks.join(" or "))
    }
}

fn listed<'a>(specs: impl Iterator<Item = &'a TensorSpec>) -> String {
    let quoted: Vec<String> =
        specs.map(|spec| format!("'{}' ({} {})", spec.name, spec.data_type, spec.shape)).collect();
    if quoted.is_empty() { "no outputs".to_owned() } else { quoted.join(", ") }
}

#[cfg(test)]
mod tests {
    use outhaul_types::{Dimension, ModelSignature};

    use super::*;

    fn signature(outputs: &[(&str, DataType, usize)]) -> ModelSignature {
        let spec = |&(name, data_type, rank): &(&str, DataType, usize)| TensorSpec {
            name: name.into(),
            data_type,
            shape: ShapePattern::ranked((0..rank).map(|_| Dimension::Any)),
            optional: false,
        };
        ModelSignature { inputs: Vec::new(), outputs: outputs.iter().map(spec).collect() }
    }

    #[test]
    fn an_output_is_found_or_the_error_says_what_there_is() {
        use DataType::{Fp16, Fp32, Int64};
        struct Case {
            outputs: &'static [(&'static str, DataType, usize)],
            declared: Option<&'static str>,
            ranks: &'static [usize],
            expected: Result<usize, &'static str>,
        }
        let two = &[("label", Int64, 1), ("a", Fp32, 2), ("logits", Fp16, 3)];
        let cases = [
            Case { outputs: two, declared: Some("a"), ranks: &[2], expected: Ok(1) },
            Case { outputs: two, declared: None, ranks: &[3], expected: Ok(2) },
            Case {
                outputs: two,
                declared: None,
                ranks: &[2],
                expected: Err(
                    "transform.output.output: 'logits' is FP16 [-1,-1,-1] in the model's \
                     file, which is not one with 2 dimensions",
                ),
            },
            Case {
                outputs: two,
                declared: Some("label"),
                ranks: &[],
                expected: Err(
                    "transform.output.output: 'label' is INT64 [-1] in the model's file, \
                     which does not hold floats",
                ),
            },
            Case {
                outputs: two,
                declared: Some("b"),
                ranks: &[],
                expected: Err(
                    "transform.output.output names 'b', but the model has 'label' (INT64 \
                     [-1]), 'a' (FP32 [-1,-1]), 'logits' (FP16 [-1,-1,-1])",
                ),
            },
            Case {
                outputs: &[("label", Int64, 1), ("b", Fp32, 2)],
                declared: None,
                ranks: &[],
                expected: Ok(1),
            },
            Case {
                outputs: &[("a", Fp32, 2), ("b", Fp32, 2)],
                declared: None,
                ranks: &[],
                expected: Err("transform.output.output must say which of 'a' (FP32 [-1,-1]), 'b' \
                     (FP32 [-1,-1]) is meant"),
            },
            Case {
                outputs: &[("label", Int64, 1)],
                declared: None,
                ranks: &[2, 3],
                expected: Err("transform.output.output finds no output of floats with 2 or 3 \
                     dimensions in the model, which has 'label' (INT64 [-1])"),
            },
        ];
        for Case { outputs, declared, ranks, expected } in cases {
            let inner = signature(outputs);
            let context = Context { inner: &inner, tokenizer: None };
            let declared: Option<Name> = declared.map(Name::from);
            let picked =
                pick_ranked(&context, declared.as_ref(), &["logits"], ranks, "output.output");
            let picked = picked.map_err(|error| error.to_string());
            assert_eq!(picked, expected.map_err(str::to_owned), "{outputs:?} {declared:?}");
        }
    }

    #[test]
    fn every_float_is_read() {
        let name = Name::from("y");
        let values = [0.5_f32, -2.0, 65504.0];
        let halves: Vec<f16> = values.iter().map(|&value| f16::from_f32(value)).collect();
        let doubles: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
        for tensor in [
            Tensor::from_vec([3], values.to_vec()).unwrap(),
            Tensor::from_vec([3], halves).unwrap(),
            Tensor::from_vec([3], doubles).unwrap(),
        ] {
            assert_eq!(floats(&tensor, &name).unwrap().as_ref(), values);
        }
        let brain = Tensor::from_vec([1], vec![bf16::from_f32(1.5)]).unwrap();
        assert_eq!(floats(&brain, &name).unwrap().as_ref(), [1.5]);
        let int = Tensor::from_vec([1, 1], vec![1_i64]).unwrap();
        let error = floats(&int, &name).unwrap_err();
        assert_eq!(error.to_string(), "the model's output 'y' holds INT64, not floats");
        assert_eq!(dimensions::<2>(&int, &name, 1), Ok([1, 1]));
        let error = dimensions::<3>(&int, &name, 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the model's output 'y' has shape [1,1] for 1 rows, expected 3 dimensions"
        );
        assert!(dimensions::<2>(&int, &name, 2).is_err());
    }
}
