//! Scores of classes: a label, its score, and the probabilities of all.
//!
//! One number a row (`[batch]` or `[batch, 1]`) is that of the second of two classes, unless exactly
//! one label is declared; softmax makes nothing of it.
//!
//! A number that is not a number (a caller may have sent one) makes no error: it is never the best,
//! never selected, and a row without any number gets the label of rows below the threshold and a
//! score of NaN. Softmax of a row with a NaN, or with an infinite number, is NaN throughout, as scipy
//! has it. Of equal scores the first counts, as for numpy's `argmax`.

use std::num::NonZeroUsize;
use std::sync::Arc;

use outhaul_types::{
    Activation, ClassificationOutput, Content, DataType, Dimension, Field, Name, ShapePattern,
    Strings, Tensor, TensorError, TensorSpec, Tensors,
};
use smallvec::smallvec;

use super::Context;
use super::labels::read;
use super::pick::{fixed_size, floats, output_at, pick_ranked};
use super::scores::{Softmax, largest, largest_one, sigmoid};
use crate::build::Built;
use crate::{BuildError, OutputSide, Part, TransformError};

const KEY: &str = "output.output";

struct Classes {
    /// The model's output.
    index: usize,
    output: Name,
    labels: Option<Arc<[String]>>,
    activation: Activation,
    top_k: Option<NonZeroUsize>,
    threshold: Option<f32>,
    below: String,
}

pub(super) fn build(
    spec: &ClassificationOutput,
    context: &Context<'_>,
) -> Result<Built<dyn OutputSide>, BuildError> {
    let index = pick(spec, context)?;
    let inner = &context.inner.outputs[index];
    let labels = read(&spec.labels)?;
    let given = match &inner.shape {
        ShapePattern::Ranked(dimensions) if dimensions.len() == 1 => Some(1),
        _ => fixed_size(inner, 0),
    };
    if given == Some(1) && spec.activation == Activation::Softmax {
        return Err(BuildError::Unfit {
            key: "output.activation",
            name: inner.name.clone(),
            data_type: inner.data_type,
            shape: inner.shape.clone(),
            problem: "gives one number a row; set activation = \"sigmoid\"".to_owned(),
        });
    }
    let named = labels.as_deref().map(<[String]>::len);
    let classes = given.map(|given| classes_of(given, named));
    if let (Some(classes), Some(named)) = (classes, named)
        && classes != named
    {
        let name = &inner.name;
        let problem = format!("names {named} classes, where '{name}' tells {classes} apart");
        return Err(BuildError::Declared { key: "output.labels", problem });
    }
    let classes = classes.or(named);
    if let (Some(top_k), Some(classes)) = (spec.top_k, classes)
        && top_k.get() > classes
    {
        let problem = format!("is {top_k}, where the model tells {classes} classes apart");
        return Err(BuildError::Declared { key: "output.top_k", problem });
    }
    if spec.threshold.is_some_and(f32::is_nan) {
        let problem = "must be a number".to_owned();
        return Err(BuildError::Declared { key: "output.threshold", problem });
    }
    let side = Classes {
        index,
        output: inner.name.clone(),
        labels,
        activation: spec.activation,
        top_k: spec.top_k,
        threshold: spec.threshold,
        below: spec.below.clone(),
    };
    let (specs, fields) = side.outer(classes);
    Ok(Built { side: Box::new(side), specs, fields })
}

fn pick(spec: &ClassificationOutput, context: &Context<'_>) -> Result<usize, BuildError> {
    let preferred = ["logits", "probabilities", "output_probability"];
    let pick = |ranks| pick_ranked(context, spec.output.as_ref(), &preferred, ranks, KEY);
    let index = match (pick(&[2]), spec.activation) {
        (Err(error), Activation::Softmax) => return Err(error),
        (Err(_), Activation::Sigmoid | Activation::None) => pick(&[1, 2])?,
        (Ok(index), _) => index,
    };
    let name = &context.inner.outputs[index].name;
    let are_probabilities = name.to_lowercase().contains("prob");
    if are_probabilities && spec.activation == Activation::Softmax && spec.output.is_none() {
        // Softmax of probabilities gives numbers that look right and are not.
        let problem = format!(
            "is softmax by default, but the output is called '{name}'; set activation = \"none\" where \
             it holds probabilities already, else name it by output"
        );
        return Err(BuildError::Declared { key: "output.activation", problem });
    }
    Ok(index)
}

/// Returns how many classes a row of so many numbers tells apart.
fn classes_of(numbers: usize, labels: Option<usize>) -> usize {
    if numbers == 1 && labels != Some(1) { 2 } else { numbers }
}

impl Classes {
    fn outer(&self, classes: Option<usize>) -> (Vec<TensorSpec>, Vec<Field>) {
        let spec = |name: &str, data_type, further: Option<Dimension>| TensorSpec {
            name: name.into(),
            data_type,
            shape: ShapePattern::ranked([Dimension::Any].into_iter().chain(further)),
            optional: false,
        };
        let of_classes = classes.map_or(Dimension::Any, Dimension::Fixed);
        let (label, score, best) = match self.top_k {
            None => ("label", "score", None),
            Some(most) => ("labels", "scores", Some(Dimension::Fixed(most.get()))),
        };
        let mut specs = vec![
            spec(label, DataType::Bytes, best.clone()),
            spec(score, DataType::Fp32, best),
            spec("probabilities", DataType::Fp32, Some(of_classes.clone())),
        ];
        let named = |content| Field { choices: self.labels.clone(), ..Field::of(content) };
        let mut fields =
            vec![named(Content::Label), Field::of(Content::Score), named(Content::Score)];
        if self.selects().is_some() {
            specs.push(spec("selected", DataType::Bool, Some(of_classes)));
            fields.push(named(Content::Tensor));
        }
        (specs, fields)
    }

