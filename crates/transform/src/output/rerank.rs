//! How well a text answers a query: `score`, FP32 `[batch]`.

use outhaul_types::{
    Activation, Content, DataType, Dimension, Field, Name, RerankOutput, ShapePattern, Tensor,
    TensorSpec, Tensors,
};
use smallvec::smallvec;

use super::Context;
use super::pick::{dimensions, fixed_size, floats, output_at, pick_ranked};
use super::scores::sigmoid;
use crate::build::Built;
use crate::{BuildError, OutputSide, Part, TransformError};

struct Rerank {
    /// The model's output.
    index: usize,
    output: Name,
    activation: Activation,
}

pub(super) fn build(
    spec: &RerankOutput,
    context: &Context<'_>,
) -> Result<Built<dyn OutputSide>, BuildError> {
    let key = "output.output";
    let index = pick_ranked(context, spec.output.as_ref(), &["logits"], &[1, 2], key)?;
    let inner = &context.inner.outputs[index];
    let columns = match &inner.shape {
        ShapePattern::Ranked(dimensions) if dimensions.len() == 1 => Some(1),
        _ => fixed_size(inner, 0),
    };
    if let Some(columns) = columns
        && let Err(problem) = check_columns(columns, spec.activation)
    {
        return Err(BuildError::Unfit {
            key: "output.activation",
            name: inner.name.clone(),
            data_type: inner.data_type,
            shape: inner.shape.clone(),
            problem,
        });
    }
    let outer = TensorSpec {
        name: Name::const_new("score"),
        data_type: DataType::Fp32,
        shape: ShapePattern::ranked([Dimension::Any]),
        optional: false,
    };
    let side = Rerank { index, output: inner.name.clone(), activation: spec.activation };
    Ok(Built { side: Box::new(side), specs: vec![outer], fields: vec![Field::of(Content::Score)] })
}

/// Fails where so many numbers a row make no score by this activation.
fn check_columns(columns: usize, activation: Activation) -> Result<(), String> {
    match (columns, activation) {
        (1, Activation::None | Activation::Sigmoid) | (2, Activation::Softmax) => Ok(()),
        (1, Activation::Softmax) => {
            Err("gives one number a row, of which softmax always makes 1; use sigmoid or none"
                .to_owned())
        }
        (2, Activation::None | Activation::Sigmoid) => {
            Err("gives two numbers a row; softmax makes the score of the second".to_owned())
        }
        (columns, _) => Err(format!("gives {columns} numbers a row where one score is wanted")),
    }
}

impl OutputSide for Rerank {
    fn finish(&self, part: &Part, outputs: &[Tensor]) -> Result<Tensors, TransformError> {
        let tensor = output_at(outputs, self.index, &self.output)?;
        let numbers = floats(tensor, &self.output)?;
        let rows = part.rows.len();
        let columns = if tensor.shape().len() == 1 {
            dimensions::<1>(tensor, &self.output, rows)?;
            1
        } else {
            let [_, columns] = dimensions(tensor, &self.output, rows)?;
            columns
        };
        check_columns(columns, self.activation)
            .map_err(|problem| TransformError::Output { output: self.output.clone(), problem })?;
        let scores: Vec<f32> = match self.activation {
            Activation::None => numbers.into_owned(),
            Activation::Sigmoid => numbers.iter().map(|&number| sigmoid(number)).collect(),
            // Of two classes, softmax is the sigmoid of their difference.
            Activation::Softmax => {
                numbers.chunks_exact(2).map(|pair| sigmoid(pair[1] - pair[0])).collect()
            }
        };
        let scores = Tensor::from_vec([rows], scores);
        Ok(smallvec![scores.expect("every row has the columns that were checked")])
    }
}

#[cfg(test)]
mod tests {
    use outhaul_types::{BoundInputs, ModelSignature};

    use super::*;

    fn built(
        columns: &[Dimension],
        activation: Activation,
    ) -> Result<Built<dyn OutputSide>, BuildError> {
        let inner = ModelSignature {
            inputs: Vec::new(),
            outputs: vec![TensorSpec {
                name: "logits".into(),
                data_type: DataType::Fp32,
                shape: ShapePattern::ranked(
                    [Dimension::Any].into_iter().chain(columns.iter().cloned()),
                ),
                optional: false,
            }],
        };
        let context = Context { inner: &inner, tokenizer: None };
        build(&RerankOutput { output: None, activation }, &context)
    }

    fn part(rows: usize) -> Part {
        let inputs = BoundInputs::new();
        Part { inputs, rows: (0..rows).collect(), encodings: Vec::new() }
    }

    #[test]
    fn scores_follow_from_one_number_or_two() {
        use Activation::{None, Sigmoid, Softmax};
        let sigmoid_of_2 = 0.880_797_1_f32;
        let cases = [
            (None, vec![3, 1], vec![0.0, 2.0, -2.0], vec![0.0, 2.0, -2.0]),
            (None, vec![2], vec![0.5, 7.0], vec![0.5, 7.0]),
            (
                Sigmoid,
                vec![3, 1],
                vec![0.0, 2.0, -2.0],
                vec![0.5, sigmoid_of_2, 1.0 - sigmoid_of_2],
            ),
            (Softmax, vec![2, 2], vec![1.0, 1.0, -1.0, 1.0], vec![0.5, sigmoid_of_2]),
        ];
        for (activation, shape, numbers, expected) in cases {
            let columns = vec![Dimension::Any; shape.len() - 1];
            let built = built(&columns, activation).unwrap();
            let rows = shape[0];
            let logits = Tensor::from_vec(shape.as_slice(), numbers).unwrap();
            let answer = built.side.finish(&part(rows), &[logits]).unwrap();
            assert_eq!(answer[0].shape().as_ref(), [rows]);
            let scores = answer[0].elements_of::<f32>().unwrap();
            let far = |(own, expected): (&f32, &f32)| (own - expected).abs() > 1e-6;
            assert!(!scores.iter().zip(&expected).any(far), "{activation:?}: {scores:?}");
        }
    }

    #[test]
    fn what_makes_no_score_is_an_error_at_load_or_at_run() {
        let cases = [
            (1, Activation::Softmax, "gives one number a row"),
            (2, Activation::Sigmoid, "gives two numbers a row"),
            (2, Activation::None, "gives two numbers a row"),
            (5, Activation::Softmax, "gives 5 numbers a row"),
        ];
        for (columns, activation, expected) in cases {
            let fixed = built(&[Dimension::Fixed(columns)], activation).err().unwrap();
            assert!(fixed.to_string().contains(expected), "{fixed}");
            let open = built(&[Dimension::Any], activation).unwrap();
            let logits = Tensor::from_vec([1, columns], vec![0.0_f32; columns]).unwrap();
            let error = open.side.finish(&part(1), &[logits]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let open = built(&[Dimension::Any], Activation::Sigmoid).unwrap();
        let logits = Tensor::from_vec([2, 1], vec![0.0_f32; 2]).unwrap();
        assert!(open.side.finish(&part(1), &[logits]).is_err(), "a row more than was asked");
        assert!(open.side.finish(&part(1), &[]).is_err());
    }
}