    /// Returns the threshold, where each class is held to it by itself.
    fn selects(&self) -> Option<f32> {
        self.threshold.filter(|_| self.activation == Activation::Sigmoid)
    }

    /// Returns how many numbers the model gives for each row.
    fn numbers(&self, given: &Tensor, rows: usize) -> Result<usize, TransformError> {
        let shape = given.shape();
        let numbers = match shape[..] {
            [all] if all == rows => 1,
            [all, numbers] if all == rows => numbers,
            _ => return Err(self.misfit(format!("has shape {shape} for {rows} rows"))),
        };
        match (numbers, self.activation) {
            (0, _) => Err(self.misfit("gives no classes".to_owned())),
            (1, Activation::Softmax) => {
                Err(self.misfit("gives one number a row, which softmax makes 1".to_owned()))
            }
            _ => Ok(numbers),
        }
    }

    fn check(&self, classes: usize) -> Result<(), TransformError> {
        if let Some(labels) = &self.labels
            && labels.len() != classes
        {
            let labels = labels.len();
            return Err(self.misfit(format!("tells {classes} classes apart, not {labels}")));
        }
        match self.top_k {
            Some(most) if most.get() > classes => {
                Err(self.misfit(format!("tells {classes} classes apart, fewer than {most}")))
            }
            _ => Ok(()),
        }
    }

    fn misfit(&self, problem: String) -> TransformError {
        TransformError::Output { output: self.output.clone(), problem }
    }

    fn label(&self, class: usize, score: f32) -> std::borrow::Cow<'_, str> {
        let reaches =
            self.selects().is_some() || self.threshold.is_none_or(|threshold| score >= threshold);
        match &self.labels {
            _ if score.is_nan() || !reaches => self.below.as_str().into(),
            Some(labels) => labels[class].as_str().into(),
            None => class.to_string().into(),
        }
    }

    /// Makes the outer outputs of probabilities, `[rows, classes]`, in the order of `ranks`.
    fn answer(
        &self,
        ranks: &[f32],
        probabilities: Vec<f32>,
        classes: usize,
    ) -> Result<Tensors, TensorError> {
        let rows = probabilities.len() / classes;
        let best = self.top_k.map_or(1, NonZeroUsize::get);
        let mut scores = Vec::with_capacity(rows * best);
        let mut labels = Vec::with_capacity(rows * best);
        for (row, ranks) in probabilities.chunks_exact(classes).zip(ranks.chunks_exact(classes)) {
            let mut take = |class: usize| {
                scores.push(row[class]);
                labels.push(self.label(class, row[class]));
            };
            match best {
                1 => take(largest_one(ranks)),
                _ => largest(ranks, best).into_iter().for_each(take),
            }
        }
        let shape = || match self.top_k {
            None => outhaul_types::Shape::from([rows]),
            Some(_) => outhaul_types::Shape::from([rows, best]),
        };
        let strings: Strings = labels.iter().map(|label| label.as_bytes()).collect();
        let selected = self.selects().map(|threshold| {
            let reaches = probabilities.iter().map(|&score| score >= threshold);
            Tensor::from_bools([rows, classes], reaches)
        });
        let mut answer: Tensors = smallvec![
            Tensor::from_strings(shape(), strings)?,
            Tensor::from_vec(shape(), scores)?,
            Tensor::from_vec([rows, classes], probabilities)?,
        ];
        answer.extend(selected.transpose()?);
        Ok(answer)
    }
}

impl OutputSide for Classes {
    fn finish(&self, part: &Part, outputs: &[Tensor]) -> Result<Tensors, TransformError> {
        let given = output_at(outputs, self.index, &self.output)?;
        let rows = part.rows.len();
        let numbers = self.numbers(given, rows)?;
        let classes = classes_of(numbers, self.labels.as_deref().map(<[String]>::len));
        self.check(classes)?;
        let given = floats(given, &self.output)?;
        let is_binary = numbers < classes;
        let probabilities: Vec<f32> = match (self.activation, is_binary) {
            (Activation::Softmax, _) => {
                let shares = |row| {
                    let softmax = Softmax::of(row);
                    row.iter().map(move |&number| softmax.share(number))
                };
                given.chunks_exact(classes).flat_map(shares).collect()
            }
            (Activation::Sigmoid, false) => given.iter().map(|&number| sigmoid(number)).collect(),
            (Activation::None, false) => given.to_vec(),
            // In place of 1 - p, which has few digits left where p is close to 1.
            (Activation::Sigmoid, true) => {
                given.iter().flat_map(|&number| [sigmoid(-number), sigmoid(number)]).collect()
            }
            (Activation::None, true) => {
                given.iter().flat_map(|&number| [1.0 - number, number]).collect()
            }
        };
        let answer = match is_binary {
            true => self.answer(&probabilities.clone(), probabilities, classes),
            // What rounds to the same probability may still be told apart.
            false => self.answer(&given, probabilities, classes),
        };
        answer.map_err(|error| self.misfit(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
